/* SPDX-License-Identifier: Apache-2.0 */
/* Packing against plain loops over single values, and every variant against the portable one. */
#include "float_bits.h"
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

/* Every length up to more than a vector of 64 bytes, and some around blocks; at every misalignment.
 */
static const size_t long_counts[] = {1023, 1024, 1025, 2047, 2049, MOST};
enum { SHORT_MOST = 67, COUNTS = SHORT_MOST + 1 + sizeof long_counts / sizeof *long_counts };
enum { SKEWS = 8 };

static size_t count_at(int c)
{
    return c <= SHORT_MOST ? (size_t)c : long_counts[c - SHORT_MOST - 1];
}

/* Quiet and signaling, of either sign, with payloads: what comes out of arithmetic is one NaN. */
static float a_nan(struct kolo__random *random)
{
    static const uint32_t nans[] = {0x7fffffff, 0xff800001, 0x7fc00000, 0xffffffff, 0xffc00000};
    return float_of(nans[kolo__random_below(random, sizeof nans / sizeof *nans)]);
}

/* One NaN for all. */
static float computed(float value)
{
    return isnan(value) ? float_of(0x7fc00000) : value;
}

static double computed_fp64(double value)
{
    return isnan(value) ? (double)float_of(0x7fc00000) : value;
}

static float awkward(struct kolo__random *random)
{
    static const float special[] = {0.0f,    -0.0f,     INFINITY, -INFINITY, 65519.0f,
                                    1e-42f,  -1e-40f,   65520.0f, 448.0f,    464.5f,
                                    3.4e38f, -3.39e38f, 57344.0f, 1.0f,      0.1f};
    if (kolo__random_below(random, 40) == 0)
        return a_nan(random);
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

static unsigned char raw[8 * MOST + SKEWS], packed[8 * MOST + SKEWS];
static float values[MOST], error[MOST], kept[MOST];

static void check_packed(const struct kolo__packing *packing, const unsigned char *at, bool feeds,
                         size_t count)
{
    size_t bytes = wire_bytes(packing->wire);
    for (size_t k = 0; k < count; k++) {
        float wanted = (float)packing->scale * values[k], sent;
        if (feeds)
            wanted += kept[k];
        wanted = feeds || packing->scale != 1 ? computed(wanted) : values[k];
        unsigned char expected[2];
        kolo__narrow(packing->wire, expected, &wanted, 1);
        assert_true(same_bits(expected, at + k * bytes, bytes));
        if (!feeds)
            continue;
        kolo__widen(packing->wire, &sent, expected, 1);
        float rest = isfinite(sent) && isfinite(wanted) ? wanted - sent : 0;
        assert_true(same_bits(&error[k], &rest, sizeof rest));
        if (isfinite(sent) && bytes == 2) /* saturates nowhere: nothing is lost */
            assert_true((double)sent + (double)error[k] == (double)wanted);
    }
    assert_int_equal(at[count * bytes], 0xee);
}

static void test_pack_narrows_each_value(void **state)
{
    (void)state;
    for (int wire = 0; wire < KOLO__NARROW_COUNT; wire++)
        for (int c = 0; c < COUNTS; c++)
            for (size_t turn = 0; turn < 4 * SKEWS; turn++) {
                size_t count = count_at(c), mode = turn / SKEWS, skew = turn % SKEWS;
                bool feeds = mode & 1;
                struct kolo__packing packing = {KOLO_FP32, true, (enum kolo__narrow_float)wire,
                                                mode & 2 ? 0.37 : 1};
                fill(values, count, (uint64_t)(wire * 1000 + c * 4) + mode + 1);
                for (size_t k = 0; k < count; k++)
                    error[k] = kept[k] = (float)k * 1e-5f;
                memcpy(raw + skew, values, 4 * count);
                memset(packed, 0xee, wire_bytes(packing.wire) * count + SKEWS);
                kolo__pack(&packing, packed + skew % 3, raw + skew, feeds ? error : NULL, count);
                check_packed(&packing, packed + skew % 3, feeds, count);
            }
}

/* After a step of NaNs, infinities and overflows the next one is as if it were the first. */
static void test_a_bad_step_spoils_no_other(void **state)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY, 3.4e38f};
    (void)state;
    for (int wire = 0; wire <= KOLO__NARROW_BF16; wire++)
        for (int i = 0; i < 4; i++) {
            struct kolo__packing packing = {KOLO_FP32, true, (enum kolo__narrow_float)wire, 1};
            float kept_one = 0.25f, good = 1.5f, sent;
            uint16_t one;
            kolo__pack(&packing, &one, &bad[i], &kept_one, 1);
            assert_true(kept_one == 0);
            kolo__pack(&packing, &one, &good, &kept_one, 1);
            kolo__unpack(&packing, &sent, &one, NULL, 0, 1);
            assert_true(sent == good && kept_one == 0);
        }
}

static void test_feedback_loses_nothing(void **state)
{
    enum { STEPS = 200 };
    float value = 0.001234567f, rest = 0, received = 0;
    uint16_t one;
    struct kolo__packing packing = {KOLO_FP32, true, KOLO__NARROW_BF16, 1};
    (void)state;
    for (int step = 0; step < STEPS; step++) {
        float sent;
        kolo__pack(&packing, &one, &value, &rest, 1);
        kolo__unpack(&packing, &sent, &one, NULL, 0, 1);
        received += sent;
    }
    assert_true(fabsf(received + rest - STEPS * value) < STEPS * value * 1e-5f);
    /* Without it all steps err the same way. */
    float plain = 0;
    for (int step = 0; step < STEPS; step++) {
        float sent;
        kolo__pack(&packing, &one, &value, NULL, 1);
        kolo__unpack(&packing, &sent, &one, NULL, 0, 1);
        plain += sent;
    }
    assert_true(fabsf(plain - STEPS * value) > 10 * fabsf(received - STEPS * value));
}

static void check_norm(const struct kolo__norm *norm, struct kolo__norm *expected)
{
    double total = 0;
    for (int lane = 0; lane < KOLO__NORM_LANES; lane++) {
        expected->lanes[lane] = computed_fp64(expected->lanes[lane]);
        total += expected->lanes[lane];
    }
    assert_memory_equal(norm->lanes, expected->lanes, sizeof norm->lanes);
    assert_int_equal(norm->not_finite, expected->not_finite);
    double got = kolo__norm_total(norm);
    total = computed_fp64(total);
    assert_true(same_bits(&got, &total, sizeof total));
}

static void test_unpack_widens_scales_and_measures(void **state)
{
    static unsigned char out[4 * MOST + SKEWS];
    (void)state;
    for (int wire = 0; wire < KOLO__NARROW_COUNT; wire++)
        for (int c = 0; c < COUNTS; c++)
            for (size_t skew = 0; skew < SKEWS; skew++) {
                size_t count = count_at(c), bytes = wire_bytes((enum kolo__narrow_float)wire);
                struct kolo__packing packing = {KOLO_FP32, true, (enum kolo__narrow_float)wire,
                                                skew % 3 == 0 ? 1 : 0.37};
                struct kolo__norm norm = {.lanes = {1}}, expected = norm;
                fill(values, count, (uint64_t)wire + (uint64_t)c * 7 + 1);
                unsigned char *from = packed + skew % 3;
                kolo__narrow(packing.wire, from, values, count);
                memset(out, 0xee, 4 * count + SKEWS);
                kolo__unpack(&packing, out + skew, from, skew % 2 ? &norm : NULL, skew * 3, count);
                for (size_t k = 0; k < count; k++) {
                    float wide;
                    kolo__widen(packing.wire, &wide, from + k * bytes, 1);
                    float want = packing.scale == 1 ? wide : computed(wide * 0.37f);
                    assert_true(same_bits(&want, out + skew + 4 * k, 4));
                    expected.lanes[(skew * 3 + k) % KOLO__NORM_LANES] +=
                        (double)want * (double)want;
                    expected.not_finite |= !isfinite(want);
                }
                assert_true(skew == SKEWS - 1 || out[skew + 4 * count] == 0xee);
                if (skew % 2)
                    check_norm(&norm, &expected);
            }
}

/* One element of a dtype, from and to the type that computes it. */
static double element(kolo_dtype dtype, const void *at)
{
    uint16_t half;
    float single;
    double whole;
    memcpy(&half, at, sizeof half);
    if (dtype == KOLO_FP16)
        return (double)kolo__fp16_to_fp32(half);
    if (dtype == KOLO_BF16)
        return (double)kolo__bf16_to_fp32(half);
    if (dtype == KOLO_FP32)
        return memcpy(&single, at, sizeof single), (double)single;
    return memcpy(&whole, at, sizeof whole), whole;
}

static void check_scaled(kolo_dtype dtype, const void *got, const void *from, double factor)
{
    double want = computed_fp64(element(dtype, from) * factor);
    float single = computed((float)element(dtype, from) * (float)factor);
    uint16_t half =
        dtype == KOLO_FP16 ? kolo__fp16_from_fp32(single) : kolo__bf16_from_fp32(single);
    const void *expected = dtype == KOLO_FP64   ? (void *)&want
                           : dtype == KOLO_FP32 ? (void *)&single
                                                : (void *)&half;
    assert_memory_equal(got, expected, kolo_dtype_bytes(dtype));
}

/* Random bits: every kind of value there is. Where nothing narrows, in place and from elsewhere. */
static void test_scales_and_norms_of_every_dtype(void **state)
{
    static unsigned char out[8 * MOST + SKEWS];
    (void)state;
    struct kolo__random random = {5};
    for (int dtype = KOLO_FP16; dtype <= KOLO_FP64; dtype++)
        for (int c = 0; c < COUNTS; c++)
            for (size_t skew = 0; skew < SKEWS; skew++) {
                size_t count = count_at(c), bytes = kolo_dtype_bytes((kolo_dtype)dtype);
                struct kolo__packing packing = {.dtype = (kolo_dtype)dtype, .scale = 0.37};
                struct kolo__norm norm = {.lanes = {[15] = 2}}, expected = norm;
                for (size_t i = 0; i < count * bytes; i++)
                    raw[skew + i] = (unsigned char)kolo__random_below(&random, 256);
                memcpy(packed, raw + skew, count * bytes);
                memset(out, 0xee, count * bytes + SKEWS);
                if (c % 3 == 0) {
                    kolo__pack(&packing, out + skew, raw + skew, NULL, count);
                } else {
                    memcpy(out + skew, raw + skew, count * bytes);
                    if (c % 3 == 1)
                        kolo__scale((kolo_dtype)dtype, out + skew, count, 0.37);
                    else
                        kolo__unpack(&packing, out + skew, out + skew, NULL, 0, count);
                }
                for (size_t k = 0; k < count; k++) {
                    double value = element((kolo_dtype)dtype, packed + k * bytes);
                    check_scaled((kolo_dtype)dtype, out + skew + k * bytes, packed + k * bytes,
                                 0.37);
                    expected.lanes[((size_t)c + k) % KOLO__NORM_LANES] += value * value;
                    expected.not_finite |= !isfinite(value);
                }
                kolo__norm_add(&norm, (kolo_dtype)dtype, raw + skew, (size_t)c, count);
                check_norm(&norm, &expected);
            }
}

static void test_unscaled_travels_as_it_is(void **state)
{
    static unsigned char back[8 * MOST];
    struct kolo__random random = {3};
    (void)state;
    for (size_t i = 0; i < sizeof raw; i++)
        raw[i] = (unsigned char)kolo__random_below(&random, 256);
    for (int dtype = KOLO_FP16; dtype <= KOLO_FP64; dtype++) {
        struct kolo__packing packing = {.dtype = (kolo_dtype)dtype, .scale = 1};
        size_t bytes = MOST * kolo_dtype_bytes((kolo_dtype)dtype);
        kolo__pack(&packing, packed, raw, NULL, MOST);
        assert_memory_equal(packed, raw, bytes);
        kolo__unpack(&packing, back, packed, NULL, 0, MOST);
        assert_memory_equal(back, raw, bytes);
        kolo__unpack(&packing, back, back, NULL, 0, MOST);
        assert_memory_equal(back, raw, bytes);
    }
}

static void test_absolute_max(void **state)
{
    float numbers[100] = {0};
    (void)state;
    assert_true(kolo__absolute_max(numbers, 0) == 0);
    for (int at = 0; at < 100; at++) {
        memset(numbers, 0, sizeof numbers);
        numbers[at] = -3.5f;
        assert_true(kolo__absolute_max(numbers, 100) == 3.5f);
        numbers[at] = -INFINITY;
        assert_true(isinf(kolo__absolute_max(numbers, 100)));
        numbers[99 - at] = -NAN;
        assert_true(isnan(kolo__absolute_max(numbers, 100)));
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
                    sent[r][k] = (unsigned char)(k * (2 * r + 3) + r * 41); /* NaNs too */
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
                sum = ranks == 1 ? sum : computed(sum / (float)ranks);
                kolo__narrow((enum kolo__narrow_float)wire, &want, &sum, 1);
                assert_int_equal(out[k], want);
            }
        }
}

struct loops_output {
    float scaled[MOST], fed[MOST], residual[MOST];
    unsigned char fp32[4 * MOST + SKEWS], fp64[8 * MOST + SKEWS];
    double lanes[2][KOLO__NORM_LANES];
    bool not_finite[2];
    uint32_t most;
};

/* raw: whatever bits, at a misalignment. */
static void run_loops(const struct kolo__cpu_variant *variant, size_t skew, size_t count,
                      struct loops_output *out)
{
    const unsigned char *data = raw + skew;
    memset(out, 0, sizeof *out);
    variant->pack_scaled(out->scaled, data, NULL, 0.3f, count);
    variant->pack_scaled(out->fed, data, error, 0.3f, count);
    variant->pack_residual(out->residual, out->scaled, error, count);
    memcpy(out->fp32 + skew, data, 4 * count);
    variant->scale_fp32(out->fp32 + skew, count, 0.7);
    memcpy(out->fp64 + skew, data, 8 * count);
    variant->scale_fp64(out->fp64 + skew, count, 0.7);
    variant->norm_fp32(out->lanes[0], data, count, &out->not_finite[0]);
    variant->norm_fp64(out->lanes[1], data, count, &out->not_finite[1]);
    out->most = variant->absolute_max(data, count);
}

/* The loops of each variant beside those of the portable one, NaNs and all. */
static void test_variants_agree(void **state)
{
    static struct loops_output ours, theirs;
    struct kolo__random random = {11};
    (void)state;
    for (size_t v = 0; kolo__cpu_variants[v] != NULL; v++) {
        if (!kolo__cpu_variants[v]->supported())
            continue;
        for (int c = 0; c < COUNTS; c++)
            for (size_t skew = 0; skew < SKEWS; skew++) {
                size_t count = count_at(c);
                for (size_t i = 0; i < 8 * count; i += 4) {
                    uint32_t bits = bits_of(awkward(&random));
                    memcpy(raw + skew + i, &bits, sizeof bits);
                    error[i / 8] = awkward(&random);
                }
                run_loops(kolo__cpu_variants[v], skew, count, &ours);
                run_loops(&kolo__cpu_portable, skew, count, &theirs);
                assert_memory_equal(&ours, &theirs, sizeof ours);
            }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pack_narrows_each_value),
        cmocka_unit_test(test_a_bad_step_spoils_no_other),
        cmocka_unit_test(test_feedback_loses_nothing),
        cmocka_unit_test(test_unpack_widens_scales_and_measures),
        cmocka_unit_test(test_scales_and_norms_of_every_dtype),
        cmocka_unit_test(test_unscaled_travels_as_it_is),
        cmocka_unit_test(test_absolute_max),
        cmocka_unit_test(test_sum_narrow),
        cmocka_unit_test(test_variants_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
