/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: sums of one dtype, what training does all the time (reduce_blocks.h includes it).
 *
 *     sources[0]  |  a  b  c  d  |              four vectors in registers, over all sources,
 *     sources[1]  | +a +b +c +d  |              then rounded and stored: each byte is touched once
 *        ...
 *     to[0] ...   |  a  b  c  d  |
 *
 * LANES_NAME(word)  word with the name of the dtype's vectors behind it
 * VECTOR            the accumulator of LANES bytes of elements
 * READ(p) ROUND(a) ADD(a, b) SCALE(a, factor) DIVIDE(a, divisor)
 *
 * The four are read before any is written, so a destination may be any of the sources. Several are
 * written from the registers: mostly 1.2 to 1.6 times as fast as by way of a block in L1 (with 8
 * disjoint destinations of 32 KiB a tenth slower).
 */
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
    return sum->divisor != 1 ? DIVIDE(a, (WORK)sum->divisor) : a;
}

static INLINE void NAME(sum_four)(const struct sum *sum, size_t at)
{
    const unsigned char *from = (const unsigned char *)sum->sources[0] + at;
    VECTOR a = READ(from), b = READ(from + LANES);
    VECTOR c = READ(from + 2 * LANES), d = READ(from + 3 * LANES);
    if (sum->scales != NULL) {
        const WORK factor = (WORK)sum->scales[0];
        a = SCALE(a, factor), b = SCALE(b, factor);
        c = SCALE(c, factor), d = SCALE(d, factor);
    }
    for (uint32_t i = 1; i < sum->source_count; i++) {
        from = (const unsigned char *)sum->sources[i] + at;
        VECTOR e = READ(from), f = READ(from + LANES);
        VECTOR g = READ(from + 2 * LANES), h = READ(from + 3 * LANES);
        if (sum->scales != NULL) {
            const WORK factor = (WORK)sum->scales[i];
            e = SCALE(e, factor), f = SCALE(f, factor);
            g = SCALE(g, factor), h = SCALE(h, factor);
        }
        a = ADD(a, e), b = ADD(b, f), c = ADD(c, g), d = ADD(d, h);
    }
    if (sum->divisor != 1) {
        const WORK by = (WORK)sum->divisor;
        a = DIVIDE(a, by), b = DIVIDE(b, by), c = DIVIDE(c, by), d = DIVIDE(d, by);
    }
    lanes_uint64 p = ROUND(a), q = ROUND(b), r = ROUND(c), s = ROUND(d);
    for (uint32_t i = 0; i < sum->to_count; i++) {
        unsigned char *to = (unsigned char *)sum->to[i] + at;
        store_lanes(to, p, sum->streaming);
        store_lanes(to + LANES, q, sum->streaming);
        store_lanes(to + 2 * LANES, r, sum->streaming);
        store_lanes(to + 3 * LANES, s, sum->streaming);
    }
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
    if (sum->divisor != 1)
        a = DIVIDE(a, (WORK)sum->divisor);
    store_lanes(padded, ROUND(a), false);
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
        lanes_uint64 a = ROUND(NAME(sum_vector)(sum, at));
        for (uint32_t i = 0; i < sum->to_count; i++)
            store_lanes((unsigned char *)sum->to[i] + at, a, sum->streaming);
    }
    if (at < end)
        NAME(sum_part)(sum, at, end - at);
}

/* The loop is made for each usual case, which then asks nothing inside. */
static void NAME(sum_range)(const struct sum *given, size_t begin, size_t end)
{
    struct sum sum = *given;
    if (sum.scales != NULL || sum.to_count > 1 || sum.streaming) {
        NAME(sum_loop)(&sum, begin, end);
        return;
    }
    void *to = sum.to[0];
    sum.scales = NULL, sum.to = &to, sum.to_count = 1, sum.streaming = false;
    if (sum.divisor != 1) {
        NAME(sum_loop)(&sum, begin, end);
        return;
    }
    sum.divisor = 1;
    if (sum.source_count == 2) {
        const void *sources[] = {sum.sources[0], sum.sources[1]};
        sum.sources = sources, sum.source_count = 2;
        NAME(sum_loop)(&sum, begin, end);
    } else {
        NAME(sum_loop)(&sum, begin, end);
    }
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
