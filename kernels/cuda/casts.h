/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Casts by the conversion instructions of a GPU, which are a few times cheaper than those of
 * kernels/cpu in integers: those would cost as much as the memory traffic. The instructions agree
 * with them on all numbers, but make one NaN of all, and saturate infinities where finite values
 * saturate; that is mended here, so that the bits are the host's.
 *
 *     converted_*   the instruction; on the host, what NVIDIA's manual says of it (PTX ISA, cvt)
 *     mend_*        the same text on both: NaN and infinity as kernels/cpu has them
 *
 * The host twin tries the mending for every float; that instructions do as the manual says, only a
 * GPU shows (tests/gpu/pack_gpu_test.c). For nvcc, whoever includes this includes cuda_fp16.h,
 * cuda_bf16.h and cuda_fp8.h first.
 */
#ifndef KOLO_KERNELS_CUDA_CASTS_H
#define KOLO_KERNELS_CUDA_CASTS_H

#ifndef CONVERSION
#define CONVERSION static inline __attribute__((always_inline, unused))
#endif
#include "kernels/cpu/float8.h"

#include <stdbool.h>

CONVERSION uint32_t is_nan_bits(uint32_t bits)
{
    return (bits & 0x7fffffffu) > 0x7f800000u;
}

/* ---- fp16 -------------------------------------------------------------------------------------
 */

CONVERSION uint32_t converted_fp16(float value)
{
#if defined(__CUDA_ARCH__)
    return __half_as_ushort(__float2half_rn(value));
#else
    return is_nan_bits(fp32_bits(value)) ? 0x7fffu : fp16_from_fp32(value);
#endif
}

CONVERSION uint32_t mend_fp16(uint32_t bits, uint32_t converted)
{
    uint32_t nan = (bits >> 16 & 0x8000u) | 0x7e00u | (bits >> 13 & 0x3ffu);
    return is_nan_bits(bits) ? nan : converted;
}

CONVERSION float converted_from_fp16(uint32_t half)
{
#if defined(__CUDA_ARCH__)
    return __half2float(__ushort_as_half((unsigned short)half));
#else
    return (half & 0x7fffu) > 0x7c00u ? fp32_from_bits(0x7fffffffu) : fp16_to_fp32((uint16_t)half);
#endif
}

CONVERSION float mend_from_fp16(uint32_t half, float converted)
{
    uint32_t nan = (half & 0x8000u) << 16 | (half & 0x7fffu) << 13 | 0x7fc00000u;
    return (half & 0x7fffu) > 0x7c00u ? fp32_from_bits(nan) : converted;
}

/* ---- bf16 (widening is a shift) ---------------------------------------------------------------
 */

CONVERSION uint32_t converted_bf16(float value)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    return __bfloat16_as_ushort(__float2bfloat16_rn(value));
#else
    return is_nan_bits(fp32_bits(value)) ? 0x7fffu : bf16_from_fp32(value);
#endif
}

CONVERSION uint32_t mend_bf16(uint32_t bits, uint32_t converted)
{
    return is_nan_bits(bits) ? bits >> 16 | 0x40u : converted;
}

/* ---- 8 bits: from compute capability 8.9 on ----------------------------------------------------
 */

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 890
#define CASTS_HAS_FP8 0
#else
#define CASTS_HAS_FP8 1
#endif

CONVERSION uint32_t converted_fp8(bool e5m2, float value)
{
#if defined(__CUDA_ARCH__)
    return __nv_cvt_float_to_fp8(value, __NV_SATFINITE, e5m2 ? __NV_E5M2 : __NV_E4M3);
#else
    uint32_t bits = fp32_bits(value);
    if ((bits & 0x7fffffffu) == 0x7f800000u)
        return (bits >> 24 & 0x80u) | (e5m2 ? 0x7bu : 0x7eu);
    if (is_nan_bits(bits))
        return 0x7fu;
    return e5m2 ? e5m2_from_fp32(value) : e4m3_from_fp32(value);
#endif
}

/* e4m3 has no infinity, and one NaN. */
CONVERSION uint32_t mend_fp8(bool e5m2, uint32_t bits, uint32_t converted)
{
    uint32_t special = !e5m2 ? 0x7fu : is_nan_bits(bits) ? 0x7eu : 0x7cu;
    bool finite = (bits & 0x7fffffffu) < 0x7f800000u;
    return finite ? converted : (bits >> 24 & 0x80u) | special;
}

/* ---- what kernels call ------------------------------------------------------------------------
 */

CONVERSION uint32_t cast_to_fp16(float value)
{
    return mend_fp16(fp32_bits(value), converted_fp16(value));
}

CONVERSION float cast_from_fp16(uint32_t half)
{
    return mend_from_fp16(half, converted_from_fp16(half));
}

CONVERSION uint32_t cast_to_bf16(float value)
{
    return mend_bf16(fp32_bits(value), converted_bf16(value));
}

CONVERSION uint32_t cast_to_fp8(bool e5m2, float value)
{
    if (!CASTS_HAS_FP8)
        return e5m2 ? e5m2_from_fp32(value) : e4m3_from_fp32(value);
    return mend_fp8(e5m2, fp32_bits(value), converted_fp8(e5m2, value));
}

/* The upper byte of an fp16. */
CONVERSION float cast_from_e5m2(uint32_t byte)
{
    return cast_from_fp16(byte << 8);
}

#endif
