/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Element-wise kernels on host memory. Scalar code is the reference; every other variant gives the
 * same bits. Sources and destination may be the same memory or disjoint, never partly overlapping; alignment
 * to the element is not required. Nothing here allocates or fails: wrong arguments hit an assertion.
 */
#ifndef KOLO_KERNELS_KERNELS_H
#define KOLO_KERNELS_KERNELS_H

#include <kolo/kolo.h>
#include <stdbool.h>

enum { KOLO__REDUCE_SOURCES_MAX = 16384 };

struct kolo__reduction {
    kolo_dtype dtype;
    kolo_op op;
    /* Divide the result by this (AVERAGE's last step); 1: leave. Integers truncate toward zero. */
    uint32_t divisor;
    /* PREMUL_SUM: sources[i] is multiplied by scales[i] before it is added; NULL: no scaling. */
    const double *scales;
};

/* to[k] = (((sources[0][k] op sources[1][k]) op sources[2][k]) ...) / divisor, for k < count.
 * 16-bit types: converted to fp32, combined in fp32, rounded once to nearest even at the end.
 * fp32 is combined in fp32, fp64 in fp64. AVERAGE combines as SUM. PREMUL_SUM: scale is cast to fp32 (fp64 for fp64) first.
 * NaN wins in MIN and MAX. to may be any of the sources. */
void kolo__reduce(const struct kolo__reduction *reduction, void *to, const void *const *sources,
                  uint32_t source_count, size_t count);

/* True when the op is defined for the dtype (AND/OR/XOR: integers; PREMUL_SUM: floats). */
bool kolo__reduction_defined(kolo_dtype dtype, kolo_op op);

float kolo__fp16_to_fp32(uint16_t bits);
uint16_t kolo__fp16_from_fp32(float value); /* nearest even; overflow to infinity; NaN stays NaN */
float kolo__bf16_to_fp32(uint16_t bits);
uint16_t kolo__bf16_from_fp32(float value);

#endif
