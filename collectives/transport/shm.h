/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages and mapped memory between ranks that share a heap.
 *
 * Each rank owns a mailbox in its share of the heap: flags, an exposure record, SLOT areas, staging
 * windows, and one byte ring for every peer that sends to it. Mailbox positions are exchanged by
 * the caller before kolo__shm_create (they travel with the communicator's set-up).
 */
#ifndef KOLO_COLLECTIVES_TRANSPORT_SHM_H
#define KOLO_COLLECTIVES_TRANSPORT_SHM_H

#include "collectives/transport/heap.h"
#include "collectives/transport/transport.h"

enum { KOLO__SHM_SLOT_BYTES = 32 * 1024 };

/* Half the windows of a rank in a communicator of so many; across: some are on other hosts. */
size_t kolo__shm_window_bytes(uint32_t size, bool across);

/* Reserves this rank's mailbox for a communicator of `size` ranks; *position is what the others
 * need. */
kolo_status kolo__shm_mailbox_create(struct kolo__heap *heap, uint32_t size, bool across,
                                     uint64_t *position);
void kolo__shm_mailbox_free(struct kolo__heap *heap, uint64_t position);

struct kolo__shm_options {
    uint32_t rank, size;       /* in the communicator */
    bool across;               /* as the mailboxes were created */
    struct kolo__heap *heap;   /* borrowed until close */
    const uint64_t *mailboxes; /* size entries, copied; UINT64_MAX: that rank is on another host */
    /* Name prefix for wake-ups (abstract Unix datagram sockets), unique to job, generation and
     * communicator, the same on all ranks; up to 80 bytes. */
    const char *doorbell;
    const char *const *hosts; /* size host names for messages; may be NULL; borrowed until close */
};

/* Whether buffers outside the heap are read where they are. For tests; set before kolo__shm_create.
 */
enum kolo__cross_reads {
    KOLO__CROSS_READS_WHERE_FASTER,
    KOLO__CROSS_READS_WHERE_PERMITTED,
    KOLO__CROSS_READS_NEVER,
};
extern enum kolo__cross_reads kolo__shm_cross_reads;

/* mapping (may be NULL on request): for mapped algorithms, among the ranks that have a mailbox. It
 * lives as long as the transport. The mailbox passes to the transport
 * (freed in close, or on failure). */
kolo_status kolo__shm_create(const struct kolo__shm_options *options,
                             struct kolo__transport **transport, struct kolo__mapping **mapping);

#endif
