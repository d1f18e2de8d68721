/* SPDX-License-Identifier: Apache-2.0 */
/* When a host counts as vanished, by a clock of its own. */
#include "base/silence.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static const uint64_t S = 1000000000;
enum { LIMIT_S = 8 };

/* At this second; the last answer came so many seconds before. */
static bool look(struct kolo__silence *silence, uint64_t at_s, bool unanswered, uint64_t ago_s)
{
    return kolo__silence_judge(silence, unanswered, ago_s * S, LIMIT_S, at_s * S);
}

static void test_silence_is_found_in_time(void **state)
{
    (void)state;
    struct kolo__silence silence = {0};
    assert_false(look(&silence, 100, true, 0));
    for (uint64_t s = 1; s < LIMIT_S; s++)
        assert_false(look(&silence, 100 + s, true, s));
    assert_true(look(&silence, 100 + LIMIT_S, true, LIMIT_S));
}

static void test_an_answer_begins_anew(void **state)
{
    (void)state;
    struct kolo__silence silence = {0};
    for (uint64_t s = 0; s < 100; s++)
        assert_false(look(&silence, 100 + s, s % 7 != 6, 1));
    /* Unanswered in every look, but by something sent after an answer between two of them. */
    for (uint64_t s = 100; s < 200; s++)
        assert_false(look(&silence, 100 + s, true, 1));
}

static void test_idle_for_long_is_not_silent(void **state)
{
    (void)state;
    struct kolo__silence silence = {0};
    for (uint64_t s = 0; s < 100; s++)
        assert_false(look(&silence, 100 + s, false, s));
    assert_false(look(&silence, 200, true, 100));
    assert_false(look(&silence, 201, false, 0));
}

static void test_who_computed_begins_anew(void **state)
{
    (void)state;
    struct kolo__silence silence = {0};
    assert_false(look(&silence, 100, true, 0));
    assert_false(look(&silence, 1000, true, 899));
    assert_false(look(&silence, 1001, true, 900));
    for (uint64_t s = 2; s < LIMIT_S; s++)
        assert_false(look(&silence, 1000 + s, true, 899 + s));
    assert_true(look(&silence, 1000 + LIMIT_S, true, 899 + LIMIT_S));
}

static void test_seconds(void **state)
{
    (void)state;
    assert_int_equal(kolo__silence_seconds(0, 1), 5);
    assert_int_equal(kolo__silence_seconds(0, 300), 30);
    assert_int_equal(kolo__silence_seconds(0, 1000000), 3600);
    assert_int_equal(kolo__silence_seconds(7, 300), 7);
    assert_true(kolo__silence_is_errno(ETIMEDOUT));
    assert_false(kolo__silence_is_errno(ECONNRESET));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_silence_is_found_in_time),
        cmocka_unit_test(test_an_answer_begins_anew),
        cmocka_unit_test(test_idle_for_long_is_not_silent),
        cmocka_unit_test(test_who_computed_begins_anew),
        cmocka_unit_test(test_seconds),
    };
    return cmocka_run_group_tests_name("silence", tests, NULL, NULL);
}
