/* SPDX-License-Identifier: Apache-2.0 */
/* Errors name the call that failed, and say the same of each rank on all of them. */
#include "member.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>
#include <unistd.h>

static float data[64];

static int says(const char *what)
{
    return strstr(kolo_error_text(), what) != NULL;
}

static int begins(const char *what)
{
    return strncmp(kolo_error_text(), what, strlen(what)) == 0;
}

static const char *const *const transports[] = {
    (const char *const[]){"KOLO_TRANSPORT=shm", NULL},
    (const char *const[]){"KOLO_TRANSPORT=tcp", NULL},
};

static void run_on_both(int (*rank_main)(void))
{
    for (int t = 0; t < 2; t++) {
        struct world_result result = world_run(2, transports[t], rank_main);
        world_assert_all_passed(&result, 2);
    }
}

/* Rank 1 computes for ever. Rank 0 gives up, and rank 1 hears of it in a call of its own. */
static int other_ranks_timeout(void)
{
    CHECK(join() == 0);
    if (rank == 1)
        sleep(4);
    kolo_status status = rank == 1 ? kolo_barrier(comm) : kolo_recv(comm, data, 9, KOLO_FP32, 1);
    CHECK(status == KOLO_ERR_TIMEOUT);
    CHECK(begins(rank == 1 ? "kolo_barrier on rank 1 (host " : "kolo_recv on rank 0 (host "));
    CHECK(says("): rank 0 reported: send/recv #1 (9 x fp32) did not finish") == (rank == 1));
    CHECK(says("): send/recv #1 (9 x fp32) did not finish") == (rank == 0));
    kolo_finalize(context);
    return 0;
}

static void test_timeout_of_another_rank(void **state)
{
    (void)state;
    for (int t = 0; t < 2; t++) {
        const char *const environment[] = {transports[t][0], "KOLO_TIMEOUT=2", NULL};
        struct world_result result = world_run(2, environment, other_ranks_timeout);
        world_assert_all_passed(&result, 2);
    }
}

static int two_counts(void)
{
    CHECK(join() == 0);
    size_t count = rank == 0 ? 10 : 11;
    CHECK(kolo_allreduce(comm, data, data, count, KOLO_FP32, KOLO_SUM, NULL) == KOLO_ERR_MISMATCH);
    const char *of_0 = strstr(kolo_error_text() + strlen("kolo_allreduce on rank 0"), "rank 0 (");
    const char *of_1 = strstr(kolo_error_text() + strlen("kolo_allreduce on rank 0"), "rank 1 (");
    CHECK(of_0 != NULL && of_1 != NULL && !says("this rank"));
    /* What is said of a rank stands behind its name, before the other's. */
    const char *ten = strstr(of_0, "10 x fp32"), *eleven = strstr(of_1, "11 x fp32");
    CHECK(ten != NULL && eleven != NULL);
    CHECK(of_0 < of_1 ? ten < of_1 : eleven < of_0);
    kolo_finalize(context);
    return 0;
}

static void test_mismatch_reads_the_same_everywhere(void **state)
{
    (void)state;
    run_on_both(two_counts);
}

static int split_against_barrier(void)
{
    kolo_comm *half;
    CHECK(join() == 0);
    kolo_status status = rank == 0 ? kolo_barrier(comm) : kolo_comm_split(comm, 0, 0, &half);
    CHECK(status == KOLO_ERR_MISMATCH);
    CHECK(begins(rank == 0 ? "kolo_barrier on rank 0" : "kolo_comm_split on rank 1"));
    kolo_finalize(context);
    return 0;
}

static int finalize_against_allreduce(void)
{
    CHECK(join() == 0);
    kolo_status status = rank == 0
                             ? kolo_finalize(context)
                             : kolo_allreduce(comm, data, data, 10, KOLO_FP32, KOLO_SUM, NULL);
    CHECK(status == KOLO_ERR_MISMATCH);
    CHECK(begins(rank == 0 ? "kolo_finalize on rank 0" : "kolo_allreduce on rank 1"));
    if (rank == 1)
        kolo_finalize(context);
    return 0;
}

static void test_the_call_is_named(void **state)
{
    (void)state;
    run_on_both(split_against_barrier);
    run_on_both(finalize_against_allreduce);
}

static int abort_with_control_characters(void)
{
    CHECK(join() == 0);
    if (rank == 1) {
        usleep(100000);
        CHECK(kolo_comm_abort(comm, "no\nmore\033[2J") == KOLO_OK);
    }
    CHECK(kolo_barrier(comm) == KOLO_ERR_ABORTED);
    CHECK(says("aborted: no?more?[2J"));
    kolo_finalize(context);
    return 0;
}

static void test_reason_is_cleaned_everywhere(void **state)
{
    (void)state;
    run_on_both(abort_with_control_characters);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timeout_of_another_rank),
        cmocka_unit_test(test_mismatch_reads_the_same_everywhere),
        cmocka_unit_test(test_the_call_is_named),
        cmocka_unit_test(test_reason_is_cleaned_everywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
