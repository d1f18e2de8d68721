/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: vectors of LANES bytes (a variant says how many), in the vector extensions that GCC and
 * Clang share, and how each float dtype is read into them and rounded out of them. Intrinsics stand
 * only where there is an instruction for what takes several otherwise.
 *
 * A vector of 16-bit elements becomes a pair of fp32 vectors, in whatever order is cheapest:
 *
 *     bf16  | e0 | o0 | e1 | o1 | ...   low: e0 e1 ... (shifted up)   high: o0 o1 ... (masked)
 *     fp16  | 0 1 2 ...               | low: the first half           high: the second
 */
#ifndef KOLO_KERNELS_CPU_LANES_H
#define KOLO_KERNELS_CPU_LANES_H

#include "kernels/cpu/float16.h"

#include <stdbool.h>
#include <stddef.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))

typedef uint8_t lanes_uint8 __attribute__((vector_size(LANES)));
typedef uint16_t lanes_uint16 __attribute__((vector_size(LANES)));
typedef int16_t lanes_int16 __attribute__((vector_size(LANES)));
typedef int32_t lanes_int32 __attribute__((vector_size(LANES)));
typedef uint32_t lanes_uint32 __attribute__((vector_size(LANES)));
typedef uint64_t lanes_uint64 __attribute__((vector_size(LANES)));
typedef float lanes_float __attribute__((vector_size(LANES)));
typedef double lanes_double __attribute__((vector_size(LANES)));

/* Users' memory: any alignment. */
#define UNALIGNED __attribute__((aligned(1), may_alias))
typedef lanes_uint8 unaligned_lanes_uint8 UNALIGNED;
typedef lanes_uint16 unaligned_lanes_uint16 UNALIGNED;
typedef lanes_uint32 unaligned_lanes_uint32 UNALIGNED;
typedef lanes_uint64 unaligned_lanes_uint64 UNALIGNED;
typedef lanes_float unaligned_lanes_float UNALIGNED;
typedef lanes_double unaligned_lanes_double UNALIGNED;
#undef UNALIGNED

struct lanes_pair {
    lanes_float low, high;
};

#include "kernels/cpu/nan.h"

/* ---- read and round: what is rounded has no NaN but the one that nan.h makes ------------ */

static INLINE lanes_float load_lanes_fp32(const void *from)
{
    return *(const unaligned_lanes_float *)from;
}

static INLINE lanes_uint64 round_lanes_fp32(lanes_float a)
{
    return (lanes_uint64)a;
}

static INLINE lanes_double load_lanes_fp64(const void *from)
{
    return *(const unaligned_lanes_double *)from;
}

static INLINE lanes_uint64 round_lanes_fp64(lanes_double a)
{
    return (lanes_uint64)a;
}

/* A signaling NaN stays one until it is added or multiplied. */
static INLINE struct lanes_pair load_lanes_bf16(const void *from)
{
    lanes_uint32 both = *(const unaligned_lanes_uint32 *)from;
    return (struct lanes_pair){(lanes_float)(both << 16), (lanes_float)(both & 0xffff0000u)};
}

/* To nearest even, in 16-bit lanes: `kept` are the upper halves of the fp32 bits, `rest` the lower.
 *
 *     rest > half                    up            one comparison for both: with an odd `kept`
 *     rest = half and kept is odd    up            the last bit of `rest` is set
 */
static INLINE lanes_uint64 round_lanes_bf16(struct lanes_pair a)
{
    lanes_uint32 low = (lanes_uint32)a.low, high = (lanes_uint32)a.high;
#if defined(LANES_FP16_AVX512)
    const __mmask32 odd_lanes = 0xaaaaaaaau;
    __m512i kept =
        _mm512_mask_mov_epi16(_mm512_srli_epi32((__m512i)low, 16), odd_lanes, (__m512i)high);
    __m512i rest =
        _mm512_mask_mov_epi16((__m512i)low, odd_lanes, _mm512_slli_epi32((__m512i)high, 16));
    /* (kept & 1) | rest */
    rest = _mm512_ternarylogic_epi32(kept, _mm512_set1_epi16(1), rest, 0xea);
    __mmask32 up = _mm512_cmpgt_epu16_mask(rest, _mm512_set1_epi16((short)0x8000));
    return (lanes_uint64)_mm512_mask_add_epi16(kept, up, kept, _mm512_set1_epi16(1));
#else
    lanes_uint16 kept = (lanes_uint16)((low >> 16) | (high & 0xffff0000u));
    lanes_uint16 rest = (lanes_uint16)((low & 0xffffu) | (high << 16));
    /* Bits 0x8000 turned, so that a signed comparison does. */
    lanes_int16 turned = (lanes_int16)(((kept & 1) | rest) ^ 0x8000);
    lanes_uint16 up = (lanes_uint16)(turned > 0);
    return (lanes_uint64)(kept - up);
#endif
}

#if defined(LANES_FP16_AVX512)

static INLINE struct lanes_pair load_lanes_fp16(const void *from)
{
    const unsigned char *at = from;
    return (struct lanes_pair){
        (lanes_float)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)at)),
        (lanes_float)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(at + 32)))};
}

/* Rounded they stay two halves: joining them costs more than storing both. */
typedef struct {
    __m256i low, high;
} lanes_fp16;

static INLINE lanes_fp16 round_lanes_fp16(struct lanes_pair a)
{
    return (lanes_fp16){
        _mm512_cvtps_ph((__m512)a.low, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
        _mm512_cvtps_ph((__m512)a.high, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}

#else
typedef lanes_uint64 lanes_fp16;
#endif

#if defined(LANES_FP16_F16C)

static INLINE struct lanes_pair load_lanes_fp16(const void *from)
{
    const unsigned char *at = from;
    return (struct lanes_pair){
        (lanes_float)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)at)),
        (lanes_float)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(at + 16)))};
}

static INLINE lanes_fp16 round_lanes_fp16(struct lanes_pair a)
{
    __m128i low = _mm256_cvtps_ph((__m256)a.low, _MM_FROUND_TO_NEAREST_INT);
    __m128i high = _mm256_cvtps_ph((__m256)a.high, _MM_FROUND_TO_NEAREST_INT);
    return (lanes_fp16)_mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}

#elif defined(LANES_FP16_NEON)

static INLINE struct lanes_pair load_lanes_fp16(const void *from)
{
    float16x8_t both = vreinterpretq_f16_u16(vld1q_u16(from));
    return (struct lanes_pair){(lanes_float)vcvt_f32_f16(vget_low_f16(both)),
                               (lanes_float)vcvt_high_f32_f16(both)};
}

static INLINE lanes_fp16 round_lanes_fp16(struct lanes_pair a)
{
    return (lanes_fp16)vcvt_high_f16_f32(vcvt_f16_f32((float32x4_t)a.low), (float32x4_t)a.high);
}

#elif !defined(LANES_FP16_AVX512)

/* float16.h for whole vectors, without its NaN payloads. The elements are split as those of bf16.
 */

static INLINE lanes_uint32 choose_lanes(lanes_uint32 mask, lanes_uint32 yes, lanes_uint32 no)
{
    return (yes & mask) | (no & ~mask);
}

static INLINE lanes_float widen_lanes_fp16(lanes_uint32 half)
{
    lanes_uint32 magnitude = half & 0x7fffu;
    lanes_uint32 bits = (magnitude << 13) + ((127u - 15u) << 23);
    lanes_uint32 special = (lanes_uint32)((lanes_int32)magnitude >= 0x7c00);
    bits += ((127u - 15u) << 23) & special;
    lanes_float denormal = __builtin_convertvector((lanes_int32)magnitude, lanes_float) * 0x1p-24f;
    lanes_uint32 is_denormal = (lanes_uint32)((lanes_int32)magnitude < 0x0400);
    return (lanes_float)(((half & 0x8000u) << 16) |
                         choose_lanes(is_denormal, (lanes_uint32)denormal, bits));
}

static INLINE lanes_uint32 narrow_lanes_fp16(lanes_float value)
{
    const lanes_uint32 smallest_normal = (lanes_uint32){0} + ((127u - 14u) << 23);
    lanes_uint32 bits = (lanes_uint32)value;
    lanes_uint32 magnitude = bits & 0x7fffffffu;
    lanes_uint32 odd = (magnitude >> 13) & 1u;
    lanes_uint32 half = (magnitude - ((127u - 15u) << 23) + 0xfffu + odd) >> 13;
    lanes_uint32 infinite = (lanes_uint32)((lanes_int32)magnitude >= (127 + 16) << 23);
    half = choose_lanes(infinite, (lanes_uint32){0} + 0x7c00u, half);

    lanes_uint32 small = (lanes_uint32)((lanes_int32)magnitude < (lanes_int32)smallest_normal);
    lanes_float multiples = (lanes_float)choose_lanes(small, magnitude, smallest_normal) * 0x1p24f;
    lanes_int32 whole = __builtin_convertvector(multiples, lanes_int32);
    lanes_int32 rest = (lanes_int32)(multiples - __builtin_convertvector(whole, lanes_float));
    lanes_int32 up = rest + (whole & 1) > 0x3f000000;
    half = choose_lanes(small, (lanes_uint32)(whole - up), half);
    half |= (bits >> 16) & 0x8000u;
    lanes_uint32 is_nan = (lanes_uint32)((lanes_int32)magnitude > 0x7f800000);
    return choose_lanes(is_nan, (lanes_uint32){0} + 0x7e00u, half);
}

static INLINE struct lanes_pair load_lanes_fp16(const void *from)
{
    lanes_uint32 both = *(const unaligned_lanes_uint32 *)from;
    return (struct lanes_pair){widen_lanes_fp16(both & 0xffffu), widen_lanes_fp16(both >> 16)};
}

static INLINE lanes_fp16 round_lanes_fp16(struct lanes_pair a)
{
    return (lanes_fp16)(narrow_lanes_fp16(a.low) | (narrow_lanes_fp16(a.high) << 16));
}

#endif

/* Past the caches only where the vector is whole in `to`, which then is aligned to LANES. */
static INLINE void store_lanes(void *to, lanes_uint64 a, bool streaming)
{
    if (streaming) {
#if defined(STREAM_BY_64)
        _mm512_stream_si512((__m512i *)to, (__m512i)a);
        return;
#elif defined(STREAM_BY_32)
        _mm256_stream_si256((__m256i *)to, (__m256i)a);
        return;
#elif defined(__x86_64__)
        _mm_stream_si128((__m128i *)to, (__m128i)a);
        return;
#endif
    }
    *(unaligned_lanes_uint64 *)to = a;
}

static INLINE void store_lanes_fp16(void *to, lanes_fp16 a, bool streaming)
{
#if defined(LANES_FP16_AVX512)
    __m256i *half = to;
    if (streaming) {
        _mm256_stream_si256(half, a.low);
        _mm256_stream_si256(half + 1, a.high);
    } else {
        _mm256_storeu_si256(half, a.low);
        _mm256_storeu_si256(half + 1, a.high);
    }
#else
    store_lanes(to, a, streaming);
#endif
}

/* Where it can, by multiplying with 1 and adding: the same bits from another unit. AMD's adders
 * share their ports with the shifts, comparisons and conversions around them, and its multipliers
 * do not (Zen 3 to 5). A compiler that sees through it loses only that. */
static INLINE lanes_float add_beside_conversions(lanes_float a, lanes_float b)
{
#if defined(LANES_FP16_AVX512)
    return (lanes_float)_mm512_fmadd_ps((__m512)a, _mm512_set1_ps(1), (__m512)b);
#elif defined(LANES_FP16_F16C)
    return (lanes_float)_mm256_fmadd_ps((__m256)a, _mm256_set1_ps(1), (__m256)b);
#else
    return a + b;
#endif
}

static INLINE struct lanes_pair add_lanes_pair(struct lanes_pair a, struct lanes_pair b)
{
    return (struct lanes_pair){add_beside_conversions(a.low, b.low),
                               add_beside_conversions(a.high, b.high)};
}

static INLINE struct lanes_pair scale_lanes_pair(struct lanes_pair a, float factor)
{
    return (struct lanes_pair){a.low * factor, a.high * factor};
}

static INLINE struct lanes_pair divide_lanes_pair(struct lanes_pair a, float divisor)
{
    return (struct lanes_pair){a.low / divisor, a.high / divisor};
}

#endif
