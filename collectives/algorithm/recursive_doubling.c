/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recursive doubling: fewest steps, most bytes; for small messages.
 *
 *      0 <-> 1   2 <-> 3   4 <-> 5   6 <-> 7      distance 1
 *      0 <-----> 2   1 <-----> 3 ...              distance 2
 *      0 <-------------> 4 ...                    distance 4
 *
 * In each step a rank sends all it has to a partner and combines what it gets with that. The lower
 * group's value is the left operand on both sides, so all ranks end with the same bits.
 *
 * Cost: lg p' steps and n lg p' bytes, p' = 2^floor(lg p), two steps more when ranks are folded
 * (Thakur, Rabenseifner, Gropp, "Optimization of collective communication operations in MPICH",
 * 2005).
 *
 * Barrier is the dissemination of Hensgen, Finkel, Manber (1988), ceil(lg p) steps: in step k rank
 * r sends to r + 2^k. Each rank has one element as a token and passes on all tokens it got so far,
 * so the ranges tie every send to the receives before it, and whoever holds p tokens knows that all
 * are there. (Empty messages would touch no range, and be free to overtake each other.)
 */
#include "collectives/algorithm/algorithm.h"

static void allreduce(struct kolo__schedule *s);
static void barrier(struct kolo__schedule *s);

static bool accepts(const struct kolo__problem *problem)
{
    return problem->collective == KOLO__ALLREDUCE || problem->collective == KOLO__BARRIER;
}

static kolo_status build(const struct kolo__problem *problem, struct kolo__schedule *s)
{
    kolo__schedule_init(s, problem, kolo__recursive_doubling.name);
    if (problem->size == 1)
        kolo__schedule_alone(s);
    else if (problem->collective == KOLO__ALLREDUCE)
        allreduce(s);
    else
        barrier(s);
    return kolo__schedule_built(s);
}

static double seconds(const struct kolo__cost_terms *t)
{
    double steps = t->power_of_two ? t->h : t->h + 1;
    return steps * (t->a + t->n * t->B) + t->h * t->n * t->G;
}

static void flows(const struct kolo__flow_problem *problem, struct kolo__flow_sink *sink)
{
    struct kolo__fold fold = kolo__fold_of(problem->rank, problem->size);
    uint32_t phase = kolo__fold_flows_in(problem, &fold, sink);
    for (uint32_t distance = 1; distance < fold.nodes; distance *= 2, phase++) {
        if (fold.idle)
            continue;
        sink->send(sink, phase, kolo__fold_rank(&fold, fold.node ^ distance), problem->count);
        sink->chain(sink, phase, 1);
    }
    kolo__fold_flows_out(problem, &fold, phase, sink);
}

const struct kolo__algorithm kolo__recursive_doubling = {
    .name = "recursive_doubling",
    .accepts = accepts,
    .build = build,
    .seconds = seconds,
    .flows = flows,
};

/* The message goes to SCRATCH and not straight into a reduction onto OUTPUT: that would have to
 * wait until OUTPUT is sent, on both sides, and neither would ever receive. */
static void allreduce(struct kolo__schedule *s)
{
    size_t count = s->problem.count;
    struct kolo__fold fold = kolo__fold_of(s->problem.rank, s->problem.size);
    enum kolo__buffer from = kolo__schedule_contribution(s);
    from = kolo__fold_in(s, &fold, from);
    for (uint32_t distance = 1; distance < fold.nodes && !fold.idle; distance *= 2) {
        uint32_t partner = kolo__fold_rank(&fold, fold.node ^ distance);
        struct kolo__place mine = kolo__here(s, from, 0), theirs = kolo__here(s, KOLO__SCRATCH, 0);
        bool lower = (fold.node & distance) == 0;
        struct kolo__place sources[2] = {lower ? mine : theirs, lower ? theirs : mine};
        kolo__schedule_send(s, partner, mine, count);
        kolo__schedule_recv(s, partner, theirs, count);
        kolo__schedule_reduce(s, sources, 2, kolo__here(s, KOLO__OUTPUT, 0), count,
                              2 * distance == fold.nodes ? KOLO__FINISH : 0);
        from = KOLO__OUTPUT;
    }
    kolo__fold_out(s, &fold);
}

static void barrier(struct kolo__schedule *s)
{
    uint32_t rank = s->problem.rank, size = s->problem.size;
    for (uint32_t tokens = 1; tokens < size; tokens *= 2) {
        uint32_t count = tokens < size - tokens ? tokens : size - tokens;
        kolo__schedule_send(s, (rank + tokens) % size, kolo__here(s, KOLO__SCRATCH, 0), count);
        kolo__schedule_recv(s, (rank + size - tokens) % size, kolo__here(s, KOLO__SCRATCH, tokens),
                            count);
    }
}
