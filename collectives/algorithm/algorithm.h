/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the algorithms share. To add one: write its file here, name it below, and put it into
 * kolo__algorithms in schedule.c; the tests find it there and prove it.
 */
#ifndef KOLO_COLLECTIVES_ALGORITHM_ALGORITHM_H
#define KOLO_COLLECTIVES_ALGORITHM_ALGORITHM_H

#include "collectives/cost.h"
#include "collectives/flows.h"
#include "collectives/schedule.h"

extern const struct kolo__algorithm kolo__recursive_doubling, kolo__tree, kolo__double_binary_tree,
    kolo__halving_doubling, kolo__ring, kolo__pairwise, kolo__two_level, kolo__shm_one_shot,
    kolo__shm_direct, kolo__two_level_shm;

/* ---- what it costs (collectives/cost.h) --------------------------------------------------- */

/* What the formulas speak of; some ask kolo__cost_memory for more. */
struct kolo__cost_terms {
    double a, B, G; /* seconds: a message, a byte sent by the slowest link used, a byte reduced */
    double local_a, local_B;
    double fence, next_fence;             /* the first ARRIVE and AWAIT, a later one */
    const struct kolo__cost_model *model; /* for kolo__cost_memory */
    double n;                             /* bytes of the whole vector */
    double p;                             /* ranks */
    double h;                             /* ceil(lg p) */
    double q, N;                          /* ranks per host, hosts */
    double halves; /* 2: results move as the contributions did (allreduce, reduce); else 1 */
    bool power_of_two;
    bool reduces;
    bool one_source; /* broadcast */
};

/* ---- every algorithm (common.c) ------------------------------------------------------------- */

/* A place of the schedule's own rank. */
static inline struct kolo__place kolo__here(const struct kolo__schedule *s,
                                            enum kolo__buffer buffer, size_t offset)
{
    return kolo__place_of(s->problem.rank, buffer, offset);
}

/* A world of one: copies INPUT to OUTPUT. */
void kolo__schedule_alone(struct kolo__schedule *s);
/* Copies INPUT to `to` (own rank) and scales it when the problem asks for that. Nothing when the
 * two are the same memory and nothing is to be scaled. Only for the message algorithms. */
void kolo__schedule_copy_input(struct kolo__schedule *s, size_t offset, struct kolo__place to,
                               size_t count);
/* Where messages and reductions take this rank's contribution to an allreduce from: INPUT, or
 * OUTPUT after a scaled copy. */
enum kolo__buffer kolo__schedule_contribution(struct kolo__schedule *s);
/* The end of every build: KOLO_OK, or frees the schedule and returns KOLO_ERR_MEMORY. */
kolo_status kolo__schedule_built(struct kolo__schedule *s);

/* ---- rings of any ranks (ring.c) ------------------------------------------------------------ */

/* This rank's place in a ring that works on OUTPUT[offset, offset + count). */
struct kolo__ring_of {
    uint32_t position, size;
    uint32_t next, previous; /* ranks */
    size_t offset, count;
};

/* Leaves the reduction of slice `position` in OUTPUT. from: INPUT or OUTPUT. finish: KOLO__FINISH
 * when this completes the reduction, else 0. */
void kolo__ring_reduce(struct kolo__schedule *s, const struct kolo__ring_of *ring,
                       enum kolo__buffer from, uint32_t finish);
/* Spreads every rank's slice of OUTPUT to all. */
void kolo__ring_gather(struct kolo__schedule *s, const struct kolo__ring_of *ring);

/* ---- hosts of any numbers of ranks (levels.c) ------------------------------------------------ */

/*
 * The ranks of each host, and who of them leads what between hosts. Work between hosts is cut into
 * lanes, as many as the largest host has ranks; on every host each lane has a leader, and a rank
 * leads neighbouring lanes:
 *
 *     lane        0    1    2    3
 *     host of 4   0    1    2    3      the leader's number on its host
 *     host of 3   0    0    1    2
 *     host of 1   0    0    0    0
 *
 * Hosts are in the order of their first ranks.
 */
struct kolo__levels {
    uint32_t hosts, lanes;
    uint32_t host, local;          /* of this rank: its host, its number there */
    uint32_t first_lane, lane_end; /* which it leads */
    uint32_t *ranks;               /* by host; those of host h from first[h] to first[h + 1] */
    uint32_t *first;               /* hosts + 1 */
};

/* False: no memory. */
bool kolo__levels_init(const struct kolo__problem *problem, struct kolo__levels *levels);
void kolo__levels_free(struct kolo__levels *levels);
uint32_t kolo__levels_leader(const struct kolo__levels *levels, uint32_t host, uint32_t lane);
/* Ranks on this rank's host, itself included, and the i-th of them. */
uint32_t kolo__levels_local_size(const struct kolo__levels *levels);
uint32_t kolo__levels_local(const struct kolo__levels *levels, uint32_t i);
/* Several hosts, of which one has several ranks. */
bool kolo__levels_exist(const struct kolo__problem *problem);

/* ---- folding to a power of two (fold.c) ----------------------------------------------------- */

/*
 * Ranks 0, 1, ..., 2e - 1 pair up, e = size - 2^floor(lg size), and the odd one of each pair acts
 * for both; every later rank acts for itself. Neighbours are folded so that the order of nodes is
 * the order of ranks.
 *
 *     ranks   0   1   2   3   4   5        size 6, e = 2
 *              \  |    \  |   |   |
 *     nodes       0       1   2   3
 */
struct kolo__fold {
    uint32_t nodes; /* 2^floor(lg size) */
    uint32_t extra; /* e */
    uint32_t node;  /* of this rank; meaningless when idle */
    bool idle;      /* another rank acts for this one */
};

struct kolo__fold kolo__fold_of(uint32_t rank, uint32_t size);
uint32_t kolo__fold_rank(const struct kolo__fold *fold, uint32_t node);
/* Both ends of the first exchange; returns where the node's value now is. */
enum kolo__buffer kolo__fold_in(struct kolo__schedule *s, const struct kolo__fold *fold,
                                enum kolo__buffer from);
/* Both ends of the last one: the result goes to those that were idle. */
void kolo__fold_out(struct kolo__schedule *s, const struct kolo__fold *fold);
/* The same for kolo__algorithm.flows. Phase 0, if ranks are folded at all; returns the next. */
uint32_t kolo__fold_flows_in(const struct kolo__flow_problem *problem,
                             const struct kolo__fold *fold, struct kolo__flow_sink *sink);
void kolo__fold_flows_out(const struct kolo__flow_problem *problem, const struct kolo__fold *fold,
                          uint32_t phase, struct kolo__flow_sink *sink);

#endif
