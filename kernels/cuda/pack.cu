/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The packing kernels: walk.h on a GPU. One block a tile; what they share is a sum of partials.
 * Compiled with -fmad=false, as the rest of kolo is without contraction, and by nvcc alone into a
 * fatbin that libkolo-cuda.so carries.
 */
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#define CONVERSION static __device__ __forceinline__
#include "kernels/cuda/combine.h"
#include "kernels/cuda/forms.h"
#include "kernels/cuda/integers.h"
#include "kernels/cuda/total.h"

static_assert(sizeof(walk) <= 4096 && sizeof(combination) <= 4096,
              "parameters of a kernel on every GPU");

/* The sum of all threads' partials; thread 0 has it. The largest of a warp in one instruction where
 * there is one: its order does not matter. */
template <int threads> static __device__ __forceinline__ walk_partial add_threads(walk_partial mine)
{
    __shared__ walk_partial of_warps[threads / 32];
    for (int offset = 16; offset > 0; offset /= 2) {
        walk_partial other = mine;
        other.squares = __shfl_down_sync(~0u, mine.squares, offset);
#if __CUDA_ARCH__ < 800
        other.absolute_max = __shfl_down_sync(~0u, mine.absolute_max, offset);
#endif
        add_partial(&mine, other);
    }
#if __CUDA_ARCH__ >= 800
    mine.absolute_max = __reduce_max_sync(~0u, mine.absolute_max);
#endif
    mine.not_finite = __any_sync(~0u, (int)mine.not_finite) != 0;
    if (threadIdx.x % 32 == 0)
        of_warps[threadIdx.x / 32] = mine;
    __syncthreads();
    if (threadIdx.x == 0) {
#pragma unroll 8 /* all loads at once would not fit into registers */
        for (int warp = 1; warp < threads / 32; warp++)
            add_partial(&mine, of_warps[warp]);
    }
    return mine;
}

static __device__ __forceinline__ void write_partial(const walk &walk, walk_partial mine)
{
    mine = add_threads<WALK_THREADS>(mine);
    if (threadIdx.x == 0)
        ((walk_partial *)walk.partials)[blockIdx.x] = finish_partial(mine);
}

/* As many blocks on a multiprocessor as registers allow without spilling: statistics of one block
 * are then hidden behind the loads of others. Compute capability 7.5 has 1,024 threads. */
#if __CUDA_ARCH__ == 750
#define BLOCKS(most) 4
#else
#define BLOCKS(most) (most)
#endif

#define KERNELS(name, tensor, wire)                                                                \
    extern "C" __global__ void __launch_bounds__(                                                  \
        WALK_THREADS,                                                                              \
        BLOCKS(tensor >= FORMAT_FP32 && wire != FORMAT_FP16 && wire != FORMAT_E4M3 ? 6 : 5))       \
        kolo_pack_##name(const __grid_constant__ walk walk)                                        \
    {                                                                                              \
        walk_partial partial;                                                                      \
        walk_thread(walk_form{WALK_PACK, tensor, wire}, &walk, blockIdx.x, threadIdx.x, &partial); \
        if (walk.partials != 0)                                                                    \
            write_partial(walk, partial);                                                          \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(WALK_THREADS, BLOCKS(5))                          \
        kolo_unpack_##name(const __grid_constant__ walk walk)                                      \
    {                                                                                              \
        walk_partial partial;                                                                      \
        walk_thread(walk_form{WALK_UNPACK, tensor, wire}, &walk, blockIdx.x, threadIdx.x,          \
                    &partial);                                                                     \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(WALK_THREADS, BLOCKS(5))                          \
        kolo_measure_##name(const __grid_constant__ walk walk)                                     \
    {                                                                                              \
        walk_partial partial;                                                                      \
        walk_thread(walk_form{WALK_MEASURE, tensor, wire}, &walk, blockIdx.x, threadIdx.x,         \
                    &partial);                                                                     \
        write_partial(walk, partial);                                                              \
    }
KOLO__FORMS(KERNELS)

#define REDUCE(name, format)                                                                       \
    extern "C" __global__ void __launch_bounds__(WALK_THREADS, 4)                                  \
        kolo_reduce_##name(const __grid_constant__ combination c)                                  \
    {                                                                                              \
        combine_thread(format, &c, blockIdx.x, threadIdx.x);                                       \
    }
KOLO__FORMATS(REDUCE)

#define REDUCE_INTEGERS(name, bytes, is_signed)                                                    \
    extern "C" __global__ void __launch_bounds__(WALK_THREADS, 4)                                  \
        kolo_reduce_##name(const __grid_constant__ combination c)                                  \
    {                                                                                              \
        combine_integers_thread(bytes, is_signed, &c, blockIdx.x, threadIdx.x);                    \
    }
KOLO__INTEGERS(REDUCE_INTEGERS)

extern "C" __global__ void __launch_bounds__(TOTAL_THREADS, 1)
    kolo_total(const walk_partial *partials, uint64_t count, double clip_norm, totals *total)
{
    walk_partial sum = add_threads<TOTAL_THREADS>(total_thread(partials, count, threadIdx.x));
    if (threadIdx.x == 0)
        *total = finish_total(sum, clip_norm);
}

extern "C" __global__ void __launch_bounds__(1) kolo_scale(const __grid_constant__ scaling scaling)
{
    choose_scale(&scaling);
}
