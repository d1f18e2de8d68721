/* SPDX-License-Identifier: Apache-2.0 */
/* A long allreduce by halving and doubling goes through its steps in chunks: it is right however
 * they are cut, and moves what the whole would. */
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_are_right),
        cmocka_unit_test(chunks_grow_where_there_would_be_too_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
