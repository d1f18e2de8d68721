/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Double binary tree: logarithmic steps at full bandwidth. Each of two trees reduces and broadcasts
 * half of the data; a rank that is an inner node of one is a leaf of the other, so both directions
 * of everybody's link are used.
 *
 *      first tree, 8 positions         second tree: the same with position 7 - rank
 *                5                     (odd sizes: rank + 1), which makes inner nodes of
 *            /       \                 the even ranks
 *          3           7
 *        /   \        /
 *      1       4     6        <- even positions are leaves, odd ones inner nodes; a parent lies
 *     / \                        between its children, so operands stay in the order of positions
 *    0   2
 *
 * Cost: at most 2 floor(lg p) messages in a chain, at most 2n bytes a rank (an odd element more);
 * the executor pipelines it in segments (Sanders, Speck, Traeff, "Two-tree algorithms for full
 * bandwidth broadcast, reduction and scan", 2009).
 */
#include "collectives/algorithm/algorithm.h"

#include <math.h>

enum { TREES = 2 };

#define NOBODY UINT32_MAX

struct node {
    uint32_t parent, left, right; /* ranks, or NOBODY */
};

static struct node node_of(uint32_t rank, uint32_t size, uint32_t tree);
static void reduce(struct kolo__schedule *s, const struct node *node, uint32_t tree,
                   enum kolo__buffer from);
static void broadcast(struct kolo__schedule *s, const struct node *node, uint32_t tree);

static bool accepts(const struct kolo__problem *problem)
{
    return problem->collective == KOLO__ALLREDUCE;
}

static kolo_status build(const struct kolo__problem *problem, struct kolo__schedule *s)
{
    kolo__schedule_init(s, problem, kolo__double_binary_tree.name);
    if (problem->size == 1) {
        kolo__schedule_alone(s);
        return kolo__schedule_built(s);
    }
    /* Both trees up, then both down: two ranks may be neighbours in both trees, and so each sees
     * the messages of the other in the order in which that sends them. */
    struct node nodes[TREES];
    enum kolo__buffer from = kolo__schedule_contribution(s);
    for (uint32_t tree = 0; tree < TREES; tree++) {
        nodes[tree] = node_of(problem->rank, problem->size, tree);
        reduce(s, &nodes[tree], tree, from);
    }
    for (uint32_t tree = 0; tree < TREES; tree++)
        broadcast(s, &nodes[tree], tree);
    return kolo__schedule_built(s);
}

static double seconds(const struct kolo__cost_terms *t)
{
    double depth = t->power_of_two ? t->h : t->h - 1;
    return 2 * depth * t->a + 2 * t->n * t->B + 4 * sqrt(depth * t->n * t->a * t->B) + t->n * t->G;
}

/* Segments go up and down at one time, so there is one phase. */
static void flows(const struct kolo__flow_problem *problem, struct kolo__flow_sink *sink)
{
    double half = problem->count / TREES;
    uint32_t depth = 0;
    while (2u << depth <= problem->size)
        depth++;
    for (uint32_t tree = 0; tree < TREES && problem->size > 1; tree++) {
        struct node node = node_of(problem->rank, problem->size, tree);
        uint32_t peers[] = {node.parent, node.left, node.right};
        for (size_t i = 0; i < sizeof peers / sizeof *peers; i++)
            if (peers[i] != NOBODY)
                sink->send(sink, 0, peers[i], half);
    }
    sink->chain(sink, 0, 2 * depth);
}

const struct kolo__algorithm kolo__double_binary_tree = {
    .name = "double_binary_tree",
    .accepts = accepts,
    .build = build,
    .seconds = seconds,
    .flows = flows,
};

static uint32_t position_of(uint32_t rank, uint32_t size, uint32_t tree)
{
    if (tree == 0)
        return rank;
    return size % 2 == 0 ? size - 1 - rank : (rank + 1) % size;
}

static uint32_t rank_of(uint32_t position, uint32_t size, uint32_t tree)
{
    if (tree == 0 || position == NOBODY)
        return position;
    return size % 2 == 0 ? size - 1 - position : (position + size - 1) % size;
}

/* The root of the subtree between the leaves 2*low and 2*high: inner node i is position 2i + 1. */
static uint32_t subtree_root(uint32_t low, uint32_t high, uint32_t size)
{
    if (low < high)
        return 2 * ((low + high) / 2) + 1;
    return 2 * low < size ? 2 * low : NOBODY;
}

/* Walks down from the root to the rank's position. */
static struct node node_of(uint32_t rank, uint32_t size, uint32_t tree)
{
    uint32_t wanted = position_of(rank, size, tree);
    uint32_t low = 0, high = size / 2, parent = NOBODY;
    while (subtree_root(low, high, size) != wanted) {
        parent = subtree_root(low, high, size);
        if (wanted < parent)
            high = parent / 2;
        else
            low = parent / 2 + 1;
    }
    struct node node = {rank_of(parent, size, tree), NOBODY, NOBODY};
    if (low < high) {
        node.left = rank_of(subtree_root(low, wanted / 2, size), size, tree);
        node.right = rank_of(subtree_root(wanted / 2 + 1, high, size), size, tree);
    }
    return node;
}

static void reduce(struct kolo__schedule *s, const struct node *node, uint32_t tree,
                   enum kolo__buffer from)
{
    size_t offset = kolo__slice_offset(s->problem.count, TREES, tree);
    size_t count = kolo__slice_count(s->problem.count, TREES, tree);
    struct kolo__place sum = kolo__here(s, KOLO__OUTPUT, offset);
    uint32_t last = node->right != NOBODY ? node->right : node->left;
    uint32_t finish = node->parent == NOBODY ? KOLO__FINISH : 0;
    if (node->left != NOBODY) {
        kolo__schedule_recv_reduce(s, node->left, kolo__here(s, from, offset), sum, count,
                                   KOLO__INCOMING_FIRST | (last == node->left ? finish : 0));
        from = KOLO__OUTPUT;
    }
    if (node->right != NOBODY)
        kolo__schedule_recv_reduce(s, node->right, kolo__here(s, from, offset), sum, count, finish);
    if (node->parent != NOBODY)
        kolo__schedule_send(s, node->parent, kolo__here(s, from, offset), count);
}

static void broadcast(struct kolo__schedule *s, const struct node *node, uint32_t tree)
{
    size_t count = kolo__slice_count(s->problem.count, TREES, tree);
    struct kolo__place sum =
        kolo__here(s, KOLO__OUTPUT, kolo__slice_offset(s->problem.count, TREES, tree));
    if (node->parent != NOBODY)
        kolo__schedule_recv(s, node->parent, sum, count);
    if (node->left != NOBODY)
        kolo__schedule_send(s, node->left, sum, count);
    if (node->right != NOBODY)
        kolo__schedule_send(s, node->right, sum, count);
}
