/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vectors of at most 16 bytes in 32-bit words: loaded from any element-aligned address at full
 * width, taken apart, cast, scaled and put together. C that nvcc compiles for GPUs and any compiler
 * for the host, where the twin executes it: the same text, so the same bits. The casts give
 * those of kernels/cpu (casts.h).
 *
 * Every function is inlined where its formats are constants, so that loops unroll and words stay in
 * registers.
 */
#ifndef KOLO_KERNELS_CUDA_VECTOR_H
#define KOLO_KERNELS_CUDA_VECTOR_H

#ifndef CONVERSION
#define CONVERSION static inline __attribute__((always_inline, unused))
#endif
#include "kernels/cuda/casts.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__CUDACC__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL
#endif

/* The formats that gradients have or travel in. */
enum format { FORMAT_FP16, FORMAT_BF16, FORMAT_E4M3, FORMAT_E5M2, FORMAT_FP32, FORMAT_FP64 };

CONVERSION int format_bytes(enum format format)
{
    return format == FORMAT_FP64 ? 8 : format == FORMAT_FP32 ? 4 : format <= FORMAT_BF16 ? 2 : 1;
}

struct words {
    uint32_t w[4];
};

/* ---- memory --------------------------------------------------------------------------------- */

/* `bytes` (1, 2, 4, 8 or 16) from an address that is aligned to them. */
CONVERSION struct words load_aligned(uint64_t address, int bytes)
{
    struct words a = {{0, 0, 0, 0}};
#if defined(__CUDA_ARCH__)
    if (bytes == 16) {
        uint4 v = *(const uint4 *)address;
        a.w[0] = v.x, a.w[1] = v.y, a.w[2] = v.z, a.w[3] = v.w;
    } else if (bytes == 8) {
        uint2 v = *(const uint2 *)address;
        a.w[0] = v.x, a.w[1] = v.y;
    } else if (bytes == 4) {
        a.w[0] = *(const uint32_t *)address;
    } else if (bytes == 2) {
        a.w[0] = *(const uint16_t *)address;
    } else {
        a.w[0] = *(const uint8_t *)address;
    }
#else
    if (address % (uint64_t)bytes != 0)
        __builtin_trap(); /* as on a GPU */
    memcpy(a.w, (const void *)(uintptr_t)address, (size_t)bytes);
#endif
    return a;
}

CONVERSION void store_aligned(uint64_t address, struct words a, int bytes)
{
#if defined(__CUDA_ARCH__)
    if (bytes == 16)
        *(uint4 *)address = make_uint4(a.w[0], a.w[1], a.w[2], a.w[3]);
    else if (bytes == 8)
        *(uint2 *)address = make_uint2(a.w[0], a.w[1]);
    else if (bytes == 4)
        *(uint32_t *)address = a.w[0];
    else if (bytes == 2)
        *(uint16_t *)address = (uint16_t)a.w[0];
    else
        *(uint8_t *)address = (uint8_t)a.w[0];
#else
    if (address % (uint64_t)bytes != 0)
        __builtin_trap();
    memcpy((void *)(uintptr_t)address, a.w, (size_t)bytes);
#endif
}

CONVERSION uint32_t funnel_right(uint32_t low, uint32_t high, uint32_t bits)
{
#if defined(__CUDA_ARCH__)
    return __funnelshift_r(low, high, bits);
#else
    return bits == 0 ? low : low >> bits | high << (32 - bits);
#endif
}

/* `bytes` (4, 8 or 16) from `skew` bytes into two neighbours of as many: no index that is known
 * only at run time, which would put words into memory. */
CONVERSION struct words join(struct words a, struct words b, int bytes, uint32_t skew)
{
    uint32_t w[8];
    struct words out = {{0, 0, 0, 0}};
    int n = bytes / 4;
    UNROLL for (int i = 0; i < 8; i++) w[i] = i < n       ? a.w[i < 4 ? i : 0]
                                              : i < 2 * n ? b.w[(i - n) & 3]
                                                          : 0;
    if (n == 4 && (skew & 8) != 0) {
        UNROLL for (int i = 0; i < 6; i++) w[i] = w[i + 2];
    }
    if (n >= 2 && (skew & 4) != 0) {
        UNROLL for (int i = 0; i < 7; i++) w[i] = w[i + 1];
    }
    UNROLL for (int i = 0; i < 4; i++) if (i < n) out.w[i] =
        funnel_right(w[i], w[i + 1], 8 * (skew & 3));
    return out;
}

/* Both neighbours must be readable where the address is not aligned. */
CONVERSION struct words load_skewed(uint64_t address, int bytes)
{
    uint32_t skew = (uint32_t)address & (uint32_t)(bytes - 1);
    struct words a = load_aligned(address - skew, bytes);
    if (skew == 0)
        return a;
    return join(a, load_aligned(address - skew + (uint32_t)bytes, bytes), bytes, skew);
}

/* ---- elements ------------------------------------------------------------------------------- */

/* Element i of a vector; of fp64 use get_double. */
CONVERSION uint32_t get_bits(const struct words *a, int i, int bytes)
{
    if (bytes == 4)
        return a->w[i & 3];
    if (bytes == 2)
        return a->w[(i / 2) & 3] >> (16 * (i & 1)) & 0xffffu;
    return a->w[(i / 4) & 3] >> (8 * (i & 3)) & 0xffu;
}

/* Into words that are 0 there. */
CONVERSION void put_bits(struct words *a, int i, int bytes, uint32_t bits)
{
    if (bytes == 4)
        a->w[i & 3] = bits;
    else if (bytes == 2)
        a->w[(i / 2) & 3] |= bits << (16 * (i & 1));
    else
        a->w[(i / 4) & 3] |= bits << (8 * (i & 3));
}

CONVERSION double get_double(const struct words *a, int i)
{
    uint64_t bits = a->w[2 * (i & 1)] | (uint64_t)a->w[2 * (i & 1) + 1] << 32;
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

CONVERSION void put_double(struct words *a, int i, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    a->w[2 * (i & 1)] = (uint32_t)bits;
    a->w[2 * (i & 1) + 1] = (uint32_t)(bits >> 32);
}

CONVERSION float widen_bits(enum format format, uint32_t bits)
{
    switch (format) {
    case FORMAT_FP16:
        return cast_from_fp16(bits);
    case FORMAT_BF16:
        return bf16_to_fp32((uint16_t)bits);
    case FORMAT_E4M3:
        return e4m3_to_fp32((uint8_t)bits);
    case FORMAT_E5M2:
        return cast_from_e5m2(bits);
    default:
        return fp32_from_bits(bits);
    }
}

CONVERSION uint32_t narrow_bits(enum format format, float value)
{
    switch (format) {
    case FORMAT_FP16:
        return cast_to_fp16(value);
    case FORMAT_BF16:
        return cast_to_bf16(value);
    case FORMAT_E4M3:
        return cast_to_fp8(false, value);
    case FORMAT_E5M2:
        return cast_to_fp8(true, value);
    default:
        return fp32_bits(value);
    }
}

/* Every NaN that comes out of arithmetic is the same. */
CONVERSION float one_nan(float value)
{
    return value != value ? fp32_from_bits(0x7fc00000u) : value;
}

CONVERSION double one_nan_double(double value)
{
    uint64_t bits = UINT64_C(0x7ff8000000000000);
    double nan;
    memcpy(&nan, &bits, sizeof nan);
    return value != value ? nan : value;
}

/* ---- vectors -------------------------------------------------------------------------------- */

/* kolo__scale: rounded to the format after each factor. 1 leaves the bits, NaNs' too. */
CONVERSION struct words scale_vector(struct words a, enum format format, double factor)
{
    struct words out = {{0, 0, 0, 0}};
    int bytes = format_bytes(format);
    if (factor == 1)
        return a;
    UNROLL for (int i = 0; i < 16 / bytes; i++)
    {
        if (format == FORMAT_FP64)
            put_double(&out, i, one_nan_double(get_double(&a, i) * factor));
        else
            put_bits(&out, i, bytes,
                     narrow_bits(format, one_nan(widen_bits(format, get_bits(&a, i, bytes)) *
                                                 (float)factor)));
    }
    return out;
}

/* `count` elements; the bits stay where the formats are the same. */
CONVERSION struct words cast_vector(struct words a, enum format from, enum format to, int count)
{
    struct words out = {{0, 0, 0, 0}};
    if (from == to)
        return a;
    UNROLL for (int i = 0; i < count; i++)
    {
        float value = widen_bits(from, get_bits(&a, i, format_bytes(from)));
        put_bits(&out, i, format_bytes(to), narrow_bits(to, value));
    }
    return out;
}

/* Elements whose bit in `valid` is 0 become zeros. */
CONVERSION struct words mask_vector(struct words a, int bytes, uint32_t valid)
{
    struct words out = {{0, 0, 0, 0}};
    if (valid == ~0u)
        return a;
    UNROLL for (int i = 0; i < 16 / bytes; i++)
    {
        if ((valid >> i & 1) == 0)
            continue;
        if (bytes == 8)
            put_double(&out, i, get_double(&a, i));
        else
            put_bits(&out, i, bytes, get_bits(&a, i, bytes));
    }
    return out;
}

#endif
