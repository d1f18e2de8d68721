/* SPDX-License-Identifier: Apache-2.0 */
/* What a rank runs: a loop of training as docs/ELASTIC.md has it, with a reducer. And what must
 * hold for it. */
#include "program.h"

#include "runtime/context.h"
#include "runtime/reducer/reducer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CALL_S = 30, VERDICT_S = 2, RENEWALS = 12 };

/* How long it may take that a loss is noticed; that a host is missed; that the rendezvous is. */
static const uint64_t TOLD_NS = 1 * SEC, FOUND_NS = 5500 * MS, MISSED_NS = 5500 * MS;

/* ---- what must hold --------------------------------------------------------------------------
 */

static void call(struct program *program)
{
    program->called_ns = world->now_ns;
    program->paused_ns = program->process->paused_ns;
}

/* It has returned in time; what it was stopped for does not count. */
static void returned(struct program *program, const char *what, uint64_t limit_ns)
{
    uint64_t took_ns = world->now_ns - program->called_ns;
    uint64_t stopped_ns = program->process->paused_ns - program->paused_ns;
    if (took_ns > stopped_ns + limit_ns)
        world_broken("process %u: %s took %.1f s, which may take %.1f s", program->process->id,
                     what, (double)(took_ns - stopped_ns) / 1e9, (double)limit_ns / 1e9);
}

/* Where nothing else befell the job, whoever waits hears of each loss in its epoch in time. */
static void noticed(const struct program *program)
{
    const struct epoch_seen *epoch = &world->epochs[program->context->epoch];
    uint64_t stopped_ns = program->process->paused_ns - program->paused_ns;
    for (uint32_t rank = 0; rank < epoch->size && world->serious == 0; rank++) {
        const struct process *lost = &world->processes[epoch->members[rank]];
        if (!lost->killed || epoch->members[rank] == 0)
            continue;
        uint64_t since_ns =
            lost->killed_ns > program->called_ns ? lost->killed_ns : program->called_ns;
        uint64_t took_ns = world->now_ns - since_ns, limit_ns = lost->silent ? FOUND_NS : TOLD_NS;
        /* Who tells it, and the way there: whoever finds a connection closed waits for a second to
         * be told why, which alone is more than TOLD_NS. */
        limit_ns += world->processes[0].paused_ns + program->process->unreached_ns;
        if (took_ns > stopped_ns + limit_ns)
            world_broken("process %u waits for %.3f s more, though process %u is lost",
                         program->process->id, (double)(took_ns - stopped_ns) / 1e9, lost->id);
    }
}

/* Whom the rendezvous cannot have heard for long, or who cannot have heard it, is out of it. Where
 * it was stopped it may have asked before, and been heard, whom it did not hear. */
static void check_heard(const struct process *process)
{
    const struct process *launcher = &world->processes[0];
    uint64_t stopped_ns =
        launcher->paused_until_ns > world->now_ns ? world->now_ns - launcher->paused_since_ns : 0;
    if (process->paused_ns == 0 &&
        (stopped_ns > MISSED_NS ||
         (launcher->paused_ns == 0 && net_cut_for(launcher, process) > MISSED_NS)))
        world_broken("process %u trains on, and has not had word of the rendezvous for %.1f s",
                     process->id, (double)MISSED_NS / 1e9);
}

/* All members of an epoch know the same of it, and each rank is one process. */
static void check_epoch(struct program *program)
{
    const kolo_context *context = program->context;
    struct process *process = program->process;
    if (context->epoch >= WORLD_EPOCHS_MAX || context->size > WORLD_RANKS_MAX) {
        world_broken("epoch %u with %u ranks", context->epoch, context->size);
        return;
    }
    struct epoch_seen *epoch = &world->epochs[context->epoch];
    uint32_t *member = &epoch->members[context->rank];
    if (!epoch->seen) {
        *epoch = (struct epoch_seen){.seen = true, .size = context->size};
        world->epochs_formed++;
    }
    if (epoch->size != context->size)
        world_broken("process %u: epoch %u has %u ranks, for another one %u", process->id,
                     context->epoch, context->size, epoch->size);
    if (*member != 0 && *member != process->id)
        world_broken("processes %u and %u are both rank %u of epoch %u", *member, process->id,
                     context->rank, context->epoch);
    world->entered += *member == 0 && context->epoch == 0;
    *member = process->id;
    world_note((uint64_t)context->epoch << 32 | context->rank << 16 | process->id);
}

/* What a text says of a process is so: it was killed, or stopped, or cut off; the same of the
 * rendezvous. */
static void check_text(const char *text)
{
    if (strstr(text, "(kolo run) has said nothing") != NULL && world->processes[0].paused_ns == 0 &&
        world->cuts + world->slowed == 0)
        world_broken("said of the rendezvous, which is not so: %.300s", text);
    for (const char *at = text; (at = strstr(at, ", pid ")) != NULL; at++) {
        unsigned pid = 0;
        int used = 0;
        if (sscanf(at, ", pid %u) %n", &pid, &used) != 1 || used == 0 || pid <= 1000 ||
            pid >= 1000 + world->process_count)
            continue;
        const struct process *process = &world->processes[pid - 1000];
        const char *what = at + used;
        bool killed = strncmp(what, "was killed", 10) == 0;
        bool stopped = strncmp(what, "is stopped", 10) == 0;
        bool silent = strncmp(what, "is silent", 9) == 0;
        bool cut_off = strncmp(what, "was lost with its host", 22) == 0;
        if ((killed && !process->killed) || (stopped && process->paused_ns == 0) ||
            (silent && process->paused_ns == 0 && world->cuts + world->lost_silently == 0) ||
            (silent && process->silent && process->paused_ns == 0) ||
            (cut_off && !process->silent && world->cuts == 0))
            world_broken("said of process %u, which is not so: %.300s", process->id, at);
    }
}

/* ---- the loop --------------------------------------------------------------------------------
 */

static kolo_status enter(void *self, kolo_comm *comm)
{
    check_epoch(self);
    return training_enter(self, comm);
}

static void pass_time(uint64_t most_ns)
{
    uint64_t ns = world_below(most_ns + 1) + world->current->stuck_ns;
    world->current->stuck_ns = 0;
    const struct timespec pause = {.tv_sec = (time_t)(ns / SEC), .tv_nsec = (long)(ns % SEC)};
    nanosleep(&pause, NULL);
}

static kolo_status reduce(struct program *program, uint64_t step)
{
    for (size_t t = TENSORS; t-- > 0;) {
        kolo_status status = training_contribute(program, step, t);
        if (status != KOLO_OK)
            return status;
        if (world_chance(40))
            pass_time(world->plan.compute_ns / TENSORS);
    }
    call(program);
    world->overlapped += program->reducer->threaded && program->reducer->started > 0;
    kolo_status status = kolo_reducer_wait(program->reducer, -1);
    returned(program, "kolo_reducer_wait", (CALL_S + VERDICT_S) * SEC);
    noticed(program);
    if (status != KOLO_OK)
        return status;
    check_heard(program->process);
    training_check_averages(program, step);
    return training_update(program, step);
}

static bool begin_step(struct program *program, uint64_t *step)
{
    call(program);
    bool goes_on = kolo_elastic_begin_step(program->loop, step) != 0;
    returned(program, "kolo_elastic_begin_step", RENEWALS * (CALL_S + VERDICT_S) * SEC);
    return goes_on;
}

/* The second job goes on where the first has left its last checkpoint. */
static void check_begin(uint64_t step)
{
    if (world->begins_at == NEVER)
        return;
    if (step != world->begins_at)
        world_broken("the job begins with step %" PRIu64 ", and should with %" PRIu64, step,
                     world->begins_at);
    world->taken_up += step > 0;
}

/* What was begun by some had been done before by all of them, and is not lost without a word: whole
 * state, that is; of parts all go back to the last copies. */
static void check_progress(const struct program *program, uint64_t step)
{
    uint32_t number = program->context->epoch;
    struct epoch_seen *epoch = &world->epochs[number];
    for (uint32_t before = 0; before < number; before++)
        if (step < world->epochs[before].furthest)
            world_broken("process %u begins step %llu in epoch %u, and in epoch %u step %llu was "
                         "begun",
                         program->process->id, (unsigned long long)step, number, before,
                         (unsigned long long)world->epochs[before].furthest);
    epoch->furthest = step > epoch->furthest ? step : epoch->furthest;
}

/* A newcomer does not fail because another is lost while it comes. That it was lost itself, when it
 * was stopped until long after kolo_init's time, it may hear in the same words. */
static void check_coming(const struct process *process, kolo_status status)
{
    char itself[24];
    snprintf(itself, sizeof itself, ", pid %u)", 1000 + process->id);
    if (process->newcomer && status == KOLO_ERR_PEER_LOST &&
        strstr(kolo_error_text(), itself) == NULL &&
        strncmp(kolo_error_text(), "kolo_init: rank ", 16) == 0)
        world_broken("newcomer %u: %s", process->id, kolo_error_text());
}

static void train(struct program *program)
{
    uint64_t step;
    for (bool first = true; begin_step(program, &step); first = false) {
        if (first)
            check_begin(step);
        if (world->plan.checkpoint_every == 0 && !world->plan.sharded)
            check_progress(program, step);
        training_check_state(program, step);
        pass_time(world->plan.compute_ns);
        kolo_status status = reduce(program, step);
        world_note((uint64_t)status << 56 ^ step);
        if (status == KOLO_OK) {
            program->process->steps_done = step + 1;
            world->right++;
        } else {
            world->failed++;
            check_text(kolo_error_text());
            world_log("process %u: step %llu: %s", program->process->id, (unsigned long long)step,
                      kolo_error_text());
        }
        kolo_elastic_end_step(program->loop, status);
        if (program->process->leaves)
            kolo_elastic_leave(program->loop);
    }
}

/* Rank 0 has not ended well before the last step is on the disk; nor has any other, if it is there
 * in parts, of which some may be missing: unless rank 0 could not write. */
static void check_saved(const struct program *program)
{
    bool waits =
        program->context->rank == 0 || (world->plan.sharded && world->disk_full_until_ns == 0);
    if (world->plan.checkpoint_every > 0 && waits && world->damaged == 0 &&
        disk_last_good() != world->plan.steps)
        world_broken("process %u was rank %" PRIu32 " at the end, and the last checkpoint is of "
                     "step %" PRIu64 " of %" PRIu64,
                     program->process->id, program->context->rank, disk_last_good(),
                     world->plan.steps);
}

static kolo_status run(struct program *program)
{
    kolo_tensor state[STATES_MAX];
    const struct plan *plan = &world->plan;
    const kolo_elastic_options options = {.size = sizeof options,
                                          .enter = enter,
                                          .self = program,
                                          .steps = plan->steps,
                                          .copy_every = plan->copy_every,
                                          .compare_every = plan->compare_every,
                                          .checkpoint_folder =
                                              plan->checkpoint_every > 0 ? "/disk" : NULL,
                                          .checkpoint_every = plan->checkpoint_every};
    size_t count = training_state(program, state);
    kolo_status status =
        kolo_elastic_create(program->context, state, count, &options, &program->loop);
    if (status != KOLO_OK)
        return status;
    train(program);
    status = kolo_elastic_result(program->loop);
    if (status == KOLO_OK && kolo_elastic_left(program->loop))
        world->left++;
    else if (status == KOLO_OK) {
        training_check_state(program, world->plan.steps);
        check_saved(program);
    }
    return status;
}

static void end(struct program *program)
{
    struct process *process = program->process;
    size_t blocks;
    free(program);
    size_t bytes = memory_left(process, &blocks);
    if (blocks > 0 || file_count(process) > 0 || plane_count(process) > 0 ||
        system_mapping_count(process) > 0)
        world_broken("process %u, which ended with %s, has left %zu bytes in %zu blocks, %zu "
                     "descriptors, %zu transports, %zu heaps",
                     process->id, kolo_status_name(process->status), bytes, blocks,
                     file_count(process), plane_count(process), system_mapping_count(process));
    process->ended = true;
    world_log("process %u (place %u) ends: %s%s%s", process->id, process->place,
              kolo_status_name(process->status), process->status != KOLO_OK ? ": " : "",
              process->status != KOLO_OK ? process->error : "");
    world_note((uint64_t)process->status << 8 | process->id);
    launcher_heard(process);
}

extern char **environ;

void program_main(void *self)
{
    struct process *process = self;
    struct program *program = calloc(1, sizeof *program);
    program->process = process;
    pass_time(20 * MS); /* some are quicker to begin */
    environ = process->environment;
    kolo_status status = kolo__context_create(NULL, &program->context);
    check_coming(process, status);
    if (status == KOLO_OK)
        status = run(program);
    process->status = status;
    snprintf(process->error, sizeof process->error, "%s", kolo_error_text());
    if (program->context != NULL) {
        kolo_reducer_free(program->reducer);
        kolo_elastic_free(program->loop);
        free(program->momentum);
        call(program);
        kolo_status finalized = kolo_finalize(program->context);
        returned(program, "kolo_finalize", (CALL_S + VERDICT_S) * SEC);
        if (status == KOLO_OK && finalized != KOLO_OK)
            world_broken("process %u has done all steps, and kolo_finalize says: %s", process->id,
                         kolo_error_text());
    }
    process->recorder = NULL; /* released with the context */
    check_text(process->error);
    end(program);
}

/* ---- the end of a job ------------------------------------------------------------------------
 */

static bool is_typed(kolo_status status)
{
    return status == KOLO_ERR_PEER_LOST || status == KOLO_ERR_WORLD || status == KOLO_ERR_TIMEOUT ||
           status == KOLO_ERR_NETWORK || status == KOLO_ERR_ABORTED ||
           (status == KOLO_ERR_SYSTEM && world->disk_full_until_ns > 0);
}

/* Processes were killed, or went, after all had begun, and enough are left; and no worse befell the
 * job. Who is alone at the end of the last step fails where of its last parts one is damaged. */
static bool should_go_on(void)
{
    return !world->early_kill && !(world->plan.sharded && world->damaged > 0) &&
           world->lost_silently == 0 && world->serious == 0 &&
           world->kills + world->left + world->plan.least <= world->plan.size;
}

/* Those who were ahead were killed while the others got their state from them. */
static bool has_lost_state(const struct process *process)
{
    return world->kills > 0 && (strstr(process->error, "has the whole state") != NULL ||
                                strstr(process->error, "part of the state is lost") != NULL);
}

static void judge(const struct process *process)
{
    const char *name = kolo_status_name(process->status);
    world->ended_well += process->status == KOLO_OK;
    world->ended_badly += process->status != KOLO_OK;
    if (process->status == KOLO_OK)
        return;
    if (world->plan.faults == 0 || world->begins_at != NEVER)
        world_broken("nothing befell the job, and process %u ended with %s: %s", process->id, name,
                     process->error);
    if (!is_typed(process->status))
        world_broken("process %u ended with %s: %s", process->id, name, process->error);
    if (should_go_on() && !process->newcomer && !has_lost_state(process))
        world_broken(
            "%u of %u processes were killed, %u may train, and process %u ended with %s: %s",
            world->kills, world->plan.size, world->plan.least, process->id, name, process->error);
}

void program_check_all(void)
{
    for (uint32_t id = world->job_first; id < world->process_count; id++)
        if (!world->processes[id].killed)
            judge(&world->processes[id]);
}
