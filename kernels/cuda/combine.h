/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one thread of the reduction kernels does (walk.h has the packing ones): one vector of the
 * result, out of the same elements of all sources, in the order of sources. Vectors begin where the
 * result is aligned; sources may lie otherwise. Floats here, integers in integers.h.
 */
#ifndef KOLO_KERNELS_CUDA_COMBINE_H
#define KOLO_KERNELS_CUDA_COMBINE_H

#include "kernels/cuda/walk.h"

enum { COMBINE_SOURCES_MAX = 64 };
enum combine_op {
    COMBINE_SUM,
    COMBINE_PRODUCT,
    COMBINE_MIN,
    COMBINE_MAX,
    COMBINE_AND, /* bitwise ones: integers */
    COMBINE_OR,
    COMBINE_XOR
};

/* A kernel's one parameter; 1,056 bytes, where every GPU takes 4,096. */
struct combination {
    uint64_t to, count;
    uint64_t sources[COMBINE_SOURCES_MAX];
    double scales[COMBINE_SOURCES_MAX]; /* where scaled */
    uint32_t source_count, divisor;
    uint32_t op;     /* enum combine_op */
    uint32_t scaled; /* 1: each contribution is multiplied first */
    uint32_t casts;  /* 1: one source alone is widened and narrowed, which quiets its NaNs */
};

/* combine_two of fp64, combine_two_floats of the others: C has no name for both. */
#define COMBINE_TWO(name, number)                                                                  \
    CONVERSION number name(uint32_t op, number a, number b)                                        \
    {                                                                                              \
        switch (op) {                                                                              \
        case COMBINE_PRODUCT:                                                                      \
            return a * b;                                                                          \
        case COMBINE_MIN:                                                                          \
            return b < a || (b == a && signbit(b)) || b != b ? b : a;                              \
        case COMBINE_MAX:                                                                          \
            return b > a || (b == a && !signbit(b)) || b != b ? b : a;                             \
        default:                                                                                   \
            return a + b;                                                                          \
        }                                                                                          \
    }
COMBINE_TWO(combine_two, double)
COMBINE_TWO(combine_two_floats, float)

/* The vector's elements of one source. */
CONVERSION struct words load_source(enum format format, const struct combination *c,
                                    uint32_t source, int64_t first, uint32_t valid)
{
    const struct walk_form form = {WALK_PACK, format, format};
    const uint64_t bytes = (uint64_t)format_bytes(format);
    struct walk_place place;
    place.from = c->sources[source] + (uint64_t)first * bytes;
    place.from_end = c->sources[source] + c->count * bytes;
    place.to = 0;
    place.first = first;
    place.count = c->count;
    return load_place(form, &place, valid);
}

CONVERSION struct words quiet(enum format format, struct words a, uint32_t casts)
{
    const int bytes = format_bytes(format);
    struct words out = {{0, 0, 0, 0}};
    if (casts == 0 || bytes > 2)
        return a;
    UNROLL for (int i = 0; i < 16 / bytes; i++)
        put_bits(&out, i, bytes, narrow_bits(format, widen_bits(format, get_bits(&a, i, bytes))));
    return out;
}

CONVERSION struct words combine_doubles(const struct combination *c, int64_t first, uint32_t valid)
{
    double sum[2] = {0, 0};
    struct words out = {{0, 0, 0, 0}};
    for (uint32_t i = 0; i < c->source_count; i++) {
        struct words a = load_source(FORMAT_FP64, c, i, first, valid);
        UNROLL for (int k = 0; k < 2; k++)
        {
            double x = get_double(&a, k);
            x = c->scaled ? c->scales[i] * x : x;
            sum[k] = i == 0 ? x : combine_two(c->op, sum[k], x);
        }
    }
    UNROLL for (int k = 0; k < 2; k++)
    {
        double x = c->divisor == 1 ? sum[k] : sum[k] / (double)c->divisor;
        put_double(&out, k, one_nan_double(x));
    }
    return out;
}

CONVERSION struct words combine_floats(enum format format, const struct combination *c,
                                       int64_t first, uint32_t valid)
{
    const int bytes = format_bytes(format), n = 16 / bytes;
    float sum[16];
    struct words out = {{0, 0, 0, 0}};
    UNROLL for (int k = 0; k < n; k++) sum[k] = 0;
    for (uint32_t i = 0; i < c->source_count; i++) {
        struct words a = load_source(format, c, i, first, valid);
        UNROLL for (int k = 0; k < n; k++)
        {
            float x = widen_bits(format, get_bits(&a, k, bytes));
            x = c->scaled ? (float)c->scales[i] * x : x;
            sum[k] = i == 0 ? x : combine_two_floats(c->op, sum[k], x);
        }
    }
    UNROLL for (int k = 0; k < n; k++)
    {
        float x = c->divisor == 1 ? sum[k] : sum[k] / (float)c->divisor;
        put_bits(&out, k, bytes, narrow_bits(format, one_nan(x)));
    }
    return out;
}

CONVERSION uint64_t combine_vector_count(enum format format, const struct combination *c)
{
    uint64_t bytes = (uint64_t)format_bytes(format), n = 16 / bytes, head = c->to / bytes % n;
    return (head + c->count + n - 1) / n;
}

/* Where the thread's vector is; false: it has none. */
CONVERSION bool combine_place(enum format format, const struct combination *c, uint32_t block,
                              uint32_t thread, struct walk_place *place)
{
    const uint64_t bytes = (uint64_t)format_bytes(format), n = 16 / bytes;
    const uint64_t vector = (uint64_t)block * WALK_THREADS + thread;
    if (vector >= combine_vector_count(format, c))
        return false;
    place->first = (int64_t)(vector * n) - (int64_t)(c->to / bytes % n);
    place->count = c->count;
    place->from = 0;
    place->from_end = 0;
    place->to = c->to + (uint64_t)place->first * bytes;
    return true;
}

CONVERSION void combine_thread(enum format format, const struct combination *c, uint32_t block,
                               uint32_t thread)
{
    const struct walk_form form = {WALK_UNPACK, format, format};
    struct walk_place place;
    struct words out;
    if (!combine_place(format, c, block, thread, &place))
        return;
    uint32_t valid = find_valid(form, &place);
    /* One source alone is copied: NaNs keep their bits. */
    if (c->source_count == 1 && c->divisor == 1 && !c->scaled)
        out = quiet(format, load_source(format, c, 0, place.first, valid), c->casts);
    else if (format == FORMAT_FP64)
        out = combine_doubles(c, place.first, valid);
    else
        out = combine_floats(format, c, place.first, valid);
    store_place(form, &place, out, valid);
}

#endif
