/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A variant is the whole set of kernels compiled for one instruction set: one file that says so and
 * then includes kernels/cpu/all_dtypes.h. All variants give the same bits, since an element-wise
 * operation does not depend on the width of a vector, and nothing is contracted or reordered.
 */
#ifndef KOLO_KERNELS_CPU_VARIANT_H
#define KOLO_KERNELS_CPU_VARIANT_H

#include "kernels/kernels.h"
#include "kernels/pack.h"

/* As kolo__reduce_to_many, for one dtype; the arguments were checked. What is streamed still waits
 * for a fence. */
typedef void kolo__reduce_function(const struct kolo__reduction *reduction, void *const *to,
                                   uint32_t to_count, const void *const *sources,
                                   uint32_t source_count, size_t count);

/* Copies past the caches; disjoint. No fence behind it. */
typedef void kolo__stream_function(void *to, const void *from, size_t bytes);

/* As kolo__widen or kolo__narrow, for one format. */
typedef void kolo__cast_function(void *to, const void *from, size_t count);

struct kolo__cpu_variant {
    const char *name;
    bool (*supported)(void); /* by the processor this runs on */
    kolo__reduce_function *reduce[KOLO_DTYPE_COUNT];
    kolo__stream_function *stream;
    kolo__cast_function *widen[KOLO__NARROW_COUNT];
    kolo__cast_function *narrow[KOLO__NARROW_COUNT];
    /* The loops of kernels/pack.c (kernels/cpu/packs.h). */
    void (*pack_scaled)(float *to, const void *from, const float *error, float scale, size_t count);
    void (*pack_residual)(float *error, const float *wanted, const float *sent, size_t count);
    void (*norm_fp32)(double *lanes, const void *data, size_t count, bool *not_finite);
    void (*norm_fp64)(double *lanes, const void *data, size_t count, bool *not_finite);
    void (*scale_fp32)(void *data, size_t count, double factor);
    void (*scale_fp64)(void *data, size_t count, double factor);
    uint32_t (*absolute_max)(const void *data, size_t count); /* the bits of it */
};

/* Best first; the last one runs everywhere. Ends with NULL. */
extern const struct kolo__cpu_variant *const kolo__cpu_variants[];
/* The best that runs here. */
const struct kolo__cpu_variant *kolo__cpu_best(void);

extern const struct kolo__cpu_variant kolo__cpu_portable;
#if defined(__x86_64__)
extern const struct kolo__cpu_variant kolo__cpu_avx2;
extern const struct kolo__cpu_variant kolo__cpu_avx512;
#elif defined(__aarch64__)
extern const struct kolo__cpu_variant kolo__cpu_neon;
#endif

/* Streamed stores are not ordered by a release store: on x86 they need this first. */
static inline void kolo__finish_streaming(void)
{
#if defined(__x86_64__)
    __builtin_ia32_sfence();
#endif
}

#endif
