/* SPDX-License-Identifier: Apache-2.0 */
#include "world.h"

#include "base/token.h"
#include "base/clock.h"
#include "runtime/rendezvous.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static int own_rank;

int world_rank(void)
{
    return own_rank;
}

void world_complain(const char *file, int line, const char *condition)
{
    fprintf(stderr, "rank %d: %s:%d: not true: %s (last error: %s)\n", own_rank, file, line,
            condition, kolo_error_text());
}

static void set_number(const char *name, int value)
{
    char text[16];
    snprintf(text, sizeof text, "%d", value);
    setenv(name, text, 1);
}

static _Noreturn void become_rank(int rank, int ranks, const char *rendezvous, const char *token,
                                  const char *const *environment, int (*rank_main)(void))
{
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
    for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++)
        signal(crashes[i], SIG_DFL); /* cmocka's handlers would go on with the next test, here */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (rank >= ranks)
        close_range(3, ~0u, 0); /* the server's connections with those who came before */
    own_rank = rank;
    set_number("KOLO_RANK", rank);
    set_number("KOLO_WORLD_SIZE", ranks);
    set_number("KOLO_NEWCOMER", rank >= ranks);
    setenv("KOLO_RENDEZVOUS", rendezvous, 1);
    setenv("KOLO_TOKEN", token, 1);
    setenv("KOLO_JOB", token, 1);
    for (; environment != NULL && *environment != NULL; environment++)
        putenv((char *)(uintptr_t)*environment);
    int failed = rank_main();
    fflush(NULL);
    _exit(failed);
}

static const char *ending(int status, char *text, size_t bytes)
{
    if (WIFSIGNALED(status))
        snprintf(text, bytes, "was killed by signal %d", WTERMSIG(status));
    else
        snprintf(text, bytes, "exited with code %d", WEXITSTATUS(status));
    return text;
}

struct world_result world_run(int ranks, const char *const *environment, int (*rank_main)(void))
{
    return world_run_elastic(ranks, 0, 0, environment, rank_main);
}

struct world_result world_run_elastic(int ranks, int newcomers, int min_ranks,
                                      const char *const *environment, int (*rank_main)(void))
{
    struct world_result result;
    int all = ranks + newcomers, begun = 0;
    struct kolo__rendezvous *server;
    char token[33];
    pid_t pids[WORLD_RANKS_MAX];
    memset(&result, 0, sizeof result);
    assert_int_equal(kolo__token_random(token, 16), KOLO_OK);
    struct kolo__rendezvous_options options = {.host = "127.0.0.1",
                                               .job = token,
                                               .token = token,
                                               .world_size = (uint32_t)ranks,
                                               .min_ranks = (uint32_t)min_ranks};
    assert_int_equal(kolo__rendezvous_create(&options, &server), KOLO_OK);

    uint64_t start = kolo__now_ns(&kolo__real_clock);
    for (int left = all; left > 0;) {
        for (; begun < all && (begun < ranks || kolo__rendezvous_has_formed(server)); begun++) {
            pids[begun] = fork();
            assert_true(pids[begun] >= 0);
            if (pids[begun] == 0)
                become_rank(begun, ranks, kolo__rendezvous_address(server), token, environment,
                            rank_main);
        }
        struct pollfd ready = {.fd = kolo__rendezvous_fd(server), .events = POLLIN};
        poll(&ready, 1, 10);
        kolo__rendezvous_step(server);
        double elapsed = (double)(kolo__now_ns(&kolo__real_clock) - start) / 1e9;
        if (elapsed > WORLD_TIMEOUT_S && begun < all) {
            fail_msg("the world did not form, so that newcomers could not come");
            return result;
        }
        for (int r = 0; r < begun; r++) {
            char text[64];
            if (pids[r] == 0)
                continue;
            if (elapsed > WORLD_TIMEOUT_S)
                kill(pids[r], SIGKILL);
            if (waitpid(pids[r], &result.status[r], WNOHANG) != pids[r])
                continue;
            result.seconds[r] = elapsed;
            pids[r] = 0;
            left--;
            kolo__rendezvous_rank_ended(server, (uint32_t)r, result.status[r] == 0,
                                        ending(result.status[r], text, sizeof text));
        }
    }
    kolo__rendezvous_free(server);
    return result;
}

void world_assert_all_passed(const struct world_result *result, int ranks)
{
    for (int r = 0; r < ranks; r++)
        if (result->status[r] != 0)
            fail_msg("rank %d ended with status 0x%x", r, (unsigned)result->status[r]);
}

void world_run_over_both(int ranks, const char *option, int (*rank_main)(void))
{
    const char *environment[] = {"KOLO_TRANSPORT=shm", option, NULL};
    struct world_result result = world_run(ranks, environment, rank_main);
    world_assert_all_passed(&result, ranks);
    environment[0] = "KOLO_TRANSPORT=tcp";
    result = world_run(ranks, environment, rank_main);
    world_assert_all_passed(&result, ranks);
}
