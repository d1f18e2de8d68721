/* SPDX-License-Identifier: Apache-2.0 */
/* The processor's counter, as nanoseconds. */
#include "base/ticks.h"

#include "base/clock.h"
#include "base/trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static void a_straight_line_through_two_readings(void **state)
{
    (void)state;
    static const struct kolo__ticks_reading readings[2] = {{3000, 500}, {6000, 1500}};
    assert_int_equal(kolo__ticks_to_ns(readings, 3000), 500);
    assert_int_equal(kolo__ticks_to_ns(readings, 4500), 1000);
    assert_int_equal(kolo__ticks_to_ns(readings, 6000), 1500);
    assert_int_equal(kolo__ticks_to_ns(readings, 2400), 300);
    assert_int_equal(kolo__ticks_to_ns(readings, 9000), 2500);
}

/* Days after the machine began, and for days: still to the nanosecond. */
static void large_numbers_stay_exact(void **state)
{
    (void)state;
    const uint64_t day_ns = UINT64_C(86400000000000), day = 3 * day_ns;
    const struct kolo__ticks_reading readings[2] = {{9 * day, 7 * day_ns}, {11 * day, 9 * day_ns}};
    assert_int_equal(kolo__ticks_to_ns(readings, 10 * day), 8 * day_ns);
    assert_int_equal(kolo__ticks_to_ns(readings, 10 * day + 3), 8 * day_ns + 1);
}

static void nothing_is_divided_by_zero(void **state)
{
    (void)state;
    static const struct kolo__ticks_reading readings[2] = {{3000, 500}, {3000, 500}};
    assert_int_equal(kolo__ticks_to_ns(readings, 4000), 500);
}

/* Whatever this machine has, an event lies between looks at the clock around it. */
static void events_are_by_the_clock(void **state)
{
    (void)state;
    enum { SLACK_NS = 1000000 }; /* somebody may come between two readings of one moment */
    struct kolo__trace *trace;
    struct kolo__trace_event event;
    assert_int_equal(kolo__trace_create(1, &trace), KOLO_OK);
    kolo__trace_use_counter(trace);
    uint64_t before = kolo__now_ns(&kolo__real_clock), begin = kolo__trace_now(trace);
    while (kolo__now_ns(&kolo__real_clock) < before + 3 * (uint64_t)SLACK_NS)
        ;
    uint64_t between = kolo__now_ns(&kolo__real_clock);
    kolo__trace_add(trace, KOLO__TRACE_PACK, NULL, 0, 0, begin, kolo__trace_now(trace));
    uint64_t after = kolo__now_ns(&kolo__real_clock);
    kolo__trace_calibrate(trace);
    assert_true(kolo__trace_get(trace, 0, &event));
    uint64_t begin_ns = kolo__trace_ns(trace, event.begin_ticks);
    uint64_t end_ns = kolo__trace_ns(trace, event.end_ticks);
    assert_in_range(begin_ns, before - SLACK_NS, between + SLACK_NS);
    assert_in_range(end_ns, between - SLACK_NS, after + SLACK_NS);
    kolo__trace_free(trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_straight_line_through_two_readings),
        cmocka_unit_test(large_numbers_stay_exact),
        cmocka_unit_test(nothing_is_divided_by_zero),
        cmocka_unit_test(events_are_by_the_clock),
    };
    return cmocka_run_group_tests_name("ticks", tests, NULL, NULL);
}
