/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/restarts.h"

#include <stdlib.h>

static const uint64_t SECOND = 1000000000;

enum { FIRST_PAUSE_S = 1, LONGEST_PAUSE_S = 30 };

struct kolo__restart {
    uint64_t due_ns; /* 0: not planned */
    bool counts;
    uint64_t pause_s;
};

bool kolo__restarts_open(struct kolo__restarts *restarts, uint32_t ranks, long limit)
{
    *restarts = (struct kolo__restarts){.limit = limit, .ranks = ranks};
    restarts->list = calloc(ranks, sizeof *restarts->list);
    return restarts->list != NULL;
}

void kolo__restarts_close(struct kolo__restarts *restarts)
{
    free(restarts->list);
    *restarts = (struct kolo__restarts){0};
}

bool kolo__restarts_plan(struct kolo__restarts *restarts, uint32_t rank, bool counts,
                         uint64_t now_ns)
{
    struct kolo__restart *restart = &restarts->list[rank];
    if (restarts->limit == 0 || (counts && restarts->used >= restarts->limit))
        return false;
    uint64_t longer_s = 2 * restart->pause_s;
    restart->pause_s = restart->pause_s == 0         ? FIRST_PAUSE_S
                       : longer_s <= LONGEST_PAUSE_S ? longer_s
                                                     : LONGEST_PAUSE_S;
    restart->due_ns = now_ns + restart->pause_s * SECOND;
    restart->counts = counts;
    restarts->used += counts;
    restarts->planned++;
    return true;
}

bool kolo__restarts_is_planned(const struct kolo__restarts *restarts, uint32_t rank)
{
    return restarts->list[rank].due_ns != 0;
}

void kolo__restarts_postpone(struct kolo__restarts *restarts, uint32_t rank, uint64_t due_ns)
{
    restarts->planned += !kolo__restarts_is_planned(restarts, rank);
    restarts->list[rank].due_ns = due_ns;
}

void kolo__restarts_drop(struct kolo__restarts *restarts, uint32_t rank)
{
    if (!kolo__restarts_is_planned(restarts, rank))
        return;
    restarts->list[rank].due_ns = 0;
    restarts->planned--;
    restarts->used -= restarts->list[rank].counts;
}

int kolo__restarts_take(struct kolo__restarts *restarts, uint64_t now_ns)
{
    for (uint32_t r = 0; restarts->planned > 0 && r < restarts->ranks; r++)
        if (restarts->list[r].due_ns != 0 && now_ns >= restarts->list[r].due_ns) {
            restarts->list[r].due_ns = 0;
            restarts->planned--;
            return (int)r;
        }
    return -1;
}

uint64_t kolo__restarts_next_ns(const struct kolo__restarts *restarts)
{
    uint64_t next_ns = 0;
    for (uint32_t r = 0; restarts->planned > 0 && r < restarts->ranks; r++) {
        uint64_t due_ns = restarts->list[r].due_ns;
        if (due_ns != 0 && (next_ns == 0 || due_ns < next_ns))
            next_ns = due_ns;
    }
    return next_ns;
}
