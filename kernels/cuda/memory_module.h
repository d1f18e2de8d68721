/* SPDX-License-Identifier: Apache-2.0 */
/* The functions of the table (kernels/device.h) that are memory, streams and events; the others are
 * in cuda_module.c. */
#ifndef KOLO_KERNELS_CUDA_MEMORY_MODULE_H
#define KOLO_KERNELS_CUDA_MEMORY_MODULE_H

#include "kernels/cuda/driver.h"

void kolo__cuda_find(const void *memory, struct kolo__memory_place *place);
bool kolo__cuda_current(char bus_id[KOLO__DEVICE_BUS_ID_BYTES]);
kolo_status kolo__cuda_stream_create(struct kolo__device *device, kolo__device_stream *stream);
void kolo__cuda_stream_destroy(struct kolo__device *device, kolo__device_stream stream);
kolo_status kolo__cuda_stream_is_capturing(struct kolo__device *device, kolo__device_stream stream,
                                           bool *capturing);
kolo_status kolo__cuda_event_create(struct kolo__device *device, kolo__device_event *event);
void kolo__cuda_event_destroy(struct kolo__device *device, kolo__device_event event);
kolo_status kolo__cuda_event_record(struct kolo__device *device, kolo__device_event event,
                                    kolo__device_stream stream);
kolo_status kolo__cuda_stream_wait(struct kolo__device *device, kolo__device_stream stream,
                                   kolo__device_event event);
kolo_status kolo__cuda_event_query(struct kolo__device *device, kolo__device_event event);
kolo_status kolo__cuda_alloc(struct kolo__device *device, size_t bytes, void **memory);
void kolo__cuda_free(struct kolo__device *device, void *memory);
kolo_status kolo__cuda_host_alloc(struct kolo__device *device, size_t bytes, void **memory);
void kolo__cuda_host_free(struct kolo__device *device, void *memory);
kolo_status kolo__cuda_host_register(struct kolo__device *device, void *memory, size_t bytes);
void kolo__cuda_host_unregister(struct kolo__device *device, void *memory);
kolo_status kolo__cuda_copy(struct kolo__device *device, void *to, const void *from, size_t bytes,
                            kolo__device_stream stream);
kolo_status kolo__cuda_zero(struct kolo__device *device, void *memory, size_t bytes,
                            kolo__device_stream stream);
kolo_status kolo__cuda_share(struct kolo__device *device, const void *memory,
                             struct kolo__device_handle *handle);
kolo_status kolo__cuda_map(struct kolo__device *device, const struct kolo__device_handle *handle,
                           void **memory);
void kolo__cuda_unmap(struct kolo__device *device, void *memory,
                      const struct kolo__device_handle *handle);
kolo_status kolo__cuda_dma_buf(struct kolo__device *device, const void *memory, size_t bytes,
                               int *fd, uint64_t *offset);
bool kolo__cuda_extent(const void *memory, struct kolo__device_extent *extent);
kolo_status kolo__cuda_flush_writes(struct kolo__device *device);

#endif
