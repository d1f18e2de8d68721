/* SPDX-License-Identifier: Apache-2.0 */
/* The reference, and what compares a kernel with it. */
#include "tests/unit/kernels/reduction_check.h"
#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

enum { SLACK = 120, GUARD = 0xa5 };

/* Rows are whole lines: buffers without misalignment lie alike, which streaming makes use of. */
static _Alignas(64) unsigned char memory[SOURCES_MAX + TO_MAX][COUNT_MAX * 8 + SLACK];
static unsigned char expected[COUNT_MAX * 8];

/* ---- the reference ----------------------------------------------------------------------- */

static bool is_float(kolo_dtype dtype)
{
    return dtype >= KOLO_FP16;
}

static uint64_t get_bits(const unsigned char *at, size_t bytes)
{
    uint64_t bits = 0;
    for (size_t i = 0; i < bytes; i++)
        bits |= (uint64_t)at[i] << (8 * i);
    return bits;
}

static void put_bits(unsigned char *at, size_t bytes, uint64_t bits)
{
    for (size_t i = 0; i < bytes; i++)
        at[i] = (unsigned char)(bits >> (8 * i));
}

/* The element's bits, extended by its sign where it has one. */
static uint64_t extended(kolo_dtype dtype, uint64_t bits)
{
    switch (dtype) {
    case KOLO_INT8:
        return (uint64_t)(int64_t)(int8_t)bits;
    case KOLO_INT16:
        return (uint64_t)(int64_t)(int16_t)bits;
    case KOLO_INT32:
        return (uint64_t)(int64_t)(int32_t)bits;
    case KOLO_UINT8:
        return (uint8_t)bits;
    case KOLO_UINT16:
        return (uint16_t)bits;
    case KOLO_UINT32:
        return (uint32_t)bits;
    default:
        return bits;
    }
}

/* Works modulo 2^64, whose low bits are those of any smaller width. */
static uint64_t reference_integer(const struct kolo__reduction *reduction, const uint64_t *values,
                                  unsigned count)
{
    bool is_signed = reduction->dtype <= KOLO_INT64;
    assert_true(count > 0);
    uint64_t result = extended(reduction->dtype, values[0]); /* NOLINT: there is one */
    for (unsigned i = 1; i < count; i++) {
        uint64_t value = extended(reduction->dtype, values[i]);
        bool less = is_signed ? (int64_t)value < (int64_t)result : value < result;
        switch (reduction->op) {
        case KOLO_SUM:
        case KOLO_AVERAGE:
            result += value;
            break;
        case KOLO_PRODUCT:
            result *= value;
            break;
        case KOLO_MIN:
            result = less ? value : result;
            break;
        case KOLO_MAX:
            result = less ? result : value;
            break;
        case KOLO_AND:
            result &= value;
            break;
        case KOLO_OR:
            result |= value;
            break;
        case KOLO_XOR:
            result ^= value;
            break;
        default:
            fail_msg("no integer op");
        }
    }
    result = extended(reduction->dtype, result);
    if (is_signed)
        return (uint64_t)((int64_t)result / (int64_t)reduction->divisor);
    return result / reduction->divisor;
}

static double load_float(kolo_dtype dtype, uint64_t bits)
{
    float narrow;
    double wide;
    uint32_t low = (uint32_t)bits;
    switch (dtype) {
    case KOLO_FP16:
        return kolo__fp16_to_fp32((uint16_t)bits);
    case KOLO_BF16:
        return kolo__bf16_to_fp32((uint16_t)bits);
    case KOLO_FP32:
        memcpy(&narrow, &low, sizeof(narrow));
        return narrow;
    default:
        memcpy(&wide, &bits, sizeof(wide));
        return wide;
    }
}

static uint64_t store_float(kolo_dtype dtype, double value)
{
    float narrow = (float)value;
    uint32_t low;
    uint64_t bits;
    if (isnan(value)) {
        static const uint64_t nans[] = {0x7e00, 0x7fc0, 0x7fc00000, 0x7ff8000000000000};
        return nans[dtype - KOLO_FP16];
    }
    switch (dtype) {
    case KOLO_FP16:
        return kolo__fp16_from_fp32(narrow);
    case KOLO_BF16:
        return kolo__bf16_from_fp32(narrow);
    case KOLO_FP32:
        memcpy(&low, &narrow, sizeof(low));
        return low;
    default:
        memcpy(&bits, &value, sizeof(bits));
        return bits;
    }
}

static double extreme(double a, double b, bool maximum)
{
    if (isnan(a) || isnan(b))
        return (double)NAN;
    if (a == b)
        return !!signbit(a) == maximum ? b : a;
    return (a < b) == maximum ? b : a;
}

/* One step in double, rounded to fp32 where that is the accumulator: for +, * and / of two fp32
 * this gives the same bits as a step in fp32, since a double has more than twice the digits. */
static double rounded(kolo_dtype dtype, double value)
{
    return dtype == KOLO_FP64 ? value : (double)(float)value;
}

static uint64_t reference_float(const struct kolo__reduction *reduction, const uint64_t *values,
                                unsigned count)
{
    kolo_dtype dtype = reduction->dtype;
    bool scaled = reduction->op == KOLO_PREMUL_SUM && reduction->scales != NULL;
    double result = 0;
    for (unsigned i = 0; i < count; i++) {
        double value = load_float(dtype, values[i]);
        if (scaled)
            value = rounded(dtype, rounded(dtype, reduction->scales[i]) * value);
        if (i == 0)
            result = value;
        else if (reduction->op == KOLO_MIN || reduction->op == KOLO_MAX)
            result = extreme(result, value, reduction->op == KOLO_MAX);
        else
            result =
                rounded(dtype, reduction->op == KOLO_PRODUCT ? result * value : result + value);
    }
    return store_float(dtype, rounded(dtype, result / reduction->divisor));
}

/* ---- elements ---------------------------------------------------------------------------- */

static struct kolo__random random_source = {1};

/* A third each: any bits, values near one (where rounding shows), and the edges of the type. */
static uint64_t random_element(kolo_dtype dtype)
{
    static const uint64_t edges[4][10] = {
        {0x0000, 0x8000, 0x7c00, 0xfc00, 0x7e01, 0xfd01, 0x0001, 0x83ff, 0x7bff, 0x0400},
        {0x0000, 0x8000, 0x7f80, 0xff80, 0x7fc1, 0xff81, 0x0001, 0x807f, 0x7f7f, 0x0080},
        {0x00000000, 0x80000000, 0x7f800000, 0xff800000, 0x7fc00001, 0xff800001, 0x00000001,
         0x807fffff, 0x7f7fffff, 0x00800000},
        {0, 0x8000000000000000, 0x7ff0000000000000, 0xfff0000000000000, 0x7ff8000000000001,
         0xfff0000000000001, 1, 0x800fffffffffffff, 0x7fefffffffffffff, 0x0010000000000000}};
    uint64_t bits = kolo__random_u64(&random_source);
    unsigned kind = (unsigned)(kolo__random_u64(&random_source) % 3);
    if (!is_float(dtype)) {
        size_t width = 8 * kolo_dtype_bytes(dtype);
        uint64_t top = (uint64_t)1 << (width - 1);
        return kind == 0 ? bits : kind == 1 ? bits % 9 - 4 : top - 1 + bits % 3;
    }
    if (kind == 0)
        return bits;
    if (kind == 1)
        return store_float(dtype, 1.0 + (double)(bits % 4096) / 1024.0);
    return edges[dtype - KOLO_FP16][bits % 10];
}

uint64_t random_number(kolo_dtype dtype, unsigned source, size_t k)
{
    (void)source, (void)k;
    uint64_t bits;
    do
        bits = random_element(dtype);
    while (is_float(dtype) && !isfinite(load_float(dtype, bits)));
    return bits;
}

/* ---- comparing --------------------------------------------------------------------------- */

static void compare(const struct kolo__reduction *reduction, const struct shape *shape,
                    const unsigned char *to)
{
    size_t bytes = kolo_dtype_bytes(reduction->dtype);
    for (size_t k = 0; k < shape->count; k++) {
        uint64_t got = get_bits(to + k * bytes, bytes);
        uint64_t want = get_bits(expected + k * bytes, bytes);
        if (got != want) {
            fail_msg("%s %s, %u sources, %u destinations, count %zu, in place %d %d, divisor %u, "
                     "streaming %d: element %zu is %#llx, not %#llx",
                     kolo_dtype_name(reduction->dtype), kolo_op_name(reduction->op),
                     shape->source_count, shape->to_count, shape->count, shape->in_place,
                     shape->all_in_place, reduction->divisor, reduction->streaming, k,
                     (unsigned long long)got, (unsigned long long)want);
        }
    }
    assert_int_equal(to[-1], GUARD);
    assert_int_equal(to[shape->count * bytes], GUARD);
}

/* Random sources, and what they should make in `expected`. */
static void make_problem(const struct kolo__reduction *reduction, const struct shape *shape,
                         unsigned char *const *at)
{
    size_t bytes = kolo_dtype_bytes(reduction->dtype);
    bool copied = shape->source_count == 1 && reduction->divisor == 1 &&
                  (reduction->op != KOLO_PREMUL_SUM || reduction->scales == NULL);
    for (size_t k = 0; k < shape->count; k++) {
        uint64_t values[SOURCES_MAX];
        for (unsigned i = 0; i < shape->source_count; i++) {
            uint64_t element = shape->element != NULL ? shape->element(reduction->dtype, i, k)
                                                      : random_element(reduction->dtype);
            put_bits(at[i] + k * bytes, bytes, element);
            values[i] = get_bits(at[i] + k * bytes, bytes);
        }
        uint64_t result = copied ? values[0]
                          : is_float(reduction->dtype)
                              ? reference_float(reduction, values, shape->source_count)
                              : reference_integer(reduction, values, shape->source_count);
        put_bits(expected + k * bytes, bytes, result);
    }
}

/* The buffer that is destination i. */
static unsigned destination(const struct shape *shape, unsigned i)
{
    if (shape->all_in_place && i < shape->source_count)
        return i;
    return i == 0 && shape->in_place >= 0 ? (unsigned)shape->in_place : SOURCES_MAX + i;
}

void check_reduction(const struct kolo__reduction *reduction, const struct shape *shape,
                     kolo__reduce_function *reduce)
{
    unsigned char *at[SOURCES_MAX + TO_MAX];
    const void *sources[SOURCES_MAX];
    void *to[TO_MAX];
    memset(memory, GUARD, sizeof(memory));
    for (unsigned i = 0; i < SOURCES_MAX + TO_MAX; i++)
        at[i] = memory[i] + (shape->misalignment == 0 ? 8 : 1 + (shape->misalignment + 9 * i) % 67);
    make_problem(reduction, shape, at);
    for (unsigned i = 0; i < shape->source_count; i++)
        sources[i] = at[i];
    for (unsigned i = 0; i < shape->to_count; i++)
        to[i] = at[destination(shape, i)];

    if (reduce != NULL)
        reduce(reduction, to, shape->to_count, sources, shape->source_count, shape->count);
    else if (shape->to_count == 1)
        kolo__reduce(reduction, to[0], sources, shape->source_count, shape->count);
    else
        kolo__reduce_to_many(reduction, to, shape->to_count, sources, shape->source_count,
                             shape->count);
    for (unsigned i = 0; i < shape->to_count; i++)
        compare(reduction, shape, to[i]);
}
