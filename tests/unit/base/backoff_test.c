/* SPDX-License-Identifier: Apache-2.0 */
/* Pauses between attempts: how long, how they grow and differ, and that the last one leaves time.
 */
#include "base/backoff.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static void test_they_grow(void **state)
{
    (void)state;
    static const long most[] = {50, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000};
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct kolo__backoff backoff = {.pause_ms = 50, .random = {seed}};
        for (size_t i = 0; i < sizeof most / sizeof *most; i++) {
            long pause_ms = kolo__backoff_next_ms(&backoff, 1000000);
            assert_in_range(pause_ms, most[i] / 2, most[i]);
        }
    }
}

static void test_they_differ(void **state)
{
    (void)state;
    struct kolo__backoff a = {.pause_ms = 5000, .random = {1}};
    struct kolo__backoff b = {.pause_ms = 5000, .random = {2}};
    assert_int_not_equal(kolo__backoff_next_ms(&a, 1000000), kolo__backoff_next_ms(&b, 1000000));
}

static void test_the_last_one_is_short(void **state)
{
    (void)state;
    for (uint64_t left_ms = 0; left_ms < 3000; left_ms++) {
        struct kolo__backoff backoff = {.pause_ms = 5000, .random = {left_ms}};
        long expected =
            left_ms > KOLO__BACKOFF_ATTEMPT_MS ? (long)left_ms - KOLO__BACKOFF_ATTEMPT_MS : -1;
        long pause_ms = kolo__backoff_next_ms(&backoff, left_ms);
        if (left_ms < 2500 + KOLO__BACKOFF_ATTEMPT_MS)
            assert_int_equal(pause_ms, expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_they_grow),
        cmocka_unit_test(test_they_differ),
        cmocka_unit_test(test_the_last_one_is_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
