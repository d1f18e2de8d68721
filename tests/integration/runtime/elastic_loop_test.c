/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop of elastic training, with real processes. A step adds up what each sample of a batch
 * gives, whichever rank has it: whole numbers, so that the state after the last step is the same to
 * the bit, however many ranks there were on the way, unless a step was lost or done twice.
 */
#include "elastic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STEPS = 40, SAMPLES = 12, WEIGHTS = 30000 };

static struct {
    float weights[WEIGHTS], gradients[WEIGHTS];
    int64_t place; /* in the data */
    kolo_reducer *reducer;
    int entered;
} model;

static kolo_elastic *loop;

/* ---- training ---------------------------------------------------------------------------------
 */

static kolo_status enter(void *self, kolo_comm *world)
{
    const kolo_tensor gradients = {
        .data = model.gradients, .count = WEIGHTS, .dtype = KOLO_FP32, .name = "gradients"};
    const kolo_reducer_options options = {.size = sizeof options, .sum = 1};
    (void)self;
    model.entered++;
    look();
    return model.reducer != NULL
               ? kolo_reducer_renew(&model.reducer, world)
               : kolo_reducer_create(world, &gradients, 1, &options, &model.reducer);
}

/* What sample `sample` of a step adds to the gradient of weight i. */
static float gives(uint64_t step, int sample, int i)
{
    return (float)((step * 7 + (uint64_t)sample * 3 + (uint64_t)i) % 11);
}

static void add_samples(uint64_t step, int first, int end)
{
    memset(model.gradients, 0, sizeof model.gradients);
    for (int s = first; s < end; s++)
        for (int i = 0; i < WEIGHTS; i++)
            model.gradients[i] += gives(step, s, i);
}

static void update(void)
{
    for (int i = 0; i < WEIGHTS; i++)
        model.weights[i] += model.gradients[i];
    model.place += SAMPLES;
}

static kolo_status reduce_gradients(uint64_t step)
{
    add_samples(step, SAMPLES * rank / size, SAMPLES * (rank + 1) / size);
    kolo_status status = kolo_reducer_ready(model.reducer, 0);
    return status == KOLO_OK ? kolo_reducer_wait(model.reducer, -1) : status;
}

static int create(const kolo_elastic_options *options)
{
    const kolo_tensor state[] = {
        {.data = model.weights, .count = WEIGHTS, .dtype = KOLO_FP32, .name = "weights"},
        {.data = &model.place, .count = 1, .dtype = KOLO_INT64, .name = "place"},
    };
    kolo_elastic_options given = *options;
    given.size = sizeof given;
    given.enter = enter;
    CHECK(join() == 0);
    CHECK(kolo_elastic_create(context, state, 2, &given, &loop) == KOLO_OK);
    return 0;
}

static kolo_status do_step(uint64_t step)
{
    kolo_status status = reduce_gradients(step);
    if (status == KOLO_OK) {
        update();
        if (step + 1 == STEPS)
            kolo_elastic_stop(loop);
    }
    return status;
}

static void finish(void)
{
    kolo_elastic_free(loop);
    kolo_reducer_free(model.reducer);
}

/* The state is what all samples of so many steps give. */
static int state_is_right(int steps)
{
    CHECK(model.place == (int64_t)steps * SAMPLES);
    for (int i = 0; i < WEIGHTS; i += 997) {
        float right = 0;
        for (uint64_t step = 0; step < (uint64_t)steps; step++)
            for (int s = 0; s < SAMPLES; s++)
                right += gives(step, s, i);
        CHECK(model.weights[i] == right);
    }
    return 0;
}

static int ends_well(void)
{
    CHECK(kolo_elastic_result(loop) == KOLO_OK && !kolo_elastic_left(loop));
    CHECK(state_is_right(STEPS) == 0);
    finish();
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static int train(const kolo_elastic_options *options)
{
    uint64_t step;
    CHECK(create(options) == 0);
    while (kolo_elastic_begin_step(loop, &step))
        kolo_elastic_end_step(loop, do_step(step));
    return ends_well();
}

/* ---- ranks are lost ----------------------------------------------------------------------------
 */

static const kolo_elastic_options plain = {.compare_every = 5};

/* World ranks 3 and 1 are killed, in the beginning of a step, and with gradients on their way. */
static int two_are_lost(void)
{
    uint64_t step;
    CHECK(create(&plain) == 0);
    while (kolo_elastic_begin_step(loop, &step)) {
        if (world_rank() == 3 && step == 7)
            die();
        if (world_rank() == 1 && step == 20) {
            kolo_reducer_ready(model.reducer, 0);
            die();
        }
        kolo_elastic_end_step(loop, do_step(step));
    }
    CHECK(size == 2 && rank == world_rank() / 2);
    return ends_well();
}

static unsigned moment_us;

static void *die_later(void *unused)
{
    usleep(moment_us);
    die();
    return unused;
}

/* At any moment: in a step, between two, when others have ended it and this rank has not. */
static int one_is_lost_at_a_moment(void)
{
    pthread_t killer;
    uint64_t step, before = 0;
    CHECK(create(&plain) == 0);
    while (kolo_elastic_begin_step(loop, &step)) {
        CHECK(step == before || step == before + 1);
        before = step;
        if (world_rank() == 2 && step == 3 && size == 4)
            CHECK(pthread_create(&killer, NULL, die_later, NULL) == 0);
        kolo_elastic_end_step(loop, do_step(step));
        if (world_rank() == 2 && step + 1 == STEPS)
            pthread_join(killer, NULL); /* not later than that */
    }
    return ends_well();
}

static void test_ranks_are_lost(void **state)
{
    (void)state;
    setenv("KOLO_MIN_RANKS", "1", 1);
    expect(4, 0, (int[]){1, 3, -1}, two_are_lost);
    for (unsigned i = 0; i < 8; i++) {
        moment_us = 113 * i * i;
        expect_on(elastic_ways[i % 2], 4, 0, (int[]){2, -1}, one_is_lost_at_a_moment);
    }
}

/* ---- a rank is behind ---------------------------------------------------------------------------
 */

/* The others have ended a step with KOLO_OK, rank 1 has met a fault. It has changed nothing, and
 * gets the state from the others instead of doing the step. */
static int rank_1_is_behind(void)
{
    uint64_t step;
    int done = 0;
    CHECK(create(&plain) == 0);
    while (kolo_elastic_begin_step(loop, &step)) {
        kolo_status status = reduce_gradients(step);
        if (rank == 1 && step == 9)
            status = KOLO_ERR_NETWORK;
        if (status == KOLO_OK)
            update();
        done += status == KOLO_OK;
        if (step + 1 == STEPS)
            kolo_elastic_stop(loop);
        kolo_elastic_end_step(loop, status);
    }
    CHECK(done == (rank == 1 ? STEPS - 1 : STEPS));
    CHECK(model.entered == 2);
    return ends_well();
}

/* All of them have: the step is repeated. */
static int all_are_behind(void)
{
    uint64_t step;
    int tries = 0;
    CHECK(create(&plain) == 0);
    while (kolo_elastic_begin_step(loop, &step)) {
        if (step == 9 && tries++ == 0)
            kolo_elastic_end_step(loop, KOLO_ERR_TIMEOUT);
        else
            kolo_elastic_end_step(loop, do_step(step));
    }
    CHECK(tries == 2 && model.entered == 2);
    return ends_well();
}

/* Without KOLO_MIN_RANKS, and with any other error, the loop ends. */
static int loop_ends(void)
{
    uint64_t step;
    const char *least = getenv("KOLO_MIN_RANKS");
    kolo_status status = least == NULL ? KOLO_ERR_NETWORK : KOLO_ERR_INVALID;
    CHECK(create(&plain) == 0);
    while (kolo_elastic_begin_step(loop, &step))
        kolo_elastic_end_step(loop, step == 5 ? status : do_step(step));
    CHECK(step == 5 && kolo_elastic_result(loop) == status && !kolo_elastic_left(loop));
    CHECK(kolo_elastic_begin_step(loop, &step) == 0);
    finish();
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_ranks_are_behind(void **state)
{
    (void)state;
    setenv("KOLO_MIN_RANKS", "1", 1);
    expect(3, 0, (int[]){-1}, rank_1_is_behind);
    expect(3, 0, (int[]){-1}, all_are_behind);
    expect_on(elastic_ways[0], 2, 0, (int[]){-1}, loop_ends);
    unsetenv("KOLO_MIN_RANKS");
    expect_on(elastic_ways[0], 2, 0, (int[]){-1}, loop_ends);
}

/* ---- ranks come, and go
 * -------------------------------------------------------------------------- */

/* The newcomer does what the others do, from a state of its own that nobody takes. Training waits
 * for it, or would be over before. */
static int one_comes(void)
{
    uint64_t step, first = 0;
    if (world_rank() == 2)
        memset(model.weights, 77, sizeof model.weights);
    CHECK(create(&plain) == 0);
    while (kolo_elastic_begin_step(loop, &step)) {
        if (world_rank() == 2 && model.entered == 1 && first == 0)
            first = step;
        if (size == 2 && step == 15) {
            kolo_status status = KOLO_OK;
            int wanted = 0;
            while (!wanted && status == KOLO_OK)
                status = kolo_renewal_wanted(context, 0, &wanted);
            kolo_elastic_end_step(loop, status != KOLO_OK ? status : do_step(step));
            continue;
        }
        kolo_elastic_end_step(loop, do_step(step));
    }
    CHECK(size == 3 && rank == world_rank());
    CHECK(first <= 16 && model.entered == (world_rank() == 2 ? 1 : 2));
    return ends_well();
}

static int rank_1_goes(void)
{
    uint64_t step;
    const kolo_elastic_options options = {.leave_on_sigterm = 1};
    int goes = world_rank() == 1;
    CHECK(create(&options) == 0);
    while (kolo_elastic_begin_step(loop, &step)) {
        if (goes && step == 11)
            raise(SIGTERM);
        kolo_elastic_end_step(loop, do_step(step));
    }
    if (!goes) {
        CHECK(size == 2 && report_says(1, 2, 3, "left in good order") == 0);
        return ends_well();
    }
    CHECK(kolo_elastic_result(loop) == KOLO_OK && kolo_elastic_left(loop));
    CHECK(state_is_right(12) == 0);
    finish();
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

/* Too few would be left. */
static int all_go(void)
{
    uint64_t step;
    CHECK(create(&plain) == 0);
    while (kolo_elastic_begin_step(loop, &step)) {
        if (rank == 1 && step == 11)
            kolo_elastic_leave(loop);
        kolo_elastic_end_step(loop, do_step(step));
    }
    CHECK(kolo_elastic_result(loop) == KOLO_OK && kolo_elastic_left(loop));
    CHECK(size == 3 && state_is_right(12) == 0);
    finish();
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_ranks_come_and_go(void **state)
{
    (void)state;
    setenv("KOLO_MIN_RANKS", "1", 1);
    expect(2, 1, (int[]){-1}, one_comes);
    expect(3, 0, (int[]){-1}, rank_1_goes);
    setenv("KOLO_MIN_RANKS", "3", 1);
    expect_on(elastic_ways[0], 3, 0, (int[]){-1}, all_go);
    unsetenv("KOLO_MIN_RANKS");
    expect_on(elastic_ways[0], 3, 0, (int[]){-1}, all_go);
}

/* ---- ranks that hold different states
 * ------------------------------------------------------------ */

static int a_bit_flips(void)
{
    uint64_t step;
    CHECK(create(&plain) == 0);
    while (kolo_elastic_begin_step(loop, &step)) {
        kolo_status status = do_step(step);
        if (rank == size - 2 && step == 12)
            ((unsigned char *)model.weights)[5000] ^= 4;
        kolo_elastic_end_step(loop, status);
    }
    CHECK(step == 15 && kolo_elastic_result(loop) == KOLO_ERR_MISMATCH);
    if (size == 3) {
        CHECK(error_has("after step 15") && error_has("rank 1 (host "));
        CHECK(error_has("tensor 0 'weights' than 2 others. Either"));
    } else {
        CHECK(error_has("which of them is wrong cannot be told"));
    }
    finish();
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_states_differ(void **state)
{
    (void)state;
    expect_on(elastic_ways[0], 3, 0, (int[]){-1}, a_bit_flips);
    expect_on(elastic_ways[1], 2, 0, (int[]){-1}, a_bit_flips);
}

/* ---- arguments
 * ------------------------------------------------------------------------------------ */

static int arguments_are_checked(void)
{
    kolo_elastic *first, *second;
    float weights[4] = {0};
    kolo_tensor state = {.data = weights, .count = 4, .dtype = KOLO_FP32};
    kolo_elastic_options options = {.size = sizeof options, .leave_on_sigterm = 1};
    CHECK(join() == 0);
    CHECK(kolo_elastic_create(NULL, &state, 1, NULL, &first) == KOLO_ERR_INVALID);
    CHECK(kolo_elastic_create(context, &state, 0, NULL, &first) == KOLO_ERR_INVALID);
    CHECK(kolo_elastic_create(context, &state, 1, &options, &first) == KOLO_OK);
    CHECK(kolo_elastic_create(context, &state, 1, &options, &second) == KOLO_ERR_INVALID);
    CHECK(error_has("leave_on_sigterm"));
    options = (kolo_elastic_options){.size = 3};
    CHECK(kolo_elastic_create(context, &state, 1, &options, &second) == KOLO_ERR_INVALID);
    state.data = NULL;
    CHECK(kolo_elastic_create(context, &state, 1, NULL, &second) == KOLO_ERR_INVALID);
    CHECK(error_has("has no data"));
    kolo_elastic_free(first);
    kolo_elastic_free(NULL);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static int undisturbed(void)
{
    return train(&plain);
}

static void test_arguments(void **state)
{
    (void)state;
    expect_on(elastic_ways[0], 1, 0, (int[]){-1}, arguments_are_checked);
    expect_on(elastic_ways[0], 1, 0, (int[]){-1}, undisturbed);
    expect_on(elastic_ways[1], 3, 0, (int[]){-1}, undisturbed);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks_are_lost),    cmocka_unit_test(test_ranks_are_behind),
        cmocka_unit_test(test_ranks_come_and_go), cmocka_unit_test(test_states_differ),
        cmocka_unit_test(test_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
