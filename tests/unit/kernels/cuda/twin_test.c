/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every plan that a GPU would run, by the host twin, against kernels/pack.c bit for bit: 1 to 5,000
 * tensors of few and many elements, every format, every alignment, outputs poisoned before. Memory
 * beside tensors is poisoned too, and under AddressSanitizer each tensor is an allocation of its
 * own, so that a read beyond its ends is found.
 */
#include "packings.h"
#include "twin.h"

#include "base/random.h"
#include "kernels/cuda/total.h"
#include "kernels/cuda/tables.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct world {
    struct kolo__device_layout layout;
    struct kolo__device_tensor *tensors;
    unsigned char **memory; /* of each tensor, with `skew` bytes before it */
    size_t *skew;
    size_t element, wire;
    unsigned char *fused, *expected;
};

/* A random number in the dtype: mostly of ordinary size, sometimes any bits, NaNs among them. */
static void fill(struct kolo__random *random, kolo_dtype dtype, unsigned char *to, size_t count,
                 bool finite)
{
    size_t bytes = kolo_dtype_bytes(dtype);
    for (size_t k = 0; k < count; k++) {
        uint64_t any = (uint64_t)kolo__random_below(random, 1u << 31) << 33 ^
                       (uint64_t)kolo__random_below(random, 1u << 31) << 8 ^
                       kolo__random_below(random, 256);
        float f = ((float)kolo__random_below(random, 1u << 24) - 0x1p23f) *
                  ldexpf(1, (int)kolo__random_below(random, 40) - (finite ? 48 : 40));
        if (kolo__random_below(random, 8) == 0)
            f = copysignf(0, f); /* zeros of both signs */
        double d = f;
        uint16_t half = dtype == KOLO_FP16 ? kolo__fp16_from_fp32(f) : kolo__bf16_from_fp32(f);
        const void *from = dtype == KOLO_FP64   ? (void *)&d
                           : dtype == KOLO_FP32 ? (void *)&f
                                                : &half;
        if (!finite && kolo__random_below(random, 16) == 0)
            from = &any;
        memcpy(to + k * bytes, from, bytes);
    }
}

static void make(struct world *world, struct kolo__random *random, int p, size_t tensors,
                 size_t most, bool finite)
{
    *world = (struct world){.element = kolo_dtype_bytes(packings[p].dtype),
                            .wire = kolo__device_wire_bytes(&packings[p])};
    world->layout.packing = packings[p];
    world->tensors = calloc(tensors, sizeof *world->tensors);
    world->memory = calloc(tensors, sizeof *world->memory);
    world->skew = calloc(tensors, sizeof *world->skew);
    size_t unit = KOLO__DEVICE_ALIGNMENT / world->wire;
    size_t at = kolo__random_below(random, 4) == 0 ? unit * kolo__random_below(random, 90) : 0;
    for (size_t i = 0; i < tensors; i++) {
        struct kolo__device_tensor *tensor = &world->tensors[i];
        tensor->count = kolo__random_below(random, (uint32_t)most + 1);
        tensor->begin = at;
        world->skew[i] = kolo__random_below(random, 16) / (uint32_t)world->element * world->element;
        size_t bytes = world->skew[i] + tensor->count * world->element;
        world->memory[i] = malloc(bytes > 0 ? bytes : 1);
        tensor->data = world->memory[i] + world->skew[i];
        fill(random, packings[p].dtype, tensor->data, tensor->count, finite);
        at += (tensor->count + unit - 1) / unit * unit;
        if (kolo__random_below(random, 5) == 0)
            at += unit * kolo__random_below(random, 70);
    }
    world->layout.tensors = world->tensors;
    world->layout.tensor_count = tensors;
    world->layout.count = at;
    world->fused = aligned_alloc(64, (at * world->wire + 127) / 64 * 64);
    world->expected = aligned_alloc(64, (at * world->wire + 127) / 64 * 64);
    memset(world->fused, POISON, at * world->wire);
    memset(world->expected, 0, at * world->wire);
    size_t wrong;
    assert_null(kolo__layout_problem(&world->layout, &wrong));
}

static void discard(struct world *world)
{
    for (size_t i = 0; i < world->layout.tensor_count; i++)
        free(world->memory[i]);
    free(world->memory);
    free(world->skew);
    free(world->tensors);
    free(world->fused);
    free(world->expected);
}

/* What the GPU does with a factor is a second scaling. */
static void pack_by_host(struct world *world, double scale, double factor, float *error)
{
    struct kolo__packing first = world->layout.packing;
    const struct kolo__packing keep = {first.dtype, false, 0, 1};
    first.scale = scale;
    for (size_t i = 0; i < world->layout.tensor_count; i++) {
        const struct kolo__device_tensor *t = &world->tensors[i];
        unsigned char *to = world->expected + t->begin * world->wire;
        if (factor == 1) {
            kolo__pack(&first, to, t->data, error != NULL ? error + t->begin : NULL, t->count);
            continue;
        }
        void *copy = malloc(t->count * world->element + 1);
        kolo__pack(&keep, copy, t->data, NULL, t->count);
        kolo__scale(first.dtype, copy, t->count, scale);
        kolo__scale(first.dtype, copy, t->count, factor);
        first.scale = 1;
        kolo__pack(&first, to, copy, NULL, t->count);
        first.scale = scale;
        free(copy);
    }
}

static const double scales[] = {1, 0.125, -1.7, INFINITY};
static const double factors[] = {1, 0.3};

static void packs_like_the_host(int p, size_t tensors, size_t most, struct kolo__random *random)
{
    struct world world;
    double scale = scales[kolo__random_below(random, 4)];
    double factor = factors[kolo__random_below(random, 2)];
    make(&world, random, p, tensors, most, false);
    const struct kolo__device_run run = {
        .fused = world.fused, .scale = scale, .factor = factor == 1 ? NULL : &factor};
    twin_pack(&world.layout, &run);
    pack_by_host(&world, scale, factor, NULL);
    assert_memory_equal(world.fused, world.expected, world.layout.count * world.wire);
    discard(&world);
}

static void keeps_errors_like_the_host(int p, struct kolo__random *random)
{
    struct world world;
    make(&world, random, p, 20, 300, false);
    size_t bytes = (world.layout.count * sizeof(float) + 64) / 64 * 64;
    float *ours = aligned_alloc(64, bytes), *theirs = aligned_alloc(64, bytes);
    memset(ours, 0, bytes);
    for (size_t i = 0; i < world.layout.tensor_count; i++)
        fill(random, KOLO_FP32, (unsigned char *)(ours + world.tensors[i].begin),
             world.tensors[i].count, true);
    memcpy(theirs, ours, bytes);
    const struct kolo__device_run run = {.fused = world.fused, .scale = 0.7, .error = ours};
    twin_pack(&world.layout, &run);
    pack_by_host(&world, 0.7, 1, theirs);
    assert_memory_equal(world.fused, world.expected, world.layout.count * world.wire);
    assert_memory_equal(ours, theirs, world.layout.count * sizeof(float));
    free(ours);
    free(theirs);
    discard(&world);
}

static void unpacks_like_the_host(int p, size_t tensors, size_t most, struct kolo__random *random)
{
    struct world world;
    double scale = scales[kolo__random_below(random, 4)];
    double factor = factors[kolo__random_below(random, 2)];
    make(&world, random, p, tensors, most, false);
    struct kolo__packing packing = world.layout.packing;
    packing.scale = scale;
    for (size_t k = 0; k < world.layout.count * world.wire; k++)
        world.fused[k] = (unsigned char)kolo__random_below(random, 256);
    for (size_t i = 0; i < tensors; i++)
        memset(world.memory[i], POISON, world.skew[i] + world.tensors[i].count * world.element);
    const struct kolo__device_run run = {
        .fused = world.fused, .scale = scale, .factor = factor == 1 ? NULL : &factor};
    twin_unpack(&world.layout, &run);
    for (size_t i = 0; i < tensors; i++) {
        const struct kolo__device_tensor *t = &world.tensors[i];
        size_t bytes = t->count * world.element;
        void *expected = malloc(bytes + 1);
        kolo__unpack(&packing, expected, world.fused + t->begin * world.wire, NULL, 0, t->count);
        kolo__scale(packing.dtype, expected, t->count, factor);
        assert_memory_equal(t->data, expected, bytes);
        for (size_t k = 0; k < world.skew[i]; k++)
            assert_int_equal(world.memory[i][k], POISON);
        free(expected);
    }
    discard(&world);
}

static struct kolo__device_partial sum_up(const struct kolo__device_partial *partials, size_t count)
{
    struct kolo__device_partial sum = {0};
    for (size_t i = 0; i < count; i++) {
        sum.squares += partials[i].squares;
        sum.not_finite |= partials[i].not_finite;
        if (partials[i].absolute_max > sum.absolute_max)
            sum.absolute_max = partials[i].absolute_max;
    }
    return sum;
}

static void close_to(double a, double b)
{
    assert_true((isnan(a) && isnan(b)) || a == b || fabs(a - b) <= 1e-12 * fabs(b));
}

/* The same partials from packing without narrowing and from measuring what was packed, bit for bit,
 * and a sum close to that of kernels/pack.c. */
static void measures(int p, bool finite, struct kolo__random *random)
{
    struct world world;
    make(&world, random, p, 40, 1500, finite);
    size_t count = kolo__device_partials(&packings[p], world.layout.count);
    struct kolo__device_partial *packed = malloc((count + 1) * sizeof *packed);
    struct kolo__device_partial *measured = malloc((count + 1) * sizeof *measured);
    memset(packed, POISON, (count + 1) * sizeof *packed);
    memset(measured, POISON, (count + 1) * sizeof *measured);
    struct kolo__device_run run = {.fused = world.fused, .scale = 0.5, .partials = packed};
    twin_pack(&world.layout, &run);
    struct kolo__device_partial sum = sum_up(packed, count);
    assert_int_equal(((unsigned char *)&packed[count])[0], POISON);

    struct kolo__norm norm = {0};
    float most = 0;
    const struct kolo__packing half = {packings[p].dtype, false, 0, 0.5};
    for (size_t i = 0; i < world.layout.tensor_count; i++) {
        const struct kolo__device_tensor *t = &world.tensors[i];
        void *copy = malloc(t->count * world.element + 1);
        kolo__pack(&half, copy, t->data, NULL, t->count);
        kolo__norm_add(&norm, half.dtype, copy, 0, t->count);
        if (half.dtype == KOLO_FP32)
            most = fmaxf(most, kolo__absolute_max(copy, t->count));
        free(copy);
    }
    close_to(sum.squares, kolo__norm_total(&norm));
    assert_int_equal(sum.not_finite, norm.not_finite);
    if (half.dtype == KOLO_FP32 && finite) {
        float ours;
        memcpy(&ours, &sum.absolute_max, sizeof ours);
        assert_true(ours == most);
    }
    if (!packings[p].narrows) {
        twin_measure(&packings[p], world.fused, world.layout.count, measured);
        assert_memory_equal(measured, packed, count * sizeof *packed);
    }
    struct kolo__device_total total;
    twin_total(packed, count, 1e-3, &total);
    close_to(total.squares, sum.squares);
    assert_true(total.not_finite == sum.not_finite && total.absolute_max == sum.absolute_max);
    assert_true(finite ? fabs(total.factor * sqrt(sum.squares) - 1e-3) < 1e-12 : total.factor == 1);
    /* Alone, without packing. */
    memset(measured, POISON, (count + 1) * sizeof *measured);
    run.fused = NULL;
    run.partials = measured;
    twin_pack(&world.layout, &run);
    assert_memory_equal(measured, packed, count * sizeof *packed);
    free(packed);
    free(measured);
    discard(&world);
}

/* ---- tests ---------------------------------------------------------------------------------- */

static const struct {
    size_t tensors, most;
} shapes[] = {{1, 0},    {1, 1},     {1, 5},    {1, 40000}, {2, 9000}, {3, 17},
              {50, 700}, {300, 100}, {1000, 9}, {5000, 40}, {7, 4096}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void test_pack(void **state)
{
    struct kolo__random random = *(struct kolo__random *)*state;
    for (int p = 0; p < PACKINGS; p++)
        for (size_t s = 0; s < SHAPES; s++)
            for (int again = 0; again < 4; again++)
                packs_like_the_host(p, shapes[s].tensors, shapes[s].most, &random);
}

static void test_error(void **state)
{
    struct kolo__random random = *(struct kolo__random *)*state;
    for (int p = 4; p < PACKINGS; p++)
        for (int again = 0; again < 10; again++)
            keeps_errors_like_the_host(p, &random);
}

static void test_unpack(void **state)
{
    struct kolo__random random = *(struct kolo__random *)*state;
    for (int p = 0; p < PACKINGS; p++)
        for (size_t s = 0; s < SHAPES; s++)
            for (int again = 0; again < 4; again++)
                unpacks_like_the_host(p, shapes[s].tensors, shapes[s].most, &random);
}

static void test_statistics(void **state)
{
    struct kolo__random random = *(struct kolo__random *)*state;
    for (int p = 0; p < PACKINGS; p++)
        for (int again = 0; again < 6; again++)
            measures(p, again > 1, &random);
}

static void test_layouts_that_are_wrong(void **state)
{
    (void)state;
    static float data[64];
    struct kolo__device_tensor two[2] = {{data, 8, 0}, {data + 32, 8, 8}};
    struct kolo__device_layout layout = {{KOLO_FP32, false, 0, 1}, two, 2, 16};
    size_t wrong;
    assert_null(kolo__layout_problem(&layout, &wrong));
    two[1].begin = 7;
    assert_non_null(kolo__layout_problem(&layout, &wrong));
    assert_int_equal(wrong, 1);
    two[1].begin = 4;
    assert_non_null(kolo__layout_problem(&layout, &wrong));
    two[1].begin = 12;
    assert_non_null(kolo__layout_problem(&layout, &wrong));
    two[1].begin = 8;
    two[0].data = (char *)data + 2;
    assert_non_null(kolo__layout_problem(&layout, &wrong));
    assert_int_equal(wrong, 0);
    two[0].data = data;
    layout.count = 17;
    assert_non_null(kolo__layout_problem(&layout, &wrong));
    layout.count = 16;
    layout.packing.dtype = KOLO_INT32;
    assert_non_null(kolo__layout_problem(&layout, &wrong));
    layout.packing = (struct kolo__packing){KOLO_FP64, true, KOLO__NARROW_BF16, 1};
    assert_non_null(kolo__layout_problem(&layout, &wrong));
}

/* Of some sources, each at an alignment of its own, and the result in one of them or elsewhere. */
static void reduces_like_the_host(int f, struct kolo__random *random)
{
    static const kolo_op of_floats[] = {KOLO_SUM, KOLO_PRODUCT, KOLO_MIN, KOLO_MAX,
                                        KOLO_PREMUL_SUM};
    static const kolo_op of_integers[] = {KOLO_SUM, KOLO_PRODUCT, KOLO_MIN, KOLO_MAX,
                                          KOLO_AND, KOLO_OR,      KOLO_XOR};
    const bool narrow = f >= 4 && f < 8, integers = f >= 8; /* the sum of what travels */
    const kolo_dtype dtype = narrow ? KOLO_FP32 : (kolo_dtype)(integers ? f - 8 : KOLO_FP16 + f);
    const enum kolo__narrow_float wire = (enum kolo__narrow_float)(f & 3);
    const struct kolo__packing as = {KOLO_FP32, true, wire, 1};
    size_t element = narrow ? kolo__device_wire_bytes(&as) : kolo_dtype_bytes(dtype);
    size_t count = kolo__random_below(random, 3) == 0 ? kolo__random_below(random, 20)
                                                      : kolo__random_below(random, 3000);
    uint32_t n = 1 + (uint32_t)kolo__random_below(random, 9);
    unsigned char *memory[10], *at[10];
    const void *sources[10];
    double multipliers[10];
    for (uint32_t i = 0; i <= n; i++) {
        size_t skew = kolo__random_below(random, 16) / element * element;
        memory[i] = malloc(skew + count * element + 1);
        at[i] = memory[i] + skew;
        sources[i] = at[i];
        multipliers[i] = 0.3 * (double)i - 1;
        memset(at[i], POISON, count * element);
        if (i < n && (narrow || integers))
            for (size_t k = 0; k < count * element; k++)
                at[i][k] = (unsigned char)kolo__random_below(random, 256);
        else if (i < n)
            fill(random, dtype, at[i], count, false);
    }
    struct kolo__reduction reduction = {.dtype = dtype,
                                        .op = integers ? of_integers[kolo__random_below(random, 7)]
                                                       : of_floats[kolo__random_below(random, 5)],
                                        .divisor = 1 + (uint32_t)kolo__random_below(random, 4)};
    if (integers && kolo__random_below(random, 4) == 0)
        reduction.divisor = 1 + (uint32_t)kolo__random_below(random, 1u << 31);
    reduction.scales = reduction.op == KOLO_PREMUL_SUM ? multipliers : NULL;
    unsigned char *expected = malloc(count * element + 1);
    unsigned char *to = at[kolo__random_below(random, n + 1)];
    if (narrow) {
        kolo__sum_narrow(wire, expected, sources, n, reduction.divisor, count);
        twin_sum_narrow(wire, to, sources, n, reduction.divisor, count);
    } else {
        kolo__reduce(&reduction, expected, sources, n, count);
        twin_reduce(&reduction, to, sources, n, count);
    }
    assert_memory_equal(to, expected, count * element);
    for (uint32_t i = 0; i <= n; i++)
        free(memory[i]);
    free(expected);
}

static void test_reduce(void **state)
{
    struct kolo__random random = *(struct kolo__random *)*state;
    for (int f = 0; f < 16; f++)
        for (int again = 0; again < 150; again++)
            reduces_like_the_host(f, &random);
}

/* All NaNs and infinities, which the casts of GPUs mend, and one of 251 of the others. */
static void same_cast(uint32_t bits)
{
    float value = fp32_from_bits(bits);
    assert_int_equal(cast_to_fp16(value), fp16_from_fp32(value));
    assert_int_equal(cast_to_bf16(value), bf16_from_fp32(value));
    assert_int_equal(cast_to_fp8(false, value), e4m3_from_fp32(value));
    assert_int_equal(cast_to_fp8(true, value), e5m2_from_fp32(value));
}

static void test_casts(void **state)
{
    (void)state;
    for (uint32_t fraction = 0; fraction < 1u << 23; fraction++) {
        same_cast(0x7f800000u | fraction);
        same_cast(0xff800000u | fraction);
    }
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 251)
        same_cast((uint32_t)bits);
    for (uint32_t half = 0; half < 1u << 16; half++)
        assert_int_equal(fp32_bits(cast_from_fp16(half)), fp32_bits(fp16_to_fp32((uint16_t)half)));
    for (uint32_t byte = 0; byte < 256; byte++)
        assert_int_equal(fp32_bits(cast_from_e5m2(byte)), fp32_bits(e5m2_to_fp32((uint8_t)byte)));
}

/* runtime/reducer/fp8.c's rule. */
static double expected_scale(float most, double largest)
{
    int exponent;
    if (!(most > 0) || !isfinite(most))
        return 1;
    frexp(largest / (1.125 * (double)most), &exponent);
    exponent = exponent > 100 ? 100 : exponent < -100 ? -100 : exponent;
    return ldexp(1, exponent - 1);
}

static void test_scale(void **state)
{
    (void)state;
    for (uint64_t bits = 0; bits < 0x80000000u; bits += bits < 64 || bits > 0x7f7fffc0u ? 1 : 4099)
        for (int clips = 0; clips < 2; clips++) {
            const double clip = 0.375;
            uint32_t most = (uint32_t)bits;
            struct scales result = {.wire = bits % 3 == 0 ? 0 : 0.25};
            double before = result.wire, largest = bits % 2 == 0 ? 448 : 57344;
            const struct scaling scaling = {.absolute_max = (uintptr_t)&most,
                                            .clip = clips ? (uintptr_t)&clip : 0,
                                            .result = (uintptr_t)&result,
                                            .largest = largest,
                                            .scale = 0.7,
                                            .sum = 3};
            choose_scale(&scaling);
            double wire = expected_scale(fp32_from_bits(most), largest);
            assert_true(result.wire == wire && result.pack == 0.7 * wire);
            assert_true(result.error == (before > 0 ? wire / before : 1));
            assert_true(result.unpack == 3 / wire * (clips ? clip : 1));
        }
}

int main(void)
{
    struct kolo__random random = {7};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_pack, &random),
        cmocka_unit_test_prestate(test_error, &random),
        cmocka_unit_test_prestate(test_unpack, &random),
        cmocka_unit_test_prestate(test_statistics, &random),
        cmocka_unit_test_prestate(test_reduce, &random),
        cmocka_unit_test(test_casts),
        cmocka_unit_test(test_scale),
        cmocka_unit_test(test_layouts_that_are_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
