/* SPDX-License-Identifier: Apache-2.0 */
/* The GPU's layers of train_bytes (cuda/kernels.h, cuda/composition.h) on a processor: element by
 * element, and rows thread by thread, phase by phase. Included once by each test. */
#ifndef TESTS_TRAIN_CUDA_TWIN_H
#define TESTS_TRAIN_CUDA_TWIN_H

#include "cuda/kernels.h"

#include <cblas.h>
#include <stdbool.h>

#define ELEMENTS(name, count, ...)                                                                 \
    do {                                                                                           \
        const struct name##_work work = {__VA_ARGS__};                                             \
        size_t elements = (count);                                                                 \
        for (size_t i = 0; i < elements; i++)                                                      \
            name##_element(&work, i);                                                              \
    } while (0)

#define ROWS(name, count, ...)                                                                     \
    do {                                                                                           \
        const struct name##_work work = {__VA_ARGS__};                                             \
        for (size_t row = 0; row < (count); row++) {                                               \
            float largest = -INFINITY, sum = 0;                                                    \
            for (int thread = 0; thread < ROW_THREADS; thread++)                                   \
                largest = fmaxf(largest, name##_largest(&work, row, thread));                      \
            for (int thread = 0; thread < ROW_THREADS; thread++)                                   \
                sum += name##_sum(&work, row, thread, largest);                                    \
            for (int thread = 0; thread < ROW_THREADS; thread++)                                   \
                name##_apply(&work, row, thread, largest, sum);                                    \
        }                                                                                          \
    } while (0)

#include "cuda/composition.h"

static void products(int batch, int rows, int columns, int inner, float alpha, struct matrix a,
                     struct matrix b, float beta, float *c, int leading, int64_t next)
{
    for (int i = 0; i < batch; i++)
        cblas_sgemm(CblasRowMajor, a.transposed ? CblasTrans : CblasNoTrans,
                    b.transposed ? CblasTrans : CblasNoTrans, rows, columns, inner, alpha,
                    a.data + i * a.next, a.leading, b.data + i * b.next, b.leading, beta,
                    c + i * next, leading);
}

#endif
