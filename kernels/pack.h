/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What gradient fusion does with elements besides adding them: packing into what travels and back,
 * with a scale, a cast and a norm in the same pass over memory. All variants give the same bits: a
 * NaN that comes out of arithmetic is the positive quiet one with an empty payload, and one that
 * was only copied or cast (scale 1, no error) keeps its own. Alignment to the element is not
 * required, but for `error`. As in kernels.h, nothing allocates or fails.
 */
#ifndef KOLO_KERNELS_PACK_H
#define KOLO_KERNELS_PACK_H

#include "kernels/kernels.h"

struct kolo__packing {
    kolo_dtype dtype; /* of the tensor: fp16, bf16, fp32, fp64 */
    bool narrows;     /* fp32 only: travels as `wire`; otherwise as it is */
    enum kolo__narrow_float wire;
    double scale; /* multiplies before narrowing, or after widening; 1: leave. As factor below */
};

/* to[k] = narrow(scale * from[k] + error[k]); error[k] = what narrowing took from that, exactly
 * where nothing saturates. error NULL: none is kept; only where narrows. 0 is kept for what is not
 * finite or overflows to infinity, so that one bad step does not spoil the next. Disjoint; to may
 * be from where nothing narrows. */
void kolo__pack(const struct kolo__packing *packing, void *to, const void *from, float *error,
                size_t count);

/* Squares in fp64 in lanes: element k goes to lane k % KOLO__NORM_LANES. Calls say which element is
 * their first, so that a norm does not depend on how a tensor is cut; what follows in the same
 * order gives the same bits on every machine. Zeroed, it is empty. */
enum { KOLO__NORM_LANES = 16 };
struct kolo__norm {
    double lanes[KOLO__NORM_LANES];
    bool not_finite; /* some element was NaN or infinite */
};

/* to[k] = scale * widen(from[k]); norm, unless NULL, gets what was written. Disjoint; to may be
 * from where nothing narrows. */
void kolo__unpack(const struct kolo__packing *packing, void *to, const void *from,
                  struct kolo__norm *norm, size_t first, size_t count);

void kolo__norm_add(struct kolo__norm *norm, kolo_dtype dtype, const void *data, size_t first,
                    size_t count);
/* The sum of squares, of lanes in their order. */
double kolo__norm_total(const struct kolo__norm *norm);

/* data[k] *= factor, which is cast to fp32 but for fp64; rounded to nearest even. */
void kolo__scale(kolo_dtype dtype, void *data, size_t count, double factor);

/* Of fp32, the largest absolute value; NaN wins. */
float kolo__absolute_max(const void *data, size_t count);

/* to[k] = narrow(sum of widen(sources[i][k]), in the order of i and in fp32, / divisor). to may be
 * one of the sources. */
void kolo__sum_narrow(enum kolo__narrow_float wire, void *to, const void *const *sources,
                      uint32_t source_count, uint32_t divisor, size_t count);

#endif
