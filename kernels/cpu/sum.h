/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: sums of one dtype, what training does all the time (reduce_blocks.h includes it).
 *
 *     sources[0]  |  a  b  c  d  |              four vectors in registers, over all sources,
 *     sources[1]  | +a +b +c +d  |              then rounded and stored: each byte is touched once
 *        ...
 *     to[0] ...   |  a  b  c  d  |
 *
 * VECTOR   the accumulator of LANES bytes of elements
 * ROUNDED  what they are when they can be stored
 * READ(p) ADD(a, b) SCALE(a, factor) DIVIDE(a, divisor)
 * ANY_NAN(a, b, c, d) ONE_NAN(a)   kernels/cpu/nan.h
 * ROUND(a) WRITE(p, rounded, streaming)
 * BYTES_AHEAD   how far ahead sources are prefetched, or 0
 *
 * The four are read before any is written, so a destination may be any of the sources. Several are
 * written from the registers: mostly 1.2 to 1.6 times as fast as by way of a block in L1 (with 8
 * disjoint destinations of 32 KiB a tenth slower).
 */

/* The quotient by a power of two is the product with its inverse, bit for bit: both are the exact
 * value, rounded once. Divisors have 32 bits, so the inverse is no denormal. */
static INLINE VECTOR NAME(divided)(const struct sum *sum, VECTOR a)
{
    if (sum->divisor == 1)
        return a;
    if ((sum->divisor & (sum->divisor - 1)) == 0)
        return SCALE(a, (WORK)1 / (WORK)sum->divisor);
    return DIVIDE(a, (WORK)sum->divisor);
}

static INLINE VECTOR NAME(sum_vector)(const struct sum *sum, size_t at)
{
    VECTOR a = READ((const unsigned char *)sum->sources[0] + at);
    if (sum->scales != NULL)
        a = SCALE(a, (WORK)sum->scales[0]);
    for (uint32_t i = 1; i < sum->source_count; i++) {
        VECTOR next = READ((const unsigned char *)sum->sources[i] + at);
        if (sum->scales != NULL)
            next = SCALE(next, (WORK)sum->scales[i]);
        a = ADD(a, next);
    }
    return NAME(divided)(sum, a);
}

/* A vector to all before the next vector: 1 to 4 % faster than four to each where memory bounds. */
static INLINE void NAME(write_to_all)(const struct sum *sum, size_t at, ROUNDED a)
{
    for (uint32_t i = 0; i < sum->to_count; i++)
        WRITE((unsigned char *)sum->to[i] + at, a, sum->streaming);
}

/* Conversions fill the processor's window, and little of the next vectors is asked for in time
 * where they lie in another core's cache: ask BYTES_AHEAD. Where that is 0, the window reaches as
 * far. */
static INLINE void NAME(fetch_ahead)(const unsigned char *from)
{
    for (int line = 0; BYTES_AHEAD > 0 && line < 4 * LANES; line += 64)
        __builtin_prefetch(from + BYTES_AHEAD + line);
}

static INLINE void NAME(sum_four)(const struct sum *sum, size_t at)
{
    const unsigned char *from = (const unsigned char *)sum->sources[0] + at;
    NAME(fetch_ahead)(from);
    VECTOR a = READ(from), b = READ(from + LANES);
    VECTOR c = READ(from + 2 * LANES), d = READ(from + 3 * LANES);
    if (sum->scales != NULL) {
        const WORK factor = (WORK)sum->scales[0];
        a = SCALE(a, factor), b = SCALE(b, factor);
        c = SCALE(c, factor), d = SCALE(d, factor);
    }
    for (uint32_t i = 1; i < sum->source_count; i++) {
        from = (const unsigned char *)sum->sources[i] + at;
        NAME(fetch_ahead)(from);
        VECTOR e = READ(from), f = READ(from + LANES);
        VECTOR g = READ(from + 2 * LANES), h = READ(from + 3 * LANES);
        if (sum->scales != NULL) {
            const WORK factor = (WORK)sum->scales[i];
            e = SCALE(e, factor), f = SCALE(f, factor);
            g = SCALE(g, factor), h = SCALE(h, factor);
        }
        a = ADD(a, e), b = ADD(b, f), c = ADD(c, g), d = ADD(d, h);
    }
    a = NAME(divided)(sum, a), b = NAME(divided)(sum, b);
    c = NAME(divided)(sum, c), d = NAME(divided)(sum, d);
    if (__builtin_expect(ANY_NAN(a, b, c, d), 0))
        a = ONE_NAN(a), b = ONE_NAN(b), c = ONE_NAN(c), d = ONE_NAN(d);
    ROUNDED p = ROUND(a), q = ROUND(b), r = ROUND(c), s = ROUND(d);
    NAME(write_to_all)(sum, at, p);
    NAME(write_to_all)(sum, at + LANES, q);
    NAME(write_to_all)(sum, at + 2 * LANES, r);
    NAME(write_to_all)(sum, at + 3 * LANES, s);
}

/* Less than a vector: in vectors of which the rest is zeros. */
static void NAME(sum_part)(const struct sum *sum, size_t at, size_t bytes)
{
    unsigned char padded[LANES] = {0};
    const void *one = padded;
    struct sum single = {.sources = &one, .source_count = 1, .divisor = 1};
    VECTOR a = READ(padded);
    for (uint32_t i = 0; i < sum->source_count; i++) {
        memcpy(padded, (const unsigned char *)sum->sources[i] + at, bytes);
        single.scales = sum->scales != NULL ? &sum->scales[i] : NULL;
        VECTOR next = NAME(sum_vector)(&single, 0);
        a = i == 0 ? next : ADD(a, next);
    }
    WRITE(padded, ROUND(ONE_NAN(NAME(divided)(sum, a))), false);
    for (uint32_t i = 0; i < sum->to_count; i++)
        memcpy((unsigned char *)sum->to[i] + at, padded, bytes);
}

/* Bytes [begin, end). */
static INLINE void NAME(sum_loop)(const struct sum *sum, size_t begin, size_t end)
{
    size_t at = begin;
    for (; end - at >= 4 * LANES; at += 4 * LANES)
        NAME(sum_four)(sum, at);
    for (; end - at >= LANES; at += LANES) {
        NAME(write_to_all)(sum, at, ROUND(ONE_NAN(NAME(sum_vector)(sum, at))));
    }
    if (at < end)
        NAME(sum_part)(sum, at, end - at);
}

/* The loop where nobody scales or streams and the number of destinations is known, and perhaps that
 * of sources (0: it is not): nothing is asked inside, and what is known is in registers. In memory
 * the compiler would look it up again after every store, which may have changed it. */
static INLINE void NAME(sum_shape)(const struct sum *given, size_t begin, size_t end,
                                   uint32_t source_count, uint32_t to_count)
{
    const void *sources[SHAPE_MAX];
    void *to[SHAPE_MAX];
    for (uint32_t i = 0; i < source_count; i++)
        sources[i] = given->sources[i];
    for (uint32_t i = 0; i < to_count; i++)
        to[i] = given->to[i];
    const struct sum sum = {.sources = source_count > 0 ? sources : given->sources,
                            .source_count = source_count > 0 ? source_count : given->source_count,
                            .divisor = given->divisor,
                            .to = to,
                            .to_count = to_count};
    NAME(sum_loop)(&sum, begin, end);
}

/* Two sources are what trees and rings combine; to as many destinations, what an allreduce of two
 * or four ranks combines that see each other's memory. */
static void NAME(sum_range)(const struct sum *sum, size_t begin, size_t end)
{
    const uint32_t sources = sum->source_count, to = sum->to_count;
    if (sum->scales != NULL || sum->streaming)
        NAME(sum_loop)(sum, begin, end);
    else if (sources == 2 && to == 1)
        NAME(sum_shape)(sum, begin, end, 2, 1);
    else if (to == 1)
        NAME(sum_shape)(sum, begin, end, 0, 1);
    else if (sources == 2 && to == 2)
        NAME(sum_shape)(sum, begin, end, 2, 2);
    else if (sources == 4 && to == 4)
        NAME(sum_shape)(sum, begin, end, 4, 4);
    else
        NAME(sum_loop)(sum, begin, end);
}

/* Streams where all destinations lie alike in a vector: the head is then written as usual.
 * Otherwise returns false, and nothing was done. */
static bool NAME(sum)(const struct sum *given, size_t bytes)
{
    if (!given->streaming) {
        NAME(sum_range)(given, 0, bytes);
        return true;
    }
    size_t head = (size_t)(-(uintptr_t)given->to[0] % LANES);
    for (uint32_t i = 1; i < given->to_count; i++) {
        if ((size_t)(-(uintptr_t)given->to[i] % LANES) != head)
            return false;
    }
    if (head % sizeof(ELEMENT) != 0)
        return false;
    head = head < bytes ? head : bytes;
    if (head > 0)
        NAME(sum_part)(given, 0, head);
    NAME(sum_range)(given, head, bytes);
    return true;
}
