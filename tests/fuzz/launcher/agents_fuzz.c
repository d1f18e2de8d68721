/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `kolo run`'s end of the stream of an agent that was asked to start ranks 0 and 1: whatever the
 * agent says, then its end. Each rank ends exactly once, whether the agent spoke of it or not.
 */
#include "launcher/agents.h"

#include "base/assert.h"
#include "base/clock.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RANKS = 2, PIECE = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static unsigned endings[RANKS];

static void count_ending(void *supervision, uint32_t rank, int wait_status, const char *lost)
{
    (void)supervision;
    (void)wait_status;
    KOLO__ASSERT(rank < RANKS && (lost == NULL || strlen(lost) < 480));
    endings[rank]++;
}

static void step(struct kolo__agents *agents)
{
    struct pollfd fds[KOLO__AGENTS_OWN_ENTRIES + KOLO__AGENT_ENTRIES];
    KOLO__ASSERT(kolo__agents_ranks.poll_count(agents) == sizeof fds / sizeof *fds);
    kolo__agents_ranks.poll_fill(agents, fds);
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        fds[i].revents = i == KOLO__AGENTS_OWN_ENTRIES && fds[i].fd >= 0 ? POLLIN : 0;
    kolo__agents_ranks.step(agents, fds, count_ending, NULL);
    for (int r = 0; r < RANKS; r++)
        KOLO__ASSERT(endings[r] <= 1);
}

/* All that comes lies in a pipe already. */
static void talk(struct kolo__agents *agents, int to, const uint8_t *data, size_t bytes)
{
    const struct kolo__agent *agent = agents->list[0];
    char text[600];
    for (size_t at = 0; at < bytes && agent->phase < KOLO__AGENT_LEFT;) {
        size_t piece = bytes - at < PIECE ? bytes - at : PIECE;
        KOLO__ASSERT(write(to, data + at, piece) == (ssize_t)piece);
        at += piece;
        step(agents);
    }
    close(to);
    step(agents);
    step(agents);
    KOLO__ASSERT(agent->phase >= KOLO__AGENT_LEFT); /* nobody waits for it for ever */
    for (uint32_t r = 0; r < RANKS; r++) {
        KOLO__ASSERT(endings[r] == 1);
        kolo__agents_ranks.where(agents, r, text, sizeof text);
    }
    struct kolo__recorders recorders = {0};
    KOLO__ASSERT(kolo__agents_ranks.recorders(agents, &recorders) == KOLO_OK);
    struct kolo__flight_verdict verdict;
    kolo__flight_judge(recorders.ranks, recorders.count, kolo__now_ns(&kolo__real_clock), &verdict);
    kolo__recorders_free(&recorders);
    for (int r = 0; r < RANKS; r++)
        free(agents->ranks[r]->flight);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const struct kolo__remote_shell shell = {0};
    struct kolo__agent_rank ranks[RANKS] = {{.rank = 0}, {.rank = 1}};
    struct kolo__agent_rank *by_rank[RANKS] = {&ranks[0], &ranks[1]};
    struct kolo__agent agent = {.host = {.name = "node7", .slots = RANKS},
                                .remote = {.in_fd = -1, .out_fd = -1, .err_fd = -1},
                                .phase = KOLO__AGENT_ASKED,
                                .ranks = ranks,
                                .count = RANKS};
    struct kolo__agent *agent_of[RANKS] = {&agent, &agent}, *list[] = {&agent};
    const struct kolo__output_style style = {.prefix = true};
    struct kolo__agents agents = {.list = list,
                                  .count = 1,
                                  .ranks = by_rank,
                                  .agent_of = agent_of,
                                  .places = RANKS,
                                  .shell = &shell,
                                  .report_bindings = true,
                                  .input_fd = -1,
                                  .input_on_the_way = 1000};
    int ends[2], nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    KOLO__ASSERT(nowhere >= 0 && pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
    KOLO__ASSERT(kolo__output_create(RANKS, &style, nowhere, nowhere, &agents.output) == KOLO_OK);
    for (uint32_t r = 0; r < RANKS; r++)
        kolo__output_expect(agents.output, r);
    kolo__carrier_open(&agent.carrier, ends[0], open("/dev/null", O_WRONLY | O_CLOEXEC));
    memset(endings, 0, sizeof endings);
    talk(&agents, ends[1], data, bytes);
    kolo__carrier_close(&agent.carrier);
    kolo__output_free(agents.output);
    close(nowhere);
    return 0;
}
