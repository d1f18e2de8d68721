/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Proves a set of schedules (one per rank) right without running it: symbolic execution of all ranks
 * together.
 *
 * Every element is tracked as a set of contributions: the sum of weights w(rank) over the ranks
 * whose input it holds, how many there are, and which input element they came from. With
 * w(r) = 2^r for up to 64 ranks, (sum, number) = (2^p - 1, p) holds if and only if every rank
 * is in it exactly once (2^p - 1 has popcount p, so p powers of two can sum to it in one way only); above
 * 64 ranks the weights are random 64-bit numbers, and a wrong set passes with probability 2^-64.
 *
 * Checked: every output element gets exactly the right contributions; INPUT is not written (unless in place) and nothing outside
 * any buffer is touched; sends and receives match in order and in count; the schedules finish under the most restrictive
 * execution allowed (a send completes only when its receive is reached: no hidden buffering; at
 * most `window` steps of a rank in flight); accesses to mapped buffers of other ranks are ordered by ARRIVE/AWAIT
 * (vector clocks), also across `repeat` consecutive operations; each reduced element passes
 * FINISH exactly once, and each contribution PRESCALE exactly once when prescale is wanted.
 */
#ifndef KOLO_COLLECTIVES_VERIFY_H
#define KOLO_COLLECTIVES_VERIFY_H

#include "collectives/schedule.h"

/* What the run cost, to compare with the formulas in docs/ARCHITECTURE.md. */
struct kolo__cost {
    uint32_t rounds;          /* longest chain of messages, each depending on the one before */
    size_t elements_sent_max; /* of any one rank */
    size_t elements_sent_all;
    uint64_t messages_all;
    uint32_t waits_max;       /* AWAIT steps of any one rank */
    size_t mapped_loads_all;  /* elements read and written by COPY and REDUCE, all ranks */
    size_t mapped_stores_all;
};

struct kolo__verify_options {
    uint32_t window; /* as in the executor: KOLO__EXECUTE_WINDOW */
    uint32_t repeat; /* run this many operations back to back (mapped algorithms: 3) */
};

/* schedules: size entries, entry r of rank r. Returns KOLO_OK and fills cost (may be NULL), or
 * KOLO_ERR_INVALID with a sentence in text (rank, step, element, what is wrong), or KOLO_ERR_MEMORY. */
kolo_status kolo__verify(const struct kolo__schedule *schedules, uint32_t size,
                         const struct kolo__verify_options *options, struct kolo__cost *cost,
                         char *text, size_t text_bytes);

#endif
