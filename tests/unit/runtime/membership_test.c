/* SPDX-License-Identifier: Apache-2.0 */
/* Who belongs to which epoch: cases by hand, then random events, with what always has to hold. */
#include "runtime/membership.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#include "base/random.h"

static struct kolo__membership m;

static void begin(uint32_t size, uint32_t least)
{
    kolo__membership_end(&m);
    assert_true(kolo__membership_begin(&m, size, least));
}

static enum kolo__membership_decision decide(bool time_is_over, uint32_t *id)
{
    return kolo__membership_decide(&m, time_is_over, id);
}

static void expect_nothing(bool time_is_over)
{
    uint32_t id;
    assert_int_equal(decide(time_is_over, &id), KOLO__MEMBERSHIP_NOTHING);
}

/* The next epoch has these, in this order. */
static void expect_form(uint32_t epoch, const uint32_t *ids, uint32_t count)
{
    uint32_t id;
    assert_int_equal(decide(false, &id), KOLO__MEMBERSHIP_FORM);
    assert_int_equal(m.epoch, epoch);
    assert_int_equal(m.count, count);
    for (uint32_t r = 0; r < count; r++) {
        assert_int_equal(m.entries[r].id, ids[r]);
        assert_int_equal(m.entries[r].state, KOLO__MEMBER_ACTIVE);
    }
    expect_nothing(false);
}

static void test_forms_when_all_have_come(void **state)
{
    (void)state;
    begin(4, 1);
    expect_nothing(true); /* nobody wants anything */
    kolo__membership_remove(&m, 1);
    expect_nothing(false);
    assert_true(kolo__membership_come(&m, 3, 0));
    assert_false(kolo__membership_come(&m, 3, 0)); /* twice */
    assert_false(kolo__membership_come(&m, 1, 0)); /* lost */
    assert_false(kolo__membership_come(&m, 2, 1)); /* of another epoch */
    assert_true(kolo__membership_is_forming(&m));
    assert_true(kolo__membership_come(&m, 0, 0));
    expect_nothing(false);
    assert_true(kolo__membership_come(&m, 2, 0));
    expect_form(1, (uint32_t[]){0, 2, 3}, 3);
}

static void test_newcomers_come_last(void **state)
{
    (void)state;
    begin(2, 1);
    assert_true(kolo__membership_arrive(&m, 2));
    assert_true(kolo__membership_arrive(&m, 3));
    assert_true(kolo__membership_arrive(&m, 4));
    kolo__membership_remove(&m, 3);
    expect_nothing(true); /* they wait as long as it takes */
    assert_int_equal(kolo__membership_count(&m, KOLO__MEMBER_WAITING), 2);
    assert_true(kolo__membership_come(&m, 1, 0));
    assert_true(kolo__membership_come(&m, 0, 0));
    expect_form(1, (uint32_t[]){0, 1, 2, 4}, 4);
    for (uint32_t id = 0; id < 5; id++)
        if (id != 3)
            assert_true(kolo__membership_come(&m, id, 1));
    expect_form(2, (uint32_t[]){0, 1, 2, 4}, 4);
}

static void test_late_are_expelled(void **state)
{
    uint32_t id;
    (void)state;
    begin(4, 2);
    assert_true(kolo__membership_come(&m, 1, 0));
    assert_true(kolo__membership_come(&m, 2, 0));
    expect_nothing(false);
    assert_int_equal(decide(true, &id), KOLO__MEMBERSHIP_EXPEL);
    assert_int_equal(id, 0);
    assert_int_equal(decide(true, &id), KOLO__MEMBERSHIP_EXPEL);
    assert_int_equal(id, 3);
    assert_int_equal(decide(true, &id), KOLO__MEMBERSHIP_FORM);
    assert_int_equal(m.count, 2);
    assert_false(kolo__membership_come(&m, 0, 0));
    assert_false(kolo__membership_come(&m, 0, 1));
}

static void test_too_few(void **state)
{
    uint32_t id;
    (void)state;
    begin(3, 3);
    kolo__membership_remove(&m, 2);
    assert_true(kolo__membership_come(&m, 0, 0));
    assert_true(kolo__membership_come(&m, 1, 0));
    expect_nothing(false); /* somebody may come */
    assert_true(kolo__membership_arrive(&m, 3));
    expect_form(1, (uint32_t[]){0, 1, 3}, 3);
    kolo__membership_remove(&m, 0);
    assert_true(kolo__membership_come(&m, 1, 1));
    assert_true(kolo__membership_come(&m, 3, 1));
    expect_nothing(false);
    assert_int_equal(decide(true, &id), KOLO__MEMBERSHIP_END);
    assert_int_equal(m.count, 0);
    expect_nothing(true);
    /* Nobody is left who knows what newcomers need. */
    begin(1, 1);
    assert_true(kolo__membership_arrive(&m, 1));
    kolo__membership_remove(&m, 0);
    assert_int_equal(decide(false, &id), KOLO__MEMBERSHIP_END);
    kolo__membership_end(&m);
}

/* ---- anything ------------------------------------------------------------------------------- */

enum { IDS = 64 };

/* What the machine is compared with: a flag or two of each process. */
static struct {
    bool in, come, waiting;
} model[IDS];

static void random_event(struct kolo__random *random, uint32_t *next)
{
    uint32_t id = (uint32_t)kolo__random_below(random, *next);
    switch (kolo__random_below(random, 4)) {
    case 0:
        kolo__membership_remove(&m, id);
        memset(&model[id], 0, sizeof model[id]);
        break;
    case 1:
        if (*next == IDS)
            break;
        assert_true(kolo__membership_arrive(&m, *next));
        model[(*next)++].waiting = true;
        break;
    default:
        assert_int_equal(kolo__membership_come(&m, id, m.epoch), model[id].in && !model[id].come);
        model[id].come |= model[id].in;
    }
}

static void check_form(const struct kolo__membership_entry *before, uint32_t count)
{
    uint32_t wanted = 0;
    for (uint32_t i = 0; i < count; i++) /* the same, in the same order */
        assert_int_equal(m.entries[wanted++].id, before[i].id);
    assert_int_equal(m.count, count);
    for (uint32_t id = 0; id < IDS; id++) {
        assert_true(!model[id].in || model[id].come); /* nobody was left behind */
        model[id].in = model[id].come || model[id].waiting;
        model[id].come = model[id].waiting = false;
    }
    for (uint32_t i = 0; i < count; i++)
        assert_true(model[m.entries[i].id].in);
}

static void random_decisions(bool over, uint32_t least)
{
    for (;;) {
        struct kolo__membership_entry before[IDS];
        uint32_t count = m.count, epoch = m.epoch, id = IDS;
        memcpy(before, m.entries, count * sizeof *before);
        switch (decide(over, &id)) {
        case KOLO__MEMBERSHIP_NOTHING:
            assert_int_equal(m.epoch, epoch);
            return;
        case KOLO__MEMBERSHIP_EXPEL:
            assert_true(over && model[id].in && !model[id].come);
            memset(&model[id], 0, sizeof model[id]);
            break;
        case KOLO__MEMBERSHIP_FORM:
            assert_true(count >= least && m.epoch == epoch + 1);
            check_form(before, count);
            break;
        case KOLO__MEMBERSHIP_END:
            memset(model, 0, sizeof model);
            break;
        }
    }
}

static void test_random_events(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3000; seed++) {
        struct kolo__random random = {seed};
        uint32_t size = 1 + (uint32_t)kolo__random_below(&random, 6), next = size;
        uint32_t least = 1 + (uint32_t)kolo__random_below(&random, size);
        begin(size, least);
        memset(model, 0, sizeof model);
        for (uint32_t id = 0; id < size; id++)
            model[id].in = true;
        for (int i = 0; i < 100; i++) {
            random_event(&random, &next);
            random_decisions(kolo__random_below(&random, 10) == 0, least);
        }
    }
    kolo__membership_end(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms_when_all_have_come),
        cmocka_unit_test(test_newcomers_come_last),
        cmocka_unit_test(test_late_are_expelled),
        cmocka_unit_test(test_too_few),
        cmocka_unit_test(test_random_events),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
