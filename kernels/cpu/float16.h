/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fp16 and bf16 to and from fp32, in loops that a compiler turns into vector code: no branches, no
 * tables, no shifts by a variable amount (SSE2 has none).
 *
 *     fp32  s eeeeeeee mmmmmmmmmmmmmmmmmmmmmmm     bias 127
 *     bf16  s eeeeeeee mmmmmmm                     bias 127
 *     fp16  s eeeee mmmmmmmmmm                     bias 15
 *
 * Where float arithmetic is used, every step is exact, so that no mode of the thread can change it.
 */
#ifndef KOLO_KERNELS_CPU_FLOAT16_H
#define KOLO_KERNELS_CPU_FLOAT16_H

#include <stdint.h>
#include <string.h>

/* GPUs compile these too (kernels/cuda/pack.cu), and say then what a function is there. */
#ifndef CONVERSION
#define CONVERSION static inline
#endif

CONVERSION uint32_t fp32_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

CONVERSION float fp32_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* condition ? yes : no, by a mask. A compiler may turn ?: into a branch around the float steps that
 * make `yes`, since they could raise a flag; then the loop is no vector loop any more. */
CONVERSION uint32_t choose(int condition, uint32_t yes, uint32_t no)
{
    uint32_t mask = 0u - (uint32_t)condition;
    return (yes & mask) | (no & ~mask);
}

CONVERSION float fp16_to_fp32(uint16_t half)
{
    uint32_t sign = (half & 0x8000u) << 16;
    uint32_t magnitude = half & 0x7fffu;
    uint32_t normal = (magnitude << 13) + ((127u - 15u) << 23);
    uint32_t special = (magnitude << 13) | 0x7f800000u | (magnitude > 0x7c00u ? 0x00400000u : 0u);
    /* An integer below 1024 times a power of two: exact. */
    uint32_t denormal = fp32_bits((float)(int32_t)magnitude * 0x1p-24f);
    uint32_t bits = magnitude >= 0x7c00u ? special : normal;
    return fp32_from_bits(sign | choose(magnitude < 0x0400u, denormal, bits));
}

CONVERSION uint16_t fp16_from_fp32(float value)
{
    const uint32_t smallest_normal = (127u - 14u) << 23;
    uint32_t bits = fp32_bits(value);
    uint32_t sign = (bits >> 16) & 0x8000u;
    uint32_t magnitude = bits & 0x7fffffffu;

    /* Adding just under a half, or a half when the last kept bit is 1, rounds to nearest even; the
     * carry may go into the exponent, and from 65520 on it makes infinity. */
    uint32_t odd = (magnitude >> 13) & 1u;
    uint32_t half = (magnitude - ((127u - 15u) << 23) + 0xfffu + odd) >> 13;
    half = magnitude >= (127u + 16u) << 23 ? 0x7c00u : half;
    uint32_t nan = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
    half = magnitude > 0x7f800000u ? nan : half;

    /* Denormals are multiples of 2^-24: count them. The scaling, the truncation and the rest are
     * exact. The limit keeps the conversion to integer defined for values that take another way.
     * Bits order floats that are not negative as the floats themselves; a zero rest may be -0. */
    uint32_t limited = magnitude < smallest_normal ? magnitude : smallest_normal;
    float multiples = fp32_from_bits(limited) * 0x1p24f;
    int32_t whole = (int32_t)multiples;
    int32_t rest = (int32_t)fp32_bits(multiples - (float)whole);
    int32_t up = rest + (whole & 1) > 0x3f000000; /* the bits of 0.5 */
    return (uint16_t)(sign | choose(magnitude < smallest_normal, (uint32_t)(whole + up), half));
}

CONVERSION float bf16_to_fp32(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    bits |= (half & 0x7fffu) > 0x7f80u ? 0x00400000u : 0u;
    return fp32_from_bits(bits);
}

CONVERSION uint16_t bf16_from_fp32(float value)
{
    uint32_t bits = fp32_bits(value);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    uint32_t nan = (bits >> 16) | 0x40u;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

#endif
