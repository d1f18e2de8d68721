/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Template, part of lanes.h: every NaN becomes the same one before it is rounded.
 *
 * Which of two NaNs an addition hands on depends on how a compiler ordered its operands. NaNs are
 * rare, so four vectors are asked at once, by comparisons of two each (unordered: either is NaN),
 * and all are mended where any has one. Where that asks for more than it saves, the answer is true:
 * they are always mended.
 */
#ifndef KOLO_KERNELS_CPU_NAN_H
#define KOLO_KERNELS_CPU_NAN_H

static INLINE lanes_float one_nan_fp32(lanes_float a)
{
    lanes_uint32 is_nan = (lanes_uint32)(a != a);
    return (lanes_float)(((lanes_uint32)a & ~is_nan) | (0x7fc00000u & is_nan));
}

static INLINE lanes_double one_nan_fp64(lanes_double a)
{
    lanes_uint64 is_nan = (lanes_uint64)(a != a);
    return (lanes_double)(((lanes_uint64)a & ~is_nan) | (UINT64_C(0x7ff8000000000000) & is_nan));
}

static INLINE struct lanes_pair one_nan_pair(struct lanes_pair a)
{
    return (struct lanes_pair){one_nan_fp32(a.low), one_nan_fp32(a.high)};
}

static INLINE bool any_nan_fp32(lanes_float a, lanes_float b, lanes_float c, lanes_float d)
{
#if defined(LANES_FP16_AVX512)
    return (_mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_UNORD_Q) |
            _mm512_cmp_ps_mask((__m512)c, (__m512)d, _CMP_UNORD_Q)) != 0;
#elif defined(LANES_FP16_F16C)
    return _mm256_movemask_ps(_mm256_or_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_UNORD_Q),
                                           _mm256_cmp_ps((__m256)c, (__m256)d, _CMP_UNORD_Q))) != 0;
#elif defined(__x86_64__)
    return _mm_movemask_ps(_mm_or_ps(_mm_cmpunord_ps((__m128)a, (__m128)b),
                                     _mm_cmpunord_ps((__m128)c, (__m128)d))) != 0;
#else
    (void)a, (void)b, (void)c, (void)d;
    return true;
#endif
}

static INLINE bool any_nan_fp64(lanes_double a, lanes_double b, lanes_double c, lanes_double d)
{
#if defined(LANES_FP16_AVX512)
    return (_mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_UNORD_Q) |
            _mm512_cmp_pd_mask((__m512d)c, (__m512d)d, _CMP_UNORD_Q)) != 0;
#elif defined(__x86_64__) && !defined(LANES_FP16_F16C)
    return _mm_movemask_pd(_mm_or_pd(_mm_cmpunord_pd((__m128d)a, (__m128d)b),
                                     _mm_cmpunord_pd((__m128d)c, (__m128d)d))) != 0;
#else
    (void)a, (void)b, (void)c, (void)d;
    return true;
#endif
}

/* For a sum of fp32 itself, asking takes AVX2 longer than mending does. */
static INLINE bool any_nan_alone_fp32(lanes_float a, lanes_float b, lanes_float c, lanes_float d)
{
#if defined(LANES_FP16_F16C)
    (void)a, (void)b, (void)c, (void)d;
    return true;
#else
    return any_nan_fp32(a, b, c, d);
#endif
}

static INLINE bool any_nan_pair(struct lanes_pair a, struct lanes_pair b, struct lanes_pair c,
                                struct lanes_pair d)
{
    /* Integers: one branch for both. */
    const int first = any_nan_fp32(a.low, a.high, b.low, b.high);
    const int second = any_nan_fp32(c.low, c.high, d.low, d.high);
    return (first | second) != 0;
}

#endif
