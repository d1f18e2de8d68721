/* SPDX-License-Identifier: Apache-2.0 */
/* See rivals.h. */
#include "bench/gpu/rivals.h"

#include "bench/gpu/measure.h"

bool copy_each(const pieces &pieces, cudaStream_t stream)
{
    for (size_t i = 0; i < pieces.to.size(); i++)
        CUDA(cudaMemcpyAsync(pieces.to[i], pieces.from[i], pieces.bytes[i],
                             cudaMemcpyDeviceToDevice, stream));
    return true;
}

#if CUDART_VERSION >= 12080
bool copy_as_batch(const pieces &pieces, cudaStream_t stream)
{
    cudaMemcpyAttributes attributes = {};
    size_t first = 0;
    attributes.srcAccessOrder = cudaMemcpySrcAccessOrderStream;
#if CUDART_VERSION >= 13000
    return cudaMemcpyBatchAsync(pieces.to.data(), (const void *const *)pieces.from.data(),
                                pieces.bytes.data(), pieces.to.size(), &attributes, &first, 1,
                                stream) == cudaSuccess;
#else /* which piece failed has a place there, and arrays are not const */
    size_t failed;
    return cudaMemcpyBatchAsync((void **)pieces.to.data(), (void **)pieces.from.data(),
                                (size_t *)pieces.bytes.data(), pieces.to.size(), &attributes,
                                &first, 1, &failed, stream) == cudaSuccess;
#endif
}
#else
bool copy_as_batch(const pieces &, cudaStream_t)
{
    return false;
}
#endif

/* ---- Horovod's scheme ------------------------------------------------------------------------ */

enum { TENSORS_OF_A_LAUNCH = 160, BLOCKS_OF_A_TENSOR = 8, THREADS = 1024 };

struct launch { /* 3,840 bytes of parameters, of the 4,096 that every GPU takes */
    void *to[TENSORS_OF_A_LAUNCH];
    const void *from[TENSORS_OF_A_LAUNCH];
    size_t bytes[TENSORS_OF_A_LAUNCH];
};

template <typename word>
static __device__ void copy_words(const launch &launch, int tensor, size_t first, size_t stride)
{
    word *to = (word *)launch.to[tensor];
    const word *from = (const word *)launch.from[tensor];
    size_t words = launch.bytes[tensor] / sizeof(word);
    for (size_t i = first; i < words; i += stride)
        to[i] = from[i];
    size_t at = words * sizeof(word) + first; /* the bytes after the last whole word */
    if (at < launch.bytes[tensor])
        ((char *)launch.to[tensor])[at] = ((const char *)launch.from[tensor])[at];
}

/* In the widest words that both addresses allow. */
static __global__ void __launch_bounds__(THREADS) copy_batch(const launch launch)
{
    int tensor = (int)blockIdx.x / BLOCKS_OF_A_TENSOR;
    size_t first = (blockIdx.x % BLOCKS_OF_A_TENSOR) * (size_t)THREADS + threadIdx.x;
    const size_t stride = (size_t)BLOCKS_OF_A_TENSOR * THREADS;
    uintptr_t skew = (uintptr_t)launch.to[tensor] | (uintptr_t)launch.from[tensor];
    if (skew % 16 == 0)
        copy_words<uint4>(launch, tensor, first, stride);
    else if (skew % 8 == 0)
        copy_words<uint2>(launch, tensor, first, stride);
    else if (skew % 4 == 0)
        copy_words<uint32_t>(launch, tensor, first, stride);
    else
        copy_words<uint8_t>(launch, tensor, first, stride);
}

bool copy_by_fixed_blocks(const pieces &pieces, cudaStream_t stream)
{
    for (size_t begin = 0; begin < pieces.to.size(); begin += TENSORS_OF_A_LAUNCH) {
        launch launch = {};
        size_t count = pieces.to.size() - begin;
        count = count < TENSORS_OF_A_LAUNCH ? count : (size_t)TENSORS_OF_A_LAUNCH;
        for (size_t i = 0; i < count; i++) {
            launch.to[i] = pieces.to[begin + i];
            launch.from[i] = pieces.from[begin + i];
            launch.bytes[i] = pieces.bytes[begin + i];
        }
        copy_batch<<<(unsigned)count * BLOCKS_OF_A_TENSOR, THREADS, 0, stream>>>(launch);
        CUDA(cudaGetLastError());
    }
    return true;
}

/* ---- data ------------------------------------------------------------------------------------ */

static __global__ void fill(float *to, size_t count, uint64_t seed)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < count;
         i += (size_t)gridDim.x * blockDim.x) {
        uint64_t x = (i + 1) * 0x9e3779b97f4a7c15u + seed; /* splitmix64 */
        x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
        x = (x ^ x >> 27) * 0x94d049bb133111ebu;
        x ^= x >> 31;
        to[i] = ((float)(x >> 40) - 0x1p23f) * 0x1p-23f;
    }
}

void fill_with_floats(void *memory, size_t count, uint64_t seed)
{
    fill<<<1024, 256>>>((float *)memory, count, seed);
    CUDA(cudaGetLastError());
}

static __global__ void compare(const uint8_t *a, const uint8_t *b, size_t bytes,
                               unsigned *different)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < bytes;
         i += (size_t)gridDim.x * blockDim.x)
        if (a[i] != b[i])
            *different = 1;
}

size_t count_different(const pieces &pieces)
{
    std::vector<unsigned> found(pieces.to.size());
    unsigned *different;
    size_t sum = 0;
    CUDA(cudaMalloc(&different, found.size() * sizeof *different));
    CUDA(cudaMemset(different, 0, found.size() * sizeof *different));
    for (size_t i = 0; i < found.size(); i++)
        compare<<<64, 256>>>((const uint8_t *)pieces.to[i], (const uint8_t *)pieces.from[i],
                             pieces.bytes[i], different + i);
    CUDA(cudaMemcpy(found.data(), different, found.size() * sizeof *different,
                    cudaMemcpyDeviceToHost));
    CUDA(cudaFree(different));
    for (unsigned one : found)
        sum += one;
    return sum;
}
