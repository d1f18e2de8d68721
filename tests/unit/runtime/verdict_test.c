/* SPDX-License-Identifier: Apache-2.0 */
/* Which reports make a circle, and above all which do not. */
#include "runtime/verdict.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

enum { RANKS = 5, COMM = 7 };

static struct kolo__verdict_report reports[RANKS];
static struct kolo__verdict_sent sent[RANKS][RANKS];
static struct kolo__verdict_side sides[RANKS];
static char text[480];

static int start(void **state)
{
    (void)state;
    memset(reports, 0, sizeof reports);
    memset(sent, 0, sizeof sent);
    for (uint32_t r = 0; r < RANKS; r++) {
        reports[r].comm = COMM;
        reports[r].sent = sent[r];
        sides[r] = (struct kolo__verdict_side){r, "h", &reports[r]};
    }
    return 0;
}

static void receives(uint32_t rank, uint32_t from, uint64_t sequence)
{
    reports[rank].needs = KOLO__NEEDS_ONE;
    reports[rank].from = from;
    reports[rank].waited_in = (struct kolo__signature){.comm = COMM,
                                                       .sequence = sequence,
                                                       .collective = KOLO__POINT_TO_POINT,
                                                       .dtype = KOLO_FP32,
                                                       .algorithm = 0xff,
                                                       .count = 10};
}

static void has_sent(uint32_t rank, uint32_t to, uint64_t messages)
{
    sent[rank][reports[rank].sent_count++] = (struct kolo__verdict_sent){to, messages};
}

/* It has called `called` collectives, and waits in number `sequence` of them. */
static void reduces(uint32_t rank, uint64_t sequence, uint64_t called)
{
    struct kolo__signature signature = {
        .comm = COMM, .collective = KOLO__ALLREDUCE, .algorithm = 0xff, .count = 10};
    reports[rank].count = 1;
    reports[rank].recent[0] = signature;
    reports[rank].recent[0].sequence = called;
    reports[rank].needs = KOLO__NEEDS_ALL;
    reports[rank].waited_in = signature;
    reports[rank].waited_in.sequence = sequence;
}

static void expect_circle(bool expected)
{
    /* Whoever is the last to report finds it, if it is of the circle: here 0 always is. */
    assert_int_equal(kolo__verdict_circle(sides, RANKS, 0, text, sizeof text), expected);
}

static void test_two_receive(void **state)
{
    (void)state;
    receives(0, 1, 3);
    expect_circle(false);
    receives(1, 0, 1);
    has_sent(1, 0, 2);
    has_sent(1, 4, 9);
    expect_circle(true);
    assert_string_equal(text, "rank 0 (host h) waits in kolo_recv from rank 1 (10 x fp32); rank 1 "
                              "(host h) waits in kolo_recv from rank 0 (10 x fp32): each waits for "
                              "the other, for ever. A kolo_recv needs a kolo_send, a collective "
                              "all ranks");
}

static void test_what_was_sent_is_no_wait(void **state)
{
    (void)state;
    receives(0, 1, 3);
    receives(1, 0, 1);
    has_sent(1, 0, 3); /* rank 0's message is under way */
    expect_circle(false);
    reports[1].sent_count = 0;
    has_sent(0, 1, 1); /* rank 1's is, and its report is of the past */
    expect_circle(false);
}

static void test_receive_against_collective(void **state)
{
    (void)state;
    receives(0, 1, 1);
    reduces(1, 2, 2);
    expect_circle(true);
    assert_non_null(strstr(text, "rank 1 (host h) waits in allreduce #2"));
    has_sent(1, 0, 1);
    expect_circle(false);
    reports[1].sent_count = 0;
    reduces(0, 2, 2); /* started, and now it receives */
    receives(0, 1, 1);
    expect_circle(false);
}

static void test_longer_circles(void **state)
{
    (void)state;
    for (uint32_t r = 0; r < RANKS; r++)
        receives(r, (r + 1) % RANKS, 1);
    expect_circle(true);
    assert_non_null(strstr(text, "and 2 more: each waits for the next"));
    has_sent(3, 2, 1);
    expect_circle(false);
    reports[3].sent_count = 0;
    reports[3].needs = KOLO__NEEDS_NOBODY;
    expect_circle(false);
}

/* A rank that waits for a circle is not of it: that was told when the circle closed. */
static void test_outside_of_the_circle(void **state)
{
    (void)state;
    receives(0, 1, 1);
    receives(1, 2, 1);
    receives(2, 1, 1);
    expect_circle(false);
    assert_true(kolo__verdict_circle(sides, RANKS, 1, text, sizeof text));
    assert_true(kolo__verdict_circle(sides, RANKS, 2, text, sizeof text));
}

static void test_slow_rank_in_a_collective(void **state)
{
    (void)state;
    for (uint32_t r = 0; r < RANKS; r++)
        reduces(r, 5, 5);
    expect_circle(false);
    reduces(2, 4, 4); /* reported while it was behind; it needs nobody who has not come */
    for (uint32_t r = 0; r < RANKS; r++)
        assert_false(kolo__verdict_circle(sides, RANKS, r, text, sizeof text));
}

static void test_long_names_are_cut(void **state)
{
    (void)state;
    char small[64];
    for (uint32_t r = 0; r < RANKS; r++)
        receives(r, (r + 1) % RANKS, 1);
    for (size_t bytes = 1; bytes <= sizeof small; bytes++) {
        memset(small, 'x', sizeof small);
        assert_true(kolo__verdict_circle(sides, RANKS, 0, small, bytes));
        assert_non_null(memchr(small, '\0', bytes));
        for (size_t i = bytes; i < sizeof small; i++)
            assert_int_equal(small[i], 'x');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_two_receive, start),
        cmocka_unit_test_setup(test_what_was_sent_is_no_wait, start),
        cmocka_unit_test_setup(test_receive_against_collective, start),
        cmocka_unit_test_setup(test_longer_circles, start),
        cmocka_unit_test_setup(test_outside_of_the_circle, start),
        cmocka_unit_test_setup(test_slow_rank_in_a_collective, start),
        cmocka_unit_test_setup(test_long_names_are_cut, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
