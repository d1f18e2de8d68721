/* SPDX-License-Identifier: Apache-2.0 */
/* How the way to a host ends, and why. */
#include "launcher/agents.h"

#include "base/clock.h"
#include "base/status.h"
#include "launcher/command.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const uint64_t MILLISECOND = 1000000;

enum { LAST_WORDS_MS = 2000, CLOSE_MS = 5000 };

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

/* The last line of what its way there said: why it has not come yet. */
const char *kolo__agent_last_line(struct kolo__agent *agent)
{
    size_t length = strlen(agent->words);
    while (length > 0 && (agent->words[length - 1] == '\n' || agent->words[length - 1] == '\r'))
        agent->words[--length] = '\0';
    const char *line = strrchr(agent->words, '\n');
    return line != NULL ? line + 1 : agent->words;
}

void kolo__agent_read_last_words(struct kolo__agent *agent, bool only_last)
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
    const char *line = only_last ? kolo__agent_last_line(agent) : agent->words;
    memmove(agent->words, line, strlen(line) + 1);
    for (char *c = agent->words; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = ' ';
}

/* A host that did not come as far as HELLO. */
kolo_status kolo__agents_explain_connect(const struct kolo__agents *agents,
                                         struct kolo__agent *agent, int *exit_code)
{
    char command[600], end[64] = "", list[1200];
    if (agent->hello.version[0] != '\0' || !agent->carrier.ended) {
        *exit_code = KOLO__EXIT_USAGE;
        return kolo__error(KOLO_ERR_WORLD, "host %s: %s", agent->host.name, agent->why);
    }
    int wait_status = await_end(agent);
    kolo__agent_read_last_words(agent, agents->shell->agent_port != 0);
    struct kolo__remote_failure failure = kolo__remote_explain(wait_status, agent->words);
    *exit_code = failure.exit_code;
    if (agents->shell->agent_port != 0 && *exit_code == KOLO__EXIT_NO_WORLD)
        return kolo__error(
            KOLO_ERR_NETWORK,
            "no agent within %ld s (KOLO_INIT_TIMEOUT): %s. Does `kolo agent` run there, at this "
            "port and with this token, and does no firewall or NetworkPolicy stand between?",
            agents->shell->agent_seconds, kolo__agents_list_late(agents, list, sizeof list));
    if (agent->words[0] == '\0' && WIFEXITED(wait_status))
        snprintf(end, sizeof end, "it exited with code %d", WEXITSTATUS(wait_status));
    else if (agent->words[0] == '\0')
        snprintf(end, sizeof end, "it was killed by signal %d", WTERMSIG(wait_status));
    return kolo__error(KOLO_ERR_NETWORK, "cannot start on host %s: %s%s%s%s. Tried: %s",
                       agent->host.name, agent->words, end, failure.remedy[0] != '\0' ? ": " : "",
                       failure.remedy,
                       kolo__remote_text(agents->shell, &agent->host, command, sizeof command));
}

/* ---- the end ------------------------------------------------------------------------------- */

static bool is_needed(const struct kolo__agent *agent)
{
    return kolo__agent_is_there(agent) && agent->phase != KOLO__AGENT_CONNECTING &&
           !agent->carrier.broken;
}

static bool is_any_needed(const struct kolo__agents *agents)
{
    for (uint32_t i = 0; i < agents->count; i++)
        if (is_needed(agents->list[i]))
            return true;
    return false;
}

/* Its stream is closed: an agent ends by itself, and ssh with it. */
void kolo__agent_close(struct kolo__agent *agent)
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

static void free_agent(struct kolo__agent *agent)
{
    kolo__agent_close(agent);
    free(agent);
}

void kolo__agents_close(struct kolo__agents *agents)
{
    uint64_t deadline_ns = kolo__now_ns(&kolo__real_clock) + CLOSE_MS * MILLISECOND;
    for (uint32_t i = 0; i < agents->count; i++)
        if (!agents->list[i]->carrier.broken)
            kolo__agent_say(agents->list[i], KOLO__AGENT_END);
    agents->input_fd = -1;
    agents->discovery = NULL; /* nobody comes any more */
    while (is_any_needed(agents) && kolo__now_ns(&kolo__real_clock) < deadline_ns)
        kolo__agents_serve_once(agents, NULL);
    for (uint32_t i = 0; i < agents->count; i++)
        free_agent(agents->list[i]);
    free(agents->list);
    free(agents->fds);
    free(agents->ranks);
    free(agents->agent_of);
    *agents = (struct kolo__agents){.input_fd = -1};
}
