/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu_bench: the packing kernels of libkolo-cuda.so on one GPU, beside a copy of as many bytes and
 * beside other ways to bring tensors into one buffer. Rows to stdout (measure.h has the columns);
 * bench/gpu.sh builds and runs it, and says what they are held against. The micro-benchmark of
 * GPUs: it sees what it measures.
 *
 *     gpu_bench [--quick]     measures; exit code 77: there is no GPU, 1: a result was wrong
 *     gpu_bench --list MODEL  elements of each tensor, a line each
 */
#include "bench/gpu/exchange.h"
#include "bench/gpu/measure.h"
#include "bench/gpu/rivals.h"

extern "C" {
#include "bench/models.h"
#include "kernels/device.h"
}

#include <cstdio>
#include <cstdlib>
#include <cstring>

static const size_t MiB = 1 << 20;

static const kolo__device_module *gpu;
static kolo__device *device;

static void check_kolo(kolo_status status, const char *what)
{
    if (status == KOLO_OK)
        return;
    fprintf(stderr, "%s: %s\n", what, kolo_error_text());
    exit(1);
}

/* ---- tensors ----------------------------------------------------------------------------------
 */

/* One set of buffers: tensors anywhere in an arena, and what they are packed into. */
struct buffers {
    char *arena, *fused;
    size_t fused_count; /* elements, with padding */
    kolo__device_partial *partials;
    kolo__device_total *total;
    kolo__device_plan *wide, *narrow; /* fp32 as it is; as bf16 */
    pieces pack, unpack;
};

struct workload {
    std::string name;
    std::vector<size_t> counts; /* elements of fp32 */
    size_t skew;                /* bytes from an address that is a multiple of 256 */
};

static const kolo__packing WIDE = {KOLO_FP32, false, KOLO__NARROW_BF16, 1};
static const kolo__packing NARROW = {KOLO_FP32, true, KOLO__NARROW_BF16, 1};

static size_t rounded(size_t value, size_t unit)
{
    return (value + unit - 1) / unit * unit;
}

static size_t sum_of(const std::vector<size_t> &counts)
{
    size_t sum = 0;
    for (size_t count : counts)
        sum += count;
    return sum;
}

static buffers make_buffers(const workload &work, uint64_t seed)
{
    buffers made = {};
    std::vector<kolo__device_tensor> tensors;
    size_t arena_bytes = 0, begin = 0;
    for (size_t count : work.counts)
        arena_bytes += rounded(work.skew + 4 * count, 256);
    CUDA(cudaMalloc(&made.arena, arena_bytes));
    fill_with_floats(made.arena, arena_bytes / 4, seed);
    size_t offset = 0;
    for (size_t count : work.counts) {
        tensors.push_back({made.arena + offset + work.skew, count, begin});
        offset += rounded(work.skew + 4 * count, 256);
        begin = rounded(begin + count, 8); /* 16 bytes of bf16 */
    }
    made.fused_count = begin;
    CUDA(cudaMalloc(&made.fused, 4 * begin));
    CUDA(cudaMemset(made.fused, 0xa5, 4 * begin));
    size_t partials = kolo__device_partials(&WIDE, begin);
    CUDA(cudaMalloc(&made.partials, partials * sizeof *made.partials));
    CUDA(cudaMalloc(&made.total, sizeof *made.total));
    for (const kolo__device_tensor &tensor : tensors) {
        void *at = made.fused + 4 * tensor.begin;
        made.pack.to.push_back(at), made.pack.from.push_back(tensor.data);
        made.unpack.to.push_back(tensor.data), made.unpack.from.push_back(at);
        made.pack.bytes.push_back(4 * tensor.count), made.unpack.bytes.push_back(4 * tensor.count);
    }
    const kolo__device_layout wide = {WIDE, tensors.data(), tensors.size(), begin};
    const kolo__device_layout narrow = {NARROW, tensors.data(), tensors.size(), begin};
    check_kolo(gpu->plan_create(device, &wide, &made.wide), "a plan");
    check_kolo(gpu->plan_create(device, &narrow, &made.narrow), "a plan");
    return made;
}

static void free_buffers(buffers &made)
{
    CUDA(cudaDeviceSynchronize());
    gpu->plan_destroy(made.wide);
    gpu->plan_destroy(made.narrow);
    CUDA(cudaFree(made.total));
    CUDA(cudaFree(made.partials));
    CUDA(cudaFree(made.fused));
    CUDA(cudaFree(made.arena));
}

/* ---- contenders -------------------------------------------------------------------------------
 */

typedef kolo_status walk_function(kolo__device_plan *, const kolo__device_run *,
                                  kolo__device_stream);

struct wanted {
    bool rivals; /* measure these, too */
    bool statistics;
};

/* Statistics that nobody waits for on the host: partials, and with `total` the norm of them. */
enum statistics { NONE, PARTIALS, TOTAL };

static contender kolo_contender(const char *name, std::vector<buffers> &sets, size_t count,
                                bool narrows, bool packs, statistics statistics)
{
    const kolo__packing *packing = narrows ? &NARROW : &WIDE;
    double moved = (double)count * (4 + (double)kolo__device_wire_bytes(packing));
    return {name, moved, [&sets, count, narrows, packs, statistics](int set, cudaStream_t stream) {
                buffers &of = sets[(size_t)set];
                kolo__device_run run = {};
                run.fused = of.fused;
                run.scale = statistics == TOTAL ? -1 : 1; /* what foreach does, too */
                run.partials = statistics != NONE ? of.partials : nullptr;
                walk_function *walk = packs ? gpu->pack : gpu->unpack;
                check_kolo(walk(narrows ? of.narrow : of.wide, &run, stream), "packing");
                size_t partials = kolo__device_partials(&WIDE, of.fused_count);
                if (statistics == TOTAL)
                    check_kolo(gpu->total(device, of.partials, partials, 1, of.total, stream),
                               "a total");
                return true;
            }};
}

static contender rival(const char *name, std::vector<buffers> &sets, size_t count, bool packs,
                       bool (*copy)(const pieces &, cudaStream_t))
{
    return {name, 8.0 * (double)count, [&sets, packs, copy](int set, cudaStream_t stream) {
                const buffers &of = sets[(size_t)set];
                return copy(packs ? of.pack : of.unpack, stream);
            }};
}

static contender plain_copy(std::vector<buffers> &sets, size_t count)
{
    return {"copy", 8.0 * (double)count, [&sets, count](int set, cudaStream_t stream) {
                CUDA(cudaMemcpyAsync(sets[(size_t)set].fused, sets[(size_t)set].arena, 4 * count,
                                     cudaMemcpyDeviceToDevice, stream));
                return true;
            }};
}

/* All that pack fp32 as it is have to leave the same bytes in a poisoned buffer. */
static size_t count_wrong(const workload &work, std::vector<buffers> &sets,
                          const std::vector<contender> &contenders)
{
    size_t wrong = 0;
    for (const contender &who : contenders) {
        bool exact = strncmp(who.name, "pack_fp32", 9) == 0 || strncmp(who.name, "each_", 5) == 0;
        if (!exact)
            continue;
        CUDA(cudaMemset(sets[0].fused, 0xa5, 4 * sum_of(work.counts)));
        if (!who.queue(0, cudaStreamPerThread)) {
            cudaGetLastError();
            continue;
        }
        CUDA(cudaDeviceSynchronize());
        size_t different = count_different(sets[0].pack);
        if (different > 0)
            printf("#wrong %s,%s: %zu of %zu tensors\n", work.name.c_str(), who.name, different,
                   work.counts.size());
        wrong += different;
    }
    return wrong;
}

static size_t measure_workload(const workload &work, wanted wanted)
{
    size_t count = sum_of(work.counts), free_bytes, all_bytes;
    int set_count = sets_beyond_cache(8 * count);
    CUDA(cudaMemGetInfo(&free_bytes, &all_bytes));
    if (9 * count * (size_t)set_count + 64 * MiB > free_bytes) {
        printf("#note %s: skipped, it needs %zu MiB of the GPU's memory\n", work.name.c_str(),
               9 * count * (size_t)set_count / MiB);
        return 0;
    }
    std::vector<buffers> sets;
    for (int i = 0; i < set_count; i++)
        sets.push_back(make_buffers(work, (uint64_t)i));
    CUDA(cudaDeviceSynchronize());
    std::vector<contender> contenders = {
        kolo_contender("pack_fp32", sets, count, false, true, NONE),
        kolo_contender("pack_bf16", sets, count, true, true, NONE),
        kolo_contender("unpack_fp32", sets, count, false, false, NONE),
        kolo_contender("unpack_bf16", sets, count, true, false, NONE)};
    if (work.skew == 0)
        contenders.push_back(plain_copy(sets, count));
    if (wanted.statistics) {
        contenders.push_back(kolo_contender("pack_fp32_sums", sets, count, false, true, PARTIALS));
        contenders.push_back(kolo_contender("pack_bf16_sums", sets, count, true, true, PARTIALS));
        contenders.push_back(kolo_contender("pack_bf16_norm", sets, count, true, true, TOTAL));
    }
    if (wanted.rivals) {
        contenders.push_back(rival("each_memcpy", sets, count, true, copy_each));
        contenders.push_back(rival("each_batch", sets, count, true, copy_as_batch));
        contenders.push_back(rival("each_horovod", sets, count, true, copy_by_fixed_blocks));
        contenders.push_back(rival("unpack_horovod", sets, count, false, copy_by_fixed_blocks));
    }
    size_t wrong = count_wrong(work, sets, contenders);
    measure({work.name, work.counts.size(), 4 * count, set_count}, contenders);
    for (buffers &set : sets)
        free_buffers(set);
    return wrong;
}

/* ---- what is measured -------------------------------------------------------------------------
 */

/* 64 tensors of the same size; those of the misaligned case begin 4 bytes after a multiple of 16.
 */
static workload sized(size_t mib, size_t skew)
{
    char name[64];
    snprintf(name, sizeof name, "%s", skew > 0 ? "misaligned" : "size");
    return {name, std::vector<size_t>(64, mib * MiB / 4 / 64), skew};
}

static workload of_model(const bench_model &model)
{
    static bench_parameters parameters;
    model.list(&parameters);
    workload work = {model.name, {}, 0};
    for (size_t i = 0; i < parameters.count; i++)
        work.counts.push_back(parameters.list[i].count);
    return work;
}

static int list_model(const char *name)
{
    for (const bench_model &model : bench_models)
        if (strcmp(model.name, name) == 0) {
            for (size_t count : of_model(model).counts)
                printf("%zu\n", count);
            return 0;
        }
    fprintf(stderr, "gpu_bench: there is no model %s\n", name);
    return 2;
}

static void begin()
{
    static kolo__device_survey survey;
    if (kolo__device_load(&gpu) != KOLO_OK || gpu->survey(&survey) != KOLO_OK ||
        survey.count == 0) {
        printf("skipped: %s\n",
               survey.driver_version > 0 && survey.count == 0 ? "no GPU" : kolo_error_text());
        exit(77);
    }
    check_kolo(gpu->open(0, &device), "opening the GPU");
    CUDA(cudaSetDevice(0));
}

int main(int argc, char **argv)
{
    bool quick = argc == 2 && strcmp(argv[1], "--quick") == 0;
    if (argc == 3 && strcmp(argv[1], "--list") == 0)
        return list_model(argv[2]);
    if (argc > 1 && !quick) {
        fprintf(stderr, "usage: gpu_bench [--quick] | --list MODEL\n");
        return 2;
    }
    begin();
    print_heading();
    size_t wrong = 0;
    for (size_t mib : {1, 4, 16, 64, 256, 1024}) {
        if (quick && mib != 64 && mib != 256)
            continue;
        wrong += measure_workload(sized(mib, 0), {!quick && mib <= 256, mib >= 64});
        if (mib == 64 || mib == 256)
            wrong += measure_workload(sized(mib, 4), {false, false});
    }
    wrong += measure_workload({"160x1MiB", std::vector<size_t>(160, MiB / 4), 0}, {true, false});
    for (const bench_model &model : bench_models)
        wrong += measure_workload(of_model(model), {true, true});
    measure_exchanges(gpu, device);
    return wrong > 0 ? 1 : 0;
}
