/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reductions of integers, one thread's vector as in combine.h. Sums and products wrap; a quotient
 * is that of the wrapped sum, truncated toward zero. Elements of up to 32 bits are worked on in 32,
 * extended by their sign where they have one, so that every op sees the number that users see.
 */
#ifndef KOLO_KERNELS_CUDA_INTEGERS_H
#define KOLO_KERNELS_CUDA_INTEGERS_H

#include "kernels/cuda/combine.h"

/* One whose elements are moved alike. */
CONVERSION enum format format_as_wide(int bytes)
{
    return bytes == 8   ? FORMAT_FP64
           : bytes == 4 ? FORMAT_FP32
           : bytes == 2 ? FORMAT_FP16
                        : FORMAT_E4M3;
}

CONVERSION uint32_t extend(uint32_t bits, int bytes, bool is_signed)
{
    if (bytes == 1)
        return is_signed ? (uint32_t)(int32_t)(int8_t)bits : bits & 0xffu;
    if (bytes == 2)
        return is_signed ? (uint32_t)(int32_t)(int16_t)bits : bits & 0xffffu;
    return bits;
}

/* less: b < a, as the type has it. Of shorter integers the lower bits of this are right. */
CONVERSION uint64_t combine_two_integers(uint32_t op, bool less, uint64_t a, uint64_t b)
{
    switch (op) {
    case COMBINE_PRODUCT:
        return a * b;
    case COMBINE_MIN:
        return less ? b : a;
    case COMBINE_MAX:
        return less ? a : b;
    case COMBINE_AND:
        return a & b;
    case COMBINE_OR:
        return a | b;
    case COMBINE_XOR:
        return a ^ b;
    default:
        return a + b;
    }
}

CONVERSION uint32_t combine_two_words(uint32_t op, bool is_signed, uint32_t a, uint32_t b)
{
    bool less = is_signed ? (int32_t)b < (int32_t)a : b < a;
    return (uint32_t)combine_two_integers(op, less, a, b);
}

CONVERSION uint64_t combine_two_longs(uint32_t op, bool is_signed, uint64_t a, uint64_t b)
{
    bool less = is_signed ? (int64_t)b < (int64_t)a : b < a;
    return combine_two_integers(op, less, a, b);
}

/* By magnitudes, so that it truncates toward zero. */
CONVERSION uint32_t divide_word(uint32_t a, bool is_signed, uint32_t divisor)
{
    bool negative = is_signed && (int32_t)a < 0;
    uint32_t quotient = (negative ? 0 - a : a) / divisor;
    return negative ? 0 - quotient : quotient;
}

CONVERSION uint64_t divide_long(uint64_t a, bool is_signed, uint32_t divisor)
{
    bool negative = is_signed && (int64_t)a < 0;
    uint64_t quotient = (negative ? 0 - a : a) / divisor;
    return negative ? 0 - quotient : quotient;
}

CONVERSION struct words combine_longs(bool is_signed, const struct combination *c, int64_t first,
                                      uint32_t valid)
{
    uint64_t sum[2] = {0, 0};
    struct words out = {{0, 0, 0, 0}};
    for (uint32_t i = 0; i < c->source_count; i++) {
        struct words a = load_source(FORMAT_FP64, c, i, first, valid);
        UNROLL for (int k = 0; k < 2; k++)
        {
            uint64_t x = a.w[2 * k] | (uint64_t)a.w[2 * k + 1] << 32;
            sum[k] = i == 0 ? x : combine_two_longs(c->op, is_signed, sum[k], x);
        }
    }
    UNROLL for (int k = 0; k < 2; k++)
    {
        uint64_t x = c->divisor == 1 ? sum[k] : divide_long(sum[k], is_signed, c->divisor);
        out.w[2 * k] = (uint32_t)x;
        out.w[2 * k + 1] = (uint32_t)(x >> 32);
    }
    return out;
}

CONVERSION struct words combine_words(int bytes, bool is_signed, const struct combination *c,
                                      int64_t first, uint32_t valid)
{
    const int n = 16 / bytes;
    const uint32_t mask = bytes == 4 ? ~0u : (1u << (8 * (bytes & 3))) - 1;
    uint32_t sum[16];
    struct words out = {{0, 0, 0, 0}};
    UNROLL for (int k = 0; k < n; k++) sum[k] = 0;
    for (uint32_t i = 0; i < c->source_count; i++) {
        struct words a = load_source(format_as_wide(bytes), c, i, first, valid);
        UNROLL for (int k = 0; k < n; k++)
        {
            uint32_t x = extend(get_bits(&a, k, bytes), bytes, is_signed);
            sum[k] = i == 0 ? x : combine_two_words(c->op, is_signed, sum[k], x);
        }
    }
    UNROLL for (int k = 0; k < n; k++)
    {
        uint32_t x = sum[k];
        if (c->divisor != 1)
            x = divide_word(extend(x, bytes, is_signed), is_signed, c->divisor);
        put_bits(&out, k, bytes, x & mask);
    }
    return out;
}

CONVERSION void combine_integers_thread(int bytes, bool is_signed, const struct combination *c,
                                        uint32_t block, uint32_t thread)
{
    const enum format as = format_as_wide(bytes);
    const struct walk_form form = {WALK_UNPACK, as, as};
    struct walk_place place;
    if (!combine_place(as, c, block, thread, &place))
        return;
    uint32_t valid = find_valid(form, &place);
    struct words out = bytes == 8 ? combine_longs(is_signed, c, place.first, valid)
                                  : combine_words(bytes, is_signed, c, place.first, valid);
    store_place(form, &place, out, valid);
}

#endif
