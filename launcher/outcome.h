/* SPDX-License-Identifier: Apache-2.0 */
/* Which rank failed first, and what that means for the job's exit code. Pure functions. */
#ifndef KOLO_LAUNCHER_OUTCOME_H
#define KOLO_LAUNCHER_OUTCOME_H

#include <kolo/kolo.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How a rank's process ended. */
struct kolo__ending {
    bool ended;
    bool asked;    /* the launcher had sent it a signal to end before */
    bool survived; /* it failed, and the others went on without it (--min) */
    const char
        *lost; /* NULL, or how its host or agent was lost: then there is no wait status; borrowed */
    int wait_status;
    uint64_t at_ns; /* when the launcher saw it */
    int expelled;   /* 1: the others go on without it, though it runs; 2: it was told to end, 3:
                       killed */
    uint64_t expelled_due_ns; /* when the next of these is due; 0: nothing is */
    uint64_t leave_by_ns; /* its place is gone, it was told to leave, and is killed then; 0: no */
};

bool kolo__ending_is_failure(const struct kolo__ending *ending);
/* By SIGTERM it was told to go, as by whoever drains its host, and it left the others in good
 * order: code 143 (kolo_elastic_left). */
bool kolo__ending_is_departure(int wait_status);
/* "was killed by signal 9 (SIGKILL)", "exited with code 3". Returns text. */
const char *kolo__ending_text(const struct kolo__ending *ending, char *text, size_t bytes);
/* The job's exit code for what kept its world from forming (KOLO_OK: nothing), whatever code the
 * ranks made of that; 0: only the first failure tells. */
int kolo__obstacle_exit_code(kolo_status obstacle);
/* The job's exit code when this ending is its first failure: 76 also for one with code 0, of a rank
 * that the others needed; 75 where the world had not formed. */
int kolo__ending_exit_code(const struct kolo__ending *ending, bool formed);

/*
 * The rank that failed first, of those that ended by themselves; -1: none failed.
 *
 * A rank that ends with code 0 has failed if the rendezvous calls it lost and another failed.
 * A rank that dies takes others with it within milliseconds, and the launcher may see them in
 * another order than they died in. So the rank that the rendezvous calls lost (lost_rank, -1:
 * none) comes first, and among ranks that ended at almost the same time those killed by a signal.
 */
int kolo__first_failure(const struct kolo__ending *endings, uint32_t ranks, int lost_rank);
/* Of a job in which others went on after each failure, until nobody was left: the last of them. -1:
 * some rank ended well, or none failed by itself. */
int kolo__last_failure(const struct kolo__ending *endings, uint32_t ranks);

#endif
