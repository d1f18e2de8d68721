/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: the casts of one variant (kernels/cpu/all_dtypes.h includes it), between fp32 and a
 * narrower float. Loops over the conversions of single values, which compilers turn into vector
 * code; fp16 has instructions on x86.
 */

/* The instructions keep what float16.h keeps of a NaN, round as they are told here, and mind
 * neither the rounding mode nor flush-to-zero of the thread. */
#if defined(LANES_FP16_AVX512)

enum { FP16_STEP = 16 };

static INLINE void widen_step_fp16(unsigned char *to, const unsigned char *from)
{
    _mm512_storeu_ps(to, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)from)));
}

static INLINE void narrow_step_fp16(unsigned char *to, const unsigned char *from)
{
    _mm256_storeu_si256(
        (__m256i *)(void *)to,
        _mm512_cvtps_ph(_mm512_loadu_ps(from), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

#elif defined(LANES_FP16_F16C)

enum { FP16_STEP = 8 };

static INLINE void widen_step_fp16(unsigned char *to, const unsigned char *from)
{
    _mm256_storeu_ps((float *)(void *)to,
                     _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)from)));
}

static INLINE void narrow_step_fp16(unsigned char *to, const unsigned char *from)
{
    _mm_storeu_si128((__m128i *)(void *)to,
                     _mm256_cvtps_ph(_mm256_loadu_ps((const float *)(const void *)from),
                                     _MM_FROUND_TO_NEAREST_INT));
}

#endif

#if defined(LANES_FP16_AVX512) || defined(LANES_FP16_F16C)

static void widen_fp16(void *to, const void *from, size_t count)
{
    size_t k = 0;
    for (; count - k >= FP16_STEP; k += FP16_STEP)
        widen_step_fp16((unsigned char *)to + 4 * k, (const unsigned char *)from + 2 * k);
    for (; k < count; k++)
        ((unaligned_float *)to)[k] = fp16_to_fp32(((const unaligned_uint16 *)from)[k]);
}

static void narrow_fp16(void *to, const void *from, size_t count)
{
    size_t k = 0;
    for (; count - k >= FP16_STEP; k += FP16_STEP)
        narrow_step_fp16((unsigned char *)to + 2 * k, (const unsigned char *)from + 4 * k);
    for (; k < count; k++)
        ((unaligned_uint16 *)to)[k] = fp16_from_fp32(((const unaligned_float *)from)[k]);
}

#else

static void widen_fp16(void *restrict to, const void *restrict from, size_t count)
{
    for (size_t k = 0; k < count; k++)
        ((unaligned_float *)to)[k] = fp16_to_fp32(((const unaligned_uint16 *)from)[k]);
}

static void narrow_fp16(void *restrict to, const void *restrict from, size_t count)
{
    for (size_t k = 0; k < count; k++)
        ((unaligned_uint16 *)to)[k] = fp16_from_fp32(((const unaligned_float *)from)[k]);
}

#endif

static void widen_bf16(void *restrict to, const void *restrict from, size_t count)
{
    for (size_t k = 0; k < count; k++)
        ((unaligned_float *)to)[k] = bf16_to_fp32(((const unaligned_uint16 *)from)[k]);
}

static void narrow_bf16(void *restrict to, const void *restrict from, size_t count)
{
    for (size_t k = 0; k < count; k++)
        ((unaligned_uint16 *)to)[k] = bf16_from_fp32(((const unaligned_float *)from)[k]);
}

static void widen_e4m3(void *restrict to, const void *restrict from, size_t count)
{
    for (size_t k = 0; k < count; k++)
        ((unaligned_float *)to)[k] = e4m3_to_fp32(((const uint8_t *)from)[k]);
}

static void narrow_e4m3(void *restrict to, const void *restrict from, size_t count)
{
    for (size_t k = 0; k < count; k++)
        ((uint8_t *)to)[k] = e4m3_from_fp32(((const unaligned_float *)from)[k]);
}

static void widen_e5m2(void *restrict to, const void *restrict from, size_t count)
{
    for (size_t k = 0; k < count; k++)
        ((unaligned_float *)to)[k] = e5m2_to_fp32(((const uint8_t *)from)[k]);
}

static void narrow_e5m2(void *restrict to, const void *restrict from, size_t count)
{
    for (size_t k = 0; k < count; k++)
        ((uint8_t *)to)[k] = e5m2_from_fp32(((const unaligned_float *)from)[k]);
}
