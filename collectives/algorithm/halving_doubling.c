/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Halving and doubling (Rabenseifner): as few bytes as the ring in 2 lg p steps.
 *
 *      slices of rank 2 of 8      [0 1 2 3 4 5 6 7]
 *      with 6, keep lower half    [0 1 2 3]         sends 4..7
 *      with 0, keep upper half        [2 3]         sends 0..1
 *      with 3, keep lower half        [2]           sends 3: slice 2 is complete
 *      and back: with 3, 0, 6, doubling what is complete
 *
 * A long vector that takes each step as a whole has left the caches before the next step sends what
 * this one received. So an allreduce cuts it into chunks, one a step behind the other:
 *
 *      turn       0     1     2     3     4         4 chunks, 2 steps (2 ranks)
 *      chunk 0    0     1
 *      chunk 1          0     1
 *      chunk 2                0     1
 *      chunk 3                      0     1
 *
 * In each turn the newest chunk comes first: then what a step sends was received two messages ago,
 * not just now, and the wire does not wait for it. The bits are those of the whole: every element
 * is combined in the same order, whatever slice it is in.
 *
 * Cost: 2 lg p steps, 2n(p-1)/p bytes for powers of two; others are folded: two steps and up to n
 * more (Thakur, Rabenseifner, Gropp, "Optimization of collective communication operations in
 * MPICH", 2005). Reduce-scatter and allgather are the two halves, for powers of two only.
 */
#include "collectives/algorithm/algorithm.h"

enum {
    /* Fewer are not worth their shorter messages: the caches hold much of so short a vector. */
    LEAST_CHUNKS = 16,
    MOST_CHUNKS = 256, /* bounds the steps */
    UNEVEN_PART = 16,  /* slices differ by one part in so many of theirs at most */
};

static void allreduce(struct kolo__schedule *s);
static void reduce_scatter(struct kolo__schedule *s);
static void allgather(struct kolo__schedule *s);

static bool accepts(const struct kolo__problem *problem)
{
    bool power = (problem->size & (problem->size - 1)) == 0;
    return problem->collective == KOLO__ALLREDUCE ||
           (power && (problem->collective == KOLO__REDUCE_SCATTER ||
                      problem->collective == KOLO__ALLGATHER));
}

static kolo_status build(const struct kolo__problem *problem, struct kolo__schedule *s)
{
    kolo__schedule_init(s, problem, kolo__halving_doubling.name);
    if (problem->size == 1)
        kolo__schedule_alone(s);
    else if (problem->collective == KOLO__ALLREDUCE)
        allreduce(s);
    else if (problem->collective == KOLO__REDUCE_SCATTER)
        reduce_scatter(s);
    else
        allgather(s);
    return kolo__schedule_built(s);
}

static double seconds(const struct kolo__cost_terms *t)
{
    double share = (t->p - 1) / t->p * t->n;
    double fold = t->power_of_two ? 0 : 2 * t->n * t->B + t->n * t->G; /* its messages are in h */
    return t->halves * (t->h * t->a + share * t->B) + (t->reduces ? share * t->G : 0) + fold;
}

/* Distances nodes/2, ..., 2, 1, and back. */
static void flows(const struct kolo__flow_problem *problem, struct kolo__flow_sink *sink)
{
    struct kolo__fold fold = kolo__fold_of(problem->rank, problem->size);
    uint32_t phase = kolo__fold_flows_in(problem, &fold, sink), half = 0;
    while (1u << half < fold.nodes)
        half++;
    for (uint32_t step = 0; step < 2 * half; step++, phase++) {
        uint32_t distance = step < half ? fold.nodes >> (step + 1) : 1u << (step - half);
        if (fold.idle)
            continue;
        sink->send(sink, phase, kolo__fold_rank(&fold, fold.node ^ distance),
                   problem->count * distance / fold.nodes);
        sink->chain(sink, phase, 1);
    }
    kolo__fold_flows_out(problem, &fold, phase, sink);
}

const struct kolo__algorithm kolo__halving_doubling = {
    .name = "halving_doubling",
    .accepts = accepts,
    .build = build,
    .seconds = seconds,
    .flows = flows,
};

/* The slices to keep and to send when partners differ in bit `distance`, and [block, block +
 * 2*distance) is what both have so far. */
struct halves {
    uint32_t partner;    /* node */
    uint32_t keep, send; /* first slices; each half has `distance` of them */
    uint32_t flags;
};

static struct halves halves_of(uint32_t node, uint32_t distance)
{
    uint32_t block = node & ~(2 * distance - 1);
    bool upper = (node & distance) != 0;
    return (struct halves){.partner = node ^ distance,
                           .keep = block + (upper ? distance : 0),
                           .send = block + (upper ? 0 : distance),
                           .flags = (upper ? KOLO__INCOMING_FIRST : 0) |
                                    (distance == 1 ? KOLO__FINISH : 0)};
}

/* What an allreduce goes through its steps with: `count` elements from `first` on, in a slice for
 * each node. */
struct part {
    struct kolo__fold fold;
    enum kolo__buffer from; /* of contributions */
    size_t first, count;
    size_t burst; /* elements, 0: unknown */
};

/* Elements before slice `index`. Slices are even, but for the little by which a bound may be past
 * the end of a burst: sent by itself, that would cost a burst on either side. */
static size_t before(const struct part *part, uint32_t index)
{
    uint32_t nodes = part->fold.nodes;
    if (index == nodes)
        return part->first + part->count;
    size_t even = kolo__slice_offset(part->count, nodes, index);
    size_t past = part->burst > 0 ? even % part->burst : 0;
    return part->first + even - (past <= part->count / nodes / UNEVEN_PART ? past : 0);
}

/* Sends one half, and combines the partner's with the other. */
static void reduce_half(struct kolo__schedule *s, const struct part *part, uint32_t distance)
{
    struct halves half = halves_of(part->fold.node, distance);
    uint32_t partner = kolo__fold_rank(&part->fold, half.partner);
    size_t keep = before(part, half.keep), send = before(part, half.send);
    bool first = 2 * distance == part->fold.nodes;
    enum kolo__buffer from = first ? part->from : KOLO__OUTPUT;
    kolo__schedule_send(s, partner, kolo__here(s, from, send),
                        before(part, half.send + distance) - send);
    kolo__schedule_recv_reduce(s, partner, kolo__here(s, from, keep),
                               kolo__here(s, KOLO__OUTPUT, keep),
                               before(part, half.keep + distance) - keep, half.flags);
}

/* Sends what is complete, and receives as much. */
static void gather_half(struct kolo__schedule *s, const struct part *part, uint32_t distance)
{
    struct halves half = halves_of(part->fold.node, distance);
    uint32_t partner = kolo__fold_rank(&part->fold, half.partner);
    size_t have = before(part, half.keep), lack = before(part, half.send);
    kolo__schedule_send(s, partner, kolo__here(s, KOLO__OUTPUT, have),
                        before(part, half.keep + distance) - have);
    kolo__schedule_recv(s, partner, kolo__here(s, KOLO__OUTPUT, lack),
                        before(part, half.send + distance) - lack);
}

static uint32_t chunks_of(const struct kolo__problem *problem)
{
    size_t chunk = problem->chunk_count, count = problem->count;
    if (chunk == 0 || count / LEAST_CHUNKS < chunk)
        return 1;
    chunk *= (count - 1) / MOST_CHUNKS / chunk + 1;
    return (uint32_t)((count - 1) / chunk + 1);
}

static void allreduce(struct kolo__schedule *s)
{
    struct part part = {.fold = kolo__fold_of(s->problem.rank, s->problem.size),
                        .burst = s->problem.burst_count};
    part.from = kolo__fold_in(s, &part.fold, kolo__schedule_contribution(s));
    uint32_t nodes = part.fold.nodes, chunks = chunks_of(&s->problem), half = 0;
    while (1u << half < nodes)
        half++;
    uint32_t steps = part.fold.idle ? 0 : 2 * half;
    for (uint32_t turn = 0; turn + 1 < chunks + steps; turn++) {
        for (uint32_t step = 0; step < steps && step <= turn; step++) {
            uint32_t chunk = turn - step;
            if (chunk >= chunks)
                continue;
            part.first = kolo__slice_offset(s->problem.count, chunks, chunk);
            part.count = kolo__slice_count(s->problem.count, chunks, chunk);
            if (step < half)
                reduce_half(s, &part, nodes >> (step + 1));
            else
                gather_half(s, &part, 1u << (step - half));
        }
    }
    kolo__fold_out(s, &part.fold);
}

/* SCRATCH holds the half that the first step keeps (or, scaled, the whole input). */
static void reduce_scatter(struct kolo__schedule *s)
{
    uint32_t rank = s->problem.rank, size = s->problem.size;
    size_t count = s->problem.count, base = 0;
    enum kolo__buffer from = KOLO__INPUT;
    if (s->problem.prescale) {
        kolo__schedule_copy_input(s, 0, kolo__here(s, KOLO__SCRATCH, 0), s->input_count);
        from = KOLO__SCRATCH;
    } else {
        base = halves_of(rank, size / 2).keep * count;
    }
    for (uint32_t distance = size / 2; distance > 0; distance /= 2) {
        struct halves half = halves_of(rank, distance);
        size_t shift = from == KOLO__INPUT ? 0 : base;
        size_t keep = half.keep * count, send = half.send * count;
        kolo__schedule_send(s, half.partner, kolo__here(s, from, send - shift), distance * count);
        kolo__schedule_recv_reduce(s, half.partner, kolo__here(s, from, keep - shift),
                                   distance == 1 ? kolo__here(s, KOLO__OUTPUT, 0)
                                                 : kolo__here(s, KOLO__SCRATCH, keep - base),
                                   distance * count, half.flags);
        from = KOLO__SCRATCH;
    }
}

static void allgather(struct kolo__schedule *s)
{
    uint32_t rank = s->problem.rank;
    size_t count = s->problem.count;
    kolo__schedule_copy_input(s, 0, kolo__here(s, KOLO__OUTPUT, rank * count), count);
    for (uint32_t distance = 1; distance < s->problem.size; distance *= 2) {
        struct halves half = halves_of(rank, distance);
        kolo__schedule_send(s, half.partner,
                            distance == 1 ? kolo__here(s, KOLO__INPUT, 0)
                                          : kolo__here(s, KOLO__OUTPUT, half.keep * count),
                            distance * count);
        kolo__schedule_recv(s, half.partner, kolo__here(s, KOLO__OUTPUT, half.send * count),
                            distance * count);
    }
}
