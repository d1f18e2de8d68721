/* SPDX-License-Identifier: Apache-2.0 */
/* On which host a rank is started again: ranks may move, and leave a place behind. */
#include "launcher/agents.h"

#include "base/clock.h"
#include "base/status.h"

#include <stdlib.h>

/* A place of this host for the rank: its own, one that nobody has, one more; -1: none. */
static int find_place(const struct kolo__agents *agents, const struct kolo__agent *agent,
                      uint32_t number)
{
    for (uint32_t i = 0; i < agent->count; i++) {
        const struct kolo__agent_rank *rank = &agent->ranks[i];
        bool moved = rank != agents->ranks[rank->rank];
        if (rank->state == KOLO__RANK_TOLD && (rank->rank == number || moved))
            return (int)i;
    }
    return agent->count < agent->room ? (int)agent->count : -1;
}

/* Where the rank may be started: where it was, or else on the first host that has a place. NULL:
 * nowhere before *later_ns; 0: nowhere at all. */
static struct kolo__agent *find_host(struct kolo__agents *agents, uint32_t number,
                                     uint64_t *later_ns)
{
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    struct kolo__agent *found = NULL;
    *later_ns = 0;
    for (uint32_t i = 0; i < agents->count; i++) {
        struct kolo__agent *agent = &agents->list[i];
        uint64_t until_ns = agent->cooldown.until_ns;
        if (agent->phase != KOLO__AGENT_RUNNING || find_place(agents, agent, number) < 0)
            continue;
        if (now_ns >= until_ns && (found == NULL || agent == agents->agent_of[number]))
            found = agent;
        else if (now_ns < until_ns && (*later_ns == 0 || until_ns < *later_ns))
            *later_ns = until_ns;
    }
    return found;
}

kolo_status kolo__agents_start_again(void *self, uint32_t number, struct kolo__output *output,
                                     uint64_t *later_ns)
{
    struct kolo__agents *agents = self;
    struct kolo__agent *agent = find_host(agents, number, later_ns);
    if (agent == NULL && *later_ns != 0)
        return KOLO_AGAIN;
    if (agent == NULL)
        return kolo__error(KOLO_ERR_PEER_LOST, "no host that is left has a free slot");
    uint32_t local = (uint32_t)find_place(agents, agent, number);
    struct kolo__agent_rank *rank = &agent->ranks[local];
    agent->count += local == agent->count;
    free(rank->flight);
    *rank = (struct kolo__agent_rank){.rank = number, .state = KOLO__RANK_RUNS};
    agents->agent_of[number] = agent;
    agents->ranks[number] = rank;
    if (number == 0)
        agents->input_fd = -1; /* a newcomer reads nothing */
    kolo__output_expect(output, number);
    kolo__agent_begin(&agent->carrier.out, KOLO__AGENT_AGAIN);
    kolo__put_u32(&agent->carrier.out, local);
    kolo__put_u32(&agent->carrier.out, number);
    kolo__frame_end(&agent->carrier.out);
    kolo__carrier_flush(&agent->carrier, kolo__now_ns(&kolo__real_clock));
    return KOLO_OK;
}
