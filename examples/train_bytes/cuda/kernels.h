/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loops of layers.c for a GPU, taken apart into what a thread does: C that nvcc compiles into
 * kernels, and any compiler for a test on the processor, which runs it thread by thread
 * (tests/integration/train/cuda_twin_test.c). Matrix products are cuBLAS's, so not here.
 *
 *   elements   a thread each:        name_element(work, i)
 *   rows       a block of ROW_THREADS each, in three phases with a reduction in between:
 *                name_largest(work, row, thread)                 largest of all threads'
 *                name_sum(work, row, thread, largest)            sum of all threads'
 *                name_apply(work, row, thread, largest, sum)
 *
 * What is added to by several positions (gains, the embedding) has a thread for each column, which
 * goes over positions in their order: so a step's bits are the same in every run.
 */
#ifndef TRAIN_BYTES_CUDA_KERNELS_H
#define TRAIN_BYTES_CUDA_KERNELS_H

#include "optimizer.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__CUDACC__)
#define WORK static __device__ __forceinline__
#else
#define WORK static inline __attribute__((unused))
#endif

enum { ROW_THREADS = 128 };

/* Lists of both kinds: X(name). */
#define ELEMENT_KERNELS(X)                                                                         \
    X(embed)                                                                                       \
    X(embed_back)                                                                                  \
    X(gains_back)                                                                                  \
    X(rotate)                                                                                      \
    X(gelu)                                                                                        \
    X(gelu_back)                                                                                   \
    X(add_loss)                                                                                    \
    X(adam)
#define ROW_KERNELS(X)                                                                             \
    X(rms)                                                                                         \
    X(rms_back)                                                                                    \
    X(softmax)                                                                                     \
    X(softmax_back)                                                                                \
    X(entropy)                                                                                     \
    X(entropy_back)

/* ---- elements -------------------------------------------------------------------------------- */

struct embed_work {
    const float *table;
    const uint8_t *tokens;
    float *y;
    int width;
};
WORK void embed_element(const struct embed_work *w, size_t i)
{
    size_t row = i / (size_t)w->width, column = i % (size_t)w->width;
    w->y[i] = w->table[w->tokens[row] * (size_t)w->width + column];
}

struct embed_back_work {
    const uint8_t *tokens;
    const float *dy;
    float *dtable;
    int rows, width;
};
WORK void embed_back_element(const struct embed_back_work *w, size_t column)
{
    for (int row = 0; row < w->rows; row++)
        w->dtable[w->tokens[row] * (size_t)w->width + column] +=
            w->dy[(size_t)row * (size_t)w->width + column];
}

struct gains_back_work {
    const float *x, *dy, *inverse_rms;
    float *dgain;
    int rows, width;
};
WORK void gains_back_element(const struct gains_back_work *w, size_t column)
{
    float sum = w->dgain[column];
    for (int row = 0; row < w->rows; row++) {
        size_t at = (size_t)row * (size_t)w->width + column;
        sum += w->dy[at] * w->x[at] * w->inverse_rms[row];
    }
    w->dgain[column] = sum;
}

/* Of pairs: length * 2 * heads * half. */
struct rotate_work {
    const float *cosine, *sine;
    float *qkv;
    int width, heads, direction;
};
WORK void rotate_element(const struct rotate_work *w, size_t pair)
{
    size_t half = (size_t)(w->width / w->heads / 2), each = 2 * (size_t)w->heads * half;
    size_t t = pair / each, head = pair % each / half, i = pair % half;
    float *low = w->qkv + t * 3 * (size_t)w->width + head * 2 * half + i, *high = low + half;
    float a = *low, b = *high, c = w->cosine[t * half + i];
    float s = (float)w->direction * w->sine[t * half + i];
    *low = a * c - b * s;
    *high = a * s + b * c;
}

WORK float gelu_gate_of(float x)
{
    return 1.0F / (1.0F + expf(-1.59576912F * (x + 0.044715F * x * x * x)));
}

struct gelu_work {
    const float *x;
    float *y;
};
WORK void gelu_element(const struct gelu_work *w, size_t i)
{
    w->y[i] = w->x[i] * gelu_gate_of(w->x[i]);
}

struct gelu_back_work {
    const float *x;
    float *dy;
};
WORK void gelu_back_element(const struct gelu_back_work *w, size_t i)
{
    float x = w->x[i], gate = gelu_gate_of(x);
    float slope = 1.59576912F * (1.0F + 3 * 0.044715F * x * x);
    w->dy[i] *= gate + x * gate * (1 - gate) * slope;
}

/* One element: the sum, in the order of positions. */
struct add_loss_work {
    const float *loss;
    double scale, *sum;
    int count;
};
WORK void add_loss_element(const struct add_loss_work *w, size_t i)
{
    double sum = *w->sum;
    for (int t = 0; t < w->count && i == 0; t++)
        sum += w->loss[t] * w->scale;
    *w->sum = sum;
}

struct adam_work {
    const float *gradients;
    float *parameters, *mean, *variance;
    struct adamw_factors f;
};
WORK void adam_element(const struct adam_work *w, size_t i)
{
    const struct adamw_factors f = w->f;
    float g = w->gradients[i] * f.scale;
    float mean = f.beta1 * w->mean[i] + (1 - f.beta1) * g;
    float variance = f.beta2 * w->variance[i] + (1 - f.beta2) * g * g;
    float direction = mean * f.unbias_mean / (sqrtf(variance * f.unbias_variance) + 1e-8F);
    w->mean[i] = mean;
    w->variance[i] = variance;
    w->parameters[i] -= f.rate * (direction + f.decay * w->parameters[i]);
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* Where no largest is needed. */
#define NO_LARGEST(name)                                                                           \
    WORK float name##_largest(const struct name##_work *w, size_t row, int thread)                 \
    {                                                                                              \
        (void)w, (void)row, (void)thread;                                                          \
        return 0;                                                                                  \
    }

/* Of `count` numbers from x on, a thread's. */
WORK float largest_in(const float *x, int count, int thread)
{
    float largest = -INFINITY;
    for (int i = thread; i < count; i += ROW_THREADS)
        largest = x[i] > largest ? x[i] : largest;
    return largest;
}

WORK float exponentials_in(const float *x, int count, int thread, float largest)
{
    float sum = 0;
    for (int i = thread; i < count; i += ROW_THREADS)
        sum += expf(x[i] - largest);
    return sum;
}

struct rms_work {
    const float *x, *gain;
    float *y, *inverse_rms;
    int width;
};
NO_LARGEST(rms)
WORK float rms_sum(const struct rms_work *w, size_t row, int thread, float largest)
{
    const float *x = w->x + row * (size_t)w->width;
    float sum = 0;
    (void)largest;
    for (int i = thread; i < w->width; i += ROW_THREADS)
        sum += x[i] * x[i];
    return sum;
}
WORK void rms_apply(const struct rms_work *w, size_t row, int thread, float largest, float sum)
{
    const float *x = w->x + row * (size_t)w->width;
    float *y = w->y + row * (size_t)w->width;
    float inverse = 1.0F / sqrtf(sum / (float)w->width + 1e-6F);
    (void)largest;
    if (thread == 0)
        w->inverse_rms[row] = inverse;
    for (int i = thread; i < w->width; i += ROW_THREADS)
        y[i] = w->gain[i] * x[i] * inverse;
}

struct rms_back_work {
    const float *x, *gain, *inverse_rms, *dy;
    float *dx;
    int width;
};
NO_LARGEST(rms_back)
WORK float rms_back_sum(const struct rms_back_work *w, size_t row, int thread, float largest)
{
    const float *x = w->x + row * (size_t)w->width, *dy = w->dy + row * (size_t)w->width;
    float sum = 0;
    (void)largest;
    for (int i = thread; i < w->width; i += ROW_THREADS)
        sum += w->gain[i] * dy[i] * x[i];
    return sum;
}
WORK void rms_back_apply(const struct rms_back_work *w, size_t row, int thread, float largest,
                         float sum)
{
    const float *x = w->x + row * (size_t)w->width, *dy = w->dy + row * (size_t)w->width;
    float *dx = w->dx + row * (size_t)w->width, inverse = w->inverse_rms[row];
    float along = sum * inverse * inverse * inverse / (float)w->width;
    (void)largest;
    for (int i = thread; i < w->width; i += ROW_THREADS)
        dx[i] += w->gain[i] * dy[i] * inverse - x[i] * along;
}

/* Scores of all heads, [heads][length][length]: row t of each sees positions 0..t. */
struct softmax_work {
    float *scores;
    int length;
};
WORK float softmax_largest(const struct softmax_work *w, size_t row, int thread)
{
    int seen = (int)(row % (size_t)w->length) + 1;
    return largest_in(w->scores + row * (size_t)w->length, seen, thread);
}
WORK float softmax_sum(const struct softmax_work *w, size_t row, int thread, float largest)
{
    int seen = (int)(row % (size_t)w->length) + 1;
    return exponentials_in(w->scores + row * (size_t)w->length, seen, thread, largest);
}
WORK void softmax_apply(const struct softmax_work *w, size_t row, int thread, float largest,
                        float sum)
{
    float *x = w->scores + row * (size_t)w->length, inverse = 1.0F / sum;
    int seen = (int)(row % (size_t)w->length) + 1;
    for (int i = thread; i < w->length; i += ROW_THREADS)
        x[i] = i < seen ? expf(x[i] - largest) * inverse : 0;
}

/* ds = p (dp - sum(p dp)), in place of dp. */
struct softmax_back_work {
    const float *probability;
    float *scores;
    int length;
};
NO_LARGEST(softmax_back)
WORK float softmax_back_sum(const struct softmax_back_work *w, size_t row, int thread,
                            float largest)
{
    const float *p = w->probability + row * (size_t)w->length;
    const float *x = w->scores + row * (size_t)w->length;
    float sum = 0;
    (void)largest;
    for (int i = thread; i < w->length; i += ROW_THREADS) /* p is 0 beyond what the row sees */
        sum += p[i] * x[i];
    return sum;
}
WORK void softmax_back_apply(const struct softmax_back_work *w, size_t row, int thread,
                             float largest, float sum)
{
    const float *p = w->probability + row * (size_t)w->length;
    float *x = w->scores + row * (size_t)w->length;
    (void)largest;
    for (int i = thread; i < w->length; i += ROW_THREADS)
        x[i] = p[i] * (x[i] - sum);
}

struct entropy_work {
    const float *logits;
    const uint8_t *target;
    float *loss;
    int classes;
};
WORK float entropy_largest(const struct entropy_work *w, size_t row, int thread)
{
    return largest_in(w->logits + row * (size_t)w->classes, w->classes, thread);
}
WORK float entropy_sum(const struct entropy_work *w, size_t row, int thread, float largest)
{
    return exponentials_in(w->logits + row * (size_t)w->classes, w->classes, thread, largest);
}
WORK void entropy_apply(const struct entropy_work *w, size_t row, int thread, float largest,
                        float sum)
{
    if (thread == 0)
        w->loss[row] = largest + logf(sum) - w->logits[row * (size_t)w->classes + w->target[row]];
}

struct entropy_back_work {
    float *logits;
    const uint8_t *target;
    float scale;
    int classes;
};
WORK float entropy_back_largest(const struct entropy_back_work *w, size_t row, int thread)
{
    return largest_in(w->logits + row * (size_t)w->classes, w->classes, thread);
}
WORK float entropy_back_sum(const struct entropy_back_work *w, size_t row, int thread,
                            float largest)
{
    return exponentials_in(w->logits + row * (size_t)w->classes, w->classes, thread, largest);
}
WORK void entropy_back_apply(const struct entropy_back_work *w, size_t row, int thread,
                             float largest, float sum)
{
    float *x = w->logits + row * (size_t)w->classes, inverse = 1.0F / sum;
    for (int i = thread; i < w->classes; i += ROW_THREADS) {
        float p = expf(x[i] - largest) * inverse;
        x[i] = (i == w->target[row] ? p - 1 : p) * w->scale;
    }
}

#endif
