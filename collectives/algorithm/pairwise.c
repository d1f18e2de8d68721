/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pairwise: everybody exchanges with everybody, in p-1 rounds; in round k rank r sends to r+k and
 * receives from r-k, so each rank sends to one and receives from one at a time.
 *
 *      round      1         2         3           4 ranks
 *                0->1      0->2      0->3
 *                1->2      1->3      1->0
 *                2->3      2->0      2->1
 *                3->0      3->1      3->2
 *
 * For reductions, each rank receives all contributions to its own slice and combines them at once,
 * in the order of ranks: one rounding instead of p-1, which is what 16-bit types want. The messages
 * of a half are independent of each other (chains of 2 in an allreduce), and rank r sends
 * n - own(r) + (p-1) own(r): 2n(p-1)/p for equal slices, as in the ring.
 */
#include "collectives/algorithm/algorithm.h"

#include <stdlib.h>

static void allreduce(struct kolo__schedule *s);
static void reduce_scatter(struct kolo__schedule *s);
static void reduce(struct kolo__schedule *s);
static void allgather(struct kolo__schedule *s);
static void alltoall(struct kolo__schedule *s);

static bool accepts(const struct kolo__problem *problem)
{
    return problem->collective == KOLO__ALLREDUCE || problem->collective == KOLO__REDUCE_SCATTER ||
           problem->collective == KOLO__ALLGATHER || problem->collective == KOLO__REDUCE_TO_ROOT ||
           (problem->collective == KOLO__ALLTOALL && !problem->in_place);
}

static kolo_status build(const struct kolo__problem *problem, struct kolo__schedule *s)
{
    kolo__schedule_init(s, problem, kolo__pairwise.name);
    if (problem->size == 1)
        kolo__schedule_alone(s);
    else if (problem->collective == KOLO__ALLREDUCE)
        allreduce(s);
    else if (problem->collective == KOLO__REDUCE_SCATTER)
        reduce_scatter(s);
    else if (problem->collective == KOLO__REDUCE_TO_ROOT)
        reduce(s);
    else if (problem->collective == KOLO__ALLGATHER)
        allgather(s);
    else
        alltoall(s);
    return kolo__schedule_built(s);
}

/* All messages are under way together, so only a part of each start-up is on the path. */
static double messages_on_path(double ranks)
{
    return 1 + 0.4 * (ranks - 2);
}

static double seconds(const struct kolo__cost_terms *t)
{
    double share = (t->p - 1) / t->p * t->n;
    return t->halves * (messages_on_path(t->p) * t->a + share * t->B) +
           (t->reduces ? t->n * t->G : 0);
}

static void flows(const struct kolo__flow_problem *problem, struct kolo__flow_sink *sink)
{
    for (uint32_t phase = 0; phase < 2; phase++) {
        for (uint32_t k = 1; k < problem->size; k++)
            sink->send(sink, phase, (problem->rank + k) % problem->size,
                       problem->count / problem->size);
        sink->chain(sink, phase, messages_on_path(problem->size));
    }
}

const struct kolo__algorithm kolo__pairwise = {
    .name = "pairwise",
    .rounds_once = true,
    .accepts = accepts,
    .build = build,
    .seconds = seconds,
    .flows = flows,
};

static uint32_t ahead(const struct kolo__schedule *s, uint32_t distance)
{
    return (s->problem.rank + distance) % s->problem.size;
}

static uint32_t behind(const struct kolo__schedule *s, uint32_t distance)
{
    return (s->problem.rank + s->problem.size - distance) % s->problem.size;
}

/* Combines, in the order of ranks, `mine` and what the others sent: the message of the rank k
 * behind lies in SCRATCH, at (k-1)*count. */
static void combine(struct kolo__schedule *s, struct kolo__place mine, struct kolo__place to,
                    size_t count)
{
    uint32_t rank = s->problem.rank, size = s->problem.size;
    struct kolo__place *sources = malloc(size * sizeof(*sources));
    if (sources == NULL) {
        s->out_of_memory = true;
        return;
    }
    for (uint32_t peer = 0; peer < size; peer++) {
        size_t distance = (rank + size - peer) % size;
        sources[peer] = peer == rank ? mine : kolo__here(s, KOLO__SCRATCH, (distance - 1) * count);
    }
    kolo__schedule_reduce(s, sources, size, to, count, KOLO__FINISH);
    free(sources);
}

static void allreduce(struct kolo__schedule *s)
{
    uint32_t rank = s->problem.rank, size = s->problem.size;
    size_t all = s->problem.count;
    size_t own = kolo__slice_offset(all, size, rank),
           own_count = kolo__slice_count(all, size, rank);
    enum kolo__buffer from = kolo__schedule_contribution(s);
    for (uint32_t k = 1; k < size; k++) {
        uint32_t to = ahead(s, k);
        kolo__schedule_send(s, to, kolo__here(s, from, kolo__slice_offset(all, size, to)),
                            kolo__slice_count(all, size, to));
        kolo__schedule_recv(s, behind(s, k), kolo__here(s, KOLO__SCRATCH, (k - 1) * own_count),
                            own_count);
    }
    combine(s, kolo__here(s, from, own), kolo__here(s, KOLO__OUTPUT, own), own_count);
    for (uint32_t k = 1; k < size; k++) {
        uint32_t peer = behind(s, k);
        kolo__schedule_send(s, ahead(s, k), kolo__here(s, KOLO__OUTPUT, own), own_count);
        kolo__schedule_recv(s, peer,
                            kolo__here(s, KOLO__OUTPUT, kolo__slice_offset(all, size, peer)),
                            kolo__slice_count(all, size, peer));
    }
}

static void reduce_scatter(struct kolo__schedule *s)
{
    uint32_t rank = s->problem.rank, size = s->problem.size;
    size_t count = s->problem.count;
    struct kolo__place mine = kolo__here(s, KOLO__INPUT, 0);
    if (s->problem.prescale) {
        mine = kolo__here(s, KOLO__SCRATCH, (size - 1) * count);
        kolo__schedule_copy_input(s, 0, mine, s->input_count);
    }
    for (uint32_t k = 1; k < size; k++) {
        kolo__schedule_send(s, ahead(s, k),
                            kolo__here(s, mine.buffer, mine.offset + ahead(s, k) * count), count);
        kolo__schedule_recv(s, behind(s, k), kolo__here(s, KOLO__SCRATCH, (k - 1) * count), count);
    }
    combine(s, kolo__here(s, mine.buffer, mine.offset + rank * count),
            kolo__here(s, KOLO__OUTPUT, 0), count);
}

/* As reduce_scatter of uneven slices; then the root collects them. SCRATCH of the others:
 *
 *     | messages: (size-1) own slices | result: own slice | scaled INPUT, when wanted |
 */
static void reduce(struct kolo__schedule *s)
{
    uint32_t rank = s->problem.rank, size = s->problem.size, root = s->problem.root;
    size_t all = s->problem.count;
    size_t own = kolo__slice_offset(all, size, rank),
           own_count = kolo__slice_count(all, size, rank);
    struct kolo__place mine = kolo__here(s, KOLO__INPUT, 0);
    struct kolo__place result = rank == root ? kolo__here(s, KOLO__OUTPUT, own)
                                             : kolo__here(s, KOLO__SCRATCH, (size - 1) * own_count);
    if (s->problem.prescale) {
        mine = kolo__here(s, KOLO__SCRATCH, size * own_count);
        kolo__schedule_copy_input(s, 0, mine, all);
    }
    for (uint32_t k = 1; k < size; k++) {
        uint32_t to = ahead(s, k);
        size_t slice = mine.offset + kolo__slice_offset(all, size, to);
        kolo__schedule_send(s, to, kolo__here(s, mine.buffer, slice),
                            kolo__slice_count(all, size, to));
        kolo__schedule_recv(s, behind(s, k), kolo__here(s, KOLO__SCRATCH, (k - 1) * own_count),
                            own_count);
    }
    combine(s, kolo__here(s, mine.buffer, mine.offset + own), result, own_count);
    if (rank != root)
        kolo__schedule_send(s, root, result, own_count);
    for (uint32_t k = 1; k < size && rank == root; k++) {
        uint32_t peer = behind(s, k);
        kolo__schedule_recv(s, peer,
                            kolo__here(s, KOLO__OUTPUT, kolo__slice_offset(all, size, peer)),
                            kolo__slice_count(all, size, peer));
    }
}

static void allgather(struct kolo__schedule *s)
{
    size_t count = s->problem.count;
    for (uint32_t k = 1; k < s->problem.size; k++) {
        kolo__schedule_send(s, ahead(s, k), kolo__here(s, KOLO__INPUT, 0), count);
        kolo__schedule_recv(s, behind(s, k), kolo__here(s, KOLO__OUTPUT, behind(s, k) * count),
                            count);
    }
    kolo__schedule_copy_input(s, 0, kolo__here(s, KOLO__OUTPUT, s->problem.rank * count), count);
}

static void alltoall(struct kolo__schedule *s)
{
    size_t count = s->problem.count, own = s->problem.rank * count;
    for (uint32_t k = 1; k < s->problem.size; k++) {
        kolo__schedule_send(s, ahead(s, k), kolo__here(s, KOLO__INPUT, ahead(s, k) * count), count);
        kolo__schedule_recv(s, behind(s, k), kolo__here(s, KOLO__OUTPUT, behind(s, k) * count),
                            count);
    }
    kolo__schedule_copy_input(s, own, kolo__here(s, KOLO__OUTPUT, own), count);
}
