/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ranks of a job that run on this machine, as children of this process: `kolo run` itself where
 * all of them are here, or a host's agent. They are known by local rank.
 */
#ifndef KOLO_LAUNCHER_CREW_H
#define KOLO_LAUNCHER_CREW_H

#include "launcher/guard.h"
#include "launcher/recorders.h"
#include "launcher/spawn.h"

struct kolo__crew {
    const char *job;          /* borrowed */
    struct kolo__spawn spawn; /* of its ranks; what it points to is borrowed */
    struct kolo__guard guard; /* started by kolo__crew_open */
    struct kolo__child *children;
    bool *ended;
    uint32_t capacity, started, running;
    struct kolo__flight_memory flight; /* of all its ranks */
    uint64_t ended_at_ns;              /* 0: some rank runs */
};

/* Call it before anything is opened that the guard must not hold. Makes this process the parent of
 * what its ranks leave behind. */
kolo_status kolo__crew_open(struct kolo__crew *crew, const char *job);
/* Starts local ranks 0, 1, ... as ranks[0], ranks[1], ... of the world. After a failure those
 * before it run; *exec_errno as in kolo__spawn_rank. What spawn points to must outlive the crew,
 * if ranks are started again. */
kolo_status kolo__crew_start(struct kolo__crew *crew, const struct kolo__spawn *spawn,
                             const uint32_t *ranks, uint32_t count, int *exec_errno);
/* Starts a rank that has ended once more, as a newcomer; or one more, while there is room. Errors
 * as above. */
kolo_status kolo__crew_start_again(struct kolo__crew *crew, uint32_t rank, uint32_t local_rank,
                                   int *exec_errno);
/* To the process group of every rank that runs. Those who are to end must run to hear it. */
void kolo__crew_signal(const struct kolo__crew *crew, int number);

/* The same of one; nothing, if it has ended. */
void kolo__crew_signal_one(const struct kolo__crew *crew, uint32_t local_rank, int number);

typedef void kolo__crew_ended(void *self, uint32_t local_rank, int wait_status);
/* Tells of the ranks that have ended; reaps also what they left behind. */
void kolo__crew_reap(struct kolo__crew *crew, kolo__crew_ended *ended, void *self);
/* Once all ranks have ended: leaves their children a moment, then kills until none is found.
 * impatient: without that moment. True when nothing is left, or nothing can be done about it. Call
 * it again after a while otherwise. */
bool kolo__crew_clear(struct kolo__crew *crew, bool impatient);
/* What its ranks have recorded. Free it in any case. */
kolo_status kolo__crew_recorders(const struct kolo__crew *crew, struct kolo__recorders *recorders);
void kolo__crew_close(struct kolo__crew *crew);

#endif
