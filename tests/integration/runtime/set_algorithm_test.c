/* SPDX-License-Identifier: Apache-2.0 */
/* One algorithm for all collectives of a communicator. Which one ran shows where ranks disagree:
 * the error names both. */
#include "member.h"

#include <setjmp.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

static float data[64];

static kolo_status sum(const kolo_call_options *options)
{
    for (int i = 0; i < 64; i++)
        data[i] = (float)rank;
    return kolo_allreduce(comm, data, data, 64, KOLO_FP32, KOLO_SUM, options);
}

static bool is_sum(void)
{
    for (int i = 0; i < 64; i++)
        if (data[i] != 3)
            return false;
    return true;
}

static int all_ranks_alike(void)
{
    CHECK(join() == 0);
    kolo_call_options own = {.size = sizeof own, .algorithm = "recursive_doubling"};
    const char *const names[] = {"ring", "pairwise", "ring", "tree", "", NULL};
    for (int i = 0; i < 6; i++) { /* tree cannot do an allreduce: it is left aside */
        CHECK(kolo_comm_set_algorithm(comm, names[i]) == KOLO_OK);
        CHECK(sum(NULL) == KOLO_OK && is_sum());
        CHECK(sum(&own) == KOLO_OK && is_sum());
    }
    CHECK(kolo_comm_set_algorithm(comm, "bogosort") == KOLO_ERR_INVALID);
    CHECK(strstr(kolo_error_text(), "no algorithm 'bogosort'") != NULL);
    CHECK(kolo_comm_set_algorithm(NULL, "ring") == KOLO_ERR_INVALID);
    kolo_request *request;
    CHECK(kolo_allreduce_start(comm, data, data, 64, KOLO_FP32, KOLO_SUM, NULL, &request) ==
          KOLO_OK);
    /* Done or not: it is pending until it was waited for. */
    CHECK(kolo_comm_set_algorithm(comm, "ring") == KOLO_ERR_INVALID);
    CHECK(strstr(kolo_error_text(), "requests are pending") != NULL);
    CHECK(kolo_wait(&request, -1) == KOLO_OK);
    CHECK(kolo_comm_set_algorithm(comm, NULL) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static int one_rank_differs(void)
{
    CHECK(join() == 0);
    /* A plan that must not be used again. Whoever is late with it hears already what became of the
     * next. */
    kolo_status first = sum(NULL);
    CHECK((first == KOLO_OK && is_sum()) || first == KOLO_ERR_MISMATCH);
    CHECK(kolo_comm_set_algorithm(comm, rank == 1 ? "ring" : "recursive_doubling") == KOLO_OK);
    CHECK(sum(NULL) == KOLO_ERR_MISMATCH);
    CHECK(strstr(kolo_error_text(), "ring") != NULL);
    CHECK(strstr(kolo_error_text(), "recursive_doubling") != NULL);
    CHECK(kolo_finalize(context) == KOLO_ERR_MISMATCH);
    return 0;
}

static void test_every_collective_uses_it(void **state)
{
    (void)state;
    world_run_over_both(3, "KOLO_TIMEOUT=30", all_ranks_alike);
}

static void test_ranks_that_differ_are_told(void **state)
{
    (void)state;
    world_run_over_both(3, "KOLO_TIMEOUT=30", one_rank_differs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_collective_uses_it),
        cmocka_unit_test(test_ranks_that_differ_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
