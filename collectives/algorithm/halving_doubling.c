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
 * Cost: 2 lg p steps, 2n(p-1)/p bytes for powers of two; others are folded: two steps and up to n
 * more (Thakur, Rabenseifner, Gropp, "Optimization of collective communication operations in
 * MPICH", 2005). Reduce-scatter and allgather are the two halves, for powers of two only.
 */
#include "collectives/algorithm/algorithm.h"

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

const struct kolo__algorithm kolo__halving_doubling = {
    .name = "halving_doubling",
    .accepts = accepts,
    .build = build,
    .seconds = seconds,
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

/* Elements before slice `index` of the whole vector. */
static size_t before(const struct kolo__schedule *s, const struct kolo__fold *fold, uint32_t index)
{
    return index == fold->nodes ? s->problem.count
                                : kolo__slice_offset(s->problem.count, fold->nodes, index);
}

static void allreduce(struct kolo__schedule *s)
{
    struct kolo__fold fold = kolo__fold_of(s->problem.rank, s->problem.size);
    enum kolo__buffer from = kolo__schedule_contribution(s);
    from = kolo__fold_in(s, &fold, from);
    for (uint32_t distance = fold.nodes / 2; distance > 0 && !fold.idle; distance /= 2) {
        struct halves half = halves_of(fold.node, distance);
        uint32_t partner = kolo__fold_rank(&fold, half.partner);
        size_t keep = before(s, &fold, half.keep), send = before(s, &fold, half.send);
        kolo__schedule_send(s, partner, kolo__here(s, from, send),
                            before(s, &fold, half.send + distance) - send);
        kolo__schedule_recv_reduce(s, partner, kolo__here(s, from, keep),
                                   kolo__here(s, KOLO__OUTPUT, keep),
                                   before(s, &fold, half.keep + distance) - keep, half.flags);
        from = KOLO__OUTPUT;
    }
    for (uint32_t distance = 1; distance < fold.nodes && !fold.idle; distance *= 2) {
        struct halves half = halves_of(fold.node, distance);
        uint32_t partner = kolo__fold_rank(&fold, half.partner);
        size_t have = before(s, &fold, half.keep), lack = before(s, &fold, half.send);
        kolo__schedule_send(s, partner, kolo__here(s, KOLO__OUTPUT, have),
                            before(s, &fold, half.keep + distance) - have);
        kolo__schedule_recv(s, partner, kolo__here(s, KOLO__OUTPUT, lack),
                            before(s, &fold, half.send + distance) - lack);
    }
    kolo__fold_out(s, &fold);
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
