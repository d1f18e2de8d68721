/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A loop of sharded training: parameters and gradients are the reducer's, each rank has the
 * momentum of its pieces alone. Ranks are lost, and go, and come; what they had alone is not lost.
 * All numbers are whole, so the state at the end is the same to the bit, whatever happened.
 */
#include "elastic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { STEPS = 30, SAMPLES = 12, LARGE = 300001, SMALL = 5, TENSORS = 2, PIECES_MAX = 2 };

/* The state: parameters, by tensor; momentum, by tensor; a place in the data. */
enum { PARAMETERS = 0, MOMENTUM = TENSORS, PLACE = 2 * TENSORS, STATES };

static const size_t counts[TENSORS] = {LARGE, SMALL};
static kolo_reducer *reducer;
static kolo_elastic *loop;
static float *momentum; /* of this rank's pieces */
static kolo_reducer_shard shards[PIECES_MAX];
static size_t shard_count;
static int64_t place;
static uint64_t copy_every = 4;

/* ---- training ---------------------------------------------------------------------------------
 */

static kolo_status make_reducer(kolo_comm *world)
{
    const kolo_reducer_options options = {.size = sizeof options, .sum = 1, .sharded = 1};
    const kolo_tensor tensors[TENSORS] = {{.count = LARGE, .dtype = KOLO_FP32, .name = "large"},
                                          {.count = SMALL, .dtype = KOLO_FP32, .name = "small"}};
    return reducer != NULL ? kolo_reducer_renew(&reducer, world)
                           : kolo_reducer_create(world, tensors, TENSORS, &options, &reducer);
}

static kolo_status enter(void *self, kolo_comm *world)
{
    kolo_elastic_piece pieces[PIECES_MAX];
    (void)self;
    look();
    kolo_status status = make_reducer(world);
    if (status != KOLO_OK)
        return status;
    free(momentum);
    momentum = calloc(kolo_reducer_state_count(reducer) + 1, sizeof *momentum);
    for (shard_count = 0; shard_count < PIECES_MAX; shard_count++) {
        kolo_reducer_shard *shard = &shards[shard_count];
        if (kolo_reducer_piece(reducer, shard_count, shard) != KOLO_OK)
            break;
        pieces[shard_count] = (kolo_elastic_piece){.tensor = MOMENTUM + shard->tensor,
                                                   .first = shard->first,
                                                   .count = shard->count,
                                                   .data = momentum + shard->state};
    }
    for (size_t i = 0; i < TENSORS && status == KOLO_OK; i++)
        status = kolo_elastic_set_data(loop, PARAMETERS + i, kolo_reducer_parameters(reducer, i));
    return status == KOLO_OK ? kolo_elastic_set_pieces(loop, pieces, shard_count) : status;
}

static float gives(uint64_t step, int sample, size_t i)
{
    return (float)((step * 7 + (uint64_t)sample * 3 + i) % 5);
}

static kolo_status reduce_gradients(uint64_t step)
{
    for (size_t t = 0; t < TENSORS; t++) {
        float *gradients = kolo_reducer_view(reducer, t);
        memset(gradients, 0, counts[t] * sizeof *gradients);
        for (int s = SAMPLES * rank / size; s < SAMPLES * (rank + 1) / size; s++)
            for (size_t i = 0; i < counts[t]; i++)
                gradients[i] += gives(step, s, i);
        kolo_status status = kolo_reducer_ready(reducer, t);
        if (status != KOLO_OK)
            return status;
    }
    return kolo_reducer_wait(reducer, -1);
}

static kolo_status do_step(uint64_t step)
{
    kolo_status status = reduce_gradients(step);
    if (status != KOLO_OK)
        return status;
    for (size_t k = 0; k < shard_count; k++) {
        const float *gradients = shards[k].gradients;
        float *parameters = shards[k].parameters, *own = momentum + shards[k].state;
        for (size_t i = 0; i < shards[k].count; i++) {
            own[i] += gradients[i];
            parameters[i] += own[i];
        }
    }
    status = kolo_reducer_gather(reducer, -1);
    place += status == KOLO_OK;
    return status;
}

static int create(void)
{
    static float nothing[LARGE];
    const kolo_elastic_options options = {.size = sizeof options,
                                          .enter = enter,
                                          .steps = STEPS,
                                          .copy_every = copy_every,
                                          .compare_every = 3};
    kolo_tensor state[STATES] = {{.name = "large"},
                                 {.name = "small"},
                                 {.name = "momentum of large"},
                                 {.name = "momentum of small"},
                                 {.data = &place, .count = 1, .dtype = KOLO_INT64}};
    for (int i = 0; i < PLACE; i++) {
        state[i].count = counts[i % TENSORS];
        state[i].dtype = KOLO_FP32;
        state[i].data = i < MOMENTUM ? nothing : NULL; /* enter has it */
    }
    CHECK(join() == 0);
    CHECK(kolo_elastic_create(context, state, STATES, &options, &loop) == KOLO_OK);
    return 0;
}

static int ends_well(void)
{
    CHECK(kolo_elastic_result(loop) == KOLO_OK && place == STEPS);
    for (size_t t = 0; t < TENSORS; t++) {
        const float *parameters = kolo_reducer_parameters(reducer, t);
        for (size_t i = 0; i < counts[t]; i += t == 0 ? 2999 : 1) {
            float right = 0, rolling = 0;
            for (uint64_t step = 0; step < STEPS; step++) {
                for (int s = 0; s < SAMPLES; s++)
                    rolling += gives(step, s, i);
                right += rolling;
            }
            CHECK(parameters[i] == right);
        }
    }
    kolo_elastic_free(loop);
    kolo_reducer_free(reducer);
    free(momentum);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

/* ---- ranks are lost ----------------------------------------------------------------------------
 */

/* World rank 2 in the middle of a step, so that the others have updated their pieces, perhaps;
 * later world rank 0, in a step of which copies have just been made. */
static int two_are_lost(void)
{
    uint64_t step, furthest = 0, repeated = 0;
    CHECK(create() == 0);
    while (kolo_elastic_begin_step(loop, &step)) {
        repeated += step < furthest;
        furthest = step + 1 > furthest ? step + 1 : furthest;
        if (world_rank() == 2 && step == 6)
            CHECK(reduce_gradients(step) == KOLO_OK);
        if ((world_rank() == 2 && step == 6) || (world_rank() == 0 && step == 20))
            die();
        kolo_elastic_end_step(loop, do_step(step));
    }
    CHECK(size == 2 && repeated > 0 && repeated <= 8);
    return ends_well();
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
    while (kolo_elastic_begin_step(loop, &step)) {
        if (world_rank() == 1 && step == 2 && moment_us > 0 && !waits)
            CHECK(die_later(moment_us, &killer) == 0);
        waits = waits || step == 2;
        kolo_elastic_end_step(loop, do_step(step));
        if (world_rank() == 1 && step + 1 == STEPS)
            pthread_join(killer, NULL);
    }
    return ends_well();
}

/* A rank and the one behind it: what the first had is nowhere any more. */
static int neighbours_are_lost(void)
{
    uint64_t step;
    CHECK(create() == 0);
    while (kolo_elastic_begin_step(loop, &step)) {
        if (step == 9 && (world_rank() == 1 || world_rank() == 2))
            die();
        kolo_elastic_end_step(loop, do_step(step));
    }
    CHECK(kolo_elastic_result(loop) == KOLO_ERR_WORLD || kolo_elastic_result(loop) == KOLO_OK);
    if (kolo_elastic_result(loop) ==
        KOLO_OK) /* the second was lost in the next epoch, after copies */
        return ends_well();
    CHECK(error_has("part of the state is lost"));
    kolo_elastic_free(loop);
    kolo_reducer_free(reducer);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
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
    while (kolo_elastic_begin_step(loop, &step)) {
        kolo_status status = KOLO_OK;
        int wanted = 0;
        CHECK(step >= furthest); /* nothing is done twice */
        furthest = step;
        if (world_rank() == 1 && step == 9)
            kolo_elastic_leave(loop);
        if (step == 17)
            atomic_store(called, 1);
        while (step == 17 && !wanted && status == KOLO_OK)
            status = kolo_renewal_wanted(context, 0, &wanted);
        kolo_elastic_end_step(loop, status != KOLO_OK ? status : do_step(step));
    }
    if (world_rank() != 1) {
        CHECK(size == 3);
        return ends_well();
    }
    CHECK(kolo_elastic_left(loop) && step == 10 && place == 10);
    kolo_elastic_free(loop);
    kolo_reducer_free(reducer);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
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
        cmocka_unit_test(test_ranks_go_and_come),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
