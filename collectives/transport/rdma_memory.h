/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of kolo_alloc that the network cards reach: each block is registered with all devices of a
 * transport when a message is first in it, and stays so until it is freed. Then the registration
 * ends before the pages go: a card that still knew them would write into memory that is nobody's.
 * That is why no other memory is registered: who frees it tells nobody.
 *
 * Thread-safe, for blocks are freed by any thread.
 */
#ifndef KOLO_COLLECTIVES_TRANSPORT_RDMA_MEMORY_H
#define KOLO_COLLECTIVES_TRANSPORT_RDMA_MEMORY_H

#include "collectives/transport/heap.h"
#include "collectives/transport/rdma_module.h"

struct kolo__rdma_memory;

/* By device. */
struct kolo__rdma_block {
    struct kolo__rdma_region *regions[KOLO__RDMA_RAILS_MAX];
    uint32_t keys[KOLO__RDMA_RAILS_MAX];
};

/* Borrows all until close. NULL: no memory. */
struct kolo__rdma_memory *kolo__rdma_memory_open(const struct kolo__rdma_module *module,
                                                 struct kolo__rdma_device *const *devices,
                                                 uint32_t device_count, struct kolo__heap *heap);
void kolo__rdma_memory_close(struct kolo__rdma_memory *memory);

/* Registers the block that [data, +bytes) lies in, if it is not. False: there is none, or it cannot
 * be registered, which is logged once. memory may be NULL. */
bool kolo__rdma_memory_find(struct kolo__rdma_memory *memory, const void *data, size_t bytes,
                            struct kolo__rdma_block *block);

#endif
