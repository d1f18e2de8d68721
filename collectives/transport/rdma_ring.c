/* SPDX-License-Identifier: Apache-2.0 */
/* Rings in registered memory as pipes (rdma_transport.h has the drawing). */
#include "base/assert.h"
#include "base/clock.h"
#include "base/status.h"
#include "collectives/transport/rdma_transport.h"
#include "collectives/transport/tcp.h"

#include <stdio.h>
#include <string.h>

static const uint32_t CREDIT_BIT = 1u << 31;
enum { BYTES_BITS = 24, BYTES_MASK = (1 << BYTES_BITS) - 1, WRITES_MASK = 127 };

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- work requests ------------------------------------------------------------------------ */

/* That may still be under way: as many as were not confirmed. */
static uint64_t sends_under_way(const struct kolo__rdma_peer *peer)
{
    return peer->posted - peer->confirmed * KOLO__RDMA_SIGNAL_EVERY;
}

static kolo_status break_link(struct kolo__rdma_peer *peer, kolo_status status, const char *why)
{
    if (peer->failure == KOLO_OK) {
        peer->failure = status;
        snprintf(peer->failure_text, sizeof peer->failure_text, "%s", why);
    }
    return status;
}

static kolo_status failure_of(const struct kolo__rdma_peer *peer)
{
    return kolo__error(peer->failure, "%s", peer->failure_text);
}

static kolo_status post(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer,
                        struct kolo__rdma_write *write)
{
    char why[200];
    write->region = peer->region;
    write->remote_key = peer->their_key;
    write->signalled = peer->posted % KOLO__RDMA_SIGNAL_EVERY == KOLO__RDMA_SIGNAL_EVERY - 1;
    if (!rdma->module->link_write(peer->link, write, why, sizeof why)) {
        break_link(peer, KOLO_ERR_NETWORK, why);
        return failure_of(peer);
    }
    peer->posted++;
    peer->signalled += write->signalled;
    return KOLO_OK;
}

static bool owes_credit(const struct kolo__rdma_peer *peer)
{
    return peer->bytes_owed >= KOLO__RDMA_CREDIT_BYTES ||
           peer->writes_owed >= KOLO__RDMA_CREDIT_WRITES;
}

static void return_credit(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer)
{
    if (!owes_credit(peer) || peer->failure != KOLO_OK || sends_under_way(peer) >= KOLO__RDMA_SENDS)
        return;
    struct kolo__rdma_write write = {.in_line = true,
                                     .remote_address = peer->their_ring,
                                     .immediate = CREDIT_BIT | peer->writes_owed << BYTES_BITS |
                                                  peer->bytes_owed};
    if (post(rdma, peer, &write) != KOLO_OK)
        return;
    rdma->counts.credit_writes++;
    peer->bytes_owed = 0;
    peer->writes_owed = 0;
}

/* ---- out ---------------------------------------------------------------------------------- */

/* Where the next byte of the parts is. */
struct cursor {
    const struct iovec *parts;
    int count, part;
    size_t done; /* of that part */
};

/* The next bytes, as pieces of the parts, where they lie. Returns how many pieces. */
static int cut(struct cursor *cursor, size_t bytes, struct iovec pieces[KOLO__PIPE_PARTS_MAX])
{
    int count = 0;
    while (bytes > 0) {
        KOLO__ASSERT(cursor->part < cursor->count);
        const struct iovec *part = &cursor->parts[cursor->part];
        size_t now = least(part->iov_len - cursor->done, bytes);
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

/* How many of these bytes one write takes now: a whole piece or nothing, so that what is written
 * follows from what is sent, not from when the receiver reads. A place in the stage is free again
 * when the receiver has read it: then it came, and if the card sends its packets again because
 * their confirmation was lost, the receiver's card drops them, whatever they hold by then. */
static size_t next_piece(const struct kolo__rdma_peer *peer, size_t left)
{
    size_t to_end = KOLO__RDMA_RING_BYTES - peer->out_tail % KOLO__RDMA_RING_BYTES;
    size_t unread = peer->out_tail - peer->out_head;
    if (peer->writes_under_way >= KOLO__RDMA_WRITES_MAX ||
        sends_under_way(peer) >= KOLO__RDMA_SENDS - KOLO__RDMA_SENDS_KEPT)
        return 0;
    size_t bytes = least(least(left, to_end), KOLO__RDMA_PIECE_BYTES);
    return bytes <= KOLO__RDMA_RING_BYTES - unread ? bytes : 0;
}

uint64_t kolo__rdma_writes_of(uint64_t position, uint64_t bytes)
{
    uint64_t writes = 0;
    while (bytes > 0) {
        size_t piece = least(least(bytes, KOLO__RDMA_RING_BYTES - position % KOLO__RDMA_RING_BYTES),
                             KOLO__RDMA_PIECE_BYTES);
        position += piece;
        bytes -= piece;
        writes++;
    }
    return writes;
}

static kolo_status write_piece(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer,
                               struct cursor *cursor, size_t bytes)
{
    struct iovec pieces[KOLO__PIPE_PARTS_MAX];
    size_t offset = peer->out_tail % KOLO__RDMA_RING_BYTES;
    struct kolo__rdma_write write = {.parts = pieces,
                                     .part_count = cut(cursor, bytes, pieces),
                                     .in_line = bytes <= peer->inline_bytes,
                                     .remote_address = peer->their_ring + offset,
                                     .immediate = (uint32_t)bytes};
    if (!write.in_line) {
        unsigned char *stage = peer->memory + KOLO__RDMA_RING_BYTES + offset, *to = stage;
        for (int i = 0; i < write.part_count; i++) {
            memcpy(to, pieces[i].iov_base, pieces[i].iov_len);
            to += pieces[i].iov_len;
        }
        pieces[0] = (struct iovec){.iov_base = stage, .iov_len = bytes};
        write.part_count = 1;
    }
    kolo_status status = post(rdma, peer, &write);
    if (status != KOLO_OK)
        return status;
    peer->out_tail += bytes;
    peer->writes_under_way++;
    rdma->counts.data_writes++;
    rdma->counts.data_bytes += bytes;
    rdma->counts.inline_writes += write.in_line;
    return KOLO_OK;
}

static kolo_status ended(void)
{
    return kolo__error(KOLO_ERR_PEER_LOST, "it closed the connection");
}

static kolo_status write_ring(struct kolo__stream *stream, uint32_t index,
                              const struct iovec *parts, int part_count, size_t *moved)
{
    struct kolo__rdma *rdma = (struct kolo__rdma *)(void *)stream;
    struct kolo__rdma_peer *peer = &rdma->peers[index];
    struct cursor cursor = {.parts = parts, .count = part_count};
    kolo_status status = KOLO_OK;
    size_t left = 0;
    *moved = 0;
    if (peer->failure != KOLO_OK)
        return failure_of(peer);
    if (peer->state != KOLO__RDMA_ESTABLISHED)
        return KOLO_OK;
    if (kolo__tcp_hangup(rdma->tcp, index))
        return ended();
    for (int i = 0; i < part_count; i++)
        left += parts[i].iov_len;
    while (left > 0 && status == KOLO_OK) {
        size_t bytes = next_piece(peer, left);
        if (bytes == 0 && kolo__rdma_take_completions(rdma))
            bytes = next_piece(peer, left);
        peer->blocked = bytes == 0;
        if (peer->blocked)
            break;
        status = write_piece(rdma, peer, &cursor, bytes);
        *moved += bytes;
        left -= bytes;
    }
    return status;
}

/* ---- in ----------------------------------------------------------------------------------- */

static kolo_status read_ring(struct kolo__stream *stream, uint32_t index, const struct iovec *parts,
                             int part_count, size_t *moved)
{
    struct kolo__rdma *rdma = (struct kolo__rdma *)(void *)stream;
    struct kolo__rdma_peer *peer = &rdma->peers[index];
    *moved = 0;
    for (int i = 0; i < part_count; i++) {
        for (size_t done = 0; done < parts[i].iov_len && peer->in_head != peer->in_tail;) {
            size_t offset = peer->in_head % KOLO__RDMA_RING_BYTES;
            size_t bytes = least(least(parts[i].iov_len - done, peer->in_tail - peer->in_head),
                                 KOLO__RDMA_RING_BYTES - offset);
            memcpy((unsigned char *)parts[i].iov_base + done, peer->memory + offset, bytes);
            peer->in_head += bytes;
            peer->bytes_owed += (uint32_t)bytes;
            done += bytes;
            *moved += bytes;
            return_credit(rdma, peer);
        }
    }
    if (*moved > 0)
        return KOLO_OK;
    if (peer->failure != KOLO_OK)
        return failure_of(peer);
    /* What it wrote before had come before it closed, and was looked for since (progress). */
    if (peer->state == KOLO__RDMA_ESTABLISHED && kolo__tcp_hangup(rdma->tcp, index))
        return ended();
    return KOLO_OK;
}

const struct kolo__pipe_ops kolo__rdma_ring_ops = {
    .write = write_ring,
    .read = read_ring,
    .read_ahead_bytes = KOLO__MESSAGE_HEADER_BYTES,
};

/* ---- completions -------------------------------------------------------------------------- */

static void take_immediate(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer,
                           uint32_t immediate)
{
    char why[200];
    if (!rdma->module->link_receive(peer->link, 1, why, sizeof why))
        break_link(peer, KOLO_ERR_NETWORK, why);
    if ((immediate & CREDIT_BIT) != 0) {
        uint32_t writes = immediate >> BYTES_BITS & WRITES_MASK, bytes = immediate & BYTES_MASK;
        if (writes > peer->writes_under_way || bytes > peer->out_tail - peer->out_head) {
            break_link(peer, KOLO_ERR_NETWORK, "it read more than was written");
            return;
        }
        peer->writes_under_way -= writes;
        peer->blocked = false;
        peer->out_head += bytes;
        return;
    }
    if (immediate > KOLO__RDMA_RING_BYTES - (peer->in_tail - peer->in_head)) {
        break_link(peer, KOLO_ERR_NETWORK, "it wrote more than there is room for");
        return;
    }
    peer->in_tail += immediate;
    peer->writes_owed++;
    return_credit(rdma, peer);
}

static void take_failure(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer,
                         const struct kolo__rdma_completion *completion)
{
    char own[KOLO__RDMA_CHOICE_TEXT_BYTES], theirs[KOLO__RDMA_GID_TEXT_BYTES], text[300];
    if (peer->failure != KOLO_OK)
        return;
    kolo__rdma_take_trouble(rdma);
    bool down = rdma->down_since_ns != 0, lost = completion->unreachable && !down;
    snprintf(text, sizeof text, "%s from %s to GID %s: %s (vendor error 0x%x)%s",
             completion->unreachable ? "it does not answer" : "the connection broke",
             kolo__rdma_own_text(rdma, own), kolo__rdma_gid_text(peer->their_gid, theirs),
             completion->text, completion->vendor_error,
             down ? "; the own port has no link: look at its cable and at the switch" : "");
    break_link(peer, lost ? KOLO_ERR_PEER_LOST : KOLO_ERR_NETWORK, text);
}

bool kolo__rdma_take_completions(struct kolo__rdma *rdma)
{
    enum { MOST = 16 };
    struct kolo__rdma_completion list[MOST];
    int count, all = 0;
    do {
        count = rdma->module->poll(rdma->device, list, MOST);
        for (int i = 0; i < count; i++) {
            struct kolo__rdma_peer *peer = &rdma->peers[list[i].tag];
            if (list[i].failed) {
                take_failure(rdma, peer, &list[i]);
            } else if (list[i].kind == KOLO__RDMA_IMMEDIATE) {
                take_immediate(rdma, peer, list[i].immediate);
            } else {
                peer->confirmed++;
                peer->blocked = false;
                return_credit(rdma, peer);
            }
        }
        all += count;
    } while (count == MOST);
    if (count < 0)
        kolo__stream_set_fault(&rdma->stream, KOLO_ERR_NETWORK, -1,
                               "%s: its completion queue cannot be read", rdma->port.device);
    return count < 0 || all > 0;
}

bool kolo__rdma_rings_ready(const struct kolo__rdma *rdma)
{
    for (uint32_t i = 0; i < rdma->stream.active_count; i++) {
        uint32_t index = rdma->stream.active[i];
        const struct kolo__stream_peer *pending = &rdma->stream.peers[index];
        const struct kolo__rdma_peer *peer = &rdma->peers[index];
        if (peer->failure != KOLO_OK)
            return true;
        if (peer->state != KOLO__RDMA_ESTABLISHED)
            continue;
        if (kolo__tcp_hangup(rdma->tcp, index) ||
            (pending->recvs.first != NULL && peer->in_head != peer->in_tail) ||
            (pending->sends.first != NULL && !peer->blocked))
            return true;
    }
    return false;
}

/* ---- the end ------------------------------------------------------------------------------ */

/* Whoever has closed the connection lacks nothing. */
static bool lacks_nothing(const struct kolo__rdma *rdma, uint32_t index)
{
    const struct kolo__rdma_peer *peer = &rdma->peers[index];
    return peer->state != KOLO__RDMA_ESTABLISHED || peer->failure != KOLO_OK ||
           kolo__tcp_hangup(rdma->tcp, index);
}

static bool all_came(const struct kolo__rdma *rdma)
{
    for (uint32_t i = 0; i < rdma->stream.transport.size; i++)
        if (!lacks_nothing(rdma, i) && rdma->peers[i].confirmed < rdma->peers[i].signalled)
            return false;
    return true;
}

/* A link that is destroyed takes with it what the card has not sent yet, unlike a socket. So one
 * more write each, which tells when it has come, and with it all before it. */
void kolo__rdma_drain(struct kolo__rdma *rdma)
{
    char why[200];
    if (rdma->stream.transport.fault.status != KOLO_OK)
        return;
    for (uint32_t i = 0; i < rdma->stream.transport.size; i++) {
        struct kolo__rdma_peer *peer = &rdma->peers[i];
        struct kolo__rdma_write write = {
            .in_line = true, .remote_address = peer->their_ring, .signalled = true};
        write.remote_key = peer->their_key;
        if (!lacks_nothing(rdma, i) &&
            rdma->module->link_write(peer->link, &write, why, sizeof why))
            peer->signalled++;
    }
    uint64_t until_ns = kolo__now_ns(&kolo__real_clock) + rdma->patience_ns;
    while (!all_came(rdma) && kolo__now_ns(&kolo__real_clock) < until_ns) {
        rdma->tcp->ops->progress(rdma->tcp);
        kolo__rdma_take_completions(rdma);
    }
}
