/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a mailbox. It ends when nobody can touch it any more, not when its owner is done. */
#include "collectives/transport/shm_transport.h"

#include "base/status.h"

#include <string.h>

static const uint64_t mailbox_magic = 0x31786f626f6c6f6b; /* "kolobox1" */

/* What all rings of a mailbox may take together, and a single one at least and at most. */
static const uint64_t rings_bytes = (uint64_t)2 << 20;
static const uint64_t ring_bytes_minimum = (uint64_t)8 << 10;
static const uint64_t ring_bytes_maximum = (uint64_t)256 << 10;

static uint64_t page(uint64_t bytes)
{
    return (bytes + 4095) / 4096 * 4096;
}

/* Both windows, and what is read from them, stay in a second-level cache. Reduce_scatter and
 * alltoall cut them into a piece for each rank, which should be worth a copy. Across hosts a window
 * is a round: a part of it is a message to each host, and costs a system call and a wait there. */
size_t kolo__shm_window_bytes(uint32_t size, bool across)
{
    size_t bytes = (size_t)size << 14;
    if (across)
        return 1024 * 1024;
    return bytes < 256 * 1024 ? 256 * 1024 : bytes > 1024 * 1024 ? 1024 * 1024 : bytes;
}

struct kolo__shm_layout kolo__shm_layout(uint32_t size, bool across)
{
    struct kolo__shm_layout layout = {.ring_bytes = ring_bytes_maximum};
    while (layout.ring_bytes > ring_bytes_minimum && layout.ring_bytes * size > rings_bytes)
        layout.ring_bytes /= 2;
    uint64_t flags = sizeof(struct kolo__shm_mailbox) + size * sizeof(uint32_t);
    layout.rings = (flags + KOLO__SHM_LINE_BYTES - 1) / KOLO__SHM_LINE_BYTES * KOLO__SHM_LINE_BYTES;
    layout.slots[0] = page(layout.rings + size * sizeof(struct kolo__shm_ring));
    layout.slots[1] = layout.slots[0] + KOLO__SHM_SLOT_BYTES;
    layout.windows = layout.slots[1] + KOLO__SHM_SLOT_BYTES;
    layout.ring_data = layout.windows + 2 * kolo__shm_window_bytes(size, across);
    layout.end = layout.ring_data + size * layout.ring_bytes;
    return layout;
}

kolo_status kolo__shm_mailbox_create(struct kolo__heap *heap, uint32_t size, bool across,
                                     uint64_t *position)
{
    void *memory;
    struct kolo__shm_layout layout = kolo__shm_layout(size, across);
    kolo_status status = kolo__heap_alloc(heap, layout.end, 4096, &memory);
    if (status != KOLO_OK)
        return status;
    struct kolo__shm_mailbox *mailbox = memory;
    mailbox->magic = mailbox_magic;
    mailbox->size = size;
    /* Fails only where there are more processors than a cpu_set_t has: none is said to be allowed.
     */
    sched_getaffinity(0, sizeof mailbox->allowed, &mailbox->allowed);
    kolo__shm_cross_read_offer(mailbox);
    *position = kolo__heap_position(heap, memory, layout.end);
    return KOLO_OK;
}

/* Every rank has said that it will not touch the mailbox again. A rank that died never says so: its
 * peers' mailboxes then stay until their process ends. */
static bool all_detached(const void *memory)
{
    const struct kolo__shm_mailbox *mailbox = memory;
    for (uint32_t rank = 0; rank < mailbox->size; rank++)
        if (atomic_load_explicit(&mailbox->detached[rank], memory_order_acquire) == 0)
            return false;
    return true;
}

void kolo__shm_mailbox_free(struct kolo__heap *heap, uint64_t position)
{
    if (position != UINT64_MAX)
        kolo__heap_free_later(heap, kolo__heap_address(heap, position, 1), all_detached);
}

struct kolo__shm_mailbox *kolo__shm_mailbox_at(struct kolo__heap *heap, uint64_t position,
                                               uint32_t owner, uint32_t size, bool across)
{
    struct kolo__shm_layout layout = kolo__shm_layout(size, across);
    void *memory = kolo__heap_address(heap, position, layout.end);
    struct kolo__shm_mailbox *mailbox = memory;
    if (mailbox == NULL || position % 4096 != 0 || mailbox->magic != mailbox_magic ||
        mailbox->size != size) {
        kolo__error(KOLO_ERR_INVALID, "no mailbox of rank %u of %u at position %llu of the heap",
                    owner, size, (unsigned long long)position);
        return NULL;
    }
    return mailbox;
}
