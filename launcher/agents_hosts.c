/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hosts that come and go while the job runs (--max), at every look a step further:
 *
 *   AWAY -- listed, and not in a cool-down --> CONNECTING --> READY --> ASKED --> RUNNING
 *     ^                                            |            |         |          |
 *     `---- its process has ended, after ---- LOST or LEFT <----+---------+----------'
 *           a cool-down if it was lost        also as it is not listed any more, and no rank runs
 *
 * Ranks are started where RUNNING agents have room, and told to leave where a host is not listed;
 * the supervision does both (kolo__agents_start_more, kolo__agents_is_surplus).
 */
#include "launcher/agents.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "launcher/command.h"
#include "launcher/counts.h"
#include "launcher/discovery.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const uint64_t SECOND = 1000000000;

enum {
    LAUNCH_S = 60,
    GOING_S = 2,   /* for a process whose stream is closed to end */
    ORPHAN_S = 10, /* for an agent that has noticed that it is alone to clear up */
    CHANCE_S = 10, /* for hosts to come before the job begins with those that are enough */
    WARN_S = 10,   /* then twice as long each time */
};

/* ---- which there are ----------------------------------------------------------------------- */

static struct kolo__agent *find(const struct kolo__agents *agents, const struct kolo__host *host)
{
    for (uint32_t i = agents->count; i-- > 0;) /* the last is the present one */
        if (kolo__host_is_same(&agents->list[i]->host, host))
            return agents->list[i];
    return NULL;
}

static void list(struct kolo__agents *agents, const struct kolo__host *host)
{
    struct kolo__agent *agent = find(agents, host);
    if (agent == NULL)
        agent = kolo__agents_add(agents, host);
    if (agent == NULL)
        return; /* no memory for it now; the list comes again */
    agent->listed = agent->seen = true;
    long slots = host->slots > 0 ? host->slots : agent->hello.cores;
    if (agent->room > 0 && slots > agent->host.slots && slots > (long)agent->room &&
        agent->room < agents->places)
        kolo__agent_say_line(agents, agent,
                             "it has more slots than when it came: they count when it comes anew");
    agent->host.slots = slots;
}

static void unlist(struct kolo__agents *agents, struct kolo__agent *agent)
{
    bool used = agent->phase == KOLO__AGENT_RUNNING && agent->count > 0;
    agent->listed = false;
    agent->said[0] = '\0';
    if (used)
        kolo__agent_say_line(agents, agent,
                             "this host is not listed any more: its ranks are to leave");
}

static void take_list(struct kolo__agents *agents, const struct kolo__hosts *hosts)
{
    for (uint32_t i = 0; i < agents->count; i++)
        agents->list[i]->seen = false;
    for (uint32_t i = 0; i < hosts->count; i++)
        list(agents, &hosts->list[i]);
    for (uint32_t i = 0; i < agents->count; i++)
        if (agents->list[i]->listed && !agents->list[i]->seen)
            unlist(agents, agents->list[i]);
}

static void hear_discovery(struct kolo__agents *agents)
{
    struct kolo__hosts hosts = {0};
    char line[800];
    switch (kolo__discovery_take(agents->discovery, &hosts)) {
    case KOLO__DISCOVERY_HOSTS:
        take_list(agents, &hosts);
        kolo__hosts_free(&hosts);
        break;
    case KOLO__DISCOVERY_FAULT:
        if (agents->start == NULL && kolo__discovery_fault(agents->discovery) == KOLO_ERR_CONFIG)
            break; /* it ends the job, with these words */
        snprintf(line, sizeof line, "kolo run: %s", kolo_error_text());
        if (agents->output != NULL)
            kolo__output_say(agents->output, line);
        else
            fprintf(stderr, "%s\n", line);
        break;
    default:
        break;
    }
}

/* ---- one that cannot be used --------------------------------------------------------------- */

/* Said once for each reason. */
static void rest(struct kolo__agents *agents, struct kolo__agent *agent, const char *why,
                 uint64_t now_ns)
{
    char line[700];
    uint64_t pause_s = kolo__cooldown_away(&agent->cooldown, now_ns);
    if (!agent->listed || strcmp(agent->said, why) == 0)
        return;
    snprintf(agent->said, sizeof agent->said, "%s", why);
    snprintf(line, sizeof line, "this host is not used: %s; it is tried again in %llu s", why,
             (unsigned long long)pause_s);
    kolo__agent_say_line(agents, agent, line);
}

/* Why its way did not lead there, by its last words. */
static void explain(const struct kolo__agents *agents, struct kolo__agent *agent, int wait_status,
                    char *why, size_t bytes)
{
    kolo__agent_read_last_words(agent, agents->shell->agent_port != 0);
    struct kolo__remote_failure failure = kolo__remote_explain(wait_status, agent->words);
    const char *words = agent->words[0] != '\0' ? agent->words : agent->why;
    snprintf(why, bytes, "%.300s%s%.150s", words, failure.remedy[0] != '\0' ? ": " : "",
             failure.remedy);
}

static void close_way(struct kolo__agents *agents, struct kolo__agent *agent, uint64_t now_ns)
{
    bool silent = agent->phase == KOLO__AGENT_LOST && agent->room > 0 && !agent->carrier.ended;
    uint64_t orphan_s = KOLO__AGENT_ORPHAN_MS / 1000 + ORPHAN_S +
                        (agents->start != NULL ? agents->start->grace_s : 0);
    kolo__carrier_close(&agent->carrier);
    agent->by_ns = now_ns + GOING_S * SECOND;
    /* Its agent may live, and kill all processes of the job there when it notices. */
    if (silent && agent->cooldown.until_ns < now_ns + orphan_s * SECOND)
        agent->cooldown.until_ns = now_ns + orphan_s * SECOND;
}

/* LOST or LEFT: without waiting, until nothing is left of the way there. */
static void bury(struct kolo__agents *agents, struct kolo__agent *agent, uint64_t now_ns)
{
    char why[480];
    int wait_status = 0;
    if (agent->carrier.in_fd >= 0)
        close_way(agents, agent, now_ns);
    if (agent->remote.pid > 0 && waitpid(agent->remote.pid, &wait_status, WNOHANG) == 0) {
        if (now_ns >= agent->by_ns)
            kill(agent->remote.pid, SIGKILL);
        return;
    }
    snprintf(why, sizeof why, "%s", agent->why);
    if (agent->hello.version[0] == '\0')
        explain(agents, agent, wait_status, why, sizeof why);
    if (agent->remote.err_fd >= 0)
        close(agent->remote.err_fd);
    agent->remote.err_fd = -1;
    agent->remote.pid = 0;
    if (agent->phase == KOLO__AGENT_LOST)
        rest(agents, agent, why, now_ns);
    else if (agent->listed && !agent->dismissed)
        rest(agents, agent, "its agent was told to go", now_ns);
    agent->phase = KOLO__AGENT_AWAY;
}

/* ---- one that comes ------------------------------------------------------------------------ */

/* What ranks had recorded that have gone elsewhere. */
static void forget_flights(const struct kolo__agents *agents, const struct kolo__agent *agent)
{
    for (uint32_t i = 0; i < agent->count; i++) {
        struct kolo__agent_rank *rank = &agent->ranks[i];
        if (agents->ranks[rank->rank] == rank)
            continue;
        free(rank->flight);
        rank->flight = NULL;
    }
}

/* Ranks of the past are spoken of until the job ends, so one that had some stays as it is. */
static void try(struct kolo__agents *agents, struct kolo__agent *agent, uint64_t now_ns)
{
    struct kolo__agent *next = agent;
    if (agent->room > 0) {
        next = kolo__agents_add(agents, &agent->host);
        if (next == NULL)
            return;
        agent->listed = false;
        forget_flights(agents, agent);
    }
    const struct kolo__cooldown cooldown = agent->cooldown;
    char said[sizeof agent->said];
    memcpy(said, agent->said, sizeof said);
    kolo__agent_init(next, &agent->host);
    next->cooldown = cooldown;
    next->by_ns = now_ns + kolo__agents_patience_s(agents) * SECOND;
    memcpy(next->said, said, sizeof said);
    if (kolo__agent_connect_to(agents, next) != KOLO_OK)
        rest(agents, next, kolo_error_text(), now_ns);
}

/* Once: it has said hello. */
static void welcome(struct kolo__agents *agents, struct kolo__agent *agent)
{
    agent->checked = true;
    if (kolo__agents_check_hello(agents, agent) != KOLO_OK)
        kolo__agent_lose(agent, kolo_error_text());
    else if (agent->host.slots == 0)
        agent->host.slots = agent->hello.cores;
}

static void ask(struct kolo__agents *agents, struct kolo__agent *agent, uint64_t now_ns)
{
    if (!kolo__agent_make_room(agents, agent) || kolo__agent_ask(agent, agents->start) != KOLO_OK)
        kolo__agent_lose(agent, kolo_error_text());
    agent->by_ns = now_ns + LAUNCH_S * SECOND;
}

static void let_go(struct kolo__agent *agent)
{
    for (uint32_t i = 0; i < agent->count; i++)
        if (agent->ranks[i].state != KOLO__RANK_TOLD)
            return;
    agent->dismissed = true;
    kolo__agent_say(agent, KOLO__AGENT_LAST);
}

static void step_host(struct kolo__agents *agents, struct kolo__agent *agent, uint64_t now_ns)
{
    bool asked = agent->phase == KOLO__AGENT_CONNECTING || agent->phase == KOLO__AGENT_ASKED;
    if (asked && !agent->listed)
        kolo__agent_lose(agent, "it is not listed any more");
    else if (asked && agent->by_ns != 0 && now_ns >= agent->by_ns)
        kolo__agent_lose(agent, "it does not answer");
    switch (agent->phase) {
    case KOLO__AGENT_READY:
        if (!agent->checked)
            welcome(agents, agent);
        else if (!agent->listed)
            kolo__agent_lose(agent, "it is not listed any more");
        else if (agents->start != NULL)
            ask(agents, agent, now_ns);
        break;
    case KOLO__AGENT_RUNNING:
        agent->cooldown.away_s = 0;
        agent->said[0] = '\0';
        if (!agent->listed && !agent->dismissed)
            let_go(agent);
        break;
    case KOLO__AGENT_REFUSED:
        agent->phase = KOLO__AGENT_LOST;
        break;
    case KOLO__AGENT_LOST:
    case KOLO__AGENT_LEFT:
        bury(agents, agent, now_ns);
        break;
    case KOLO__AGENT_AWAY:
        if (agent->listed && now_ns >= agent->cooldown.until_ns)
            try(agents, agent, now_ns);
        break;
    default:
        break;
    }
}

void kolo__agents_step_hosts(struct kolo__agents *agents, uint64_t now_ns)
{
    uint32_t running = 0;
    if (!agents->come_and_go || agents->ending_ns != 0)
        return;
    hear_discovery(agents);
    for (uint32_t i = 0; i < agents->count; i++) {
        step_host(agents, agents->list[i], now_ns);
        running += agents->list[i]->phase == KOLO__AGENT_RUNNING;
    }
    kolo__counts_connections(running);
}

/* ---- before the job begins ----------------------------------------------------------------- */

/* Slots of hosts that are there; *pending: some host may still come. */
static long count_slots(const struct kolo__agents *agents, bool *pending)
{
    long slots = 0;
    *pending = agents->count == 0;
    for (uint32_t i = 0; i < agents->count; i++) {
        const struct kolo__agent *agent = agents->list[i];
        bool ready = agent->phase == KOLO__AGENT_READY && agent->checked && agent->listed;
        slots += ready ? agent->host.slots : 0;
        *pending |= agent->listed && !ready && agent->said[0] == '\0';
    }
    return slots;
}

static kolo_status give_hosts(const struct kolo__agents *agents, struct kolo__hosts *hosts)
{
    hosts->list = calloc(agents->count, sizeof *hosts->list);
    if (hosts->list == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for %u hosts", agents->count);
    hosts->count = agents->count;
    for (uint32_t i = 0; i < agents->count; i++) {
        hosts->list[i] = agents->list[i]->host;
        if (agents->list[i]->phase != KOLO__AGENT_READY)
            hosts->list[i].slots = 0;
    }
    return KOLO_OK;
}

static kolo_status fail_gathering(const struct kolo__agents *agents, uint32_t wanted, long slots,
                                  long seconds)
{
    char late[600], why[700] = "";
    kolo__agents_list_late(agents, late, sizeof late);
    if (kolo__discovery_fault(agents->discovery) != KOLO_OK)
        snprintf(why, sizeof why, "%s", kolo_error_text());
    return kolo__error(KOLO_ERR_TIMEOUT,
                       "--discover brought hosts with %ld of the %u slots to begin with, within "
                       "%ld s (KOLO_INIT_TIMEOUT)%s%s%s%s",
                       slots, wanted, seconds, late[0] != '\0' ? "; not there: " : "", late,
                       why[0] != '\0' ? "; " : "", why);
}

kolo_status kolo__agents_gather(struct kolo__agents *agents, uint32_t wanted, long seconds,
                                const struct kolo__signals *signals, struct kolo__hosts *hosts,
                                int *exit_code)
{
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock), enough_ns = 0;
    uint64_t deadline_ns = now_ns + (uint64_t)seconds * SECOND, patience_ns = WARN_S * SECOND;
    uint64_t warn_ns = now_ns + patience_ns;
    char late[600];
    for (;;) {
        bool pending;
        int asked = kolo__agents_serve_once(agents, signals);
        now_ns = kolo__now_ns(&kolo__real_clock);
        kolo__agents_step_hosts(agents, now_ns);
        long slots = count_slots(agents, &pending);
        enough_ns = slots < wanted ? 0 : enough_ns == 0 ? now_ns : enough_ns;
        if (enough_ns != 0 && (!pending || now_ns >= enough_ns + CHANCE_S * SECOND))
            return give_hosts(agents, hosts);
        if (asked != 0)
            return kolo__agents_interrupted(asked, exit_code);
        *exit_code = KOLO__EXIT_NO_WORLD;
        if (kolo__discovery_fault(agents->discovery) == KOLO_ERR_CONFIG) {
            *exit_code = KOLO__EXIT_USAGE;
            return KOLO_ERR_CONFIG;
        }
        if (now_ns >= deadline_ns)
            return fail_gathering(agents, wanted, slots, seconds);
        if (now_ns >= warn_ns) {
            warn_ns += patience_ns *= 2;
            kolo__agents_list_late(agents, late, sizeof late);
            kolo__log(KOLO__LOG_WARN, "kolo run waits for hosts with %ld more slots%s%s",
                      (long)wanted - slots, late[0] != '\0' ? "; not there: " : "", late);
        }
    }
}
