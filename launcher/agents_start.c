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

static const uint64_t MILLISECOND = 1000000, SECOND = 1000000000;

enum {
    WARN_SECONDS = 10,    /* then twice as long each time */
    CONNECT_SECONDS = 60, /* ssh gives an address up after 10 s; a name may have several */
    AGENT_SECONDS = 5,    /* for the last words of who gave up trying */
    LAUNCH_SECONDS = 60,
    LAST_WORDS_MS = 2000,
    CLOSE_MS = 5000,
};

static void close_agent(struct kolo__agent *agent);

/* ---- waiting for all ----------------------------------------------------------------------- */

/* Serves the agents for a moment. Returns the number of a signal that asks us to end; 0: none. */
static int serve_once(struct kolo__agents *agents, const struct kolo__signals *signals,
                      struct pollfd *fds)
{
    uint32_t count = kolo__agents_poll_count(agents);
    int number, asked = 0;
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

/* Until no agent is in the phase, or one has come to a bad end; that one, or NULL. */
static struct kolo__agent *find(const struct kolo__agents *agents, enum kolo__agent_phase phase)
{
    for (uint32_t i = 0; i < agents->count; i++)
        if (agents->list[i].phase == phase)
            return &agents->list[i];
    return NULL;
}

/* The last line of what its way there said: why it has not come yet. */
static const char *last_line(struct kolo__agent *agent)
{
    size_t length = strlen(agent->words);
    while (length > 0 && (agent->words[length - 1] == '\n' || agent->words[length - 1] == '\r'))
        agent->words[--length] = '\0';
    const char *line = strrchr(agent->words, '\n');
    return line != NULL ? line + 1 : agent->words;
}

/* "host2 (Connection refused), host3": those that have not come, as many as fit into the text. */
static const char *list_late(const struct kolo__agents *agents, char *text, size_t bytes)
{
    size_t used = 0;
    uint32_t left = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < agents->count; i++) {
        struct kolo__agent *agent = &agents->list[i];
        if (agent->phase != KOLO__AGENT_CONNECTING && agent->phase != KOLO__AGENT_LOST)
            continue;
        const char *why = last_line(agent);
        int added =
            snprintf(text + used, bytes - used, "%s%s%s%s%s", used > 0 ? ", " : "",
                     agent->host->name, why[0] != '\0' ? " (" : "", why, why[0] != '\0' ? ")" : "");
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
        struct kolo__agent *agent = &agents->list[i];
        struct kolo__host *host = agent->host;
        if (agents->shell->agent_port == 0 || agent->phase != KOLO__AGENT_LOST ||
            agent->hello.version[0] == '\0')
            continue;
        close_agent(agent);
        *agent = (struct kolo__agent){.host = host};
        kolo_status status = kolo__remote_start(agents->shell, host, &agent->remote);
        if (status != KOLO_OK)
            return status;
        kolo__carrier_open(&agent->carrier, agent->remote.in_fd, agent->remote.out_fd);
    }
    return KOLO_OK;
}

static kolo_status serve_while(struct kolo__agents *agents, enum kolo__agent_phase phase,
                               const struct kolo__signals *signals, unsigned seconds,
                               int *exit_code)
{
    struct pollfd *fds = calloc(kolo__agents_poll_count(agents) + 1, sizeof *fds);
    char list[1200];
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    uint64_t deadline_ns = now_ns + seconds * SECOND, patience_ns = WARN_SECONDS * SECOND;
    uint64_t warn_ns = now_ns + patience_ns;
    kolo_status status = KOLO_OK;
    if (fds == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for %u hosts", agents->count);
    while (status == KOLO_OK && find(agents, phase) != NULL &&
           (phase != KOLO__AGENT_CONNECTING || (status = call_again(agents)) == KOLO_OK) &&
           find(agents, KOLO__AGENT_LOST) == NULL && find(agents, KOLO__AGENT_REFUSED) == NULL) {
        int asked = serve_once(agents, signals, fds);
        if (asked != 0) {
            *exit_code = KOLO__EXIT_SIGNAL + asked;
            status = kolo__error(KOLO_ERR_ABORTED, "ended by SIG%s while hosts were starting",
                                 sigabbrev_np(asked));
        } else if ((now_ns = kolo__now_ns(&kolo__real_clock)) >= deadline_ns) {
            *exit_code = KOLO__EXIT_NO_WORLD;
            status = kolo__error(KOLO_ERR_TIMEOUT, "not answered within %u s: %s", seconds,
                                 list_late(agents, list, sizeof list));
        } else if (now_ns >= warn_ns) {
            warn_ns += patience_ns *= 2;
            kolo__log(KOLO__LOG_WARN, "kolo run waits for %s",
                      list_late(agents, list, sizeof list));
        }
    }
    free(fds);
    return status;
}

/* ---- why it did not work ------------------------------------------------------------------- */

/* Its end, which its closed stream announced; killed when it takes long. */
static int await_end(struct kolo__agent *agent)
{
    const struct timespec pause = {.tv_nsec = 10000000};
    int wait_status = 0;
    uint64_t until_ns = kolo__now_ns(&kolo__real_clock) + LAST_WORDS_MS * MILLISECOND;
    while (agent->remote.pid > 0 && waitpid(agent->remote.pid, &wait_status, WNOHANG) == 0) {
        if (kolo__now_ns(&kolo__real_clock) >= until_ns)
            kill(agent->remote.pid, SIGKILL);
        nanosleep(&pause, NULL);
    }
    agent->remote.pid = 0;
    return wait_status;
}

static void read_last_words(struct kolo__agent *agent, bool only_last)
{
    size_t used = strlen(agent->words);
    ssize_t bytes;
    while (agent->remote.err_fd >= 0 && used < sizeof agent->words - 1 &&
           (bytes = read(agent->remote.err_fd, agent->words + used,
                         sizeof agent->words - 1 - used)) > 0)
        used += (size_t)bytes;
    agent->words[used] = '\0';
    while (used > 0 && (agent->words[used - 1] == '\n' || agent->words[used - 1] == '\r'))
        agent->words[--used] = '\0';
    const char *line = only_last ? last_line(agent) : agent->words;
    memmove(agent->words, line, strlen(line) + 1);
    for (char *c = agent->words; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = ' ';
}

/* A host that did not come as far as HELLO. */
static kolo_status explain_connect(const struct kolo__agents *agents, struct kolo__agent *agent,
                                   int *exit_code)
{
    char command[600], end[64] = "", list[1200];
    if (agent->hello.version[0] != '\0' || !agent->carrier.ended) {
        *exit_code = KOLO__EXIT_USAGE;
        return kolo__error(KOLO_ERR_WORLD, "host %s: %s", agent->host->name, agent->why);
    }
    int wait_status = await_end(agent);
    read_last_words(agent, agents->shell->agent_port != 0);
    struct kolo__remote_failure failure = kolo__remote_explain(wait_status, agent->words);
    *exit_code = failure.exit_code;
    if (agents->shell->agent_port != 0 && *exit_code == KOLO__EXIT_NO_WORLD)
        return kolo__error(
            KOLO_ERR_NETWORK,
            "no agent within %ld s (KOLO_INIT_TIMEOUT): %s. Does `kolo agent` run there, at this "
            "port and with this token, and does no firewall or NetworkPolicy stand between?",
            agents->shell->agent_seconds, list_late(agents, list, sizeof list));
    if (agent->words[0] == '\0' && WIFEXITED(wait_status))
        snprintf(end, sizeof end, "it exited with code %d", WEXITSTATUS(wait_status));
    else if (agent->words[0] == '\0')
        snprintf(end, sizeof end, "it was killed by signal %d", WTERMSIG(wait_status));
    return kolo__error(KOLO_ERR_NETWORK, "cannot start on host %s: %s%s%s%s. Tried: %s",
                       agent->host->name, agent->words, end, failure.remedy[0] != '\0' ? ": " : "",
                       failure.remedy,
                       kolo__remote_text(agents->shell, agent->host, command, sizeof command));
}

static kolo_status explain_launch(struct kolo__agent *agent, int *exit_code)
{
    bool refused = agent->phase == KOLO__AGENT_REFUSED;
    *exit_code = refused ? agent->refused_code : KOLO__EXIT_PEER_LOST;
    return kolo__error(KOLO_ERR_NETWORK, refused ? "host %s: %s" : "host %s was lost: %s",
                       agent->host->name, agent->why);
}

/* ---- connecting ---------------------------------------------------------------------------- */

/* The same kolo everywhere, and each host once. */
static kolo_status check_hellos(const struct kolo__agents *agents)
{
    for (uint32_t i = 0; i < agents->count; i++) {
        const struct kolo__agent *agent = &agents->list[i];
        if (agent->hello.protocol != KOLO__AGENT_PROTOCOL ||
            strcmp(agent->hello.version, kolo_version()) != 0)
            return kolo__error(
                KOLO_ERR_CONFIG,
                "host %s has kolo %s (protocol %u, %s), here it is %s (protocol %d): "
                "install the same everywhere",
                agent->host->name, agent->hello.version, agent->hello.protocol, agent->hello.path,
                kolo_version(), KOLO__AGENT_PROTOCOL);
        for (uint32_t k = 0; k < i; k++)
            if (strcmp(agents->list[k].hello.machine, agent->hello.machine) == 0)
                return kolo__error(KOLO_ERR_CONFIG,
                                   "%s and %s are the same host (%s): name it once, with all its "
                                   "slots",
                                   agents->list[k].host->name, agent->host->name,
                                   agent->hello.host);
    }
    return KOLO_OK;
}

static kolo_status start_all(struct kolo__agents *agents, struct kolo__hosts *hosts)
{
    agents->list = calloc(hosts->count, sizeof *agents->list);
    if (agents->list == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for %u hosts", hosts->count);
    for (uint32_t i = 0; i < hosts->count; i++) {
        struct kolo__agent *agent = &agents->list[i];
        agent->host = &hosts->list[i];
        kolo_status status = kolo__remote_start(agents->shell, agent->host, &agent->remote);
        if (status != KOLO_OK)
            return status;
        kolo__carrier_open(&agent->carrier, agent->remote.in_fd, agent->remote.out_fd);
        agents->count++;
    }
    return KOLO_OK;
}

kolo_status kolo__agents_connect(struct kolo__agents *agents, struct kolo__hosts *hosts,
                                 const struct kolo__remote_shell *shell,
                                 const struct kolo__signals *signals, int *exit_code)
{
    *agents = (struct kolo__agents){.shell = shell, .input_fd = -1};
    *exit_code = KOLO__EXIT_FAILED;
    kolo_status status = start_all(agents, hosts);
    if (status == KOLO_OK)
        status = serve_while(agents, KOLO__AGENT_CONNECTING, signals,
                             shell->agent_port != 0 ? (unsigned)shell->agent_seconds + AGENT_SECONDS
                                                    : CONNECT_SECONDS,
                             exit_code);
    struct kolo__agent *lost = find(agents, KOLO__AGENT_LOST);
    if (status == KOLO_OK && lost != NULL)
        status = explain_connect(agents, lost, exit_code);
    if (status != KOLO_OK)
        return status;
    status = check_hellos(agents);
    if (status != KOLO_OK)
        *exit_code = KOLO__EXIT_USAGE;
    for (uint32_t i = 0; i < agents->count; i++)
        if (hosts->list[i].slots == 0)
            hosts->list[i].slots = agents->list[i].hello.cores;
    return status;
}

/* ---- launching ----------------------------------------------------------------------------- */

static kolo_status give_ranks(struct kolo__agents *agents, uint32_t world_size,
                              const uint32_t *host_of)
{
    agents->world_size = world_size;
    agents->ranks = calloc(world_size, sizeof(struct kolo__agent_rank *));
    agents->agent_of = calloc(world_size, sizeof(struct kolo__agent *));
    bool enough = agents->ranks != NULL && agents->agent_of != NULL;
    for (uint32_t r = 0; r < world_size; r++)
        agents->list[host_of[r]].count++;
    for (uint32_t i = 0; i < agents->count; i++) {
        struct kolo__agent *agent = &agents->list[i];
        agent->room = agent->count;
        if (agents->stay)
            agent->room =
                agent->host->slots < (long)world_size ? (uint32_t)agent->host->slots : world_size;
        agent->ranks = agent->room > 0 ? calloc(agent->room, sizeof *agent->ranks) : NULL;
        enough &= agent->room == 0 || agent->ranks != NULL;
        agent->count = 0;
    }
    if (!enough)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for %u ranks", world_size);
    for (uint32_t r = 0; r < world_size; r++) {
        struct kolo__agent *agent = &agents->list[host_of[r]];
        agents->agent_of[r] = agent;
        agents->ranks[r] = &agent->ranks[agent->count++];
        agents->ranks[r]->rank = r;
        kolo__output_expect(agents->output, r);
    }
    return KOLO_OK;
}

static kolo_status ask(struct kolo__agent *agent, const struct kolo__agent_start *common)
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

static void dismiss(struct kolo__agent *agent)
{
    kolo__agent_begin(&agent->carrier.out, KOLO__AGENT_END);
    kolo__frame_end(&agent->carrier.out);
    kolo__carrier_flush(&agent->carrier, kolo__now_ns(&kolo__real_clock));
}

kolo_status kolo__agents_launch(struct kolo__agents *agents, const struct kolo__agent_start *start,
                                const uint32_t *host_of, const struct kolo__signals *signals,
                                int *exit_code)
{
    *exit_code = KOLO__EXIT_FAILED;
    kolo_status status = give_ranks(agents, start->world_size, host_of);
    for (uint32_t i = 0; i < agents->count && status == KOLO_OK; i++) {
        struct kolo__agent *agent = &agents->list[i];
        if (agent->room > 0)
            status = ask(agent, start);
        else
            dismiss(agent);
    }
    if (status == KOLO_OK)
        status = serve_while(agents, KOLO__AGENT_ASKED, signals, LAUNCH_SECONDS, exit_code);
    struct kolo__agent *bad = find(agents, KOLO__AGENT_REFUSED);
    if (bad == NULL)
        bad = find(agents, KOLO__AGENT_LOST);
    if (status == KOLO_OK && bad != NULL)
        status = explain_launch(bad, exit_code);
    return status;
}

/* ---- the end ------------------------------------------------------------------------------- */

static bool is_needed(const struct kolo__agent *agent)
{
    return agent->phase != KOLO__AGENT_LEFT && agent->phase != KOLO__AGENT_LOST &&
           agent->phase != KOLO__AGENT_CONNECTING && !agent->carrier.broken;
}

static bool is_any_needed(const struct kolo__agents *agents)
{
    for (uint32_t i = 0; i < agents->count; i++)
        if (is_needed(&agents->list[i]))
            return true;
    return false;
}

/* Its stream is closed: an agent ends by itself, and ssh with it. */
static void close_agent(struct kolo__agent *agent)
{
    if (agent->remote.err_fd >= 0)
        close(agent->remote.err_fd);
    agent->remote.err_fd = -1;
    if (agent->remote.pid > 0 &&
        (agent->phase == KOLO__AGENT_LOST || agent->phase == KOLO__AGENT_CONNECTING))
        kill(agent->remote.pid, SIGTERM);
    kolo__carrier_close(&agent->carrier);
    await_end(agent);
    for (uint32_t i = 0; agent->ranks != NULL && i < agent->count; i++)
        free(agent->ranks[i].flight);
    free(agent->ranks);
}

void kolo__agents_close(struct kolo__agents *agents)
{
    struct pollfd *fds =
        agents->count > 0 ? calloc(kolo__agents_poll_count(agents) + 1, sizeof *fds) : NULL;
    uint64_t deadline_ns = kolo__now_ns(&kolo__real_clock) + CLOSE_MS * MILLISECOND;
    for (uint32_t i = 0; i < agents->count; i++)
        if (!agents->list[i].carrier.broken)
            dismiss(&agents->list[i]);
    agents->input_fd = -1;
    while (fds != NULL && is_any_needed(agents) && kolo__now_ns(&kolo__real_clock) < deadline_ns)
        serve_once(agents, NULL, fds);
    free(fds);
    for (uint32_t i = 0; i < agents->count; i++)
        close_agent(&agents->list[i]);
    free(agents->list);
    free(agents->ranks);
    free(agents->agent_of);
    *agents = (struct kolo__agents){.input_fd = -1};
}
