/* SPDX-License-Identifier: Apache-2.0 */
/* Who is on which host, and leads what: see algorithm.h. */
#include "collectives/algorithm/algorithm.h"

#include <stdlib.h>

/* The lowest rank on the host of this one. */
static uint32_t first_on_host(const struct kolo__problem *problem, uint32_t rank)
{
    uint32_t first = 0;
    while (problem->host_of[first] != problem->host_of[rank])
        first++;
    return first;
}

bool kolo__levels_exist(const struct kolo__problem *problem)
{
    uint32_t hosts = 0;
    for (uint32_t rank = 0; problem->host_of != NULL && rank < problem->size; rank++)
        hosts += first_on_host(problem, rank) == rank;
    return hosts > 1 && hosts < problem->size;
}

static uint32_t size_of(const struct kolo__levels *levels, uint32_t host)
{
    return levels->first[host + 1] - levels->first[host];
}

bool kolo__levels_init(const struct kolo__problem *problem, struct kolo__levels *levels)
{
    uint32_t size = problem->size, placed = 0;
    *levels = (struct kolo__levels){.ranks = malloc(size * sizeof(*levels->ranks)),
                                    .first = malloc((size + 1) * sizeof(*levels->first))};
    if (levels->ranks == NULL || levels->first == NULL)
        return false;
    for (uint32_t rank = 0; rank < size; rank++) {
        if (first_on_host(problem, rank) != rank)
            continue;
        levels->first[levels->hosts] = placed;
        for (uint32_t other = rank; other < size; other++) {
            if (problem->host_of[other] != problem->host_of[rank])
                continue;
            if (other == problem->rank) {
                levels->host = levels->hosts;
                levels->local = placed - levels->first[levels->hosts];
            }
            levels->ranks[placed++] = other;
        }
        levels->first[++levels->hosts] = placed;
        uint32_t here = size_of(levels, levels->hosts - 1);
        levels->lanes = here > levels->lanes ? here : levels->lanes;
    }
    while (kolo__levels_leader(levels, levels->host, levels->first_lane) != problem->rank)
        levels->first_lane++;
    levels->lane_end = levels->first_lane;
    while (levels->lane_end < levels->lanes &&
           kolo__levels_leader(levels, levels->host, levels->lane_end) == problem->rank)
        levels->lane_end++;
    return true;
}

void kolo__levels_free(struct kolo__levels *levels)
{
    free(levels->ranks);
    free(levels->first);
}

uint32_t kolo__levels_leader(const struct kolo__levels *levels, uint32_t host, uint32_t lane)
{
    return levels->ranks[levels->first[host] + lane * size_of(levels, host) / levels->lanes];
}

uint32_t kolo__levels_local_size(const struct kolo__levels *levels)
{
    return size_of(levels, levels->host);
}

uint32_t kolo__levels_local(const struct kolo__levels *levels, uint32_t i)
{
    return levels->ranks[levels->first[levels->host] + i];
}
