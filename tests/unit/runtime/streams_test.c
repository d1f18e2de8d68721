/* SPDX-License-Identifier: Apache-2.0 */
/* What is made of the measured rates of a few connections and of several. */
#include "runtime/streams.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static void test_several_must_be_clearly_faster(void **state)
{
    (void)state;
    const uint64_t rate = 200000000;
    assert_int_equal(kolo__streams_choose(rate, 4 * rate), 4);
    assert_int_equal(kolo__streams_choose(rate, rate / 10 * 16), 4);
    assert_int_equal(kolo__streams_choose(rate, rate / 10 * 14), 1);
    assert_int_equal(kolo__streams_choose(rate, rate), 1);
    assert_int_equal(kolo__streams_choose(rate, rate / 4), 1);
}

static void test_what_was_not_measured_decides_nothing(void **state)
{
    (void)state;
    assert_int_equal(kolo__streams_choose(200000000, 0), 1);
    assert_int_equal(kolo__streams_choose(0, 200000000), 1);
    assert_int_equal(kolo__streams_choose(0, 0), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_several_must_be_clearly_faster),
        cmocka_unit_test(test_what_was_not_measured_decides_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
