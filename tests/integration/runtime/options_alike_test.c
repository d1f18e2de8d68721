/* SPDX-License-Identifier: Apache-2.0 */
/* Options that must be the same on every rank, set on one alone: no rank joins, and each is told
 * which option it is. */
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const OPTIONS[][2] = {
    {"KOLO_TRANSPORT", "tcp"}, {"KOLO_DETERMINISTIC", "1"}, {"KOLO_TIMELINE", "timeline.json"},
    {"KOLO_ENCRYPT", "1"},     {"KOLO_CHECKSUM", "1"},      {"KOLO_STREAMS", "2"},
    {"KOLO_ALGORITHM", "mpi"}, {"KOLO_ALGORITHM", "ring"},  {"KOLO_SEGMENT_BYTES", "64K"},
};
static const char *const *option;

static int rank_that_differs(void)
{
    kolo_context *context;
    char expected[64];
    if (world_rank() == 1)
        setenv(option[0], option[1], 1);
    CHECK(kolo_init(NULL, &context) == KOLO_ERR_CONFIG);
    snprintf(expected, sizeof expected, "%s is ", option[0]);
    CHECK(strstr(kolo_error_text(), expected) != NULL);
    CHECK(strstr(kolo_error_text(), "set it alike everywhere") != NULL);
    return 0;
}

static void test_one_rank_differs(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof OPTIONS / sizeof *OPTIONS; i++) {
        option = OPTIONS[i];
        struct world_result result = world_run(3, NULL, rank_that_differs);
        world_assert_all_passed(&result, 3);
    }
}

/* Names are compared by their beginnings: what ranks tell each other has a limit. */
static int rank_with_a_long_name(void)
{
    kolo_context *context;
    char name[1000];
    memset(name, 'a', sizeof name);
    name[sizeof name - 1] = '\0';
    setenv("KOLO_ALGORITHM", name, 1);
    CHECK(kolo_init(NULL, &context) == KOLO_OK);
    CHECK(kolo_barrier(kolo_world(context)) == KOLO_ERR_CONFIG);
    CHECK(strstr(kolo_error_text(), "there is no algorithm 'aaa") != NULL);
    kolo_finalize(context);
    return 0;
}

static void test_a_long_name(void **state)
{
    (void)state;
    struct world_result result = world_run(2, NULL, rank_with_a_long_name);
    world_assert_all_passed(&result, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_rank_differs),
        cmocka_unit_test(test_a_long_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
