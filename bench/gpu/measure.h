/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the benchmark of GPUs times: several contenders, in turns, each as a CUDA graph of many
 * operations between two events, so that what a launch costs on the host is not in the figure. The
 * operations of a graph rotate among sets of buffers that are together larger than the L2 cache, as
 * a training step finds its gradients.
 */
#ifndef KOLO_BENCH_GPU_MEASURE_H
#define KOLO_BENCH_GPU_MEASURE_H

#include <cuda_runtime.h>

#include <functional>
#include <string>
#include <vector>

/* Ends the program, with what was asked and the driver's text. */
#define CUDA(call) check_cuda(call, #call, __FILE__, __LINE__)
void check_cuda(cudaError_t error, const char *call, const char *file, int line);

struct contender {
    const char *name;
    double moved_bytes; /* that one operation reads and writes in the GPU's memory */
    /* Queues one operation on the buffers of set `set`; false: it cannot be done here. */
    std::function<bool(int set, cudaStream_t stream)> queue;
};

struct measurement { /* what a row names */
    std::string name;
    size_t tensors, bytes;
    int sets;
};

/* Prints a row for each contender: the median, the lowest and the highest of the rounds. */
void measure(const measurement &what, const std::vector<contender> &contenders);

/* The heading of the rows: measurement,contender,tensors,bytes,moved_bytes,us_p50,us_low,us_high,
 * gbps,by. `by`: graph, or stream where an operation cannot be in a graph. */
void print_heading();

/* Sets that do not fit into twice the L2 cache together, at least 2. */
int sets_beyond_cache(size_t bytes_of_one);

#endif
