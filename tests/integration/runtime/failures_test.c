/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes wrong between real processes: every survivor learns what, who and where, soon, and
 * nothing hangs.
 */
#include "member.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LOST_WITHIN_S = 5 };

static double seconds_since(const struct timespec *start)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start->tv_sec) + 1e-9 * (double)(now.tv_nsec - start->tv_nsec);
}

static int error_says(const char *what)
{
    return strstr(kolo_error_text(), what) != NULL;
}

/* Calls allreduce until it fails. */
static kolo_status reduce_until_failure(size_t count)
{
    float *data = calloc(count, sizeof *data);
    kolo_status status = KOLO_OK;
    for (int i = 0; i < 1000000 && status == KOLO_OK; i++)
        status = kolo_allreduce(comm, data, data, count, KOLO_FP32, KOLO_SUM, NULL);
    free(data);
    return status;
}

/* ---- a rank dies --------------------------------------------------------------------------- */

static int rank_2_is_killed(void)
{
    struct timespec start;
    CHECK(join() == 0);
    CHECK(kolo_barrier(comm) == KOLO_OK);
    if (rank == 2) {
        usleep(200000);
        kill(getpid(), SIGKILL);
    }
    clock_gettime(CLOCK_MONOTONIC, &start);
    CHECK(reduce_until_failure(100000) == KOLO_ERR_PEER_LOST);
    CHECK(seconds_since(&start) < LOST_WITHIN_S);
    CHECK(error_says("rank 2") && error_says("signal 9"));
    CHECK(kolo_barrier(comm) == KOLO_ERR_PEER_LOST); /* poisoned, at once */
    CHECK(kolo_finalize(context) == KOLO_ERR_PEER_LOST);
    return 0;
}

static int rank_2_is_killed_while_others_sleep(void)
{
    struct timespec start;
    CHECK(join() == 0);
    if (rank == 2) {
        usleep(300000); /* the others wait in a barrier, asleep */
        kill(getpid(), SIGKILL);
    }
    clock_gettime(CLOCK_MONOTONIC, &start);
    CHECK(kolo_barrier(comm) == KOLO_ERR_PEER_LOST);
    CHECK(seconds_since(&start) < LOST_WITHIN_S);
    CHECK(error_says("rank 2"));
    kolo_finalize(context);
    return 0;
}

static int rank_1_leaves_without_finalize(void)
{
    CHECK(join() == 0);
    if (rank == 1)
        _exit(0);
    CHECK(kolo_barrier(comm) == KOLO_ERR_PEER_LOST);
    CHECK(error_says("rank 1") && error_says("without kolo_finalize"));
    kolo_finalize(context);
    return 0;
}

static int rank_1_never_joins(void)
{
    if (world_rank() == 1)
        _exit(3);
    CHECK(kolo_init(NULL, &context) == KOLO_ERR_PEER_LOST);
    CHECK(error_says("rank 1") && error_says("code 3"));
    return 0;
}

static const char *const *const transports[] = {
    (const char *const[]){"KOLO_TRANSPORT=shm", NULL},
    (const char *const[]){"KOLO_TRANSPORT=tcp", NULL},
};

static void expect_killed(int (*rank_main)(void), int victim, int ranks)
{
    for (int t = 0; t < 2; t++) {
        struct world_result result = world_run(ranks, transports[t], rank_main);
        assert_true(WIFSIGNALED(result.status[victim]));
        result.status[victim] = 0;
        world_assert_all_passed(&result, ranks);
    }
}

static void test_killed_rank_is_named(void **state)
{
    (void)state;
    expect_killed(rank_2_is_killed, 2, 4);
    expect_killed(rank_2_is_killed_while_others_sleep, 2, 4);
}

static void test_rank_that_leaves_is_named(void **state)
{
    (void)state;
    for (int t = 0; t < 2; t++) {
        struct world_result result = world_run(3, transports[t], rank_1_leaves_without_finalize);
        world_assert_all_passed(&result, 3);
    }
    struct world_result result = world_run(3, NULL, rank_1_never_joins);
    assert_int_equal(WEXITSTATUS(result.status[1]), 3);
    result.status[1] = 0;
    world_assert_all_passed(&result, 3);
}

/* ---- ranks disagree ------------------------------------------------------------------------ */

static float data[64], other[1024];

static int differ_in_count(void)
{
    CHECK(join() == 0);
    size_t count = rank == 1 ? 11 : 10;
    CHECK(kolo_allreduce(comm, data, data, count, KOLO_FP32, KOLO_SUM, NULL) == KOLO_ERR_MISMATCH);
    CHECK(error_says("10 x fp32") && error_says("11 x fp32"));
    kolo_finalize(context);
    return 0;
}

static int differ_in_dtype(void)
{
    CHECK(join() == 0);
    kolo_dtype dtype = rank == 0 ? KOLO_INT32 : KOLO_FP32;
    CHECK(kolo_allreduce(comm, data, data, 10, dtype, KOLO_SUM, NULL) == KOLO_ERR_MISMATCH);
    CHECK(error_says("int32") && error_says("fp32"));
    kolo_finalize(context);
    return 0;
}

static int differ_in_op(void)
{
    CHECK(join() == 0);
    kolo_op op = rank == 2 ? KOLO_MAX : KOLO_SUM;
    CHECK(kolo_allreduce(comm, data, data, 10, KOLO_FP32, op, NULL) == KOLO_ERR_MISMATCH);
    CHECK(error_says("max") && error_says("sum"));
    kolo_finalize(context);
    return 0;
}

static int one_has_nothing(void)
{
    CHECK(join() == 0);
    size_t count = rank == 0 ? 0 : 10;
    kolo_status status = kolo_allreduce(comm, data, data, count, KOLO_FP32, KOLO_SUM, NULL);
    CHECK(status == KOLO_ERR_MISMATCH);
    kolo_finalize(context);
    return 0;
}

static int differ_in_collective(void)
{
    CHECK(join() == 0);
    kolo_status status = rank == 1
                             ? kolo_allgather(comm, data, other, 10, KOLO_FP32, NULL)
                             : kolo_allreduce(comm, data, data, 10, KOLO_FP32, KOLO_SUM, NULL);
    CHECK(status == KOLO_ERR_MISMATCH);
    CHECK(error_says("allgather") && error_says("allreduce"));
    kolo_finalize(context);
    return 0;
}

/* Everybody believes to be the receiver or the sender: no header ever meets the wrong one. */
static int differ_in_root(void)
{
    CHECK(join() == 0);
    kolo_status status = kolo_reduce(comm, data, other, 10, KOLO_FP32, KOLO_SUM, rank, NULL);
    if (status == KOLO_OK)
        status = kolo_barrier(comm);
    CHECK(status == KOLO_ERR_MISMATCH);
    CHECK(error_says("root 0") || error_says("root 1") || error_says("root 2"));
    kolo_finalize(context);
    return 0;
}

static void test_mismatch_shows_both_sides(void **state)
{
    (void)state;
    static int (*const cases[])(void) = {differ_in_count, differ_in_dtype,      differ_in_op,
                                         one_has_nothing, differ_in_collective, differ_in_root};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (int t = 0; t < 2; t++) {
            struct world_result result = world_run(3, transports[t], cases[c]);
            world_assert_all_passed(&result, 3);
        }
}

static int differ_in_transport(void)
{
    setenv("KOLO_TRANSPORT", world_rank() == 0 ? "tcp" : "auto", 1);
    CHECK(kolo_init(NULL, &context) == KOLO_ERR_CONFIG);
    CHECK(error_says("KOLO_TRANSPORT"));
    return 0;
}

/* ---- waiting has an end --------------------------------------------------------------------- */

static int rank_0_computes_for_ever(void)
{
    CHECK(join() == 0);
    if (rank == 0) {
        sleep(4);
        CHECK(kolo_barrier(comm) == KOLO_ERR_TIMEOUT);
    } else {
        CHECK(kolo_barrier(comm) == KOLO_ERR_TIMEOUT);
        CHECK(error_says("barrier #1"));
    }
    kolo_finalize(context);
    return 0;
}

static int rank_0_is_slow_but_in_time(void)
{
    CHECK(join() == 0);
    if (rank == 0)
        sleep(3);
    CHECK(kolo_barrier(comm) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static int rank_1_is_missing(void)
{
    if (world_rank() == 1) {
        sleep(3);
        return 0;
    }
    if (world_rank() == 2)
        usleep(500000); /* it hears the reason from rank 0, which gives up first */
    CHECK(kolo_init(NULL, &context) == KOLO_ERR_TIMEOUT);
    CHECK(error_says("missing: 1"));
    return 0;
}

/* Rank 0 is the first to lose patience. Rank 2 is told why, not just that rank 0 went away. */
static int rank_0_gives_up_first(void)
{
    struct timespec start;
    if (world_rank() == 1) {
        sleep(3);
        return 0;
    }
    setenv("KOLO_INIT_TIMEOUT", world_rank() == 0 ? "1" : "30", 1);
    clock_gettime(CLOCK_MONOTONIC, &start);
    CHECK(kolo_init(NULL, &context) == KOLO_ERR_TIMEOUT);
    CHECK(error_says("missing: 1"));
    CHECK(seconds_since(&start) < 20);
    return 0;
}

static void test_waiting_ends(void **state)
{
    (void)state;
    for (int t = 0; t < 2; t++) {
        const char *const environment[] = {transports[t][0], "KOLO_TIMEOUT=2", NULL};
        struct world_result result = world_run(3, environment, rank_0_computes_for_ever);
        world_assert_all_passed(&result, 3);
        result = world_run(3, transports[t], rank_0_is_slow_but_in_time);
        world_assert_all_passed(&result, 3);
    }
    struct world_result result =
        world_run(3, (const char *const[]){"KOLO_INIT_TIMEOUT=1", NULL}, rank_1_is_missing);
    world_assert_all_passed(&result, 3);
    result = world_run(3, NULL, rank_0_gives_up_first);
    world_assert_all_passed(&result, 3);
}

static int rank_1_aborts(void)
{
    CHECK(join() == 0);
    if (rank == 1) {
        usleep(100000);
        CHECK(kolo_comm_abort(comm, "the loss is NaN") == KOLO_OK);
    }
    CHECK(reduce_until_failure(1000) == KOLO_ERR_ABORTED);
    CHECK(error_says("the loss is NaN") && error_says("rank 1"));
    CHECK(kolo_finalize(context) == KOLO_ERR_ABORTED);
    return 0;
}

static void test_abort_reaches_everybody(void **state)
{
    (void)state;
    for (int t = 0; t < 2; t++) {
        struct world_result result = world_run(3, transports[t], rank_1_aborts);
        world_assert_all_passed(&result, 3);
    }
}

/* ---- bad configuration ---------------------------------------------------------------------- */

static int unknown_variable(void)
{
    CHECK(kolo_init(NULL, &context) == KOLO_ERR_CONFIG);
    CHECK(error_says("KOLO_TRANSPROT") && error_says("KOLO_TRANSPORT"));
    return 0;
}

static int rank_1_has_another_token(void)
{
    if (world_rank() == 1) {
        setenv("KOLO_TOKEN", "the token of another job", 1);
        CHECK(kolo_init(NULL, &context) == KOLO_ERR_NETWORK);
        CHECK(error_says("token"));
        return 0;
    }
    CHECK(kolo_init(NULL, &context) == KOLO_ERR_PEER_LOST); /* rank 1 ended */
    return 0;
}

static int all_are_rank_0(void)
{
    setenv("KOLO_RANK", "0", 1);
    kolo_status status = kolo_init(NULL, &context);
    /* one of them joins, and misses rank 1 */
    CHECK(status == KOLO_ERR_WORLD || status == KOLO_ERR_PEER_LOST || status == KOLO_ERR_TIMEOUT);
    CHECK(error_says(status == KOLO_ERR_WORLD ? "joined already" : "1"));
    return 0;
}

static void test_bad_configuration_is_explained(void **state)
{
    (void)state;
    struct world_result result =
        world_run(2, (const char *const[]){"KOLO_TRANSPROT=tcp", NULL}, unknown_variable);
    world_assert_all_passed(&result, 2);
    result = world_run(2, NULL, rank_1_has_another_token);
    world_assert_all_passed(&result, 2);
    result = world_run(2, (const char *const[]){"KOLO_INIT_TIMEOUT=2", NULL}, all_are_rank_0);
    world_assert_all_passed(&result, 2);
    result = world_run(2, NULL, differ_in_transport);
    world_assert_all_passed(&result, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed_rank_is_named),
        cmocka_unit_test(test_rank_that_leaves_is_named),
        cmocka_unit_test(test_mismatch_shows_both_sides),
        cmocka_unit_test(test_waiting_ends),
        cmocka_unit_test(test_abort_reaches_everybody),
        cmocka_unit_test(test_bad_configuration_is_explained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
