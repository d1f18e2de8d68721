/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels of exchange.h. Ranks of one launch take its blocks in turns of gridDim / ranks; all
 * blocks have to be on the GPU at once, since they wait for each other.
 */
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#define CONVERSION static __device__ __forceinline__
#include "kernels/cuda/exchange.h"
#include "kernels/cuda/forms.h"

static_assert(sizeof(exchange_launch) <= 4096, "parameters of a kernel on every GPU");
static_assert(EXCHANGE_RANKS <= EXCHANGE_THREADS, "a thread for each rank");

template <exchange_kind kind, format element>
static __device__ __forceinline__ void run_exchange(const exchange *x, uint32_t block,
                                                    uint32_t blocks)
{
    const uint32_t epoch = exchange_epoch(x);
    for (uint32_t step = x->first_step; step <= x->last_step; step++) {
        bool here =
            step == x->first_step || exchange_wait(kind, x, epoch, step - 1, block, threadIdx.x);
        if (__syncthreads_or(!here))
            return;
        exchange_work(kind, element, x, epoch, step, block, blocks, threadIdx.x);
        __syncthreads();
        if (step < x->last_step)
            exchange_tell(kind, x, epoch, step, block, threadIdx.x);
    }
    if (threadIdx.x == 0)
        exchange_finish(kind, x, epoch, blocks);
}

#define EXCHANGE(word, kind, name, element)                                                        \
    extern "C" __global__ void __launch_bounds__(EXCHANGE_THREADS, 1)                              \
        kolo_##word##_##name(const __grid_constant__ exchange_launch launch)                       \
    {                                                                                              \
        const uint32_t blocks = gridDim.x / (uint32_t)launch.rank_count;                           \
        run_exchange<kind, element>(&launch.ranks[blockIdx.x / blocks], blockIdx.x % blocks,       \
                                    blocks);                                                       \
    }
KOLO__EXCHANGES(EXCHANGE)
