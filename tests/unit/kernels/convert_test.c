/* SPDX-License-Identifier: Apache-2.0 */
/* fp16 and bf16: every value there is, every neighbourhood of a rounding tie, and names of types.
 */
#include "float_bits.h"
#include "kernels/kernels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <fenv.h>
#include <math.h>
#include <string.h>

/* The definition of a 16-bit float with that many exponent and mantissa bits. */
static double defined_value(uint16_t half, int exponent_bits, int mantissa_bits)
{
    int bias = (1 << (exponent_bits - 1)) - 1;
    int mantissa = half & ((1 << mantissa_bits) - 1);
    int exponent = (half >> mantissa_bits) & ((1 << exponent_bits) - 1);
    double sign = half & 0x8000 ? -1 : 1;
    if (exponent == (1 << exponent_bits) - 1)
        return mantissa != 0 ? (double)NAN : sign * (double)INFINITY;
    if (exponent == 0)
        return sign * ldexp(mantissa, 1 - bias - mantissa_bits);
    return sign * ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}

struct format {
    int exponent_bits;
    int mantissa_bits;
    float (*widen)(uint16_t);
    uint16_t (*narrow)(float);
};

static const struct format fp16 = {5, 10, kolo__fp16_to_fp32, kolo__fp16_from_fp32};
static const struct format bf16 = {8, 7, kolo__bf16_to_fp32, kolo__bf16_from_fp32};

static void check_every_value(const struct format *format)
{
    uint16_t quiet = (uint16_t)(1u << (format->mantissa_bits - 1));
    for (uint32_t half = 0; half <= 0xffff; half++) {
        double expected =
            defined_value((uint16_t)half, format->exponent_bits, format->mantissa_bits);
        float got = format->widen((uint16_t)half);
        if (isnan(expected)) {
            assert_true(isnan(got));
            assert_true(bits_of(got) & 0x00400000u);
            assert_int_equal(format->narrow(got), half | quiet);
        } else {
            assert_int_equal(bits_of(got), bits_of((float)expected));
            assert_int_equal(format->narrow(got), half);
        }
    }
}

/* Between each value and the next, the middle goes to the even one and its neighbours to the near
 * one. */
static void check_every_tie(const struct format *format)
{
    uint32_t infinity = ((1u << format->exponent_bits) - 1) << format->mantissa_bits;
    for (uint32_t half = 0; half < infinity; half++) {
        double low = format->widen((uint16_t)half);
        /* Behind the largest value the grid goes on: that is where infinity begins. */
        double high = half + 1 < infinity ? (double)format->widen((uint16_t)(half + 1))
                                          : ldexp(1, 1 << (format->exponent_bits - 1));
        float middle = (float)((low + high) / 2);
        uint16_t even = (uint16_t)(half & 1 ? half + 1 : half);
        for (uint32_t sign = 0; sign <= 0x8000; sign += 0x8000) {
            float direction = sign != 0 ? -1.0f : 1.0f;
            assert_int_equal(format->narrow(direction * middle), sign | even);
            assert_int_equal(format->narrow(direction * nextafterf(middle, 0)), sign | half);
            assert_int_equal(format->narrow(direction * nextafterf(middle, INFINITY)),
                             sign | (half + 1));
        }
    }
}

static void test_fp16_every_value(void **state)
{
    (void)state;
    check_every_value(&fp16);
}

static void test_bf16_every_value(void **state)
{
    (void)state;
    check_every_value(&bf16);
}

static void test_fp16_every_tie(void **state)
{
    (void)state;
    check_every_tie(&fp16);
}

static void test_bf16_every_tie(void **state)
{
    (void)state;
    check_every_tie(&bf16);
}

static void test_special_values(void **state)
{
    (void)state;
    assert_int_equal(kolo__fp16_from_fp32(INFINITY), 0x7c00);
    assert_int_equal(kolo__fp16_from_fp32(-INFINITY), 0xfc00);
    assert_int_equal(kolo__fp16_from_fp32(3e38f), 0x7c00);
    assert_int_equal(kolo__fp16_from_fp32(65519.996f), 0x7bff);
    assert_int_equal(kolo__fp16_from_fp32(65520.0f), 0x7c00);
    assert_int_equal(kolo__fp16_from_fp32(float_of(1)), 0); /* the least fp32 denormal */
    assert_int_equal(kolo__fp16_from_fp32(-0.0f), 0x8000);
    assert_int_equal(kolo__bf16_from_fp32(float_of(1)), 0);
    assert_int_equal(kolo__bf16_from_fp32(float_of(0x18000)), 2); /* a denormal tie */
    assert_int_equal(kolo__bf16_from_fp32(float_of(0x7f7fffff)), 0x7f80);
    assert_int_equal(kolo__bf16_from_fp32(-INFINITY), 0xff80);

    /* A NaN whose payload lies below what is kept must not turn into infinity; signaling ones get
     * quiet. */
    assert_int_equal(kolo__fp16_from_fp32(float_of(0x7f800001)), 0x7e00);
    assert_int_equal(kolo__fp16_from_fp32(float_of(0xffffffff)), 0xffff);
    assert_int_equal(kolo__bf16_from_fp32(float_of(0x7f800001)), 0x7fc0);
    assert_int_equal(kolo__bf16_from_fp32(float_of(0xffffffff)), 0xffff);
}

static void test_rounding_mode_changes_nothing(void **state)
{
    (void)state;
    static const int modes[] = {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    for (size_t m = 0; m < sizeof(modes) / sizeof(modes[0]); m++) {
        for (uint32_t bits = 0x30000000; bits < 0x48000000; bits += 0x777) {
            volatile float value = float_of(bits);
            uint16_t nearest = kolo__fp16_from_fp32(value);
            float wide = kolo__fp16_to_fp32(nearest);
            assert_int_equal(fesetround(modes[m]), 0);
            uint16_t other = kolo__fp16_from_fp32(value);
            float other_wide = kolo__fp16_to_fp32(nearest);
            fesetround(FE_TONEAREST);
            assert_int_equal(other, nearest);
            assert_int_equal(bits_of(other_wide), bits_of(wide));
        }
    }
}

#if defined(__FLT16_MAX__) && !defined(__clang__)
/* The compiler's own conversions, over a sample of all fp32. */
static void test_fp16_agrees_with_compiler(void **state)
{
    (void)state;
    for (uint64_t bits = 0; bits <= 0xffffffffu; bits += 0x1357) {
        float value = float_of((uint32_t)bits);
        _Float16 expected = (_Float16)value;
        uint16_t half;
        memcpy(&half, &expected, sizeof(half));
        assert_int_equal(kolo__fp16_from_fp32(value), half);
    }
}
#endif

static void test_names(void **state)
{
    (void)state;
    static const size_t bytes[KOLO_DTYPE_COUNT] = {1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 4, 8};
    for (int i = 0; i < KOLO_DTYPE_COUNT; i++) {
        kolo_dtype parsed = KOLO_DTYPE_COUNT;
        assert_true(kolo__dtype_parse(kolo_dtype_name((kolo_dtype)i), &parsed));
        assert_int_equal(parsed, i);
        assert_int_equal(kolo_dtype_bytes((kolo_dtype)i), bytes[i]);
    }
    for (int i = 0; i < KOLO_OP_COUNT; i++) {
        kolo_op parsed = KOLO_OP_COUNT;
        assert_true(kolo__op_parse(kolo_op_name((kolo_op)i), &parsed));
        assert_int_equal(parsed, i);
    }
    assert_string_equal(kolo_dtype_name(KOLO_BF16), "bf16");
    assert_string_equal(kolo_op_name(KOLO_PREMUL_SUM), "premul_sum");

    kolo_dtype dtype = KOLO_FP64;
    kolo_op op = KOLO_XOR;
    assert_false(kolo__dtype_parse("float", &dtype));
    assert_false(kolo__op_parse("", &op));
    assert_int_equal(dtype, KOLO_FP64);
    assert_int_equal(op, KOLO_XOR);
    assert_null(kolo_dtype_name((kolo_dtype)KOLO_DTYPE_COUNT));
    assert_null(kolo_op_name((kolo_op)-1));
    assert_int_equal(kolo_dtype_bytes((kolo_dtype)-1), 0);
}

static void test_defined(void **state)
{
    (void)state;
    assert_true(kolo__reduction_defined(KOLO_INT8, KOLO_XOR));
    assert_true(kolo__reduction_defined(KOLO_UINT64, KOLO_AVERAGE));
    assert_true(kolo__reduction_defined(KOLO_BF16, KOLO_PREMUL_SUM));
    assert_false(kolo__reduction_defined(KOLO_FP16, KOLO_AND));
    assert_false(kolo__reduction_defined(KOLO_INT32, KOLO_PREMUL_SUM));
    assert_false(kolo__reduction_defined((kolo_dtype)KOLO_DTYPE_COUNT, KOLO_SUM));
    assert_false(kolo__reduction_defined(KOLO_FP32, (kolo_op)-1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fp16_every_value),
        cmocka_unit_test(test_bf16_every_value),
        cmocka_unit_test(test_fp16_every_tie),
        cmocka_unit_test(test_bf16_every_tie),
        cmocka_unit_test(test_special_values),
        cmocka_unit_test(test_rounding_mode_changes_nothing),
#if defined(__FLT16_MAX__) && !defined(__clang__)
        cmocka_unit_test(test_fp16_agrees_with_compiler),
#endif
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_defined),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
