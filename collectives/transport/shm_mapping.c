/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flags and records of mapped algorithms. A flag only grows, and has one writer, so waiting is a
 * loop of loads that a peer's cache line satisfies.
 */
#include "collectives/transport/shm_transport.h"

#include <stddef.h>

static void expose(struct kolo__mapping *mapping, unsigned parity,
                   const struct kolo__exposure *exposure, uint64_t digest)
{
    struct kolo__shm *shm = kolo__shm_of(mapping);
    struct kolo__shm_record *record = &shm->mailbox->records[parity];
    record->digest = digest;
    record->exposure = *exposure;
    atomic_store(&record->sequence, exposure->signature.sequence);
    for (uint32_t peer = 0; peer < shm->stream.transport.size; peer++)
        if (peer != shm->stream.transport.rank)
            kolo__shm_wake(shm, peer);
}

static bool peer_exposed(struct kolo__mapping *mapping, uint32_t peer, unsigned parity,
                         uint64_t sequence, uint64_t *digest)
{
    struct kolo__shm_peer *known = &kolo__shm_of(mapping)->peers[peer];
    const struct kolo__shm_record *record = &known->mailbox->records[parity];
    known->exposed[parity] = atomic_load_explicit(&record->sequence, memory_order_acquire);
    if (known->exposed[parity] != sequence)
        return false; /* the rest may be about to be written */
    *digest = record->digest;
    return true;
}

static const struct kolo__exposure *peer_exposure(struct kolo__mapping *mapping, uint32_t peer,
                                                  unsigned parity)
{
    return &kolo__shm_of(mapping)->peers[peer].mailbox->records[parity].exposure;
}

static void arrive(struct kolo__mapping *mapping)
{
    struct kolo__shm *shm = kolo__shm_of(mapping);
    uint32_t size = shm->stream.transport.size, rank = shm->stream.transport.rank;
    shm->arrived_upto = 0;
    atomic_store(&shm->mailbox->arrivals, ++shm->arrivals);
    /* Sleepers wait for the last to arrive, so only the last wakes them. Of two that arrive at the
     * same moment, at least one sees both: stores and loads are in one total order. */
    for (uint32_t peer = 0; peer < size; peer++) {
        struct kolo__shm_peer *known = &shm->peers[peer];
        if (peer == rank || known->arrivals >= shm->arrivals)
            continue;
        known->arrivals = atomic_load(&known->mailbox->arrivals);
        if (known->arrivals < shm->arrivals)
            return;
    }
    for (uint32_t peer = 0; peer < size; peer++)
        if (peer != rank)
            kolo__shm_wake(shm, peer);
}

static int missing(struct kolo__mapping *mapping)
{
    struct kolo__shm *shm = kolo__shm_of(mapping);
    for (; shm->arrived_upto < shm->stream.transport.size; shm->arrived_upto++) {
        struct kolo__shm_peer *known = &shm->peers[shm->arrived_upto];
        if (shm->arrived_upto == shm->stream.transport.rank || known->arrivals >= shm->arrivals)
            continue;
        known->arrivals = atomic_load_explicit(&known->mailbox->arrivals, memory_order_acquire);
        if (known->arrivals < shm->arrivals)
            return (int)shm->arrived_upto;
    }
    return -1;
}

static bool arrived(struct kolo__mapping *mapping)
{
    return missing(mapping) < 0;
}

static unsigned char *address(struct kolo__mapping *mapping, uint64_t position, size_t bytes)
{
    return kolo__heap_address(kolo__shm_of(mapping)->heap, position, bytes);
}

static uint64_t position(struct kolo__mapping *mapping, const void *pointer, size_t bytes)
{
    return kolo__heap_position(kolo__shm_of(mapping)->heap, pointer, bytes);
}

static const struct kolo__mapping_ops mapping_ops = {
    .expose = expose,
    .peer_exposed = peer_exposed,
    .peer_exposure = peer_exposure,
    .arrive = arrive,
    .arrived = arrived,
    .missing = missing,
    .address = address,
    .position = position,
    .cross_read = kolo__shm_cross_read,
};

void kolo__shm_mapping_init(struct kolo__shm *shm, const uint64_t *mailboxes)
{
    uint32_t size = shm->stream.transport.size;
    uint64_t *slots = shm->slot_positions, *small = slots + 2 * size;
    for (uint32_t parity = 0; parity < 2; parity++)
        for (uint32_t rank = 0; rank < size; rank++) {
            slots[parity * size + rank] = mailboxes[rank] + shm->layout.slots[parity];
            small[parity * size + rank] =
                mailboxes[rank] + offsetof(struct kolo__shm_mailbox, records) +
                parity * sizeof(struct kolo__shm_record) + offsetof(struct kolo__shm_record, small);
        }
    shm->mapping = (struct kolo__mapping){
        .ops = &mapping_ops,
        .slot_position = {slots, slots + size},
        .small_position = {small, small + size},
        .windows = shm->position + shm->layout.windows,
        .slot_bytes = KOLO__SHM_SLOT_BYTES,
        .small_bytes = KOLO__SHM_SMALL_BYTES,
        .window_bytes = kolo__shm_window_bytes(size),
    };
    kolo__shm_cross_read_probe(shm);
}

void kolo__shm_mapping_withdraw(struct kolo__shm *shm)
{
    for (unsigned parity = 0; parity < 2; parity++)
        atomic_store(&shm->mailbox->records[parity].sequence, 0);
}

bool kolo__shm_mapping_news(struct kolo__shm *shm)
{
    bool news = false;
    for (uint32_t peer = 0; peer < shm->stream.transport.size; peer++) {
        struct kolo__shm_peer *known = &shm->peers[peer];
        uint64_t arrivals = atomic_load(&known->mailbox->arrivals);
        if (peer == shm->stream.transport.rank)
            continue;
        news |= arrivals != known->arrivals;
        known->arrivals = arrivals;
        for (unsigned parity = 0; parity < 2; parity++) {
            uint64_t exposed = atomic_load(&known->mailbox->records[parity].sequence);
            news |= exposed != known->exposed[parity];
            known->exposed[parity] = exposed;
        }
    }
    return news;
}
