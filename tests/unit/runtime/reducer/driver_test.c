/* SPDX-License-Identifier: Apache-2.0 */
/* Which steps of a sequence are offered to the progress thread. */
#include "runtime/reducer/reducer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

enum { FIRST_NS = 1000000 };

/* steps: 'l' a long one, 's' a short one, 'n' one in which nothing was ready. offered: '1' where
 * the step after it is offered. */
static void expect(const char *steps, const char *offered)
{
    bool was_long = false;
    for (size_t i = 0; steps[i] != '\0'; i++) {
        uint64_t first = steps[i] == 'n' ? 0 : FIRST_NS;
        uint64_t entered = FIRST_NS + (steps[i] == 's' ? 20000 : 5000000);
        assert_int_equal(kolo__driver_pays(&was_long, first, entered), offered[i] == '1');
    }
}

/* A training loop's steps are alike: those after the first one are hidden, all of them. */
static void one_long_step_is_enough(void **state)
{
    (void)state;
    expect("llll", "1111");
    expect("slll", "0111");
}

static void two_short_steps_end_it(void **state)
{
    (void)state;
    expect("lsss", "1100");
    expect("lssl", "1101");
}

/* Whichever comes first. */
static void long_steps_are_hidden_between_short_ones(void **state)
{
    (void)state;
    expect("slslsl", "011111");
    expect("lslsls", "111111");
}

static void short_steps_are_the_callers(void **state)
{
    (void)state;
    expect("ssss", "0000");
    expect("nnn", "000");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_long_step_is_enough),
        cmocka_unit_test(two_short_steps_end_it),
        cmocka_unit_test(long_steps_are_hidden_between_short_ones),
        cmocka_unit_test(short_steps_are_the_callers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
