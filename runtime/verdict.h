/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why does nobody move? Ranks that wait for more than a second tell the rendezvous which operations
 * they did last; two of them that did different things under the same number are a mismatch. This
 * catches what message headers cannot: both sides sending, or each waiting for the other.
 */
#ifndef KOLO_RUNTIME_VERDICT_H
#define KOLO_RUNTIME_VERDICT_H

#include "collectives/transport/transport.h"

enum { KOLO__VERDICT_RECENT = 16 };

/* The last operations of one communicator on one rank, oldest first; the last is the one it waits
 * in. */
struct kolo__verdict_report {
    uint32_t count;
    struct kolo__signature recent[KOLO__VERDICT_RECENT];
};

/* True when the reports of two ranks (numbered in the world) contradict each other; text then shows
 * both sides. */
bool kolo__verdict_mismatch(uint32_t rank_a, const char *host_a,
                            const struct kolo__verdict_report *a, uint32_t rank_b,
                            const char *host_b, const struct kolo__verdict_report *b, char *text,
                            size_t bytes);

#endif
