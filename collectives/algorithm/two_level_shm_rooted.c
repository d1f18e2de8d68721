/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Broadcast and reduce in two levels. Between hosts each lane goes along a chain that begins, or
 * ends, at root's host; the executor cuts it into segments, so its hops overlap.
 *
 *      broadcast   root's host   everybody reads root's window; leaders send their lanes
 *                  other hosts   leaders receive their lanes, and push them to the others
 *      reduce      other hosts   leaders combine their lanes, and what comes with them, and send
 *                  root's host   the same, and push what comes of it to root
 */
#include "collectives/algorithm/two_level_shm.h"

/* The host of root, and where in the chain this one is; root's is 0. */
struct chain {
    uint32_t root_host, place;
};

static struct chain chain_of(const struct kolo__two_levels *b)
{
    const struct kolo__levels *levels = &b->levels;
    uint32_t host = 0;
    for (uint32_t i = 0; levels->ranks[i] != b->s->problem.root;)
        host += ++i == levels->first[host + 1];
    return (struct chain){host, (levels->host + levels->hosts - host) % levels->hosts};
}

/* The leader of the lane so many hosts further in the chain. */
static uint32_t along(const struct kolo__two_levels *b, uint32_t lane, uint32_t hosts)
{
    const struct kolo__levels *levels = &b->levels;
    return kolo__levels_leader(levels, (levels->host + hosts) % levels->hosts, lane);
}

/* From the chain into OUTPUT, and on. */
static void pass_on(const struct kolo__two_levels *b, size_t round, const struct chain *chain,
                    enum kolo__buffer from)
{
    const struct kolo__levels *levels = &b->levels;
    struct kolo__schedule *s = b->s;
    for (uint32_t i = levels->first_lane; i < levels->lane_end; i++) {
        struct kolo__span lane = kolo__two_level_lane(b, kolo__two_level_round(b, round), i);
        size_t count = lane.end - lane.first;
        if (chain->place > 0)
            kolo__schedule_recv(s, along(b, i, levels->hosts - 1),
                                kolo__here(s, KOLO__OUTPUT, lane.first), count);
        if (chain->place + 1 < levels->hosts)
            kolo__schedule_send(s, along(b, i, 1), kolo__here(s, from, lane.first), count);
    }
}

/* Root's host: no lag, for everybody reads what root shows at once. */
static void spread_from_root(const struct kolo__two_levels *b, const struct chain *chain)
{
    struct kolo__schedule *s = b->s;
    bool is_root = s->problem.rank == s->problem.root;
    struct kolo__span round = kolo__two_level_round(b, 0);
    if (is_root)
        kolo__two_level_fill_input(b, round.first, round.end);
    kolo__two_level_fence(b, 0);
    for (size_t phase = 0; phase < b->rounds; phase++) {
        round = kolo__two_level_round(b, phase);
        size_t count = round.end - round.first;
        struct kolo__place output = kolo__here(s, KOLO__OUTPUT, round.first);
        if (is_root)
            kolo__schedule_copy_input(s, round.first, output, count);
        else if (count > 0)
            kolo__schedule_copy(s, kolo__place_of(s->problem.root, KOLO__EXPOSED_IN, round.first),
                                output, count, 0);
        pass_on(b, phase, chain, is_root ? KOLO__INPUT : KOLO__OUTPUT);
        bool last = phase + 1 == b->rounds;
        round = kolo__two_level_round(b, phase + 1);
        if (is_root && !last)
            kolo__two_level_fill_input(b, round.first, round.end);
        kolo__two_level_fence(b, last ? 0 : KOLO__WINDOWS_ONLY);
    }
}

void kolo__two_level_broadcast(const struct kolo__two_levels *b)
{
    struct chain chain = chain_of(b);
    if (chain.place == 0) {
        spread_from_root(b, &chain);
        return;
    }
    kolo__two_level_fence(b, 0);
    for (size_t phase = 0; phase < b->rounds + KOLO__LAG; phase++) {
        if (phase < b->rounds)
            pass_on(b, phase, &chain, KOLO__OUTPUT);
        if (phase > KOLO__LAG)
            kolo__two_level_empty(b, phase - KOLO__LAG - 1);
        if (phase >= KOLO__LAG) {
            kolo__two_level_push_to_all(b, phase - KOLO__LAG);
            kolo__two_level_close(b, phase);
        }
    }
    kolo__two_level_empty(b, b->rounds - 1);
}

/* Own lanes, combined on this host, and with what comes from further away in the chain. */
static void pass_sums(const struct kolo__two_levels *b, size_t round, const struct chain *chain)
{
    const struct kolo__levels *levels = &b->levels;
    struct kolo__schedule *s = b->s;
    bool is_root = s->problem.rank == s->problem.root, first = chain->place + 1 == levels->hosts;
    for (uint32_t i = levels->first_lane; i < levels->lane_end; i++) {
        struct kolo__span lane = kolo__two_level_lane(b, kolo__two_level_round(b, round), i);
        struct kolo__place sum = kolo__two_level_scratch(b, round, lane.first);
        size_t count = lane.end - lane.first;
        if (!first)
            kolo__schedule_recv_reduce(
                s, along(b, i, 1), sum, is_root ? kolo__here(s, KOLO__OUTPUT, lane.first) : sum,
                count, KOLO__INCOMING_FIRST | (chain->place == 0 ? KOLO__FINISH : 0));
        if (chain->place > 0)
            kolo__schedule_send(s, along(b, i, levels->hosts - 1), sum, count);
    }
}

void kolo__two_level_reduce(const struct kolo__two_levels *b)
{
    const struct kolo__problem *problem = &b->s->problem;
    struct chain chain = chain_of(b);
    bool here = chain.place == 0, is_root = problem->rank == problem->root;
    size_t phases = b->rounds + (here ? KOLO__LAG : 0);
    kolo__two_level_fill(b, 0);
    kolo__two_level_fence(b, 0);
    for (size_t phase = 0; phase < phases; phase++) {
        if (phase < b->rounds) {
            kolo__two_level_combine(b, phase);
            pass_sums(b, phase, &chain);
        }
        if (is_root && phase > KOLO__LAG)
            kolo__two_level_empty(b, phase - KOLO__LAG - 1);
        if (phase + 1 < b->rounds)
            kolo__two_level_fill(b, phase + 1);
        size_t pushed = phase - KOLO__LAG;
        if (here && !is_root && phase >= KOLO__LAG)
            kolo__two_level_push(
                b, pushed,
                kolo__two_level_scratch(
                    b, pushed, kolo__two_level_own(b, kolo__two_level_round(b, pushed)).first),
                problem->root);
        if (here)
            kolo__two_level_close(b, phase);
        else
            kolo__two_level_fence(b, phase + 1 == phases ? 0 : KOLO__WINDOWS_ONLY);
    }
    if (is_root)
        kolo__two_level_empty(b, b->rounds - 1);
}
