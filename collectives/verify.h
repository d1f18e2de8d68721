/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Proves a set of schedules (one per rank) right without running it: symbolic execution of all
 * ranks together.
 *
 * Every element is tracked as a set of contributions: the sum of weights w(rank) over the ranks
 * whose input it holds, how many there are, and which input element they came from. With
 * w(r) = 2^r for up to 64 ranks, (sum, number) = (2^p - 1, p) holds if and only if every rank
 * is in it exactly once (2^p - 1 has popcount p, so p powers of two can sum to it in one way only);
 * above 64 ranks the weights are random 64-bit numbers, and a wrong set passes with probability
 * 2^-64.
 *
 * Checked:
 *
 *   - every OUTPUT element gets exactly the right contributions, passes FINISH exactly once if it
 *     is reduced, and each contribution passes PRESCALE exactly once if that is wanted; an
 *     allreduce combines in the same order on all ranks (the same bits); a barrier ends after all
 * began;
 *   - INPUT is not written, nothing outside any buffer is touched, nothing unwritten is read;
 *   - sends and receives match in order and in count, and the schedules end under the most
 *     restrictive execution allowed (no hidden buffering, `window` steps of a rank in flight);
 *   - accesses to memory of other ranks are ordered by ARRIVE and AWAIT, also across `repeat`
 *     consecutive operations, however early or late messages move between fences;
 *   - all this wherever EXPOSED_* lie: in windows; in the callers' buffers, then without the fences
 *     that only windows need; or on some ranks so and on others so; or on every other host so; and,
 *     where that makes a difference, with an OUTPUT that is not mapped and has no windows. In each
 *     of these runs the copies that it leaves out are left out.
 *
 * Steps that change nothing may pass unnoticed: a copy done twice, an AWAIT done twice, a copy of
 * no elements left out. It takes memory for every element (verify_state.h): prove with small
 * counts.
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
    uint32_t waits_max;        /* AWAIT steps of any one rank */
    uint32_t window_waits_max; /* of those, left out where all buffers are mapped */
    /* Elements read and written by COPY and REDUCE, all ranks, all buffers mapped; without copies
     * between a rank's own INPUT and EXPOSED_IN, EXPOSED_OUT and OUTPUT, which cost nothing in
     * mapped buffers. */
    size_t mapped_loads_all;
    size_t mapped_stores_all;
    size_t remote_loads_all;  /* of those loads, out of other ranks' memory */
    size_t remote_stores_all; /* and of the stores, into other ranks' memory */
    size_t window_copies_all; /* those copies */
};

struct kolo__verify_options {
    uint32_t window;         /* as in the executor: KOLO__EXECUTE_WINDOW; 1 to 64 */
    uint32_t repeat;         /* run this many operations back to back (mapped algorithms: 3) */
    const uint32_t *host_of; /* by rank: who shares memory with whom; NULL: all do */
};

/* schedules: size entries, entry r of rank r. Returns KOLO_OK and fills cost (may be NULL), or
 * KOLO_ERR_INVALID with a sentence in text (rank, step, element, what is wrong), or
 * KOLO_ERR_MEMORY. */
kolo_status kolo__verify(const struct kolo__schedule *schedules, uint32_t size,
                         const struct kolo__verify_options *options, struct kolo__cost *cost,
                         char *text, size_t text_bytes);

#endif
