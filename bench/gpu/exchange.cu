/* SPDX-License-Identifier: Apache-2.0 */
/* See exchange.h. */
#include "bench/gpu/exchange.h"

#include "bench/gpu/measure.h"
#include "bench/gpu/rivals.h"

extern "C" {
#include "kernels/device.h"
}

#include <cstdio>
#include <cstdlib>

enum { RANKS = 4 };
static const size_t MiB = 1 << 20;

struct all_ranks {
    kolo__device_exchange parts[RANKS];
    size_t bytes; /* of each rank's buffer, and of a slot */
};

static all_ranks make_ranks(size_t bytes)
{
    all_ranks made = {};
    void *regions[RANKS];
    made.bytes = bytes;
    for (int r = 0; r < RANKS; r++) {
        void *from;
        CUDA(cudaMalloc(&regions[r], kolo__exchange_region_bytes(bytes)));
        CUDA(cudaMemset(regions[r], 0, kolo__exchange_region_bytes(bytes)));
        CUDA(cudaMalloc(&from, bytes));
        fill_with_floats(from, bytes / 4, (uint64_t)r);
        CUDA(cudaMalloc(&made.parts[r].to, bytes));
        CUDA(cudaMallocHost(&made.parts[r].stop, sizeof *made.parts[r].stop));
        *made.parts[r].stop = 0;
        made.parts[r].from = from;
        made.parts[r].rank = (uint32_t)r;
    }
    for (int r = 0; r < RANKS; r++)
        for (int other = 0; other < RANKS; other++)
            made.parts[r].regions[other] = regions[other];
    CUDA(cudaDeviceSynchronize());
    return made;
}

static void free_ranks(all_ranks &made)
{
    CUDA(cudaDeviceSynchronize());
    for (int r = 0; r < RANKS; r++) {
        if (*made.parts[r].stop != 0) {
            fprintf(stderr, "an exchange gave up: rank %d waited for rank %u\n", r,
                    *made.parts[r].stop - 1);
            exit(1);
        }
        CUDA(cudaFree(made.parts[r].regions[r]));
        CUDA(cudaFree((void *)made.parts[r].from));
        CUDA(cudaFree(made.parts[r].to));
        CUDA(cudaFreeHost(made.parts[r].stop));
    }
}

/* Bytes read and written, in the order of steps (kernels/cuda/exchange.h). */
static double moved_by(kolo__device_exchange_kind kind, size_t bytes)
{
    const double n = RANKS;
    double parts = kind == KOLO__EXCHANGE_ONE_SHOT   ? n * (2 + n + 1)
                   : kind == KOLO__EXCHANGE_TWO_SHOT ? 2 * n + (n + 2) + 2 * (n - 1)
                                                     : 6 * n - 4;
    return parts * (double)bytes;
}

static contender exchange_contender(const char *name, kolo__device_exchange_kind kind,
                                    const all_ranks &ranks, size_t bytes, int blocks,
                                    const kolo__device_module *gpu, kolo__device *device)
{
    static const kolo__reduction SUM = {KOLO_FP32, KOLO_SUM, 1, nullptr, false};
    return {name, moved_by(kind, bytes), [=, &ranks](int, cudaStream_t stream) {
                kolo__device_exchange_run run = {};
                run.kind = kind;
                run.rank_count = RANKS;
                run.slot_bytes = ranks.bytes;
                run.reduction = &SUM;
                run.count = bytes / 4;
                run.spins = 100000000;
                run.blocks = (uint32_t)blocks;
                run.step = -1;
                return gpu->exchange(device, &run, ranks.parts, RANKS, stream) == KOLO_OK;
            }};
}

void measure_exchanges(const kolo__device_module *gpu, kolo__device *device)
{
    int processors;
    CUDA(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0));
    /* All blocks of all ranks are on the GPU at once: one on a multiprocessor. */
    const int most = processors / RANKS < 64 ? processors / RANKS : 64;
    all_ranks ranks = make_ranks(64 * MiB);
    for (size_t bytes : {4096, 65536, 1 << 20}) {
        int blocks = (int)(bytes / 16 / 512);
        blocks = blocks < 1 ? 1 : blocks > most ? most : blocks;
        measure(
            {"exchange", RANKS, bytes, 1},
            {exchange_contender("one_shot_4", KOLO__EXCHANGE_ONE_SHOT, ranks, bytes, blocks, gpu,
                                device),
             exchange_contender("two_shot_4", KOLO__EXCHANGE_TWO_SHOT, ranks, bytes, blocks, gpu,
                                device),
             exchange_contender("ring_4", KOLO__EXCHANGE_RING, ranks, bytes, blocks, gpu, device)});
    }
    measure({"ring", RANKS, 64 * MiB, 1}, {exchange_contender("ring_4", KOLO__EXCHANGE_RING, ranks,
                                                              64 * MiB, most, gpu, device)});
    free_ranks(ranks);
}
