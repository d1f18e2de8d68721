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

/* One step of rate `rate` with the gradients scaled by `scale`: decay on the first `matrix` values,
 * as on tensors of their own. */
static void step_scaled(struct training_state *state, const float *gradients, size_t matrix,
                        float rate, float scale)
{
    struct adamw adamw = {.step = ++state->step, .rate = rate, .scale = scale};
    const struct adamw_factors decaying = adamw_factors(&adamw, true);
    const struct adamw_factors staying = adamw_factors(&adamw, false);
    adamw_update(&decaying, matrix, gradients, state->parameters, state->mean, state->variance);
    adamw_update(&staying, state->count - matrix, gradients + matrix, state->parameters + matrix,
                 state->mean + matrix, state->variance + matrix);
}

static void step(struct training_state *state, const float *gradients, size_t matrix, float rate)
{
    step_scaled(state, gradients, matrix, rate, 1);
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

    step(&state, first, MATRIX, 0.01F);
    assert_near(state.mean, (double[]){0.03, -0.04, 0.03, -0.04}, 1e-7);
    assert_near(state.variance, (double[]){0.0018, 0.0032, 0.0018, 0.0032}, 1e-7);
    assert_near(state.parameters, (double[]){1.989, -0.9895, 1.99, -0.99}, 1e-6);

    step(&state, second, MATRIX, 0.01F);
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
    step(&state, none, MATRIX, 0.5F);
    assert_near(state.parameters, (double[]){1.95, -0.975, 2, -1}, 1e-6);
    assert_near(state.mean, (double[COUNT]){0}, 0);
    assert_near(state.variance, (double[COUNT]){0}, 0);
    step(&state, none, 0, 0.5F);
    assert_near(state.parameters, (double[]){1.95, -0.975, 2, -1}, 1e-6);
    step(&state, none, COUNT, 0.5F);
    assert_near(state.parameters, (double[]){1.90125, -0.950625, 1.95, -0.975}, 1e-6);
    training_state_destroy(&state);
}

static void long_gradients_count_as_of_length_one(void **unused)
{
    (void)unused;
    static const float of_five[COUNT] = {0, 3, 4, 0};
    struct training_state state;
    create(&state);
    step_scaled(&state, of_five, MATRIX, 0.01F, adamw_clipping(5));
    assert_near(state.mean, (double[]){0, 0.06, 0.08, 0}, 1e-7);
    assert_near(state.variance, (double[]){0, 0.0072, 0.0128, 0}, 1e-7);
    training_state_destroy(&state);
    assert_true(adamw_clipping(0.5) == 1 && adamw_clipping(1) == 1 && adamw_clipping(0) == 1);
    assert_true(adamw_clipping(2) == 0.5F);
}

/* What a rank has is any part of the parameters: the same values come out as of the whole. */
static void pieces_give_the_bits_of_the_whole(void **unused)
{
    (void)unused;
    enum { MANY = 27 };
    static const size_t cuts[] = {0, 1, 9, 10, 26, MANY};
    struct training_state whole, cut;
    float gradients[MANY];
    assert_int_equal(training_state_create(MANY, &whole), 0);
    assert_int_equal(training_state_create(MANY, &cut), 0);
    for (int i = 0; i < MANY; i++) {
        gradients[i] = (float)(i - 9) / 7;
        whole.parameters[i] = cut.parameters[i] = (float)(13 - i) / 3;
    }
    for (uint64_t n = 1; n <= 3; n++) {
        struct adamw adamw = {.step = n, .rate = 0.01F, .scale = 0.3F};
        const struct adamw_factors factors = adamw_factors(&adamw, true);
        adamw_update(&factors, MANY, gradients, whole.parameters, whole.mean, whole.variance);
        for (size_t k = 0; k + 1 < sizeof cuts / sizeof *cuts; k++) {
            size_t at = cuts[k], count = cuts[k + 1] - at;
            adamw_update(&factors, count, gradients + at, cut.parameters + at, cut.mean + at,
                         cut.variance + at);
        }
    }
    assert_memory_equal(whole.parameters, cut.parameters, 3 * MANY * sizeof(float));
    training_state_destroy(&whole);
    training_state_destroy(&cut);
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
        cmocka_unit_test(pieces_give_the_bits_of_the_whole),
        cmocka_unit_test(the_rate_rises_and_falls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
