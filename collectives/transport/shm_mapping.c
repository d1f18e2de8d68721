/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flags and records of mapped algorithms. A flag only grows, and has one writer, so waiting is a
 * loop of loads that a peer's cache line satisfies.
 */
#include "collectives/transport/shm_transport.h"

#include <sched.h>
#include <stddef.h>

/* Where this rank runs, for peers that wait for it. Read in user space (rseq): a few cycles. */
static int tell_processor(struct kolo__shm *shm)
{
    int processor = sched_getcpu();
    if (processor != shm->processor) {
        shm->processor = processor;
        atomic_store_explicit(&shm->mailbox->processor, processor, memory_order_relaxed);
    }
    return processor;
}

static bool shares_processor(struct kolo__mapping *mapping, uint32_t peer)
{
    struct kolo__shm *shm = kolo__shm_of(mapping);
    return atomic_load_explicit(&shm->peers[peer].mailbox->processor, memory_order_relaxed) ==
           tell_processor(shm);
}

static void expose(struct kolo__mapping *mapping, unsigned parity,
                   const struct kolo__exposure *exposure, uint64_t digest)
{
    struct kolo__shm *shm = kolo__shm_of(mapping);
    struct kolo__shm_record *record = &shm->mailbox->records[parity];
    if (mapping->crowded)
        tell_processor(shm);
    record->digest = digest;
    record->exposure = *exposure;
    atomic_store_explicit(&record->sequence, exposure->signature.sequence, memory_order_release);
    shm->arriving = false;
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
    atomic_store_explicit(&shm->mailbox->arrivals, ++shm->arrivals, memory_order_release);
    shm->arriving = true;
}

static bool all_arrived(struct kolo__shm *shm)
{
    for (uint32_t peer = 0; peer < shm->stream.transport.size; peer++) {
        struct kolo__shm_peer *known = &shm->peers[peer];
        if (!kolo__shm_is_peer(shm, peer) || known->arrivals >= shm->arrivals)
            continue;
        known->arrivals = atomic_load(&known->mailbox->arrivals);
        if (known->arrivals < shm->arrivals)
            return false;
    }
    return true;
}

/* The barrier stands between the flag that was written and the peers' `asleep` (shm_sleep.c). Who
 * sleeps at a later fence waits for the last to arrive, so only the last wakes them: of two that
 * arrive at the same moment, at least one sees both behind the barrier. */
static void announce(struct kolo__mapping *mapping)
{
    struct kolo__shm *shm = kolo__shm_of(mapping);
    atomic_thread_fence(memory_order_seq_cst);
    if (shm->arriving && !all_arrived(shm))
        return;
    for (uint32_t peer = 0; peer < shm->stream.transport.size; peer++)
        if (kolo__shm_is_peer(shm, peer))
            kolo__shm_wake(shm, peer);
}

static bool peer_arrived(struct kolo__mapping *mapping, uint32_t peer)
{
    struct kolo__shm *shm = kolo__shm_of(mapping);
    struct kolo__shm_peer *known = &shm->peers[peer];
    if (known->arrivals < shm->arrivals)
        known->arrivals = atomic_load_explicit(&known->mailbox->arrivals, memory_order_acquire);
    return known->arrivals >= shm->arrivals;
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
    .announce = announce,
    .peer_arrived = peer_arrived,
    .shares_processor = shares_processor,
    .address = address,
    .position = position,
    .cross_read = kolo__shm_cross_read,
};

/* Whether more ranks than processors are in sight: of all together, or of those that may run just
 * where this one may. */
static bool is_crowded(const struct kolo__shm *shm)
{
    uint32_t size = shm->stream.transport.size, here = 0;
    int alike = 0, most = CPU_COUNT(&shm->mailbox->allowed);
    cpu_set_t all;
    CPU_ZERO(&all);
    for (uint32_t rank = 0; rank < size; rank++) {
        if (!shm->shares[rank])
            continue;
        here++;
        const cpu_set_t *allowed = &shm->peers[rank].mailbox->allowed;
        CPU_OR(&all, &all, allowed);
        alike += CPU_EQUAL(allowed, &shm->mailbox->allowed) != 0;
    }
    return most > 0 && (alike > most || here > (uint32_t)CPU_COUNT(&all));
}

void kolo__shm_mapping_init(struct kolo__shm *shm, const uint64_t *mailboxes, bool across)
{
    uint32_t size = shm->stream.transport.size;
    uint64_t *slots = shm->slot_positions, *small = slots + 2 * size;
    for (uint32_t parity = 0; parity < 2; parity++)
        for (uint32_t rank = 0; rank < size; rank++) {
            if (!shm->shares[rank])
                continue;
            slots[parity * size + rank] = mailboxes[rank] + shm->layout.slots[parity];
            small[parity * size + rank] =
                mailboxes[rank] + offsetof(struct kolo__shm_mailbox, records) +
                parity * sizeof(struct kolo__shm_record) + offsetof(struct kolo__shm_record, small);
        }
    shm->mapping = (struct kolo__mapping){
        .ops = &mapping_ops,
        .shares = shm->shares,
        .slot_position = {slots, slots + size},
        .small_position = {small, small + size},
        .windows = shm->position + shm->layout.windows,
        .slot_bytes = KOLO__SHM_SLOT_BYTES,
        .small_bytes = KOLO__SHM_SMALL_BYTES,
        .window_bytes = kolo__shm_window_bytes(size, across),
        .crowded = is_crowded(shm),
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
        if (!kolo__shm_is_peer(shm, peer))
            continue;
        uint64_t arrivals = atomic_load(&known->mailbox->arrivals);
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
