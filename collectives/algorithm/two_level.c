/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two levels: q ranks on each of N hosts. Every local rank leads one slice between the hosts, so
 * each host sends with all its ranks at once and only 2(N-1)/N n bytes leave it.
 *
 *      host A   a0 a1      1  ring inside each host: reduce-scatter, local rank i has slice i
 *               |  |       2  ring over the local ranks i of all hosts: allreduce of slice i
 *      host B   b0 b1      3  ring inside each host: allgather
 *               |  |
 *      host C   c0 c1
 *
 * Cost: 2(q-1) + 2(N-1) steps; between hosts each rank sends about 2(N-1)/N n/q bytes. (Jia et al.,
 * "Highly scalable deep learning training system with mixed-precision", 2018, call it hierarchical
 * allreduce; with a leader for every slice it is NCCL's two-level scheme as well.)
 */
#include "base/assert.h"
#include "collectives/algorithm/algorithm.h"

struct levels {
    struct kolo__ring_of local, across;
};

static struct levels levels_of(const struct kolo__problem *problem);

/* Ranks on the same host as this one. */
static uint32_t host_size(const struct kolo__problem *problem, uint32_t rank)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < problem->size; i++)
        count += problem->host_of[i] == problem->host_of[rank];
    return count;
}

static bool accepts(const struct kolo__problem *problem)
{
    if (problem->collective != KOLO__ALLREDUCE || problem->host_of == NULL)
        return false;
    uint32_t local = host_size(problem, 0);
    if (local == problem->size)
        return false;
    for (uint32_t rank = 1; rank < problem->size; rank++)
        if (host_size(problem, rank) != local)
            return false;
    return true;
}

static kolo_status build(const struct kolo__problem *problem, struct kolo__schedule *s)
{
    struct levels levels = levels_of(problem);
    kolo__schedule_init(s, problem, kolo__two_level.name);
    enum kolo__buffer from = kolo__schedule_contribution(s);
    kolo__ring_reduce(s, &levels.local, from, 0);
    if (levels.local.size > 1)
        from = KOLO__OUTPUT;
    kolo__ring_reduce(s, &levels.across, from, KOLO__FINISH);
    kolo__ring_gather(s, &levels.across);
    kolo__ring_gather(s, &levels.local);
    return kolo__schedule_built(s);
}

static double seconds(const struct kolo__cost_terms *t)
{
    return 2 * (t->q - 1) * t->local_a + 2 * (t->q - 1) / t->q * t->n * t->local_B +
           2 * (t->N - 1) * t->a + 2 * (t->N - 1) / t->N * t->n / t->q * t->B + t->n * t->G;
}

static void flows(const struct kolo__flow_problem *problem, struct kolo__flow_sink *sink)
{
    uint32_t q = problem->per_host, hosts = problem->size / q, first = problem->rank / q * q;
    uint32_t next_here = first + (problem->rank + 1 - first) % q;
    uint32_t next_there = (problem->rank + q) % problem->size;
    for (uint32_t phase = 0; phase < 4; phase++) {
        bool across = phase == 1 || phase == 2;
        double ranks = across ? hosts : q, elements = problem->count / (across ? q : 1);
        if (ranks > 1)
            sink->send(sink, phase, across ? next_there : next_here,
                       (ranks - 1) * elements / ranks);
        sink->chain(sink, phase, ranks - 1);
    }
}

const struct kolo__algorithm kolo__two_level = {
    .name = "two_level",
    .accepts = accepts,
    .build = build,
    .seconds = seconds,
    .flows = flows,
};

/* The index-th rank of a host. */
static uint32_t member(const struct kolo__problem *problem, uint32_t host, uint32_t index)
{
    uint32_t rank = 0;
    while (problem->host_of[rank] != host || index-- > 0)
        rank++;
    return rank;
}

/* The host's number among all, when hosts are sorted; all have `local` ranks. */
static uint32_t host_position(const struct kolo__problem *problem, uint32_t host, uint32_t local)
{
    uint32_t below = 0;
    for (uint32_t i = 0; i < problem->size; i++)
        below += problem->host_of[i] < host;
    return below / local;
}

/* The next host in sorted order, and after the last the first; backwards: the one before. */
static uint32_t neighbour(const struct kolo__problem *problem, uint32_t host, bool backwards)
{
    /* The least distance from host, counted round the circle of all 32-bit numbers. */
    uint32_t best = host, distance = UINT32_MAX;
    for (uint32_t i = 0; i < problem->size; i++) {
        uint32_t other = problem->host_of[i];
        uint32_t away = backwards ? host - other : other - host;
        if (other != host && away <= distance) {
            best = other;
            distance = away;
        }
    }
    return best;
}

static struct levels levels_of(const struct kolo__problem *problem)
{
    uint32_t rank = problem->rank, host = problem->host_of[rank];
    uint32_t local = host_size(problem, rank), index = 0;
    for (uint32_t i = 0; i < rank; i++)
        index += problem->host_of[i] == host;
    KOLO__ASSERT(local > index); /* this rank is one of its host's */
    return (struct levels){
        .local = {.position = index,
                  .size = local,
                  .next = member(problem, host, (index + 1) % local),
                  .previous = member(problem, host, (index + local - 1) % local),
                  .count = problem->count},
        .across = {.position = host_position(problem, host, local),
                   .size = problem->size / local,
                   .next = member(problem, neighbour(problem, host, false), index),
                   .previous = member(problem, neighbour(problem, host, true), index),
                   .offset = kolo__slice_offset(problem->count, local, index),
                   .count = kolo__slice_count(problem->count, local, index)},
    };
}
