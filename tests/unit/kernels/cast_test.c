/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Casts of arrays, each variant this processor has: every narrow value there is, against the
 * definition of its format; and of fp32 all neighbourhoods of values and ties, and every upper half
 * with lower halves that matter, against a search for the nearest value.
 */
#include "float_bits.h"
#include "kernels/kernels.h"
#include "kernels/cpu/variant.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct format {
    const char *name;
    unsigned exponent_bits, mantissa_bits;
    bool infinite;    /* has infinities; otherwise one code of magnitude is NaN, the last */
    bool saturates;   /* finite values beyond the largest become the largest */
    uint16_t largest; /* the code of it */
};

static const struct format formats[KOLO__NARROW_COUNT] = {
    [KOLO__NARROW_FP16] = {"fp16", 5, 10, true, false, 0x7bff},
    [KOLO__NARROW_BF16] = {"bf16", 8, 7, true, false, 0x7f7f},
    [KOLO__NARROW_E4M3] = {"e4m3", 4, 3, false, true, 0x7e},
    [KOLO__NARROW_E5M2] = {"e5m2", 5, 2, true, true, 0x7b},
};

enum { CODES_MAX = 65536, CASES_MAX = 700000, GUARD = 0xa5 };

static float cases[CASES_MAX];
static unsigned char bytes[CASES_MAX * 4 + 64];
static size_t case_count;

static unsigned width(const struct format *format)
{
    return 1 + format->exponent_bits + format->mantissa_bits;
}

/* The value of a code without sign, by the definition of the format. */
static double magnitude_of(const struct format *format, unsigned code)
{
    int bias = (1 << (format->exponent_bits - 1)) - 1;
    int mantissa_bits = (int)format->mantissa_bits;
    int mantissa = (int)code & ((1 << mantissa_bits) - 1);
    int exponent = (int)code >> mantissa_bits;
    if (code > format->largest)
        return format->infinite && mantissa == 0 ? (double)INFINITY : (double)NAN;
    if (exponent == 0)
        return ldexp(mantissa, 1 - bias - mantissa_bits);
    return ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}

/* The code for a value that is no NaN, by search for its two neighbours. */
static unsigned nearest(const struct format *format, double magnitude)
{
    unsigned infinity = format->infinite ? format->largest + 1u : 0x7f;
    if (isinf(magnitude))
        return infinity;
    unsigned low = 0, high = format->largest + 1u; /* the code behind the largest: on its grid */
    while (high - low > 1) {
        unsigned middle = (low + high) / 2;
        if (magnitude_of(format, middle) <= magnitude)
            low = middle;
        else
            high = middle;
    }
    double below = magnitude_of(format, low);
    double step =
        low == 0
            ? magnitude_of(format, 1)
            : ldexp(1, (int)((low >> format->mantissa_bits) == 0 ? 1
                                                                 : (low >> format->mantissa_bits)) -
                           ((1 << (format->exponent_bits - 1)) - 1) - (int)format->mantissa_bits);
    double rest = (magnitude - below) / step;
    bool up = rest > 0.5 || (rest == 0.5 && low % 2 != 0);
    if (low == format->largest && up)
        return format->saturates ? low : infinity;
    return low + up;
}

static void add_case(uint32_t bits)
{
    assert_true(case_count + 2 <= CASES_MAX);
    cases[case_count++] = float_of(bits & 0x7fffffffu);
    cases[case_count++] = float_of(bits | 0x80000000u);
}

/* Around each value and each tie, and every upper half of an fp32. */
static void make_cases(const struct format *format)
{
    case_count = 0;
    unsigned step = width(format) == 16 ? 3 : 1; /* convert_test has every tie of 16 bits */
    for (unsigned code = 0; code <= format->largest; code += step) {
        double low = magnitude_of(format, code);
        double high = magnitude_of(format, code + 1u);
        uint32_t at = bits_of((float)low);
        uint32_t tie = bits_of((float)(isfinite(high) ? (low + high) / 2 : low * (1 + 0x1p-9)));
        for (int near = -1; near <= 1; near++) {
            if (at != 0 || near >= 0)
                add_case(at + (uint32_t)near);
            add_case(tie + (uint32_t)near);
        }
    }
    for (uint32_t upper = 0; upper < 0x8000u; upper++) {
        static const uint32_t lower[] = {0, 1, 0x7fff, 0x8000, 0xffff};
        for (int i = 0; i < 5; i++)
            add_case((upper << 16) | lower[i]);
    }
}

static uint32_t code_at(const struct format *format, const unsigned char *from, size_t k)
{
    uint16_t wide;
    if (width(format) == 8)
        return from[k];
    memcpy(&wide, from + 2 * k, sizeof wide);
    return wide;
}

static void check_narrowed(const struct format *format, const unsigned char *got, size_t count,
                           const float *from)
{
    unsigned sign = 1u << (width(format) - 1);
    for (size_t k = 0; k < count; k++) {
        uint32_t code = code_at(format, got, k);
        if (isnan(from[k])) {
            if (!isnan(magnitude_of(format, code & (sign - 1))))
                fail_msg("%s: NaN %#x became %#x", format->name, bits_of(from[k]), code);
            continue;
        }
        unsigned want = nearest(format, fabs((double)from[k])) | (signbit(from[k]) ? sign : 0);
        if (code != want)
            fail_msg("%s: %a (%#x) became %#x, not %#x", format->name, (double)from[k],
                     bits_of(from[k]), code, want);
    }
}

static void check_widened(const struct format *format, const float *got, const unsigned char *from,
                          size_t count)
{
    unsigned sign = 1u << (width(format) - 1);
    for (size_t k = 0; k < count; k++) {
        uint32_t code = code_at(format, from, k);
        double value = magnitude_of(format, code & (sign - 1));
        if (isnan(value)) {
            assert_true(isnan(got[k]) && (bits_of(got[k]) & 0x00400000u) != 0);
            assert_int_equal(bits_of(got[k]) >> 31, (code & sign) != 0);
        } else if (bits_of(got[k]) != bits_of((float)(code & sign ? -value : value))) {
            fail_msg("%s: %#x became %a", format->name, code, (double)got[k]);
        }
    }
}

static void check_variant(const struct kolo__cpu_variant *variant)
{
    static unsigned char codes[CODES_MAX * 2];
    static float wide[CODES_MAX];
    for (int f = 0; f < KOLO__NARROW_COUNT; f++) {
        const struct format *format = &formats[f];
        size_t count = (size_t)1 << width(format);
        for (size_t k = 0; k < count; k++) {
            uint16_t code = (uint16_t)k;
            memcpy(codes + k * width(format) / 8, &code, width(format) / 8);
        }
        variant->widen[f](wide, codes, count);
        check_widened(format, wide, codes, count);

        make_cases(format);
        variant->narrow[f](bytes, cases, case_count);
        check_narrowed(format, bytes, case_count, cases);
    }
}

static void test_every_value_and_tie(void **state)
{
    (void)state;
    for (size_t i = 0; kolo__cpu_variants[i] != NULL; i++) {
        if (kolo__cpu_variants[i]->supported())
            check_variant(kolo__cpu_variants[i]);
        else
            print_message("not on this processor: %s\n", kolo__cpu_variants[i]->name);
    }
}

/* NaNs too: the bits of every variant are those of the reference, wherever a loop's tail begins. */
static void test_variants_agree(void **state)
{
    (void)state;
    static unsigned char reference[CASES_MAX * 4 + 64];
    for (size_t i = 0; kolo__cpu_variants[i] != NULL; i++) {
        const struct kolo__cpu_variant *variant = kolo__cpu_variants[i];
        if (!variant->supported())
            continue;
        for (int f = 0; f < KOLO__NARROW_COUNT; f++) {
            size_t element = width(&formats[f]) / 8;
            make_cases(&formats[f]);
            for (size_t count = 0; count <= 70; count++) {
                const float *from = cases + (case_count - 71 * 3) + count;
                memset(bytes, GUARD, 400);
                memset(reference, GUARD, 400);
                variant->narrow[f](bytes + 1, from, count);
                kolo__cpu_portable.narrow[f](reference + 1, from, count);
                assert_memory_equal(bytes, reference, 400);
                assert_int_equal(bytes[count * element + 1], GUARD);
                variant->widen[f](bytes + 3, (const unsigned char *)cases + 1 + count * 3, count);
                kolo__cpu_portable.widen[f](reference + 3,
                                            (const unsigned char *)cases + 1 + count * 3, count);
                assert_memory_equal(bytes, reference, 400);
                assert_int_equal(bytes[count * 4 + 3], GUARD);
            }
            variant->narrow[f](bytes, cases, case_count);
            kolo__cpu_portable.narrow[f](reference, cases, case_count);
            assert_memory_equal(bytes, reference, case_count * element);
        }
    }
}

static unsigned narrowed(enum kolo__narrow_float format, float value)
{
    uint8_t code;
    kolo__narrow(format, &code, &value, 1);
    return code;
}

static void test_8_bits_saturate_but_do_not_hide_infinity(void **state)
{
    (void)state;
    assert_int_equal(narrowed(KOLO__NARROW_E4M3, 448), 0x7e);
    assert_int_equal(narrowed(KOLO__NARROW_E4M3, 1e30f), 0x7e);
    assert_int_equal(narrowed(KOLO__NARROW_E4M3, -465), 0xfe);
    assert_int_equal(narrowed(KOLO__NARROW_E4M3, INFINITY), 0x7f);
    assert_int_equal(narrowed(KOLO__NARROW_E4M3, -INFINITY), 0xff);
    assert_int_equal(narrowed(KOLO__NARROW_E5M2, 57344), 0x7b);
    assert_int_equal(narrowed(KOLO__NARROW_E5M2, 3e38f), 0x7b);
    assert_int_equal(narrowed(KOLO__NARROW_E5M2, INFINITY), 0x7c);
    assert_int_equal(narrowed(KOLO__NARROW_E5M2, -INFINITY), 0xfc);
    assert_int_equal(narrowed(KOLO__NARROW_E5M2, NAN) & 0x7f, 0x7e);
    assert_int_equal(narrowed(KOLO__NARROW_E4M3, 0x1p-9f), 0x01);
    assert_int_equal(narrowed(KOLO__NARROW_E4M3, 0x1p-10f), 0x00);
    assert_int_equal(narrowed(KOLO__NARROW_E4M3, -0.0f), 0x80);
    float one;
    kolo__widen(KOLO__NARROW_E4M3, &one, &(uint8_t){0x38}, 1);
    assert_true(one == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_value_and_tie),
        cmocka_unit_test(test_variants_agree),
        cmocka_unit_test(test_8_bits_saturate_but_do_not_hide_infinity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
