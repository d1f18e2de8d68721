/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which ranks are on the same host, and what follows. A process of another user counts as one of
 * another host, as it may not share memory: so one machine serves as two.
 */
#include "member.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RANKS = 5, COUNT = 30000 };

/* Root may be anybody; everybody else, but nobody, may be nobody. */
static bool become_another_user(void)
{
    uid_t before = getuid();
    bool changed = geteuid() == 0 ? setuid(65534) == 0 : unshare(CLONE_NEWUSER) == 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a change of user forgets it */
    return changed && getuid() != before;
}

static bool can_become_another_user(void)
{
    int status = 1;
    pid_t pid = fork();
    if (pid == 0)
        _exit(!become_another_user());
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

static int check_local(const kolo_comm *of, int local_rank, int local_size)
{
    CHECK(kolo_comm_local_rank(of) == local_rank);
    CHECK(kolo_comm_local_size(of) == local_size);
    return 0;
}

/* ---- one host ------------------------------------------------------------------------------- */

static int all_on_one_host(void)
{
    kolo_comm *reversed;
    CHECK(join() == 0);
    CHECK(check_local(comm, rank, size) == 0);
    CHECK(kolo_comm_split(comm, 0, -rank, &reversed) == KOLO_OK);
    CHECK(check_local(reversed, size - 1 - rank, size) == 0);
    CHECK(check_local(comm, rank, size) == 0);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

/* How bytes travel does not matter. */
static void test_one_host(void **state)
{
    (void)state;
    static const char *const transports[][2] = {{"KOLO_TRANSPORT=shm"}, {"KOLO_TRANSPORT=tcp"}};
    for (int t = 0; t < 2; t++)
        for (int ranks = 1; ranks <= 3; ranks += 2) {
            struct world_result result = world_run(ranks, transports[t], all_on_one_host);
            world_assert_all_passed(&result, ranks);
        }
}

/* ---- two hosts ------------------------------------------------------------------------------ */

/* Ranks 1, 3 and 4 are on the other. */
static const int first_host_has[RANKS] = {1, 0, 1, 0, 0};

static int check_places(void)
{
    static const int in_world[RANKS][2] = {{0, 2}, {0, 3}, {1, 2}, {1, 3}, {2, 3}};
    static const int in_reversed[RANKS][2] = {{1, 2}, {2, 3}, {0, 2}, {1, 3}, {0, 3}};
    static const int in_parity[RANKS][2] = {{0, 2}, {0, 2}, {1, 2}, {1, 2}, {0, 1}};
    kolo_comm *reversed, *parity;
    CHECK(check_local(comm, in_world[rank][0], in_world[rank][1]) == 0);
    CHECK(kolo_comm_split(comm, 0, -rank, &reversed) == KOLO_OK);
    CHECK(check_local(reversed, in_reversed[rank][0], in_reversed[rank][1]) == 0);
    CHECK(kolo_comm_split(comm, rank % 2, 0, &parity) == KOLO_OK);
    CHECK(check_local(parity, in_parity[rank][0], in_parity[rank][1]) == 0);
    CHECK(kolo_comm_free(reversed) == KOLO_OK && kolo_comm_free(parity) == KOLO_OK);
    return 0;
}

static int check_sum(kolo_comm *of, int expected)
{
    static int32_t values[COUNT];
    for (int i = 0; i < COUNT; i++)
        values[i] = rank + 1 + i;
    CHECK(kolo_allreduce(of, values, values, COUNT, KOLO_INT32, KOLO_SUM, NULL) == KOLO_OK);
    for (int i = 0; i < COUNT; i++)
        CHECK(values[i] == expected + i * kolo_comm_size(of));
    return 0;
}

/* Shared memory within, tcp between: alone and both at once. */
static int two_hosts(void)
{
    kolo_comm *local;
    if (!first_host_has[world_rank()])
        CHECK(become_another_user());
    CHECK(join() == 0);
    CHECK(check_places() == 0);
    CHECK(kolo_comm_split(comm, first_host_has[rank], 0, &local) == KOLO_OK);
    CHECK(kolo_comm_local_size(local) == kolo_comm_size(local));
    CHECK(kolo_comm_local_rank(local) == kolo_comm_rank(local));
    CHECK(check_sum(comm, 15) == 0);
    CHECK(check_sum(local, first_host_has[rank] ? 4 : 11) == 0);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_two_hosts(void **state)
{
    (void)state;
    if (!can_become_another_user())
        skip();
    static const char *const transports[][2] = {{"KOLO_TRANSPORT=auto"}, {"KOLO_TRANSPORT=tcp"}};
    for (int t = 0; t < 2; t++) {
        struct world_result result = world_run(RANKS, transports[t], two_hosts);
        world_assert_all_passed(&result, RANKS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_host),
        cmocka_unit_test(test_two_hosts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
