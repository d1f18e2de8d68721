/* SPDX-License-Identifier: Apache-2.0 */
/* The allreduces of one epoch: each rank's is right, or ends with a status that says why not. */
#include "job.h"

#include "base/assert.h"
#include "collectives/execute.h"
#include "collectives/transport/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT_MAX = 500, STEPS_MAX = 3 };
static const uint64_t DEADLINE_NS = 400 * 1000 * 1000, DEATHS_NS = 30 * 1000;

struct world {
    struct job *job;
    struct kolo__sim *sim;
    const struct kolo__algorithm *algorithm;
    uint8_t algorithm_index;
    size_t count;
    uint32_t steps, stale; /* stale: this rank believes in the epoch before; size: none does */
    struct kolo__sim_fate fates[JOB_RANKS_MAX];
    struct kolo__program *programs[JOB_RANKS_MAX];
    uint32_t begun[JOB_RANKS_MAX];
    int32_t buffers[JOB_RANKS_MAX][COUNT_MAX];
};

/* What a process contributes to an element: other in each epoch and step, so what is left of an
 * earlier one is never right by chance. */
static int32_t value_of(const struct job *job, uint32_t id, uint32_t step, size_t i)
{
    return (int32_t)((id + 1) * 100003 + job->membership.epoch * 1009 + step * 17 + i);
}

static void check(struct world *world, uint32_t rank)
{
    struct job *job = world->job;
    if (world->stale < job->size && world->count > 0)
        job_broken(job, "%s: rank %u has a result, and rank %u is of another epoch",
                   world->algorithm->name, rank, world->stale);
    for (size_t i = 0; i < world->count; i++) {
        int32_t sum = 0;
        for (uint32_t r = 0; r < job->size; r++)
            sum += value_of(job, job->members[r], world->begun[rank] - 1, i);
        if (world->buffers[rank][i] != sum) {
            job_broken(job, "%s: rank %u has %d in element %zu of step %u, the sum is %d",
                       world->algorithm->name, rank, world->buffers[rank][i], i,
                       world->begun[rank] - 1, sum);
            return;
        }
    }
    job->right++;
}

static struct kolo__program *next_program(void *self, uint32_t rank)
{
    struct world *world = self;
    struct job *job = world->job;
    if (world->begun[rank] > 0)
        check(world, rank);
    if (world->begun[rank] == world->steps)
        return NULL;
    uint32_t step = world->begun[rank]++;
    for (size_t i = 0; i < world->count; i++)
        world->buffers[rank][i] = value_of(job, job->members[rank], step, i);
    struct kolo__run_arguments arguments = {
        .input = world->buffers[rank],
        .output = world->buffers[rank],
        .signature = {.epoch = job->membership.epoch - (rank == world->stale),
                      .comm = 1,
                      .sequence = step + 1,
                      .collective = KOLO__ALLREDUCE,
                      .dtype = KOLO_INT32,
                      .op = KOLO_SUM,
                      .algorithm = world->algorithm_index,
                      .count = world->count},
        .transport = kolo__sim_transport(world->sim, rank),
        .mapping = kolo__sim_mapping(world->sim, rank)};
    kolo__run_begin(world->programs[rank], &arguments);
    return world->programs[rank];
}

/* ---- making it ---------------------------------------------------------------------------------
 */

static void draw_fates(struct world *world)
{
    struct job *job = world->job;
    for (uint32_t r = 0; r < job->size; r++) {
        struct kolo__sim_fate *fate = &world->fates[r];
        fate->lost_ns = job->processes[job->members[r]].dead ? 0 : KOLO__SIM_NEVER;
        if (fate->lost_ns != 0 && job_chance(job, 20))
            fate->lost_ns = kolo__random_below(&job->random, DEATHS_NS);
        if (job_chance(job, 20)) {
            fate->paused_ns = kolo__random_below(&job->random, DEATHS_NS);
            fate->resumed_ns = fate->paused_ns + kolo__random_below(&job->random, 2 * DEATHS_NS);
        }
    }
}

static void draw_algorithm(struct world *world, struct kolo__problem *problem)
{
    uint8_t count = 0;
    while (kolo__algorithms[count] != NULL)
        count++;
    do {
        world->algorithm_index = (uint8_t)kolo__random_below(&world->job->random, count);
        world->algorithm = kolo__algorithms[world->algorithm_index];
        KOLO__ASSERT(world->algorithm != NULL); /* the index is below their number */
    } while (world->algorithm->needs_host_mapping || !world->algorithm->accepts(problem));
}

static bool make(struct world *world)
{
    struct job *job = world->job;
    struct kolo__problem problem = {.collective = KOLO__ALLREDUCE,
                                    .size = job->size,
                                    .count = kolo__random_below(&job->random, COUNT_MAX),
                                    .in_place = true,
                                    .window_count =
                                        job->size + kolo__random_below(&job->random, 300)};
    const struct kolo__program_options options = {
        .dtype = KOLO_INT32,
        .op = KOLO_SUM,
        .segment_bytes = 4 + kolo__random_below(&job->random, 400),
        .depth = 1 + (uint32_t)kolo__random_below(&job->random, 3)};
    struct kolo__sim_options sim = {.size = job->size,
                                    .seed = kolo__random_u64(&job->random),
                                    .delay_ns = 100 + kolo__random_below(&job->random, 2000),
                                    .piece_bytes = kolo__random_below(&job->random, 300),
                                    .buffered_bytes = kolo__random_below(&job->random, 3) * 500,
                                    .fates = world->fates,
                                    .garbled = KOLO__SIM_NEVER};
    draw_algorithm(world, &problem);
    world->count = problem.count;
    world->steps = 1 + (uint32_t)kolo__random_below(&job->random, STEPS_MAX);
    if (world->algorithm->needs_mapping) {
        sim.slot_bytes = COUNT_MAX * sizeof(int32_t) + 48;
        sim.window_bytes = problem.window_count * sizeof(int32_t);
        sim.share_bytes = (2 * (sim.slot_bytes + 2 * sim.window_bytes) + 1024) / 64 * 64;
    }
    if (kolo__sim_create(&sim, &world->sim) != KOLO_OK)
        return false;
    for (uint32_t r = 0; r < job->size; r++) {
        struct kolo__schedule schedule;
        problem.rank = r;
        if (world->algorithm->build(&problem, &schedule) != KOLO_OK ||
            kolo__program_create(&schedule, &options, &world->programs[r]) != KOLO_OK)
            return false;
    }
    return true;
}

static void unmake(struct world *world)
{
    for (uint32_t r = 0; r < world->job->size && world->sim != NULL; r++) {
        struct kolo__transport *transport = kolo__sim_transport(world->sim, r);
        transport->ops->close(transport);
        kolo__program_free(world->programs[r]);
    }
    kolo__sim_free(world->sim);
}

/* ---- how it ends -------------------------------------------------------------------------------
 */

/* A loss that is told must be one; a mismatch, that of the stale rank. */
static void judge(struct world *world, uint32_t rank, kolo_status status,
                  const struct kolo__fault *fault)
{
    struct job *job = world->job;
    job_note(job, (uint64_t)status << 8 | rank);
    if (status == KOLO_OK)
        return;
    job->failed++;
    bool lost = status == KOLO_ERR_PEER_LOST && fault->peer >= 0 &&
                (uint32_t)fault->peer < job->size &&
                kolo__sim_lost(world->sim, (uint32_t)fault->peer);
    bool mismatch = status == KOLO_ERR_MISMATCH && world->stale < job->size;
    if (!lost && !mismatch)
        job_broken(job, "%s: rank %u ended with %s of rank %d: %s", world->algorithm->name, rank,
                   kolo_status_name(status), fault->peer, fault->text);
}

void job_steps(struct job *job)
{
    struct world *world = calloc(1, sizeof *world);
    kolo_status statuses[JOB_RANKS_MAX];
    struct kolo__fault faults[JOB_RANKS_MAX];
    char text[600];
    if (world == NULL) {
        job_broken(job, "no memory");
        return;
    }
    world->job = job;
    draw_fates(world);
    world->stale = job->size;
    if (job->membership.epoch > 0 && job->size > 1 && job_chance(job, 5))
        world->stale = (uint32_t)kolo__random_below(&job->random, job->size);
    if (!make(world)) {
        job_broken(job, "no memory");
    } else if (kolo__sim_drive(world->sim, next_program, world, DEADLINE_NS, statuses, faults, text,
                               sizeof text) != KOLO_OK) {
        job_broken(job, "%s stalls: %s", world->algorithm->name, text);
    } else {
        for (uint32_t r = 0; r < job->size; r++) {
            struct process *process = &job->processes[job->members[r]];
            if (!kolo__sim_lost(world->sim, r)) {
                judge(world, r, statuses[r], &faults[r]);
            } else if (!process->dead) {
                process->dead = true;
                job->deaths++;
            }
        }
        job_note(job, kolo__sim_trace(world->sim));
    }
    unmake(world);
    free(world);
}
