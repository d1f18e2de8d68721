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
enum { LENGTH = 17, TENSORS = 15 };

struct fixture {
    struct model *model;
    size_t count;
    float *parameters, *gradients, *direction;
    float *parameter[TENSORS], *gradient[TENSORS]; /* where each tensor's are */
    uint8_t bytes[LENGTH + 1];
};

static void place(float *flat, float *tensors[TENSORS])
{
    for (size_t i = 0; i < TENSORS; i++)
        tensors[i] = flat + model_tensor_at(&CONFIG, i).first;
}

static void prepare(struct fixture *f)
{
    f->count = model_parameter_count(&CONFIG);
    f->model = model_create(&CONFIG, &device_cpu);
    f->parameters = calloc(f->count, sizeof(float));
    f->gradients = calloc(f->count, sizeof(float));
    f->direction = calloc(f->count, sizeof(float));
    assert_true(f->model && f->parameters && f->gradients && f->direction);
    assert_int_equal(model_tensor_count(&CONFIG), TENSORS);
    place(f->parameters, f->parameter);
    place(f->gradients, f->gradient);
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

static double mean_loss(const struct fixture *f, float *parameters)
{
    float *tensors[TENSORS];
    place(parameters, tensors);
    const float *losses = model_forward(f->model, tensors, f->bytes, f->bytes + 1, LENGTH);
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
    model_backward(f.model, f.parameter, 1.0F / LENGTH, f.gradient, NULL, NULL);

    for (size_t i = 0; i < TENSORS; i++) {
        struct model_tensor tensor = model_tensor_at(&CONFIG, i);
        size_t parts = strstr(tensor.name, "qkv") ? 3 : 1; /* queries, keys, values */
        for (size_t part = 0; part < parts; part++)
            check_slope(&f, tensor.name, tensor.first + part * tensor.count / parts,
                        tensor.count / parts);
    }
    release(&f);
}

static void tensors_are_named_and_fill_the_whole(void **unused)
{
    (void)unused;
    static const struct {
        size_t index;
        const char *name;
        size_t rows, columns;
    } rows[] = {{0, "embedding", 256, 24},
                {1, "layers.0.attention.gain", 24, 0},
                {8, "layers.1.attention.qkv", 72, 24},
                {9, "layers.1.attention.projection", 24, 24},
                {10, "layers.1.mlp.gain", 24, 0},
                {11, "layers.1.mlp.up", 96, 24},
                {12, "layers.1.mlp.down", 24, 96},
                {13, "gain", 24, 0},
                {14, "head", 256, 24}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct model_tensor tensor = model_tensor_at(&CONFIG, rows[i].index);
        assert_string_equal(tensor.name, rows[i].name);
        assert_int_equal(tensor.dimensions, rows[i].columns ? 2 : 1);
        assert_int_equal(tensor.shape[0], rows[i].rows);
        assert_int_equal(tensor.shape[1], rows[i].columns);
    }
    size_t next = 0;
    for (size_t i = 0; i < TENSORS; i++) {
        struct model_tensor tensor = model_tensor_at(&CONFIG, i);
        assert_int_equal(tensor.first, next);
        next += tensor.count;
    }
    assert_int_equal(next, model_parameter_count(&CONFIG));
}

/* A gradient that was called final, and what it was then. */
struct finals {
    struct fixture *fixture;
    size_t next; /* the one to come after this is next - 1 */
    float *snapshot;
};

static void keep(void *self, size_t index)
{
    struct finals *finals = self;
    struct model_tensor tensor = model_tensor_at(&CONFIG, index);
    assert_int_equal(index, --finals->next);
    memcpy(finals->snapshot + tensor.first, finals->fixture->gradient[index],
           tensor.count * sizeof(float));
}

static void a_final_gradient_changes_no_more(void **unused)
{
    (void)unused;
    struct fixture f;
    prepare(&f);
    struct finals finals = {.fixture = &f, .next = TENSORS, .snapshot = f.direction};
    mean_loss(&f, f.parameters);
    model_backward(f.model, f.parameter, 1, f.gradient, keep, &finals);
    assert_int_equal(finals.next, 0);
    assert_memory_equal(f.direction, f.gradients, f.count * sizeof(float));
    release(&f);
}

static void gradients_of_sequences_add_up(void **unused)
{
    (void)unused;
    struct fixture f;
    prepare(&f);
    mean_loss(&f, f.parameters);
    model_backward(f.model, f.parameter, 1, f.gradient, NULL, NULL);
    memcpy(f.direction, f.gradients, f.count * sizeof(float));
    mean_loss(&f, f.parameters);
    model_backward(f.model, f.parameter, 1, f.gradient, NULL, NULL);
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
    memcpy(before, model_forward(f.model, f.parameter, f.bytes, f.bytes + 1, LENGTH),
           sizeof(before));
    const int changed = 9;
    uint8_t input[LENGTH];
    memcpy(input, f.bytes, sizeof(input));
    input[changed] ^= 0x55;
    const float *after = model_forward(f.model, f.parameter, input, f.bytes + 1, LENGTH);
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
        cmocka_unit_test(tensors_are_named_and_fill_the_whole),
        cmocka_unit_test(a_final_gradient_changes_no_more),
        cmocka_unit_test(gradients_of_sequences_add_up),
        cmocka_unit_test(no_position_sees_a_later_byte),
        cmocka_unit_test(starts_at_the_loss_of_knowing_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
