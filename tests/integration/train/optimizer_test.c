/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AdamW against two steps worked out on paper (means 0.9, squares 0.98, decay 0.05): that it undoes
 * the zeros which it starts from, that decay is no part of the gradient and spares what is no
 * matrix, that long gradients are shortened. And the learning rate.
 */
#include "optimizer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { COUNT = 4, MATRIX = 2 }; /* the same two values as a matrix and as gains */

static void create(struct training_state *state)
{
    static const float start[COUNT] = {2, -1, 2, -1};
    assert_int_equal(training_state_create(COUNT, state), 0);
    memcpy(state->parameters, start, sizeof start);
}

static void assert_near(const float *values, const double expected[COUNT], double error)
{
    for (int i = 0; i < COUNT; i++)
        if (!(fabs(values[i] - expected[i]) <= error))
            fail_msg("value %d is %.9g, not %.9g", i, values[i], expected[i]);
}

/*
 *      step 1     g = 0.3, -0.4       means 0.03, -0.04     squares 0.0018, 0.0032
 *                 unbiased: g and g^2, so the direction is +1, -1 whatever the gradient's length
 *                 2 - 0.01 (1 + 0.05 * 2) = 1.989           without decay 1.99
 *      step 2     g = -0.1, 0.2       means 0.017, -0.016   squares 0.001964, 0.003936
 *                 unbiased by 1 - 0.81 and 1 - 0.9604: directions 0.4017651, -0.2671076
 *                 1.989 - 0.01 (0.4017651 + 0.05 * 1.989) = 1.98398785
 */
static void two_steps_are_as_on_paper(void **unused)
{
    (void)unused;
    static const float first[COUNT] = {0.3F, -0.4F, 0.3F, -0.4F};
    static const float second[COUNT] = {-0.1F, 0.2F, -0.1F, 0.2F};
    struct training_state state;
    create(&state);

    assert_true(fabs(adamw_step(&state, first, MATRIX, 0.01F) - sqrt(0.5)) < 1e-6);
    assert_int_equal(state.step, 1);
    assert_near(state.mean, (double[]){0.03, -0.04, 0.03, -0.04}, 1e-7);
    assert_near(state.variance, (double[]){0.0018, 0.0032, 0.0018, 0.0032}, 1e-7);
    assert_near(state.parameters, (double[]){1.989, -0.9895, 1.99, -0.99}, 1e-6);

    assert_true(fabs(adamw_step(&state, second, MATRIX, 0.01F) - sqrt(0.1)) < 1e-6);
    assert_int_equal(state.step, 2);
    assert_near(state.mean, (double[]){0.017, -0.016, 0.017, -0.016}, 1e-7);
    assert_near(state.variance, (double[]){0.001964, 0.003936, 0.001964, 0.003936}, 1e-7);
    assert_near(state.parameters, (double[]){1.98398785, -0.98633417, 1.98598235, -0.98732892},
                1e-6);
    training_state_destroy(&state);
}

static void decay_needs_no_gradient(void **unused)
{
    (void)unused;
    static const float none[COUNT] = {0};
    struct training_state state;
    create(&state);
    assert_true(adamw_step(&state, none, MATRIX, 0.5F) == 0);
    assert_near(state.parameters, (double[]){1.95, -0.975, 2, -1}, 1e-6);
    assert_near(state.mean, (double[COUNT]){0}, 0);
    assert_near(state.variance, (double[COUNT]){0}, 0);
    adamw_step(&state, none, 0, 0.5F);
    assert_near(state.parameters, (double[]){1.95, -0.975, 2, -1}, 1e-6);
    adamw_step(&state, none, COUNT, 0.5F);
    assert_near(state.parameters, (double[]){1.90125, -0.950625, 1.95, -0.975}, 1e-6);
    training_state_destroy(&state);
}

/* By the norm of all together, the end of the array and what is no matrix included. */
static void long_gradients_count_as_of_length_one(void **unused)
{
    (void)unused;
    static const float of_five[COUNT] = {0, 3, 4, 0}, of_one[COUNT] = {0, 0.6F, 0.8F, 0};
    struct training_state state;
    create(&state);
    assert_true(adamw_step(&state, of_five, MATRIX, 0.01F) == 5);
    assert_near(state.mean, (double[]){0, 0.06, 0.08, 0}, 1e-7);
    assert_near(state.variance, (double[]){0, 0.0072, 0.0128, 0}, 1e-7);
    training_state_destroy(&state);

    create(&state);
    assert_true(fabs(adamw_step(&state, of_one, MATRIX, 0.01F) - 1) < 1e-6);
    assert_near(state.mean, (double[]){0, 0.06, 0.08, 0}, 1e-7);
    training_state_destroy(&state);

    float many[27];
    for (int i = 0; i < 27; i++)
        many[i] = (float)(i + 1);
    assert_int_equal(training_state_create(27, &state), 0);
    assert_true(fabs(adamw_step(&state, many, 20, 0.01F) - sqrt(6930)) < 1e-7);
    training_state_destroy(&state);
}

static void the_rate_rises_and_falls(void **unused)
{
    (void)unused;
    static const struct {
        uint64_t step;
        double progress, rate;
    } rows[] = {{0, 0, 0.01},      {9, 0, 0.1},     {19, 0, 0.2},      {20, 0, 0.2},
                {1000, 0.5, 0.11}, {1000, 1, 0.02}, {1000, 1.5, 0.02}, {9, 0.5, 0.055}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_true(fabs(learning_rate(0.2, rows[i].step, rows[i].progress) - rows[i].rate) < 1e-7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_steps_are_as_on_paper),
        cmocka_unit_test(decay_needs_no_gradient),
        cmocka_unit_test(long_gradients_count_as_of_length_one),
        cmocka_unit_test(the_rate_rises_and_falls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
