/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How two ranks connect: each makes its end, tells the other over TCP how it is reached (a hello),
 * connects it to what it was told, and says so, for what comes to an end that is not connected yet
 * is lost, and sent again only seconds later. A hello, little endian:
 *
 *   0 "kord"   4 version:u16   6 kind:u16 (enum kolo__rdma_gid_kind)   8 queue pair:u32
 *  12 first packet:u32   16 GID:16, or zeros   32 LID:u32   36 MTU:u32
 *  40 address of the ring:u64   48 its key:u32   52 its bytes:u32   56 0:u64
 */
#include "base/assert.h"
#include "base/bytes.h"
#include "base/status.h"
#include "collectives/transport/rdma_transport.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { HELLO_VERSION = 1, PAGE_BYTES = 4096 };
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

static kolo_status cannot(const struct kolo__rdma *rdma, const char *why)
{
    char own[KOLO__RDMA_CHOICE_TEXT_BYTES];
    return kolo__error(KOLO_ERR_NETWORK, "no RDMA connection to it from %s: %s",
                       kolo__rdma_own_text(rdma, own), why);
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
    kolo__store_u16(hello + 6, (uint16_t)rdma->gid.kind);
    kolo__store_u32(hello + 8, rdma->module->link_number(peer->link));
    kolo__store_u32(hello + 12, peer->first_packet);
    memcpy(hello + 16, rdma->gid.raw, KOLO__RDMA_GID_BYTES);
    kolo__store_u32(hello + 32, rdma->port.lid);
    kolo__store_u32(hello + 36, rdma->port.mtu_bytes);
    kolo__store_u64(hello + 40, (uint64_t)(uintptr_t)peer->memory);
    kolo__store_u32(hello + 48, peer->own_key);
    kolo__store_u32(hello + 52, KOLO__RDMA_RING_BYTES);
}

static kolo_status open_end(struct kolo__rdma *rdma, uint32_t index)
{
    struct kolo__rdma_peer *peer = &rdma->peers[index];
    const size_t bytes = (size_t)2 * KOLO__RDMA_RING_BYTES;
    char why[200];
    peer->memory = aligned_alloc(PAGE_BYTES, bytes);
    if (peer->memory == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for a connection (%zu bytes)", bytes);
    peer->region = rdma->module->region_open(rdma->device, peer->memory, bytes, &peer->own_key, why,
                                             sizeof why);
    if (peer->region == NULL)
        return cannot(rdma, why);
    peer->link = rdma->module->link_open(rdma->device, index, &kolo__rdma_depths,
                                         &peer->inline_bytes, why, sizeof why);
    if (peer->link == NULL)
        return cannot(rdma, why);
    if (!rdma->module->link_receive(peer->link, KOLO__RDMA_RECEIVES, why, sizeof why))
        return cannot(rdma, why);
    peer->first_packet = draw_packet_number();
    encode_hello(rdma, peer);
    return KOLO_OK;
}

void kolo__rdma_disconnect(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer)
{
    rdma->module->link_close(peer->link);
    rdma->module->region_close(peer->region);
    free(peer->memory);
    peer->link = NULL;
    peer->region = NULL;
    peer->memory = NULL;
    peer->state = KOLO__RDMA_IDLE;
}

/* ---- what came ---------------------------------------------------------------------------- */

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static kolo_status take_hello(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer)
{
    static const char *const KINDS[] = {"InfiniBand", "RoCE version 1", "RoCE version 2"};
    const unsigned char *hello = peer->their_hello;
    char why[300], text[200], theirs[KOLO__RDMA_GID_TEXT_BYTES];
    uint16_t kind = kolo__load_u16(hello + 6);
    if (memcmp(hello, magic, sizeof magic) != 0 || kolo__load_u16(hello + 4) != HELLO_VERSION ||
        kolo__load_u32(hello + 52) != KOLO__RDMA_RING_BYTES || kind > KOLO__RDMA_GID_ROCE_V2)
        return kolo__error(KOLO_ERR_NETWORK,
                           "it speaks of RDMA otherwise than this version of kolo: use the same "
                           "everywhere");
    memcpy(peer->their_gid, hello + 16, sizeof peer->their_gid);
    peer->their_lid = kolo__load_u32(hello + 32);
    peer->their_ring = kolo__load_u64(hello + 40);
    peer->their_key = kolo__load_u32(hello + 48);
    if (kind != (uint16_t)rdma->gid.kind) {
        snprintf(why, sizeof why,
                 "that is %s, the other end is %s: choose ports of one network with NCCL_IB_HCA",
                 KINDS[rdma->gid.kind], KINDS[kind]);
        return cannot(rdma, why);
    }
    struct kolo__rdma_path path = {
        .link_number = kolo__load_u32(hello + 8),
        .global = kolo__rdma_needs_gid(rdma->port.infiniband, rdma->gid.raw, peer->their_gid),
        .own_gid_index = rdma->gid.index,
        .lid = peer->their_lid,
        .mtu_bytes = least(rdma->port.mtu_bytes, kolo__load_u32(hello + 36)),
        .first_out = peer->first_packet,
        .first_in = kolo__load_u32(hello + 12) & 0xffffff,
        .service_level = (uint32_t)rdma->options.service_level,
        .traffic_class = (uint32_t)rdma->options.traffic_class,
        .partition = (uint32_t)rdma->options.partition,
        .timeout = (uint32_t)rdma->options.timeout,
        .retry_count = (uint32_t)rdma->options.retry_count,
    };
    memcpy(path.gid, peer->their_gid, sizeof path.gid);
    if (rdma->module->link_connect(peer->link, &path, text, sizeof text))
        return KOLO_OK;
    snprintf(why, sizeof why, "to GID %s: %s", kolo__rdma_gid_text(peer->their_gid, theirs), text);
    return cannot(rdma, why);
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
        peer->state = KOLO__RDMA_ESTABLISHED;
        rdma->connecting--;
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
