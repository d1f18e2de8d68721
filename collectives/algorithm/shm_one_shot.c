/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One shot in shared memory: for small messages, one wait.
 *
 *      everybody   copies INPUT into its own SLOT, arrives, waits for all,
 *      everybody   reads what it needs from everybody's SLOT
 *
 * Nobody waits for the readers at the end: the next operation uses the other of two areas, and the
 * one after begins to write only when all have arrived in the next, so have finished reading this.
 *
 * Cost of an allreduce: 1 wait; of shared memory each rank stores n (its SLOT) and loads (p-1)n
 * (the others' SLOTs), besides reading INPUT twice and writing OUTPUT. All ranks combine in the
 * order of ranks, so they get the same bits.
 */
#include "collectives/algorithm/algorithm.h"

#include <stdlib.h>

static void publish(struct kolo__schedule *s);
static void combine(struct kolo__schedule *s, size_t offset);
static void take(struct kolo__schedule *s, uint32_t peer, size_t offset, size_t to);

static bool accepts(const struct kolo__problem *problem)
{
    return problem->collective < KOLO__POINT_TO_POINT &&
           !(problem->collective == KOLO__ALLTOALL && problem->in_place);
}

static kolo_status build(const struct kolo__problem *problem, struct kolo__schedule *s)
{
    uint32_t rank = problem->rank;
    size_t count = problem->count;
    kolo__schedule_init(s, problem, kolo__shm_one_shot.name);
    if (problem->size == 1) {
        kolo__schedule_alone(s);
        return kolo__schedule_built(s);
    }
    publish(s);
    switch (problem->collective) {
    case KOLO__ALLREDUCE:
        combine(s, 0);
        break;
    case KOLO__REDUCE_SCATTER:
        combine(s, rank * count);
        break;
    case KOLO__REDUCE_TO_ROOT:
        if (rank == problem->root)
            combine(s, 0);
        break;
    case KOLO__BROADCAST:
        take(s, problem->root, 0, 0);
        break;
    case KOLO__ALLGATHER:
        for (uint32_t peer = 0; peer < problem->size; peer++)
            take(s, peer, 0, peer * count);
        break;
    case KOLO__ALLTOALL:
        for (uint32_t peer = 0; peer < problem->size; peer++)
            take(s, peer, rank * count, peer * count);
        break;
    default: /* a barrier is the fence alone */
        break;
    }
    return kolo__schedule_built(s);
}

static double seconds(const struct kolo__cost_terms *t)
{
    /* INPUT to SLOT, all SLOTs to OUTPUT; INPUT is read twice. */
    double touched = t->halves == 2 ? t->p + 3 : 4;
    double working_set = (touched - 1) * t->n;
    return t->fence + touched * t->n * kolo__cost_memory(t->model, working_set)->slot;
}

const struct kolo__algorithm kolo__shm_one_shot = {
    .name = "shm_one_shot",
    .needs_mapping = true,
    .fills_slot = true,
    .rounds_once = true,
    .accepts = accepts,
    .build = build,
    .seconds = seconds,
};

static void publish(struct kolo__schedule *s)
{
    /* What only the rank itself reads it takes from INPUT. */
    bool unread = s->problem.collective == KOLO__REDUCE_TO_ROOT &&
                  s->problem.rank == s->problem.root && !s->problem.prescale;
    if (s->input_count > 0 && !unread)
        kolo__schedule_copy_input(s, 0, kolo__here(s, KOLO__SLOT, 0), s->input_count);
    kolo__schedule_arrive(s, 0);
    kolo__schedule_await(s, 0);
}

static void combine(struct kolo__schedule *s, size_t offset)
{
    uint32_t size = s->problem.size;
    struct kolo__place *sources = malloc(size * sizeof(*sources));
    if (sources == NULL) {
        s->out_of_memory = true;
        return;
    }
    for (uint32_t peer = 0; peer < size; peer++)
        sources[peer] = kolo__place_of(peer, KOLO__SLOT, offset);
    /* One's own contribution is nearer, unless only SLOT has it scaled. */
    if (!s->problem.prescale)
        sources[s->problem.rank] = kolo__here(s, KOLO__INPUT, offset);
    kolo__schedule_reduce(s, sources, size, kolo__here(s, KOLO__OUTPUT, 0), s->output_count,
                          KOLO__FINISH);
    free(sources);
}

/* One's own part comes from INPUT, or is there already. */
static void take(struct kolo__schedule *s, uint32_t peer, size_t offset, size_t to)
{
    struct kolo__place output = kolo__here(s, KOLO__OUTPUT, to);
    if (peer == s->problem.rank)
        kolo__schedule_copy_input(s, offset, output, s->problem.count);
    else
        kolo__schedule_copy(s, kolo__place_of(peer, KOLO__SLOT, offset), output, s->problem.count,
                            0);
}
