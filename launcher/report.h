/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is said at a job's end, of all that is known: which rank failed first, why, and what became
 * of the others in consequence. One line, for the log and for whoever asks Kubernetes. Pure
 * functions.
 */
#ifndef KOLO_LAUNCHER_REPORT_H
#define KOLO_LAUNCHER_REPORT_H

#include "launcher/outcome.h"

struct kolo__report_facts {
    const struct kolo__ending *endings; /* by rank, of those that were started */
    uint32_t started;
    uint32_t first_rank; /* number of the first in the world */
    int first;           /* kolo__first_failure; -1: none */
    /* What the rendezvous spread: KOLO_OK: nothing, or it is elsewhere. rank: -1: nobody's fault.
     */
    kolo_status fault;
    int fault_rank;
    uint64_t fault_ns;
    const char *fault_text;
    /* As kolo__rendezvous_word tells it; NULL: there is none. */
    const char *word;
    kolo_status word_status;
    int word_rank; /* -1: unknown */
    uint64_t word_ns;
};

/* The rendezvous found the cause before any process ended of it: a rank that is stopped, a host or
 * a link that is cut off. What ended afterwards did so in consequence. */
bool kolo__report_begins_with_fault(const struct kolo__report_facts *facts);

/* Of a job that begins with a fault: 76, or 75 where the ranks that failed of it say so, as of a
 * network between them that never was there. */
int kolo__report_exit_code(const struct kolo__report_facts *facts);

/* "; in consequence 2 of the other 3 ranks failed (exit code 1), 1 was ended"; "" when there are no
 * others. Returns text. */
const char *kolo__report_others(const struct kolo__report_facts *facts, char *text, size_t bytes);

/* where: "host node7, pid 4711" of the first; omission and said: what it has not done, and its last
 * words, both possibly "". Returns text. */
const char *kolo__report_line(const struct kolo__report_facts *facts, const char *where,
                              const char *omission, const char *said, char *text, size_t bytes);

#endif
