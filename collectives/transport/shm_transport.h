/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of the shm transport, shared by the files that make it up:
 *
 *   shm.c          the transport: rings as pipes
 *   shm_sleep.c    sleeping and waking
 *   shm_mapping.c  flags and records of mapped algorithms
 *   shm_mailbox.c  the memory of both
 *   shm_cross_read.c  reading peers' private memory, where that is permitted and faster
 */
#ifndef KOLO_COLLECTIVES_TRANSPORT_SHM_TRANSPORT_H
#define KOLO_COLLECTIVES_TRANSPORT_SHM_TRANSPORT_H

#include "collectives/transport/shm_mailbox.h"
#include "collectives/transport/stream.h"

#include <stddef.h>

/* What this rank knows of a peer. */
struct kolo__shm_peer {
    struct kolo__shm_mailbox *mailbox; /* NULL: on another host */
    struct kolo__shm_ring *out, *in;   /* in the peer's mailbox, in this rank's */
    unsigned char *out_data, *in_data;
    uint64_t out_tail, out_head;   /* bytes written; bytes known to be read */
    uint64_t in_head;              /* bytes read */
    uint32_t rung;                 /* the sleep for which the doorbell was rung */
    bool ring_again;               /* the doorbell could not be rung */
    uint64_t arrivals, exposed[2]; /* last seen */
};

struct kolo__shm {
    struct kolo__stream stream; /* first: see stream.h */
    struct kolo__mapping mapping;
    struct kolo__heap *heap; /* borrowed */
    struct kolo__shm_layout layout;
    uint64_t position; /* of the own mailbox, which the transport owns */
    struct kolo__shm_mailbox *mailbox;
    struct kolo__shm_peer *peers;
    uint64_t *slot_positions; /* SLOT of both parities, of all ranks; then the small ones */
    bool *shares;             /* by rank: it has a mailbox in this heap */
    bool mapped;              /* the mapping is ready */
    uint64_t arrivals;        /* of this rank */
    bool arriving;            /* what was published last is an arrival, no exposure */
    int processor;            /* as told in the mailbox */
    char doorbell[88];
    int doorbell_fd;
    uint32_t sleeps;
    uint32_t ring_again_count;
    bool armed;
};

/* Another rank of this host. */
static inline bool kolo__shm_is_peer(const struct kolo__shm *shm, uint32_t rank)
{
    return rank != shm->stream.transport.rank && shm->shares[rank];
}

/* After a store of something the peer may wait for, which was memory_order_seq_cst or has such a
 * fence behind it. */
void kolo__shm_wake(struct kolo__shm *shm, uint32_t peer);

/* Rings once more where it failed. */
void kolo__shm_wake_again(struct kolo__shm *shm);
kolo_status kolo__shm_open_doorbell(struct kolo__shm *shm);
/* Of the transport's operations. */
bool kolo__shm_arm(struct kolo__transport *transport);
void kolo__shm_disarm(struct kolo__transport *transport);
int kolo__shm_wait_fd(struct kolo__transport *transport);
bool kolo__shm_nap(struct kolo__transport *transport, uint64_t most_ns);

/* A pending post can go on. */
bool kolo__shm_rings_ready(struct kolo__shm *shm);

static inline struct kolo__shm *kolo__shm_of(struct kolo__mapping *mapping)
{
    return (struct kolo__shm *)(void *)((unsigned char *)mapping -
                                        offsetof(struct kolo__shm, mapping));
}

/* Tells peers how to try. */
void kolo__shm_cross_read_offer(struct kolo__shm_mailbox *mailbox);
/* Tries, and decides what this rank wants. Takes at most a few hundred microseconds. */
void kolo__shm_cross_read_probe(struct kolo__shm *shm);
kolo_status kolo__shm_cross_read(struct kolo__mapping *mapping, uint32_t peer, uint64_t address,
                                 void *to, size_t bytes, struct kolo__fault *fault);

void kolo__shm_mapping_init(struct kolo__shm *shm, const uint64_t *mailboxes, bool across);
/* Takes back what this rank has exposed. */
void kolo__shm_mapping_withdraw(struct kolo__shm *shm);
/* A peer has arrived or exposed since somebody last looked; counts as a look. */
bool kolo__shm_mapping_news(struct kolo__shm *shm);

#endif
