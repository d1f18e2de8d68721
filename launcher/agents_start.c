/* SPDX-License-Identifier: Apache-2.0 */
/* From a list of hosts to ranks that run; and the way back. */
#include "launcher/agents.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "launcher/command.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const uint64_t SECOND = 1000000000;

enum {
    WARN_SECONDS = 10,    /* then twice as long each time */
    CONNECT_SECONDS = 60, /* ssh gives an address up after 10 s; a name may have several */
    AGENT_SECONDS = 5,    /* for the last words of who gave up trying */
    LAUNCH_SECONDS = 60,
};

/* ---- waiting for all ----------------------------------------------------------------------- */

static bool make_room(struct kolo__agents *agents, uint32_t entries)
{
    if (entries <= agents->fds_room)
        return true;
    struct pollfd *fds = realloc(agents->fds, entries * sizeof *fds);
    if (fds == NULL)
        return false;
    agents->fds = fds;
    agents->fds_room = entries;
    return true;
}

int kolo__agents_serve_once(struct kolo__agents *agents, const struct kolo__signals *signals)
{
    uint32_t count = kolo__agents_poll_count(agents);
    int number, asked = 0;
    if (!make_room(agents, count + 1))
        abort(); /* guards end the ranks, on all hosts */
    struct pollfd *fds = agents->fds;
    kolo__agents_poll_fill(agents, fds);
    fds[count] = (struct pollfd){.fd = signals != NULL ? signals->fd : -1, .events = POLLIN};
    if (poll(fds, count + 1, 100) < 0)
        return 0;
    kolo__agents_serve(agents, fds);
    while (signals != NULL && (number = kolo__signals_next(signals)) != 0)
        if (number == SIGINT || number == SIGTERM || number == SIGHUP || number == SIGQUIT)
            asked = number;
    return asked;
}

kolo_status kolo__agents_interrupted(int asked, int *exit_code)
{
    *exit_code = KOLO__EXIT_SIGNAL + asked;
    return kolo__error(KOLO_ERR_ABORTED, "ended by SIG%s while hosts were starting",
                       sigabbrev_np(asked));
}

/* Until no agent is in the phase, or one has come to a bad end; that one, or NULL. */
static struct kolo__agent *find(const struct kolo__agents *agents, enum kolo__agent_phase phase)
{
    for (uint32_t i = 0; i < agents->count; i++)
        if (agents->list[i]->phase == phase)
            return agents->list[i];
    return NULL;
}

/* One that we cannot do without; where hosts come and go, only those with ranks. */
static struct kolo__agent *find_bad(const struct kolo__agents *agents)
{
    for (uint32_t i = 0; i < agents->count; i++) {
        struct kolo__agent *agent = agents->list[i];
        if ((agent->phase == KOLO__AGENT_REFUSED || agent->phase == KOLO__AGENT_LOST) &&
            (agent->count > 0 || !agents->come_and_go))
            return agent;
    }
    return NULL;
}

/* "host2 (Connection refused), host3": those that have not come, as many as fit into the text. */
const char *kolo__agents_list_late(const struct kolo__agents *agents, char *text, size_t bytes)
{
    size_t used = 0;
    uint32_t left = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < agents->count; i++) {
        struct kolo__agent *agent = agents->list[i];
        if (agent->phase != KOLO__AGENT_CONNECTING && agent->phase < KOLO__AGENT_LOST)
            continue;
        const char *why = agent->said[0] != '\0' ? agent->said : kolo__agent_last_line(agent);
        int added =
            snprintf(text + used, bytes - used, "%s%s%s%s%s", used > 0 ? ", " : "",
                     agent->host.name, why[0] != '\0' ? " (" : "", why, why[0] != '\0' ? ")" : "");
        if (used + (size_t)added + 32 < bytes)
            used += (size_t)added;
        else
            left++;
        text[used] = '\0';
    }
    if (left > 0)
        snprintf(text + used, bytes - used, " and %u more", left);
    return text;
}

/* An agent that was there and went again, as a pod's container that starts anew: as long as others
 * are waited for, it is too. */
static kolo_status call_again(struct kolo__agents *agents)
{
    for (uint32_t i = 0; i < agents->count; i++) {
        struct kolo__agent *agent = agents->list[i];
        if (agents->shell->agent_port == 0 || agent->phase != KOLO__AGENT_LOST ||
            agent->hello.version[0] == '\0')
            continue;
        kolo__agent_close(agent);
        kolo__agent_init(agent, &agent->host);
        kolo_status status = kolo__agent_connect_to(agents, agent);
        if (status != KOLO_OK)
            return status;
    }
    return KOLO_OK;
}

static kolo_status serve_while(struct kolo__agents *agents, enum kolo__agent_phase phase,
                               const struct kolo__signals *signals, unsigned seconds,
                               int *exit_code)
{
    char list[1200];
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    uint64_t deadline_ns = now_ns + seconds * SECOND, patience_ns = WARN_SECONDS * SECOND;
    uint64_t warn_ns = now_ns + patience_ns;
    kolo_status status = KOLO_OK;
    while (status == KOLO_OK && find(agents, phase) != NULL &&
           (phase != KOLO__AGENT_CONNECTING || (status = call_again(agents)) == KOLO_OK) &&
           find_bad(agents) == NULL) {
        int asked = kolo__agents_serve_once(agents, signals);
        if (asked != 0) {
            status = kolo__agents_interrupted(asked, exit_code);
        } else if ((now_ns = kolo__now_ns(&kolo__real_clock)) >= deadline_ns) {
            *exit_code = KOLO__EXIT_NO_WORLD;
            status = kolo__error(KOLO_ERR_TIMEOUT, "not answered within %u s: %s", seconds,
                                 kolo__agents_list_late(agents, list, sizeof list));
        } else if (now_ns >= warn_ns) {
            warn_ns += patience_ns *= 2;
            kolo__log(KOLO__LOG_WARN, "kolo run waits for %s",
                      kolo__agents_list_late(agents, list, sizeof list));
        }
    }
    return status;
}

unsigned kolo__agents_patience_s(const struct kolo__agents *agents)
{
    return agents->shell->agent_port != 0 ? (unsigned)agents->shell->agent_seconds + AGENT_SECONDS
                                          : CONNECT_SECONDS;
}

/* ---- connecting ---------------------------------------------------------------------------- */

void kolo__agent_init(struct kolo__agent *agent, const struct kolo__host *host)
{
    const struct kolo__host own = *host; /* it may be the agent's */
    *agent = (struct kolo__agent){.host = own,
                                  .listed = true,
                                  .phase = KOLO__AGENT_AWAY,
                                  .remote.err_fd = -1,
                                  .carrier = {.in_fd = -1, .out_fd = -1, .broken = true}};
}

struct kolo__agent *kolo__agents_add(struct kolo__agents *agents, const struct kolo__host *host)
{
    struct kolo__agent *agent = malloc(sizeof *agent);
    struct kolo__agent **list =
        realloc(agents->list, (agents->count + 1) * sizeof(struct kolo__agent *));
    if (list != NULL)
        agents->list = list;
    if (agent == NULL || list == NULL) {
        free(agent);
        return NULL;
    }
    kolo__agent_init(agent, host);
    return agents->list[agents->count++] = agent;
}

kolo_status kolo__agent_connect_to(struct kolo__agents *agents, struct kolo__agent *agent)
{
    kolo_status status = kolo__remote_start(agents->shell, &agent->host, &agent->remote);
    if (status != KOLO_OK)
        return status;
    kolo__carrier_open(&agent->carrier, agent->remote.in_fd, agent->remote.out_fd);
    agent->phase = KOLO__AGENT_CONNECTING;
    return KOLO_OK;
}

kolo_status kolo__agents_check_hello(const struct kolo__agents *agents,
                                     const struct kolo__agent *agent)
{
    if (agent->hello.protocol != KOLO__AGENT_PROTOCOL ||
        strcmp(agent->hello.version, kolo_version()) != 0)
        return kolo__error(KOLO_ERR_CONFIG,
                           "host %s has kolo %s (protocol %u, %s), here it is %s (protocol %d): "
                           "install the same everywhere",
                           agent->host.name, agent->hello.version, agent->hello.protocol,
                           agent->hello.path, kolo_version(), KOLO__AGENT_PROTOCOL);
    bool behind = false;
    for (uint32_t k = 0; k < agents->count; k++) {
        const struct kolo__agent *other = agents->list[k];
        behind |= other == agent;
        if (other != agent && kolo__agent_is_there(other) &&
            strcmp(other->hello.machine, agent->hello.machine) == 0)
            return kolo__error(KOLO_ERR_CONFIG,
                               "%s and %s are the same host (%s): name it once, with all its slots",
                               behind ? agent->host.name : other->host.name,
                               behind ? other->host.name : agent->host.name, agent->hello.host);
    }
    return KOLO_OK;
}

static kolo_status start_all(struct kolo__agents *agents, const struct kolo__hosts *hosts)
{
    kolo_status status = KOLO_OK;
    for (uint32_t i = 0; i < hosts->count && status == KOLO_OK; i++) {
        struct kolo__agent *agent = kolo__agents_add(agents, &hosts->list[i]);
        status = agent != NULL
                     ? kolo__agent_connect_to(agents, agent)
                     : kolo__error(KOLO_ERR_MEMORY, "no memory for %u hosts", hosts->count);
    }
    return status;
}

kolo_status kolo__agents_connect(struct kolo__agents *agents, struct kolo__hosts *hosts,
                                 const struct kolo__signals *signals, int *exit_code)
{
    *exit_code = KOLO__EXIT_FAILED;
    kolo_status status = start_all(agents, hosts);
    if (status == KOLO_OK)
        status = serve_while(agents, KOLO__AGENT_CONNECTING, signals,
                             kolo__agents_patience_s(agents), exit_code);
    struct kolo__agent *lost = find(agents, KOLO__AGENT_LOST);
    if (status == KOLO_OK && lost != NULL)
        status = kolo__agents_explain_connect(agents, lost, exit_code);
    if (status != KOLO_OK)
        return status;
    for (uint32_t i = 0; i < agents->count && status == KOLO_OK; i++) {
        status = kolo__agents_check_hello(agents, agents->list[i]);
        if (status != KOLO_OK)
            *exit_code = KOLO__EXIT_USAGE;
        if (hosts->list[i].slots == 0)
            agents->list[i]->host.slots = hosts->list[i].slots = agents->list[i]->hello.cores;
    }
    return status;
}

/* ---- launching ----------------------------------------------------------------------------- */

bool kolo__agent_make_room(const struct kolo__agents *agents, struct kolo__agent *agent)
{
    agent->room = agent->count;
    if (agents->stay && agent->phase == KOLO__AGENT_READY)
        agent->room =
            agent->host.slots < (long)agents->places ? (uint32_t)agent->host.slots : agents->places;
    agent->ranks = agent->room > 0 ? calloc(agent->room, sizeof *agent->ranks) : NULL;
    return agent->room == 0 || agent->ranks != NULL;
}

static kolo_status give_ranks(struct kolo__agents *agents, uint32_t world_size,
                              const uint32_t *host_of)
{
    agents->ranks = calloc(agents->places, sizeof(struct kolo__agent_rank *));
    agents->agent_of = calloc(agents->places, sizeof(struct kolo__agent *));
    bool enough = agents->ranks != NULL && agents->agent_of != NULL;
    for (uint32_t r = 0; r < world_size; r++)
        agents->list[host_of[r]]->count++;
    for (uint32_t i = 0; i < agents->count; i++) {
        enough &= kolo__agent_make_room(agents, agents->list[i]);
        agents->list[i]->count = 0;
    }
    if (!enough)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for %u ranks", world_size);
    for (uint32_t r = 0; r < world_size; r++) {
        struct kolo__agent *agent = agents->list[host_of[r]];
        agents->agent_of[r] = agent;
        agents->ranks[r] = &agent->ranks[agent->count++];
        agents->ranks[r]->rank = r;
        kolo__output_expect(agents->output, r);
    }
    return KOLO_OK;
}

kolo_status kolo__agent_ask(struct kolo__agent *agent, const struct kolo__agent_start *common)
{
    struct kolo__agent_start start = *common;
    start.count = agent->count;
    start.room = agent->room;
    start.ranks = calloc(agent->room, sizeof *start.ranks);
    if (start.ranks == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for %u ranks", agent->count);
    for (uint32_t i = 0; i < agent->count; i++)
        start.ranks[i] = agent->ranks[i].rank;
    size_t before = agent->carrier.out.bytes;
    kolo__put_agent_start(&agent->carrier.out, &start);
    free(start.ranks);
    if (agent->carrier.out.bytes - before > KOLO__AGENT_START_MAX)
        return kolo__error(KOLO_ERR_CONFIG, "arguments and environment are longer than %d bytes",
                           KOLO__AGENT_START_MAX);
    agent->phase = KOLO__AGENT_ASKED;
    return KOLO_OK;
}

static kolo_status explain_launch(struct kolo__agent *agent, int *exit_code)
{
    bool refused = agent->phase == KOLO__AGENT_REFUSED;
    *exit_code = refused ? agent->refused_code : KOLO__EXIT_PEER_LOST;
    return kolo__error(KOLO_ERR_NETWORK, refused ? "host %s: %s" : "host %s was lost: %s",
                       agent->host.name, agent->why);
}

kolo_status kolo__agents_launch(struct kolo__agents *agents, const struct kolo__agent_start *start,
                                const uint32_t *host_of, const struct kolo__signals *signals,
                                int *exit_code)
{
    *exit_code = KOLO__EXIT_FAILED;
    kolo_status status = give_ranks(agents, start->world_size, host_of);
    for (uint32_t i = 0; i < agents->count && status == KOLO_OK; i++) {
        struct kolo__agent *agent = agents->list[i];
        if (agent->room > 0)
            status = kolo__agent_ask(agent, start);
        else if (agent->phase == KOLO__AGENT_READY)
            kolo__agent_say(agent, KOLO__AGENT_END);
    }
    if (status == KOLO_OK)
        status = serve_while(agents, KOLO__AGENT_ASKED, signals, LAUNCH_SECONDS, exit_code);
    struct kolo__agent *bad = find_bad(agents);
    if (status == KOLO_OK && bad != NULL)
        status = explain_launch(bad, exit_code);
    agents->start = start;
    return status;
}
