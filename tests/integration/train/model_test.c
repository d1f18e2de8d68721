/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model against known answers: its hand-written gradients against finite differences, tensor by
 * tensor; that no position sees a later byte; and that it starts at the loss of knowing nothing.
 */
#include "model.h"
#include "random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct model_config CONFIG = {.layers = 2, .width = 24, .heads = 3, .context = 20};
enum { LENGTH = 17 };

struct fixture {
    struct model *model;
    size_t count;
    float *parameters, *gradients, *direction;
    uint8_t bytes[LENGTH + 1];
};

static void prepare(struct fixture *f)
{
    f->count = model_parameter_count(&CONFIG);
    f->model = model_create(&CONFIG);
    f->parameters = calloc(f->count, sizeof(float));
    f->gradients = calloc(f->count, sizeof(float));
    f->direction = calloc(f->count, sizeof(float));
    assert_true(f->model && f->parameters && f->gradients && f->direction);
    model_initialize(&CONFIG, 7, f->parameters);
    for (size_t i = 0; i < f->count; i++) /* away from the start, where some gradients are small */
        f->parameters[i] += 0.3F * (float)(random_unit(3, i, 0) - 0.5);
    for (int i = 0; i <= LENGTH; i++)
        f->bytes[i] = (uint8_t)random_at(5, (uint64_t)i, 0);
}

static void release(struct fixture *f)
{
    model_destroy(f->model);
    free(f->parameters);
    free(f->gradients);
    free(f->direction);
}

static double mean_loss(const struct fixture *f, const float *parameters)
{
    const float *losses = model_forward(f->model, parameters, f->bytes, f->bytes + 1, LENGTH);
    double sum = 0;
    for (int t = 0; t < LENGTH; t++)
        sum += losses[t];
    return sum / LENGTH;
}

/* The slope of the loss along a direction that is not zero in [first, first + count) only, once by
 * the gradient and once by stepping both ways. */
static void check_slope(struct fixture *f, const char *name, size_t first, size_t count)
{
    double slope = 0, length = 0;
    for (size_t i = first; i < first + count; i++)
        length += (double)f->gradients[i] * f->gradients[i];
    length = sqrt(length);
    assert_true(length > 1e-6);
    memset(f->direction, 0, f->count * sizeof(float));
    for (size_t i = first; i < first + count; i++) { /* half along the gradient, half at random */
        double along = f->gradients[i] / length;
        double across = 2 * (random_unit(11, i, 1) - 0.5) / sqrt((double)count);
        f->direction[i] = (float)(along + across);
        slope += (double)f->gradients[i] * f->direction[i];
    }

    const float step = 0.01F;
    float *moved = malloc(f->count * sizeof(float));
    assert_non_null(moved);
    double loss[2];
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < f->count; i++)
            moved[i] = f->parameters[i] + (side ? -step : step) * f->direction[i];
        loss[side] = mean_loss(f, moved);
    }
    free(moved);
    double measured = (loss[0] - loss[1]) / (2 * step);
    if (fabs(measured - slope) > 0.01 * fabs(slope) + 1e-5)
        fail_msg("%s: the gradient says %.6g, the loss moves by %.6g", name, slope, measured);
}

static void gradients_agree_with_finite_differences(void **unused)
{
    (void)unused;
    struct fixture f;
    prepare(&f);
    mean_loss(&f, f.parameters);
    model_backward(f.model, f.parameters, 1.0F / LENGTH, f.gradients);

    size_t width = (size_t)CONFIG.width, square = width * width, at = 0;
    check_slope(&f, "embedding", at, MODEL_TOKENS * width);
    at += MODEL_TOKENS * width;
    for (int layer = 0; layer < CONFIG.layers; layer++) {
        check_slope(&f, "queries", at, square);
        check_slope(&f, "keys", at + square, square);
        check_slope(&f, "values", at + 2 * square, square);
        check_slope(&f, "projection", at + 3 * square, square);
        check_slope(&f, "up", at + 4 * square, 4 * square);
        check_slope(&f, "down", at + 8 * square, 4 * square);
        at += 12 * square;
    }
    check_slope(&f, "head", at, MODEL_TOKENS * width);
    at += MODEL_TOKENS * width;
    assert_int_equal(at, model_matrix_count(&CONFIG));
    for (; at < f.count; at += width)
        check_slope(&f, "gain", at, width);
    assert_int_equal(at, f.count);
    release(&f);
}

static void gradients_of_sequences_add_up(void **unused)
{
    (void)unused;
    struct fixture f;
    prepare(&f);
    mean_loss(&f, f.parameters);
    model_backward(f.model, f.parameters, 1, f.gradients);
    memcpy(f.direction, f.gradients, f.count * sizeof(float));
    mean_loss(&f, f.parameters);
    model_backward(f.model, f.parameters, 1, f.gradients);
    for (size_t i = 0; i < f.count; i++)
        assert_true(fabsf(f.gradients[i] - 2 * f.direction[i]) <=
                    1e-4F + 1e-4F * fabsf(f.direction[i]));
    release(&f);
}

static void no_position_sees_a_later_byte(void **unused)
{
    (void)unused;
    struct fixture f;
    prepare(&f);
    float before[LENGTH];
    memcpy(before, model_forward(f.model, f.parameters, f.bytes, f.bytes + 1, LENGTH),
           sizeof(before));
    const int changed = 9;
    uint8_t input[LENGTH];
    memcpy(input, f.bytes, sizeof(input));
    input[changed] ^= 0x55;
    const float *after = model_forward(f.model, f.parameters, input, f.bytes + 1, LENGTH);
    for (int t = 0; t < changed; t++)
        assert_true(fabsf(after[t] - before[t]) < 1e-5F);
    for (int t = changed; t < LENGTH; t++) /* and every later one does see it */
        assert_true(fabsf(after[t] - before[t]) > 1e-5F);
    release(&f);
}

static void starts_at_the_loss_of_knowing_nothing(void **unused)
{
    (void)unused;
    struct fixture f;
    prepare(&f);
    model_initialize(&CONFIG, 1, f.parameters);
    assert_true(fabs(mean_loss(&f, f.parameters) - log(256)) < 0.1);
    model_initialize(&CONFIG, 1, f.direction);
    assert_memory_equal(f.parameters, f.direction, f.count * sizeof(float));
    model_initialize(&CONFIG, 2, f.direction);
    assert_memory_not_equal(f.parameters, f.direction, f.count * sizeof(float));
    release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_agree_with_finite_differences),
        cmocka_unit_test(gradients_of_sequences_add_up),
        cmocka_unit_test(no_position_sees_a_later_byte),
        cmocka_unit_test(starts_at_the_loss_of_knowing_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
