/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Worlds that go on (kolo_renew), with real processes: ranks that are killed one by one, together
 * and in the middle of the renewal; one that is stopped, and expelled; newcomers; what is left of
 * the epoch before.
 */
#include "member.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "runtime/context.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COUNT = 40000 };

static int error_says(const char *what)
{
    return strstr(kolo_error_text(), what) != NULL;
}

static void die(void)
{
    kill(getpid(), SIGKILL);
}

/* The world as it is now. */
static int look(void)
{
    comm = kolo_world(context);
    rank = kolo_comm_rank(comm);
    size = kolo_comm_size(comm);
    return 0;
}

static int renew(void)
{
    CHECK(kolo_renew(context, NULL) == KOLO_OK);
    return look();
}

static kolo_status reduce(float *data, size_t count)
{
    for (size_t i = 0; i < count; i++)
        data[i] = (float)(rank + 1);
    return kolo_allreduce(comm, data, data, count, KOLO_FP32, KOLO_SUM, NULL);
}

static int sum_is_right(const float *data, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (data[i] != (float)(size * (size + 1) / 2))
            return 0;
    return 1;
}

/* Small and large, in memory of one's own and in shared memory. */
static int reduces_well(void)
{
    void *shared;
    float *own = malloc(COUNT * sizeof *own);
    CHECK(kolo_alloc(context, COUNT * sizeof(float), &shared) == KOLO_OK);
    for (int i = 0; i < 3; i++) {
        CHECK(reduce(own, 10) == KOLO_OK && sum_is_right(own, 10));
        CHECK(reduce(own, COUNT) == KOLO_OK && sum_is_right(own, COUNT));
        CHECK(reduce(shared, COUNT) == KOLO_OK && sum_is_right(shared, COUNT));
    }
    kolo_free(context, shared);
    free(own);
    return 0;
}

/* Calls allreduce until it fails. */
static kolo_status reduce_until_failure(void)
{
    static float data[COUNT];
    kolo_status status = KOLO_OK;
    while (status == KOLO_OK)
        status = reduce(data, COUNT);
    return status;
}

static int report_says(int epoch, int survivors, int previous_size, const char *gone)
{
    kolo_epoch_report report = {.size = sizeof report};
    CHECK(kolo_get_epoch_report(context, &report) == KOLO_OK);
    CHECK(report.epoch == epoch && report.survivors == survivors);
    CHECK(report.previous_size == previous_size);
    CHECK(strstr(report.gone, gone) != NULL);
    return 0;
}

static const char *const *const ways[] = {
    (const char *const[]){"KOLO_TRANSPORT=shm", NULL},
    (const char *const[]){"KOLO_TRANSPORT=tcp", NULL},
    (const char *const[]){"KOLO_TRANSPORT=tcp", "KOLO_ENCRYPT=1", NULL},
};
enum { WAYS = sizeof ways / sizeof *ways };

static void expect_on(const char *const *way, int ranks, int newcomers, int killed[],
                      int (*rank_main)(void))
{
    struct world_result result = world_run_elastic(ranks, newcomers, 1, way, rank_main);
    for (; *killed >= 0; killed++) {
        assert_true(WIFSIGNALED(result.status[*killed]));
        assert_int_equal(WTERMSIG(result.status[*killed]), SIGKILL);
        result.status[*killed] = 0;
    }
    world_assert_all_passed(&result, ranks + newcomers);
}

static void expect(int ranks, int newcomers, int killed[], int (*rank_main)(void))
{
    for (int w = 0; w < WAYS; w++)
        expect_on(ways[w], ranks, newcomers, killed, rank_main);
}

/* ---- shrink --------------------------------------------------------------------------------- */

static int rank_1_is_killed(void)
{
    static float scratch[COUNT];
    void *kept;
    CHECK(join() == 0);
    CHECK(kolo_alloc(context, COUNT * sizeof(float), &kept) == KOLO_OK);
    CHECK(reduces_well() == 0);
    CHECK(report_says(0, 0, 0, "") == 0);
    kolo_comm *first = comm, *half;
    CHECK(kolo_comm_split(comm, rank % 2, rank, &half) == KOLO_OK);
    int before = rank;
    float *data = kept;
    for (int i = 0; i < COUNT; i++)
        data[i] = (float)i;
    CHECK(kolo_barrier(comm) == KOLO_OK);
    if (rank == 1)
        die();
    kolo_request *pending = NULL;
    kolo_status started =
        kolo_allreduce_start(comm, scratch, scratch, COUNT, KOLO_FP32, KOLO_SUM, NULL, &pending);
    CHECK(started == KOLO_OK || started == KOLO_ERR_PEER_LOST);
    CHECK(started != KOLO_OK || kolo_wait(&pending, -1) == KOLO_ERR_PEER_LOST);
    CHECK(reduce_until_failure() == KOLO_ERR_PEER_LOST && error_says("rank 1"));
    CHECK(renew() == 0);
    CHECK(size == 3 && rank == (before == 0 ? 0 : before - 1));
    CHECK(report_says(1, 3, 4, "rank 1 ") == 0);
    CHECK(kolo_previous_rank(context, rank) == before && kolo_previous_rank(context, 3) == -1);
    /* What was of the epoch before is dead, and is freed as always. */
    CHECK(kolo_barrier(first) != KOLO_OK && kolo_barrier(half) != KOLO_OK);
    CHECK(kolo_comm_free(first) == KOLO_ERR_INVALID && kolo_comm_free(half) == KOLO_OK);
    CHECK(reduces_well() == 0);
    /* Memory has kept its place and contents. */
    for (int i = 0; i < COUNT; i++)
        CHECK(data[i] == (float)i);
    CHECK(reduce(data, COUNT) == KOLO_OK && sum_is_right(data, COUNT));
    CHECK(kolo_comm_split(comm, 0, -rank, &half) == KOLO_OK && kolo_barrier(half) == KOLO_OK);
    CHECK(kolo_comm_free(half) == KOLO_OK);
    kolo_free(context, kept);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static int two_are_killed_at_once(void)
{
    CHECK(join() == 0);
    CHECK(kolo_barrier(comm) == KOLO_OK);
    if (rank == 0 || rank == 2)
        die();
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
            die();
        CHECK(reduce_until_failure() == KOLO_ERR_PEER_LOST);
        CHECK(renew() == 0);
    }
    CHECK(reduces_well() == 0);
    CHECK(report_says(3, 1, 2, "rank 1 ") == 0);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_survivors_go_on(void **state)
{
    (void)state;
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
        die();
    CHECK(reduce_until_failure() == KOLO_ERR_PEER_LOST);
    sent_before = kolo__control_sent(context->control);
    if (rank == 1)
        CHECK(pthread_create(&killer, NULL, die_at_moment, NULL) == 0);
    CHECK(renew() == 0);
    if (world_rank() == 1)
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
            expect_on(ways[w], 4, 0, (int[]){1, 3, -1}, rank_1_is_lost_on_the_way);
        }
}

/* ---- a rank that does not come --------------------------------------------------------------- */

/* Rank 2 stops: it is expelled, and hears so when it goes on. */
static int rank_2_is_stopped(void)
{
    const kolo_renew_options options = {.size = sizeof options, .timeout_ms = 500};
    int pids[4], pid = getpid();
    static float old[COUNT];
    CHECK(join() == 0);
    CHECK(kolo_allgather(comm, &pid, pids, 1, KOLO_INT32, NULL) == KOLO_OK);
    CHECK(kolo_barrier(comm) == KOLO_OK);
    if (rank == 3)
        die();
    if (rank == 2) {
        raise(SIGSTOP);
        CHECK(reduce(old, COUNT) != KOLO_OK);
        CHECK(kolo_renew(context, &options) == KOLO_ERR_WORLD);
        CHECK(error_says("did not come in time"));
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

static void test_stopped_rank_is_expelled(void **state)
{
    (void)state;
    expect(4, 0, (int[]){3, -1}, rank_2_is_stopped);
}

/* ---- grow ------------------------------------------------------------------------------------ */

static int work_until_wanted(void)
{
    int wanted = 0;
    while (wanted == 0) {
        CHECK(reduces_well() == 0);
        CHECK(kolo_renewal_wanted(context, 0, &wanted) == KOLO_OK);
    }
    return 0;
}

static int one_comes(void)
{
    CHECK(join() == 0);
    if (world_rank() == 3) {
        CHECK(rank == 3 && size == 4);
    } else {
        CHECK(rank == world_rank() && size == 3);
        CHECK(work_until_wanted() == 0);
        CHECK(renew() == 0);
        CHECK(rank == world_rank() && size == 4);
    }
    CHECK(report_says(1, 3, 3, "") == 0);
    CHECK(kolo_previous_rank(context, 2) == 2 && kolo_previous_rank(context, 3) == -1);
    CHECK(reduces_well() == 0);
    int wanted;
    CHECK(kolo_renewal_wanted(context, 0, &wanted) == KOLO_OK && wanted == 0);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

/* A rank is lost, and a newcomer takes its place among the last. */
static int one_goes_another_comes(void)
{
    CHECK(join() == 0);
    if (world_rank() < 3) {
        CHECK(reduces_well() == 0);
        if (rank == 1)
            die();
        while (reduce_until_failure() == KOLO_ERR_PEER_LOST && world_rank() != 1) {
            CHECK(renew() == 0);
            if (size == 2) { /* the newcomer was not there yet */
                CHECK(work_until_wanted() == 0);
                CHECK(renew() == 0);
            }
            break;
        }
    }
    CHECK(size == 3 && rank == (world_rank() == 0 ? 0 : world_rank() - 1));
    CHECK(reduces_well() == 0);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static int rank_1_leaves(void)
{
    const kolo_renew_options leave = {.size = sizeof leave, .leave = 1};
    int wanted;
    CHECK(join() == 0);
    CHECK(reduces_well() == 0);
    CHECK(kolo_renewal_wanted(context, rank == 1, &wanted) == KOLO_OK && wanted == 1);
    if (rank == 1) {
        CHECK(kolo_renew(context, &leave) == KOLO_OK);
        CHECK(kolo_finalize(context) == KOLO_OK);
        return 0;
    }
    CHECK(renew() == 0);
    CHECK(size == 2 && report_says(1, 2, 3, "left in good order") == 0);
    CHECK(reduces_well() == 0);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static int newcomer_differs(void)
{
    if (world_rank() == 2) {
        setenv("KOLO_TRANSPORT", "auto", 1);
        CHECK(kolo_init(NULL, &context) == KOLO_ERR_CONFIG);
        CHECK(error_says("KOLO_TRANSPORT is tcp in this world, and auto"));
        return 0;
    }
    CHECK(join() == 0);
    CHECK(reduces_well() == 0);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_newcomers_join(void **state)
{
    (void)state;
    expect(3, 1, (int[]){-1}, one_comes);
    expect(3, 1, (int[]){1, -1}, one_goes_another_comes);
    expect(3, 0, (int[]){-1}, rank_1_leaves);
    expect_on(ways[1], 2, 1, (int[]){-1}, newcomer_differs);
}

/* ---- errors ---------------------------------------------------------------------------------- */

static int too_few_are_left(void)
{
    const kolo_renew_options options = {.size = sizeof options, .timeout_ms = 300};
    CHECK(join() == 0);
    if (rank == 2)
        die();
    CHECK(reduce_until_failure() == KOLO_ERR_PEER_LOST);
    CHECK(kolo_renew(context, &options) == KOLO_ERR_WORLD);
    CHECK(error_says("fewer than 3 ranks") && error_says("rank 2 "));
    CHECK(kolo_barrier(kolo_world(context)) != KOLO_OK);
    kolo_finalize(context);
    return 0;
}

/* The others hear that one is in kolo_renew, and why they should come. */
static int one_renews_alone(void)
{
    CHECK(join() == 0);
    CHECK(kolo_barrier(comm) == KOLO_OK);
    if (rank == 1)
        CHECK(renew() == 0);
    else
        CHECK(reduce_until_failure() != KOLO_OK && renew() == 0);
    CHECK(size == 3 && rank == world_rank());
    CHECK(reduces_well() == 0);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static int arguments_are_checked(void)
{
    kolo_renew_options options = {.size = 1};
    CHECK(kolo_renew(NULL, NULL) == KOLO_ERR_INVALID);
    CHECK(join() == 0);
    CHECK(kolo_renew(context, &options) == KOLO_ERR_INVALID && error_says("options->size"));
    options = (kolo_renew_options){.size = sizeof options, .timeout_ms = -1};
    CHECK(kolo_renew(context, &options) == KOLO_ERR_INVALID && error_says("timeout_ms"));
    CHECK(kolo_barrier(comm) == KOLO_OK); /* nothing was begun */
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_errors(void **state)
{
    (void)state;
    for (int w = 0; w < 2; w++) {
        struct world_result result = world_run_elastic(3, 0, 3, ways[w], too_few_are_left);
        assert_true(WIFSIGNALED(result.status[2]));
        result.status[2] = 0;
        world_assert_all_passed(&result, 3);
    }
    expect(3, 0, (int[]){-1}, one_renews_alone);
    expect_on(ways[0], 2, 0, (int[]){-1}, arguments_are_checked);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_survivors_go_on),
        cmocka_unit_test(test_loss_on_the_way),
        cmocka_unit_test(test_stopped_rank_is_expelled),
        cmocka_unit_test(test_newcomers_join),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
