/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Binomial tree: broadcast and reduce in ceil(lg p) steps, from or to any root.
 *
 *                 0                   numbers are (rank - root) mod p: the parent of v is v
 *            /   |   \                without its lowest bit set, its children are v + 1, v + 2,
 *           4    2    1               v + 4, ... below that bit
 *          / \   |
 *         6   5  3                    8 ranks; a subtree is a run of consecutive numbers
 *         |
 *         7
 *
 * Broadcast serves the largest subtree first; reduce takes the smallest first, with its own run of
 * numbers as the left operand. The root moves n ceil(lg p) bytes, so this is for small and medium
 * n.
 */
#include "collectives/algorithm/algorithm.h"

static void broadcast(struct kolo__schedule *s);
static void reduce(struct kolo__schedule *s);

static bool accepts(const struct kolo__problem *problem)
{
    return problem->collective == KOLO__BROADCAST || problem->collective == KOLO__REDUCE_TO_ROOT;
}

static kolo_status build(const struct kolo__problem *problem, struct kolo__schedule *s)
{
    kolo__schedule_init(s, problem, kolo__tree.name);
    if (problem->size == 1)
        kolo__schedule_alone(s);
    else if (problem->collective == KOLO__BROADCAST)
        broadcast(s);
    else
        reduce(s);
    return kolo__schedule_built(s);
}

static double seconds(const struct kolo__cost_terms *t)
{
    return t->h * (t->a + t->n * t->B) + (t->reduces ? t->h * t->n * t->G : 0);
}

const struct kolo__algorithm kolo__tree = {
    .name = "tree",
    .accepts = accepts,
    .build = build,
    .seconds = seconds,
};

/* This rank's number, seen from root. */
static uint32_t number_of(const struct kolo__problem *problem)
{
    return (problem->rank + problem->size - problem->root) % problem->size;
}

static uint32_t rank_of(const struct kolo__problem *problem, uint32_t number)
{
    return (number + problem->root) % problem->size;
}

/* The lowest bit set; for the root, the first power of two not below size. */
static uint32_t lowest_bit(uint32_t number, uint32_t size)
{
    uint32_t bit = 1;
    while (bit < size && (number & bit) == 0)
        bit *= 2;
    return bit;
}

static void broadcast(struct kolo__schedule *s)
{
    const struct kolo__problem *problem = &s->problem;
    uint32_t number = number_of(problem), bit = lowest_bit(number, problem->size);
    struct kolo__place output = kolo__here(s, KOLO__OUTPUT, 0);
    if (number != 0)
        kolo__schedule_recv(s, rank_of(problem, number - bit), output, problem->count);
    for (uint32_t child = bit / 2; child > 0; child /= 2)
        if (child < problem->size - number)
            kolo__schedule_send(s, rank_of(problem, number + child),
                                number == 0 ? kolo__here(s, KOLO__INPUT, 0) : output,
                                problem->count);
    if (number == 0)
        kolo__schedule_copy_input(s, 0, output, problem->count);
}

static void reduce(struct kolo__schedule *s)
{
    const struct kolo__problem *problem = &s->problem;
    uint32_t number = number_of(problem), bit = lowest_bit(number, problem->size);
    struct kolo__place mine = kolo__here(s, KOLO__INPUT, 0);
    struct kolo__place sum = kolo__here(s, number == 0 ? KOLO__OUTPUT : KOLO__SCRATCH, 0);
    if (problem->prescale) {
        kolo__schedule_copy_input(s, 0, sum, problem->count);
        mine = sum;
    }
    for (uint32_t child = 1; child < bit && child < problem->size - number; child *= 2) {
        bool last = number == 0 && 2 * child >= problem->size;
        kolo__schedule_recv_reduce(s, rank_of(problem, number + child), mine, sum, problem->count,
                                   last ? KOLO__FINISH : 0);
        mine = sum;
    }
    if (number != 0)
        kolo__schedule_send(s, rank_of(problem, number - bit), mine, problem->count);
}
