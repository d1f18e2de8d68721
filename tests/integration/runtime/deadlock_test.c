/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranks that wait for each other for ever are told so, soon, with both sides. Ranks that only wait
 * long are not: everything here waits for more than a second, when ranks report what they wait in.
 */
#include "member.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { RANKS = 3, TOLD_WITHIN_S = 12, LONG_US = 1300000 };

static float in[64], out[256];

static kolo_status reduce(kolo_comm *where)
{
    return kolo_allreduce(where, in, out, 10, KOLO_FP32, KOLO_SUM, NULL);
}

static kolo_status receive(int peer)
{
    return kolo_recv(comm, out, 10, KOLO_FP32, peer);
}

static kolo_status give(int peer)
{
    return kolo_send(comm, in, 10, KOLO_FP32, peer);
}

static int says(const char *what)
{
    return strstr(kolo_error_text(), what) != NULL;
}

static const char *const *const transports[] = {
    (const char *const[]){"KOLO_TRANSPORT=shm", "KOLO_TIMEOUT=40", NULL},
    (const char *const[]){"KOLO_TRANSPORT=tcp", "KOLO_TIMEOUT=40", NULL},
};

struct scenario {
    int (*rank_main)(void);
    const char *name;
};

#define SCENARIO(name)                                                                             \
    {                                                                                              \
        name, #name                                                                                \
    }

/* A world of a scenario, in a process of its own. Returns its pid. */
static pid_t begin_world(const struct scenario *scenario, int transport, double within_s)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    int failed = 0;
    struct world_result result = world_run(RANKS, transports[transport], scenario->rank_main);
    for (int r = 0; r < RANKS; r++)
        if (result.status[r] != 0 || result.seconds[r] > within_s) {
            fprintf(stderr, "%s over %s: rank %d ended with status 0x%x after %.1f s\n",
                    scenario->name, transports[transport][0], r, (unsigned)result.status[r],
                    result.seconds[r]);
            failed = 1;
        }
    _exit(failed);
}

/* All of them at a time, over both transports: they hardly do anything but wait. */
static void run_all(const struct scenario *scenarios, int count, double within_s)
{
    pid_t pids[32];
    int status, failed = 0;
    assert_true(2 * count <= 32);
    for (int i = 0; i < 2 * count; i++) {
        pids[i] = begin_world(&scenarios[i / 2], i % 2, within_s);
        assert_true(pids[i] > 0);
    }
    for (int i = 0; i < 2 * count; i++)
        failed += waitpid(pids[i], &status, 0) != pids[i] || status != 0;
    assert_int_equal(failed, 0);
}

/* ---- for ever ------------------------------------------------------------------------------ */

static int receive_against_collective(void)
{
    CHECK(join() == 0);
    CHECK((rank == 0 ? receive(1) : reduce(comm)) == KOLO_ERR_MISMATCH);
    CHECK(says("rank 0 (") && says("rank 1 (") && says("allreduce #1"));
    CHECK(says("kolo_recv from rank 1") || says("send/recv #1"));
    kolo_finalize(context);
    return 0;
}

/* The two have done other things together before. Rank 2 takes no part and is told all the same. */
static int two_receive(void)
{
    CHECK(join() == 0);
    CHECK(reduce(comm) == KOLO_OK);
    if (rank == 0)
        CHECK(give(1) == KOLO_OK && receive(1) == KOLO_OK);
    if (rank == 1)
        CHECK(receive(0) == KOLO_OK && give(0) == KOLO_OK);
    CHECK((rank < 2 ? receive(1 - rank) : reduce(comm)) == KOLO_ERR_MISMATCH);
    CHECK(says("rank 0 (") && says("waits in kolo_recv from rank 1 (10 x fp32)"));
    CHECK(says("rank 1 (") && says("waits in kolo_recv from rank 0 (10 x fp32)"));
    kolo_finalize(context);
    return 0;
}

static int all_receive_in_a_ring(void)
{
    CHECK(join() == 0);
    CHECK(receive((rank + 1) % size) == KOLO_ERR_MISMATCH);
    CHECK(says("rank 0 (") && says("kolo_recv from rank 1"));
    CHECK(says("rank 1 (") && says("kolo_recv from rank 2"));
    kolo_finalize(context);
    return 0;
}

/* In a communicator whose ranks have other numbers there than in the world; with kolo_wait; and
 * behind a collective that was started before. */
static int started_and_in_a_part(void)
{
    kolo_comm *part;
    kolo_request *request, *sum;
    CHECK(join() == 0);
    CHECK(kolo_comm_split(comm, rank == 0 ? 0 : 1, -rank, &part) == KOLO_OK);
    if (rank > 0) {
        int peer = 1 - kolo_comm_rank(part);
        if (rank == 1)
            CHECK(kolo_allreduce_start(part, in, out, 10, KOLO_FP32, KOLO_SUM, NULL, &sum) ==
                  KOLO_OK);
        CHECK(kolo_recv_start(part, out + 64, 10, KOLO_FP32, peer, &request) == KOLO_OK);
        CHECK(kolo_wait(&request, -1) == KOLO_ERR_MISMATCH);
        CHECK(says("rank 1 (") || says("rank 0 (")); /* a header may tell first */
    } else {
        usleep(3 * LONG_US);
    }
    kolo_finalize(context);
    return 0;
}

/* Each takes the other for the root. Whoever waits by looks of 20 ms has said what it called. */
static int waits_with_limits(void)
{
    kolo_request *request = NULL; /* where the headers of others tell first, there is none */
    CHECK(join() == 0);
    kolo_status status =
        kolo_broadcast_start(comm, out, 10, KOLO_FP32, rank == 0 ? 1 : 0, NULL, &request);
    while (request != NULL)
        status = kolo_wait(&request, 20);
    CHECK(status == KOLO_ERR_MISMATCH);
    kolo_finalize(context);
    return 0;
}

static void test_circles_are_told(void **state)
{
    (void)state;
    static const struct scenario scenarios[] = {
        SCENARIO(receive_against_collective), SCENARIO(two_receive),
        SCENARIO(all_receive_in_a_ring),      SCENARIO(started_and_in_a_part),
        SCENARIO(waits_with_limits),
    };
    run_all(scenarios, sizeof scenarios / sizeof *scenarios, TOLD_WITHIN_S);
}

/* ---- only long ----------------------------------------------------------------------------- */

/* Each in turn waits for the other, who computes: both have reported waits that are over. */
static int take_turns(void)
{
    CHECK(join() == 0);
    for (int turn = 0; turn < 3; turn++) {
        if (rank == 2)
            break;
        if (rank == turn % 2) {
            usleep(LONG_US);
            CHECK(give(1 - rank) == KOLO_OK);
        } else {
            CHECK(receive(1 - rank) == KOLO_OK);
        }
    }
    CHECK(reduce(comm) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

/* Everybody waits for its neighbour, and has sent or started to send before. Rank 0 comes late. */
static int ring_with_a_late_rank(void)
{
    CHECK(join() == 0);
    int left = (rank + size - 1) % size, right = (rank + 1) % size;
    kolo_request *from_left, *from_right, *to_left, *to_right;
    for (int turn = 0; turn < 2; turn++) {
        if (rank == 0)
            usleep(LONG_US);
        CHECK(kolo_recv_start(comm, out, 10, KOLO_FP32, left, &from_left) == KOLO_OK);
        CHECK(kolo_recv_start(comm, out + 64, 10, KOLO_FP32, right, &from_right) == KOLO_OK);
        CHECK(kolo_send_start(comm, in, 10, KOLO_FP32, left, &to_left) == KOLO_OK);
        CHECK(kolo_send_start(comm, in, 10, KOLO_FP32, right, &to_right) == KOLO_OK);
        CHECK(kolo_wait(&from_left, -1) == KOLO_OK && kolo_wait(&from_right, -1) == KOLO_OK);
        CHECK(kolo_wait(&to_left, -1) == KOLO_OK && kolo_wait(&to_right, -1) == KOLO_OK);
    }
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static int stopped_peer(void)
{
    CHECK(join() == 0);
    if (rank == 1) {
        pid_t self = getpid(), waker = fork();
        if (waker == 0) {
            kill(self, SIGSTOP);
            usleep(2 * LONG_US);
            kill(self, SIGCONT);
            _exit(0);
        }
        CHECK(waker > 0);
        waitpid(waker, NULL, 0);
        CHECK(give(0) == KOLO_OK);
    } else if (rank == 0) {
        CHECK(receive(1) == KOLO_OK);
    }
    CHECK(reduce(comm) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

/* Rank 1 needs only rank 0 for its broadcast, and rank 2 only rank 1 for its message. */
static int broadcast_before_message(void)
{
    CHECK(join() == 0);
    if (rank == 0)
        usleep(2 * LONG_US);
    if (rank == 2)
        CHECK(receive(1) == KOLO_OK);
    kolo_call_options options = {.size = sizeof options, .algorithm = "tree"};
    CHECK(kolo_broadcast(comm, out, 10, KOLO_FP32, 0, &options) == KOLO_OK);
    if (rank == 1)
        CHECK(give(2) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

/* Whoever gives up waiting may call something else. */
static int wait_with_a_limit(void)
{
    kolo_request *request;
    CHECK(join() == 0);
    if (rank == 0) {
        CHECK(kolo_recv_start(comm, out, 10, KOLO_FP32, 1, &request) == KOLO_OK);
        CHECK(kolo_wait(&request, 2 * LONG_US / 1000) == KOLO_AGAIN);
        CHECK(give(1) == KOLO_OK);
        CHECK(kolo_wait(&request, -1) == KOLO_OK);
    } else if (rank == 1) {
        CHECK(receive(0) == KOLO_OK && give(0) == KOLO_OK);
    }
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static kolo_comm *second;

static void *send_late_on_the_second(void *failed)
{
    usleep(2 * LONG_US);
    return kolo_send(second, in, 10, KOLO_FP32, 1 - rank) == KOLO_OK ? NULL : failed;
}

static void *receive_on_the_second(void *failed)
{
    float data[10];
    return kolo_recv(second, data, 10, KOLO_FP32, 1 - rank) == KOLO_OK ? NULL : failed;
}

/* Rank 0 waits for rank 1 on one communicator, rank 1 for rank 0 on the other; other threads of
 * them send. */
static int two_threads(void)
{
    pthread_t thread;
    void *failed = NULL;
    CHECK(join() == 0);
    CHECK(kolo_comm_split(comm, rank < 2 ? 0 : KOLO_NO_COLOR, 0, &second) == KOLO_OK);
    if (rank < 2) {
        void *(*other)(void *) = rank == 0 ? send_late_on_the_second : receive_on_the_second;
        CHECK(pthread_create(&thread, NULL, other, &second) == 0);
        if (rank == 0)
            CHECK(receive(1) == KOLO_OK);
        else
            CHECK(usleep(2 * LONG_US) == 0 && give(0) == KOLO_OK);
        pthread_join(thread, &failed);
        CHECK(failed == NULL);
    }
    CHECK(reduce(comm) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_long_waits_are_no_circles(void **state)
{
    (void)state;
    static const struct scenario scenarios[] = {
        SCENARIO(take_turns),        SCENARIO(ring_with_a_late_rank),
        SCENARIO(stopped_peer),      SCENARIO(broadcast_before_message),
        SCENARIO(wait_with_a_limit), SCENARIO(two_threads),
    };
    run_all(scenarios, sizeof scenarios / sizeof *scenarios, WORLD_TIMEOUT_S);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_circles_are_told),
        cmocka_unit_test(test_long_waits_are_no_circles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
