/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Algorithms for powers of two serve any number of ranks by folding: one exchange of the whole
 * vector before, one after (Rabenseifner, Traeff, "More efficient reduction algorithms for
 * non-power-of-two number of processors", 2004, section 3). The picture is in algorithm.h.
 */
#include "collectives/algorithm/algorithm.h"

struct kolo__fold kolo__fold_of(uint32_t rank, uint32_t size)
{
    struct kolo__fold fold = {.nodes = 1};
    while (fold.nodes <= size / 2)
        fold.nodes *= 2;
    fold.extra = size - fold.nodes;
    bool paired = rank < 2 * fold.extra;
    fold.idle = paired && rank % 2 == 0;
    fold.node = paired ? rank / 2 : rank - fold.extra;
    return fold;
}

uint32_t kolo__fold_rank(const struct kolo__fold *fold, uint32_t node)
{
    return node < fold->extra ? 2 * node + 1 : node + fold->extra;
}

enum kolo__buffer kolo__fold_in(struct kolo__schedule *s, const struct kolo__fold *fold,
                                enum kolo__buffer from)
{
    uint32_t rank = s->problem.rank;
    size_t count = s->problem.count;
    if (rank >= 2 * fold->extra)
        return from;
    if (fold->idle) {
        kolo__schedule_send(s, rank + 1, kolo__here(s, from, 0), count);
        return from;
    }
    kolo__schedule_recv_reduce(s, rank - 1, kolo__here(s, from, 0), kolo__here(s, KOLO__OUTPUT, 0),
                               count, KOLO__INCOMING_FIRST);
    return KOLO__OUTPUT;
}

void kolo__fold_out(struct kolo__schedule *s, const struct kolo__fold *fold)
{
    uint32_t rank = s->problem.rank;
    if (rank >= 2 * fold->extra)
        return;
    struct kolo__place output = kolo__here(s, KOLO__OUTPUT, 0);
    if (fold->idle)
        kolo__schedule_recv(s, rank + 1, output, s->problem.count);
    else
        kolo__schedule_send(s, rank - 1, output, s->problem.count);
}

uint32_t kolo__fold_flows_in(const struct kolo__flow_problem *problem,
                             const struct kolo__fold *fold, struct kolo__flow_sink *sink)
{
    if (fold->idle) {
        sink->send(sink, 0, problem->rank + 1, problem->count);
        sink->chain(sink, 0, 1);
    }
    return fold->extra > 0 ? 1 : 0;
}

void kolo__fold_flows_out(const struct kolo__flow_problem *problem, const struct kolo__fold *fold,
                          uint32_t phase, struct kolo__flow_sink *sink)
{
    if (problem->rank >= 2 * fold->extra || fold->idle)
        return;
    sink->send(sink, phase, problem->rank - 1, problem->count);
    sink->chain(sink, phase, 1);
}
