/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reduce-scatter in two levels. Who leads a slice on a host that it does not belong to combines it
 * there, and sends it to the rank that it belongs to, which combines what comes from all hosts.
 * Neighbouring slices of a host have neighbouring leaders on the others, or the same.
 *
 * A window holds a piece of every slice. Nothing is pushed: sums lie in SCRATCH until they are
 * sent.
 */
#include "collectives/algorithm/two_level_shm.h"

/* Who on this host leads the slice of the j-th rank of that one. */
static uint32_t leader_of(const struct kolo__two_levels *b, uint32_t host, uint32_t at, uint32_t j)
{
    const uint32_t *first = b->levels.first;
    uint32_t theirs = first[host + 1] - first[host], ours = first[at + 1] - first[at];
    return b->levels.ranks[first[at] + j * ours / theirs];
}

/* INPUT's pieces of all slices, without what only this rank reads. */
static void fill_slices(const struct kolo__two_levels *b, size_t round)
{
    const struct kolo__problem *problem = &b->s->problem;
    struct kolo__span part = kolo__two_level_round(b, round);
    for (uint32_t k = 0; k < problem->size; k++) {
        uint32_t owner = b->levels.ranks[k], host = 0;
        while (b->levels.first[host + 1] <= k)
            host++;
        uint32_t leader = leader_of(b, host, b->levels.host, k - b->levels.first[host]);
        if (leader != problem->rank || problem->prescale)
            kolo__two_level_fill_input(b, owner * problem->count + part.first,
                                       owner * problem->count + part.end);
    }
}

/* Combines the slices of a host that this rank leads, and sends them; they lie in SCRATCH from *at
 * on. */
static void send_led(const struct kolo__two_levels *b, size_t round, uint32_t host, size_t *at)
{
    const struct kolo__levels *levels = &b->levels;
    struct kolo__schedule *s = b->s;
    struct kolo__span part = kolo__two_level_round(b, round);
    for (uint32_t i = levels->first[host]; i < levels->first[host + 1]; i++) {
        size_t slice = levels->ranks[i] * s->problem.count;
        if (leader_of(b, host, levels->host, i - levels->first[host]) != s->problem.rank)
            continue;
        struct kolo__place sum = kolo__here(s, KOLO__SCRATCH, *at);
        kolo__two_level_combine_range(b, slice + part.first, slice + part.end, sum);
        kolo__schedule_send(s, levels->ranks[i], sum, part.end - part.first);
        *at += b->piece;
    }
}

/* Own slice, of this host, and of the others in the order of the ring. What a rank leads may be
 * more steps than a window of the executor has: so it receives from a host right after it has sent
 * to one, and no circle of ranks waits for each other. */
static void exchange(const struct kolo__two_levels *b, size_t round)
{
    const struct kolo__levels *levels = &b->levels;
    struct kolo__schedule *s = b->s;
    struct kolo__span part = kolo__two_level_round(b, round);
    size_t slice = s->problem.rank * s->problem.count, at = round % KOLO__LAG_PIECES * b->area;
    struct kolo__place sum = kolo__here(s, KOLO__SCRATCH, at);
    kolo__two_level_combine_range(b, slice + part.first, slice + part.end, sum);
    at += b->piece;
    for (uint32_t k = 1; k < levels->hosts; k++) {
        uint32_t next = (levels->host + k) % levels->hosts;
        uint32_t previous = (levels->host + levels->hosts - k) % levels->hosts;
        bool last = k + 1 == levels->hosts;
        send_led(b, round, next, &at);
        kolo__schedule_recv_reduce(s, leader_of(b, levels->host, previous, levels->local), sum,
                                   last ? kolo__here(s, KOLO__OUTPUT, part.first) : sum,
                                   part.end - part.first,
                                   KOLO__INCOMING_FIRST | (last ? KOLO__FINISH : 0));
    }
}

void kolo__two_level_reduce_scatter(struct kolo__two_levels *b)
{
    uint32_t led = 1; /* the own one */
    for (uint32_t host = 0; host < b->levels.hosts; host++)
        for (uint32_t i = b->levels.first[host]; i < b->levels.first[host + 1]; i++)
            led +=
                host != b->levels.host &&
                leader_of(b, host, b->levels.host, i - b->levels.first[host]) == b->s->problem.rank;
    b->area = led * b->piece;
    fill_slices(b, 0);
    kolo__two_level_fence(b, 0);
    for (size_t round = 0; round < b->rounds; round++) {
        exchange(b, round);
        bool last = round + 1 == b->rounds;
        if (!last)
            fill_slices(b, round + 1);
        kolo__two_level_fence(b, last ? 0 : KOLO__WINDOWS_ONLY);
    }
}
