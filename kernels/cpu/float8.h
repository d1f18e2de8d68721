/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two 8-bit floats of the OCP 8-bit floating point specification (OFP8), to and from fp32, in
 * the style of float16.h: no branches, no tables, every float step exact.
 *
 *     e4m3fn  s eeee mmm     bias 7, no infinity, NaN is s 1111 111, largest 448
 *     e5m2    s eeeee mm     bias 15, infinity s 11111 00, largest 57344: the upper byte of an fp16
 *
 * Narrowing rounds to nearest even. Finite values beyond the largest saturate to it. An infinity is
 * asked for before that and does not: it becomes infinity, or NaN in e4m3fn, so that an overflow
 * that happened before the cast is still seen behind it.
 */
#ifndef KOLO_KERNELS_CPU_FLOAT8_H
#define KOLO_KERNELS_CPU_FLOAT8_H

#include "kernels/cpu/float16.h"

CONVERSION float e5m2_to_fp32(uint8_t byte)
{
    return fp16_to_fp32((uint16_t)(byte << 8));
}

CONVERSION float e4m3_to_fp32(uint8_t byte)
{
    uint32_t sign = (byte & 0x80u) << 24;
    uint32_t magnitude = byte & 0x7fu;
    uint32_t normal = (magnitude << 20) + ((127u - 7u) << 23);
    uint32_t denormal = fp32_bits((float)(int32_t)magnitude * 0x1p-9f);
    uint32_t bits = magnitude == 0x7fu ? 0x7fc00000u : normal;
    return fp32_from_bits(sign | choose(magnitude < 8u, denormal, bits));
}

/* The finite magnitudes of a format with that bias, bits of mantissa and largest code. Fits the
 * same description as fp16_from_fp32, where the steps are explained. */
CONVERSION uint32_t fp8_magnitude(uint32_t magnitude, uint32_t bias, uint32_t mantissa_bits,
                                  float denormals, uint32_t largest)
{
    const uint32_t smallest_normal = (127u - bias + 1u) << 23;
    const uint32_t shift = 23u - mantissa_bits;
    uint32_t odd = (magnitude >> shift) & 1u;
    uint32_t code = (magnitude - ((127u - bias) << 23) + (1u << (shift - 1u)) - 1u + odd) >> shift;
    code = code > largest ? largest : code;

    uint32_t limited = magnitude < smallest_normal ? magnitude : smallest_normal;
    float multiples = fp32_from_bits(limited) * denormals;
    int32_t whole = (int32_t)multiples;
    int32_t rest = (int32_t)fp32_bits(multiples - (float)whole);
    int32_t up = rest + (whole & 1) > 0x3f000000; /* the bits of 0.5 */
    return choose(magnitude < smallest_normal, (uint32_t)(whole + up), code);
}

CONVERSION uint8_t e4m3_from_fp32(float value)
{
    uint32_t bits = fp32_bits(value);
    uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t code = fp8_magnitude(magnitude, 7, 3, 0x1p9f, 0x7e);
    code = magnitude >= 0x7f800000u ? 0x7fu : code;
    return (uint8_t)(((bits >> 24) & 0x80u) | code);
}

CONVERSION uint8_t e5m2_from_fp32(float value)
{
    uint32_t bits = fp32_bits(value);
    uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t code = fp8_magnitude(magnitude, 15, 2, 0x1p16f, 0x7b);
    code = magnitude == 0x7f800000u ? 0x7cu : code;
    code = magnitude > 0x7f800000u ? 0x7eu : code;
    return (uint8_t)(((bits >> 24) & 0x80u) | code);
}

#endif
