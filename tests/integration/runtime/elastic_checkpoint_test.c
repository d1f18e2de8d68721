/* SPDX-License-Identifier: Apache-2.0 */
/* Training that is ended, by force and in good order, and goes on from its checkpoint, with another
 * number of ranks. */
#include "elastic_training.h"
#include "tests/fresh_folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[] = "/tmp/kolo-elastic-XXXXXX";
static uint64_t dies_at, leaves_at, begins_at;

static int begin(void **state)
{
    (void)state;
    return fresh_folder(folder);
}

static int end(void **state)
{
    (void)state;
    return remove_folder(folder);
}

/* The step of the last file before `end`; 0: there is none. */
static uint64_t last_saved(uint64_t end)
{
    char path[sizeof folder + 64];
    for (uint64_t step = end; step-- > 1;) {
        snprintf(path, sizeof path, "%s/step-%lu.kolo", folder, (unsigned long)step);
        if (access(path, F_OK) == 0)
            return step;
    }
    return 0;
}

static int create(void)
{
    const kolo_elastic_options options = {
        .checkpoint_folder = folder, .checkpoint_every = 7, .leave_on_sigterm = 1};
    memset(training.weights, world_rank() == 0 ? 0 : 55, sizeof training.weights);
    return training_create(&options);
}

static int trains(void)
{
    uint64_t step, first = UINT64_MAX;
    CHECK(create() == 0);
    while (kolo_elastic_begin_step(training.loop, &step)) {
        first = first == UINT64_MAX ? step : first;
        while (step == dies_at && last_saved(step) == 0)
            usleep(1000);
        if (step == dies_at)
            die();
        if (step == leaves_at && rank == size - 1)
            raise(SIGTERM);
        kolo_elastic_end_step(training.loop, training_step(step));
    }
    CHECK(first == begins_at);
    if (leaves_at >= TRAINING_STEPS)
        return training_ends_well();
    CHECK(kolo_elastic_result(training.loop) == KOLO_OK && kolo_elastic_left(training.loop));
    CHECK(step == leaves_at + 1 && training_state_is_right((int)leaves_at + 1) == 0);
    training_free();
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

/* A run of so many ranks, that is ended in one way or the other. */
static void run(int ranks, uint64_t begins, uint64_t leaves, uint64_t dies)
{
    begins_at = begins;
    leaves_at = leaves;
    dies_at = dies;
    struct world_result result = world_run(ranks, NULL, trains);
    if (dies >= TRAINING_STEPS)
        world_assert_all_passed(&result, ranks);
    for (int r = 0; r < ranks && dies < TRAINING_STEPS; r++)
        assert_true(WIFSIGNALED(result.status[r]) || result.status[r] != 0);
}

enum { NEVER = 1000 };

static void test_ended_in_good_order(void **state)
{
    (void)state;
    run(2, 0, 16, NEVER);
    run(3, 17, 30, NEVER);
    run(1, 31, NEVER, NEVER);
}

/* Which step was saved last is a matter of how fast the disk is. */
static void test_ended_by_force(void **state)
{
    (void)state;
    run(2, 0, NEVER, 18);
    run(3, last_saved(18), NEVER, NEVER);
}

/* Rank 0 cannot take up what is there: nobody trains from the beginning. */
static int nobody_begins(void)
{
    const kolo_tensor other = {.data = training.weights, .count = 5, .dtype = KOLO_FP32};
    const kolo_elastic_options options = {.size = sizeof options, .checkpoint_folder = folder};
    uint64_t step;
    kolo_elastic *loop;
    CHECK(join() == 0);
    CHECK(kolo_elastic_create(context, &other, 1, &options, &loop) == KOLO_OK);
    CHECK(kolo_elastic_begin_step(loop, &step) == 0);
    CHECK(kolo_elastic_result(loop) == KOLO_ERR_CONFIG);
    CHECK(error_has("of another state: it has 2 tensors; here there are 1"));
    kolo_elastic_free(loop);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_other_state(void **state)
{
    (void)state;
    run(2, 0, NEVER, NEVER);
    setenv("KOLO_MIN_RANKS", "1", 1);
    struct world_result result = world_run_elastic(3, 0, 1, NULL, nobody_begins);
    world_assert_all_passed(&result, 3);
    unsetenv("KOLO_MIN_RANKS");
}

/* After the last step there is nothing to do. */
static int is_over_at_once(void)
{
    uint64_t step;
    CHECK(create() == 0);
    CHECK(kolo_elastic_begin_step(training.loop, &step) == 0);
    return training_ends_well();
}

/* Rank 0's bits, which are what is written: not without having been compared, at step 14, nor at
 * the end. Only rank 0 knows of checkpoints. */
static int a_bit_flips(void)
{
    const kolo_elastic_options options = {.checkpoint_folder = world_rank() == 0 ? folder : NULL,
                                          .checkpoint_every = world_rank() == 0 ? 7 : 0,
                                          .compare_every = 1000,
                                          .steps = leaves_at};
    uint64_t step;
    CHECK(training_create(&options) == 0);
    while (kolo_elastic_begin_step(training.loop, &step)) {
        kolo_status status = training_step(step);
        if (rank == 0 && step == dies_at)
            ((unsigned char *)training.weights)[5000] ^= 4;
        kolo_elastic_end_step(training.loop, status);
    }
    CHECK(kolo_elastic_result(training.loop) == KOLO_ERR_MISMATCH);
    CHECK(error_has("rank 0 (host ") && error_has("than 2 others"));
    training_free();
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_spoilt(void **state)
{
    (void)state;
    for (leaves_at = TRAINING_STEPS, dies_at = 9; dies_at <= 12; leaves_at = 13, dies_at += 3) {
        struct world_result result = world_run(3, NULL, a_bit_flips);
        world_assert_all_passed(&result, 3);
        assert_int_equal(last_saved(TRAINING_STEPS + 1), 7);
    }
}

static void test_finished(void **state)
{
    (void)state;
    run(2, 0, NEVER, NEVER);
    struct world_result result = world_run(2, NULL, is_over_at_once);
    world_assert_all_passed(&result, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ended_in_good_order, begin, end),
        cmocka_unit_test_setup_teardown(test_ended_by_force, begin, end),
        cmocka_unit_test_setup_teardown(test_other_state, begin, end),
        cmocka_unit_test_setup_teardown(test_spoilt, begin, end),
        cmocka_unit_test_setup_teardown(test_finished, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
