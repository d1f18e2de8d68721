/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Worlds that go on (kolo_renew), with real processes: ranks that are killed one by one, together
 * and in the middle of the renewal; one that is stopped, and expelled; what comes late of the epoch
 * before.
 */
#include "elastic.h"

#include "base/clock.h"
#include "base/secure.h"
#include "base/socket.h"
#include "collectives/transport/join.h"
#include "runtime/context.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- shrink --------------------------------------------------------------------------------- */

static int rank_1_is_killed(void)
{
    static float scratch[ELASTIC_COUNT];
    void *kept;
    CHECK(join() == 0);
    CHECK(kolo_alloc(context, ELASTIC_COUNT * sizeof(float), &kept) == KOLO_OK);
    CHECK(reduces_well() == 0);
    CHECK(report_says(0, 0, 0, "") == 0);
    kolo_comm *first = comm, *half;
    CHECK(kolo_comm_split(comm, rank % 2, rank, &half) == KOLO_OK);
    int before = rank;
    float *data = kept;
    for (int i = 0; i < ELASTIC_COUNT; i++)
        data[i] = (float)i;
    CHECK(meet() == 0);
    if (rank == 1)
        die_behind_all();
    kolo_request *pending = NULL;
    kolo_status started = kolo_allreduce_start(comm, scratch, scratch, ELASTIC_COUNT, KOLO_FP32,
                                               KOLO_SUM, NULL, &pending);
    CHECK(started == KOLO_OK || started == KOLO_ERR_PEER_LOST);
    CHECK(started != KOLO_OK || kolo_wait(&pending, -1) == KOLO_ERR_PEER_LOST);
    CHECK(reduce_until_failure() == KOLO_ERR_PEER_LOST && error_has("rank 1"));
    CHECK(renew() == 0);
    CHECK(size == 3 && rank == (before == 0 ? 0 : before - 1));
    CHECK(report_says(1, 3, 4, "rank 1 ") == 0);
    CHECK(kolo_previous_rank(context, rank) == before && kolo_previous_rank(context, 3) == -1);
    /* What was of the epoch before is dead, and is freed as always. */
    CHECK(kolo_barrier(first) != KOLO_OK && kolo_barrier(half) != KOLO_OK);
    CHECK(kolo_comm_free(first) == KOLO_ERR_INVALID && kolo_comm_free(half) == KOLO_OK);
    CHECK(reduces_well() == 0);
    /* Memory has kept its place and contents. */
    for (int i = 0; i < ELASTIC_COUNT; i++)
        CHECK(data[i] == (float)i);
    CHECK(reduce(data, ELASTIC_COUNT) == KOLO_OK && sum_is_right(data, ELASTIC_COUNT));
    CHECK(kolo_comm_split(comm, 0, -rank, &half) == KOLO_OK && kolo_barrier(half) == KOLO_OK);
    CHECK(kolo_comm_free(half) == KOLO_OK);
    kolo_free(context, kept);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static int two_are_killed_at_once(void)
{
    CHECK(join() == 0);
    CHECK(meet() == 0);
    if (rank == 0 || rank == 2)
        die_behind_all();
    CHECK(reduce_until_failure() == KOLO_ERR_PEER_LOST);
    int before = rank;
    CHECK(renew() == 0);
    /* The second may have been lost only after the epoch had formed. */
    while (size > 2) {
        CHECK(reduce_until_failure() == KOLO_ERR_PEER_LOST);
        CHECK(renew() == 0);
    }
    CHECK(size == 2 && rank == before / 2);
    CHECK(reduces_well() == 0);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

/* One after the other, until one rank is left, which is a world too. */
static int all_but_one_are_killed(void)
{
    CHECK(join() == 0);
    while (size > 1) {
        CHECK(reduces_well() == 0);
        if (rank == size - 1)
            die_behind_all();
        CHECK(reduce_until_failure() == KOLO_ERR_PEER_LOST);
        CHECK(renew() == 0);
    }
    CHECK(reduces_well() == 0);
    CHECK(report_says(3, 1, 2, "rank 1 ") == 0);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

/* Rank 3 is lost, and rank 1 does not go on without it. */
static int rank_1_leaves_a_broken_world(void)
{
    CHECK(join() == 0);
    CHECK(meet() == 0);
    if (rank == 3)
        die_behind_all();
    CHECK(reduce_until_failure() == KOLO_ERR_PEER_LOST);
    if (rank == 1) {
        CHECK(kolo_finalize(context) == KOLO_ERR_PEER_LOST);
        return 0;
    }
    CHECK(renew() == 0);
    CHECK(report_says(1, 2, 4, "left in good order") == 0);
    CHECK(reduces_well() == 0);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_survivors_go_on(void **state)
{
    (void)state;
    expect(4, 0, (int[]){3, -1}, rank_1_leaves_a_broken_world);
    expect(4, 0, (int[]){1, -1}, rank_1_is_killed);
    expect(4, 0, (int[]){0, 2, -1}, two_are_killed_at_once);
    expect(4, 0, (int[]){1, 2, 3, -1}, all_but_one_are_killed);
}

/* ---- losses on the way ----------------------------------------------------------------------- */

/* When a rank dies: so many messages to the rendezvous, and so much time, after it began to renew.
 */
static struct moment {
    unsigned messages, microseconds;
} moment;
static uint64_t sent_before;

static void *die_at_moment(void *unused)
{
    while (kolo__control_sent(context->control) < sent_before + moment.messages)
        sched_yield();
    usleep(moment.microseconds);
    die();
    return unused;
}

/* Rank 3 is lost, and while the others renew the world, rank 1. */
static int rank_1_is_lost_on_the_way(void)
{
    pthread_t killer;
    CHECK(join() == 0);
    CHECK(reduces_well() == 0);
    if (rank == 3)
        die_behind_all();
    CHECK(reduce_until_failure() == KOLO_ERR_PEER_LOST);
    sent_before = kolo__control_sent(context->control);
    bool dies = rank == 1;
    if (dies)
        CHECK(pthread_create(&killer, NULL, die_at_moment, NULL) == 0);
    CHECK(renew() == 0);
    if (dies)
        pthread_join(killer, NULL); /* its moment comes later */
    while (size > 2) {
        CHECK(reduce_until_failure() == KOLO_ERR_PEER_LOST);
        CHECK(renew() == 0);
    }
    CHECK(rank == world_rank() / 2);
    CHECK(reduces_well() == 0);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_loss_on_the_way(void **state)
{
    (void)state;
    /* The messages: RENEW, then two of the set-up. */
    static const struct moment moments[] = {{0, 0},    {1, 0}, {1, 300}, {1, 2000},
                                            {1, 8000}, {2, 0}, {2, 500}, {3, 0}};
    for (size_t m = 0; m < sizeof moments / sizeof *moments; m++)
        for (int w = 0; w < 2; w++) {
            moment = moments[m];
            expect_on(elastic_ways[w], 4, 0, (int[]){1, 3, -1}, rank_1_is_lost_on_the_way);
        }
}

/* ---- a rank that does not come --------------------------------------------------------------- */

/* Rank 2 stops: it is expelled, and hears so when it goes on. */
static int rank_2_is_stopped(void)
{
    const kolo_renew_options options = {.size = sizeof options, .timeout_ms = 500};
    int pids[4], pid = getpid();
    static float old[ELASTIC_COUNT];
    CHECK(join() == 0);
    CHECK(kolo_allgather(comm, &pid, pids, 1, KOLO_INT32, NULL) == KOLO_OK);
    CHECK(meet() == 0);
    if (rank == 3)
        die_behind_all();
    if (rank == 2) {
        raise(SIGSTOP);
        CHECK(reduce(old, ELASTIC_COUNT) != KOLO_OK);
        CHECK(kolo_renew(context, &options) == KOLO_ERR_WORLD);
        CHECK(error_has("did not come in time"));
        CHECK(kolo_renew(context, &options) == KOLO_ERR_WORLD); /* for good */
        CHECK(kolo_finalize(context) != KOLO_OK);
        return 0;
    }
    CHECK(reduce_until_failure() == KOLO_ERR_PEER_LOST);
    CHECK(kolo_renew(context, &options) == KOLO_OK && look() == 0);
    CHECK(size == 2 && rank == world_rank());
    CHECK(report_says(1, 2, 4, "expelled") == 0);
    CHECK(reduces_well() == 0);
    kill(pids[2], SIGCONT);
    /* It still has connections, and memory, of the epoch before. */
    for (int i = 0; i < 20; i++)
        CHECK(reduces_well() == 0);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

/* Rank 1 stops when the epoch has formed, and the others wait for it in its set-up. */
static void *stop_at_moment(void *unused)
{
    while (kolo__control_sent(context->control) < sent_before + moment.messages)
        sched_yield();
    raise(SIGSTOP);
    return unused;
}

static int rank_1_stops_on_the_way(void)
{
    const kolo_renew_options options = {.size = sizeof options, .timeout_ms = 500};
    pthread_t stopper;
    int pids[4], pid = getpid();
    CHECK(join() == 0);
    CHECK(kolo_allgather(comm, &pid, pids, 1, KOLO_INT32, NULL) == KOLO_OK);
    CHECK(meet() == 0);
    if (rank == 3)
        die_behind_all();
    CHECK(reduce_until_failure() == KOLO_ERR_PEER_LOST);
    sent_before = kolo__control_sent(context->control);
    if (world_rank() == 1) {
        CHECK(pthread_create(&stopper, NULL, stop_at_moment, NULL) == 0);
        kolo_status status = kolo_renew(context, &options);
        while (status == KOLO_OK && look() == 0) { /* it was faster than its end */
            CHECK(reduce_until_failure() != KOLO_OK);
            status = kolo_renew(context, &options);
        }
        /* Why it was expelled it may have missed: what it says first breaks the connection. */
        CHECK(status == KOLO_ERR_WORLD || status == KOLO_ERR_PEER_LOST);
        pthread_join(stopper, NULL);
        kolo_finalize(context);
        return 0;
    }
    CHECK(kolo_renew(context, &options) == KOLO_OK && look() == 0);
    while (size > 2) {
        CHECK(reduce_until_failure() != KOLO_OK);
        CHECK(kolo_renew(context, &options) == KOLO_OK && look() == 0);
    }
    CHECK(rank == world_rank() / 2);
    CHECK(reduces_well() == 0);
    kill(pids[1], SIGCONT);
    for (int i = 0; i < 5; i++)
        CHECK(reduces_well() == 0);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_stopped_rank_is_expelled(void **state)
{
    (void)state;
    expect(4, 0, (int[]){3, -1}, rank_2_is_stopped);
    /* Where an operation takes as long as it may, that is how a stopped rank is noticed. */
    const char *const environment[] = {"KOLO_TIMEOUT=2", NULL};
    for (unsigned messages = 1; messages <= 2; messages++) {
        moment.messages = messages;
        expect_on(environment, 4, 0, (int[]){3, -1}, rank_1_stops_on_the_way);
    }
}

/* ---- what is late ---------------------------------------------------------------------------- */

/* A rank of the epoch before comes to a rank of this one, as one that was stopped might. */
static int comes_late(uint32_t epoch, uint32_t as, uint32_t ranks, enum kolo__join_verdict expected)
{
    struct kolo__credentials *credentials;
    struct kolo__secure *secure;
    struct kolo__join other;
    enum kolo__join_verdict verdict;
    struct kolo__join join = {.epoch = epoch, .comm = 1, .rank = as, .size = ranks, .lanes = 1};
    unsigned char message[KOLO__JOIN_BYTES], answer[KOLO__JOIN_ANSWER_BYTES];
    const struct kolo__address *to = &context->endpoints[0].addresses[0];
    uint64_t deadline_ns = kolo__now_ns(&kolo__real_clock) + 20000000000u;
    int fd = socket(to->storage.ss_family, SOCK_STREAM, 0);
    CHECK(fd >= 0 && connect(fd, (const struct sockaddr *)&to->storage, to->length) == 0);
    snprintf(join.job, sizeof join.job, "%.*s", (int)sizeof join.job - 1, context->job);
    CHECK(kolo__credentials_create(KOLO__PURPOSE_DATA, context->job, context->token,
                                   &credentials) == KOLO_OK);
    CHECK(kolo__secure_create(credentials, KOLO__SECURE_INITIATOR, fd, &secure) == KOLO_OK);
    CHECK(kolo__secure_handshake_by(secure, deadline_ns) == KOLO_OK);
    kolo__join_encode(&join, message);
    CHECK(kolo__secure_send_all(secure, message, sizeof message, deadline_ns) == KOLO_OK);
    CHECK(kolo__secure_recv_all(secure, answer, sizeof answer, deadline_ns) == KOLO_OK);
    CHECK(kolo__join_answer_decode(answer, &verdict, &other) == KOLO_OK);
    CHECK(verdict == expected && other.epoch == 1);
    kolo__secure_free(secure);
    kolo__credentials_free(credentials);
    close(fd);
    return 0;
}

static int late_connections_are_refused(void)
{
    CHECK(join() == 0);
    CHECK(reduces_well() == 0);
    if (rank == 1)
        die_behind_all();
    CHECK(reduce_until_failure() == KOLO_ERR_PEER_LOST);
    CHECK(renew() == 0);
    if (rank == 1) {
        CHECK(comes_late(0, 2, 4, KOLO__JOIN_OTHER_EPOCH) == 0);
        CHECK(comes_late(0, 2, 3, KOLO__JOIN_OTHER_EPOCH) == 0);
        CHECK(comes_late(1, 2, 4, KOLO__JOIN_OTHER_SIZE) == 0);
    }
    CHECK(kolo_barrier(comm) == KOLO_OK); /* in which rank 0 answers */
    CHECK(reduces_well() == 0);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_late_connections(void **state)
{
    (void)state;
    for (int w = 1; w < ELASTIC_WAYS; w++)
        expect_on(elastic_ways[w], 4, 0, (int[]){1, -1}, late_connections_are_refused);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_survivors_go_on),
        cmocka_unit_test(test_loss_on_the_way),
        cmocka_unit_test(test_stopped_rank_is_expelled),
        cmocka_unit_test(test_late_connections),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
