/* SPDX-License-Identifier: Apache-2.0 */
/* Packing against plain loops over single values, and every variant against the portable one. */
#include "kernels/cpu/variant.h"

#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 5000 };

static const size_t counts[] = {0, 1, 2, 15, 16, 17, 31, 33, 63, 67, 2047, 2048, 2049, MOST};
enum { COUNTS = sizeof counts / sizeof *counts };

static float awkward(struct kolo__random *random)
{
    static const float special[] = {0.0f,    -0.0f,     INFINITY, -INFINITY, NAN,
                                    1e-42f,  -1e-40f,   65520.0f, 448.0f,    464.5f,
                                    3.4e38f, -3.39e38f, 57344.0f, 1.0f,      0.1f};
    if (kolo__random_below(random, 8) == 0)
        return special[kolo__random_below(random, sizeof special / sizeof *special)];
    float magnitude = ldexpf((float)kolo__random_below(random, 1 << 20),
                             (int)kolo__random_below(random, 60) - 40);
    return kolo__random_below(random, 2) ? magnitude : -magnitude;
}

static void fill(float *values, size_t count, uint64_t seed)
{
    struct kolo__random random = {seed};
    for (size_t k = 0; k < count; k++)
        values[k] = awkward(&random);
}

static size_t wire_bytes(enum kolo__narrow_float wire)
{
    return wire == KOLO__NARROW_E4M3 || wire == KOLO__NARROW_E5M2 ? 1 : 2;
}

static bool same_bits(const void *a, const void *b, size_t bytes)
{
    return memcmp(a, b, bytes) == 0;
}

static void test_pack_narrows_each_value(void **state)
{
    static unsigned char from[4 * MOST + 8], packed[2 * MOST + 8];
    static float values[MOST], error[MOST], kept[MOST];
    (void)state;
    for (int wire = 0; wire < KOLO__NARROW_COUNT; wire++)
        for (int c = 0; c < COUNTS; c++)
            for (int mode = 0; mode < 4; mode++) {
                size_t count = counts[c], skew = (size_t)(c + mode) % 4;
                bool feeds = mode & 1;
                double scale = mode & 2 ? 0.37 : 1;
                struct kolo__packing packing = {KOLO_FP32, true, (enum kolo__narrow_float)wire,
                                                scale};
                fill(values, count, (uint64_t)(wire * 100 + c * 4 + mode + 1));
                for (size_t k = 0; k < count; k++)
                    error[k] = kept[k] = (float)k * 1e-5f;
                memcpy(from + skew, values, 4 * count);
                memset(packed, 0xee, sizeof packed);
                size_t bytes = wire_bytes(packing.wire);
                kolo__pack(&packing, packed + skew, from + skew, feeds ? error : NULL, count);
                for (size_t k = 0; k < count; k++) {
                    float wanted = (float)scale * values[k], sent;
                    if (feeds)
                        wanted += kept[k];
                    unsigned char expected[2];
                    kolo__narrow(packing.wire, expected, &wanted, 1);
                    assert_true(same_bits(expected, packed + skew + k * bytes, bytes));
                    kolo__widen(packing.wire, &sent, expected, 1);
                    if (feeds) {
                        float rest = wanted - sent;
                        assert_true(error[k] == (isfinite(rest) ? rest : 0.0f));
                    }
                }
                assert_int_equal(packed[skew + count * bytes], 0xee);
            }
}

static void test_feedback_loses_nothing(void **state)
{
    enum { STEPS = 200 };
    float value = 0.001234567f, error = 0, received = 0;
    uint16_t packed;
    struct kolo__packing packing = {KOLO_FP32, true, KOLO__NARROW_BF16, 1};
    (void)state;
    for (int step = 0; step < STEPS; step++) {
        float sent;
        kolo__pack(&packing, &packed, &value, &error, 1);
        kolo__unpack(&packing, &sent, &packed, NULL, 0, 1);
        received += sent;
    }
    assert_true(fabsf(received + error - STEPS * value) < STEPS * value * 1e-5f);
    /* Without it all steps err the same way. */
    float plain = 0;
    for (int step = 0; step < STEPS; step++) {
        float sent;
        kolo__pack(&packing, &packed, &value, NULL, 1);
        kolo__unpack(&packing, &sent, &packed, NULL, 0, 1);
        plain += sent;
    }
    assert_true(fabsf(plain - STEPS * value) > 10 * fabsf(received - STEPS * value));
}

static void test_unpack_widens_scales_and_measures(void **state)
{
    static float values[MOST], out[MOST];
    static unsigned char packed[2 * MOST];
    (void)state;
    for (int wire = 0; wire < KOLO__NARROW_COUNT; wire++)
        for (int c = 0; c < COUNTS; c++) {
            size_t count = counts[c], bytes = wire_bytes((enum kolo__narrow_float)wire);
            struct kolo__packing packing = {KOLO_FP32, true, (enum kolo__narrow_float)wire, 0.5};
            struct kolo__norm norm = {{0}, false}, expected = {{0}, false};
            fill(values, count, (uint64_t)(wire + c * 7 + 1));
            kolo__narrow(packing.wire, packed, values, count);
            kolo__unpack(&packing, out, packed, &norm, 0, count);
            for (size_t k = 0; k < count; k++) {
                float wide;
                kolo__widen(packing.wire, &wide, packed + k * bytes, 1);
                float want = wide * 0.5f;
                assert_true(isnan(want) ? isnan(out[k]) != 0 : same_bits(&want, &out[k], 4));
                expected.lanes[k % KOLO__NORM_LANES] += (double)want * (double)want;
                expected.not_finite |= !isfinite(want);
            }
            assert_int_equal(norm.not_finite, expected.not_finite);
            if (!norm.not_finite)
                assert_true(same_bits(norm.lanes, expected.lanes, sizeof norm.lanes));
        }
}

static void test_other_dtypes_travel_as_they_are(void **state)
{
    static const kolo_dtype dtypes[] = {KOLO_FP16, KOLO_BF16, KOLO_FP32, KOLO_FP64};
    static unsigned char from[8 * MOST], packed[8 * MOST], back[8 * MOST];
    (void)state;
    for (size_t d = 0; d < 4; d++) {
        struct kolo__packing packing = {.dtype = dtypes[d], .scale = 1};
        size_t bytes = kolo_dtype_bytes(dtypes[d]);
        for (size_t k = 0; k < MOST; k++) {
            double value = (double)(k % 100) - 50;
            float narrow = (float)value;
            uint16_t half = dtypes[d] == KOLO_FP16 ? kolo__fp16_from_fp32(narrow)
                                                   : kolo__bf16_from_fp32(narrow);
            memcpy(from + k * bytes,
                   bytes == 8   ? (void *)&value
                   : bytes == 4 ? (void *)&narrow
                                : (void *)&half,
                   bytes);
        }
        struct kolo__norm norm = {{0}, false};
        kolo__pack(&packing, packed, from, NULL, MOST);
        assert_memory_equal(packed, from, MOST * bytes);
        kolo__unpack(&packing, back, packed, &norm, 0, MOST);
        assert_memory_equal(back, from, MOST * bytes);
        double squares = 0;
        for (int k = 0; k < MOST; k++)
            squares += pow(k % 100 - 50, 2);
        assert_true(kolo__norm_total(&norm) == squares); /* whole numbers: exact */
        packing.scale = 2;
        kolo__pack(&packing, packed, from, NULL, MOST);
        packing.scale = 0.5;
        kolo__unpack(&packing, back, packed, NULL, 0, MOST);
        assert_memory_equal(back, from, MOST * bytes);
    }
}

static void test_norms_do_not_depend_on_cuts(void **state)
{
    static float values[MOST];
    static uint16_t halves[MOST];
    struct kolo__random random = {11};
    (void)state;
    for (size_t k = 0; k < MOST; k++) {
        values[k] = (float)kolo__random_below(&random, 1000) * 0.37f;
        halves[k] = kolo__bf16_from_fp32(values[k]);
    }
    struct kolo__norm whole[2] = {{{0}, false}, {{0}, false}};
    kolo__norm_add(&whole[0], KOLO_FP32, values, 0, MOST);
    kolo__norm_add(&whole[1], KOLO_BF16, halves, 0, MOST);
    for (int round = 0; round < 50; round++) {
        struct kolo__norm cut[2] = {{{0}, false}, {{0}, false}};
        for (size_t k = 0, n; k < MOST; k += n) {
            n = 1 + kolo__random_below(&random, 400);
            n = n < MOST - k ? n : MOST - k;
            kolo__norm_add(&cut[0], KOLO_FP32, values + k, k, n);
            kolo__norm_add(&cut[1], KOLO_BF16, halves + k, k, n);
        }
        assert_memory_equal(cut[0].lanes, whole[0].lanes, sizeof whole[0].lanes);
        assert_memory_equal(cut[1].lanes, whole[1].lanes, sizeof whole[1].lanes);
    }
}

static void test_absolute_max(void **state)
{
    float values[100] = {0};
    (void)state;
    assert_true(kolo__absolute_max(values, 0) == 0);
    for (int at = 0; at < 100; at++) {
        memset(values, 0, sizeof values);
        values[at] = -3.5f;
        assert_true(kolo__absolute_max(values, 100) == 3.5f);
        values[at] = -INFINITY;
        assert_true(isinf(kolo__absolute_max(values, 100)));
        values[99 - at] = -NAN;
        assert_true(isnan(kolo__absolute_max(values, 100)));
    }
}

static void test_sum_narrow(void **state)
{
    enum { RANKS = 5 };
    static unsigned char sent[RANKS][MOST], out[MOST];
    const void *sources[RANKS];
    (void)state;
    for (int wire = KOLO__NARROW_E4M3; wire <= KOLO__NARROW_E5M2; wire++)
        for (uint32_t ranks = 1; ranks <= RANKS; ranks++) {
            for (uint32_t r = 0; r < ranks; r++) {
                for (size_t k = 0; k < MOST; k++)
                    sent[r][k] = (unsigned char)((k * 3 + r * 41) % 0x70);
                sources[r] = sent[r];
            }
            kolo__sum_narrow((enum kolo__narrow_float)wire, out, sources, ranks, ranks, MOST);
            for (size_t k = 0; k < MOST; k++) {
                float sum = 0, wide;
                unsigned char want;
                for (uint32_t r = 0; r < ranks; r++) {
                    kolo__widen((enum kolo__narrow_float)wire, &wide, &sent[r][k], 1);
                    sum = r == 0 ? wide : sum + wide;
                }
                sum /= (float)ranks;
                kolo__narrow((enum kolo__narrow_float)wire, &want, &sum, 1);
                assert_int_equal(out[k], want);
            }
        }
}

/* The loops of each variant beside those of the portable one. */
static void test_variants_agree(void **state)
{
    static float values[MOST + 1], error[MOST], ours[MOST], theirs[MOST];
    static double wide[MOST], wide_ours[MOST], wide_theirs[MOST];
    (void)state;
    for (size_t v = 0; kolo__cpu_variants[v] != NULL; v++) {
        const struct kolo__cpu_variant *variant = kolo__cpu_variants[v];
        if (!variant->supported())
            continue;
        for (int c = 0; c < COUNTS; c++) {
            size_t count = counts[c];
            fill(values, MOST + 1, (uint64_t)c + 17);
            for (size_t k = 0; k < MOST; k++) {
                values[k] = isnan(values[k]) ? NAN : values[k];
                error[k] = (float)k;
                wide[k] = isfinite(values[k]) ? (double)values[k] * 1.1 : 2.5;
            }
            const unsigned char *skewed = (const unsigned char *)values + 1;
            variant->pack_scaled(ours, values, error, 0.3f, count);
            kolo__cpu_portable.pack_scaled(theirs, values, error, 0.3f, count);
            assert_memory_equal(ours, theirs, 4 * count);
            variant->pack_residual(ours, values, error, count);
            kolo__cpu_portable.pack_residual(theirs, values, error, count);
            assert_memory_equal(ours, theirs, 4 * count);
            memcpy(ours, values, 4 * count);
            memcpy(theirs, values, 4 * count);
            variant->scale_fp32(ours, count, 0.7);
            kolo__cpu_portable.scale_fp32(theirs, count, 0.7);
            assert_memory_equal(ours, theirs, 4 * count);
            memcpy(wide_ours, wide, 8 * count);
            memcpy(wide_theirs, wide, 8 * count);
            variant->scale_fp64(wide_ours, count, 0.7);
            kolo__cpu_portable.scale_fp64(wide_theirs, count, 0.7);
            assert_memory_equal(wide_ours, wide_theirs, 8 * count);
            assert_int_equal(variant->absolute_max(skewed, count),
                             kolo__cpu_portable.absolute_max(skewed, count));
            double lanes[2][KOLO__NORM_LANES] = {{0}};
            bool bad[2] = {false, false};
            variant->norm_fp64(lanes[0], wide, count, &bad[0]);
            kolo__cpu_portable.norm_fp64(lanes[1], wide, count, &bad[1]);
            assert_memory_equal(lanes[0], lanes[1], sizeof lanes[0]);
            assert_int_equal(bad[0], bad[1]);
            assert_false(bad[0]);
            for (size_t k = 0; k < MOST; k++)
                values[k] = isfinite(values[k]) ? values[k] : 1.5f;
            variant->norm_fp32(lanes[0], values, count, &bad[0]);
            kolo__cpu_portable.norm_fp32(lanes[1], values, count, &bad[1]);
            assert_memory_equal(lanes[0], lanes[1], sizeof lanes[0]);
            for (size_t k = 0; k < count; k += 97) {
                float saved = values[k];
                values[k] = k % 2 ? -INFINITY : NAN;
                bad[0] = false;
                variant->norm_fp32(lanes[0], values, count, &bad[0]);
                assert_true(bad[0]);
                values[k] = saved;
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pack_narrows_each_value),
        cmocka_unit_test(test_feedback_loses_nothing),
        cmocka_unit_test(test_unpack_widens_scales_and_measures),
        cmocka_unit_test(test_other_dtypes_travel_as_they_are),
        cmocka_unit_test(test_norms_do_not_depend_on_cuts),
        cmocka_unit_test(test_absolute_max),
        cmocka_unit_test(test_sum_narrow),
        cmocka_unit_test(test_variants_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
