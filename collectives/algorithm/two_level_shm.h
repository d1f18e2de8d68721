/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of two_level_shm, shared by its files and by nobody else:
 *
 *   two_level_shm.c         which is which; what a round is; allreduce
 *   two_level_shm_rooted.c  broadcast, reduce to root
 *   two_level_shm_slices.c  reduce_scatter
 */
#ifndef KOLO_COLLECTIVES_ALGORITHM_TWO_LEVEL_SHM_H
#define KOLO_COLLECTIVES_ALGORITHM_TWO_LEVEL_SHM_H

#include "collectives/algorithm/algorithm.h"

/* Rounds between the combination of lanes and the push of what comes of them; pieces of a window.
 */
enum { KOLO__LAG = 2, KOLO__LAG_PIECES = KOLO__LAG + 2 };

/* What the emitting functions share. */
struct kolo__two_levels {
    struct kolo__schedule *s;
    struct kolo__levels levels;
    struct kolo__place *sources; /* `size` entries */
    size_t piece, rounds;        /* elements of a round, of each slice; rounds of count elements */
    size_t area;                 /* elements of SCRATCH a round, of which there are LAG_PIECES */
};

struct kolo__span {
    size_t first, end;
};

/* Elements of a round, of a lane in them, and of the lanes that this rank leads. */
struct kolo__span kolo__two_level_round(const struct kolo__two_levels *b, size_t round);
struct kolo__span kolo__two_level_lane(const struct kolo__two_levels *b, struct kolo__span round,
                                       uint32_t lane);
struct kolo__span kolo__two_level_own(const struct kolo__two_levels *b, struct kolo__span round);

static inline bool kolo__two_level_alone(const struct kolo__two_levels *b)
{
    return kolo__levels_local_size(&b->levels) == 1;
}

/* Of the ranks of this host; nothing for one that is alone. */
void kolo__two_level_fence(const struct kolo__two_levels *b, uint32_t flags);
/* After this phase, in which round phase + 1 was filled and round phase - LAG pushed. */
void kolo__two_level_close(const struct kolo__two_levels *b, size_t phase);
/* Own INPUT to the window, without own lanes where only this rank reads them. */
void kolo__two_level_fill(const struct kolo__two_levels *b, size_t round);
/* INPUT[first, end) to the window. */
void kolo__two_level_fill_input(const struct kolo__two_levels *b, size_t first, size_t end);
/* Where SCRATCH has an element of own lanes. */
struct kolo__place kolo__two_level_scratch(const struct kolo__two_levels *b, size_t round,
                                           size_t element);
/* Own lanes of all ranks of this host into SCRATCH. */
void kolo__two_level_combine(const struct kolo__two_levels *b, size_t round);
/* INPUT[first, end) of all ranks of this host, in the order of ranks, to a place of this one. */
void kolo__two_level_combine_range(const struct kolo__two_levels *b, size_t first, size_t end,
                                   struct kolo__place to);
/* Own lanes into the window or OUTPUT of another rank of this host. */
void kolo__two_level_push(const struct kolo__two_levels *b, size_t round, struct kolo__place from,
                          uint32_t peer);
/* From OUTPUT to all of them. */
void kolo__two_level_push_to_all(const struct kolo__two_levels *b, size_t round);
/* What the others have pushed. */
void kolo__two_level_empty(const struct kolo__two_levels *b, size_t round);

void kolo__two_level_broadcast(const struct kolo__two_levels *b);
void kolo__two_level_reduce(const struct kolo__two_levels *b);
void kolo__two_level_reduce_scatter(struct kolo__two_levels *b);

#endif
