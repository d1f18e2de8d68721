/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A GPU as train_bytes' device (device.h): one stream of its own, on which everything is queued,
 * kernels.h as kernels, and cuBLAS. Compiled by nvcc into libtrain_bytes_cuda.so, which train_bytes
 * loads for --device cuda. The first error stays, and ends training where it is asked for.
 *
 * The stream is a blocking one: CUDA's default stream, which kolo_broadcast_tensors goes by, is in
 * order with it.
 */
#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <stdio.h>
#include <string.h>

extern "C" {
#include "device.h"
}
#include "kernels.h"

enum { ELEMENT_THREADS = 256 };

static struct {
    cudaStream_t stream;
    cublasHandle_t blas;
    cudaEvent_t marks[DEVICE_LAG_MOST + 1];
    char name[160], problem[DEVICE_WHY_BYTES];
} gpu;

static bool check(cudaError_t error, const char *what)
{
    if (error != cudaSuccess && gpu.problem[0] == '\0')
        snprintf(gpu.problem, sizeof gpu.problem, "%s%s: %s (%s)", gpu.name, what,
                 cudaGetErrorName(error), cudaGetErrorString(error));
    return error == cudaSuccess;
}

static bool check_blas(cublasStatus_t status, const char *what)
{
    if (status != CUBLAS_STATUS_SUCCESS && gpu.problem[0] == '\0')
        snprintf(gpu.problem, sizeof gpu.problem, "%s%s: %s", gpu.name, what,
                 cublasGetStatusString(status));
    return status == CUBLAS_STATUS_SUCCESS;
}

static const char *problem(void)
{
    return gpu.problem[0] != '\0' ? gpu.problem : NULL;
}

/* ---- memory --------------------------------------------------------------------------------- */

static void *allocate(size_t bytes)
{
    void *memory = NULL;
    if (!check(cudaMalloc(&memory, bytes > 0 ? bytes : 1), "allocating memory"))
        return NULL;
    check(cudaMemsetAsync(memory, 0, bytes, gpu.stream), "zeroing memory");
    return memory;
}

static void release(void *memory)
{
    check(cudaFree(memory), "freeing memory");
}

static void zero(void *memory, size_t bytes)
{
    check(cudaMemsetAsync(memory, 0, bytes, gpu.stream), "zeroing memory");
}

static void copy(void *to, const void *from, size_t bytes)
{
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, gpu.stream), "copying");
}

static void copy_and_wait(void *to, const void *from, size_t bytes)
{
    copy(to, from, bytes);
    check(cudaStreamSynchronize(gpu.stream), "waiting for the stream");
}

static void *allocate_host(size_t bytes)
{
    void *memory = NULL;
    return check(cudaMallocHost(&memory, bytes > 0 ? bytes : 1), "pinning memory") ? memory : NULL;
}

static void release_host(void *memory)
{
    check(cudaFreeHost(memory), "freeing pinned memory");
}

static void mark(int which)
{
    check(cudaEventRecord(gpu.marks[which], gpu.stream), "recording an event");
}

static void wait(int which)
{
    check(cudaEventSynchronize(gpu.marks[which]), "waiting for a step");
}

/* ---- kernels -------------------------------------------------------------------------------- */

#define ELEMENT_KERNEL(name)                                                                       \
    static __global__ void __launch_bounds__(ELEMENT_THREADS)                                      \
        name##_elements(struct name##_work work, size_t count)                                     \
    {                                                                                              \
        size_t i = blockIdx.x * (size_t)ELEMENT_THREADS + threadIdx.x;                             \
        if (i < count)                                                                             \
            name##_element(&work, i);                                                              \
    }
ELEMENT_KERNELS(ELEMENT_KERNEL)

/* All threads have the result. The order is the same in every run. */
template <bool largest> static __device__ float over_block(float mine)
{
    __shared__ float of_warps[ROW_THREADS / 32];
    for (int offset = 16; offset > 0; offset /= 2) {
        float other = __shfl_xor_sync(~0u, mine, offset);
        mine = largest ? fmaxf(mine, other) : mine + other;
    }
    __syncthreads(); /* the one before has been read */
    if (threadIdx.x % 32 == 0)
        of_warps[threadIdx.x / 32] = mine;
    __syncthreads();
    mine = of_warps[0];
    for (int warp = 1; warp < ROW_THREADS / 32; warp++)
        mine = largest ? fmaxf(mine, of_warps[warp]) : mine + of_warps[warp];
    return mine;
}

#define ROW_KERNEL(name)                                                                           \
    static __global__ void __launch_bounds__(ROW_THREADS) name##_rows(struct name##_work work)     \
    {                                                                                              \
        size_t row = blockIdx.x;                                                                   \
        int thread = (int)threadIdx.x;                                                             \
        float largest = over_block<true>(name##_largest(&work, row, thread));                      \
        float sum = over_block<false>(name##_sum(&work, row, thread, largest));                    \
        name##_apply(&work, row, thread, largest, sum);                                            \
    }
ROW_KERNELS(ROW_KERNEL)

#define ELEMENTS(name, count, ...)                                                                 \
    do {                                                                                           \
        struct name##_work work = {__VA_ARGS__};                                                   \
        size_t elements = (count);                                                                 \
        unsigned blocks = (unsigned)((elements + ELEMENT_THREADS - 1) / ELEMENT_THREADS);          \
        if (blocks > 0)                                                                            \
            name##_elements<<<blocks, ELEMENT_THREADS, 0, gpu.stream>>>(work, elements);           \
        check(cudaGetLastError(), "starting " #name);                                              \
    } while (0)

#define ROWS(name, count, ...)                                                                     \
    do {                                                                                           \
        struct name##_work work = {__VA_ARGS__};                                                   \
        name##_rows<<<(unsigned)(count), ROW_THREADS, 0, gpu.stream>>>(work);                      \
        check(cudaGetLastError(), "starting " #name);                                              \
    } while (0)

#include "composition.h"

/* cuBLAS goes by columns, so that it sees transposed matrices: c^T = op(b)^T op(a)^T. */
static void products(int batch, int rows, int columns, int inner, float alpha, struct matrix a,
                     struct matrix b, float beta, float *c, int leading, int64_t next)
{
    check_blas(cublasSgemmStridedBatched(gpu.blas, b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N,
                                         a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N, columns, rows,
                                         inner, &alpha, b.data, b.leading, b.next, a.data,
                                         a.leading, a.next, &beta, c, leading, next, batch),
               "a matrix product");
}

/* ---- the table ------------------------------------------------------------------------------ */

static bool begin(int local_rank)
{
    int count = 0;
    struct cudaDeviceProp properties;
    if (!check(cudaGetDeviceCount(&count), "looking for GPUs"))
        return false;
    int ordinal = local_rank % (count > 0 ? count : 1);
    if (!check(cudaSetDevice(ordinal), "taking a GPU") ||
        !check(cudaGetDeviceProperties(&properties, ordinal), "describing a GPU"))
        return false;
    snprintf(gpu.name, sizeof gpu.name, "GPU %d (%.100s): ", ordinal, properties.name);
    if (!check(cudaStreamCreate(&gpu.stream), "making a stream"))
        return false;
    for (int i = 0; i <= DEVICE_LAG_MOST; i++)
        if (!check(cudaEventCreateWithFlags(&gpu.marks[i],
                                            cudaEventDisableTiming | cudaEventBlockingSync),
                   "making an event"))
            return false;
    return check_blas(cublasCreate(&gpu.blas), "beginning cuBLAS") &&
           check_blas(cublasSetStream(gpu.blas, gpu.stream), "giving cuBLAS a stream");
}

extern "C" __attribute__((visibility("default"))) const struct device *
train_bytes_cuda_open(int local_rank, char *why)
{
    static struct device device;
    if (!begin(local_rank)) {
        snprintf(why, DEVICE_WHY_BYTES, "%.200s: see nvidia-smi, or take --device cpu",
                 gpu.problem);
        return NULL;
    }
    device = {"cuda", gpu.stream,    DEVICE_LAG_MOST, problem,       allocate,     release, zero,
              copy,   copy_and_wait, copy_and_wait,   allocate_host, release_host, copy,    copy,
              mark,   wait,          ON_DEVICE_LAYERS};
    return &device;
}
