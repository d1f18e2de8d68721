/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/check.h"

#include <stdbool.h>
#include <string.h>

/* ---- elements -------------------------------------------------------------------------------- */

static bool is_float(kolo_dtype dtype)
{
    return dtype >= KOLO_FP16;
}

static bool is_unsigned(kolo_dtype dtype)
{
    return dtype >= KOLO_UINT8 && dtype <= KOLO_UINT64;
}

/* IEEE binary16 of a whole number of at most 11 bits. */
static uint16_t fp16_bits(int64_t value)
{
    int sign = value < 0 ? 0x8000 : 0;
    uint64_t magnitude = (uint64_t)(value < 0 ? -value : value);
    if (magnitude == 0)
        return (uint16_t)sign;
    int exponent = 63 - __builtin_clzll(magnitude);
    uint64_t fraction = (magnitude << (10 - exponent)) & 0x3ff;
    return (uint16_t)(sign | (exponent + 15) << 10 | (int)fraction);
}

/* The bits of a number as an element, in the low bytes (of little-endian machines, as are all that
 * the library runs on). Integers keep their low bits. */
static uint64_t element_bits(kolo_dtype dtype, int64_t value)
{
    float single = (float)value;
    double twice = (double)value;
    uint32_t bits32;
    uint64_t bits64;
    memcpy(&bits32, &single, sizeof bits32);
    memcpy(&bits64, &twice, sizeof bits64);
    switch (dtype) {
    case KOLO_FP16:
        return fp16_bits(value);
    case KOLO_BF16:
        return bits32 >> 16;
    case KOLO_FP32:
        return bits32;
    case KOLO_FP64:
        return bits64;
    default:
        return (uint64_t)value;
    }
}

static void table_set(struct bench_table *table, size_t index, uint64_t bits)
{
    memcpy((char *)table->bytes + index * table->element_bytes, &bits, table->element_bytes);
}

/* ---- values ---------------------------------------------------------------------------------- */

/* Bits that look random: the finaliser of splitmix64. */
static uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9;
    x ^= x >> 27;
    x *= 0x94d049bb133111eb;
    return x ^ x >> 31;
}

static uint64_t hash(uint64_t seed, uint64_t a, uint64_t b, uint64_t index)
{
    return mix(mix(mix(seed + 0x9e3779b97f4a7c15 + a) + b) + index);
}

/* bf16 has 8 bits of precision: whole numbers up to 256 are exact. */
static int64_t exact(const struct bench_pattern *pattern)
{
    return pattern->exact != 0 ? pattern->exact : 256;
}

/* Whole numbers whose sum over all ranks, each times `weight` at most, is exact. */
static int64_t summand(const struct bench_pattern *pattern, int source, size_t index, int weight)
{
    int budget = (int)exact(pattern) / weight;
    if (pattern->ranks > budget) { /* too many to let each have a say on every element */
        size_t stride = ((size_t)pattern->ranks + (size_t)budget - 1) / (size_t)budget;
        return ((size_t)source + index) % stride == 0;
    }
    uint64_t h = hash(pattern->seed, (uint64_t)source, 0, index);
    uint64_t limit = (uint64_t)(budget / pattern->ranks);
    int64_t value = (int64_t)(h % ((limit < 15 ? limit : 15) + 1));
    return h >> 63 && !is_unsigned(pattern->dtype) ? -value : value;
}

/* The sum is ranks times a whole number, so that dividing it leaves no remainder: two ranks,
 * others for each element, deviate from that number in opposite directions. */
static int64_t divisible_summand(const struct bench_pattern *pattern, int source, size_t index)
{
    int64_t limit = exact(pattern) / pattern->ranks - 1;
    uint64_t h = hash(pattern->seed, 0, 0, index);
    int64_t value = (int64_t)(h % (uint64_t)(limit < 1 ? 2 : limit + 1));
    size_t first = index % (size_t)pattern->ranks;
    size_t second = (index + 1) % (size_t)pattern->ranks;
    return value + ((size_t)source == first) - ((size_t)source == second);
}

/* 1 and -1, and 2 on eight ranks at most: the product's magnitude is 256 at most. */
static int64_t factor(const struct bench_pattern *pattern, int source, size_t index)
{
    size_t stride = ((size_t)pattern->ranks + 7) / 8;
    int64_t value = ((size_t)source + index) % stride == 0 ? 2 : 1;
    uint64_t h = hash(pattern->seed, (uint64_t)source, 0, index);
    return h >> 63 && !is_unsigned(pattern->dtype) ? -value : value;
}

static int64_t contribution(const struct bench_pattern *pattern, int source, size_t index)
{
    uint64_t h = hash(pattern->seed, (uint64_t)source, 0, index);
    switch (pattern->op) {
    case KOLO_SUM:
        return summand(pattern, source, index, 1);
    case KOLO_PREMUL_SUM:
        return summand(pattern, source, index, 2);
    case KOLO_AVERAGE: /* an integer's average may have a remainder: it is cut off */
        return is_float(pattern->dtype) ? divisible_summand(pattern, source, index)
                                        : summand(pattern, source, index, 1);
    case KOLO_PRODUCT:
        return factor(pattern, source, index);
    case KOLO_MIN:
    case KOLO_MAX:
        return (int64_t)(h % 201) - (is_unsigned(pattern->dtype) ? 0 : 100);
    case KOLO_AND: /* seven of eight bits set, so that many ranks leave some */
        return (int64_t)(h | mix(h + 1) | mix(h + 2));
    case KOLO_OR:
        return (int64_t)(h & mix(h + 1) & mix(h + 2));
    default:
        return (int64_t)h;
    }
}

double bench_scale(int rank)
{
    return rank % 2 ? 2 : 1;
}

static int64_t combine(int op, int64_t left, int64_t right)
{
    switch (op) {
    case KOLO_PRODUCT:
        return left * right;
    case KOLO_MIN:
        return left < right ? left : right;
    case KOLO_MAX:
        return left > right ? left : right;
    case KOLO_AND:
        return left & right;
    case KOLO_OR:
        return left | right;
    case KOLO_XOR:
        return left ^ right;
    default:
        return left + right;
    }
}

/* An integer as it comes out of a buffer: wrapped, and with its sign. */
static int64_t wrapped(kolo_dtype dtype, int64_t value)
{
    unsigned shift = 64 - 8 * (unsigned)kolo_dtype_bytes(dtype);
    uint64_t high = (uint64_t)value << shift;
    return is_unsigned(dtype) ? (int64_t)(high >> shift) : (int64_t)high >> shift;
}

static int64_t reduced(const struct bench_pattern *pattern, size_t index)
{
    int64_t result = 0;
    for (int rank = 0; rank < pattern->ranks; rank++) {
        int64_t value = contribution(pattern, rank, index);
        if (pattern->op == KOLO_PREMUL_SUM)
            value *= (int64_t)bench_scale(rank);
        result = rank == 0 ? value : combine(pattern->op, result, value);
    }
    if (pattern->op != KOLO_AVERAGE)
        return result;
    if (!is_float(pattern->dtype))
        result = wrapped(pattern->dtype, result);
    return result / pattern->ranks;
}

void bench_table_input(const struct bench_pattern *pattern, int source, int destination,
                       struct bench_table *table)
{
    table->element_bytes = kolo_dtype_bytes(pattern->dtype);
    for (size_t i = 0; i < BENCH_PERIOD; i++)
        table_set(table, i,
                  pattern->op == BENCH_MOVE
                      ? hash(pattern->seed, (uint64_t)source, (uint64_t)destination, i)
                      : element_bits(pattern->dtype, contribution(pattern, source, i)));
}

void bench_table_result(const struct bench_pattern *pattern, struct bench_table *table)
{
    table->element_bytes = kolo_dtype_bytes(pattern->dtype);
    for (size_t i = 0; i < BENCH_PERIOD; i++)
        table_set(table, i, element_bits(pattern->dtype, reduced(pattern, i)));
}

/* ---- buffers --------------------------------------------------------------------------------- */

/* Elements from `index` to the end of the table, at most `left`. */
static size_t run_length(size_t index, size_t left)
{
    size_t run = BENCH_PERIOD - index;
    return run < left ? run : left;
}

void bench_fill(const struct bench_table *table, size_t phase, void *buffer, size_t count)
{
    size_t width = table->element_bytes, index = phase % BENCH_PERIOD;
    char *to = buffer;
    while (count > 0) {
        size_t run = run_length(index, count);
        memcpy(to, (const char *)table->bytes + index * width, run * width);
        to += run * width;
        count -= run;
        index = 0;
    }
}

size_t bench_count_wrong(const struct bench_table *table, size_t phase, const void *buffer,
                         size_t count)
{
    size_t width = table->element_bytes, index = phase % BENCH_PERIOD, wrong = 0;
    const char *got = buffer;
    while (count > 0) {
        size_t run = run_length(index, count);
        const char *want = (const char *)table->bytes + index * width;
        if (memcmp(got, want, run * width) != 0)
            for (size_t i = 0; i < run; i++)
                wrong += memcmp(got + i * width, want + i * width, width) != 0;
        got += run * width;
        count -= run;
        index = 0;
    }
    return wrong;
}
