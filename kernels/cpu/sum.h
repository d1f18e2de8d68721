/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: sums of one dtype, what training does all the time (reduce_blocks.h includes it).
 *
 *     sources[0]  |  a  b  c  d  |              four vectors in registers, over all sources,
 *     sources[1]  | +a +b +c +d  |              then rounded and stored: each byte is touched once
 *        ...
 *     to          |  a  b  c  d  |
 *
 * LANES_NAME(word)  word with the name of the dtype's vectors behind it
 * VECTOR            the accumulator of LANES bytes of elements
 * READ(p) WRITE(p, a) ADD(a, b) SCALE(a, factor) DIVIDE(a, divisor)
 *
 * The four are read before any is written, so `to` may be any of the sources.
 */
static INLINE VECTOR NAME(sum_vector)(const void *const *sources, uint32_t source_count, size_t at,
                                      const double *scales)
{
    VECTOR sum = READ((const unsigned char *)sources[0] + at);
    if (scales != NULL)
        sum = SCALE(sum, (WORK)scales[0]);
    for (uint32_t i = 1; i < source_count; i++) {
        VECTOR next = READ((const unsigned char *)sources[i] + at);
        if (scales != NULL)
            next = SCALE(next, (WORK)scales[i]);
        sum = ADD(sum, next);
    }
    return sum;
}

static INLINE void NAME(sum_four)(unsigned char *to, const void *const *sources,
                                  uint32_t source_count, size_t at, const double *scales,
                                  uint32_t divisor)
{
    const unsigned char *from = (const unsigned char *)sources[0] + at;
    VECTOR a = READ(from), b = READ(from + LANES);
    VECTOR c = READ(from + 2 * LANES), d = READ(from + 3 * LANES);
    if (scales != NULL) {
        const WORK factor = (WORK)scales[0];
        a = SCALE(a, factor), b = SCALE(b, factor);
        c = SCALE(c, factor), d = SCALE(d, factor);
    }
    for (uint32_t i = 1; i < source_count; i++) {
        from = (const unsigned char *)sources[i] + at;
        if (scales != NULL) {
            const WORK factor = (WORK)scales[i];
            a = ADD(a, SCALE(READ(from), factor));
            b = ADD(b, SCALE(READ(from + LANES), factor));
            c = ADD(c, SCALE(READ(from + 2 * LANES), factor));
            d = ADD(d, SCALE(READ(from + 3 * LANES), factor));
        } else {
            a = ADD(a, READ(from));
            b = ADD(b, READ(from + LANES));
            c = ADD(c, READ(from + 2 * LANES));
            d = ADD(d, READ(from + 3 * LANES));
        }
    }
    if (divisor != 1) {
        const WORK by = (WORK)divisor;
        a = DIVIDE(a, by), b = DIVIDE(b, by), c = DIVIDE(c, by), d = DIVIDE(d, by);
    }
    WRITE(to, a);
    WRITE(to + LANES, b);
    WRITE(to + 2 * LANES, c);
    WRITE(to + 3 * LANES, d);
}

/* Less than a vector: in a vector of which the rest is zeros. */
static void NAME(sum_tail)(unsigned char *to, const void *const *sources, uint32_t source_count,
                           size_t at, size_t bytes, const double *scales, uint32_t divisor)
{
    unsigned char padded[LANES] = {0};
    const void *one = padded;
    memcpy(padded, (const unsigned char *)sources[0] + at, bytes);
    VECTOR sum = NAME(sum_vector)(&one, 1, 0, scales);
    for (uint32_t i = 1; i < source_count; i++) {
        memcpy(padded, (const unsigned char *)sources[i] + at, bytes);
        sum = ADD(sum, NAME(sum_vector)(&one, 1, 0, scales != NULL ? &scales[i] : NULL));
    }
    if (divisor != 1)
        sum = DIVIDE(sum, (WORK)divisor);
    WRITE(padded, sum);
    memcpy(to, padded, bytes);
}

/* Bytes [begin, end) of the sources to `to`, which is where `begin` goes. */
static INLINE void NAME(sum_loop)(unsigned char *to, const void *const *sources,
                                  uint32_t source_count, size_t begin, size_t end,
                                  const double *scales, uint32_t divisor)
{
    size_t at = begin;
    for (; end - at >= 4 * LANES; at += 4 * LANES)
        NAME(sum_four)(to + (at - begin), sources, source_count, at, scales, divisor);
    for (; end - at >= LANES; at += LANES) {
        VECTOR sum = NAME(sum_vector)(sources, source_count, at, scales);
        if (divisor != 1)
            sum = DIVIDE(sum, (WORK)divisor);
        WRITE(to + (at - begin), sum);
    }
    if (at < end)
        NAME(sum_tail)(to + (at - begin), sources, source_count, at, end - at, scales, divisor);
}

/* The loops are made for each case, so that the usual one asks nothing inside. */
static void NAME(sum)(unsigned char *to, const void *const *sources, uint32_t source_count,
                      size_t begin, size_t end, const double *scales, uint32_t divisor)
{
    if (scales != NULL)
        NAME(sum_loop)(to, sources, source_count, begin, end, scales, divisor);
    else if (divisor != 1)
        NAME(sum_loop)(to, sources, source_count, begin, end, NULL, divisor);
    else if (source_count == 2)
        NAME(sum_loop)(to, sources, 2, begin, end, NULL, 1);
    else
        NAME(sum_loop)(to, sources, source_count, begin, end, NULL, 1);
}
