/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How messages become bytes and bytes become messages. Payloads go straight from and into the
 * posts' memory; only what arrives together with a header, because one system call fetched both,
 * is copied once.
 */
#include "collectives/transport/stream.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/status.h"
#include "kernels/crc32c.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Messages moved for one peer before the next peer has its turn. */
enum { TURN = 16 };

static bool push(struct kolo__stream *stream, uint32_t peer);
static bool pull(struct kolo__stream *stream, uint32_t peer);
static bool take_ahead(struct kolo__stream *stream, uint32_t peer, struct kolo__post *post);
static bool check_block(struct kolo__stream *stream, uint32_t peer, struct kolo__post *post);
static bool check_header(struct kolo__stream *stream, uint32_t peer, const struct kolo__post *post);
static void set_mismatch(struct kolo__stream *stream, uint32_t peer,
                         const struct kolo__message *theirs, const struct kolo__post *post);
static void set_corruption(struct kolo__stream *stream, uint32_t peer,
                           const struct kolo__post *post, size_t bytes, uint32_t came,
                           uint32_t found);
static void break_pipe(struct kolo__stream *stream, uint32_t peer, kolo_status status);
static void complete_all(struct kolo__stream *stream, kolo_status status);

static size_t room_ahead(const struct kolo__pipe_ops *pipes)
{
    return pipes->read_ahead_bytes + pipes->short_message_bytes;
}

kolo_status kolo__stream_init(struct kolo__stream *stream, uint32_t rank, uint32_t size,
                              const char *const *hosts, const struct kolo__pipe_ops *pipes)
{
    KOLO__ASSERT(rank < size && pipes->read_ahead_bytes >= KOLO__MESSAGE_HEADER_BYTES);
    stream->transport.rank = rank;
    stream->transport.size = size;
    stream->pipes = pipes;
    stream->hosts = hosts;
    stream->peers = calloc(size, sizeof *stream->peers);
    stream->ahead = calloc(size, room_ahead(pipes));
    stream->active = calloc(size, sizeof *stream->active);
    if (stream->peers == NULL || stream->ahead == NULL || stream->active == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for the queues of %u ranks", size);
    for (uint32_t peer = 0; peer < size; peer++) {
        stream->peers[peer].ahead = stream->ahead + peer * room_ahead(pipes);
        stream->peers[peer].active_index = UINT32_MAX;
    }
    return KOLO_OK;
}

void kolo__stream_release(struct kolo__stream *stream)
{
    if (stream->active != NULL) {
        if (stream->transport.fault.status == KOLO_OK)
            kolo__stream_set_fault(stream, KOLO_ERR_ABORTED, -1, "the communicator was closed");
        complete_all(stream, stream->transport.fault.status);
    }
    free(stream->peers);
    free(stream->ahead);
    free(stream->active);
    stream->peers = NULL;
    stream->ahead = NULL;
    stream->active = NULL;
}

/* ---- queues ------------------------------------------------------------------------------- */

static void complete(struct kolo__post *post, kolo_status status)
{
    /* Last: from here on the post is the caller's. */
    post->next = NULL;
    post->status = status;
    post->complete = true;
}

static void append(struct kolo__stream_queue *queue, struct kolo__post *post)
{
    post->next = NULL;
    if (queue->first == NULL)
        queue->first = post;
    else
        queue->last->next = post;
    queue->last = post;
}

static void complete_first(struct kolo__stream_queue *queue, kolo_status status)
{
    struct kolo__post *post = queue->first;
    queue->first = post->next;
    complete(post, status);
}

static void complete_queue(struct kolo__stream_queue *queue, kolo_status status)
{
    while (queue->first != NULL)
        complete_first(queue, status);
}

static void activate(struct kolo__stream *stream, uint32_t peer)
{
    struct kolo__stream_peer *pipe = &stream->peers[peer];
    if (pipe->active_index == UINT32_MAX) {
        pipe->active_index = stream->active_count;
        stream->active[stream->active_count++] = peer;
    }
}

static void deactivate_idle(struct kolo__stream *stream, uint32_t peer)
{
    struct kolo__stream_peer *pipe = &stream->peers[peer];
    if (pipe->sends.first != NULL || pipe->lent.first != NULL || pipe->recvs.first != NULL ||
        pipe->active_index == UINT32_MAX)
        return;
    uint32_t last = stream->active[--stream->active_count];
    stream->active[pipe->active_index] = last;
    stream->peers[last].active_index = pipe->active_index;
    pipe->active_index = UINT32_MAX;
}

static void complete_all(struct kolo__stream *stream, kolo_status status)
{
    stream->pipes->stop(stream);
    while (stream->active_count > 0) {
        uint32_t peer = stream->active[stream->active_count - 1];
        complete_queue(&stream->peers[peer].lent, status);
        complete_queue(&stream->peers[peer].sends, status);
        complete_queue(&stream->peers[peer].recvs, status);
        deactivate_idle(stream, peer);
    }
}

static bool accept_post(struct kolo__stream *stream, uint32_t peer, struct kolo__post *post)
{
    KOLO__ASSERT(peer < stream->transport.size && peer != stream->transport.rank);
    post->bytes_done = 0;
    post->wants_instead = false;
    post->complete = false;
    post->status = KOLO_OK;
    if (stream->transport.fault.status == KOLO_OK)
        return true;
    complete(post, stream->transport.fault.status);
    return false;
}

void kolo__stream_post_send(struct kolo__transport *transport, uint32_t peer,
                            struct kolo__post *post)
{
    struct kolo__stream *stream = (struct kolo__stream *)(void *)transport;
    if (!accept_post(stream, peer, post))
        return;
    struct kolo__stream_peer *pipe = &stream->peers[peer];
    bool first = pipe->sends.first == NULL;
    append(&pipe->sends, post);
    activate(stream, peer);
    stream->unfinished = true;
    /* On its way before the caller computes something else. */
    if (first) {
        push(stream, peer);
        deactivate_idle(stream, peer);
    }
}

void kolo__stream_post_recv(struct kolo__transport *transport, uint32_t peer,
                            struct kolo__post *post)
{
    struct kolo__stream *stream = (struct kolo__stream *)(void *)transport;
    if (!accept_post(stream, peer, post))
        return;
    append(&stream->peers[peer].recvs, post);
    activate(stream, peer);
    stream->unfinished = true;
}

bool kolo__stream_progress(struct kolo__stream *stream)
{
    bool moved = false;
    stream->unfinished = false;
    /* Backwards: a peer that becomes idle is replaced by one that has had its turn. */
    for (uint32_t i = stream->active_count; i-- > 0;) {
        uint32_t peer = stream->active[i];
        moved |= push(stream, peer);
        moved |= pull(stream, peer);
        deactivate_idle(stream, peer);
    }
    if (stream->transport.fault.status != KOLO_OK && stream->active_count > 0) {
        complete_all(stream, stream->transport.fault.status);
        moved = true;
    }
    return moved;
}

/* A message without payload may have no memory at all. */
static struct iovec part_of(const struct kolo__post *post, size_t begin, size_t bytes)
{
    return (struct iovec){.iov_base = bytes > 0 ? post->data + begin : NULL, .iov_len = bytes};
}

void kolo__pipe_lends_nothing(struct kolo__stream *stream)
{
    (void)stream;
}

bool kolo__stream_has_work(const struct kolo__stream *stream)
{
    return stream->unfinished ||
           (stream->transport.fault.status != KOLO_OK && stream->active_count > 0);
}

/* ---- out ---------------------------------------------------------------------------------- */

/* The block that begins where the message has come to. Its bytes stay as they are until they have
 * gone, so its checksum can be known now. */
static void begin_block(struct kolo__stream *stream, struct kolo__stream_peer *pipe)
{
    const struct kolo__post *post = pipe->sends.first;
    size_t left = post->bytes - post->bytes_done;
    if (stream->checksum && left > KOLO__MESSAGE_BLOCK_BYTES)
        left = KOLO__MESSAGE_BLOCK_BYTES;
    pipe->send_block_end = post->bytes_done + left;
    pipe->send_sum_done = 0;
    pipe->send_sum_bytes = stream->checksum && left > 0 ? KOLO__MESSAGE_CHECKSUM_BYTES : 0;
    if (pipe->send_sum_bytes > 0)
        kolo__store_u32(pipe->send_sum, kolo__crc32c(0, post->data + post->bytes_done, left));
}

static void begin_message(struct kolo__stream *stream, struct kolo__stream_peer *pipe)
{
    const struct kolo__post *post = pipe->sends.first;
    struct kolo__message message = {.signature = *post->signature,
                                    .bytes = post->bytes,
                                    .number = pipe->sent,
                                    .sender = stream->transport.rank};
    kolo__message_encode(&message, stream->checksum, pipe->send_header);
    pipe->send_begun = true;
    pipe->send_header_done = 0;
    begin_block(stream, pipe);
}

/* What has moved: of the header, then of the block, then of its checksum. */
static void count_sent(struct kolo__stream *stream, struct kolo__stream_peer *pipe, size_t moved)
{
    struct kolo__post *post = pipe->sends.first;
    size_t of_header = KOLO__MESSAGE_HEADER_BYTES - pipe->send_header_done;
    size_t of_block = pipe->send_block_end - post->bytes_done;
    of_header = moved < of_header ? moved : of_header;
    of_block = moved - of_header < of_block ? moved - of_header : of_block;
    pipe->send_header_done += of_header;
    post->bytes_done += of_block;
    pipe->send_sum_done += moved - of_header - of_block;
    if (pipe->send_header_done < KOLO__MESSAGE_HEADER_BYTES ||
        post->bytes_done < pipe->send_block_end || pipe->send_sum_done < pipe->send_sum_bytes)
        return;
    if (post->bytes_done < post->bytes) {
        begin_block(stream, pipe);
        return;
    }
    pipe->send_begun = false;
    pipe->sent++;
    if (!pipe->lends) {
        complete_first(&pipe->sends, KOLO_OK);
        return;
    }
    pipe->lends = false;
    pipe->sends.first = post->next;
    append(&pipe->lent, post);
}

/* The peer stays active: this may be called while progress goes through those that are. */
void kolo__stream_return_lent(struct kolo__stream *stream, uint32_t peer)
{
    complete_first(&stream->peers[peer].lent, KOLO_OK);
}

static bool push(struct kolo__stream *stream, uint32_t peer)
{
    struct kolo__stream_peer *pipe = &stream->peers[peer];
    bool any = false;
    for (int turn = 0; stream->transport.fault.status == KOLO_OK; turn++) {
        const struct kolo__post *post = pipe->sends.first;
        if (post == NULL)
            break;
        if (turn == TURN) {
            stream->unfinished = true;
            break;
        }
        if (!pipe->send_begun)
            begin_message(stream, pipe);
        struct iovec parts[KOLO__PIPE_PARTS_MAX] = {
            {.iov_base = pipe->send_header + pipe->send_header_done,
             .iov_len = KOLO__MESSAGE_HEADER_BYTES - pipe->send_header_done},
            part_of(post, post->bytes_done, pipe->send_block_end - post->bytes_done),
            {.iov_base = pipe->send_sum + pipe->send_sum_done,
             .iov_len = pipe->send_sum_bytes - pipe->send_sum_done}};
        size_t moved = 0;
        kolo_status status =
            stream->pipes->write(stream, peer, parts, pipe->send_sum_bytes > 0 ? 3 : 2, &moved);
        if (status != KOLO_OK)
            break_pipe(stream, peer, status);
        if (status != KOLO_OK || moved == 0)
            break;
        any = true;
        stream->transport.sent_last = true;
        if (stream->transport.traffic != NULL)
            kolo__counter_add(&stream->transport.traffic->sent_bytes, moved);
        count_sent(stream, pipe, moved);
    }
    return any;
}

/* ---- in ----------------------------------------------------------------------------------- */

/* How much of the first recv's payload is to come before a checksum, or its end; once its header is
 * known. */
static size_t block_left(const struct kolo__stream *stream, const struct kolo__stream_peer *pipe,
                         const struct kolo__post *post)
{
    size_t left = post->bytes - post->bytes_done;
    if (!pipe->recv_checked)
        return 0;
    if (!stream->checksum)
        return left;
    if (left > KOLO__MESSAGE_BLOCK_BYTES)
        left = KOLO__MESSAGE_BLOCK_BYTES;
    return left - pipe->recv_block_done;
}

static void count_payload(const struct kolo__stream *stream, struct kolo__stream_peer *pipe,
                          struct kolo__post *post, size_t bytes)
{
    if (stream->checksum)
        pipe->recv_block_done += bytes;
    else
        post->bytes_done += bytes;
}

/* Reads into the rest of the first post's block and behind it, or, before its header is known, only
 * ahead. */
static bool fill(struct kolo__stream *stream, uint32_t peer, struct kolo__post *post)
{
    struct kolo__stream_peer *pipe = &stream->peers[peer];
    if (pipe->ahead_begin > 0) {
        /* Less than a header, or a checksum, is left here. */
        memmove(pipe->ahead, pipe->ahead + pipe->ahead_begin, pipe->ahead_end - pipe->ahead_begin);
        pipe->ahead_end -= pipe->ahead_begin;
        pipe->ahead_begin = 0;
    }
    const struct kolo__pipe_ops *pipes = stream->pipes;
    size_t payload_left = block_left(stream, pipe, post);
    size_t ahead =
        post->bytes <= pipes->short_message_bytes ? room_ahead(pipes) : pipes->read_ahead_bytes;
    struct iovec parts[2] = {
        part_of(post, post->bytes_done + pipe->recv_block_done, payload_left),
        {.iov_base = pipe->ahead + pipe->ahead_end, .iov_len = ahead - pipe->ahead_end}};
    int skip = payload_left == 0 ? 1 : 0;
    size_t moved = 0;
    kolo_status status = pipes->read(stream, peer, parts + skip, 2 - skip, &moved);
    if (status != KOLO_OK)
        break_pipe(stream, peer, status);
    if (status != KOLO_OK || moved == 0)
        return false;
    stream->transport.sent_last = false;
    if (stream->transport.traffic != NULL)
        kolo__counter_add(&stream->transport.traffic->received_bytes, moved);
    size_t of_payload = moved < payload_left ? moved : payload_left;
    count_payload(stream, pipe, post, of_payload);
    pipe->ahead_end += moved - of_payload;
    return true;
}

static bool pull(struct kolo__stream *stream, uint32_t peer)
{
    struct kolo__stream_peer *pipe = &stream->peers[peer];
    bool any = false;
    for (int turn = 0; stream->transport.fault.status == KOLO_OK;) {
        struct kolo__post *post = pipe->recvs.first;
        if (post == NULL)
            break;
        if (turn == TURN) {
            stream->unfinished = true;
            break;
        }
        if (!pipe->recv_checked &&
            pipe->ahead_end - pipe->ahead_begin >= KOLO__MESSAGE_HEADER_BYTES &&
            !check_header(stream, peer, post))
            break;
        bool moved = take_ahead(stream, peer, post);
        if (stream->transport.fault.status != KOLO_OK)
            break;
        if (pipe->recv_checked && post->bytes_done == post->bytes) {
            pipe->recv_checked = false;
            pipe->received++;
            complete_first(&pipe->recvs, KOLO_OK);
            any = true;
            turn++;
        } else if (!moved && !fill(stream, peer, post)) {
            break;
        } else {
            any = true;
        }
    }
    return any;
}

/* What was read ahead: of the payload, or the checksum behind a block. */
static bool take_ahead(struct kolo__stream *stream, uint32_t peer, struct kolo__post *post)
{
    struct kolo__stream_peer *pipe = &stream->peers[peer];
    size_t there = pipe->ahead_end - pipe->ahead_begin;
    size_t wanted = block_left(stream, pipe, post);
    size_t bytes = there < wanted ? there : wanted;
    if (pipe->recv_block_done > 0 && wanted == 0)
        return there >= KOLO__MESSAGE_CHECKSUM_BYTES && check_block(stream, peer, post);
    if (bytes == 0)
        return false;
    memcpy(post->data + post->bytes_done + pipe->recv_block_done, pipe->ahead + pipe->ahead_begin,
           bytes);
    count_payload(stream, pipe, post, bytes);
    pipe->ahead_begin += bytes;
    return true;
}

/* Only what was checked is done, so nobody computes with anything else. */
static bool check_block(struct kolo__stream *stream, uint32_t peer, struct kolo__post *post)
{
    struct kolo__stream_peer *pipe = &stream->peers[peer];
    uint32_t came = kolo__load_u32(pipe->ahead + pipe->ahead_begin);
    uint32_t found = kolo__crc32c(0, post->data + post->bytes_done, pipe->recv_block_done);
    if (came != found) {
        set_corruption(stream, peer, post, pipe->recv_block_done, came, found);
        return false;
    }
    pipe->ahead_begin += KOLO__MESSAGE_CHECKSUM_BYTES;
    post->bytes_done += pipe->recv_block_done;
    pipe->recv_block_done = 0;
    return true;
}

/* True when the message is the expected one. Else the fault is set, and nothing was written. */
static bool check_header(struct kolo__stream *stream, uint32_t peer, const struct kolo__post *post)
{
    struct kolo__stream_peer *pipe = &stream->peers[peer];
    struct kolo__message message;
    kolo_status status =
        kolo__message_decode(pipe->ahead + pipe->ahead_begin, stream->checksum, &message);
    if (status == KOLO_OK && (message.sender != peer || message.number != pipe->received))
        status = kolo__error(
            KOLO_ERR_NETWORK, "message %llu of rank %u came instead of message %llu",
            (unsigned long long)message.number, message.sender, (unsigned long long)pipe->received);
    if (status != KOLO_OK) {
        break_pipe(stream, peer, status);
        return false;
    }
    if (!kolo__signature_equal(&message.signature, post->signature) ||
        message.bytes != post->bytes) {
        set_mismatch(stream, peer, &message, post);
        return false;
    }
    pipe->ahead_begin += KOLO__MESSAGE_HEADER_BYTES;
    pipe->recv_checked = true;
    return true;
}

/* ---- faults ------------------------------------------------------------------------------- */

static void set_mismatch(struct kolo__stream *stream, uint32_t peer,
                         const struct kolo__message *theirs, const struct kolo__post *post)
{
    char theirs_name[100], our_name[100], sent[120], expected[120], lengths[80] = "",
                                                                    worlds[80] = "";
    const struct kolo__signature *ours = post->signature;
    if (theirs->bytes != post->bytes)
        snprintf(lengths, sizeof lengths, "; a message of %llu bytes instead of %zu",
                 (unsigned long long)theirs->bytes, post->bytes);
    if (theirs->signature.epoch != ours->epoch || theirs->signature.comm != ours->comm)
        snprintf(worlds, sizeof worlds, "; epoch %u, communicator %u instead of %u, %u",
                 theirs->signature.epoch, theirs->signature.comm, ours->epoch, ours->comm);
    kolo__stream_set_fault(
        stream, KOLO_ERR_MISMATCH, (int)peer, "%s sent %s; %s expects %s%s%s",
        kolo__stream_peer_name(stream, peer, theirs_name, sizeof theirs_name),
        kolo__signature_text(&theirs->signature, sent, sizeof sent),
        kolo__stream_peer_name(stream, stream->transport.rank, our_name, sizeof our_name),
        kolo__signature_text(ours, expected, sizeof expected), lengths, worlds);
}

static void set_corruption(struct kolo__stream *stream, uint32_t peer,
                           const struct kolo__post *post, size_t bytes, uint32_t came,
                           uint32_t found)
{
    char from[100], to[100], signature[120];
    kolo__stream_set_fault(stream, KOLO_ERR_NETWORK, (int)peer,
                           "bytes %zu to %zu of a message of %zu, %s, changed on their way from %s "
                           "to %s (CRC-32C %08x "
                           "came, the bytes have %08x): " KOLO__CHECKSUM_REMEDY,
                           post->bytes_done, post->bytes_done + bytes - 1, post->bytes,
                           kolo__signature_text(post->signature, signature, sizeof signature),
                           kolo__stream_peer_name(stream, peer, from, sizeof from),
                           kolo__stream_peer_name(stream, stream->transport.rank, to, sizeof to),
                           came, found);
}

static void break_pipe(struct kolo__stream *stream, uint32_t peer, kolo_status status)
{
    char name[100];
    kolo__stream_set_fault(stream, status, (int)peer, "%s: %s",
                           kolo__stream_peer_name(stream, peer, name, sizeof name),
                           kolo_error_text());
}

void kolo__stream_set_fault(struct kolo__stream *stream, kolo_status status, int peer,
                            const char *format, ...)
{
    struct kolo__fault *fault = &stream->transport.fault;
    if (fault->status != KOLO_OK)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(fault->text, sizeof fault->text, format, arguments);
    va_end(arguments);
    fault->peer = peer;
    fault->status = status;
}

void kolo__stream_fail(struct kolo__transport *transport, const struct kolo__fault *fault)
{
    if (transport->fault.status == KOLO_OK)
        transport->fault = *fault;
}

const char *kolo__stream_peer_name(const struct kolo__stream *stream, uint32_t peer, char *text,
                                   size_t bytes)
{
    if (stream->hosts != NULL)
        snprintf(text, bytes, "rank %u (%s)", peer, stream->hosts[peer]);
    else
        snprintf(text, bytes, "rank %u", peer);
    return text;
}
