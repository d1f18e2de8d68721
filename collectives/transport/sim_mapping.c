/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulation's mapped memory. A share, at position rank * share_bytes:
 *
 *   | small, parity 0 | 1 | SLOT, parity 0 | 1 | windows | kolo__sim_alloc ... |
 *
 * Each rank keeps one exposure a parity, overwritten by the next: the strictest reading of the
 * contract.
 */
#include "collectives/transport/sim_world.h"

#include "base/assert.h"

#include <string.h>

enum { SMALL_BYTES = 64 };

static size_t line(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static struct kolo__sim_rank *rank_of(struct kolo__mapping *mapping)
{
    return (struct kolo__sim_rank *)(void *)((unsigned char *)mapping -
                                             offsetof(struct kolo__sim_rank, mapping));
}

/* Whoever touches memory of a rank on another host has a bug. */
static struct kolo__sim_rank *peer_of(const struct kolo__sim_rank *rank, uint32_t peer)
{
    KOLO__ASSERT(rank->mapping.shares[peer]);
    return &rank->sim->ranks[peer];
}

static void expose(struct kolo__mapping *mapping, unsigned parity,
                   const struct kolo__exposure *exposure, uint64_t digest)
{
    struct kolo__sim_rank *rank = rank_of(mapping);
    rank->exposures[parity] = *exposure;
    rank->digests[parity] = digest;
    kolo__sim_note(rank->sim, exposure->signature.sequence << 8 | rank->transport.rank);
}

static bool peer_exposed(struct kolo__mapping *mapping, uint32_t peer, unsigned parity,
                         uint64_t sequence, uint64_t *digest)
{
    struct kolo__sim_rank *rank = rank_of(mapping);
    const struct kolo__sim_rank *other = peer_of(rank, peer);
    struct kolo__sim_sight *sight = &rank->sights[peer];
    if (other->exposures[parity].signature.sequence != sequence)
        return false;
    if (sight->exposed_sequence != sequence) {
        sight->exposed_sequence = sequence;
        sight->exposed_ns = kolo__sim_later(rank->sim);
    }
    *digest = other->digests[parity];
    return rank->sim->now_ns >= sight->exposed_ns;
}

static const struct kolo__exposure *peer_exposure(struct kolo__mapping *mapping, uint32_t peer,
                                                  unsigned parity)
{
    return &peer_of(rank_of(mapping), peer)->exposures[parity];
}

static void arrive(struct kolo__mapping *mapping)
{
    struct kolo__sim_rank *rank = rank_of(mapping);
    rank->arrivals++;
    kolo__sim_note(rank->sim, rank->arrivals << 8 | rank->transport.rank);
}

static void announce(struct kolo__mapping *mapping)
{
    (void)mapping; /* nobody sleeps */
}

static bool peer_arrived(struct kolo__mapping *mapping, uint32_t peer)
{
    struct kolo__sim_rank *rank = rank_of(mapping);
    const struct kolo__sim *sim = rank->sim;
    const struct kolo__sim_rank *other = peer_of(rank, peer);
    struct kolo__sim_sight *sight = &rank->sights[peer];
    if (sight->arrivals >= rank->arrivals)
        return true;
    if (sight->arrivals_ns == 0 && other->arrivals > sight->arrivals) {
        sight->arrivals_next = other->arrivals;
        sight->arrivals_ns = kolo__sim_later(rank->sim);
    }
    if (sight->arrivals_ns != 0 && sim->now_ns >= sight->arrivals_ns) {
        sight->arrivals = sight->arrivals_next;
        sight->arrivals_ns = 0;
    }
    return sight->arrivals >= rank->arrivals;
}

static bool shares_processor(struct kolo__mapping *mapping, uint32_t peer)
{
    (void)mapping;
    (void)peer;
    return false;
}

static unsigned char *address(struct kolo__mapping *mapping, uint64_t position, size_t bytes)
{
    const struct kolo__sim *sim = rank_of(mapping)->sim;
    uint64_t end = (uint64_t)sim->options.share_bytes * sim->options.size;
    if (position > end || bytes > end - position)
        return NULL;
    peer_of(rank_of(mapping), (uint32_t)(position / sim->options.share_bytes));
    return sim->heap + position;
}

static uint64_t position(struct kolo__mapping *mapping, const void *pointer, size_t bytes)
{
    const struct kolo__sim *sim = rank_of(mapping)->sim;
    uintptr_t first = (uintptr_t)sim->heap;
    uintptr_t end = first + (uintptr_t)sim->options.share_bytes * sim->options.size;
    uintptr_t at = (uintptr_t)pointer;
    if (at < first || at > end || bytes > end - at)
        return UINT64_MAX;
    return at - first;
}

static kolo_status cross_read(struct kolo__mapping *mapping, uint32_t peer, uint64_t address,
                              void *to, size_t bytes, struct kolo__fault *fault)
{
    (void)fault;
    peer_of(rank_of(mapping), peer);
    memcpy(to, (const void *)(uintptr_t)address, bytes);
    mapping->cross_read_bytes += bytes;
    return KOLO_OK;
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
    .cross_read = cross_read,
};

size_t kolo__sim_reserved_bytes(const struct kolo__sim_options *options)
{
    return 2 * SMALL_BYTES + 2 * line(options->slot_bytes) + line(2 * options->window_bytes);
}

void kolo__sim_mapping_init(struct kolo__sim *sim, uint32_t rank)
{
    const struct kolo__sim_options *options = &sim->options;
    uint32_t size = options->size;
    uint64_t share = (uint64_t)rank * options->share_bytes;
    uint64_t slot = share + 2 * SMALL_BYTES;
    uint64_t window = slot + 2 * line(options->slot_bytes);
    bool *shares = sim->shares + (size_t)rank * size;
    for (uint32_t other = 0; other < size; other++)
        shares[other] =
            options->host_of == NULL || options->host_of[other] == options->host_of[rank];
    KOLO__ASSERT(options->share_bytes % 64 == 0);
    KOLO__ASSERT(options->share_bytes >= kolo__sim_reserved_bytes(options));
    sim->slot_positions[rank] = slot;
    sim->slot_positions[size + rank] = slot + line(options->slot_bytes);
    sim->slot_positions[2 * size + rank] = share;
    sim->slot_positions[3 * size + rank] = share + SMALL_BYTES;
    sim->ranks[rank].share_used = kolo__sim_reserved_bytes(options);
    sim->ranks[rank].mapping = (struct kolo__mapping){
        .ops = &mapping_ops,
        .shares = shares,
        .slot_position = {sim->slot_positions, sim->slot_positions + size},
        .small_position = {sim->slot_positions + 2 * size, sim->slot_positions + 3 * size},
        .small_bytes = SMALL_BYTES,
        .windows = window,
        .slot_bytes = options->slot_bytes,
        .window_bytes = options->window_bytes,
        .wants_cross_reads = options->cross_reads,
        .bounce = sim->ranks[rank].bounce,
        .bounce_bytes = sizeof sim->ranks[rank].bounce,
    };
}

struct kolo__mapping *kolo__sim_mapping(struct kolo__sim *sim, uint32_t rank)
{
    return sim->heap == NULL ? NULL : &sim->ranks[rank].mapping;
}

void *kolo__sim_alloc(struct kolo__sim *sim, uint32_t rank, size_t bytes)
{
    struct kolo__sim_rank *owner = &sim->ranks[rank];
    size_t wanted = line(bytes);
    if (wanted > sim->options.share_bytes - owner->share_used)
        return NULL;
    unsigned char *memory = sim->heap + (size_t)rank * sim->options.share_bytes + owner->share_used;
    owner->share_used += wanted;
    return memory;
}
