/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two levels, of which the inner one is shared memory: the ranks of a host combine what they have
 * where it is, each leads its own lanes (algorithm.h) between the hosts, and shares what comes of
 * them with the others of its host. In rounds of one window, of which several are under way:
 *
 *      phase k   read peers' buffers: combine own lanes of round k into SCRATCH
 *                exchange them with their leaders on the other hosts, into own OUTPUT  } float
 *                copy own EXPOSED_OUT -> OUTPUT of round k - LAG - 1    nothing to do where
 *                copy INPUT -> own EXPOSED_IN for round k + 1           those are mapped
 *                push own lanes of round k - LAG into peers' EXPOSED_OUT
 *                fence
 *
 * So while some rounds are between the hosts, the next is combined: messages go on across fences.
 * The push waits for them. A window has its piece from phase k - 1, when it is filled, to phase
 * k + LAG + 1, when it is emptied: LAG + 2 pieces, of which the last is emptied before it is filled
 * in the same phase. Where all buffers of a host are mapped it needs no fences but the first and
 * the last, and copies nothing but the results of others.
 *
 * A rank that is alone on its host takes part in the messages only.
 *
 * Between two hosts, lanes are exchanged whole, and combined on both sides; between more each host
 * combines a part of each lane, and sends it to the others:
 *
 *      host A   lane: a0 a1 a2     1  to each host its part; what comes is combined in the order of
 *      host B   lane: b0 b1 b2        the ring: c + b + a
 *      host C   lane: c0 c1 c2     2  the combined part to each host
 *
 * Cost of an allreduce of n bytes over N hosts of q ranks: each rank sends 2(N-1)/N n/q bytes, in
 * 2(N-1) messages a round, which is twice the latency (once between two hosts). The scheme is
 * "hierarchical allreduce" with a leader for every slice (Jia et al., "Highly scalable deep
 * learning training system with mixed-precision", 2018).
 */
#include "base/assert.h"
#include "collectives/algorithm/algorithm.h"

#include <stdlib.h>

enum { LAG = 2, PIECES = LAG + 2 };

/* What the emitting functions share. */
struct build {
    struct kolo__schedule *s;
    struct kolo__levels levels;
    struct kolo__place *sources;
    size_t piece, rounds;
    size_t area; /* elements of SCRATCH a round, of which there are PIECES */
};

struct span {
    size_t first, end;
};

static void allreduce(struct build *b);

static bool accepts(const struct kolo__problem *problem)
{
    return problem->collective == KOLO__ALLREDUCE && kolo__levels_exist(problem);
}

static kolo_status build(const struct kolo__problem *problem, struct kolo__schedule *s)
{
    kolo__schedule_init(s, problem, kolo__two_level_shm.name);
    s->problem.window_pieces = PIECES;
    struct build b = {.s = s,
                      .sources = malloc(problem->size * sizeof(*b.sources)),
                      .piece = kolo__window_piece(&s->problem)};
    KOLO__ASSERT(b.piece > 0);
    if (kolo__levels_init(problem, &b.levels) && b.sources != NULL)
        allreduce(&b);
    else
        s->out_of_memory = true;
    kolo__levels_free(&b.levels);
    free(b.sources);
    return kolo__schedule_built(s);
}

static double seconds(const struct kolo__cost_terms *t)
{
    double phases = t->N > 2 ? 2 : 1, touched = 4 * t->n;
    return t->fence + t->next_fence + touched * kolo__cost_memory(t->model, touched)->mapped +
           phases * (t->N - 1) * t->a + 2 * (t->N - 1) / t->N * t->n / t->q * t->B;
}

const struct kolo__algorithm kolo__two_level_shm = {
    .name = "two_level_shm",
    .needs_host_mapping = true,
    .accepts = accepts,
    .build = build,
    .seconds = seconds,
};

/* ---- rounds, lanes --------------------------------------------------------------------------- */

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Rounds of one window each; even an empty operation has one: it synchronises. */
static size_t rounds_of(size_t total, size_t window)
{
    return total == 0 ? 1 : (total + window - 1) / window;
}

/* Elements of a round, of `total`. */
static struct span round_of(const struct build *b, size_t round, size_t total)
{
    return (struct span){smaller(round * b->piece, total), smaller((round + 1) * b->piece, total)};
}

static struct span part_of(struct span whole, uint32_t parts, uint32_t index)
{
    size_t count = whole.end - whole.first;
    size_t first = whole.first + kolo__slice_offset(count, parts, index);
    return (struct span){first, first + kolo__slice_count(count, parts, index)};
}

static struct span lane_of(const struct build *b, struct span round, uint32_t lane)
{
    return part_of(round, b->levels.lanes, lane);
}

/* What this rank leads. */
static struct span own_lanes(const struct build *b, struct span round)
{
    return (struct span){lane_of(b, round, b->levels.first_lane).first,
                         lane_of(b, round, b->levels.lane_end - 1).end};
}

static bool is_alone(const struct build *b)
{
    return kolo__levels_local_size(&b->levels) == 1;
}

static void fence(const struct build *b, uint32_t flags)
{
    if (is_alone(b))
        return;
    kolo__schedule_arrive(b->s, flags);
    kolo__schedule_await(b->s, flags);
}

/* ---- inside a host --------------------------------------------------------------------------- */

/* INPUT[first, end) into the window: peers may read after the next fence. */
static void fill_input(const struct build *b, size_t first, size_t end)
{
    if (first < end)
        kolo__schedule_copy_input(b->s, first, kolo__here(b->s, KOLO__EXPOSED_IN, first),
                                  end - first);
}

/* The same without what this rank leads, of which it alone reads its INPUT; scaled, it reads the
 * copy. */
static void fill(const struct build *b, struct span round)
{
    struct span own = own_lanes(b, round);
    bool all = b->s->problem.prescale;
    if (is_alone(b))
        return;
    fill_input(b, round.first, all ? round.end : own.first);
    fill_input(b, all ? round.end : own.end, round.end);
}

/* Where SCRATCH has an element of own lanes. */
static struct kolo__place scratch_of(const struct build *b, size_t round, struct span own,
                                     size_t element)
{
    return kolo__here(b->s, KOLO__SCRATCH, round % PIECES * b->area + element - own.first);
}

/* Own lanes of all ranks of this host, in the order of ranks. */
static void combine(const struct build *b, size_t round, struct span own)
{
    struct kolo__schedule *s = b->s;
    uint32_t local = kolo__levels_local_size(&b->levels);
    if (own.first == own.end)
        return;
    struct kolo__place to = scratch_of(b, round, own, own.first);
    if (local == 1) {
        kolo__schedule_copy_input(s, own.first, to, own.end - own.first);
        return;
    }
    for (uint32_t i = 0; i < local; i++)
        b->sources[i] =
            kolo__place_of(kolo__levels_local(&b->levels, i), KOLO__EXPOSED_IN, own.first);
    if (!s->problem.prescale)
        b->sources[b->levels.local] = kolo__here(s, KOLO__INPUT, own.first);
    kolo__schedule_reduce(s, b->sources, local, to, own.end - own.first, 0);
}

/* Into the windows of the others of this host, or their OUTPUT. */
static void push(const struct build *b, struct span own)
{
    uint32_t local = kolo__levels_local_size(&b->levels);
    for (uint32_t k = 1; k < local && own.first < own.end; k++) {
        uint32_t peer = kolo__levels_local(&b->levels, (b->levels.local + k) % local);
        kolo__schedule_copy(b->s, kolo__here(b->s, KOLO__OUTPUT, own.first),
                            kolo__place_of(peer, KOLO__EXPOSED_OUT, own.first), own.end - own.first,
                            0);
    }
}

static void empty_output(const struct build *b, size_t first, size_t end)
{
    if (first < end)
        kolo__schedule_copy(b->s, kolo__here(b->s, KOLO__EXPOSED_OUT, first),
                            kolo__here(b->s, KOLO__OUTPUT, first), end - first, 0);
}

/* What the others have pushed. */
static void empty(const struct build *b, struct span round)
{
    struct span own = own_lanes(b, round);
    if (is_alone(b))
        return;
    empty_output(b, round.first, own.first);
    empty_output(b, own.end, round.end);
}

/* ---- between hosts --------------------------------------------------------------------------- */

/* Between two: both combine the whole, in the same order. */
static void swap(const struct build *b, size_t round, struct span own, uint32_t index)
{
    struct kolo__schedule *s = b->s;
    struct span all = round_of(b, round, s->problem.count), lane = lane_of(b, all, index);
    uint32_t peer = kolo__levels_leader(&b->levels, 1 - b->levels.host, index);
    struct kolo__place mine = scratch_of(b, round, own, lane.first);
    kolo__schedule_send(s, peer, mine, lane.end - lane.first);
    kolo__schedule_recv_reduce(s, peer, mine, kolo__here(s, KOLO__OUTPUT, lane.first),
                               lane.end - lane.first,
                               KOLO__FINISH | (b->levels.host == 1 ? KOLO__INCOMING_FIRST : 0));
}

/* Between more: to each host its part of the lane, and this host's from each. */
static void reduce_parts(const struct build *b, size_t round, struct span own, uint32_t index)
{
    struct kolo__schedule *s = b->s;
    uint32_t hosts = b->levels.hosts, host = b->levels.host;
    struct span lane = lane_of(b, round_of(b, round, s->problem.count), index);
    struct span mine = part_of(lane, hosts, host);
    struct kolo__place sum = scratch_of(b, round, own, mine.first);
    for (uint32_t k = 1; k < hosts; k++) {
        uint32_t next = (host + k) % hosts, previous = (host + hosts - k) % hosts;
        struct span theirs = part_of(lane, hosts, next);
        bool last = k + 1 == hosts;
        kolo__schedule_send(s, kolo__levels_leader(&b->levels, next, index),
                            scratch_of(b, round, own, theirs.first), theirs.end - theirs.first);
        kolo__schedule_recv_reduce(s, kolo__levels_leader(&b->levels, previous, index), sum,
                                   last ? kolo__here(s, KOLO__OUTPUT, mine.first) : sum,
                                   mine.end - mine.first,
                                   KOLO__INCOMING_FIRST | (last ? KOLO__FINISH : 0));
    }
}

static void gather_parts(const struct build *b, size_t round, uint32_t index)
{
    struct kolo__schedule *s = b->s;
    uint32_t hosts = b->levels.hosts, host = b->levels.host;
    struct span lane = lane_of(b, round_of(b, round, s->problem.count), index);
    struct span mine = part_of(lane, hosts, host);
    for (uint32_t k = 1; k < hosts; k++) {
        uint32_t next = (host + k) % hosts, previous = (host + hosts - k) % hosts;
        struct span theirs = part_of(lane, hosts, previous);
        kolo__schedule_send(s, kolo__levels_leader(&b->levels, next, index),
                            kolo__here(s, KOLO__OUTPUT, mine.first), mine.end - mine.first);
        kolo__schedule_recv(s, kolo__levels_leader(&b->levels, previous, index),
                            kolo__here(s, KOLO__OUTPUT, theirs.first), theirs.end - theirs.first);
    }
}

static void exchange(const struct build *b, size_t round, struct span own)
{
    const struct kolo__levels *levels = &b->levels;
    for (uint32_t lane = levels->first_lane; lane < levels->lane_end; lane++)
        if (levels->hosts == 2)
            swap(b, round, own, lane);
        else
            reduce_parts(b, round, own, lane);
    for (uint32_t lane = levels->first_lane; levels->hosts > 2 && lane < levels->lane_end; lane++)
        gather_parts(b, round, lane);
}

static void allreduce(struct build *b)
{
    size_t count = b->s->problem.count, rounds = rounds_of(count, b->piece);
    struct span longest = own_lanes(b, (struct span){0, b->piece});
    b->area =
        longest.end - longest.first + b->levels.lanes; /* a shorter round may be cut otherwise */
    fill(b, round_of(b, 0, count));
    fence(b, 0);
    for (size_t phase = 0; phase < rounds + LAG; phase++) {
        if (phase < rounds) {
            struct span own = own_lanes(b, round_of(b, phase, count));
            combine(b, phase, own);
            exchange(b, phase, own);
        }
        if (phase > LAG)
            empty(b, round_of(b, phase - LAG - 1, count));
        if (phase + 1 < rounds)
            fill(b, round_of(b, phase + 1, count));
        if (phase >= LAG)
            push(b, own_lanes(b, round_of(b, phase - LAG, count)));
        /* Before what is filled is read, and before what is pushed is emptied. */
        if (phase + 1 < rounds || phase >= LAG)
            fence(b, phase + 1 == rounds + LAG ? 0 : KOLO__WINDOWS_ONLY);
    }
    empty(b, round_of(b, rounds - 1, count));
}
