/* SPDX-License-Identifier: Apache-2.0 */
/* Sharded training goes on when ranks are lost, and go, and come; what they had alone is not lost.
 */
#include "elastic_sharded.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static uint64_t copy_every = 4;

static int create(void)
{
    const kolo_elastic_options options = {.copy_every = copy_every, .compare_every = 3};
    return sharded_create(&options);
}

/* ---- ranks are lost ----------------------------------------------------------------------------
 */

/* World rank 2 in the middle of a step, so that the others have updated their pieces, perhaps;
 * later world rank 0, in a step of which copies have just been made. */
static int two_are_lost(void)
{
    uint64_t step, furthest = 0, repeated = 0;
    CHECK(create() == 0);
    while (kolo_elastic_begin_step(sharded.loop, &step)) {
        repeated += step < furthest;
        furthest = step + 1 > furthest ? step + 1 : furthest;
        if (world_rank() == 2 && step == 6)
            CHECK(sharded_reduce(step) == KOLO_OK);
        if ((world_rank() == 2 && step == 6) || (world_rank() == 0 && step == 20))
            die();
        kolo_elastic_end_step(sharded.loop, sharded_step(step));
    }
    CHECK(size == 2 && repeated > 0 && repeated <= 8);
    return sharded_ends_well();
}

static unsigned moment_us;

static int one_is_lost_at_a_moment(void)
{
    pthread_t killer = 0;
    uint64_t step;
    bool waits = false;
    CHECK(create() == 0);
    if (world_rank() == 1 && moment_us == 0)
        CHECK(die_later(moment_us, &killer) == 0);
    while (kolo_elastic_begin_step(sharded.loop, &step)) {
        if (world_rank() == 1 && step == 2 && moment_us > 0 && !waits)
            CHECK(die_later(moment_us, &killer) == 0);
        waits = waits || step == 2;
        kolo_elastic_end_step(sharded.loop, sharded_step(step));
        if (world_rank() == 1 && step + 1 == SHARDED_STEPS)
            pthread_join(killer, NULL);
    }
    return sharded_ends_well();
}

/* A rank and the one behind it: what the first had is nowhere any more. */
static int neighbours_are_lost(void)
{
    uint64_t step;
    CHECK(create() == 0);
    while (kolo_elastic_begin_step(sharded.loop, &step)) {
        if (step == 9 && (world_rank() == 1 || world_rank() == 2))
            die();
        kolo_elastic_end_step(sharded.loop, sharded_step(step));
    }
    CHECK(kolo_elastic_result(sharded.loop) == KOLO_ERR_WORLD ||
          kolo_elastic_result(sharded.loop) == KOLO_OK);
    if (kolo_elastic_result(sharded.loop) ==
        KOLO_OK) /* the second was lost in the next epoch, after copies */
        return sharded_ends_well();
    CHECK(error_has("part of the state is lost"));
    return sharded_free();
}

static void test_ranks_are_lost(void **state)
{
    (void)state;
    expect(4, 0, (int[]){0, 2, -1}, two_are_lost);
    copy_every = 1; /* so that moments are those of copies as well */
    for (unsigned i = 0; i < 10; i++) {
        moment_us = 1700 * i;
        expect_on(elastic_ways[i % 2], 3, 0, (int[]){1, -1}, one_is_lost_at_a_moment);
    }
    copy_every = 4;
    expect_on(elastic_ways[0], 4, 0, (int[]){1, 2, -1}, neighbours_are_lost);
}

/* Pieces of which two have the same element, and none another: as many as there should be. */
static int pieces_overlap(void)
{
    uint64_t step;
    sharded.overlaps = 1;
    CHECK(create() == 0);
    CHECK(kolo_elastic_begin_step(sharded.loop, &step) == 0);
    CHECK(kolo_elastic_result(sharded.loop) == KOLO_ERR_INVALID && error_has("each of its"));
    return sharded_free();
}

static void test_pieces_overlap(void **state)
{
    (void)state;
    expect_on(elastic_ways[0], 2, 0, (int[]){-1}, pieces_overlap);
}

/* ---- ranks go, and come
 * -------------------------------------------------------------------------- */

static atomic_int *called;

/* World rank 1 goes at a step of which there are no copies; then a newcomer comes. */
static int one_goes_another_comes(void)
{
    uint64_t step, furthest = 0;
    bool is_newcomer = world_rank() == 3;
    while (is_newcomer && atomic_load(called) == 0)
        usleep(1000);
    CHECK(create() == 0);
    while (kolo_elastic_begin_step(sharded.loop, &step)) {
        kolo_status status = KOLO_OK;
        int wanted = 0;
        CHECK(step >= furthest); /* nothing is done twice */
        furthest = step;
        if (world_rank() == 1 && step == 9)
            kolo_elastic_leave(sharded.loop);
        if (step == 17)
            atomic_store(called, 1);
        while (step == 17 && !wanted && status == KOLO_OK)
            status = kolo_renewal_wanted(context, 0, &wanted);
        kolo_elastic_end_step(sharded.loop, status != KOLO_OK ? status : sharded_step(step));
    }
    if (world_rank() != 1) {
        CHECK(size == 3);
        return sharded_ends_well();
    }
    CHECK(kolo_elastic_left(sharded.loop) && step == 10 && sharded.place == 10);
    return sharded_free();
}

static void test_ranks_go_and_come(void **state)
{
    (void)state;
    for (int w = 0; w < 2; w++) {
        atomic_store(called, 0);
        expect_on(elastic_ways[w], 3, 1, (int[]){-1}, one_goes_another_comes);
    }
}

int main(int argc, char **argv)
{
    called = mmap(NULL, sizeof *called, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (called == MAP_FAILED || setenv("KOLO_MIN_RANKS", "1", 1) != 0)
        return 1;
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks_are_lost),
        cmocka_unit_test(test_pieces_overlap),
        cmocka_unit_test(test_ranks_go_and_come),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
