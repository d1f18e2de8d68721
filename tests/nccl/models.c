/* SPDX-License-Identifier: Apache-2.0 */
/* See models.h. */
#include "models.h"

#include <math.h>
#include <stdlib.h>

const size_t model_counts[TENSORS] = {3, 1001, 0, 1, MOST, 17, 2049};
char model_stream;

static kolo_dtype dtype_of(int i)
{
    return i == 5 ? KOLO_FP64 : KOLO_FP32;
}

struct model model_make(kolo_comm *world, const kolo_reducer_options *options, bool views)
{
    struct model model = {.views = views};
    for (int i = 0; i < TENSORS; i++) {
        size_t bytes = (model_counts[i] + 1) * kolo_dtype_bytes(dtype_of(i));
        model.tensors[i] = (kolo_tensor){.count = model_counts[i], .dtype = dtype_of(i)};
        model.on_host[i] = model.tensors[i];
        if (views)
            continue;
        model.tensors[i].data = device_memory(bytes / 4);
        model.on_host[i].data = malloc(bytes);
        CHECK(model.on_host[i].data != NULL);
    }
    kolo_reducer_options of_host = *options, of_gpu = *options;
    of_host.stream = NULL;
    of_gpu.stream = &model_stream;
    if (views)
        release(device_memory(1)); /* the driver is there */
    CHECK(kolo_reducer_create(world, model.tensors, TENSORS, &of_gpu, &model.reducer) == KOLO_OK);
    CHECK(kolo_reducer_create(world, model.on_host, TENSORS, &of_host, &model.of_host) == KOLO_OK);
    return model;
}

void model_end(struct model *model)
{
    CHECK(kolo_reducer_free(model->reducer) == KOLO_OK);
    CHECK(kolo_reducer_free(model->of_host) == KOLO_OK);
    for (int i = 0; i < TENSORS && !model->views; i++) {
        release(model->tensors[i].data);
        free(model->on_host[i].data);
    }
}

void *model_data(const struct model *model, int tensor, bool of_gpu)
{
    const kolo_reducer *reducer = of_gpu ? model->reducer : model->of_host;
    return kolo_reducer_view(reducer, (size_t)tensor);
}

static float value_of(size_t i, int seed, bool eighths)
{
    if (eighths)
        return (float)((i * 7 + (size_t)seed * 13) % 101) / 8;
    unsigned bits = ((unsigned)i * 1664525U + (unsigned)seed * 22695477U + 1013904223U) >> 5;
    return ((float)(bits % 2000003U) - 1000001.0F) / 65521.0F;
}

void model_fill(struct model *model, int tensor, int seed, bool eighths)
{
    for (int of_gpu = 0; of_gpu < 2; of_gpu++) {
        void *data = model_data(model, tensor, of_gpu != 0);
        for (size_t i = 0; i < model_counts[tensor]; i++) {
            float value = value_of(i, seed, eighths);
            if (dtype_of(tensor) == KOLO_FP64)
                ((double *)data)[i] = value;
            else
                ((float *)data)[i] = value;
        }
    }
}

void model_step(struct model *model, int seed, bool eighths, unsigned used)
{
    for (int i = TENSORS - 1; i >= 0; i--) {
        model_fill(model, i, seed + i, eighths);
        if ((used >> i & 1) == 0)
            continue;
        CHECK(kolo_reducer_ready(model->reducer, (size_t)i) == KOLO_OK);
        CHECK(kolo_reducer_ready(model->of_host, (size_t)i) == KOLO_OK);
    }
    CHECK(kolo_reducer_wait(model->reducer, -1) == KOLO_OK);
    CHECK(kolo_reducer_wait(model->of_host, -1) == KOLO_OK);
}

double model_element(const kolo_tensor *tensor, const void *data, size_t i)
{
    return tensor->dtype == KOLO_FP64 ? ((const double *)data)[i]
                                      : (double)((const float *)data)[i];
}

void model_compare(const struct model *model, double tolerance)
{
    for (int t = 0; t < TENSORS; t++)
        for (size_t i = 0; i < model_counts[t]; i++) {
            double expected = model_element(&model->on_host[t], model_data(model, t, false), i);
            double found = model_element(&model->tensors[t], model_data(model, t, true), i);
            CHECK(fabs(found - expected) <= tolerance * fabs(expected));
        }
}

void model_same_as_host(kolo_comm *world, kolo_reducer_options options, bool eighths,
                        double tolerance)
{
    options.size = sizeof options;
    struct model model = model_make(world, &options, false);
    for (int s = 0; s < STEPS; s++) {
        model_step(&model, 10 * s + 5 * kolo_comm_rank(world), eighths, ~0U);
        model_compare(&model, tolerance);
        kolo_reducer_report report = {.size = sizeof report}, of_host = {.size = sizeof of_host};
        CHECK(kolo_reducer_get_report(model.reducer, &report) == KOLO_OK);
        CHECK(kolo_reducer_get_report(model.of_host, &of_host) == KOLO_OK);
        CHECK(report.step == (uint64_t)s + 1 && report.finite == of_host.finite);
        CHECK(fabs(report.norm - of_host.norm) <= 1e-12 * of_host.norm);
        CHECK(fabs(report.clip_factor - of_host.clip_factor) <= 1e-12);
    }
    model_end(&model);
}
