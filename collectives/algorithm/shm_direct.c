/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Direct shared memory: every rank reads its peers' buffers where they are, in rounds of one
 * window. Two windows take turns, so one fence closes a round and opens the next:
 *
 *      copy INPUT -> own EXPOSED_IN for round 0      nothing to do where INPUT itself is mapped
 *      fence
 *      round k   read and write peers' buffers       all ranks do an equal share of the work
 *                copy own EXPOSED_OUT -> OUTPUT of round k - 1        nothing to do where
 *                copy INPUT -> own EXPOSED_IN for round k + 1         those are mapped
 *                fence
 *      copy own EXPOSED_OUT -> OUTPUT of the last round
 *
 * Allreduce: rank i combines slice i of the window from its INPUT and everybody else's EXPOSED_IN
 * into its OUTPUT, and pushes it into everybody else's EXPOSED_OUT. Nobody else touches slice i
 * between the fences, so EXPOSED_IN and EXPOSED_OUT may be the same memory; and what a rank
 * combines itself it need not copy for others. Reduce writes into root's EXPOSED_OUT. The others
 * only read, and have no EXPOSED_OUT: in a round of reduce-scatter or alltoall everybody exposes a
 * piece of each slice, and takes its own.
 *
 * Broadcast: everybody reads root's buffer, and root has nothing to do. Where all buffers are
 * mapped it takes its share, pushing the last of p parts into each of the others' results; into
 * windows that would be one copy more.
 *
 * The last fence lets the owner of a buffer have it back: it comes after the last access of any
 * peer, so the caller may write. Those between the first and the last are there for windows only:
 * the rounds of mapped buffers touch different memory.
 *
 * Cost of an allreduce: rounds + 1 waits, 2 where all buffers are mapped; beyond the copies to and
 * from windows, all ranks together load pn and store pn.
 */
#include "base/assert.h"
#include "collectives/algorithm/algorithm.h"

#include <stdlib.h>

/* Of a round's elements [low, high), one rank's part. */
struct share {
    size_t low, high;
    size_t first, end; /* what it combines */
};

static void reduce(struct kolo__schedule *s, struct kolo__place *sources);
static void slices(struct kolo__schedule *s, struct kolo__place *sources);
static void broadcast(struct kolo__schedule *s);
static void allgather(struct kolo__schedule *s);

static bool accepts(const struct kolo__problem *problem)
{
    return problem->collective < KOLO__BARRIER &&
           !(problem->collective == KOLO__ALLTOALL && problem->in_place);
}

static kolo_status build(const struct kolo__problem *problem, struct kolo__schedule *s)
{
    KOLO__ASSERT(problem->size == 1 || kolo__window_piece(problem) > 0);
    kolo__schedule_init(s, problem, kolo__shm_direct.name);
    struct kolo__place *sources = malloc(problem->size * sizeof(*sources));
    if (sources == NULL)
        s->out_of_memory = true;
    else if (problem->size == 1)
        kolo__schedule_alone(s);
    else if (problem->collective == KOLO__ALLREDUCE || problem->collective == KOLO__REDUCE_TO_ROOT)
        reduce(s, sources);
    else if (problem->collective == KOLO__REDUCE_SCATTER)
        slices(s, sources);
    else if (problem->collective == KOLO__BROADCAST)
        broadcast(s);
    else if (problem->collective == KOLO__ALLGATHER)
        allgather(s);
    else
        slices(s, NULL);
    free(sources);
    return kolo__schedule_built(s);
}

static double seconds(const struct kolo__cost_terms *t)
{
    /* In a broadcast all share the work of those who lack the result. */
    double touched = 2 * t->n * (t->one_source ? (t->p - 1) / t->p : 1);
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
    kolo__schedule_arrive(s, 0);
    kolo__schedule_await(s, 0);
}

/* After each round: the one after the last is for the callers' buffers, too. */
static void close_round(struct kolo__schedule *s, bool last)
{
    kolo__schedule_arrive(s, last ? 0 : KOLO__WINDOWS_ONLY);
    kolo__schedule_await(s, last ? 0 : KOLO__WINDOWS_ONLY);
}

/* INPUT[low, high) into the window: peers may read after the next fence. */
static void fill_input(struct kolo__schedule *s, size_t low, size_t high)
{
    if (low < high)
        kolo__schedule_copy_input(s, low, kolo__here(s, KOLO__EXPOSED_IN, low), high - low);
}

/* The same without what this rank combines, of which it alone reads its INPUT; scaled, it reads the
 * copy. */
static void fill_for_others(struct kolo__schedule *s, const struct share *share)
{
    bool all = s->problem.prescale;
    fill_input(s, share->low, all ? share->high : share->first);
    fill_input(s, all ? share->high : share->end, share->high);
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

/* Of elements [low, high), this rank combines [first, end). */
static struct share share_of(const struct kolo__schedule *s, size_t low, size_t high)
{
    uint32_t rank = s->problem.rank, size = s->problem.size;
    size_t first = low + kolo__slice_offset(high - low, size, rank);
    return (struct share){low, high, first, first + kolo__slice_count(high - low, size, rank)};
}

static struct share share_of_round(const struct kolo__schedule *s, size_t round)
{
    size_t low = round * s->problem.window_count;
    return share_of(s, low, smaller(low + s->problem.window_count, s->problem.count));
}

/* Who keeps the result has written its own share into OUTPUT. */
static void empty_of_others(struct kolo__schedule *s, const struct share *share)
{
    empty_output(s, share->low, share->first);
    empty_output(s, share->end, share->high);
}

/* Allreduce, and reduce to root. */
static void reduce(struct kolo__schedule *s, struct kolo__place *sources)
{
    uint32_t rank = s->problem.rank, size = s->problem.size, root = s->problem.root;
    bool to_all = s->problem.collective == KOLO__ALLREDUCE, keeps = to_all || rank == root;
    size_t rounds = rounds_of(s->problem.count, s->problem.window_count);
    struct share previous = {0}, share = share_of_round(s, 0);
    fill_for_others(s, &share);
    fence(s);
    for (size_t round = 0; round < rounds; round++) {
        bool last = round + 1 == rounds, mine = share.first < share.end;
        if (mine)
            combine(s, sources, share.first, share.end,
                    keeps ? kolo__here(s, KOLO__OUTPUT, share.first)
                          : kolo__place_of(root, KOLO__EXPOSED_OUT, share.first));
        for (uint32_t k = 1; to_all && mine && k < size; k++)
            kolo__schedule_push(s,
                                kolo__place_of((rank + k) % size, KOLO__EXPOSED_OUT, share.first));
        if (keeps)
            empty_of_others(s, &previous);
        previous = share;
        if (!last) {
            share = share_of_round(s, round + 1);
            fill_for_others(s, &share);
        }
        close_round(s, last);
    }
    if (keeps)
        empty_of_others(s, &share);
}

/* Of every slice [low, high), for whoever takes it. */
static void fill_slices(struct kolo__schedule *s, size_t low, size_t high)
{
    uint32_t rank = s->problem.rank, size = s->problem.size;
    for (uint32_t k = s->problem.prescale ? 0 : 1; k < size; k++) {
        size_t slice = (rank + k) % size * s->problem.count;
        fill_input(s, slice + low, slice + high);
    }
}

/* What a rank does in a round of reduce_scatter or alltoall: elements [low, high) of its slice. */
static void combine_slice(struct kolo__schedule *s, struct kolo__place *sources, size_t low,
                          size_t high)
{
    if (low < high)
        combine(s, sources, s->problem.rank * s->problem.count + low,
                s->problem.rank * s->problem.count + high, kolo__here(s, KOLO__OUTPUT, low));
}

static void take_slice(struct kolo__schedule *s, size_t low, size_t high)
{
    uint32_t rank = s->problem.rank, size = s->problem.size;
    size_t count = s->problem.count;
    for (uint32_t k = 0; low < high && k < size; k++) {
        uint32_t peer = (rank + k) % size;
        struct kolo__place output = kolo__here(s, KOLO__OUTPUT, peer * count + low);
        if (peer == rank)
            kolo__schedule_copy_input(s, rank * count + low, output, high - low);
        else
            kolo__schedule_copy(s, kolo__place_of(peer, KOLO__EXPOSED_IN, rank * count + low),
                                output, high - low, 0);
    }
}

/* reduce_scatter; alltoall without sources to combine. */
static void slices(struct kolo__schedule *s, struct kolo__place *sources)
{
    size_t count = s->problem.count, piece = kolo__window_piece(&s->problem);
    size_t rounds = rounds_of(count, piece);
    fill_slices(s, 0, smaller(piece, count));
    fence(s);
    for (size_t round = 0; round < rounds; round++) {
        size_t low = round * piece, next = smaller(low + piece, count);
        if (sources != NULL)
            combine_slice(s, sources, low, next);
        else
            take_slice(s, low, next);
        fill_slices(s, next, smaller(next + piece, count));
        close_round(s, round + 1 == rounds);
    }
}

/* What root does for the others where all buffers are mapped: elements [first, first + count). */
static void push_input(struct kolo__schedule *s, size_t first, size_t count)
{
    uint32_t rank = s->problem.rank, size = s->problem.size;
    for (uint32_t k = 1; count > 0 && k < size; k++)
        kolo__schedule_copy(s, kolo__here(s, KOLO__INPUT, first),
                            kolo__place_of((rank + k) % size, KOLO__EXPOSED_OUT, first), count,
                            KOLO__MAPPED_ONLY);
}

/* All `count` elements from root's buffer, or but the last `pushed`, where root pushes these. */
static void pull(struct kolo__schedule *s, size_t first, size_t count, size_t pushed)
{
    struct kolo__place from = kolo__place_of(s->problem.root, KOLO__EXPOSED_IN, first);
    struct kolo__place to = kolo__here(s, KOLO__OUTPUT, first);
    kolo__schedule_copy(s, from, to, count, pushed > 0 ? KOLO__UNMAPPED_ONLY : 0);
    if (pushed > 0)
        kolo__schedule_copy(s, from, to, count - pushed, KOLO__MAPPED_ONLY);
}

static void broadcast(struct kolo__schedule *s)
{
    uint32_t root = s->problem.root, size = s->problem.size;
    bool is_root = s->problem.rank == root;
    size_t total = s->problem.count, window = s->problem.window_count;
    size_t rounds = rounds_of(total, window), shown = is_root ? total : 0;
    fill_input(s, 0, smaller(window, shown));
    fence(s);
    for (size_t round = 0; round < rounds; round++) {
        size_t low = round * window, next = low + window, count = smaller(window, total - low);
        size_t pushed = kolo__slice_count(count, size, size - 1);
        if (is_root) {
            push_input(s, low + count - pushed, pushed);
            kolo__schedule_copy_input(s, low, kolo__here(s, KOLO__OUTPUT, low), count);
        } else {
            pull(s, low, count, pushed);
        }
        fill_input(s, next, smaller(next + window, shown));
        close_round(s, round + 1 == rounds);
    }
}

static void allgather(struct kolo__schedule *s)
{
    uint32_t rank = s->problem.rank, size = s->problem.size;
    size_t total = s->problem.count, window = s->problem.window_count;
    size_t rounds = rounds_of(total, window);
    fill_input(s, 0, smaller(window, total));
    fence(s);
    for (size_t round = 0; round < rounds; round++) {
        size_t low = round * window, next = low + window, count = smaller(window, total - low);
        for (uint32_t k = 0; k < size; k++) {
            uint32_t peer = (rank + k) % size;
            struct kolo__place output = kolo__here(s, KOLO__OUTPUT, peer * total + low);
            if (peer == rank)
                kolo__schedule_copy_input(s, low, output, count);
            else
                kolo__schedule_copy(s, kolo__place_of(peer, KOLO__EXPOSED_IN, low), output, count,
                                    0);
        }
        fill_input(s, next, smaller(next + window, total));
        close_round(s, round + 1 == rounds);
    }
}
