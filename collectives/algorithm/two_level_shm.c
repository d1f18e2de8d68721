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
#include "collectives/algorithm/two_level_shm.h"

#include "base/assert.h"

#include <stdlib.h>

static void allreduce(const struct kolo__two_levels *b);

static bool accepts(const struct kolo__problem *problem)
{
    bool done =
        problem->collective == KOLO__ALLREDUCE || problem->collective == KOLO__REDUCE_SCATTER ||
        problem->collective == KOLO__BROADCAST || problem->collective == KOLO__REDUCE_TO_ROOT;
    return done && kolo__levels_exist(problem);
}

/* Rounds of one window each; even an empty operation has one: it synchronises. */
static size_t rounds_of(size_t total, size_t window)
{
    return total == 0 ? 1 : (total + window - 1) / window;
}

static void emit(struct kolo__two_levels *b)
{
    struct kolo__span longest = kolo__two_level_own(b, (struct kolo__span){0, b->piece});
    b->area = longest.end - longest.first;
    if (b->s->problem.collective == KOLO__ALLREDUCE)
        allreduce(b);
    else if (b->s->problem.collective == KOLO__REDUCE_SCATTER)
        kolo__two_level_reduce_scatter(b);
    else if (b->s->problem.collective == KOLO__BROADCAST)
        kolo__two_level_broadcast(b);
    else
        kolo__two_level_reduce(b);
}

static kolo_status build(const struct kolo__problem *problem, struct kolo__schedule *s)
{
    kolo__schedule_init(s, problem, kolo__two_level_shm.name);
    s->problem.window_pieces = KOLO__LAG_PIECES;
    struct kolo__two_levels b = {.s = s,
                                 .sources = malloc(problem->size * sizeof(*b.sources)),
                                 .piece = kolo__window_piece(&s->problem)};
    KOLO__ASSERT(b.piece > 0);
    b.rounds = rounds_of(problem->count, b.piece);
    if (kolo__levels_init(problem, &b.levels) && b.sources != NULL)
        emit(&b);
    else
        s->out_of_memory = true;
    kolo__levels_free(&b.levels);
    free(b.sources);
    return kolo__schedule_built(s);
}

static double seconds(const struct kolo__cost_terms *t)
{
    double phases = t->halves == 2 && t->N > 2 ? 2 : 1, touched = 2 * t->halves * t->n;
    double sent = t->one_source ? 1 : t->halves * (t->N - 1) / t->N;
    return t->fence + t->next_fence + touched * kolo__cost_memory(t->model, touched)->mapped +
           phases * (t->N - 1) * t->a + sent * t->n / t->q * t->B;
}

/* A lane for each rank of a host, whole between two hosts, else each host's part of it. */
static void flows(const struct kolo__flow_problem *problem, struct kolo__flow_sink *sink)
{
    uint32_t q = problem->per_host, hosts = problem->size / q;
    for (uint32_t phase = 0; phase < (hosts > 2 ? 2 : 1); phase++) {
        for (uint32_t k = 1; k < hosts; k++)
            sink->send(sink, phase, (problem->rank + k * q) % problem->size,
                       problem->count / q / (hosts > 2 ? hosts : 1));
        sink->chain(sink, phase, hosts - 1);
    }
}

const struct kolo__algorithm kolo__two_level_shm = {
    .name = "two_level_shm",
    .needs_host_mapping = true,
    .accepts = accepts,
    .build = build,
    .seconds = seconds,
    .flows = flows,
};

/* ---- rounds, lanes --------------------------------------------------------------------------- */

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

struct kolo__span kolo__two_level_round(const struct kolo__two_levels *b, size_t round)
{
    size_t count = b->s->problem.count;
    return (struct kolo__span){smaller(round * b->piece, count),
                               smaller((round + 1) * b->piece, count)};
}

static struct kolo__span part_of(struct kolo__span whole, uint32_t parts, uint32_t index)
{
    size_t count = whole.end - whole.first;
    size_t first = whole.first + kolo__slice_offset(count, parts, index);
    return (struct kolo__span){first, first + kolo__slice_count(count, parts, index)};
}

struct kolo__span kolo__two_level_lane(const struct kolo__two_levels *b, struct kolo__span round,
                                       uint32_t lane)
{
    return part_of(round, b->levels.lanes, lane);
}

struct kolo__span kolo__two_level_own(const struct kolo__two_levels *b, struct kolo__span round)
{
    return (struct kolo__span){kolo__two_level_lane(b, round, b->levels.first_lane).first,
                               kolo__two_level_lane(b, round, b->levels.lane_end - 1).end};
}

static struct kolo__span own_of_round(const struct kolo__two_levels *b, size_t round)
{
    return kolo__two_level_own(b, kolo__two_level_round(b, round));
}

static struct kolo__span lane_of_round(const struct kolo__two_levels *b, size_t round,
                                       uint32_t lane)
{
    return kolo__two_level_lane(b, kolo__two_level_round(b, round), lane);
}

void kolo__two_level_fence(const struct kolo__two_levels *b, uint32_t flags)
{
    if (kolo__two_level_alone(b))
        return;
    kolo__schedule_arrive(b->s, flags);
    kolo__schedule_await(b->s, flags);
}

/* Before what is filled is read, and before what is pushed is emptied. */
void kolo__two_level_close(const struct kolo__two_levels *b, size_t phase)
{
    if (phase + 1 < b->rounds || phase >= KOLO__LAG)
        kolo__two_level_fence(b, phase + 1 == b->rounds + KOLO__LAG ? 0 : KOLO__WINDOWS_ONLY);
}

/* ---- inside a host --------------------------------------------------------------------------- */

void kolo__two_level_fill_input(const struct kolo__two_levels *b, size_t first, size_t end)
{
    if (first < end && !kolo__two_level_alone(b))
        kolo__schedule_copy_input(b->s, first, kolo__here(b->s, KOLO__EXPOSED_IN, first),
                                  end - first);
}

/* Scaled, the rank reads the copy itself. */
void kolo__two_level_fill(const struct kolo__two_levels *b, size_t round)
{
    struct kolo__span all = kolo__two_level_round(b, round), own = own_of_round(b, round);
    bool whole = b->s->problem.prescale;
    kolo__two_level_fill_input(b, all.first, whole ? all.end : own.first);
    kolo__two_level_fill_input(b, whole ? all.end : own.end, all.end);
}

struct kolo__place kolo__two_level_scratch(const struct kolo__two_levels *b, size_t round,
                                           size_t element)
{
    size_t in_area = element - own_of_round(b, round).first;
    return kolo__here(b->s, KOLO__SCRATCH, round % KOLO__LAG_PIECES * b->area + in_area);
}

void kolo__two_level_combine_range(const struct kolo__two_levels *b, size_t first, size_t end,
                                   struct kolo__place to)
{
    struct kolo__schedule *s = b->s;
    uint32_t local = kolo__levels_local_size(&b->levels);
    if (first == end)
        return;
    if (local == 1) {
        kolo__schedule_copy_input(s, first, to, end - first);
        return;
    }
    for (uint32_t i = 0; i < local; i++)
        b->sources[i] = kolo__place_of(kolo__levels_local(&b->levels, i), KOLO__EXPOSED_IN, first);
    if (!s->problem.prescale)
        b->sources[b->levels.local] = kolo__here(s, KOLO__INPUT, first);
    kolo__schedule_reduce(s, b->sources, local, to, end - first, 0);
}

void kolo__two_level_combine(const struct kolo__two_levels *b, size_t round)
{
    struct kolo__span own = own_of_round(b, round);
    kolo__two_level_combine_range(b, own.first, own.end,
                                  kolo__two_level_scratch(b, round, own.first));
}

void kolo__two_level_push(const struct kolo__two_levels *b, size_t round, struct kolo__place from,
                          uint32_t peer)
{
    struct kolo__span own = own_of_round(b, round);
    if (own.first < own.end)
        kolo__schedule_copy(b->s, from, kolo__place_of(peer, KOLO__EXPOSED_OUT, own.first),
                            own.end - own.first, 0);
}

void kolo__two_level_push_to_all(const struct kolo__two_levels *b, size_t round)
{
    uint32_t local = kolo__levels_local_size(&b->levels);
    for (uint32_t k = 1; k < local; k++)
        kolo__two_level_push(b, round, kolo__here(b->s, KOLO__OUTPUT, own_of_round(b, round).first),
                             kolo__levels_local(&b->levels, (b->levels.local + k) % local));
}

static void empty_output(const struct kolo__two_levels *b, size_t first, size_t end)
{
    if (first < end && !kolo__two_level_alone(b))
        kolo__schedule_copy(b->s, kolo__here(b->s, KOLO__EXPOSED_OUT, first),
                            kolo__here(b->s, KOLO__OUTPUT, first), end - first, 0);
}

void kolo__two_level_empty(const struct kolo__two_levels *b, size_t round)
{
    struct kolo__span all = kolo__two_level_round(b, round), own = own_of_round(b, round);
    empty_output(b, all.first, own.first);
    empty_output(b, own.end, all.end);
}

/* ---- allreduce: between hosts ---------------------------------------------------------------- */

/* Between two: both combine the whole, in the same order. */
static void swap(const struct kolo__two_levels *b, size_t round, uint32_t index)
{
    struct kolo__schedule *s = b->s;
    struct kolo__span lane = lane_of_round(b, round, index);
    uint32_t peer = kolo__levels_leader(&b->levels, 1 - b->levels.host, index);
    struct kolo__place mine = kolo__two_level_scratch(b, round, lane.first);
    kolo__schedule_send(s, peer, mine, lane.end - lane.first);
    kolo__schedule_recv_reduce(s, peer, mine, kolo__here(s, KOLO__OUTPUT, lane.first),
                               lane.end - lane.first,
                               KOLO__FINISH | (b->levels.host == 1 ? KOLO__INCOMING_FIRST : 0));
}

/* Between more: to each host its part of the lane, and this host's from each. */
static void reduce_parts(const struct kolo__two_levels *b, size_t round, uint32_t index)
{
    struct kolo__schedule *s = b->s;
    uint32_t hosts = b->levels.hosts, host = b->levels.host;
    struct kolo__span lane = lane_of_round(b, round, index), mine = part_of(lane, hosts, host);
    struct kolo__place sum = kolo__two_level_scratch(b, round, mine.first);
    for (uint32_t k = 1; k < hosts; k++) {
        uint32_t next = (host + k) % hosts, previous = (host + hosts - k) % hosts;
        struct kolo__span theirs = part_of(lane, hosts, next);
        bool last = k + 1 == hosts;
        kolo__schedule_send(s, kolo__levels_leader(&b->levels, next, index),
                            kolo__two_level_scratch(b, round, theirs.first),
                            theirs.end - theirs.first);
        kolo__schedule_recv_reduce(s, kolo__levels_leader(&b->levels, previous, index), sum,
                                   last ? kolo__here(s, KOLO__OUTPUT, mine.first) : sum,
                                   mine.end - mine.first,
                                   KOLO__INCOMING_FIRST | (last ? KOLO__FINISH : 0));
    }
}

static void gather_parts(const struct kolo__two_levels *b, size_t round, uint32_t index)
{
    struct kolo__schedule *s = b->s;
    uint32_t hosts = b->levels.hosts, host = b->levels.host;
    struct kolo__span lane = lane_of_round(b, round, index), mine = part_of(lane, hosts, host);
    for (uint32_t k = 1; k < hosts; k++) {
        uint32_t next = (host + k) % hosts, previous = (host + hosts - k) % hosts;
        struct kolo__span theirs = part_of(lane, hosts, previous);
        kolo__schedule_send(s, kolo__levels_leader(&b->levels, next, index),
                            kolo__here(s, KOLO__OUTPUT, mine.first), mine.end - mine.first);
        kolo__schedule_recv(s, kolo__levels_leader(&b->levels, previous, index),
                            kolo__here(s, KOLO__OUTPUT, theirs.first), theirs.end - theirs.first);
    }
}

static void exchange(const struct kolo__two_levels *b, size_t round)
{
    const struct kolo__levels *levels = &b->levels;
    for (uint32_t lane = levels->first_lane; lane < levels->lane_end; lane++)
        if (levels->hosts == 2)
            swap(b, round, lane);
        else
            reduce_parts(b, round, lane);
    for (uint32_t lane = levels->first_lane; levels->hosts > 2 && lane < levels->lane_end; lane++)
        gather_parts(b, round, lane);
}

static void allreduce(const struct kolo__two_levels *b)
{
    kolo__two_level_fill(b, 0);
    kolo__two_level_fence(b, 0);
    for (size_t phase = 0; phase < b->rounds + KOLO__LAG; phase++) {
        if (phase < b->rounds) {
            kolo__two_level_combine(b, phase);
            exchange(b, phase);
        }
        if (phase > KOLO__LAG)
            kolo__two_level_empty(b, phase - KOLO__LAG - 1);
        if (phase + 1 < b->rounds)
            kolo__two_level_fill(b, phase + 1);
        if (phase >= KOLO__LAG)
            kolo__two_level_push_to_all(b, phase - KOLO__LAG);
        kolo__two_level_close(b, phase);
    }
    kolo__two_level_empty(b, b->rounds - 1);
}
