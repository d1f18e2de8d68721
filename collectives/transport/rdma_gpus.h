/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of GPUs that network cards reach: an allocation is registered whole, by its dma-buf, with
 * all devices of a transport when a message is first in it.
 *
 * Nobody tells when such memory is freed, and another allocation may get its address. So each
 * message asks the driver for the number of the allocation that it lies in, which is never used
 * again, and only the registration of that very number counts. One that is left behind holds pages
 * that are nobody's: until the next new one, when all are looked at, or the transport's end.
 *
 * For one thread at a time.
 */
#ifndef KOLO_COLLECTIVES_TRANSPORT_RDMA_GPUS_H
#define KOLO_COLLECTIVES_TRANSPORT_RDMA_GPUS_H

#include "collectives/transport/rdma_memory.h"

struct kolo__rdma_gpus;

/* ports: of the devices. Borrows all until close. NULL: no memory. */
struct kolo__rdma_gpus *kolo__rdma_gpus_open(const struct kolo__rdma_module *module,
                                             struct kolo__rdma_device *const *devices,
                                             const struct kolo__rdma_port *const *ports,
                                             uint32_t device_count);
void kolo__rdma_gpus_close(struct kolo__rdma_gpus *gpus);

/* Registers the allocation that [data, +bytes) lies in, if it is not. False: it is none of a GPU
 * whose memory all devices take, or one of them has refused it; the log says so once for each GPU.
 * gpus may be NULL. */
bool kolo__rdma_gpus_find(struct kolo__rdma_gpus *gpus, const void *data, size_t bytes,
                          struct kolo__rdma_block *block);

#endif
