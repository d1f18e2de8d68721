/* SPDX-License-Identifier: Apache-2.0 */
/* Which rank failed first, and what that means for the job's exit code. Pure functions. */
#ifndef KOLO_LAUNCHER_OUTCOME_H
#define KOLO_LAUNCHER_OUTCOME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How a rank's process ended. */
struct kolo__ending {
    bool ended;
    bool asked; /* the launcher had sent it a signal to end before */
    int wait_status;
    uint64_t at_ns; /* when the launcher saw it */
};

bool kolo__ending_is_failure(const struct kolo__ending *ending);
/* "was killed by signal 9 (SIGKILL)", "exited with code 3". Returns text. */
const char *kolo__ending_text(const struct kolo__ending *ending, char *text, size_t bytes);
/* The job's exit code when this ending is its first failure. */
int kolo__ending_exit_code(const struct kolo__ending *ending);

/*
 * The rank that failed first, of those that ended by themselves; -1: none failed.
 *
 * A rank that dies takes others with it within milliseconds, and the launcher may see them in
 * another order than they died in. So the rank that the rendezvous calls lost (lost_rank, -1:
 * none) comes first, and among ranks that ended at almost the same time those killed by a signal.
 */
int kolo__first_failure(const struct kolo__ending *endings, uint32_t ranks, int lost_rank);

#endif
