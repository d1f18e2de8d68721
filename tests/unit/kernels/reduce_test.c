/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every kernel against a slow reference that works on one element at a time, bit for bit: each
 * dtype and op, each variant this processor has, counts around the block, misaligned and in place.
 * Below that, cases whose answer is written out by hand.
 */
#include "kernels/kernels.h"
#include "kernels/cpu/variant.h"
#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SOURCES = 10, TO_MAX = 3, COUNT_MAX = 2049, SLACK = 120, GUARD = 0xa5 };

/* Rows are whole lines: buffers without misalignment lie alike, which streaming makes use of. */
static _Alignas(64) unsigned char memory[SOURCES + TO_MAX][COUNT_MAX * 8 + SLACK];
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

/* ---- all kernels against it --------------------------------------------------------------- */

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

struct shape {
    unsigned source_count;
    size_t count;
    size_t misalignment; /* of every buffer, a different one modulo 8 for each */
    int in_place;        /* the source that is the first destination too, or -1 */
    unsigned to_count;
};

static void compare(const struct kolo__reduction *reduction, const struct shape *shape,
                    const unsigned char *to)
{
    size_t bytes = kolo_dtype_bytes(reduction->dtype);
    for (size_t k = 0; k < shape->count; k++) {
        uint64_t got = get_bits(to + k * bytes, bytes);
        uint64_t want = get_bits(expected + k * bytes, bytes);
        if (got != want) {
            fail_msg("%s %s, %u sources, %u destinations, count %zu, in place %d, divisor %u, "
                     "streaming %d: element %zu is %#llx, not %#llx",
                     kolo_dtype_name(reduction->dtype), kolo_op_name(reduction->op),
                     shape->source_count, shape->to_count, shape->count, shape->in_place,
                     reduction->divisor, reduction->streaming, k, (unsigned long long)got,
                     (unsigned long long)want);
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
        uint64_t values[SOURCES];
        for (unsigned i = 0; i < shape->source_count; i++) {
            put_bits(at[i] + k * bytes, bytes, random_element(reduction->dtype));
            values[i] = get_bits(at[i] + k * bytes, bytes);
        }
        uint64_t result = copied ? values[0]
                          : is_float(reduction->dtype)
                              ? reference_float(reduction, values, shape->source_count)
                              : reference_integer(reduction, values, shape->source_count);
        put_bits(expected + k * bytes, bytes, result);
    }
}

static void check(const struct kolo__reduction *reduction, const struct shape *shape,
                  kolo__reduce_function *reduce)
{
    unsigned char *at[SOURCES + TO_MAX];
    const void *sources[SOURCES];
    void *to[TO_MAX];
    memset(memory, GUARD, sizeof(memory));
    for (unsigned i = 0; i < SOURCES + TO_MAX; i++)
        at[i] = memory[i] + (shape->misalignment == 0 ? 8 : 1 + (shape->misalignment + 9 * i) % 67);
    make_problem(reduction, shape, at);
    for (unsigned i = 0; i < shape->source_count; i++)
        sources[i] = at[i];
    for (unsigned i = 0; i < shape->to_count; i++)
        to[i] = at[i == 0 && shape->in_place >= 0 ? (unsigned)shape->in_place : SOURCES + i];

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

/* reduce: one variant's kernels, or NULL for the public entry. */
static void check_all(kolo__reduce_function *const *reduce)
{
    static const size_t counts[] = {1025, 0, 2049, 1, 1024, 37, 1023};
    static const double scales[SOURCES] = {0.5, 1.0 / 3, -1.7, 1, 1e-3, 2, 7, 1e-9, -1, 3};
    unsigned turn = 0;
    for (int dtype = 0; dtype < KOLO_DTYPE_COUNT; dtype++) {
        for (int op = 0; op < KOLO_OP_COUNT; op++) {
            if (!kolo__reduction_defined((kolo_dtype)dtype, (kolo_op)op))
                continue;
            /* Of the kernels alone, a single source is never asked without a divisor. */
            for (unsigned sources = reduce != NULL ? 2 : 1; sources <= SOURCES; sources++) {
                for (int in_place = -1; in_place < (int)sources; in_place++) {
                    struct shape shape = {sources, counts[turn % 7], turn / 7 % 3, in_place,
                                          1 + turn % TO_MAX};
                    struct kolo__reduction reduction = {
                        (kolo_dtype)dtype, (kolo_op)op, turn % 2 != 0 ? 1 : 1 + turn % 7,
                        turn % 5 != 0 ? scales : NULL, turn / 3 % 2 != 0};
                    check(&reduction, &shape, reduce != NULL ? reduce[dtype] : NULL);
                    turn++;
                }
            }
        }
    }
}

static void test_every_dtype_and_op(void **state)
{
    (void)state;
    check_all(NULL);
}

static void test_every_variant(void **state)
{
    (void)state;
    for (size_t i = 0; kolo__cpu_variants[i] != NULL; i++) {
        const struct kolo__cpu_variant *variant = kolo__cpu_variants[i];
        if (variant->supported())
            check_all(variant->reduce);
        else
            print_message("not on this processor: %s\n", variant->name);
    }
}

/* Each count from 0 to beyond the widest vector: the tails of the loops. */
static void test_every_small_count(void **state)
{
    (void)state;
    for (int dtype = 0; dtype < KOLO_DTYPE_COUNT; dtype++) {
        for (size_t count = 0; count <= 130; count++) {
            struct kolo__reduction sum = {(kolo_dtype)dtype, KOLO_SUM, 1, NULL};
            struct shape shape = {2, count, count / 3 % 3, (int)(count % 3) - 1, 1};
            check(&sum, &shape, NULL);
        }
    }
}

/* Every way to lie across lines of 64 bytes. */
static void test_copies(void **state)
{
    (void)state;
    static unsigned char from[400], to[400];
    for (size_t i = 0; i < sizeof from; i++)
        from[i] = (unsigned char)(i * 7 + i / 256);
    for (int streaming = 0; streaming < 2; streaming++) {
        for (size_t offset = 1; offset <= 66; offset++) {
            for (size_t bytes = 0; bytes <= 300; bytes += 1 + offset % 3) {
                memset(to, GUARD, sizeof to);
                kolo__copy(to + offset, from + bytes % 19, bytes, streaming);
                assert_memory_equal(to + offset, from + bytes % 19, bytes);
                assert_int_equal(to[offset - 1], GUARD);
                assert_int_equal(to[offset + bytes], GUARD);
            }
        }
    }
    kolo__copy(to, to, sizeof to, true);
    kolo__copy(NULL, NULL, 0, true);
}

/* ---- by hand ------------------------------------------------------------------------------ */

static void test_16_bits_round_once(void **state)
{
    (void)state;
    /* 2048 + 1 is a tie in fp16 that goes back to 2048, as often as it is tried; 256 + 1 in bf16.
     */
    uint16_t large = kolo__fp16_from_fp32(2048), one = kolo__fp16_from_fp32(1), result;
    const void *halves[] = {&large, &one, &one};
    kolo__reduce(&(struct kolo__reduction){KOLO_FP16, KOLO_SUM, 1, NULL}, &result, halves, 3, 1);
    assert_int_equal(result, kolo__fp16_from_fp32(2050));

    large = kolo__bf16_from_fp32(256);
    one = kolo__bf16_from_fp32(1);
    kolo__reduce(&(struct kolo__reduction){KOLO_BF16, KOLO_SUM, 1, NULL}, &result, halves, 3, 1);
    assert_int_equal(result, kolo__bf16_from_fp32(258));

    /* 60000 + 60000 is beyond fp16; the average is not. */
    large = one = kolo__fp16_from_fp32(60000);
    kolo__reduce(&(struct kolo__reduction){KOLO_FP16, KOLO_AVERAGE, 2, NULL}, &result, halves, 2,
                 1);
    assert_int_equal(result, kolo__fp16_from_fp32(60000));
}

static void test_scaled_contribution_is_rounded_before_it_is_added(void **state)
{
    (void)state;
    /* (1 + 2^-12)^2 = 1 + 2^-11 + 2^-24, a tie that goes to 1 + 2^-11; fused, 2^-24 would remain.
     */
    float first[20], second[20], result[20];
    for (int k = 0; k < 20; k++) {
        first[k] = -(1 + 0x1p-11f);
        second[k] = 1 + 0x1p-12f;
    }
    const void *sources[] = {first, second};
    const double scales[] = {1, 1 + 0x1p-12};
    kolo__reduce(&(struct kolo__reduction){KOLO_FP32, KOLO_PREMUL_SUM, 1, scales}, result, sources,
                 2, 20);
    for (int k = 0; k < 20; k++)
        assert_true(result[k] == 0);
}

static void test_nan_wins_and_zeros_are_ordered(void **state)
{
    (void)state;
    float a[] = {NAN, 1, -0.0f, 0.0f, -INFINITY, NAN};
    float b[] = {1, NAN, 0.0f, -0.0f, INFINITY, -NAN};
    for (int swapped = 0; swapped < 2; swapped++) {
        const void *sources[] = {swapped ? b : a, swapped ? a : b};
        float low[6], high[6];
        kolo__reduce(&(struct kolo__reduction){KOLO_FP32, KOLO_MIN, 1, NULL}, low, sources, 2, 6);
        kolo__reduce(&(struct kolo__reduction){KOLO_FP32, KOLO_MAX, 1, NULL}, high, sources, 2, 6);
        assert_true(isnan(low[0]) && isnan(low[1]) && isnan(high[0]) && isnan(high[1]));
        assert_true(low[2] == 0 && signbit(low[2]) && low[3] == 0 && signbit(low[3]));
        assert_true(high[2] == 0 && !signbit(high[2]) && high[3] == 0 && !signbit(high[3]));
        assert_true(low[4] == -INFINITY && high[4] == INFINITY);
        assert_true(isnan(low[5]) && !signbit(low[5]) && isnan(high[5]) && !signbit(high[5]));
    }
}

static void test_integers_wrap_and_truncate(void **state)
{
    (void)state;
    int32_t a[] = {INT32_MAX, INT32_MIN, -7, 7, INT32_MIN}, b[] = {1, -1, 0, 0, 0}, result[5];
    const void *sources[] = {a, b};
    kolo__reduce(&(struct kolo__reduction){KOLO_INT32, KOLO_SUM, 1, NULL}, result, sources, 2, 5);
    assert_int_equal(result[0], INT32_MIN);
    assert_int_equal(result[1], INT32_MAX);
    kolo__reduce(&(struct kolo__reduction){KOLO_INT32, KOLO_AVERAGE, 2, NULL}, result, sources, 2,
                 5);
    assert_int_equal(result[0], INT32_MIN / 2);
    assert_int_equal(result[2], -3);
    assert_int_equal(result[3], 3);

    /* The product of two uint16_t overflows int, into which C promotes them. */
    uint16_t large = 65535, product;
    const void *larges[] = {&large, &large};
    kolo__reduce(&(struct kolo__reduction){KOLO_UINT16, KOLO_PRODUCT, 1, NULL}, &product, larges, 2,
                 1);
    assert_int_equal(product, 1);

    /* The largest quotients and divisors, which go through double. */
    uint32_t dividend = UINT32_MAX, quotient;
    const void *one[] = {&dividend};
    kolo__reduce(&(struct kolo__reduction){KOLO_UINT32, KOLO_AVERAGE, UINT32_MAX, NULL}, &quotient,
                 one, 1, 1);
    assert_int_equal(quotient, 1);
    dividend--;
    kolo__reduce(&(struct kolo__reduction){KOLO_UINT32, KOLO_AVERAGE, UINT32_MAX, NULL}, &quotient,
                 one, 1, 1);
    assert_int_equal(quotient, 0);
}

/* Runs the reduction in a child and tells whether an assertion ended it. */
static bool stops(struct kolo__reduction reduction, uint32_t source_count)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        signal(SIGABRT, SIG_DFL);
        if (freopen("/dev/null", "w", stderr) == NULL)
            _exit(2);
        double element = 0;
        const void *sources[] = {&element, &element};
        kolo__reduce(&reduction, &element, sources, source_count, 1);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void test_wrong_arguments_stop(void **state)
{
    (void)state;
    assert_false(stops((struct kolo__reduction){KOLO_FP32, KOLO_SUM, 1, NULL}, 2));
    assert_true(stops((struct kolo__reduction){KOLO_FP32, KOLO_AND, 1, NULL}, 2));
    assert_true(stops((struct kolo__reduction){KOLO_FP32, KOLO_SUM, 0, NULL}, 2));
    assert_true(stops((struct kolo__reduction){KOLO_FP32, KOLO_SUM, 1, NULL}, 0));
    assert_true(stops((struct kolo__reduction){(kolo_dtype)99, KOLO_SUM, 1, NULL}, 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_dtype_and_op),
        cmocka_unit_test(test_every_variant),
        cmocka_unit_test(test_every_small_count),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_16_bits_round_once),
        cmocka_unit_test(test_scaled_contribution_is_rounded_before_it_is_added),
        cmocka_unit_test(test_nan_wins_and_zeros_are_ordered),
        cmocka_unit_test(test_integers_wrap_and_truncate),
        cmocka_unit_test(test_wrong_arguments_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
