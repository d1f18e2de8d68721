/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drives the programs of all ranks of a simulation to their end. It stands in for the callers that
 * wait (who run in any order, some often, some seldom) and for the control plane (which tells
 * everybody of the first fault).
 */
#include "collectives/transport/sim_world.h"

#include <stdio.h>

static bool all_ended(const struct kolo__sim *sim, const kolo_status *statuses)
{
    for (uint32_t r = 0; r < sim->options.size; r++)
        if (statuses[r] == KOLO_AGAIN && !kolo__sim_lost(sim, r))
            return false;
    return true;
}

static bool is_paused(const struct kolo__sim *sim, uint32_t rank)
{
    const struct kolo__sim_fate *fates = sim->options.fates;
    return fates != NULL && sim->now_ns >= fates[rank].paused_ns &&
           sim->now_ns < fates[rank].resumed_ns;
}

static void describe(const struct kolo__sim *sim, const kolo_status *statuses, char *text,
                     size_t bytes)
{
    size_t used = 0;
    for (uint32_t r = 0; r < sim->options.size && used < bytes; r++) {
        char state[160];
        const char *what = statuses[r] == KOLO_AGAIN
                               ? kolo__run_state(sim->ranks[r].program, state, sizeof(state))
                               : kolo_status_name(statuses[r]);
        int n =
            snprintf(text + used, bytes - used, "%srank %u: %s", used == 0 ? "" : "; ", r, what);
        used += n > 0 ? (size_t)n : 0;
    }
}

/* A rank's turn; it goes on to its next program at once. */
static void advance_rank(struct kolo__sim_rank *rank, kolo__sim_next *next, void *self,
                         kolo_status *status, struct kolo__fault *fault)
{
    rank->transport.ops->progress(&rank->transport);
    if (*status != KOLO_AGAIN)
        return;
    *status = kolo__run_progress(rank->program, NULL, fault);
    if (*status != KOLO_OK)
        return;
    rank->program = next(self, rank->transport.rank);
    if (rank->program != NULL)
        *status = KOLO_AGAIN;
}

kolo_status kolo__sim_drive(struct kolo__sim *sim, kolo__sim_next *next, void *self,
                            uint64_t deadline_ns, kolo_status *statuses, struct kolo__fault *faults,
                            char *text, size_t text_bytes)
{
    uint32_t size = sim->options.size;
    const struct kolo__fault *first = NULL;
    uint64_t told_ns = 0; /* when everybody knows of the first fault */
    for (uint32_t r = 0; r < size; r++) {
        sim->ranks[r].program = next(self, r);
        statuses[r] = sim->ranks[r].program == NULL ? KOLO_OK : KOLO_AGAIN;
        faults[r] = (struct kolo__fault){.peer = -1};
    }
    while (!all_ended(sim, statuses)) {
        if (sim->now_ns >= deadline_ns) {
            describe(sim, statuses, text, text_bytes);
            return KOLO_ERR_TIMEOUT;
        }
        for (uint32_t turn = 0; turn < size; turn++) {
            uint32_t r = (uint32_t)kolo__random_below(&sim->random, size);
            if (kolo__sim_lost(sim, r) || is_paused(sim, r))
                continue;
            advance_rank(&sim->ranks[r], next, self, &statuses[r], &faults[r]);
            if (first == NULL && faults[r].status != KOLO_OK) {
                first = &faults[r];
                told_ns = kolo__sim_later(sim);
            }
        }
        kolo__sim_step(sim);
        if (first != NULL && sim->now_ns >= told_ns) {
            for (uint32_t r = 0; r < size; r++)
                sim->ranks[r].transport.ops->fail(&sim->ranks[r].transport, first);
        }
    }
    return KOLO_OK;
}
