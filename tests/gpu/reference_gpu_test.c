/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels against float64, without a line of kolo's own arithmetic: numbers are decoded from
 * the bits of their format, and results have to be as near as that format allows. (pack_gpu_test
 * asks for the very bits of the host, whose kernels could be wrong in the same way.) Fresh random
 * numbers, tensors of any alignment, outputs poisoned; NaN never passes. Exit code 77: no GPU.
 */
#include "tests/gpu/fixture.h"
#include "tests/unit/kernels/cuda/packings.h"

#include <math.h>

/* Bits of exponent and of fraction. */
struct format {
    const char *name;
    size_t bytes;
    int exponent, fraction;
};
static const struct format FP16 = {"fp16", 2, 5, 10}, BF16 = {"bf16", 2, 8, 7},
                           E4M3 = {"e4m3", 1, 4, 3}, E5M2 = {"e5m2", 1, 5, 2},
                           FP32 = {"fp32", 4, 8, 23}, FP64 = {"fp64", 8, 11, 52};

static const struct format *format_of(const struct kolo__packing *packing, bool on_wire)
{
    static const struct format *const wires[] = {&FP16, &BF16, &E4M3, &E5M2};
    static const struct format *const dtypes[] = {&FP16, &BF16, &FP32, &FP64};
    return on_wire && packing->narrows ? wires[packing->wire] : dtypes[packing->dtype - KOLO_FP16];
}

static double decode(const struct format *format, const void *from)
{
    uint64_t bits = 0;
    memcpy(&bits, from, format->bytes);
    uint64_t fraction = bits & ((UINT64_C(1) << format->fraction) - 1);
    int exponent = (int)(bits >> format->fraction & ((1u << format->exponent) - 1));
    int bias = (1 << (format->exponent - 1)) - 1;
    double magnitude = exponent == 0
                           ? ldexp((double)fraction, 1 - bias - format->fraction)
                           : ldexp(1 + ldexp((double)fraction, -format->fraction), exponent - bias);
    if (exponent == (1 << format->exponent) - 1 && format != &E4M3)
        magnitude = NAN; /* no test here makes an infinity */
    return bits >> (format->exponent + format->fraction) & 1 ? -magnitude : magnitude;
}

/* What rounding to the format may take from a number of that size: half a unit in the last place,
 * or of the smallest. */
static double half_unit(const struct format *format, double size)
{
    int bias = (1 << (format->exponent - 1)) - 1;
    return fmax(ldexp(size, -format->fraction - 1), ldexp(1, -bias - format->fraction));
}

static void near(const struct format *format, const void *came, double expected, double allowed)
{
    CHECK(fabs(decode(format, came) - expected) <= allowed * (1 + 0x1p-20));
}

/* Between 2^-20 and 1, of both signs: exact in fp16's products with the scales below. */
static double draw(void)
{
    uint64_t any = kolo__random_u64(&fresh);
    double magnitude = ldexp(1 + (double)(any >> 44) * 0x1p-20, -1 - (int)(any % 20));
    return any >> 43 & 1 ? -magnitude : magnitude;
}

/* To fp16, bf16, fp32 or fp64 by truncation: any number of the format is a good input. */
static void encode(const struct format *format, double value, void *to)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    int bias = (1 << (format->exponent - 1)) - 1;
    int64_t exponent = (int64_t)(bits >> 52 & 0x7ff) - 1023 + bias;
    uint64_t fraction = (bits & ((UINT64_C(1) << 52) - 1)) >> (52 - format->fraction);
    uint64_t out = exponent <= 0 ? fraction : (uint64_t)exponent << format->fraction | fraction;
    out |= bits >> 63 << (format->exponent + format->fraction);
    memcpy(to, &out, format->bytes);
}

/* ---- packing ----------------------------------------------------------------------------------
 */

static void packs(int p, size_t tensors, size_t most)
{
    const struct format *tensor = format_of(&packings[p], false);
    const struct format *wire = format_of(&packings[p], true);
    const double scale = -0.375;
    struct kolo__device_tensor *list = calloc(tensors, sizeof *list);
    size_t *offset = calloc(tensors, sizeof *offset), bytes = 0, at = 0;
    now("%s as %s, %zu tensors", tensor->name, wire->name, tensors);
    for (size_t i = 0; i < tensors; i++) {
        list[i].count = tensors == 1 ? most : kolo__random_below(&fresh, most + 1);
        list[i].begin = at;
        offset[i] = bytes + kolo__random_below(&fresh, 16) / tensor->bytes * tensor->bytes;
        bytes = (offset[i] + list[i].count * tensor->bytes + 15) / 16 * 16;
        at += (list[i].count * wire->bytes + 15) / 16 * (16 / wire->bytes);
    }
    unsigned char *arena = malloc(bytes + 1), *fused = malloc(at * wire->bytes + 1);
    memset(arena, POISON, bytes);
    memset(fused, POISON, at * wire->bytes);
    for (size_t i = 0; i < tensors; i++)
        for (size_t k = 0; k < list[i].count; k++)
            encode(tensor, draw(), arena + offset[i] + k * tensor->bytes);
    unsigned char *gpu_arena = on_gpu(bytes), *gpu_fused = on_gpu(at * wire->bytes);
    copy(gpu_arena, arena, bytes);
    copy(gpu_fused, fused, at * wire->bytes);
    for (size_t i = 0; i < tensors; i++)
        list[i].data = gpu_arena + offset[i];
    const struct kolo__device_layout layout = {packings[p], list, tensors, at};
    size_t partial_count = kolo__device_partials(&packings[p], at);
    struct kolo__device_partial *partials = on_gpu((partial_count + 1) * sizeof *partials);
    struct kolo__device_total total, *gpu_total = on_gpu(sizeof total);
    struct kolo__device_plan *plan;
    CHECK(gpu->plan_create(device, &layout, &plan) == KOLO_OK);
    struct kolo__device_run run = {.fused = gpu_fused, .scale = scale, .partials = partials};
    CHECK(gpu->pack(plan, &run, NULL) == KOLO_OK);
    CHECK(gpu->total(device, partials, partial_count, 0.5, gpu_total, NULL) == KOLO_OK);
    synchronize();
    copy(fused, gpu_fused, at * wire->bytes);
    copy(&total, gpu_total, sizeof total);

    /* What is measured has been rounded to the tensor's format: numbers near its smallest by far
     * more than its precision says. */
    long double squares = 0, rounded = 0;
    for (size_t i = 0; i < tensors; i++) {
        for (size_t k = 0; k < list[i].count; k++) {
            double x = scale * decode(tensor, arena + offset[i] + k * tensor->bytes);
            double rounding = half_unit(tensor, fabs(x));
            near(wire, fused + (list[i].begin + k) * wire->bytes, x,
                 half_unit(wire, fabs(x)) + rounding);
            squares += (long double)x * x;
            rounded += (long double)rounding * rounding;
        }
        size_t end = i + 1 < tensors ? list[i + 1].begin : at;
        for (size_t k = list[i].begin + list[i].count; k < end; k++)
            CHECK(decode(wire, fused + k * wire->bytes) == 0);
    }
    double norm = (double)sqrtl(squares), allowed = (double)sqrtl(rounded) + 1e-12 * norm;
    CHECK(total.not_finite == 0 && fabs(total.norm - norm) <= allowed);
    CHECK(fabs(total.squares - (double)squares) <= (2 * norm + allowed) * allowed);
    CHECK(norm > 0.5 ? fabs(total.factor * total.norm - 0.5) <= 1e-12 : total.factor == 1);

    memset(arena, POISON, bytes); /* unpacking has to bring them back */
    copy(gpu_arena, arena, bytes);
    run.scale = 1.25;
    CHECK(gpu->unpack(plan, &run, NULL) == KOLO_OK);
    synchronize();
    copy(arena, gpu_arena, bytes);
    for (size_t i = 0; i < tensors; i++)
        for (size_t k = 0; k < list[i].count; k++) {
            double x = 1.25 * decode(wire, fused + (list[i].begin + k) * wire->bytes);
            near(tensor, arena + offset[i] + k * tensor->bytes, x, half_unit(tensor, fabs(x)));
        }
    gpu->plan_destroy(plan);
    gpu->free(device, partials);
    gpu->free(device, gpu_total);
    gpu->free(device, gpu_arena);
    gpu->free(device, gpu_fused);
    free(arena);
    free(fused);
    free(list);
    free(offset);
}

/* Of more partials than a block takes in one turn. */
static void totals(size_t count)
{
    struct kolo__device_partial *partials = calloc(count, sizeof *partials);
    struct kolo__device_total total, *gpu_total = on_gpu(sizeof total);
    uint32_t most = 0;
    long double squares = 0;
    now("a total of %zu", count);
    for (size_t i = 0; i < count; i++) {
        partials[i].squares = fabs(draw());
        partials[i].absolute_max = (uint32_t)kolo__random_below(&fresh, 0x7f800000u);
        most = partials[i].absolute_max > most ? partials[i].absolute_max : most;
        squares += partials[i].squares;
    }
    void *on_device = on_gpu(count * sizeof *partials);
    for (uint32_t bad = 0; bad < 2; bad++) {
        partials[count - 1].not_finite = bad;
        copy(on_device, partials, count * sizeof *partials);
        CHECK(gpu->total(device, on_device, count, 0.5, gpu_total, NULL) == KOLO_OK);
        copy(&total, gpu_total, sizeof total);
        CHECK(fabs(total.squares - (double)squares) <= 1e-12 * (double)squares);
        CHECK(fabs(total.norm - (double)sqrtl(squares)) <= 1e-12 * total.norm);
        CHECK(total.absolute_max == most && total.not_finite == bad);
        CHECK(bad || total.norm <= 0.5 ? total.factor == 1
                                       : fabs(total.factor * total.norm - 0.5) <= 1e-12);
    }
    gpu->free(device, on_device);
    gpu->free(device, gpu_total);
    free(partials);
}

/* ---- reductions -------------------------------------------------------------------------------
 */

static double combined(kolo_op op, double a, double b)
{
    switch (op) {
    case KOLO_PRODUCT:
        return a * b;
    case KOLO_MIN:
        return fmin(a, b);
    case KOLO_MAX:
        return fmax(a, b);
    default:
        return a + b;
    }
}

/* The result may be off by a rounding to the accumulator for each source, of a number no larger
 * than all magnitudes combined, and by one to the format. */
static void reduces(kolo_dtype dtype, kolo_op op, uint32_t sources, size_t count)
{
    const struct kolo__packing as = {dtype, false, 0, 1};
    const struct format *format = format_of(&as, false), *sum = dtype == KOLO_FP64 ? &FP64 : &FP32;
    const uint32_t divisor = op == KOLO_AVERAGE ? sources : 1;
    size_t bytes = count * format->bytes;
    unsigned char *on_host[9], *memory[9];
    const void *at[9];
    double scales[8];
    now("%s %s of %u", format->name, kolo_op_name(op), sources);
    for (uint32_t i = 0; i <= sources; i++) {
        size_t skew = kolo__random_below(&fresh, 16) / format->bytes * format->bytes;
        on_host[i] = malloc(bytes + 1);
        memset(on_host[i], POISON, bytes);
        for (size_t k = 0; i < sources && k < count; k++)
            encode(format, draw(), on_host[i] + k * format->bytes);
        memory[i] = on_gpu(skew + bytes);
        at[i] = memory[i] + skew;
        copy(memory[i] + skew, on_host[i], bytes);
        if (i < sources)
            scales[i] = 0.25 * (double)(i + 1);
    }
    const struct kolo__reduction reduction = {.dtype = dtype,
                                              .op = op == KOLO_AVERAGE ? KOLO_SUM : op,
                                              .divisor = divisor,
                                              .scales = op == KOLO_PREMUL_SUM ? scales : NULL};
    CHECK(gpu->reduce(device, &reduction, (void *)(uintptr_t)at[sources], at, sources, count,
                      NULL) == KOLO_OK);
    synchronize();
    copy(on_host[sources], at[sources], bytes);
    for (size_t k = 0; k < count; k++) {
        double expected = 0, size = 0;
        for (uint32_t i = 0; i < sources; i++) {
            double x = decode(format, on_host[i] + k * format->bytes);
            x *= reduction.scales != NULL ? scales[i] : 1;
            expected = i == 0 ? x : combined(op, expected, x);
            size = i == 0 ? fabs(x) : op == KOLO_PRODUCT ? size * fabs(x) : size + fabs(x);
        }
        near(format, on_host[sources] + k * format->bytes, expected / divisor,
             half_unit(format, fabs(expected / divisor)) +
                 2 * sources * half_unit(sum, size / divisor));
    }
    for (uint32_t i = 0; i <= sources; i++) {
        gpu->free(device, memory[i]);
        free(on_host[i]);
    }
}

int main(int argc, char **argv)
{
    static const struct {
        size_t tensors, most;
    } shapes[] = {{1, 1}, {1, 500001}, {37, 3000}, {1000, 300}, {5000, 60}};
    static const kolo_op ops[] = {KOLO_SUM, KOLO_AVERAGE, KOLO_PRODUCT,
                                  KOLO_MIN, KOLO_MAX,     KOLO_PREMUL_SUM};
    begin(argc, argv);
    for (int p = 0; p < PACKINGS; p++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
            packs(p, shapes[s].tensors, quick && shapes[s].most > 100000 ? 50001 : shapes[s].most);
    static const size_t counts[] = {1, 31, 1025, 8192, 8193, 20001};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        totals(counts[i]);
    for (kolo_dtype dtype = KOLO_FP16; dtype <= KOLO_FP64; dtype++)
        for (size_t o = 0; o < sizeof ops / sizeof *ops; o++)
            for (uint32_t sources = 2; sources <= 8; sources += 2)
                reduces(dtype, ops[o], sources,
                        (quick ? 4000 : 40000) + kolo__random_below(&fresh, 30));
    end();
    printf("all formats: near float64\n");
    return 0;
}
