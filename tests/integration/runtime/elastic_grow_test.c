/* SPDX-License-Identifier: Apache-2.0 */
/* Newcomers, ranks that leave, and what may be wrong with a renewal. */
#include "elastic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <sys/wait.h>

/* ---- grow ------------------------------------------------------------------------------------ */

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
            die_behind_all();
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
        CHECK(error_has("KOLO_TRANSPORT is tcp in this world, and auto"));
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
    expect_on(elastic_ways[1], 2, 1, (int[]){-1}, newcomer_differs);
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
    CHECK(error_has("fewer than 3 ranks") && error_has("rank 2 "));
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
    CHECK(kolo_renew(context, &options) == KOLO_ERR_INVALID && error_has("options->size"));
    options = (kolo_renew_options){.size = sizeof options, .timeout_ms = -1};
    CHECK(kolo_renew(context, &options) == KOLO_ERR_INVALID && error_has("timeout_ms"));
    CHECK(kolo_barrier(comm) == KOLO_OK); /* nothing was begun */
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_errors(void **state)
{
    (void)state;
    for (int w = 0; w < 2; w++) {
        struct world_result result = world_run_elastic(3, 0, 3, elastic_ways[w], too_few_are_left);
        assert_true(WIFSIGNALED(result.status[2]));
        result.status[2] = 0;
        world_assert_all_passed(&result, 3);
    }
    expect(3, 0, (int[]){-1}, one_renews_alone);
    expect_on(elastic_ways[0], 2, 0, (int[]){-1}, arguments_are_checked);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_newcomers_join),
        cmocka_unit_test(test_errors),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
