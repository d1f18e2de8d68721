/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parameters of models that people train: what `kolo bench reducer` has gradients of. All fp32,
 * in the order in which a forward pass uses them; gradients get ready in the reverse order.
 */
#ifndef KOLO_BENCH_MODELS_H
#define KOLO_BENCH_MODELS_H

#include <stddef.h>

enum { BENCH_MODELS = 3, BENCH_TENSORS_MAX = 1000, BENCH_DIMENSIONS_MAX = 4 };

struct bench_parameter {
    char name[32];
    int dimensions;
    size_t shape[BENCH_DIMENSIONS_MAX];
    size_t count; /* the product of shape */
};

struct bench_parameters {
    size_t count;
    struct bench_parameter list[BENCH_TENSORS_MAX];
};

struct bench_model {
    const char *name;
    void (*list)(struct bench_parameters *parameters);
};

extern const struct bench_model bench_models[BENCH_MODELS];

#endif
