/* SPDX-License-Identifier: Apache-2.0 */
/* What the agent of a host says, and what its ssh does. */
#include "launcher/agents.h"

#include "base/clock.h"
#include "base/last_words.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const uint64_t MILLISECOND = 1000000;

bool kolo__agent_is_there(const struct kolo__agent *agent)
{
    return agent->phase < KOLO__AGENT_LEFT;
}

/* ---- saying -------------------------------------------------------------------------------- */

void kolo__agent_say(struct kolo__agent *agent, enum kolo__agent_frame type)
{
    kolo__agent_begin(&agent->carrier.out, type);
    kolo__frame_end(&agent->carrier.out);
    kolo__carrier_flush(&agent->carrier, kolo__now_ns(&kolo__real_clock));
}

void kolo__agent_say_value(struct kolo__agent *agent, enum kolo__agent_frame type, uint32_t value)
{
    kolo__agent_begin(&agent->carrier.out, type);
    kolo__put_u32(&agent->carrier.out, value);
    kolo__frame_end(&agent->carrier.out);
    kolo__carrier_flush(&agent->carrier, kolo__now_ns(&kolo__real_clock));
}

void kolo__agent_say_line(struct kolo__agents *agents, const struct kolo__agent *agent,
                          const char *line)
{
    char text[1400];
    snprintf(text, sizeof text, "%s: %s", agent->host.name, line);
    if (agents->output != NULL)
        kolo__output_say(agents->output, text);
    else
        fprintf(stderr, "%s\n", text);
}

/* ---- hearing ------------------------------------------------------------------------------- */

void kolo__agent_lose(struct kolo__agent *agent, const char *why)
{
    if (!kolo__agent_is_there(agent))
        return;
    agent->phase = KOLO__AGENT_LOST;
    snprintf(agent->why, sizeof agent->why, "%s", why);
    for (char *c = agent->why; *c != '\0'; c++)
        *c = *c == '\n' ? ' ' : *c;
}

/* How its stream broke is less than what its ssh says of it. */
static void lose_carrier(struct kolo__agent *agent)
{
    char why[480], words[300] = "";
    size_t length = strlen(agent->words);
    snprintf(words, sizeof words, "%s", agent->words + (length > 290 ? length - 290 : 0));
    if (words[0] != '\0')
        words[strcspn(words, "\n")] = '\0';
    snprintf(why, sizeof why, "its agent has gone: %s%s%s", agent->carrier.why,
             words[0] != '\0' ? "; " : "", words);
    kolo__agent_lose(agent, why);
}

static void on_hello(struct kolo__agent *agent, struct kolo__frame_reader *payload)
{
    if (agent->phase != KOLO__AGENT_CONNECTING || !kolo__get_agent_hello(payload, &agent->hello))
        kolo__agent_lose(
            agent, "its kolo agent says hello in another way: install the same kolo everywhere");
    else
        agent->phase = KOLO__AGENT_READY;
}

static bool on_started(struct kolo__agents *agents, struct kolo__agent *agent,
                       struct kolo__frame_reader *payload)
{
    uint32_t count = kolo__get_u32(payload);
    if (agent->phase != KOLO__AGENT_ASKED || count != agent->count)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        char text[640], line[800];
        agent->ranks[i].pid = kolo__get_u32(payload);
        kolo__get_text(payload, text, sizeof text);
        snprintf(line, sizeof line, "[%u] %s on %s", agent->ranks[i].rank, text, agent->hello.host);
        if (agents->report_bindings)
            kolo__output_say(agents->output, line);
    }
    agent->phase = KOLO__AGENT_RUNNING;
    return kolo__frame_done(payload);
}

static bool on_failed(struct kolo__agent *agent, struct kolo__frame_reader *payload)
{
    agent->refused_code = kolo__get_u8(payload);
    kolo__get_text(payload, agent->why, sizeof agent->why);
    agent->phase = KOLO__AGENT_REFUSED;
    return kolo__frame_done(payload);
}

static bool on_output(struct kolo__agents *agents, struct kolo__agent *agent,
                      struct kolo__frame_reader *payload)
{
    size_t bytes;
    uint32_t local = kolo__get_u32(payload);
    uint8_t stream = kolo__get_u8(payload);
    const unsigned char *data = kolo__get_blob(payload, &bytes);
    if (!kolo__frame_done(payload) || local >= agent->count || stream > 1)
        return false;
    kolo__output_feed(agents->output, agent->ranks[local].rank, stream, (const char *)data, bytes);
    agent->to_confirm += bytes;
    return true;
}

static bool on_ended(struct kolo__agents *agents, struct kolo__agent *agent,
                     struct kolo__frame_reader *payload)
{
    char words[KOLO__LAST_WORDS_BYTES];
    uint32_t local = kolo__get_u32(payload);
    uint32_t wait_status = kolo__get_u32(payload);
    kolo__get_text(payload, words, sizeof words);
    if (!kolo__frame_done(payload) || local >= agent->count ||
        agent->ranks[local].state != KOLO__RANK_RUNS)
        return false;
    if (agents->last_words != NULL)
        kolo__last_words_write(agents->last_words, (long)agent->ranks[local].rank, words);
    agent->ranks[local].state = KOLO__RANK_ENDED;
    agent->ranks[local].wait_status = (int)wait_status;
    return true;
}

static bool on_record(struct kolo__agent *agent, struct kolo__frame_reader *payload)
{
    size_t bytes;
    uint32_t local = kolo__get_u32(payload);
    char state = (char)kolo__get_u8(payload);
    uint64_t their_ns = kolo__get_u64(payload);
    const unsigned char *data = kolo__get_blob(payload, &bytes);
    if (!kolo__frame_done(payload) || local >= agent->count)
        return false;
    struct kolo__agent_rank *rank = &agent->ranks[local];
    if (rank->flight == NULL)
        rank->flight = aligned_alloc(_Alignof(struct kolo__flight), sizeof *rank->flight);
    rank->flight_state = state;
    return rank->flight == NULL || kolo__flight_import(rank->flight, data, bytes, their_ns,
                                                       kolo__now_ns(&kolo__real_clock));
}

static bool on_again(struct kolo__agent *agent, struct kolo__frame_reader *payload)
{
    uint32_t local = kolo__get_u32(payload);
    uint32_t pid = kolo__get_u32(payload);
    if (!kolo__frame_done(payload) || local >= agent->count ||
        agent->ranks[local].state != KOLO__RANK_RUNS)
        return false;
    agent->ranks[local].pid = pid;
    return true;
}

static bool on_taken(struct kolo__agents *agents, struct kolo__frame_reader *payload)
{
    uint32_t bytes = kolo__get_u32(payload);
    if (!kolo__frame_done(payload) || bytes > agents->input_on_the_way)
        return false;
    agents->input_on_the_way -= bytes;
    if (bytes == 0)
        agents->input_fd = -1; /* rank 0 does not read any more */
    return true;
}

static void on_frame(struct kolo__agents *agents, struct kolo__agent *agent,
                     enum kolo__agent_frame type, struct kolo__frame_reader *payload)
{
    bool good = true;
    switch (type) {
    case KOLO__AGENT_HELLO:
        on_hello(agent, payload);
        break;
    case KOLO__AGENT_STARTED:
        good = on_started(agents, agent, payload);
        break;
    case KOLO__AGENT_FAILED:
        good = agent->phase == KOLO__AGENT_ASKED && on_failed(agent, payload);
        break;
    case KOLO__AGENT_OUTPUT:
        good = agent->phase >= KOLO__AGENT_ASKED && on_output(agents, agent, payload);
        break;
    case KOLO__AGENT_ENDED:
        good = agent->phase >= KOLO__AGENT_ASKED && on_ended(agents, agent, payload);
        break;
    case KOLO__AGENT_GONE:
        for (uint32_t i = 0; i < agent->count && good; i++)
            good = agent->phase == KOLO__AGENT_REFUSED || agent->ranks[i].state != KOLO__RANK_RUNS;
        if (good && agent->phase != KOLO__AGENT_REFUSED)
            agent->phase = KOLO__AGENT_LEFT;
        break;
    case KOLO__AGENT_RECORD:
        good = agent->phase >= KOLO__AGENT_ASKED && on_record(agent, payload);
        break;
    case KOLO__AGENT_AGAIN:
        good = agent->phase == KOLO__AGENT_RUNNING && on_again(agent, payload);
        break;
    case KOLO__AGENT_TAKEN:
        good = on_taken(agents, payload);
        break;
    case KOLO__AGENT_ALIVE:
        break;
    default:
        good = false;
    }
    if (!good)
        kolo__agent_lose(agent, "its kolo agent sent a message that is broken, or out of turn");
}

/* Before the greeting ssh says why it does not work; after it, the agent may warn. */
static void hear_words(struct kolo__agents *agents, struct kolo__agent *agent)
{
    size_t used = strlen(agent->words);
    if (used > sizeof agent->words / 2) {
        memmove(agent->words, agent->words + used / 2, used - used / 2 + 1);
        used -= used / 2;
    }
    ssize_t bytes = read(agent->remote.err_fd, agent->words + used, sizeof agent->words - 1 - used);
    if (bytes == 0 || (bytes < 0 && errno != EAGAIN && errno != EINTR)) {
        close(agent->remote.err_fd);
        agent->remote.err_fd = -1;
    }
    if (bytes <= 0)
        return;
    agent->words[used + (size_t)bytes] = '\0';
    for (char *c = agent->words + used; *c != '\0'; c++)
        if (((unsigned char)*c < 0x20 && *c != '\n') || *c == 0x7f)
            *c = *c == '\r' ? ' ' : '?';
    bool aloud = agent->phase != KOLO__AGENT_CONNECTING || agents->shell->verbose;
    char *end;
    while (aloud && (end = strchr(agent->words, '\n')) != NULL) {
        *end = '\0';
        kolo__agent_say_line(agents, agent, agent->words);
        memmove(agent->words, end + 1, strlen(end + 1) + 1);
    }
}

void kolo__agent_serve_frames(struct kolo__agents *agents, struct kolo__agent *agent,
                              const struct pollfd *fds, uint64_t now_ns)
{
    enum kolo__agent_frame type;
    struct kolo__frame_reader payload;
    if (agent->remote.err_fd >= 0 && fds[KOLO__CARRIER_ENTRIES].revents != 0)
        hear_words(agents, agent);
    if (!kolo__agent_is_there(agent))
        return;
    if (fds[0].revents != 0)
        kolo__carrier_receive(&agent->carrier, now_ns);
    bool greeted = agent->phase != KOLO__AGENT_CONNECTING || kolo__carrier_greeted(&agent->carrier);
    while (greeted && kolo__agent_is_there(agent) &&
           kolo__carrier_next(&agent->carrier, KOLO__AGENT_FRAME_MAX, &type, &payload))
        on_frame(agents, agent, type, &payload);
    if (agent->to_confirm > 0 && !kolo__output_is_full(agents->output)) {
        uint32_t bytes = (uint32_t)agent->to_confirm;
        agent->to_confirm = 0;
        kolo__agent_say_value(agent, KOLO__AGENT_TAKEN, bytes);
    }
    kolo__carrier_flush(&agent->carrier, now_ns);
    if (agent->carrier.broken)
        lose_carrier(agent);
    else if (agent->phase != KOLO__AGENT_CONNECTING &&
             now_ns >= agent->carrier.heard_ns + KOLO__AGENT_LOST_MS * MILLISECOND)
        kolo__agent_lose(agent, "nothing was heard from its host for 10 s");
}
