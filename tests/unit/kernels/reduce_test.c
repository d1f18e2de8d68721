/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every kernel against the reference: each dtype and op, each variant this processor has, counts
 * around the block, misaligned and in place. Below that, cases whose answer is written out by hand.
 * Sums, which have loops of their own: sum_test.c.
 */
#include "kernels/kernels.h"
#include "kernels/cpu/variant.h"
#include "tests/unit/kernels/reduction_check.h"

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

enum { GUARD = 0xa5 };

/* reduce: one variant's kernels, or NULL for the public entry. */
static void check_all(kolo__reduce_function *const *reduce)
{
    static const size_t counts[] = {1025, 0, 2049, 1, 1024, 37, 1023};
    static const double scales[SOURCES_MAX] = {0.5, 1.0 / 3, -1.7, 1, 1e-3, 2, 7, 1e-9, -1, 3};
    unsigned turn = 0;
    for (int dtype = 0; dtype < KOLO_DTYPE_COUNT; dtype++) {
        for (int op = 0; op < KOLO_OP_COUNT; op++) {
            if (!kolo__reduction_defined((kolo_dtype)dtype, (kolo_op)op))
                continue;
            /* Of the kernels alone, a single source is never asked without a divisor. */
            for (unsigned sources = reduce != NULL ? 2 : 1; sources <= SOURCES_MAX; sources++) {
                for (int in_place = -1; in_place < (int)sources; in_place++) {
                    struct shape shape = {sources,  counts[turn % 7],  turn / 7 % 3,
                                          in_place, 1 + turn % TO_MAX, false,
                                          NULL};
                    struct kolo__reduction reduction = {
                        (kolo_dtype)dtype, (kolo_op)op, turn % 2 != 0 ? 1 : 1 + turn % 7,
                        turn % 5 != 0 ? scales : NULL, turn / 3 % 2 != 0};
                    check_reduction(&reduction, &shape, reduce != NULL ? reduce[dtype] : NULL);
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
            struct shape shape = {2, count, count / 3 % 3, (int)(count % 3) - 1, 1, false, NULL};
            check_reduction(&sum, &shape, NULL);
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

/* Of any length, aligned and not: processors copy short, middling and long ones in other ways. */
static void test_long_copies(void **state)
{
    (void)state;
    static const size_t lengths[] = {1023, 1024, 1025, 4096, 4100, 32767, 32768, 32769, 100000};
    static unsigned char from[100100], to[100100];
    for (size_t i = 0; i < sizeof from; i++)
        from[i] = (unsigned char)(i * 7 + i / 256 + i / 65536);
    for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++) {
        for (size_t offset = 1; offset <= 65; offset += 16) {
            memset(to, GUARD, sizeof to);
            kolo__copy(to + offset, from + l, lengths[l], false);
            assert_memory_equal(to + offset, from + l, lengths[l]);
            assert_int_equal(to[offset - 1], GUARD);
            assert_int_equal(to[offset + lengths[l]], GUARD);
        }
    }
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
        cmocka_unit_test(test_long_copies),
        cmocka_unit_test(test_16_bits_round_once),
        cmocka_unit_test(test_scaled_contribution_is_rounded_before_it_is_added),
        cmocka_unit_test(test_nan_wins_and_zeros_are_ordered),
        cmocka_unit_test(test_integers_wrap_and_truncate),
        cmocka_unit_test(test_wrong_arguments_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
