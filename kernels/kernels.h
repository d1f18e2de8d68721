/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Element-wise kernels on host memory. Scalar code is the reference; every other variant gives the
 * same bits. Sources and destination may be the same memory or disjoint, never partly overlapping;
 * alignment to the element is not required. Nothing here allocates or fails: wrong arguments hit an
 * assertion.
 */
#ifndef KOLO_KERNELS_KERNELS_H
#define KOLO_KERNELS_KERNELS_H

#include <kolo/kolo.h>
#include <stdbool.h>

enum { KOLO__REDUCE_SOURCES_MAX = 16384, KOLO__REDUCE_DESTINATIONS_MAX = 16384 };

struct kolo__reduction {
    kolo_dtype dtype;
    kolo_op op;
    /* Divide the result by this (AVERAGE's last step); 1: leave. Integers truncate toward zero. */
    uint32_t divisor;
    /* PREMUL_SUM: sources[i] is multiplied by scales[i] before it is added; NULL: no scaling. */
    const double *scales;
    /* Write past the caches, with the same bits: for results that nobody reads soon, in memory that
     * is in no cache. Never for destinations that are sources: their lines were just read, and
     * writing past them took 1.4 to 4.5 times as long (medians, one Zen 4 machine). */
    bool streaming;
};

/* to[k] = (((sources[0][k] op sources[1][k]) op sources[2][k]) ...) / divisor, for k < count.
 * 16-bit types: converted to fp32, combined in fp32, rounded once to nearest even at the end.
 * fp32 is combined in fp32, fp64 in fp64. AVERAGE combines as SUM. PREMUL_SUM: scale is cast to
 * fp32 (fp64 for fp64), scale * x is rounded, then added. Other ops ignore scales. The divisor is
 * cast to the type of the accumulator; a float is truly divided, not multiplied by a reciprocal.
 * NaN wins in MIN and MAX, and -0 is less than +0. A NaN that comes out is always the positive
 * quiet NaN with an empty payload, so that sources in another order give the same bits; only one
 * source without scale and divisor is copied as it is. to may be any of the sources. */
void kolo__reduce(const struct kolo__reduction *reduction, void *to, const void *const *sources,
                  uint32_t source_count, size_t count);

/* The same result in each of to[0 .. to_count), in one pass over the sources. Destinations are
 * disjoint from each other; each may be any of the sources. What was streamed is visible to whoever
 * sees a later release store of this thread. */
void kolo__reduce_to_many(const struct kolo__reduction *reduction, void *const *to,
                          uint32_t to_count, const void *const *sources, uint32_t source_count,
                          size_t count);

/* memcpy, or with streaming past the caches, as struct kolo__reduction has it. Disjoint, or to ==
 * from, which does nothing. */
void kolo__copy(void *to, const void *from, size_t bytes, bool streaming);

/* Floats narrower than fp32. The 8-bit ones (OCP 8-bit floating point specification) only travel.
 */
enum kolo__narrow_float {
    KOLO__NARROW_FP16,
    KOLO__NARROW_BF16,
    KOLO__NARROW_E4M3, /* e4m3fn: no infinity, largest 448 */
    KOLO__NARROW_E5M2, /* largest 57344 */
    KOLO__NARROW_COUNT
};

/* Casts of arrays, disjoint, of any alignment. Widening is exact. Narrowing rounds to nearest even;
 * beyond the largest, 16 bits overflow to infinity, 8 bits saturate if the value is finite. An
 * infinity stays one, or becomes NaN in e4m3fn: it is never hidden. NaN stays NaN. */
void kolo__widen(enum kolo__narrow_float format, void *to_fp32, const void *from, size_t count);
void kolo__narrow(enum kolo__narrow_float format, void *to, const void *from_fp32, size_t count);

/* True when the op is defined for the dtype (AND/OR/XOR: integers; PREMUL_SUM: floats). */
bool kolo__reduction_defined(kolo_dtype dtype, kolo_op op);

/* Read the words that kolo_dtype_name and kolo_op_name write. False: text is none of them, and the
 * output is untouched. */
bool kolo__dtype_parse(const char *text, kolo_dtype *dtype);
bool kolo__op_parse(const char *text, kolo_op *op);

/* Exact on integers alone or on exact float steps: the rounding mode and flush-to-zero of the
 * thread change nothing. A NaN keeps its sign and upper payload and comes out quiet. */
float kolo__fp16_to_fp32(uint16_t bits);
uint16_t kolo__fp16_from_fp32(float value); /* nearest even; overflow to infinity; NaN stays NaN */
float kolo__bf16_to_fp32(uint16_t bits);
uint16_t kolo__bf16_from_fp32(float value);

#endif
