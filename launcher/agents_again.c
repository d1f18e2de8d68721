/* SPDX-License-Identifier: Apache-2.0 */
/* On which host a rank is started while the job runs, again or one more, and which is too many.
 * Ranks may move, and leave a place behind. */
#include "launcher/agents.h"

#include "base/clock.h"
#include "base/status.h"

#include <stdlib.h>

static uint32_t count_running(const struct kolo__agent *agent)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < agent->count; i++)
        count += agent->ranks[i].state == KOLO__RANK_RUNS;
    return count;
}

static bool may_start(const struct kolo__agent *agent)
{
    return agent->phase == KOLO__AGENT_RUNNING && agent->listed && !agent->dismissed &&
           (long)count_running(agent) < agent->host.slots;
}

/* A local rank of this host for the place: its own, one that nobody has, one more; -1: none. */
static int find_again(const struct kolo__agents *agents, const struct kolo__agent *agent,
                      uint32_t place)
{
    for (uint32_t i = 0; i < agent->count; i++) {
        const struct kolo__agent_rank *rank = &agent->ranks[i];
        bool moved = rank != agents->ranks[rank->rank];
        if (rank->state == KOLO__RANK_TOLD && (rank->rank == place || moved))
            return (int)i;
    }
    return agent->count < agent->room ? (int)agent->count : -1;
}

/* One for a rank that is no other's successor: where none has failed, which --restarts makes good.
 */
static int find_more(const struct kolo__agent *agent)
{
    for (uint32_t i = 0; i < agent->count; i++)
        if (agent->ranks[i].state == KOLO__RANK_TOLD && agent->ranks[i].leaving)
            return (int)i;
    return agent->count < agent->room ? (int)agent->count : -1;
}

/* Where the rank may be started: where it was, or else on the first host that has a place. NULL:
 * nowhere before *later_ns; 0: nowhere at all. */
static struct kolo__agent *find_host(struct kolo__agents *agents, uint32_t place,
                                     uint64_t *later_ns)
{
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    struct kolo__agent *found = NULL;
    *later_ns = 0;
    for (uint32_t i = 0; i < agents->count; i++) {
        struct kolo__agent *agent = agents->list[i];
        uint64_t until_ns = agent->cooldown.until_ns;
        if (!may_start(agent) || find_again(agents, agent, place) < 0)
            continue;
        if (now_ns >= until_ns && (found == NULL || agent == agents->agent_of[place]))
            found = agent;
        else if (now_ns < until_ns && (*later_ns == 0 || until_ns < *later_ns))
            *later_ns = until_ns;
    }
    return found;
}

static void start(struct kolo__agents *agents, struct kolo__agent *agent, uint32_t local,
                  uint32_t place, struct kolo__output *output)
{
    struct kolo__agent_rank *rank = &agent->ranks[local];
    if (local == agent->count)
        agent->count++;
    else if (agents->ranks[rank->rank] == rank)
        agents->ranks[rank->rank] = NULL; /* what ended there is no rank of its place any more */
    free(rank->flight);
    *rank = (struct kolo__agent_rank){.rank = place, .state = KOLO__RANK_RUNS};
    agents->agent_of[place] = agent;
    agents->ranks[place] = rank;
    if (place == 0)
        agents->input_fd = -1; /* a newcomer reads nothing */
    kolo__output_expect(output, place);
    kolo__agent_begin(&agent->carrier.out, KOLO__AGENT_AGAIN);
    kolo__put_u32(&agent->carrier.out, local);
    kolo__put_u32(&agent->carrier.out, place);
    kolo__frame_end(&agent->carrier.out);
    kolo__carrier_flush(&agent->carrier, kolo__now_ns(&kolo__real_clock));
}

kolo_status kolo__agents_start_again(void *self, uint32_t place, struct kolo__output *output,
                                     uint64_t *later_ns)
{
    struct kolo__agents *agents = self;
    struct kolo__agent *agent = find_host(agents, place, later_ns);
    if (agent == NULL && *later_ns != 0)
        return KOLO_AGAIN;
    if (agent == NULL)
        return kolo__error(KOLO_ERR_PEER_LOST, "no host that is left has a free slot");
    start(agents, agent, (uint32_t)find_again(agents, agent, place), place, output);
    return KOLO_OK;
}

kolo_status kolo__agents_start_more(void *self, uint32_t place, struct kolo__output *output)
{
    struct kolo__agents *agents = self;
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    for (uint32_t i = 0; i < agents->count; i++) {
        struct kolo__agent *agent = agents->list[i];
        int local = may_start(agent) && now_ns >= agent->cooldown.until_ns ? find_more(agent) : -1;
        if (local < 0)
            continue;
        start(agents, agent, (uint32_t)local, place, output);
        return KOLO_OK;
    }
    return KOLO_AGAIN;
}

/* Of a host that has fewer slots than before, the last ones are. */
bool kolo__agents_is_surplus(const void *self, uint32_t place)
{
    const struct kolo__agents *agents = self;
    const struct kolo__agent *agent = agents->agent_of[place];
    const struct kolo__agent_rank *rank = agents->ranks[place];
    long before = 0;
    if (rank == NULL || rank->state != KOLO__RANK_RUNS || agent->phase != KOLO__AGENT_RUNNING)
        return false;
    if (!agent->listed)
        return true;
    for (const struct kolo__agent_rank *other = agent->ranks; other != rank; other++)
        before += other->state == KOLO__RANK_RUNS && !other->leaving;
    return before >= agent->host.slots;
}
