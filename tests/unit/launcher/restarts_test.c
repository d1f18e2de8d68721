/* SPDX-License-Identifier: Apache-2.0 */
/* How often and when ranks are started again, and where they are not. */
#include "launcher/cooldown.h"
#include "launcher/restarts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const uint64_t SECOND = 1000000000, START = 5000000000;

static void test_pause_grows_by_rank(void **state)
{
    static const uint64_t pauses_s[] = {1, 2, 4, 8, 16, 30, 30};
    struct kolo__restarts restarts;
    (void)state;
    assert_true(kolo__restarts_open(&restarts, 3, 8));
    uint64_t now_ns = START;
    for (size_t i = 0; i < sizeof pauses_s / sizeof *pauses_s; i++) {
        assert_true(kolo__restarts_plan(&restarts, 2, true, now_ns));
        assert_true(kolo__restarts_is_planned(&restarts, 2));
        now_ns += pauses_s[i] * SECOND;
        assert_int_equal(now_ns, kolo__restarts_next_ns(&restarts));
        assert_int_equal(-1, kolo__restarts_take(&restarts, now_ns - 1));
        assert_int_equal(2, kolo__restarts_take(&restarts, now_ns));
        assert_int_equal(0, kolo__restarts_next_ns(&restarts));
    }
    assert_true(kolo__restarts_plan(&restarts, 0, true, now_ns));
    assert_int_equal(now_ns + SECOND, kolo__restarts_next_ns(&restarts));
    kolo__restarts_close(&restarts);
}

static void test_limit_is_of_all(void **state)
{
    struct kolo__restarts restarts;
    (void)state;
    assert_true(kolo__restarts_open(&restarts, 3, 2));
    assert_true(kolo__restarts_plan(&restarts, 0, true, START));
    assert_true(kolo__restarts_plan(&restarts, 1, true, START));
    assert_int_equal(2, restarts.planned);
    assert_false(kolo__restarts_plan(&restarts, 2, true, START));
    kolo__restarts_drop(&restarts, 1);
    assert_int_equal(1, restarts.planned);
    assert_true(kolo__restarts_plan(&restarts, 2, true, START));
    kolo__restarts_close(&restarts);
}

static void test_departures_do_not_count(void **state)
{
    struct kolo__restarts restarts;
    (void)state;
    assert_true(kolo__restarts_open(&restarts, 2, 1));
    assert_true(kolo__restarts_plan(&restarts, 0, false, START));
    kolo__restarts_drop(&restarts, 0);
    assert_true(kolo__restarts_plan(&restarts, 0, false, START));
    assert_true(kolo__restarts_plan(&restarts, 1, true, START));
    assert_int_equal(2, restarts.planned);
    assert_int_equal(1, restarts.used);
    assert_int_equal(0, kolo__restarts_take(&restarts, START + 30 * SECOND));
    assert_true(kolo__restarts_plan(&restarts, 0, false, START));
    assert_int_equal(1, restarts.used);
    kolo__restarts_close(&restarts);
    assert_true(kolo__restarts_open(&restarts, 1, 0)); /* without --restarts */
    assert_false(kolo__restarts_plan(&restarts, 0, false, START));
    kolo__restarts_close(&restarts);
}

static void test_postponed_counts_once(void **state)
{
    struct kolo__restarts restarts;
    (void)state;
    assert_true(kolo__restarts_open(&restarts, 1, 1));
    assert_true(kolo__restarts_plan(&restarts, 0, true, START));
    assert_int_equal(0, kolo__restarts_take(&restarts, START + SECOND));
    kolo__restarts_postpone(&restarts, 0, START + 9 * SECOND);
    assert_int_equal(1, restarts.planned);
    assert_int_equal(1, restarts.used);
    assert_int_equal(-1, kolo__restarts_take(&restarts, START + 8 * SECOND));
    assert_int_equal(0, kolo__restarts_take(&restarts, START + 9 * SECOND));
    assert_int_equal(0, restarts.planned);
    kolo__restarts_close(&restarts);
}

static void test_cooldown(void **state)
{
    static const uint64_t pauses_s[] = {30, 60, 120, 240, 480, 600, 600};
    struct kolo__cooldown cooldown = {0};
    (void)state;
    uint64_t now_ns = START;
    for (size_t i = 0; i < sizeof pauses_s / sizeof *pauses_s; i++) {
        assert_false(kolo__cooldown_note(&cooldown, now_ns));
        now_ns += 60 * SECOND;
        assert_true(kolo__cooldown_note(&cooldown, now_ns));
        assert_int_equal(now_ns + pauses_s[i] * SECOND, cooldown.until_ns);
        assert_false(
            kolo__cooldown_note(&cooldown, cooldown.until_ns - 1)); /* counts for nothing */
        now_ns = cooldown.until_ns;
    }
    assert_false(kolo__cooldown_note(&cooldown, now_ns));
    assert_false(kolo__cooldown_note(&cooldown, now_ns + 61 * SECOND)); /* too long ago */
}

static void test_away(void **state)
{
    static const uint64_t pauses_s[] = {5, 10, 20, 40, 80, 160, 320, 600, 600};
    struct kolo__cooldown cooldown = {0};
    (void)state;
    for (size_t i = 0; i < sizeof pauses_s / sizeof *pauses_s; i++) {
        assert_int_equal(pauses_s[i], kolo__cooldown_away(&cooldown, START));
        assert_int_equal(START + pauses_s[i] * SECOND, cooldown.until_ns);
    }
    cooldown.away_s = 0; /* it was reached, and not for long: an older pause may last longer */
    assert_int_equal(600, kolo__cooldown_away(&cooldown, START));
    assert_int_equal(5, cooldown.away_s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pause_grows_by_rank),
        cmocka_unit_test(test_limit_is_of_all),
        cmocka_unit_test(test_departures_do_not_count),
        cmocka_unit_test(test_postponed_counts_once),
        cmocka_unit_test(test_cooldown),
        cmocka_unit_test(test_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
