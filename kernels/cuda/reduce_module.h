/* SPDX-License-Identifier: Apache-2.0 */
/* The functions of the table (kernels/device.h) that are reductions: in one GPU
 * (reduce_module.c) and among several (exchange_module.c). */
#ifndef KOLO_KERNELS_CUDA_REDUCE_MODULE_H
#define KOLO_KERNELS_CUDA_REDUCE_MODULE_H

#include "kernels/cuda/driver.h"

kolo_status kolo__cuda_reduce(struct kolo__device *device, const struct kolo__reduction *reduction,
                              void *to, const void *const *sources, uint32_t source_count,
                              size_t count, kolo__device_stream stream);
kolo_status kolo__cuda_sum_narrow(struct kolo__device *device, enum kolo__narrow_float wire,
                                  void *to, const void *const *sources, uint32_t source_count,
                                  uint32_t divisor, size_t count, kolo__device_stream stream);
kolo_status kolo__cuda_exchange(struct kolo__device *device,
                                const struct kolo__device_exchange_run *run,
                                const struct kolo__device_exchange *parts, uint32_t part_count,
                                kolo__device_stream stream);

#endif
