/* SPDX-License-Identifier: Apache-2.0 */
/* A long allreduce by halving and doubling goes through its steps in chunks, of slices that end
 * where bursts do: it is right however they are cut, and moves what the whole would. */
#include "prove.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct prove_problem problem_of(uint32_t size, size_t count, size_t chunk_count)
{
    return (struct prove_problem){.algorithm = kolo__algorithm_find("halving_doubling"),
                                  .collective = KOLO__ALLREDUCE,
                                  .size = size,
                                  .count = count,
                                  .window_count = 1,
                                  .chunk_count = chunk_count};
}

static void check(uint32_t size, size_t count, size_t chunk_count, uint32_t chunks)
{
    struct prove_problem problem = problem_of(size, count, 0);
    struct kolo__cost whole, cut;
    prove(&problem, &whole);
    problem.chunk_count = chunk_count;
    for (unsigned variant = 0; variant < 6; variant++) {
        problem.in_place = variant % 3;
        problem.prescale = variant >= 3;
        prove(&problem, &cut);
        assert_int_equal(cut.elements_sent_all, whole.elements_sent_all);
        assert_true(cut.rounds <= whole.rounds);
        if ((size & (size - 1)) != 0)
            continue; /* what is folded is not cut */
        assert_int_equal(cut.rounds, whole.rounds);
        assert_int_equal(cut.messages_all, chunks * whole.messages_all);
    }
}

/* Slices of a chunk may be empty: 17 elements are 17 chunks. */
static void chunks_are_right(void **state)
{
    (void)state;
    for (uint32_t size = 2; size <= 17; size++) {
        check(size, 15, 1, 1);
        check(size, 16, 1, 16);
        check(size, 17, 1, 17);
        check(size, 16 * 5 - 1, 5, 1);
        check(size, 16 * 5, 5, 16);
        check(size, 16 * 5 + 1, 5, 17);
        check(size, 16 * 7 + 3, 7, 17);
    }
}

/* So the number of steps is bounded. */
static void chunks_grow_where_there_would_be_too_many(void **state)
{
    (void)state;
    check(2, 256, 1, 256);
    check(2, 257, 1, 129);
    check(4, 3 * 256, 3, 256);
    check(4, 3 * 256 + 1, 3, 129);
    check(4, 10000, 3, 239);
}

/* Of all messages of all ranks. */
static size_t bursts_of(const struct prove_problem *problem, size_t burst_count)
{
    struct kolo__schedule *schedules = prove_build(problem);
    size_t bursts = 0;
    for (uint32_t rank = 0; rank < problem->size; rank++) {
        const struct kolo__schedule *s = &schedules[rank];
        for (uint32_t i = 0; i < s->step_count; i++)
            if (s->steps[i].kind == KOLO__SEND)
                bursts += (s->steps[i].count + burst_count - 1) / burst_count;
    }
    prove_free(schedules, problem->size);
    return bursts;
}

/* 1040 elements are 16 bursts of 64 and a bit. Even quarters are 4 bursts and a bit each, so what
 * is sent are halves of 9 and quarters of 5; with the bit in the last quarter, only its halves and
 * quarters have one more. */
static void what_is_past_a_burst_is_in_one_slice(void **state)
{
    (void)state;
    struct prove_problem problem = problem_of(4, 1040, 0);
    assert_int_equal(bursts_of(&problem, 64), 2 * (4 * 9 + 4 * 5));
    problem.burst_count = 64;
    assert_int_equal(bursts_of(&problem, 64), 2 * (2 * 8 + 2 * 9 + 3 * 4 + 5));
    /* 4.3 bursts: even slices, for this would be too uneven. */
    problem.count = 1100;
    struct kolo__cost cost;
    prove(&problem, &cost);
    assert_int_equal(cost.elements_sent_max, 2 * (550 + 275));
}

static void bursts_of_any_length_are_right(void **state)
{
    (void)state;
    for (uint32_t size = 2; size <= 17; size++) {
        for (size_t burst_count = 1; burst_count <= 70; burst_count += 23) {
            for (size_t count = 0; count <= 700; count += 100) {
                struct prove_problem problem = problem_of(size, count, count % 3 * 5);
                struct kolo__cost even, cut;
                prove(&problem, &even);
                problem.burst_count = burst_count;
                prove(&problem, &cut);
                assert_int_equal(cut.rounds, even.rounds);
                assert_int_equal(cut.messages_all, even.messages_all);
                assert_int_equal(cut.elements_sent_all, even.elements_sent_all);
                assert_true(cut.elements_sent_max <= even.elements_sent_max * 17 / 16 + size);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_are_right),
        cmocka_unit_test(chunks_grow_where_there_would_be_too_many),
        cmocka_unit_test(what_is_past_a_burst_is_in_one_slice),
        cmocka_unit_test(bursts_of_any_length_are_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
