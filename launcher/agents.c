/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/agents.h"

#include "base/clock.h"
#include "base/log.h"
#include "launcher/discovery.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static const uint64_t MILLISECOND = 1000000;

enum { CLEAR_MS = 8000, LOOK_AGAIN_MS = 500 };

/* ---- signals ------------------------------------------------------------------------------- */

static void send_signal(struct kolo__agent *agent, int number, uint32_t local)
{
    kolo__agent_begin(&agent->carrier.out, KOLO__AGENT_SIGNAL);
    kolo__put_u32(&agent->carrier.out, (uint32_t)number);
    kolo__put_u32(&agent->carrier.out, local);
    kolo__frame_end(&agent->carrier.out);
    kolo__carrier_flush(&agent->carrier, kolo__now_ns(&kolo__real_clock));
}

static void signal_all(void *self, int number)
{
    struct kolo__agents *agents = self;
    for (uint32_t i = 0; i < agents->count; i++)
        if (agents->list[i]->phase == KOLO__AGENT_RUNNING)
            send_signal(agents->list[i], number, KOLO__AGENT_ALL_RANKS);
}

static void signal_one(void *self, uint32_t place, int number)
{
    struct kolo__agents *agents = self;
    struct kolo__agent *agent = agents->agent_of[place];
    struct kolo__agent_rank *rank = agents->ranks[place];
    rank->leaving |= number == SIGTERM;
    if (agent->phase == KOLO__AGENT_RUNNING && rank->state == KOLO__RANK_RUNS)
        send_signal(agent, number, (uint32_t)(rank - agent->ranks));
}

/* ---- input --------------------------------------------------------------------------------- */

static void read_input(struct kolo__agents *agents)
{
    char data[KOLO__AGENT_CHUNK];
    struct kolo__agent *agent = agents->agent_of[0];
    ssize_t bytes = read(agents->input_fd, data, sizeof data);
    if (bytes < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (bytes <= 0) {
        bytes = 0;
        agents->input_fd = -1;
    }
    kolo__agent_begin(&agent->carrier.out, KOLO__AGENT_INPUT);
    kolo__put_blob(&agent->carrier.out, data, (size_t)bytes);
    kolo__frame_end(&agent->carrier.out);
    agents->input_on_the_way += (size_t)bytes;
}

/* ---- the loop's part ----------------------------------------------------------------------- */

uint32_t kolo__agents_poll_count(const void *self)
{
    const struct kolo__agents *agents = self;
    return agents->count * KOLO__AGENT_ENTRIES + KOLO__AGENTS_OWN_ENTRIES;
}

static bool wants_input(const struct kolo__agents *agents)
{
    return agents->input_fd >= 0 && agents->agent_of != NULL &&
           agents->agent_of[0]->phase == KOLO__AGENT_RUNNING &&
           agents->ranks[0]->state == KOLO__RANK_RUNS &&
           agents->input_on_the_way + KOLO__AGENT_CHUNK <= KOLO__AGENT_WINDOW;
}

void kolo__agents_poll_fill(void *self, struct pollfd *fds)
{
    struct kolo__agents *agents = self;
    fds[0] = (struct pollfd){.fd = wants_input(agents) ? agents->input_fd : -1, .events = POLLIN};
    kolo__discovery_poll_fill(agents->discovery, fds + 1);
    fds += KOLO__AGENTS_OWN_ENTRIES;
    for (uint32_t i = 0; i < agents->count; i++, fds += KOLO__AGENT_ENTRIES) {
        const struct kolo__agent *agent = agents->list[i];
        fds[0] = fds[1] = (struct pollfd){.fd = -1};
        if (kolo__agent_is_there(agent))
            kolo__carrier_poll_fill(&agent->carrier, fds);
        fds[KOLO__CARRIER_ENTRIES] = (struct pollfd){.fd = agent->remote.err_fd, .events = POLLIN};
    }
}

void kolo__agents_serve(struct kolo__agents *agents, const struct pollfd *fds)
{
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    if (fds[0].fd >= 0 && fds[0].revents != 0 && wants_input(agents))
        read_input(agents);
    kolo__discovery_step(agents->discovery, now_ns);
    fds += KOLO__AGENTS_OWN_ENTRIES;
    for (uint32_t i = 0; i < agents->count; i++)
        kolo__agent_serve_frames(agents, agents->list[i], fds + i * KOLO__AGENT_ENTRIES, now_ns);
}

static void note_failure(struct kolo__agents *agents, struct kolo__agent *agent)
{
    char line[120];
    if (!kolo__cooldown_note(&agent->cooldown, kolo__now_ns(&kolo__real_clock)) || !agents->stay ||
        agent->phase != KOLO__AGENT_RUNNING)
        return;
    snprintf(line, sizeof line,
             "two ranks failed within a minute: none is started again here for %u s",
             (unsigned)agent->cooldown.pause_s);
    kolo__agent_say_line(agents, agent, line);
}

/* Tells of each rank once, and ends the output of hosts that say no more. */
static void tell(struct kolo__agents *agents, struct kolo__agent *agent, kolo__rank_ended *ended,
                 void *supervision)
{
    bool lost = agent->phase == KOLO__AGENT_LOST;
    for (uint32_t i = 0; i < agent->count; i++) {
        struct kolo__agent_rank *rank = &agent->ranks[i];
        bool news = rank->state == KOLO__RANK_ENDED || (lost && rank->state == KOLO__RANK_RUNS);
        if (news)
            ended(supervision, rank->rank, rank->wait_status,
                  rank->state == KOLO__RANK_ENDED ? NULL : agent->why);
        if (news)
            rank->state = KOLO__RANK_TOLD;
        bool failed = rank->wait_status != 0 && !kolo__ending_is_departure(rank->wait_status);
        if (news && !rank->leaving && (lost || failed))
            note_failure(agents, agent);
        if (!kolo__agent_is_there(agent) && rank == agents->ranks[rank->rank])
            kolo__output_end(agents->output, rank->rank);
    }
}

static void step(void *self, const struct pollfd *fds, kolo__rank_ended *ended, void *supervision)
{
    struct kolo__agents *agents = self;
    kolo__agents_serve(agents, fds);
    for (uint32_t i = 0; i < agents->count; i++)
        tell(agents, agents->list[i], ended, supervision);
    kolo__agents_step_hosts(agents, kolo__now_ns(&kolo__real_clock));
}

static int timeout_ms(const void *agents)
{
    (void)agents;
    return LOOK_AGAIN_MS; /* signs of life are due */
}

/* It goes by itself once its ranks have ended; one that has never had any is not waited for. */
static void dismiss(struct kolo__agent *agent)
{
    if (agent->phase == KOLO__AGENT_CONNECTING)
        kolo__agent_lose(agent, "it is not needed any more");
    else if (kolo__agent_is_there(agent))
        kolo__agent_say(agent,
                        agent->phase == KOLO__AGENT_READY ? KOLO__AGENT_END : KOLO__AGENT_LAST);
}

/* Each agent clears up by itself once its ranks have ended. */
static bool clear(void *self, bool impatient)
{
    struct kolo__agents *agents = self;
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    bool all = true;
    if (agents->ending_ns == 0) {
        agents->ending_ns = now_ns;
        for (uint32_t i = 0; agents->stay && i < agents->count; i++)
            dismiss(agents->list[i]);
    }
    for (uint32_t i = 0; i < agents->count; i++) {
        struct kolo__agent *agent = agents->list[i];
        if (impatient && !agents->ending && kolo__agent_is_there(agent))
            kolo__agent_say(agent, KOLO__AGENT_END);
        if (kolo__agent_is_there(agent) && now_ns >= agents->ending_ns + CLEAR_MS * MILLISECOND) {
            kolo__log(KOLO__LOG_WARN,
                      "the agent on %s does not say that nothing of the job is left",
                      agent->host.name);
            kolo__agent_lose(agent, "it did not end");
        }
        all &= !kolo__agent_is_there(agent);
    }
    agents->ending |= impatient;
    return all;
}

static const char *where(const void *self, uint32_t rank, char *text, size_t bytes)
{
    const struct kolo__agents *agents = self;
    const struct kolo__agent *agent = agents->agent_of[rank];
    snprintf(text, bytes, "host %s, pid %u",
             agent->hello.host[0] != '\0' ? agent->hello.host : agent->host.name,
             agents->ranks[rank]->pid);
    return text;
}

static void ask_recorders(void *self)
{
    struct kolo__agents *agents = self;
    for (uint32_t i = 0; i < agents->count; i++)
        if (agents->list[i]->phase == KOLO__AGENT_RUNNING)
            kolo__agent_say(agents->list[i], KOLO__AGENT_RECORD);
}

static kolo_status recorders(const void *self, struct kolo__recorders *recorders)
{
    const struct kolo__agents *agents = self;
    kolo_status status = KOLO_OK;
    for (uint32_t r = 0; r < agents->places && status == KOLO_OK; r++) {
        const struct kolo__agent_rank *rank = agents->ranks[r];
        if (rank == NULL || rank->flight == NULL)
            continue;
        const struct kolo__flight_rank recorded = {
            .flight = rank->flight,
            .place = r,
            .state = rank->state == KOLO__RANK_RUNS ? rank->flight_state : 0};
        status = kolo__recorders_add_rank(recorders, &recorded);
    }
    return status;
}

const struct kolo__ranks_ops kolo__agents_ranks = {
    .signal = signal_all,
    .poll_count = kolo__agents_poll_count,
    .poll_fill = kolo__agents_poll_fill,
    .timeout_ms = timeout_ms,
    .step = step,
    .clear = clear,
    .where = where,
    .start_again = kolo__agents_start_again,
    .start_more = kolo__agents_start_more,
    .is_surplus = kolo__agents_is_surplus,
    .signal_one = signal_one,
    .ask_recorders = ask_recorders,
    .recorders = recorders,
};
