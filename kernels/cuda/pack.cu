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

static __device__ __forceinline__ walk_partial partial_of_lane(walk_partial a, int offset)
{
    walk_partial b;
    b.squares = __shfl_down_sync(~0u, a.squares, offset);
    b.absolute_max = __shfl_down_sync(~0u, a.absolute_max, offset);
    b.not_finite = __shfl_down_sync(~0u, a.not_finite, offset);
    return b;
}

/* The sum of all threads' partials; thread 0 has it. */
template <int threads> static __device__ __forceinline__ walk_partial add_threads(walk_partial mine)
{
    __shared__ walk_partial of_warps[threads / 32];
    for (int offset = 16; offset > 0; offset /= 2)
        add_partial(&mine, partial_of_lane(mine, offset));
    if (threadIdx.x % 32 == 0)
        of_warps[threadIdx.x / 32] = mine;
    __syncthreads();
    if (threadIdx.x == 0)
        for (int warp = 1; warp < threads / 32; warp++)
            add_partial(&mine, of_warps[warp]);
    return mine;
}

static __device__ __forceinline__ void write_partial(const walk &walk, walk_partial mine)
{
    mine = add_threads<WALK_THREADS>(mine);
    if (threadIdx.x == 0)
        ((walk_partial *)walk.partials)[blockIdx.x] = mine;
}

#define KERNELS(name, tensor, wire)                                                                \
    extern "C" __global__ void __launch_bounds__(WALK_THREADS, 4)                                  \
        kolo_pack_##name(const __grid_constant__ walk walk)                                        \
    {                                                                                              \
        walk_partial partial;                                                                      \
        walk_thread(walk_form{WALK_PACK, tensor, wire}, &walk, blockIdx.x, threadIdx.x, &partial); \
        if (walk.partials != 0)                                                                    \
            write_partial(walk, partial);                                                          \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(WALK_THREADS, 4)                                  \
        kolo_unpack_##name(const __grid_constant__ walk walk)                                      \
    {                                                                                              \
        walk_partial partial;                                                                      \
        walk_thread(walk_form{WALK_UNPACK, tensor, wire}, &walk, blockIdx.x, threadIdx.x,          \
                    &partial);                                                                     \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(WALK_THREADS, 4)                                  \
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
