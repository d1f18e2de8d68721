/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `kolo bench kernels`: how near the kernels come to what the memory of this machine gives.
 *
 * The one file of bench that sees inside the library: it measures each variant's sums, also those
 * that are not the best here, and what gradient fusion does with elements by the best one. Beside
 * each figure stands the limit, measured in this process on the same memory: for sums, loops that
 * do nothing but load as many streams and store one; for gradient fusion, memcpy. One thread.
 */
#include "bench/kernels.h"

#include "kernels/cpu/variant.h"
#include "kernels/kernels.h"
#include "kernels/pack.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROW "%-9s %-6s %-18s %7u %-7s %9zu %-7s %8.1f %8.1f %6.2f\n"

enum { STREAMS_MAX = 9, SKEW = 320, EXIT_ARGUMENTS = 64 };

static const unsigned SOURCES[] = {2, 4, 8};
static const kolo_dtype DTYPES[] = {KOLO_FP32, KOLO_BF16, KOLO_FP16, KOLO_FP64, KOLO_INT32};

struct place {
    const char *name;
    size_t bytes; /* of all streams together */
};

struct streams {
    void *at[STREAMS_MAX]; /* the last is the destination */
    unsigned sources;
    size_t bytes; /* of each */
};

/* ---- time ------------------------------------------------------------------------------------ */

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

typedef void work_function(const struct streams *streams, const void *context);

/* GB/s of `bytes` loaded and stored: the best of some runs, since whatever disturbs makes it
 * slower.
 */
static double measure_bytes(double bytes, const struct streams *streams, work_function *work,
                            const void *context)
{
    const int runs = 5;
    size_t times = 1 + (size_t)(2e7 / bytes);
    double best = 1e9;
    work(streams, context);
    for (int run = 0; run < runs; run++) {
        double begin = now();
        for (size_t i = 0; i < times; i++)
            work(streams, context);
        double seconds = (now() - begin) / (double)times;
        best = seconds < best ? seconds : best;
    }
    return bytes / best / 1e9;
}

static double measure(const struct streams *streams, work_function *work, const void *context)
{
    return measure_bytes((double)streams->bytes * (streams->sources + 1), streams, work, context);
}

/* ---- the limit ------------------------------------------------------------------------------- */

/* Loads as wide as they come and one xor each: the least that touches every byte. */
typedef uint64_t lanes __attribute__((vector_size(64), aligned(1), may_alias));

static inline __attribute__((always_inline)) void touch(const struct streams *streams)
{
    lanes *to = streams->at[STREAMS_MAX - 1];
    const lanes *source[STREAMS_MAX] = {streams->at[0]};
    const unsigned sources = streams->sources;
    for (unsigned i = 1; i < sources; i++)
        source[i] = streams->at[i];
    for (size_t k = 0; k + 4 <= streams->bytes / sizeof(lanes); k += 4) {
        lanes a = source[0][k], b = source[0][k + 1];
        lanes c = source[0][k + 2], d = source[0][k + 3];
        for (unsigned i = 1; i < sources; i++) {
            a ^= source[i][k];
            b ^= source[i][k + 1];
            c ^= source[i][k + 2];
            d ^= source[i][k + 3];
        }
        to[k] = a, to[k + 1] = b, to[k + 2] = c, to[k + 3] = d;
    }
}

static void touch_plain(const struct streams *streams, const void *context)
{
    (void)context;
    touch(streams);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void touch_avx2(const struct streams *streams,
                                                       const void *context)
{
    (void)context;
    touch(streams);
}

__attribute__((target("avx512f"))) static void touch_avx512(const struct streams *streams,
                                                            const void *context)
{
    (void)context;
    touch(streams);
}
#endif

static double measure_limit(const struct streams *streams)
{
    double limit = measure(streams, touch_plain, NULL);
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) {
        double wide = measure(streams, touch_avx2, NULL);
        limit = wide > limit ? wide : limit;
    }
    if (__builtin_cpu_supports("avx512f")) {
        double wide = measure(streams, touch_avx512, NULL);
        limit = wide > limit ? wide : limit;
    }
#endif
    return limit;
}

/* ---- kernels --------------------------------------------------------------------------------- */

struct kernel {
    const struct kolo__cpu_variant *variant;
    struct kolo__reduction reduction;
};

static void run_kernel(const struct streams *streams, const void *context)
{
    const struct kernel *kernel = context;
    kolo_dtype dtype = kernel->reduction.dtype;
    const void *sources[STREAMS_MAX];
    for (unsigned i = 0; i < streams->sources; i++)
        sources[i] = streams->at[i];
    kernel->variant->reduce[dtype](&kernel->reduction, &streams->at[STREAMS_MAX - 1], 1, sources,
                                   streams->sources, streams->bytes / kolo_dtype_bytes(dtype));
}

static void measure_kernels(const struct place *place, const struct streams *streams, FILE *out)
{
    double limit = measure_limit(streams);
    for (size_t v = 0; kolo__cpu_variants[v] != NULL; v++) {
        const struct kolo__cpu_variant *variant = kolo__cpu_variants[v];
        if (!variant->supported())
            continue;
        for (size_t d = 0; d < 2 * sizeof DTYPES / sizeof *DTYPES; d++) {
            struct kernel kernel = {variant, {DTYPES[d / 2], KOLO_SUM, 1, NULL, d % 2 != 0}};
            double rate = measure(streams, run_kernel, &kernel);
            fprintf(out, ROW, variant->name, kolo_dtype_name(DTYPES[d / 2]), kolo_op_name(KOLO_SUM),
                    streams->sources, place->name, streams->bytes, d % 2 != 0 ? "stream" : "store",
                    rate, limit, rate / limit);
        }
    }
    fflush(out);
}

/* ---- gradient fusion ------------------------------------------------------------------------- */

/* Streams: at[0] fp32, at[1] the errors, and the last what travels; `bytes` are those of fp32. */

static const struct kolo__packing HALVED = {KOLO_FP32, true, KOLO__NARROW_BF16, 0.5};

static void run_pack(const struct streams *streams, const void *context)
{
    (void)context;
    kolo__pack(&HALVED, streams->at[STREAMS_MAX - 1], streams->at[0], NULL,
               streams->bytes / sizeof(float));
}

static void run_pack_feedback(const struct streams *streams, const void *context)
{
    (void)context;
    kolo__pack(&HALVED, streams->at[STREAMS_MAX - 1], streams->at[0], streams->at[1],
               streams->bytes / sizeof(float));
}

static void run_unpack(const struct streams *streams, const void *context)
{
    (void)context;
    kolo__unpack(&HALVED, streams->at[0], streams->at[STREAMS_MAX - 1], NULL, 0,
                 streams->bytes / sizeof(float));
}

static void run_unpack_norm(const struct streams *streams, const void *context)
{
    (void)context;
    struct kolo__norm norm = {0};
    kolo__unpack(&HALVED, streams->at[0], streams->at[STREAMS_MAX - 1], &norm, 0,
                 streams->bytes / sizeof(float));
}

static void run_norm(const struct streams *streams, const void *context)
{
    (void)context;
    struct kolo__norm norm = {0};
    kolo__norm_add(&norm, KOLO_FP32, streams->at[0], 0, streams->bytes / sizeof(float));
}

/* By -1: however often, values stay as large as they are. */
static void run_scale(const struct streams *streams, const void *context)
{
    (void)context;
    kolo__scale(KOLO_FP32, streams->at[0], streams->bytes / sizeof(float), -1);
}

static void run_memcpy(const struct streams *streams, const void *context)
{
    memcpy(streams->at[1], streams->at[0], *(const size_t *)context);
}

static const struct fusion {
    const char *name;
    work_function *work;
    unsigned sources; /* streams that are read */
    unsigned stored;  /* bytes an element takes in all streams together */
    unsigned touched; /* bytes loaded and stored for an element */
} FUSIONS[] = {
    {"pack_bf16", run_pack, 1, 6, 6},     {"pack_bf16_feedback", run_pack_feedback, 2, 10, 14},
    {"unpack_bf16", run_unpack, 1, 6, 6}, {"unpack_bf16_norm", run_unpack_norm, 1, 6, 6},
    {"norm_fp32", run_norm, 1, 4, 4},     {"scale_fp32", run_scale, 1, 4, 8},
};

static void measure_fusions(const struct place *place, unsigned char *begin, FILE *out)
{
    for (size_t f = 0; f < sizeof FUSIONS / sizeof *FUSIONS; f++) {
        const struct fusion *fusion = &FUSIONS[f];
        const size_t count = place->bytes / fusion->stored / 64 * 64;
        const size_t copied = place->bytes / 2 / 64 * 64;
        struct streams streams = {.sources = fusion->sources, .bytes = count * sizeof(float)};
        streams.at[0] = begin;
        streams.at[1] = begin + streams.bytes + SKEW;
        streams.at[STREAMS_MAX - 1] = begin + fusion->sources * (streams.bytes + SKEW);
        const struct streams halves = {.at = {begin, begin + copied + SKEW}};
        double limit = measure_bytes(2 * (double)copied, &halves, run_memcpy, &copied);
        double rate = measure_bytes((double)count * fusion->touched, &streams, fusion->work, NULL);
        fprintf(out, ROW, kolo__cpu_best()->name, kolo_dtype_name(KOLO_FP32), fusion->name,
                fusion->sources, place->name, streams.bytes, "store", rate, limit, rate / limit);
        fflush(out);
    }
}

/* ---- places ---------------------------------------------------------------------------------- */

/* index: 0 is the first for data, 2 and 3 are the second and third level. */
static size_t cache_bytes(int index, size_t otherwise)
{
    char path[80];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", index);
    FILE *file = fopen(path, "re");
    size_t kib = 0;
    if (file == NULL)
        return otherwise;
    if (fscanf(file, "%zuK", &kib) != 1)
        kib = 0;
    fclose(file);
    return kib > 0 ? kib << 10 : otherwise;
}

static int measure_places(FILE *out)
{
    const size_t l1 = cache_bytes(0, 32 << 10);
    const size_t l2 = cache_bytes(2, 512 << 10);
    const size_t l3 = cache_bytes(3, 8 << 20);
    const size_t beyond = 8 * l3 < 256 << 20 ? 8 * l3 : 256 << 20;
    const struct place places[] = {
        {"L1", l1 / 2}, {"L2", l2 / 2}, {"L3", l3 / 4}, {"memory", beyond}};
    /* Streams that all began at one address of a page would share few sets of L1. */
    unsigned char *memory = malloc(beyond + STREAMS_MAX * (SKEW + 64));
    if (memory == NULL) {
        fprintf(stderr, "kolo bench kernels: no %zu bytes of memory\n", beyond);
        return 1;
    }
    memset(memory, 0x3c, beyond + STREAMS_MAX * (SKEW + 64));
    unsigned char *begin = memory + (64 - (uintptr_t)memory % 64) % 64;
    fprintf(out, "%-9s %-6s %-18s %7s %-7s %9s %-7s %8s %8s %6s\n", "variant", "dtype", "op",
            "sources", "in", "bytes", "to", "GB/s", "limit", "ratio");
    for (size_t p = 0; p < sizeof places / sizeof *places; p++) {
        for (size_t s = 0; s < sizeof SOURCES / sizeof *SOURCES; s++) {
            struct streams streams = {.sources = SOURCES[s]};
            streams.bytes = places[p].bytes / (SOURCES[s] + 1) / 256 * 256;
            for (unsigned i = 0; i <= SOURCES[s]; i++)
                streams.at[i == SOURCES[s] ? STREAMS_MAX - 1 : i] =
                    begin + i * (streams.bytes + SKEW);
            measure_kernels(&places[p], &streams, out);
        }
    }
    for (size_t p = 0; p < sizeof places / sizeof *places; p++)
        measure_fusions(&places[p], begin, out);
    free(memory);
    return 0;
}

int bench_kernels_main(int argc, char **argv)
{
    (void)argv;
    if (argc > 1) {
        fprintf(stderr, "kolo bench kernels: takes no arguments\n");
        return EXIT_ARGUMENTS;
    }
    return measure_places(stdout);
}
