/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The packing and reduction kernels on a GPU, with fresh random numbers every time (the seed is
 * printed; an argument repeats it): every format, 1 to 5,000 tensors, every alignment, outputs
 * poisoned. Packed and unpacked bits are those of kernels/pack.c; norms are near float64's. Exit
 * code 77: no GPU.
 */
#include "tests/gpu/fixture.h"
#include "tests/unit/kernels/cuda/packings.h"

#include <math.h>

/* Mostly ordinary numbers, below 2^15 where they are to be finite in fp16, too; else any bits at
 * all in one of 32. */
static void fill(kolo_dtype dtype, unsigned char *to, size_t count, bool finite)
{
    size_t bytes = kolo_dtype_bytes(dtype);
    for (size_t k = 0; k < count; k++) {
        uint64_t any = kolo__random_u64(&fresh);
        float f = ((float)(any >> 40) - 0x1p23f) * ldexpf(1, (int)(any % 40) - (finite ? 48 : 40));
        double d = f;
        uint16_t half = dtype == KOLO_FP16 ? kolo__fp16_from_fp32(f) : kolo__bf16_from_fp32(f);
        const void *from = dtype == KOLO_FP64   ? (void *)&d
                           : dtype == KOLO_FP32 ? (void *)&f
                                                : (void *)&half;
        if (!finite && (any >> 3) % 32 == 0) {
            any = kolo__random_u64(&fresh);
            from = &any;
        }
        memcpy(to + k * bytes, from, bytes);
    }
}

/* The host's arena of tensors, which the GPU has a copy of at the same offsets. */
struct world {
    struct kolo__device_layout layout;
    struct kolo__device_tensor *tensors; /* data: on the GPU */
    size_t *offset;                      /* of each in the arena */
    size_t arena_bytes, element, wire, fused_bytes;
    unsigned char *arena, *gpu_arena, *fused, *gpu_fused;
    struct kolo__device_plan *plan;
};

static void make(struct world *w, int p, size_t tensors, size_t most, bool finite)
{
    *w = (struct world){.element = kolo_dtype_bytes(packings[p].dtype),
                        .wire = kolo__device_wire_bytes(&packings[p])};
    now("packing %d, %zu tensors", p, tensors);
    w->tensors = calloc(tensors, sizeof *w->tensors);
    w->offset = calloc(tensors, sizeof *w->offset);
    size_t unit = KOLO__DEVICE_ALIGNMENT / w->wire, at = 0;
    for (size_t i = 0; i < tensors; i++) {
        size_t count = tensors == 1 ? most : kolo__random_below(&fresh, most + 1);
        size_t skew = kolo__random_below(&fresh, 16) / w->element * w->element;
        w->offset[i] = (w->arena_bytes + 15) / 16 * 16 + skew;
        w->tensors[i].count = count;
        w->tensors[i].begin = at;
        w->arena_bytes = w->offset[i] + count * w->element;
        at += (count + unit - 1) / unit * unit + unit * (kolo__random_below(&fresh, 5) == 0);
    }
    w->fused_bytes = at * w->wire;
    w->arena = malloc(w->arena_bytes + 1);
    w->fused = malloc(w->fused_bytes + 1);
    memset(w->arena, POISON, w->arena_bytes);
    for (size_t i = 0; i < tensors; i++)
        fill(packings[p].dtype, w->arena + w->offset[i], w->tensors[i].count, finite);
    w->gpu_arena = on_gpu(w->arena_bytes);
    w->gpu_fused = on_gpu(w->fused_bytes);
    for (size_t i = 0; i < tensors; i++)
        w->tensors[i].data = w->gpu_arena + w->offset[i];
    w->layout = (struct kolo__device_layout){packings[p], w->tensors, tensors, at};
    copy(w->gpu_arena, w->arena, w->arena_bytes);
    memset(w->fused, POISON, w->fused_bytes);
    copy(w->gpu_fused, w->fused, w->fused_bytes);
    CHECK(gpu->plan_create(device, &w->layout, &w->plan) == KOLO_OK);
}

static void discard(struct world *w)
{
    gpu->plan_destroy(w->plan);
    gpu->free(device, w->gpu_arena);
    gpu->free(device, w->gpu_fused);
    free(w->arena);
    free(w->fused);
    free(w->offset);
    free(w->tensors);
}

/* Through the wire and back, with a scale each way. */
static void packs_and_unpacks(int p, size_t tensors, size_t most)
{
    static const double scales[] = {1, 0.125, -1.7};
    struct world w;
    make(&w, p, tensors, most, false);
    struct kolo__packing packing = packings[p];
    packing.scale = scales[kolo__random_below(&fresh, 3)];
    struct kolo__device_run run = {.fused = w.gpu_fused, .scale = packing.scale};
    unsigned char *expected = calloc(1, w.fused_bytes + 1);
    for (size_t i = 0; i < tensors; i++)
        kolo__pack(&packing, expected + w.tensors[i].begin * w.wire, w.arena + w.offset[i], NULL,
                   w.tensors[i].count);
    CHECK(gpu->pack(w.plan, &run, NULL) == KOLO_OK);
    synchronize();
    copy(w.fused, w.gpu_fused, w.fused_bytes);
    CHECK(memcmp(w.fused, expected, w.fused_bytes) == 0);
    free(expected);

    double factor = 0.3, *gpu_factor = on_gpu(sizeof factor);
    copy(gpu_factor, &factor, sizeof factor);
    memset(w.arena, POISON, w.arena_bytes);
    copy(w.gpu_arena, w.arena, w.arena_bytes);
    run.factor = gpu_factor;
    CHECK(gpu->unpack(w.plan, &run, NULL) == KOLO_OK);
    synchronize();
    for (size_t i = 0; i < tensors; i++) {
        unsigned char *to = w.arena + w.offset[i];
        kolo__unpack(&packing, to, w.fused + w.tensors[i].begin * w.wire, NULL, 0,
                     w.tensors[i].count);
        kolo__scale(packing.dtype, to, w.tensors[i].count, factor);
    }
    unsigned char *came = malloc(w.arena_bytes + 1);
    copy(came, w.gpu_arena, w.arena_bytes);
    CHECK(memcmp(came, w.arena, w.arena_bytes) == 0); /* the poison between tensors, too */
    free(came);
    gpu->free(device, gpu_factor);
    discard(&w);
}

static void measures(int p, bool finite)
{
    struct world w;
    make(&w, p, 300, 5000, finite);
    size_t count = kolo__device_partials(&packings[p], w.layout.count);
    struct kolo__device_partial *partials = on_gpu((count + 1) * sizeof *partials);
    struct kolo__device_total total, again, *gpu_total = on_gpu(sizeof total);
    const struct kolo__device_run run = {.fused = w.gpu_fused, .scale = 1, .partials = partials};
    CHECK(gpu->pack(w.plan, &run, NULL) == KOLO_OK);
    CHECK(gpu->total(device, partials, count, 1e-3, gpu_total, NULL) == KOLO_OK);
    copy(&total, gpu_total, sizeof total);
    struct kolo__norm norm = {0};
    for (size_t i = 0; i < w.layout.tensor_count; i++)
        kolo__norm_add(&norm, packings[p].dtype, w.arena + w.offset[i], 0, w.tensors[i].count);
    CHECK(total.not_finite == norm.not_finite);
    if (finite) {
        double expected = kolo__norm_total(&norm);
        CHECK(fabs(total.squares - expected) <= 1e-12 * expected);
        CHECK(fabs(total.norm - sqrt(expected)) <= 1e-12 * sqrt(expected));
        CHECK(fabs(total.factor * total.norm - 1e-3) <= 1e-12);
    } else {
        CHECK(total.factor == 1);
    }
    if (!packings[p].narrows) {
        CHECK(gpu->measure(device, &packings[p], w.gpu_fused, w.layout.count, NULL, partials,
                           NULL) == KOLO_OK);
        CHECK(gpu->total(device, partials, count, 1e-3, gpu_total, NULL) == KOLO_OK);
        copy(&again, gpu_total, sizeof again);
        /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison): the same bits */
        CHECK(memcmp(&again, &total, sizeof total) == 0);
    }
    gpu->free(device, partials);
    gpu->free(device, gpu_total);
    discard(&w);
}

/* What follows from a largest value, and a factor that only the GPU knows. */
static void chooses(void)
{
    static const float MOST[] = {0, 1e-45F, 3e-39F, 1, 447.9F, 3.4e38F, INFINITY, NAN};
    static const double SCALES[] = {1, 0x1p99, 0x1p99, 256, 0.5, 0x1p-121, 1, 1};
    const struct kolo__packing packing = {.dtype = KOLO_FP32, .scale = 1};
    struct kolo__device_scale came, *result = on_gpu(sizeof came);
    struct kolo__device_partial partial, *partials = on_gpu(sizeof partial);
    uint32_t *most = on_gpu(sizeof *most);
    float *data = on_gpu(16 * sizeof *data), ones[16];
    for (int i = 0; i < 16; i++)
        ones[i] = 1;
    copy(data, ones, sizeof ones);
    for (size_t i = 0; i < sizeof MOST / sizeof *MOST; i++) {
        const struct kolo__device_scaling scaling = {
            .absolute_max = most, .largest = 448, .scale = 0.75, .sum = 2, .result = result};
        now("the scale of %g", (double)MOST[i]);
        copy(most, &MOST[i], sizeof *most);
        CHECK(gpu->zero(device, result, sizeof came, NULL) == KOLO_OK);
        CHECK(gpu->choose_scale(device, &scaling, NULL) == KOLO_OK);
        copy(&came, result, sizeof came);
        double scale = SCALES[i] < 0x1p-101 ? 0x1p-101 : SCALES[i];
        CHECK(came.wire == scale && came.pack == 0.75 * scale && came.unpack == 2 / scale);
        CHECK(came.error == 1);
        CHECK(gpu->measure(device, &packing, data, 16, &result->pack, partials, NULL) == KOLO_OK);
        copy(&partial, partials, sizeof partial);
        float one = (float)came.pack;
        CHECK(partial.squares == 16 * ((double)one * (double)one));
    }
    gpu->free(device, result);
    gpu->free(device, partials);
    gpu->free(device, most);
    gpu->free(device, data);
}

/* What instructions of the GPU convert: of fp32 all upper halves with lower ones where rounding
 * turns, and random ones; of the wire every number. */
static void casts(int p)
{
    static const uint32_t lower[] = {0,      1,      0xfff,  0x1000, 0x1001, 0x2fff, 0x3000,
                                     0x3001, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff};
    enum { TURNING = sizeof lower / sizeof *lower };
    const size_t lowers = quick ? TURNING : 64, count = lowers << 16;
    const size_t wire = kolo__device_wire_bytes(&packings[p]), codes = (size_t)1 << 8 * wire;
    uint32_t *bits = malloc(count * 4), *back = malloc(codes * 4),
             *expected_back = malloc(codes * 4);
    unsigned char *fused = malloc(count * wire), *expected = malloc(count * wire);
    now("casts of packing %d", p);
    for (size_t k = 0; k < count; k++) {
        size_t which = k >> 16;
        bits[k] = (uint32_t)(k & 0xffff) << 16 |
                  (which < TURNING ? lower[which] : (uint32_t)kolo__random_u64(&fresh) & 0xffff);
    }
    void *gpu_bits = on_gpu(count * 4), *gpu_fused = on_gpu(count * wire);
    const struct kolo__device_run run = {.fused = gpu_fused, .scale = 1};
    struct kolo__device_tensor tensor = {gpu_bits, count, 0};
    const struct kolo__device_layout all = {packings[p], &tensor, 1, count};
    struct kolo__device_plan *plan;
    copy(gpu_bits, bits, count * 4);
    CHECK(gpu->plan_create(device, &all, &plan) == KOLO_OK);
    CHECK(gpu->pack(plan, &run, NULL) == KOLO_OK);
    copy(fused, gpu_fused, count * wire);
    gpu->plan_destroy(plan);
    kolo__pack(&packings[p], expected, bits, NULL, count);
    for (size_t k = 0; k < count; k++)
        if (memcmp(fused + k * wire, expected + k * wire, wire) != 0) {
            now("the cast of 0x%08x in packing %d", bits[k], p);
            CHECK(!"the bits of the host");
        }

    for (size_t code = 0; code < codes; code++)
        memcpy(fused + code * wire, &code, wire);
    copy(gpu_fused, fused, codes * wire);
    tensor.count = codes;
    const struct kolo__device_layout every = {packings[p], &tensor, 1, codes};
    CHECK(gpu->plan_create(device, &every, &plan) == KOLO_OK);
    CHECK(gpu->unpack(plan, &run, NULL) == KOLO_OK);
    copy(back, gpu_bits, codes * 4);
    gpu->plan_destroy(plan);
    kolo__unpack(&packings[p], expected_back, fused, NULL, 0, codes);
    for (size_t code = 0; code < codes; code++) {
        now("the cast of code 0x%zx in packing %d", code, p);
        CHECK(back[code] == expected_back[code]);
    }
    gpu->free(device, gpu_bits);
    gpu->free(device, gpu_fused);
    free(bits);
    free(back);
    free(expected_back);
    free(fused);
    free(expected);
}

/* Of several sources at alignments of their own; format f < 4 a float, < 8 a wire, else an
 * integer. */
static void reduces(int f, size_t count)
{
    static const kolo_op of_floats[] = {KOLO_SUM, KOLO_PRODUCT, KOLO_MIN, KOLO_MAX,
                                        KOLO_PREMUL_SUM};
    static const kolo_op of_integers[] = {KOLO_SUM, KOLO_PRODUCT, KOLO_MIN, KOLO_MAX,
                                          KOLO_AND, KOLO_OR,      KOLO_XOR};
    const bool narrow = f >= 4 && f < 8, integers = f >= 8;
    const enum kolo__narrow_float wire = (enum kolo__narrow_float)(f & 3);
    const struct kolo__packing as = {KOLO_FP32, true, wire, 1};
    const kolo_dtype dtype = narrow ? KOLO_FP32 : (kolo_dtype)(integers ? f - 8 : KOLO_FP16 + f);
    size_t element = narrow ? kolo__device_wire_bytes(&as) : kolo_dtype_bytes(dtype);
    uint32_t n = 1 + (uint32_t)kolo__random_below(&fresh, 8);
    unsigned char *on_host[9];
    void *memory[9], *at[9];
    const void *sources[9], *host_sources[9];
    double factors[9];
    now("format %d, %u sources, %zu elements", f, n, count);
    for (uint32_t i = 0; i <= n; i++) {
        size_t skew = kolo__random_below(&fresh, 16) / element * element;
        on_host[i] = malloc(count * element + 1);
        memset(on_host[i], POISON, count * element);
        if (!narrow && !integers && i < n)
            fill(dtype, on_host[i], count, false);
        for (size_t k = 0; (narrow || integers) && k < count * element; k++)
            on_host[i][k] = (unsigned char)kolo__random_u64(&fresh);
        memory[i] = on_gpu(skew + count * element);
        at[i] = (unsigned char *)memory[i] + skew;
        sources[i] = at[i];
        host_sources[i] = on_host[i];
        factors[i] = 0.3 * (double)i - 1;
        copy(at[i], on_host[i], count * element);
    }
    struct kolo__reduction reduction = {.dtype = dtype,
                                        .op = integers ? of_integers[kolo__random_below(&fresh, 7)]
                                                       : of_floats[kolo__random_below(&fresh, 5)],
                                        .divisor = 1 + (uint32_t)kolo__random_below(&fresh, 4)};
    reduction.scales = reduction.op == KOLO_PREMUL_SUM ? factors : NULL;
    void *to = at[kolo__random_below(&fresh, n + 1)];
    unsigned char *expected = malloc(count * element + 1), *came = malloc(count * element + 1);
    if (narrow) {
        kolo__sum_narrow(wire, expected, host_sources, n, reduction.divisor, count);
        CHECK(gpu->sum_narrow(device, wire, to, sources, n, reduction.divisor, count, NULL) ==
              KOLO_OK);
    } else {
        kolo__reduce(&reduction, expected, host_sources, n, count);
        CHECK(gpu->reduce(device, &reduction, to, sources, n, count, NULL) == KOLO_OK);
    }
    synchronize();
    copy(came, to, count * element);
    CHECK(memcmp(came, expected, count * element) == 0);
    for (uint32_t i = 0; i <= n; i++) {
        gpu->free(device, memory[i]);
        free(on_host[i]);
    }
    free(expected);
    free(came);
}

int main(int argc, char **argv)
{
    static const struct {
        size_t tensors, most;
    } shapes[] = {{1, 1},     {1, 7},     {1, 4096}, {1, 4097}, {1, 3000001},
                  {2, 90000}, {50, 9000}, {1000, 9}, {5000, 70}};
    begin(argc, argv);
    for (int p = 0; p < PACKINGS; p++) {
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
            for (int again = 0; again < (quick ? 1 : 3); again++)
                packs_and_unpacks(p, shapes[s].tensors,
                                  quick && shapes[s].most > 100000 ? 50001 : shapes[s].most);
        if (packings[p].narrows)
            casts(p);
        measures(p, true);
        measures(p, false);
    }
    chooses();
    for (int f = 0; f < 16; f++)
        for (int again = 0; again < 20; again++)
            reduces(f, again < 10 ? 1 + kolo__random_below(&fresh, 40) : quick ? 5003 : 100003);
    end();
    printf("all formats: the bits of the host\n");
    return 0;
}
