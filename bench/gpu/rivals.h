/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the packing kernels are measured against: other ways to bring tensors into one buffer. Each
 * moves `count` pieces of memory, and queues that on the stream.
 */
#ifndef KOLO_BENCH_GPU_RIVALS_H
#define KOLO_BENCH_GPU_RIVALS_H

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <vector>

struct pieces {
    std::vector<void *> to, from;
    std::vector<size_t> bytes;
};

/* cudaMemcpyAsync, one call for each. */
bool copy_each(const pieces &pieces, cudaStream_t stream);
/* cudaMemcpyBatchAsync, one call for all; false before CUDA 12.8, which has no such call. */
bool copy_as_batch(const pieces &pieces, cudaStream_t stream);
/* The scheme of Horovod, written anew: a kernel for every 160 tensors, whose addresses are its
 * parameters, with 8 blocks of 1,024 threads for each tensor, whatever its size. */
bool copy_by_fixed_blocks(const pieces &pieces, cudaStream_t stream);

/* Random floats between -1 and 1, the same for the same seed. Never zeros: those can be faster. */
void fill_with_floats(void *memory, size_t count, uint64_t seed);
/* Pieces whose two sides differ. Blocks. */
size_t count_different(const pieces &pieces);

#endif
