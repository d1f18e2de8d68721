/* SPDX-License-Identifier: Apache-2.0 */
/* Gives a block of the heap its pages, so that nobody who touches it later can fail. */
#ifndef KOLO_COLLECTIVES_TRANSPORT_HEAP_RESERVE_H
#define KOLO_COLLECTIVES_TRANSPORT_HEAP_RESERVE_H

#include <kolo/kolo.h>
#include <stdint.h>

struct kolo__heap_block {
    int fd;                /* the memfd */
    unsigned char *memory; /* where this process maps it, writable */
    uint64_t position, bytes;
    /* Bytes found to be left when a small block was reserved, for the next ones; the share's owner
     * keeps it, 0 at first. */
    uint64_t *credit;
};

/* The pages of a block are empty before, and zero after. KOLO_ERR_MEMORY: not all of them are to be
 * had; some may be reserved then, which the caller punches out. KOLO_ERR_TIMEOUT: another process
 * of this heap has been reserving for longer than it should take, and patience_ms. */
kolo_status kolo__heap_reserve(const struct kolo__heap_block *block, uint64_t patience_ms);

#endif
