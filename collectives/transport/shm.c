/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages between ranks of one host: a byte ring for each ordered pair. How ranks sleep and wake
 * each other is in shm_sleep.c.
 */
#include "collectives/transport/shm.h"

#include "base/assert.h"
#include "base/status.h"
#include "collectives/transport/shm_transport.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A long message is handed over in pieces, so that the other side copies while this one does. */
enum { PIECE_BYTES = 32 * 1024 };

static const struct kolo__transport_ops transport_ops;
static const struct kolo__pipe_ops ring_ops;

static kolo_status attach(struct kolo__shm *shm, const struct kolo__shm_options *options);
static void close_shm(struct kolo__transport *transport);

kolo_status kolo__shm_create(const struct kolo__shm_options *options,
                             struct kolo__transport **transport, struct kolo__mapping **mapping)
{
    struct kolo__shm *shm = calloc(1, sizeof *shm);
    if (shm == NULL) {
        kolo__shm_mailbox_free(options->heap, options->mailboxes[options->rank]);
        return kolo__error(KOLO_ERR_MEMORY, "no memory for a communicator of %u ranks",
                           options->size);
    }
    shm->heap = options->heap;
    shm->position = options->mailboxes[options->rank];
    shm->layout = kolo__shm_layout(options->size, options->across);
    shm->doorbell_fd = -1;
    shm->stream.transport.ops = &transport_ops;
    snprintf(shm->doorbell, sizeof shm->doorbell, "%s", options->doorbell);

    kolo_status status =
        kolo__stream_init(&shm->stream, options->rank, options->size, options->hosts, &ring_ops);
    if (status == KOLO_OK)
        status = attach(shm, options);
    if (status == KOLO_OK)
        status = kolo__shm_open_doorbell(shm);
    if (status != KOLO_OK) {
        close_shm(&shm->stream.transport);
        return status;
    }
    *transport = &shm->stream.transport;
    if (mapping != NULL)
        *mapping = &shm->mapping;
    return KOLO_OK;
}

/* Finds the mailboxes, and in them the rings from and to this rank. */
static kolo_status attach(struct kolo__shm *shm, const struct kolo__shm_options *options)
{
    uint32_t rank = options->rank, size = options->size;
    const struct kolo__shm_layout *layout = &shm->layout;
    shm->peers = calloc(size, sizeof *shm->peers);
    shm->slot_positions = calloc(size, 4 * sizeof *shm->slot_positions);
    shm->shares = calloc(size, sizeof *shm->shares);
    if (shm->peers == NULL || shm->slot_positions == NULL || shm->shares == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for a communicator of %u ranks", size);
    shm->mailbox = kolo__shm_mailbox_at(options->heap, shm->position, rank, size, options->across);
    if (shm->mailbox == NULL)
        return KOLO_ERR_INVALID;

    unsigned char *own = (unsigned char *)shm->mailbox;
    for (uint32_t i = 0; i < size; i++) {
        struct kolo__shm_peer *peer = &shm->peers[i];
        if (options->mailboxes[i] == UINT64_MAX) {
            /* Will never touch the mailbox, so never says that it is done with it. */
            atomic_store_explicit(&shm->mailbox->detached[i], 1, memory_order_release);
            continue;
        }
        shm->shares[i] = true;
        peer->mailbox =
            kolo__shm_mailbox_at(options->heap, options->mailboxes[i], i, size, options->across);
        if (peer->mailbox == NULL)
            return KOLO_ERR_INVALID;
        unsigned char *theirs = (unsigned char *)peer->mailbox;
        peer->out = (struct kolo__shm_ring *)(void *)(theirs + layout->rings) + rank;
        peer->out_data = theirs + layout->ring_data + rank * layout->ring_bytes;
        peer->in = (struct kolo__shm_ring *)(void *)(own + layout->rings) + i;
        peer->in_data = own + layout->ring_data + i * layout->ring_bytes;
    }
    kolo__shm_mapping_init(shm, options->mailboxes, options->across);
    shm->mapped = true;
    return KOLO_OK;
}

static void close_shm(struct kolo__transport *transport)
{
    struct kolo__shm *shm = (struct kolo__shm *)(void *)transport;
    uint32_t size = transport->size, rank = transport->rank;
    kolo__stream_release(&shm->stream);
    if (shm->doorbell_fd >= 0)
        close(shm->doorbell_fd);
    /* The last touch of the peers' mailboxes, and of the own one. */
    for (uint32_t i = 0; shm->peers != NULL && i < size; i++)
        if (shm->peers[i].mailbox != NULL)
            atomic_store_explicit(&shm->peers[i].mailbox->detached[rank], 1, memory_order_release);
    kolo__shm_mailbox_free(shm->heap, shm->position);
    free(shm->mapping.bounce);
    free(shm->peers);
    free(shm->slot_positions);
    free(shm->shares);
    free(shm);
}

/* ---- rings -------------------------------------------------------------------------------- */

/* Bytes to or from a ring at a running number, in at most two pieces because of its end. */
static void copy_in(unsigned char *ring, uint64_t ring_bytes, uint64_t at,
                    const unsigned char *from, size_t bytes)
{
    size_t offset = at & (ring_bytes - 1);
    size_t first = bytes < ring_bytes - offset ? bytes : ring_bytes - offset;
    memcpy(ring + offset, from, first);
    memcpy(ring, from + first, bytes - first);
}

static void copy_out(const unsigned char *ring, uint64_t ring_bytes, uint64_t at, unsigned char *to,
                     size_t bytes)
{
    size_t offset = at & (ring_bytes - 1);
    size_t first = bytes < ring_bytes - offset ? bytes : ring_bytes - offset;
    memcpy(to, ring + offset, first);
    memcpy(to + first, ring, bytes - first);
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static kolo_status write_ring(struct kolo__stream *stream, uint32_t index,
                              const struct iovec *parts, int part_count, size_t *moved)
{
    struct kolo__shm *shm = (struct kolo__shm *)(void *)stream;
    struct kolo__shm_peer *peer = &shm->peers[index];
    KOLO__ASSERT(peer->mailbox != NULL);
    uint64_t ring_bytes = shm->layout.ring_bytes, begin = peer->out_tail, published = begin;
    for (int i = 0; i < part_count; i++) {
        size_t done = 0;
        while (done < parts[i].iov_len) {
            size_t wanted = least(parts[i].iov_len - done, PIECE_BYTES);
            if (ring_bytes - (peer->out_tail - peer->out_head) < wanted)
                peer->out_head = atomic_load_explicit(&peer->out->head, memory_order_acquire);
            size_t bytes = least(ring_bytes - (peer->out_tail - peer->out_head), wanted);
            if (bytes == 0)
                goto full;
            copy_in(peer->out_data, ring_bytes, peer->out_tail,
                    (const unsigned char *)parts[i].iov_base + done, bytes);
            peer->out_tail += bytes;
            done += bytes;
            if (peer->out_tail - published >= PIECE_BYTES) {
                atomic_store_explicit(&peer->out->tail, peer->out_tail, memory_order_release);
                published = peer->out_tail;
            }
        }
    }
full:
    *moved = peer->out_tail - begin;
    if (*moved > 0) {
        atomic_store(&peer->out->tail, peer->out_tail);
        kolo__shm_wake(shm, index);
    }
    return KOLO_OK;
}

static kolo_status read_ring(struct kolo__stream *stream, uint32_t index, const struct iovec *parts,
                             int part_count, size_t *moved)
{
    struct kolo__shm *shm = (struct kolo__shm *)(void *)stream;
    struct kolo__shm_peer *peer = &shm->peers[index];
    KOLO__ASSERT(peer->mailbox != NULL);
    uint64_t ring_bytes = shm->layout.ring_bytes, begin = peer->in_head, published = begin;
    uint64_t tail = atomic_load_explicit(&peer->in->tail, memory_order_acquire);
    for (int i = 0; i < part_count && peer->in_head != tail; i++) {
        size_t done = 0;
        while (done < parts[i].iov_len && peer->in_head != tail) {
            size_t bytes = least(least(parts[i].iov_len - done, PIECE_BYTES), tail - peer->in_head);
            copy_out(peer->in_data, ring_bytes, peer->in_head,
                     (unsigned char *)parts[i].iov_base + done, bytes);
            peer->in_head += bytes;
            done += bytes;
            if (peer->in_head - published >= PIECE_BYTES) {
                atomic_store_explicit(&peer->in->head, peer->in_head, memory_order_release);
                published = peer->in_head;
            }
        }
    }
    *moved = peer->in_head - begin;
    if (*moved > 0) {
        atomic_store(&peer->in->head, peer->in_head);
        /* A sender waits for room only after it has filled the ring. */
        if (atomic_load(&peer->mailbox->asleep) != 0 &&
            atomic_load(&peer->in->tail) - begin >= ring_bytes)
            kolo__shm_wake(shm, index);
    }
    return KOLO_OK;
}

static const struct kolo__pipe_ops ring_ops = {
    .write = write_ring,
    .read = read_ring,
    .read_ahead_bytes = KOLO__MESSAGE_HEADER_BYTES,
    .stop = kolo__pipe_lends_nothing,
};

/* True when a pending post can go on. */
bool kolo__shm_rings_ready(struct kolo__shm *shm)
{
    for (uint32_t i = 0; i < shm->stream.active_count; i++) {
        uint32_t index = shm->stream.active[i];
        const struct kolo__stream_peer *pending = &shm->stream.peers[index];
        const struct kolo__shm_peer *peer = &shm->peers[index];
        if (pending->recvs.first != NULL && atomic_load(&peer->in->tail) != peer->in_head)
            return true;
        if (pending->sends.first != NULL &&
            peer->out_tail - atomic_load(&peer->out->head) < shm->layout.ring_bytes)
            return true;
    }
    return false;
}

static bool progress(struct kolo__transport *transport)
{
    struct kolo__shm *shm = (struct kolo__shm *)(void *)transport;
    if (shm->ring_again_count > 0)
        kolo__shm_wake_again(shm);
    return kolo__stream_progress(&shm->stream);
}

/* Who comes late to an operation that has failed here is not to take this rank for a participant.
 */
static void fail(struct kolo__transport *transport, const struct kolo__fault *fault)
{
    struct kolo__shm *shm = (struct kolo__shm *)(void *)transport;
    if (shm->mapped)
        kolo__shm_mapping_withdraw(shm);
    kolo__stream_fail(transport, fault);
}

static const struct kolo__transport_ops transport_ops = {
    .name = "shm",
    .post_send = kolo__stream_post_send,
    .post_recv = kolo__stream_post_recv,
    .progress = progress,
    .arm = kolo__shm_arm,
    .disarm = kolo__shm_disarm,
    .wait_fd = kolo__shm_wait_fd,
    .nap = kolo__shm_nap,
    .takes_gpu = kolo__transport_takes_no_gpu,
    .fail = fail,
    .close = close_shm,
};
