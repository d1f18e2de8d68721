/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ring: each rank talks to its two neighbours only; least bytes, most steps.
 *
 *      0 -> 1 -> 2 -> 3 -> 0        4 ranks, slices a b c d; rank 0 ends with a, 1 with b, ...
 *
 *      step   0 sends   1 sends   2 sends   3 sends
 *        1      d         a         b         c        reduce-scatter: what arrives is combined
 *        2      c         d         a         b        with one's own contribution, and sent on
 *        3      b         c         d         a        in the next step
 *        4      a         b         c         d        allgather: what arrives is final, and
 *        5      d         a         b         c        sent on in the next step
 *        6      c         d         a         b
 *
 * Cost of an allreduce of n bytes over p ranks: 2(p-1) steps; rank r sends 2n - own(r) - own(r+1),
 * all ranks 2(p-1)n (Patarasuk, Yuan, "Bandwidth optimal all-reduce algorithms for clusters of
 * workstations", 2009).
 *
 * The first send is from INPUT and each contribution is read from INPUT when its slice comes
 * around, so nothing is copied first and out of place costs what in place does.
 *
 * Broadcast and reduce go once round the ring as a chain that starts or ends at root: the executor
 * cuts them into segments, so for large n the p-1 hops overlap and each rank sends n.
 */
#include "collectives/algorithm/algorithm.h"

static void reduce_scatter(struct kolo__schedule *s, const struct kolo__ring_of *ring);
static void allgather(struct kolo__schedule *s, const struct kolo__ring_of *ring);
static void broadcast(struct kolo__schedule *s, const struct kolo__ring_of *ring);
static void reduce(struct kolo__schedule *s, const struct kolo__ring_of *ring);

static bool accepts(const struct kolo__problem *problem)
{
    return problem->collective == KOLO__ALLREDUCE || problem->collective == KOLO__REDUCE_SCATTER ||
           problem->collective == KOLO__ALLGATHER || problem->collective == KOLO__BROADCAST ||
           problem->collective == KOLO__REDUCE_TO_ROOT;
}

static kolo_status build(const struct kolo__problem *problem, struct kolo__schedule *s)
{
    uint32_t rank = problem->rank, size = problem->size;
    struct kolo__ring_of ring = {.position = rank,
                                 .size = size,
                                 .next = (rank + 1) % size,
                                 .previous = (rank + size - 1) % size,
                                 .count = problem->count};
    kolo__schedule_init(s, problem, kolo__ring.name);
    if (size == 1) {
        kolo__schedule_alone(s);
    } else if (problem->collective == KOLO__ALLREDUCE) {
        kolo__ring_reduce(s, &ring, kolo__schedule_contribution(s), KOLO__FINISH);
        kolo__ring_gather(s, &ring);
    } else if (problem->collective == KOLO__REDUCE_SCATTER) {
        reduce_scatter(s, &ring);
    } else if (problem->collective == KOLO__ALLGATHER) {
        allgather(s, &ring);
    } else if (problem->collective == KOLO__BROADCAST) {
        broadcast(s, &ring);
    } else {
        reduce(s, &ring);
    }
    return kolo__schedule_built(s);
}

static double seconds(const struct kolo__cost_terms *t)
{
    double share = (t->p - 1) / t->p * t->n;
    return t->halves * ((t->p - 1) * t->a + share * t->B) + (t->reduces ? share * t->G : 0);
}

static void flows(const struct kolo__flow_problem *problem, struct kolo__flow_sink *sink)
{
    double steps = problem->size - 1;
    for (uint32_t phase = 0; phase < 2; phase++) {
        sink->send(sink, phase, (problem->rank + 1) % problem->size,
                   steps * problem->count / problem->size);
        sink->chain(sink, phase, steps);
    }
}

const struct kolo__algorithm kolo__ring = {
    .name = "ring",
    .accepts = accepts,
    .build = build,
    .seconds = seconds,
    .flows = flows,
};

/* The slice `distance` positions behind this rank's own. */
static uint32_t slice_behind(const struct kolo__ring_of *ring, uint32_t distance)
{
    return (ring->position + 2 * ring->size - distance) % ring->size;
}

static size_t offset_of(const struct kolo__ring_of *ring, uint32_t slice)
{
    return ring->offset + kolo__slice_offset(ring->count, ring->size, slice);
}

static size_t count_of(const struct kolo__ring_of *ring, uint32_t slice)
{
    return kolo__slice_count(ring->count, ring->size, slice);
}

void kolo__ring_reduce(struct kolo__schedule *s, const struct kolo__ring_of *ring,
                       enum kolo__buffer from, uint32_t finish)
{
    for (uint32_t k = 1; k < ring->size; k++) {
        uint32_t out = slice_behind(ring, k), in = slice_behind(ring, k + 1);
        bool last = k == ring->size - 1;
        kolo__schedule_send(s, ring->next,
                            kolo__here(s, k == 1 ? from : KOLO__OUTPUT, offset_of(ring, out)),
                            count_of(ring, out));
        kolo__schedule_recv_reduce(s, ring->previous, kolo__here(s, from, offset_of(ring, in)),
                                   kolo__here(s, KOLO__OUTPUT, offset_of(ring, in)),
                                   count_of(ring, in), KOLO__INCOMING_FIRST | (last ? finish : 0));
    }
}

void kolo__ring_gather(struct kolo__schedule *s, const struct kolo__ring_of *ring)
{
    for (uint32_t k = 0; k + 1 < ring->size; k++) {
        uint32_t out = slice_behind(ring, k), in = slice_behind(ring, k + 1);
        kolo__schedule_send(s, ring->next, kolo__here(s, KOLO__OUTPUT, offset_of(ring, out)),
                            count_of(ring, out));
        kolo__schedule_recv(s, ring->previous, kolo__here(s, KOLO__OUTPUT, offset_of(ring, in)),
                            count_of(ring, in));
    }
}

/* OUTPUT holds one slice only, so partial sums pass through SCRATCH, two areas in turn. With one,
 * each rank would have to finish its send before it could receive, and all would wait for each
 * other. */
static void reduce_scatter(struct kolo__schedule *s, const struct kolo__ring_of *ring)
{
    size_t count = s->problem.count;
    struct kolo__place mine = kolo__here(s, KOLO__INPUT, 0);
    if (s->problem.prescale) {
        mine = kolo__here(s, KOLO__SCRATCH, 2 * count);
        kolo__schedule_copy_input(s, 0, mine, s->input_count);
    }
    for (uint32_t k = 1; k < ring->size; k++) {
        size_t out = slice_behind(ring, k) * count, in = slice_behind(ring, k + 1) * count;
        bool last = k == ring->size - 1;
        struct kolo__place partial = kolo__here(s, KOLO__SCRATCH, (k % 2) * count);
        struct kolo__place before = kolo__here(s, KOLO__SCRATCH, ((k + 1) % 2) * count);
        kolo__schedule_send(s, ring->next,
                            k == 1 ? kolo__here(s, mine.buffer, mine.offset + out) : before, count);
        kolo__schedule_recv_reduce(s, ring->previous, kolo__here(s, mine.buffer, mine.offset + in),
                                   last ? kolo__here(s, KOLO__OUTPUT, 0) : partial, count,
                                   KOLO__INCOMING_FIRST | (last ? KOLO__FINISH : 0));
    }
}

static void allgather(struct kolo__schedule *s, const struct kolo__ring_of *ring)
{
    size_t count = s->problem.count;
    kolo__schedule_copy_input(s, 0, kolo__here(s, KOLO__OUTPUT, ring->position * count), count);
    for (uint32_t k = 0; k + 1 < ring->size; k++) {
        size_t out = slice_behind(ring, k) * count, in = slice_behind(ring, k + 1) * count;
        kolo__schedule_send(
            s, ring->next,
            k == 0 ? kolo__here(s, KOLO__INPUT, 0) : kolo__here(s, KOLO__OUTPUT, out), count);
        kolo__schedule_recv(s, ring->previous, kolo__here(s, KOLO__OUTPUT, in), count);
    }
}

static void broadcast(struct kolo__schedule *s, const struct kolo__ring_of *ring)
{
    size_t count = s->problem.count;
    bool first = ring->position == s->problem.root;
    struct kolo__place output = kolo__here(s, KOLO__OUTPUT, 0);
    if (!first)
        kolo__schedule_recv(s, ring->previous, output, count);
    if (ring->next != s->problem.root)
        kolo__schedule_send(s, ring->next, first ? kolo__here(s, KOLO__INPUT, 0) : output, count);
    if (first)
        kolo__schedule_copy_input(s, 0, output, count);
}

static void reduce(struct kolo__schedule *s, const struct kolo__ring_of *ring)
{
    size_t count = s->problem.count;
    bool first = ring->previous == s->problem.root, last = ring->position == s->problem.root;
    struct kolo__place mine = kolo__here(s, KOLO__INPUT, 0);
    struct kolo__place sum = kolo__here(s, last ? KOLO__OUTPUT : KOLO__SCRATCH, 0);
    if (s->problem.prescale) {
        kolo__schedule_copy_input(s, 0, sum, count);
        mine = sum;
    }
    if (!first) {
        kolo__schedule_recv_reduce(s, ring->previous, mine, sum, count,
                                   KOLO__INCOMING_FIRST | (last ? KOLO__FINISH : 0));
        mine = sum;
    }
    if (!last)
        kolo__schedule_send(s, ring->next, mine, count);
}
