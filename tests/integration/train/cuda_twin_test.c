/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What train_bytes does on a GPU, executed on the processor (cuda_twin.h), beside what it does
 * there: a model's losses and gradients, of rows that are not multiples of anything, and an update.
 */
#include "cuda_twin.h"
#include "layers.h"
#include "model.h"
#include "random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct model_config CONFIGS[] = {
    {.layers = 2, .width = 24, .heads = 3, .context = 20},
    {.layers = 1, .width = 160, .heads = 2, .context = 150}, /* more than a block has threads */
    {.layers = 1, .width = 2, .heads = 1, .context = 2},
};

/* As the processor's but for the layers. */
static struct device twin(void)
{
    const struct device of_twin = {"twin",
                                   NULL,
                                   0,
                                   NULL,
                                   NULL,
                                   NULL,
                                   NULL,
                                   NULL,
                                   NULL,
                                   NULL,
                                   NULL,
                                   NULL,
                                   NULL,
                                   NULL,
                                   NULL,
                                   NULL,
                                   ON_DEVICE_LAYERS};
    struct device device = device_cpu;
    size_t layers = offsetof(struct device, embedding_forward);
    memcpy((char *)&device + layers, (const char *)&of_twin + layers, sizeof(device) - layers);
    return device;
}

/* Numbers that agree as well as sums in another order, and another exp, let them. */
static void close(const char *what, const float *found, const float *expected, size_t count)
{
    double largest = 0;
    for (size_t i = 0; i < count; i++)
        largest = fmax(largest, fabs((double)expected[i]));
    assert_true(largest > 0);
    for (size_t i = 0; i < count; i++)
        if (!(fabs((double)found[i] - (double)expected[i]) <= 2e-5 * largest))
            fail_msg("%s: element %zu is %.8g, not %.8g", what, i, (double)found[i],
                     (double)expected[i]);
}

struct run {
    float *gradients, *losses;
    double sum;
};

static struct run run_model(const struct model_config *config, const struct device *device,
                            float *parameters)
{
    size_t tensors = model_tensor_count(config), count = model_parameter_count(config);
    int length = config->context - 1 > 1 ? config->context - 1 : config->context;
    struct run run = {.gradients = calloc(count, sizeof(float)),
                      .losses = calloc((size_t)length, sizeof(float))};
    float **p = calloc(tensors, sizeof(*p)), **g = calloc(tensors, sizeof(*g));
    uint8_t *bytes = calloc(1, (size_t)length + 1);
    struct model *model = model_create(config, device);
    assert_true(run.gradients && run.losses && p && g && bytes && model);
    for (size_t i = 0; i < tensors; i++) {
        p[i] = parameters + model_tensor_at(config, i).first;
        g[i] = run.gradients + model_tensor_at(config, i).first;
    }
    for (int i = 0; i <= length; i++)
        bytes[i] = (uint8_t)random_at(5, (uint64_t)i, 0);
    for (int again = 0; again < 2; again++) { /* gradients add up */
        const float *losses = model_forward(model, p, bytes, bytes + 1, length);
        memcpy(run.losses, losses, (size_t)length * sizeof(float));
        device->add_losses(length, losses, 0.25, &run.sum);
        model_backward(model, p, 0.5F, g, NULL, NULL);
    }
    model_destroy(model);
    free(p);
    free(g);
    free(bytes);
    return run;
}

static void same_losses_and_gradients(void **unused)
{
    (void)unused;
    const struct device of_twin = twin();
    for (size_t c = 0; c < sizeof(CONFIGS) / sizeof(*CONFIGS); c++) {
        const struct model_config *config = &CONFIGS[c];
        size_t count = model_parameter_count(config);
        float *parameters = calloc(count, sizeof(float));
        assert_non_null(parameters);
        model_initialize(config, 7, parameters);
        for (size_t i = 0; i < count; i++)
            parameters[i] += 0.3F * (float)(random_unit(3, i, 0) - 0.5);
        struct run expected = run_model(config, &device_cpu, parameters);
        struct run found = run_model(config, &of_twin, parameters);
        close("losses", found.losses, expected.losses, 1);
        assert_true(fabs(found.sum - expected.sum) <= 1e-5 * expected.sum);
        for (size_t i = 0; i < model_tensor_count(config); i++) {
            struct model_tensor tensor = model_tensor_at(config, i);
            close(tensor.name, found.gradients + tensor.first, expected.gradients + tensor.first,
                  tensor.count);
        }
        free(parameters);
        free(expected.gradients);
        free(expected.losses);
        free(found.gradients);
        free(found.losses);
    }
}

static void same_updates(void **unused)
{
    (void)unused;
    enum { COUNT = 1000 };
    static float gradients[COUNT], state[2][3][COUNT];
    const struct adamw adamw = {.step = 3, .rate = 0.01F, .scale = 0.5F};
    for (int decays = 0; decays < 2; decays++) {
        const struct adamw_factors factors = adamw_factors(&adamw, decays != 0);
        for (int i = 0; i < COUNT; i++) {
            gradients[i] = (float)random_unit(1, (uint64_t)i, 0) - 0.5F;
            for (int k = 0; k < 3; k++)
                state[0][k][i] = state[1][k][i] = (float)random_unit(2, (uint64_t)i, (uint64_t)k);
        }
        on_device_adamw_update(&factors, COUNT, gradients, state[0][0], state[0][1], state[0][2]);
        adamw_update(&factors, COUNT, gradients, state[1][0], state[1][1], state[1][2]);
        assert_memory_equal(state[0], state[1], sizeof(state[0]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_losses_and_gradients),
        cmocka_unit_test(same_updates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
