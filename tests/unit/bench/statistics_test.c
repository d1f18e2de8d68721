/* SPDX-License-Identifier: Apache-2.0 */
/* Percentiles by nearest rank, on cases worked out by hand. */
#include "bench/statistics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static void assert_percentile(const double *sorted, size_t count, double percent, double expected)
{
    double got = bench_percentile(sorted, count, percent);
    if (got != expected)
        fail_msg("%g %% of %zu values: %g, expected %g", percent, count, got, expected);
}

static void one_value_is_every_percentile(void **state)
{
    (void)state;
    double values[] = {7};
    assert_percentile(values, 1, 1, 7);
    assert_percentile(values, 1, 50, 7);
    assert_percentile(values, 1, 99, 7);
}

/* The example that textbooks use for the method. */
static void five_values(void **state)
{
    (void)state;
    double values[] = {50, 15, 40, 20, 35};
    bench_sort(values, 5);
    assert_percentile(values, 5, 5, 15);
    assert_percentile(values, 5, 30, 20);
    assert_percentile(values, 5, 40, 20);
    assert_percentile(values, 5, 50, 35);
    assert_percentile(values, 5, 100, 50);
}

static void even_count_takes_the_lower_middle(void **state)
{
    (void)state;
    double values[] = {1, 2, 3, 4};
    assert_percentile(values, 4, 50, 2);
    assert_percentile(values, 4, 51, 3);
}

static void hundred_and_more_values(void **state)
{
    (void)state;
    double values[201];
    for (int i = 0; i < 201; i++)
        values[i] = 201 - i;
    bench_sort(values, 201);
    assert_percentile(values, 100, 99, 99);
    assert_percentile(values, 101, 99, 100);
    assert_percentile(values, 201, 50, 101);
    assert_percentile(values, 201, 99, 199);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_value_is_every_percentile),
        cmocka_unit_test(five_values),
        cmocka_unit_test(even_count_takes_the_lower_middle),
        cmocka_unit_test(hundred_and_more_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
