/* SPDX-License-Identifier: Apache-2.0 */
/* The loop of elastic training, with real processes: ranks that are lost, behind, new, asked to go,
 * and spoilt. */
#include "elastic_training.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- ranks are lost ----------------------------------------------------------------------------
 */

static const kolo_elastic_options plain = {.compare_every = 5};

/* World ranks 3 and 1 are killed, in the beginning of a step, and with gradients on their way. */
static int two_are_lost(void)
{
    uint64_t step;
    CHECK(training_create(&plain) == 0);
    while (kolo_elastic_begin_step(training.loop, &step)) {
        if (world_rank() == 3 && step == 7)
            die();
        if (world_rank() == 1 && step == 20) {
            kolo_reducer_ready(training.reducer, 0);
            die();
        }
        kolo_elastic_end_step(training.loop, training_step(step));
    }
    CHECK(size == 2 && rank == world_rank() / 2);
    return training_ends_well();
}

/* Who has done all steps does not fail of it, in kolo_finalize. */
static int one_is_lost_when_all_is_done(void)
{
    uint64_t step;
    CHECK(training_create(&plain) == 0);
    while (kolo_elastic_begin_step(training.loop, &step))
        kolo_elastic_end_step(training.loop, training_step(step));
    if (world_rank() == 1 && usleep(300000) == 0)
        die();
    return training_ends_well();
}

static unsigned moment_us;

/* At any moment: in a step, between two, when others have ended it and this rank has not. */
static int one_is_lost_at_a_moment(void)
{
    pthread_t killer = 0;
    uint64_t step, before = 0;
    CHECK(training_create(&plain) == 0);
    while (kolo_elastic_begin_step(training.loop, &step)) {
        CHECK(step == before || step == before + 1);
        before = step;
        if (world_rank() == 2 && step == 3 && size == 4)
            CHECK(die_later(moment_us, &killer) == 0);
        kolo_elastic_end_step(training.loop, training_step(step));
        if (world_rank() == 2 && step + 1 == TRAINING_STEPS)
            pthread_join(killer, NULL); /* not later than that */
    }
    return training_ends_well();
}

static void test_ranks_are_lost(void **state)
{
    (void)state;
    setenv("KOLO_MIN_RANKS", "1", 1);
    expect(4, 0, (int[]){1, 3, -1}, two_are_lost);
    expect(3, 0, (int[]){1, -1}, one_is_lost_when_all_is_done);
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
    const kolo_elastic_options options = {.steps = 1000};
    uint64_t step;
    int done = 0;
    CHECK(training_create(&options) == 0);
    while (kolo_elastic_begin_step(training.loop, &step)) {
        kolo_status status = training_reduce(step);
        if (rank == 1 && step == 9)
            status = KOLO_ERR_NETWORK;
        if (status == KOLO_OK)
            training_update();
        done += status == KOLO_OK;
        if (step + 1 == TRAINING_STEPS)
            kolo_elastic_stop(training.loop);
        kolo_elastic_end_step(training.loop, status);
    }
    CHECK(done == (rank == 1 ? TRAINING_STEPS - 1 : TRAINING_STEPS));
    CHECK(training.entered == 2);
    return training_ends_well();
}

/* All of them have: the step is repeated. */
static int all_are_behind(void)
{
    uint64_t step;
    int tries = 0;
    CHECK(training_create(&plain) == 0);
    while (kolo_elastic_begin_step(training.loop, &step)) {
        if (step == 9 && tries++ == 0)
            kolo_elastic_end_step(training.loop, KOLO_ERR_TIMEOUT);
        else
            kolo_elastic_end_step(training.loop, training_step(step));
    }
    CHECK(tries == 2 && training.entered == 2);
    return training_ends_well();
}

/* Without KOLO_MIN_RANKS, and with any other error, the training.loop ends. */
static int loop_ends(void)
{
    uint64_t step;
    const char *least = getenv("KOLO_MIN_RANKS");
    kolo_status status = least == NULL ? KOLO_ERR_NETWORK : KOLO_ERR_INVALID;
    CHECK(training_create(&plain) == 0);
    while (kolo_elastic_begin_step(training.loop, &step))
        kolo_elastic_end_step(training.loop, step == 5 ? status : training_step(step));
    CHECK(step == 5 && kolo_elastic_result(training.loop) == status &&
          !kolo_elastic_left(training.loop));
    CHECK(kolo_elastic_begin_step(training.loop, &step) == 0);
    training_free();
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

static atomic_int *called; /* shared by all ranks: the newcomer is to come */

/* The newcomer does what the others do, from a state of its own that nobody takes. All compare
 * their states at its first step, as if nobody had before. */
static int one_comes(void)
{
    uint64_t step, first = 0;
    bool is_newcomer = world_rank() == 2;
    while (is_newcomer && atomic_load(called) == 0)
        usleep(1000);
    if (is_newcomer)
        memset(training.weights, 77, sizeof training.weights);
    CHECK(training_create(&plain) == 0);
    while (kolo_elastic_begin_step(training.loop, &step)) {
        kolo_status status = KOLO_OK;
        int wanted = 0;
        if (is_newcomer && first == 0)
            first = step;
        if (step == 14)
            atomic_store(called, 1);
        while (step == 14 && !wanted && status == KOLO_OK)
            status = kolo_renewal_wanted(context, 0, &wanted);
        kolo_elastic_end_step(training.loop, status != KOLO_OK ? status : training_step(step));
    }
    CHECK(size == 3 && rank == world_rank());
    CHECK(first == (is_newcomer ? 15 : 0) && training.entered == (is_newcomer ? 1 : 2));
    return training_ends_well();
}

/* It waits before the others have begun, who do a step all the same before they take it in. */
static int one_comes_at_once(void)
{
    uint64_t step;
    bool is_newcomer = world_rank() == 2, first = true;
    int wanted = is_newcomer;
    CHECK(training_create(&plain) == 0);
    while (!wanted)
        CHECK(kolo_renewal_wanted(context, 0, &wanted) == KOLO_OK);
    while (kolo_elastic_begin_step(training.loop, &step)) {
        CHECK(!first || (size == 2 + is_newcomer && step == is_newcomer));
        first = false;
        kolo_elastic_end_step(training.loop, training_step(step));
    }
    CHECK(size == 3 && training.entered == (is_newcomer ? 1 : 2));
    return training_ends_well();
}

/* It goes alone, and knows why. */
static int one_comes_with_another_model(void)
{
    uint64_t step;
    training.other = world_rank() == 2;
    while (training.other && atomic_load(called) == 0)
        usleep(1000);
    CHECK(training_create(&plain) == 0);
    while (kolo_elastic_begin_step(training.loop, &step)) {
        kolo_status status = KOLO_OK;
        int wanted = 0;
        CHECK(!training.other);
        if (step == 14)
            atomic_store(called, 1);
        while (step == 14 && !wanted && status == KOLO_OK)
            status = kolo_renewal_wanted(context, 0, &wanted);
        kolo_elastic_end_step(training.loop, status != KOLO_OK ? status : training_step(step));
    }
    if (training.other) {
        CHECK(kolo_elastic_result(training.loop) == KOLO_ERR_MISMATCH);
        CHECK(error_has("'weights': 30000 elements of fp32 on rank 0, 15000 elements of fp32"));
        CHECK(error_has("trains another model than the world that it came to"));
        CHECK(training.entered == 0 && !kolo_elastic_left(training.loop));
        training_free();
        CHECK(kolo_finalize(context) == KOLO_OK);
        return 0;
    }
    CHECK(size == 2 && rank == world_rank() && training.entered == 2);
    return training_ends_well();
}

static int rank_1_goes(void)
{
    uint64_t step;
    const kolo_elastic_options options = {.leave_on_sigterm = 1};
    int goes = world_rank() == 1;
    CHECK(training_create(&options) == 0);
    while (kolo_elastic_begin_step(training.loop, &step)) {
        if (goes && step == 11)
            raise(SIGTERM);
        kolo_elastic_end_step(training.loop, training_step(step));
    }
    if (!goes) {
        CHECK(size == 2 && report_says(1, 2, 3, "left in good order") == 0);
        return training_ends_well();
    }
    CHECK(kolo_elastic_result(training.loop) == KOLO_OK && kolo_elastic_left(training.loop));
    CHECK(training_state_is_right(12) == 0);
    training_free();
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

/* Too few would be left. */
static int all_go(void)
{
    uint64_t step;
    CHECK(training_create(&plain) == 0);
    while (kolo_elastic_begin_step(training.loop, &step)) {
        if (rank == 1 && step == 11)
            kolo_elastic_leave(training.loop);
        kolo_elastic_end_step(training.loop, training_step(step));
    }
    CHECK(kolo_elastic_result(training.loop) == KOLO_OK && kolo_elastic_left(training.loop));
    CHECK(size == 3 && training_state_is_right(12) == 0);
    training_free();
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_ranks_come_and_go(void **state)
{
    (void)state;
    setenv("KOLO_MIN_RANKS", "1", 1);
    for (int w = 0; w < ELASTIC_WAYS; w++) {
        atomic_store(called, 0);
        expect_on(elastic_ways[w], 2, 1, (int[]){-1}, one_comes);
        expect_on(elastic_ways[w], 2, 1, (int[]){-1}, one_comes_at_once);
    }
    for (int w = 0; w < ELASTIC_WAYS; w++) {
        atomic_store(called, 0);
        expect_on(elastic_ways[w], 2, 1, (int[]){-1}, one_comes_with_another_model);
    }
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
    CHECK(training_create(&plain) == 0);
    while (kolo_elastic_begin_step(training.loop, &step)) {
        kolo_status status = training_step(step);
        if (rank == size - 2 && step == 12)
            ((unsigned char *)training.weights)[5000] ^= 4;
        kolo_elastic_end_step(training.loop, status);
    }
    CHECK(step == 15 && kolo_elastic_result(training.loop) == KOLO_ERR_MISMATCH);
    if (size == 3) {
        CHECK(error_has("after step 15") && error_has("rank 1 (host "));
        CHECK(error_has("tensor 0 'weights' than 2 others. Either"));
    } else {
        CHECK(error_has("which of them is wrong cannot be told"));
    }
    training_free();
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
    kolo_elastic_free(first);
    CHECK(kolo_elastic_create(context, &state, 1, NULL, &second) == KOLO_OK);
    CHECK(kolo_elastic_set_data(second, 0, weights) == KOLO_ERR_INVALID);
    const kolo_elastic_piece pieces[] = {{0, 3, 2, weights}, {0, 0, 1, NULL}, {1, 0, 1, weights}};
    for (int i = 0; i < 3; i++)
        CHECK(kolo_elastic_set_pieces(second, &pieces[i], 1) == KOLO_ERR_INVALID);
    uint64_t step;
    CHECK(kolo_elastic_begin_step(second, &step) == 0); /* no pieces */
    CHECK(kolo_elastic_result(second) == KOLO_ERR_INVALID && error_has("each of its 4 elements"));
    kolo_elastic_free(second);
    kolo_elastic_free(NULL);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static int undisturbed(void)
{
    uint64_t step;
    CHECK(training_create(&plain) == 0);
    while (kolo_elastic_begin_step(training.loop, &step))
        kolo_elastic_end_step(training.loop, training_step(step));
    return training_ends_well();
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
    called = mmap(NULL, sizeof *called, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (called == MAP_FAILED)
        return 1;
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks_are_lost),    cmocka_unit_test(test_ranks_are_behind),
        cmocka_unit_test(test_ranks_come_and_go), cmocka_unit_test(test_states_differ),
        cmocka_unit_test(test_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
