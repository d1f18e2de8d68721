/* SPDX-License-Identifier: Apache-2.0 */
/* Rings in registered memory as pipes (rdma_transport.h has the drawing). */
#include "base/assert.h"
#include "base/status.h"
#include "collectives/transport/rdma_transport.h"
#include "collectives/transport/tcp.h"

#include <string.h>

/* The next bytes, as pieces of the parts, where they lie. Returns how many pieces. */
static int cut(struct kolo__rdma_cursor *cursor, size_t bytes,
               struct iovec pieces[KOLO__PIPE_PARTS_MAX])
{
    int count = 0;
    while (bytes > 0) {
        KOLO__ASSERT(cursor->part < cursor->count);
        const struct iovec *part = &cursor->parts[cursor->part];
        size_t now = kolo__rdma_least(part->iov_len - cursor->done, bytes);
        if (now > 0)
            pieces[count++] = (struct iovec){
                .iov_base = (unsigned char *)part->iov_base + cursor->done, .iov_len = now};
        cursor->done += now;
        bytes -= now;
        if (cursor->done == part->iov_len) {
            cursor->part++;
            cursor->done = 0;
        }
    }
    return count;
}

/* A whole piece or nothing, so that what is written follows from what is sent, not from when the
 * receiver reads. A place in the stage is free again when the receiver has read it: then it came,
 * and if the card sends its packets again because their confirmation was lost, the receiver's card
 * drops them, whatever they hold by then. */
static size_t room_for(const struct kolo__rdma_peer *peer, size_t left)
{
    size_t to_end = KOLO__RDMA_RING_BYTES - peer->out_tail % KOLO__RDMA_RING_BYTES;
    size_t unread = peer->out_tail - peer->out_head;
    size_t bytes = kolo__rdma_least(kolo__rdma_least(left, to_end), KOLO__RDMA_PIECE_BYTES);
    bool fits = kolo__rdma_may_write(&peer->rails[0]) && bytes <= KOLO__RDMA_RING_BYTES - unread;
    return fits ? bytes : 0;
}

size_t kolo__rdma_next_piece(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer, size_t left)
{
    size_t bytes = room_for(peer, left);
    if (bytes == 0 && kolo__rdma_take_completions(rdma))
        bytes = room_for(peer, left);
    return bytes;
}

uint64_t kolo__rdma_writes_of(uint64_t position, uint64_t bytes)
{
    uint64_t writes = 0;
    while (bytes > 0) {
        size_t piece = kolo__rdma_least(
            kolo__rdma_least(bytes, KOLO__RDMA_RING_BYTES - position % KOLO__RDMA_RING_BYTES),
            KOLO__RDMA_PIECE_BYTES);
        position += piece;
        bytes -= piece;
        writes++;
    }
    return writes;
}

kolo_status kolo__rdma_write_piece(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer,
                                   struct kolo__rdma_cursor *cursor, size_t bytes,
                                   const struct kolo__rdma_block *block, uint32_t lent)
{
    struct iovec pieces[KOLO__PIPE_PARTS_MAX];
    size_t offset = peer->out_tail % KOLO__RDMA_RING_BYTES;
    struct kolo__rdma_rail *rail = &peer->rails[0];
    struct kolo__rdma_write write = {
        .parts = pieces,
        .part_count = cut(cursor, bytes, pieces),
        .in_line = bytes <= rail->inline_bytes,
        .region = block != NULL ? block->regions[0] : peer->region,
        .remote_address = peer->their_ring + offset,
        .remote_key = peer->their_key,
        .immediate = kolo__rdma_immediate(KOLO__RDMA_SAID_RING, (uint32_t)bytes)};
    if (!write.in_line && block == NULL) {
        unsigned char *stage = peer->memory + KOLO__RDMA_RING_BYTES + offset, *to = stage;
        for (int i = 0; i < write.part_count; i++) {
            memcpy(to, pieces[i].iov_base, pieces[i].iov_len);
            to += pieces[i].iov_len;
        }
        pieces[0] = (struct iovec){.iov_base = stage, .iov_len = bytes};
        write.part_count = 1;
    }
    kolo_status status = kolo__rdma_post(rdma, peer, rail, &write, lent);
    if (status != KOLO_OK)
        return status;
    peer->out_tail += bytes;
    rail->writes_under_way++;
    rdma->counts.data_writes++;
    rdma->counts.data_bytes += bytes;
    rdma->counts.inline_writes += write.in_line;
    return KOLO_OK;
}

static kolo_status write_ring(struct kolo__stream *stream, uint32_t index,
                              const struct iovec *parts, int part_count, size_t *moved)
{
    struct kolo__rdma *rdma = (struct kolo__rdma *)(void *)stream;
    struct kolo__rdma_peer *peer = &rdma->peers[index];
    struct kolo__rdma_cursor cursor = {.parts = parts, .count = part_count};
    kolo_status status = KOLO_OK;
    size_t left = 0;
    *moved = 0;
    if (kolo__rdma_has_left(rdma, index))
        return kolo__rdma_ended(rdma, index);
    if (peer->failure != KOLO_OK)
        return kolo__rdma_failure(peer);
    if (peer->state != KOLO__RDMA_ESTABLISHED)
        return KOLO_OK;
    if (kolo__rdma_is_long(stream, stream->peers[index].sends.first))
        return kolo__rdma_write_long(rdma, index, parts, moved);
    for (int i = 0; i < part_count; i++)
        left += parts[i].iov_len;
    while (left > 0 && status == KOLO_OK) {
        size_t bytes = kolo__rdma_next_piece(rdma, peer, left);
        peer->blocked = bytes == 0;
        if (peer->blocked)
            break;
        status = kolo__rdma_write_piece(rdma, peer, &cursor, bytes, NULL, UINT32_MAX);
        *moved += bytes;
        left -= bytes;
    }
    return status;
}

/* ---- in ----------------------------------------------------------------------------------- */

/* Where bytes for this place, of the payload of the first recv or read ahead, go if they come by
 * the ring: those of a GPU's memory into the host's. NULL: there is none yet. */
static unsigned char *by_ring(struct kolo__post *post, unsigned char *to)
{
    uintptr_t place = (uintptr_t)to - (uintptr_t)post->data;
    if (!post->on_gpu || place >= post->bytes)
        return to;
    post->wants_instead = true;
    return post->instead != NULL ? post->instead + place : NULL;
}

/* The next bytes that have come, up to so many: 0, none. What came straight is where it belongs. */
static size_t read_some(struct kolo__rdma *rdma, uint32_t index, unsigned char *to, size_t bytes)
{
    struct kolo__rdma_peer *peer = &rdma->peers[index];
    struct kolo__rdma_offer *straight = kolo__rdma_next_straight(peer);
    uint64_t until = straight != NULL ? straight->position : peer->in_tail;
    if (peer->in_head == until) {
        if (straight == NULL)
            return 0;
        bytes = kolo__rdma_least(bytes, kolo__rdma_straight_bytes(peer, straight));
        KOLO__ASSERT(to == straight->data + straight->taken || bytes == 0);
        straight->taken += bytes;
        return bytes;
    }
    size_t offset = peer->in_head % KOLO__RDMA_RING_BYTES;
    bytes = kolo__rdma_least(kolo__rdma_least(bytes, until - peer->in_head),
                             KOLO__RDMA_RING_BYTES - offset);
    to = by_ring(rdma->stream.peers[index].recvs.first, to);
    if (to == NULL)
        return 0;
    memcpy(to, peer->memory + offset, bytes);
    peer->in_head += bytes;
    peer->bytes_owed += (uint32_t)bytes;
    kolo__rdma_return_credit(rdma, peer, 0);
    return bytes;
}

static kolo_status read_ring(struct kolo__stream *stream, uint32_t index, const struct iovec *parts,
                             int part_count, size_t *moved)
{
    struct kolo__rdma *rdma = (struct kolo__rdma *)(void *)stream;
    struct kolo__rdma_peer *peer = &rdma->peers[index];
    *moved = 0;
    if (peer->unoffered != NULL)
        kolo__rdma_make_offers(rdma, index);
    for (int i = 0; i < part_count; i++) {
        size_t done = 0, bytes = 1;
        for (; done < parts[i].iov_len && bytes > 0; done += bytes)
            bytes = read_some(rdma, index, (unsigned char *)parts[i].iov_base + done,
                              parts[i].iov_len - done);
        *moved += done;
        if (done < parts[i].iov_len)
            break;
    }
    if (*moved > 0)
        return KOLO_OK;
    /* What it wrote before had come before it closed, and was looked for since (progress). */
    if (kolo__rdma_has_left(rdma, index))
        return kolo__rdma_ended(rdma, index);
    return peer->failure != KOLO_OK ? kolo__rdma_failure(peer) : KOLO_OK;
}

const struct kolo__pipe_ops kolo__rdma_ring_ops = {
    .write = write_ring,
    .read = read_ring,
    .read_ahead_bytes = KOLO__MESSAGE_HEADER_BYTES,
    .stop = kolo__rdma_stop,
};

static bool may_read(struct kolo__rdma_peer *peer)
{
    const struct kolo__rdma_offer *straight = kolo__rdma_next_straight(peer);
    return straight != NULL && straight->position == peer->in_head
               ? kolo__rdma_straight_bytes(peer, straight) > 0
               : peer->in_head != peer->in_tail;
}

bool kolo__rdma_rings_ready(const struct kolo__rdma *rdma)
{
    for (uint32_t i = 0; i < rdma->stream.active_count; i++) {
        uint32_t index = rdma->stream.active[i];
        const struct kolo__stream_peer *pending = &rdma->stream.peers[index];
        struct kolo__rdma_peer *peer = &rdma->peers[index];
        if (peer->failure != KOLO_OK)
            return true;
        if (peer->state != KOLO__RDMA_ESTABLISHED)
            continue;
        if (kolo__tcp_hangup(rdma->tcp, index) ||
            (pending->recvs.first != NULL && may_read(peer)) ||
            (pending->sends.first != NULL && !peer->blocked))
            return true;
    }
    return false;
}
