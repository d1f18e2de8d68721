/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Long messages (rdma_transport.h): what the receiver offers, what the sender makes of it. An
 * offer, little endian:
 *
 *   0 number of the message:u64   8 digest of its signature:u64   16 its bytes:u64
 *  24 address:u64, or 0: nowhere   32 key for each rail:u32
 */
#include "base/assert.h"
#include "base/bytes.h"
#include "base/status.h"
#include "collectives/transport/rdma_transport.h"

#include <string.h>

enum { OFFER_KEYS_AT = 32 };

bool kolo__rdma_is_long(const struct kolo__stream *stream, const struct kolo__post *post)
{
    return !stream->checksum && post->bytes + KOLO__MESSAGE_HEADER_BYTES > KOLO__RDMA_PIECE_BYTES;
}

bool kolo__rdma_reaches(struct kolo__rdma *rdma, const struct kolo__post *post,
                        struct kolo__rdma_block *block)
{
    return post->on_gpu ? kolo__rdma_gpus_find(rdma->gpus, post->data, post->bytes, block)
                        : kolo__rdma_memory_find(rdma->memory, post->data, post->bytes, block);
}

static size_t pieces_of(size_t bytes)
{
    return (bytes + KOLO__RDMA_STRAIGHT_BYTES - 1) / KOLO__RDMA_STRAIGHT_BYTES;
}

uint64_t kolo__rdma_writes_of_message(uint64_t *position, uint64_t payload, bool straight)
{
    const uint64_t header = KOLO__MESSAGE_HEADER_BYTES, begin = *position;
    bool is_long = header + payload > KOLO__RDMA_PIECE_BYTES;
    *position += is_long && straight ? header : header + payload;
    if (!is_long)
        return kolo__rdma_writes_of(begin, header + payload);
    return kolo__rdma_writes_of(begin, header) +
           (straight ? pieces_of(payload) : kolo__rdma_writes_of(begin + header, payload));
}

/* ---- in ----------------------------------------------------------------------------------- */

static struct kolo__rdma_offer *offer_at(struct kolo__rdma_peer *peer, uint32_t index)
{
    return &peer->offers[index % KOLO__RDMA_OFFERS_MAX];
}

void kolo__rdma_note_recv(struct kolo__rdma *rdma, uint32_t index, struct kolo__post *post)
{
    struct kolo__rdma_peer *peer = &rdma->peers[index];
    uint64_t number = peer->recvs++;
    if (peer->unoffered != NULL || !kolo__rdma_is_long(&rdma->stream, post))
        return;
    peer->unoffered = post;
    peer->unoffered_number = number;
    kolo__rdma_make_offers(rdma, index);
}

static bool offer(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer)
{
    const struct kolo__post *post = peer->unoffered;
    struct kolo__rdma_block block;
    bool known = kolo__rdma_reaches(rdma, post, &block);
    size_t slot = (size_t)(peer->offers_end % KOLO__RDMA_OFFERS_MAX) * KOLO__RDMA_OFFER_BYTES;
    unsigned char *text = peer->memory + KOLO__RDMA_OWN_OFFERS_AT + slot;
    memset(text, 0, KOLO__RDMA_OFFER_BYTES);
    kolo__store_u64(text, peer->unoffered_number);
    kolo__store_u64(text + 8, kolo__signature_digest(post->signature));
    kolo__store_u64(text + 16, post->bytes);
    kolo__store_u64(text + 24, known ? (uint64_t)(uintptr_t)post->data : 0);
    for (uint32_t r = 0; known && r < peer->rail_count; r++)
        kolo__store_u32(text + OFFER_KEYS_AT + 4 * r, block.keys[r % rdma->own_count]);

    struct iovec part = {.iov_base = text, .iov_len = KOLO__RDMA_OFFER_BYTES};
    struct kolo__rdma_write write = {.parts = &part,
                                     .part_count = 1,
                                     .in_line = part.iov_len <= peer->rails[0].inline_bytes,
                                     .region = peer->region,
                                     .remote_address = peer->their_offers + slot,
                                     .remote_key = peer->their_key,
                                     .immediate = kolo__rdma_immediate(KOLO__RDMA_SAID_OFFER, 0)};
    if (kolo__rdma_post(rdma, peer, &peer->rails[0], &write, UINT32_MAX) != KOLO_OK)
        return false;
    rdma->counts.offer_writes++;
    *offer_at(peer, peer->offers_end++) = (struct kolo__rdma_offer){
        .number = peer->unoffered_number, .data = known ? post->data : NULL, .bytes = post->bytes};
    return true;
}

/* The recv behind the one that was offered, and so on. */
static void find_unoffered(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer)
{
    struct kolo__post *post = peer->unoffered;
    do {
        post = post->next;
        peer->unoffered_number++;
    } while (post != NULL && !kolo__rdma_is_long(&rdma->stream, post));
    peer->unoffered = post;
}

/* Those whose messages have come, by whichever way. */
static void drop_offers(struct kolo__rdma *rdma, uint32_t index)
{
    struct kolo__rdma_peer *peer = &rdma->peers[index];
    while (peer->offers_first != peer->offers_end &&
           offer_at(peer, peer->offers_first)->number < rdma->stream.peers[index].received)
        peer->offers_first++;
}

void kolo__rdma_make_offers(struct kolo__rdma *rdma, uint32_t index)
{
    struct kolo__rdma_peer *peer = &rdma->peers[index];
    drop_offers(rdma, index);
    while (peer->unoffered != NULL && peer->state == KOLO__RDMA_ESTABLISHED &&
           peer->failure == KOLO_OK &&
           peer->offers_end - peer->offers_first < KOLO__RDMA_OFFERS_MAX &&
           kolo__rdma_under_way(&peer->rails[0]) < KOLO__RDMA_SENDS && offer(rdma, peer))
        find_unoffered(rdma, peer);
}

bool kolo__rdma_take_straight(struct kolo__rdma_peer *peer, uint32_t rail, uint32_t index)
{
    struct kolo__rdma_offer *offer = offer_at(peer, index);
    uint32_t first = peer->offers_first, end = peer->offers_end;
    bool made = (index - first) % KOLO__RDMA_OFFERS_MAX < end - first;
    if (!made || offer->data == NULL || rail >= peer->rail_count ||
        rail + (size_t)offer->came[rail] * peer->rail_count >= pieces_of(offer->bytes))
        return false;
    offer->came[rail]++;
    if (rail == 0 && !offer->straight) { /* behind its header, as written */
        offer->straight = true;
        offer->position = peer->in_tail;
    }
    return true;
}

struct kolo__rdma_offer *kolo__rdma_next_straight(struct kolo__rdma_peer *peer)
{
    for (uint32_t i = peer->offers_first; i != peer->offers_end; i++) {
        struct kolo__rdma_offer *offer = offer_at(peer, i);
        if (offer->straight && offer->taken < offer->bytes)
            return offer;
    }
    return NULL;
}

/* Rails do not wait for each other: what counts are pieces without a hole before them. */
size_t kolo__rdma_straight_bytes(const struct kolo__rdma_peer *peer,
                                 const struct kolo__rdma_offer *offer)
{
    size_t piece = offer->taken / KOLO__RDMA_STRAIGHT_BYTES;
    while (piece < pieces_of(offer->bytes) &&
           offer->came[piece % peer->rail_count] > piece / peer->rail_count)
        piece++;
    return kolo__rdma_least(piece * KOLO__RDMA_STRAIGHT_BYTES, offer->bytes) - offer->taken;
}

/* ---- out ---------------------------------------------------------------------------------- */

/* The place of the first send among the lent messages. */
static uint32_t place_of_first(const struct kolo__rdma_peer *peer)
{
    return peer->lent_end % KOLO__RDMA_OFFERS_MAX;
}

/* How the payload of the first send will go. False: its offer has not come, or too many messages
 * are lent. */
static bool begin(struct kolo__rdma *rdma, uint32_t index)
{
    struct kolo__rdma_peer *peer = &rdma->peers[index];
    struct kolo__rdma_sending *sending = &peer->sending;
    const struct kolo__post *post = rdma->stream.peers[index].sends.first;
    if (peer->offers_came == peer->offers_taken ||
        peer->lent_end - peer->lent_first == KOLO__RDMA_OFFERS_MAX)
        return false;
    sending->offer = peer->offers_taken++ % KOLO__RDMA_OFFERS_MAX;
    const unsigned char *text =
        peer->memory + KOLO__RDMA_OFFERS_AT + (size_t)sending->offer * KOLO__RDMA_OFFER_BYTES;
    sending->address = kolo__load_u64(text + 24);
    for (uint32_t r = 0; r < peer->rail_count; r++)
        sending->keys[r] = kolo__load_u32(text + OFFER_KEYS_AT + 4 * r);
    /* Else the header says so to the receiver. */
    bool fits = kolo__load_u64(text) == rdma->stream.peers[index].sent &&
                kolo__load_u64(text + 8) == kolo__signature_digest(post->signature) &&
                kolo__load_u64(text + 16) == post->bytes;
    bool known = kolo__rdma_reaches(rdma, post, &sending->own);
    if (post->on_gpu && !known) {
        kolo__rdma_break(peer, KOLO_ERR_INVALID,
                         "the message's memory of a GPU was freed before it was sent");
        return false;
    }
    sending->way = !known                          ? KOLO__RDMA_STAGED
                   : fits && sending->address != 0 ? KOLO__RDMA_STRAIGHT
                                                   : KOLO__RDMA_LENT;
    sending->begun = true;
    if (sending->way != KOLO__RDMA_STAGED)
        peer->lent[place_of_first(peer)] =
            sending->way == KOLO__RDMA_LENT
                ? 1
                : (uint32_t)kolo__rdma_least(peer->rail_count, pieces_of(post->bytes));
    return true;
}

/* The next piece, if its rail has room. Returns its bytes in *moved. */
static kolo_status write_straight(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer,
                                  const struct kolo__post *post, size_t done, size_t *moved)
{
    const struct kolo__rdma_sending *sending = &peer->sending;
    size_t piece = done / KOLO__RDMA_STRAIGHT_BYTES;
    uint32_t index = (uint32_t)(piece % peer->rail_count);
    struct kolo__rdma_rail *rail = &peer->rails[index];
    bool last = piece + peer->rail_count >= pieces_of(post->bytes);
    *moved = 0;
    if (!kolo__rdma_may_write(rail))
        return KOLO_OK;
    struct iovec part = {.iov_base = post->data + done,
                         .iov_len =
                             kolo__rdma_least(post->bytes - done, KOLO__RDMA_STRAIGHT_BYTES)};
    struct kolo__rdma_write write = {
        .parts = &part,
        .part_count = 1,
        .region = sending->own.regions[index % rdma->own_count],
        .remote_address = sending->address + done,
        .remote_key = sending->keys[index],
        .immediate = kolo__rdma_immediate(KOLO__RDMA_SAID_STRAIGHT, sending->offer)};
    kolo_status status =
        kolo__rdma_post(rdma, peer, rail, &write, last ? place_of_first(peer) : UINT32_MAX);
    if (status != KOLO_OK)
        return status;
    rail->writes_under_way++;
    rdma->counts.data_writes++;
    rdma->counts.data_bytes += part.iov_len;
    rdma->counts.straight_bytes += part.iov_len;
    *moved = part.iov_len;
    return KOLO_OK;
}

static kolo_status write_payload(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer,
                                 const struct kolo__post *post, size_t done, size_t *moved)
{
    struct iovec part = {.iov_base = post->data + done, .iov_len = post->bytes - done};
    struct kolo__rdma_cursor cursor = {.parts = &part, .count = 1};
    if (peer->sending.way == KOLO__RDMA_STRAIGHT)
        return write_straight(rdma, peer, post, done, moved);
    *moved = kolo__rdma_next_piece(rdma, peer, part.iov_len);
    if (*moved == 0)
        return KOLO_OK;
    bool lent = peer->sending.way == KOLO__RDMA_LENT;
    return kolo__rdma_write_piece(rdma, peer, &cursor, *moved, lent ? &peer->sending.own : NULL,
                                  lent && *moved == part.iov_len ? place_of_first(peer)
                                                                 : UINT32_MAX);
}

static kolo_status write_header(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer,
                                const struct iovec *header, size_t *moved)
{
    struct kolo__rdma_cursor cursor = {.parts = header, .count = 1};
    kolo_status status = KOLO_OK;
    while (status == KOLO_OK && *moved < header->iov_len) {
        size_t bytes = kolo__rdma_next_piece(rdma, peer, header->iov_len - *moved);
        if (bytes == 0)
            break;
        status = kolo__rdma_write_piece(rdma, peer, &cursor, bytes, NULL, UINT32_MAX);
        *moved += bytes;
    }
    return status;
}

kolo_status kolo__rdma_write_long(struct kolo__rdma *rdma, uint32_t index,
                                  const struct iovec *parts, size_t *moved)
{
    struct kolo__rdma_peer *peer = &rdma->peers[index];
    struct kolo__stream_peer *pipe = &rdma->stream.peers[index];
    const struct kolo__post *post = pipe->sends.first;
    kolo_status status = write_header(rdma, peer, &parts[0], moved);
    peer->blocked = true;
    if (status != KOLO_OK || *moved < parts[0].iov_len)
        return status;
    if (!peer->sending.begun && !begin(rdma, index) &&
        !(kolo__rdma_take_completions(rdma) && begin(rdma, index)))
        return KOLO_OK;
    for (size_t done = post->bytes_done, bytes; done < post->bytes; done += bytes) {
        status = write_payload(rdma, peer, post, done, &bytes);
        if (status != KOLO_OK || bytes == 0)
            return status;
        *moved += bytes;
    }
    peer->blocked = false;
    peer->sending.begun = false;
    if (peer->sending.way != KOLO__RDMA_STAGED) {
        pipe->lends = true;
        peer->lent_end++;
        rdma->lent++;
    }
    return KOLO_OK;
}
