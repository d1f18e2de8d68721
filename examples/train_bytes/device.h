/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a rank computes: on its processor or on a GPU. Whatever touches an element of the model
 * goes through this table, so the order of layers (model.c), a step (step.c) and what travels
 * (parallel.c) are one code for both.
 *
 *   cpu    the layers of layers.c; a device's memory is the host's, and nothing is ever late
 *   cuda   libtrain_bytes_cuda.so (cuda/device.cu), which is loaded only then: kernels of its own
 *          and cuBLAS, all on one stream; kolo is given that stream, and orders its part by it
 *
 * Functions of a GPU only queue, but for those that say that they wait.
 */
#ifndef TRAIN_BYTES_DEVICE_H
#define TRAIN_BYTES_DEVICE_H

#include "optimizer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DEVICE_LAG_MOST = 2, DEVICE_WHY_BYTES = 256 };

struct device {
    const char *name;
    /* For kolo's calls: a cudaStream_t; NULL: the memory is the host's. */
    void *stream;
    /* Steps that may be under way before the host waits for the first of them. */
    int lag;
    /* What has failed so far; NULL: nothing. Whatever came after it is worth nothing. */
    const char *(*problem)(void);

    /* Memory. allocate: zeroed; NULL: there is no such room. */
    void *(*allocate)(size_t bytes);
    void (*release)(void *memory);
    void (*zero)(void *memory, size_t bytes);
    void (*copy)(void *to, const void *from, size_t bytes);
    /* From and to any memory of the host; both wait. */
    void (*put)(void *to, const void *host, size_t bytes);
    void (*get)(void *host, const void *from, size_t bytes);
    /* The same without waiting, of memory that allocate_host gave. What is put may be changed, and
     * what was got is there, once wait has returned for a mark that was set behind it. There are
     * lag + 1 marks. */
    void *(*allocate_host)(size_t bytes);
    void (*release_host)(void *memory);
    void (*put_later)(void *to, const void *host, size_t bytes);
    void (*get_later)(void *host, const void *from, size_t bytes);
    void (*mark)(int which);
    void (*wait)(int which);

    /* Layers: see layers.h. */
    void (*embedding_forward)(int rows, int width, const float *table, const uint8_t *tokens,
                              float *y);
    void (*embedding_backward)(int rows, int width, const uint8_t *tokens, const float *dy,
                               float *dtable);
    void (*linear_forward)(int rows, int in, int out, const float *x, const float *w, float *y);
    void (*linear_forward_add)(int rows, int in, int out, const float *x, const float *w, float *y);
    void (*linear_backward)(int rows, int in, int out, const float *x, const float *w,
                            const float *dy, float *dx, float *dw);
    void (*rms_norm_forward)(int rows, int width, const float *x, const float *gain, float *y,
                             float *inverse_rms);
    void (*rms_norm_backward)(int rows, int width, const float *x, const float *gain,
                              const float *inverse_rms, const float *dy, float *dx, float *dgain);
    void (*rotary_turn)(int length, int width, int heads, const float *cosine, const float *sine,
                        int direction, float *qkv);
    void (*attention_forward)(int length, int width, int heads, const float *qkv,
                              float *probability, float *y);
    void (*attention_backward)(int length, int width, int heads, const float *qkv,
                               const float *probability, const float *dy, float *scratch,
                               float *dqkv);
    void (*gelu_forward)(int count, const float *x, float *y);
    void (*gelu_backward)(int count, const float *x, float *dy);
    void (*cross_entropy_forward)(int rows, int classes, const float *logits, const uint8_t *target,
                                  float *loss);
    void (*cross_entropy_backward)(int rows, int classes, float scale, const uint8_t *target,
                                   float *logits);
    void (*add_losses)(int count, const float *loss, double scale, double *sum);
    void (*adamw_update)(const struct adamw_factors *factors, size_t count, const float *gradients,
                         float *parameters, float *mean, float *variance);
};

extern const struct device device_cpu;

/* "cpu", or "cuda": the local_rank-th GPU, begun. NULL with the reason and the remedy in why. */
const struct device *device_open(const char *name, int local_rank, char why[DEVICE_WHY_BYTES]);

/* libtrain_bytes_cuda.so's one exported name, train_bytes_cuda_open. */
typedef const struct device *device_module_open(int local_rank, char *why);

#endif
