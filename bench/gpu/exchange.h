/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of the allreduces among GPUs by kernels alone, with one GPU as all of 4 ranks: what the
 * kernels do, not what links between GPUs would let them. */
#ifndef KOLO_BENCH_GPU_EXCHANGE_H
#define KOLO_BENCH_GPU_EXCHANGE_H

struct kolo__device_module;
struct kolo__device;

/* Ends the program when a kernel gave up. */
void measure_exchanges(const kolo__device_module *gpu, kolo__device *device);

#endif
