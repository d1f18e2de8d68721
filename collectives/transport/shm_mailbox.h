/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a rank owns of the shared heap for one communicator, and who writes what in it:
 *
 *   | identity | asleep | arrivals | record 0 | record 1 |        owner; lines of 128 bytes
 *   | detached[0] detached[1] ...             |                   rank i writes detached[i]
 *   | head, tail of the ring from rank 0 | ... from rank 1 | ...  owner: heads; rank i: tail i
 *   | SLOT, parity 0 | SLOT, parity 1 |                           owner (read by all)
 *   | windows |                                                   all, as schedules say
 *   | ring from rank 0 | ring from rank 1 | ...                   rank i writes ring i
 *
 * All positions follow from the mailbox's position and the communicator's size. Zero is the valid
 * beginning of everything. Each flag has one writer; none is reset by anybody else, but `asleep` by
 * who ends a nap.
 */
#ifndef KOLO_COLLECTIVES_TRANSPORT_SHM_MAILBOX_H
#define KOLO_COLLECTIVES_TRANSPORT_SHM_MAILBOX_H

#include "collectives/transport/shm.h"

#include <sched.h>
#include <stdatomic.h>

enum {
    KOLO__SHM_LINE_BYTES = 128, /* two cache lines: processors fetch them in pairs */
    KOLO__SHM_SMALL_BYTES = 48,
};

/* What a rank shows in a mapped run. The first 64 bytes are one cache line, all that a small
 * operation moves. */
struct kolo__shm_record {
    _Alignas(KOLO__SHM_LINE_BYTES) _Atomic uint64_t sequence; /* written last */
    uint64_t digest;
    unsigned char small[KOLO__SHM_SMALL_BYTES];
    struct kolo__exposure exposure;
};

struct kolo__shm_mailbox {
    _Alignas(KOLO__SHM_LINE_BYTES) uint64_t magic;
    uint32_t size;
    _Atomic int processor; /* where the owner was last seen running; only a hint */
    cpu_set_t allowed;     /* where it may run; written before the mailbox is shown to anybody */
    /* For peers that try whether they can read this process's memory: a word, and where it is. */
    int32_t process;
    uint64_t probe;
    char probe_word[16];
    /* 0: awake. Else the number of this sleep (shm_sleep.c). */
    _Alignas(KOLO__SHM_LINE_BYTES) _Atomic uint32_t asleep;
    _Alignas(KOLO__SHM_LINE_BYTES) _Atomic uint64_t arrivals;
    struct kolo__shm_record records[2];
    _Alignas(KOLO__SHM_LINE_BYTES) _Atomic uint32_t detached[];
};

/* A byte ring: bytes [head, tail) are in it, at these numbers modulo its size. */
struct kolo__shm_ring {
    _Alignas(KOLO__SHM_LINE_BYTES) _Atomic uint64_t head; /* the receiver writes it */
    _Alignas(KOLO__SHM_LINE_BYTES) _Atomic uint64_t tail; /* the sender writes it */
};

/* Distances from the mailbox's position. */
struct kolo__shm_layout {
    uint64_t rings, slots[2], windows, ring_data, end;
    uint64_t ring_bytes; /* a power of two */
};

struct kolo__shm_layout kolo__shm_layout(uint32_t size, bool across);

/* The mailbox at a position that came from outside; NULL when it is none of rank `owner`. */
struct kolo__shm_mailbox *kolo__shm_mailbox_at(struct kolo__heap *heap, uint64_t position,
                                               uint32_t owner, uint32_t size, bool across);

#endif
