/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How two ranks connect: each makes its end, tells the other over TCP how it is reached (a hello),
 * connects it to what it was told, and says so, for what comes to an end that is not connected yet
 * is lost, and sent again only seconds later. A hello, little endian:
 *
 *   0 "kord"   4 version:u16   6 kind:u16 (enum kolo__rdma_gid_kind)   8 rails:u32
 *  12 bytes of the ring:u32   16 address of the ring:u64   24 of the offers:u64   32 their key:u32
 *  36 zeros
 *
 * and from 64 on for each rail
 *
 *   0 queue pair:u32   4 first packet:u32   8 LID:u32   12 MTU:u32   16 GID:16, or zeros
 */
#include "base/assert.h"
#include "base/bytes.h"
#include "base/status.h"
#include "collectives/transport/rdma_transport.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { HELLO_VERSION = 2, PAGE_BYTES = 4096, RAILS_AT = 64, RAIL_BYTES = 32 };
static const unsigned char magic[4] = {'k', 'o', 'r', 'd'};

const struct kolo__rdma_depths kolo__rdma_depths = {.sends = KOLO__RDMA_SENDS + 1,
                                                    .receives = KOLO__RDMA_RECEIVES,
                                                    .inline_bytes = KOLO__RDMA_INLINE_BYTES};

static kolo_status open_end(struct kolo__rdma *rdma, uint32_t index);
static void exchange(struct kolo__rdma *rdma, uint32_t index, struct kolo__post *out,
                     struct kolo__post *in);
static kolo_status take_hello(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer);

/* The link's own number of a packet that a stray of an earlier link does not have. */
static uint32_t draw_packet_number(void)
{
    uint32_t number = 0;
    if (getrandom(&number, sizeof number, 0) != sizeof number)
        number = 1;
    return number & 0xffffff;
}

static void fail_with(struct kolo__rdma *rdma, uint32_t index, kolo_status status)
{
    char name[100];
    kolo__stream_set_fault(&rdma->stream, status, (int)index, "%s: %s",
                           kolo__stream_peer_name(&rdma->stream, index, name, sizeof name),
                           kolo_error_text());
}

static kolo_status cannot(const struct kolo__rdma_own *own, const char *why)
{
    char text[KOLO__RDMA_CHOICE_TEXT_BYTES];
    return kolo__error(KOLO_ERR_NETWORK, "no RDMA connection to it from %s: %s",
                       kolo__rdma_own_text(own, text), why);
}

void kolo__rdma_want(struct kolo__rdma *rdma, uint32_t index)
{
    struct kolo__rdma_peer *peer = &rdma->peers[index];
    if (peer->state != KOLO__RDMA_IDLE || rdma->stream.transport.fault.status != KOLO_OK)
        return;
    kolo_status status = open_end(rdma, index);
    if (status != KOLO_OK) {
        fail_with(rdma, index, status);
        return;
    }
    peer->state = KOLO__RDMA_HELLO;
    rdma->connecting++;
    peer->hello_out = (struct kolo__post){.data = peer->own_hello,
                                          .bytes = sizeof peer->own_hello,
                                          .signature = &rdma->hello_signature};
    peer->hello_in = (struct kolo__post){.data = peer->their_hello,
                                         .bytes = sizeof peer->their_hello,
                                         .signature = &rdma->hello_signature};
    exchange(rdma, index, &peer->hello_out, &peer->hello_in);
}

static void exchange(struct kolo__rdma *rdma, uint32_t index, struct kolo__post *out,
                     struct kolo__post *in)
{
    rdma->tcp->ops->post_recv(rdma->tcp, index, in);
    rdma->tcp->ops->post_send(rdma->tcp, index, out);
}

static void encode_hello(const struct kolo__rdma *rdma, struct kolo__rdma_peer *peer)
{
    unsigned char *hello = peer->own_hello;
    memset(hello, 0, KOLO__RDMA_HELLO_BYTES);
    memcpy(hello, magic, sizeof magic);
    kolo__store_u16(hello + 4, HELLO_VERSION);
    kolo__store_u16(hello + 6, (uint16_t)rdma->own[0].gid.kind);
    kolo__store_u32(hello + 8, peer->rail_count);
    kolo__store_u32(hello + 12, KOLO__RDMA_RING_BYTES);
    kolo__store_u64(hello + 16, (uint64_t)(uintptr_t)peer->memory);
    kolo__store_u64(hello + 24, (uint64_t)(uintptr_t)(peer->memory + KOLO__RDMA_OFFERS_AT));
    kolo__store_u32(hello + 32, peer->own_key);
    for (uint32_t r = 0; r < peer->rail_count; r++) {
        unsigned char *text = hello + RAILS_AT + (size_t)r * RAIL_BYTES;
        const struct kolo__rdma_own *own = &rdma->own[r % rdma->own_count];
        kolo__store_u32(text, rdma->module->link_number(peer->rails[r].link));
        kolo__store_u32(text + 4, peer->rails[r].first_packet);
        kolo__store_u32(text + 8, own->port.lid);
        kolo__store_u32(text + 12, own->port.mtu_bytes);
        memcpy(text + 16, own->gid.raw, KOLO__RDMA_GID_BYTES);
    }
}

static kolo_status open_rail(struct kolo__rdma *rdma, uint32_t index, uint32_t rail_index)
{
    char why[200];
    struct kolo__rdma_rail *rail = &rdma->peers[index].rails[rail_index];
    const struct kolo__rdma_own *own = &rdma->own[rail_index % rdma->own_count];
    rail->link = rdma->module->link_open(own->device, index * KOLO__RDMA_RAILS_MAX + rail_index,
                                         &kolo__rdma_depths, &rail->inline_bytes, why, sizeof why);
    if (rail->link == NULL ||
        !rdma->module->link_receive(rail->link, KOLO__RDMA_RECEIVES, why, sizeof why))
        return cannot(own, why);
    rail->first_packet = draw_packet_number();
    return KOLO_OK;
}

static kolo_status open_end(struct kolo__rdma *rdma, uint32_t index)
{
    struct kolo__rdma_peer *peer = &rdma->peers[index];
    char why[200];
    peer->memory = aligned_alloc(PAGE_BYTES, KOLO__RDMA_MEMORY_BYTES);
    peer->rails = calloc(rdma->rails, sizeof *peer->rails);
    if (peer->memory == NULL || peer->rails == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for a connection (%d bytes)",
                           KOLO__RDMA_MEMORY_BYTES);
    peer->region =
        rdma->module->region_open(rdma->own[0].device, peer->memory, KOLO__RDMA_MEMORY_BYTES, false,
                                  &peer->own_key, why, sizeof why);
    if (peer->region == NULL)
        return cannot(&rdma->own[0], why);
    kolo_status status = KOLO_OK;
    peer->rail_count = rdma->rails;
    for (uint32_t r = 0; r < peer->rail_count && status == KOLO_OK; r++)
        status = open_rail(rdma, index, r);
    if (status == KOLO_OK)
        encode_hello(rdma, peer);
    return status;
}

void kolo__rdma_disconnect(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer)
{
    for (uint32_t r = 0; peer->rails != NULL && r < rdma->rails; r++)
        rdma->module->link_close(peer->rails[r].link);
    rdma->module->region_close(peer->region);
    free(peer->memory);
    free(peer->rails);
    peer->rails = NULL;
    peer->region = NULL;
    peer->memory = NULL;
    peer->state = KOLO__RDMA_IDLE;
}

/* ---- what came ---------------------------------------------------------------------------- */

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static kolo_status connect_rail(struct kolo__rdma *rdma, struct kolo__rdma_rail *rail,
                                const struct kolo__rdma_own *own, const unsigned char *hello)
{
    char why[300], text[200], theirs[KOLO__RDMA_GID_TEXT_BYTES];
    memcpy(rail->their_gid, hello + 16, sizeof rail->their_gid);
    struct kolo__rdma_path path = {
        .link_number = kolo__load_u32(hello),
        .global = own->port.needs_global ||
                  kolo__rdma_needs_gid(own->port.infiniband, own->gid.raw, rail->their_gid),
        .own_gid_index = own->gid.index,
        .lid = kolo__rdma_lid_towards(own->gid.raw, rail->their_gid, kolo__load_u32(hello + 8)),
        .mtu_bytes = least(own->port.mtu_bytes, kolo__load_u32(hello + 12)),
        .first_out = rail->first_packet,
        .first_in = kolo__load_u32(hello + 4) & 0xffffff,
        .service_level = (uint32_t)rdma->options.service_level,
        .traffic_class = (uint32_t)rdma->options.traffic_class,
        .partition = (uint32_t)rdma->options.partition,
        .timeout = (uint32_t)rdma->options.timeout,
        .retry_count = (uint32_t)rdma->options.retry_count,
    };
    memcpy(path.gid, rail->their_gid, sizeof path.gid);
    if (rdma->module->link_connect(rail->link, &path, text, sizeof text))
        return KOLO_OK;
    snprintf(why, sizeof why, "to GID %s: %s", kolo__rdma_gid_text(rail->their_gid, theirs), text);
    return cannot(own, why);
}

static kolo_status take_hello(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer)
{
    static const char *const KINDS[] = {"InfiniBand", "RoCE version 1", "RoCE version 2"};
    const unsigned char *hello = peer->their_hello;
    char why[300];
    uint16_t kind = kolo__load_u16(hello + 6);
    uint32_t rails = kolo__load_u32(hello + 8);
    if (memcmp(hello, magic, sizeof magic) != 0 || kolo__load_u16(hello + 4) != HELLO_VERSION ||
        kolo__load_u32(hello + 12) != KOLO__RDMA_RING_BYTES || kind > KOLO__RDMA_GID_ROCE_V2 ||
        rails == 0 || rails > KOLO__RDMA_RAILS_MAX)
        return kolo__error(KOLO_ERR_NETWORK,
                           "it speaks of RDMA otherwise than this version of kolo: use the same "
                           "everywhere");
    peer->their_ring = kolo__load_u64(hello + 16);
    peer->their_offers = kolo__load_u64(hello + 24);
    peer->their_key = kolo__load_u32(hello + 32);
    if (kind != (uint16_t)rdma->own[0].gid.kind) {
        snprintf(why, sizeof why,
                 "that is %s, the other end is %s: choose ports of one network with NCCL_IB_HCA",
                 KINDS[rdma->own[0].gid.kind], KINDS[kind]);
        return cannot(&rdma->own[0], why);
    }
    kolo_status status = KOLO_OK;
    peer->rail_count = least(peer->rail_count, rails);
    for (uint32_t r = 0; r < peer->rail_count && status == KOLO_OK; r++)
        status = connect_rail(rdma, &peer->rails[r], &rdma->own[r % rdma->own_count],
                              hello + RAILS_AT + (size_t)r * RAIL_BYTES);
    return status;
}

/* Nothing goes by rails but long messages, so one that leads nowhere would be found late. */
static void try_rails(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer)
{
    for (uint32_t r = 1; r < peer->rail_count; r++) {
        struct kolo__rdma_write write = {.in_line = true, .signalled = true};
        if (kolo__rdma_post(rdma, peer, &peer->rails[r], &write, UINT32_MAX) == KOLO_OK)
            peer->rails[r].writes_under_way++;
    }
}

static bool rails_work(const struct kolo__rdma_peer *peer)
{
    for (uint32_t r = 1; r < peer->rail_count; r++)
        if (peer->rails[r].confirmed == 0)
            return false;
    return true;
}

static bool advance_peer(struct kolo__rdma *rdma, uint32_t index)
{
    struct kolo__rdma_peer *peer = &rdma->peers[index];
    if (peer->state == KOLO__RDMA_HELLO && peer->hello_in.complete &&
        peer->hello_in.status == KOLO_OK) {
        kolo_status status = take_hello(rdma, peer);
        if (status != KOLO_OK) {
            fail_with(rdma, index, status);
            return true;
        }
        peer->state = KOLO__RDMA_READY;
        peer->ready_out = peer->ready_in = (struct kolo__post){.signature = &rdma->ready_signature};
        exchange(rdma, index, &peer->ready_out, &peer->ready_in);
        return true;
    }
    if (peer->state == KOLO__RDMA_READY && peer->ready_in.complete &&
        peer->ready_in.status == KOLO_OK) {
        peer->state = KOLO__RDMA_TRYING;
        try_rails(rdma, peer);
        return true;
    }
    if (peer->state == KOLO__RDMA_TRYING && rails_work(peer)) {
        peer->state = KOLO__RDMA_ESTABLISHED;
        rdma->connecting--;
        kolo__rdma_make_offers(rdma, index);
        return true;
    }
    return false;
}

bool kolo__rdma_advance(struct kolo__rdma *rdma)
{
    bool moved = false;
    for (uint32_t i = 0; rdma->connecting > 0 && i < rdma->stream.transport.size; i++)
        while (rdma->stream.transport.fault.status == KOLO_OK && advance_peer(rdma, i))
            moved = true;
    return moved;
}
