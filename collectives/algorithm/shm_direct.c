/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Direct shared memory: every rank reads its peers' buffers where they are, in rounds of one
 * window.
 *
 *      round   copy INPUT -> own EXPOSED_IN       nothing to do where INPUT itself is mapped
 *              arrive, await
 *              read and write peers' buffers      all ranks do an equal share of the work
 *              arrive, await
 *              copy own EXPOSED_OUT -> OUTPUT     nothing to do where OUTPUT itself is mapped
 *
 * Allreduce: rank i combines slice i of the window from its INPUT and everybody else's EXPOSED_IN
 * into its OUTPUT, and pushes it into everybody else's EXPOSED_OUT. Nobody else touches slice i
 * between the fences, so EXPOSED_IN and EXPOSED_OUT may be the same memory; and what a rank
 * combines itself it need not copy for others. Reduce writes into root's EXPOSED_OUT,
 * reduce-scatter into that of whoever owns the element. Broadcast, allgather and alltoall only
 * read: no EXPOSED_OUT.
 *
 * The second fence lets the owner of a buffer have it back: it comes after the last access of any
 * peer, so the next round, and the caller, may write.
 *
 * Cost of an allreduce: rounds x 2 waits; beyond the two copies, all ranks together load pn and
 * store pn.
 */
#include "collectives/algorithm/algorithm.h"

#include <stdlib.h>

static void reduce(struct kolo__schedule *s, struct kolo__place *sources);
static void reduce_scatter(struct kolo__schedule *s, struct kolo__place *sources);
static void broadcast(struct kolo__schedule *s);
static void allgather(struct kolo__schedule *s);
static void alltoall(struct kolo__schedule *s);

static bool accepts(const struct kolo__problem *problem)
{
    return problem->collective < KOLO__BARRIER &&
           !(problem->collective == KOLO__ALLTOALL && problem->in_place);
}

static kolo_status build(const struct kolo__problem *problem, struct kolo__schedule *s)
{
    kolo__schedule_init(s, problem, kolo__shm_direct.name);
    struct kolo__place *sources = malloc(problem->size * sizeof(*sources));
    if (sources == NULL)
        s->out_of_memory = true;
    else if (problem->size == 1)
        kolo__schedule_alone(s);
    else if (problem->collective == KOLO__ALLREDUCE || problem->collective == KOLO__REDUCE_TO_ROOT)
        reduce(s, sources);
    else if (problem->collective == KOLO__REDUCE_SCATTER)
        reduce_scatter(s, sources);
    else if (problem->collective == KOLO__BROADCAST)
        broadcast(s);
    else if (problem->collective == KOLO__ALLGATHER)
        allgather(s);
    else
        alltoall(s);
    free(sources);
    return kolo__schedule_built(s);
}

static double seconds(const struct kolo__cost_terms *t)
{
    double touched = 2 * t->n;
    return t->fence + t->next_fence + touched * kolo__cost_memory(t->model, touched)->mapped;
}

const struct kolo__algorithm kolo__shm_direct = {
    .name = "shm_direct",
    .needs_mapping = true,
    .rounds_once = true,
    .accepts = accepts,
    .build = build,
    .seconds = seconds,
};

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void fence(struct kolo__schedule *s)
{
    kolo__schedule_arrive(s);
    kolo__schedule_await(s);
}

static void fill_input(struct kolo__schedule *s, size_t low, size_t high)
{
    if (low < high)
        kolo__schedule_copy_input(s, low, kolo__here(s, KOLO__EXPOSED_IN, low), high - low);
}

/* INPUT[low, high) into the window; then all may read. */
static void open_round(struct kolo__schedule *s, size_t low, size_t high)
{
    fill_input(s, low, high);
    fence(s);
}

/* The same, for a rank that alone reads [first, end) of its own INPUT; scaled, it reads the copy.
 */
static void open_round_without(struct kolo__schedule *s, size_t low, size_t high, size_t first,
                               size_t end)
{
    if (s->problem.prescale)
        first = end = high;
    fill_input(s, low, first);
    open_round(s, end, high);
}

/* Elements [low, high) of all ranks' inputs, in the order of ranks. */
static void combine(struct kolo__schedule *s, struct kolo__place *sources, size_t low, size_t high,
                    struct kolo__place to)
{
    for (uint32_t peer = 0; peer < s->problem.size; peer++)
        sources[peer] = kolo__place_of(peer, KOLO__EXPOSED_IN, low);
    if (!s->problem.prescale)
        sources[s->problem.rank] = kolo__here(s, KOLO__INPUT, low);
    kolo__schedule_reduce(s, sources, s->problem.size, to, high - low, KOLO__FINISH);
}

static void empty_output(struct kolo__schedule *s, size_t low, size_t high)
{
    if (low < high)
        kolo__schedule_copy(s, kolo__here(s, KOLO__EXPOSED_OUT, low),
                            kolo__here(s, KOLO__OUTPUT, low), high - low, 0);
}

/* Rounds of one window each; even an empty operation has one: it synchronises. */
static size_t rounds_of(size_t total, size_t window)
{
    return total == 0 ? 1 : (total + window - 1) / window;
}

/* Allreduce, and reduce to root: who keeps the result writes its own slice into OUTPUT. */
static void reduce(struct kolo__schedule *s, struct kolo__place *sources)
{
    uint32_t rank = s->problem.rank, size = s->problem.size, root = s->problem.root;
    bool to_all = s->problem.collective == KOLO__ALLREDUCE, keeps = to_all || rank == root;
    size_t total = s->problem.count, window = s->problem.window_count;
    for (size_t round = 0; round < rounds_of(total, window); round++) {
        size_t low = round * window, count = smaller(window, total - low);
        size_t first = low + kolo__slice_offset(count, size, rank);
        size_t end = first + kolo__slice_count(count, size, rank);
        open_round_without(s, low, low + count, first, end);
        if (first < end)
            combine(s, sources, first, end,
                    keeps ? kolo__here(s, KOLO__OUTPUT, first)
                          : kolo__place_of(root, KOLO__EXPOSED_OUT, first));
        for (uint32_t k = 1; to_all && first < end && k < size; k++)
            kolo__schedule_push(s, kolo__place_of((rank + k) % size, KOLO__EXPOSED_OUT, first));
        fence(s);
        if (keeps) {
            empty_output(s, low, first);
            empty_output(s, end, low + count);
        }
    }
}

/* The end of a round of reduce-scatter that begins at INPUT element low: it lies within one window
 * of INPUT and, for each owner, within one window of its OUTPUT. */
static size_t round_end(const struct kolo__problem *problem, size_t low, size_t total)
{
    size_t window = problem->window_count, count = problem->count;
    size_t end = smaller(total, low - low % window + window);
    if (count <= window)
        return end;
    size_t owned = low % count;
    size_t owner_end = low - owned + smaller(count, owned - owned % window + window);
    return smaller(end, owner_end);
}

/* INPUT element e is OUTPUT element e % count of rank e / count. Each rank combines an equal share
 * of the round, whoever owns it. */
static void reduce_scatter(struct kolo__schedule *s, struct kolo__place *sources)
{
    uint32_t rank = s->problem.rank, size = s->problem.size;
    size_t count = s->problem.count, total = s->input_count, low = 0;
    do {
        size_t end = round_end(&s->problem, low, total);
        size_t first = low + kolo__slice_offset(end - low, size, rank);
        size_t last = first + kolo__slice_count(end - low, size, rank);
        open_round_without(s, low, end, first, last);
        for (size_t next; first < last; first = next) {
            uint32_t owner = (uint32_t)(first / count);
            next = smaller(last, (owner + 1) * count);
            combine(s, sources, first, next,
                    kolo__place_of(owner, KOLO__EXPOSED_OUT, first - owner * count));
        }
        fence(s);
        size_t mine = rank * count;
        empty_output(s, low > mine ? low - mine : 0, end > mine ? smaller(end - mine, count) : 0);
        low = end;
    } while (low < total);
}

static void broadcast(struct kolo__schedule *s)
{
    uint32_t root = s->problem.root;
    bool is_root = s->problem.rank == root;
    size_t total = s->problem.count, window = s->problem.window_count;
    for (size_t round = 0; round < rounds_of(total, window); round++) {
        size_t low = round * window, count = smaller(window, total - low);
        open_round(s, low, is_root ? low + count : low);
        if (is_root)
            kolo__schedule_copy_input(s, low, kolo__here(s, KOLO__OUTPUT, low), count);
        else
            kolo__schedule_copy(s, kolo__place_of(root, KOLO__EXPOSED_IN, low),
                                kolo__here(s, KOLO__OUTPUT, low), count, 0);
        fence(s);
    }
}

static void allgather(struct kolo__schedule *s)
{
    uint32_t rank = s->problem.rank, size = s->problem.size;
    size_t total = s->problem.count, window = s->problem.window_count;
    for (size_t round = 0; round < rounds_of(total, window); round++) {
        size_t low = round * window, count = smaller(window, total - low);
        open_round(s, low, low + count);
        for (uint32_t k = 0; k < size; k++) {
            uint32_t peer = (rank + k) % size;
            struct kolo__place output = kolo__here(s, KOLO__OUTPUT, peer * total + low);
            if (peer == rank)
                kolo__schedule_copy_input(s, low, output, count);
            else
                kolo__schedule_copy(s, kolo__place_of(peer, KOLO__EXPOSED_IN, low), output, count,
                                    0);
        }
        fence(s);
    }
}

/* In a round, ranks expose different windows of their INPUT, so that not everybody reads for the
 * same few receivers: rank r begins with the window in which slice r begins. */
static size_t exposed_by(const struct kolo__schedule *s, uint32_t rank, size_t round, size_t rounds)
{
    size_t first = rank * s->problem.count / s->problem.window_count;
    return (first + round) % rounds * s->problem.window_count;
}

static void alltoall(struct kolo__schedule *s)
{
    uint32_t rank = s->problem.rank, size = s->problem.size;
    size_t count = s->problem.count, total = s->input_count, window = s->problem.window_count;
    size_t rounds = rounds_of(total, window);
    size_t mine = rank * count;
    for (size_t round = 0; round < rounds; round++) {
        size_t low = exposed_by(s, rank, round, rounds);
        open_round(s, low, smaller(total, low + window));
        for (uint32_t k = 1; k < size; k++) {
            uint32_t peer = (rank + k) % size;
            size_t first = exposed_by(s, peer, round, rounds);
            size_t end = smaller(first + window, mine + count);
            if (first < mine)
                first = mine;
            if (first < end)
                kolo__schedule_copy(s, kolo__place_of(peer, KOLO__EXPOSED_IN, first),
                                    kolo__here(s, KOLO__OUTPUT, peer * count + first - mine),
                                    end - first, 0);
        }
        fence(s);
    }
    kolo__schedule_copy_input(s, mine, kolo__here(s, KOLO__OUTPUT, mine), count);
}
