/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a peer sends once it is connected: the input arrives, in pieces, where two messages of 10
 * and 0 bytes are expected. Each receive ends exactly once, and nothing is written that is not part
 * of a message that fits.
 */
#include "base/assert.h"
#include "collectives/transport/stream.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

struct source {
    struct kolo__stream stream; /* first */
    const uint8_t *data;
    size_t bytes, calls;
};

static kolo_status write_nothing(struct kolo__stream *stream, uint32_t peer,
                                 const struct iovec *parts, int part_count, size_t *moved)
{
    (void)stream;
    (void)peer;
    (void)parts;
    (void)part_count;
    *moved = 0;
    return KOLO_OK;
}

/* Pieces of 1 to 97 bytes, so that they end anywhere. */
static kolo_status read_piece(struct kolo__stream *stream, uint32_t peer, const struct iovec *parts,
                              int part_count, size_t *moved)
{
    struct source *source = (struct source *)(void *)stream;
    size_t piece = 1 + source->calls++ * 31 % 97;
    (void)peer;
    for (int i = 0; i < part_count; i++) {
        size_t part = parts[i].iov_len < piece ? parts[i].iov_len : piece;
        if (part > source->bytes)
            part = source->bytes;
        if (part > 0)
            memcpy(parts[i].iov_base, source->data, part);
        source->data += part;
        source->bytes -= part;
        piece -= part;
        *moved += part;
    }
    return KOLO_OK;
}

/* A header that can be read is written as it was. */
static void check_codec(const uint8_t *data)
{
    struct kolo__message message;
    unsigned char again[KOLO__MESSAGE_HEADER_BYTES];
    char text[160];
    if (kolo__message_decode(data, false, &message) != KOLO_OK)
        return;
    kolo__message_encode(&message, false, again);
    KOLO__ASSERT(memcmp(again, data, sizeof again) == 0);
    kolo__signature_text(&message.signature, text, sizeof text);
    KOLO__ASSERT(strlen(text) < sizeof text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const struct kolo__pipe_ops pipe = {
        .write = write_nothing, .read = read_piece, .read_ahead_bytes = 100};
    static const unsigned char untouched[10] = "0123456789";
    static const struct kolo__signature signature = {.epoch = 1,
                                                     .comm = 2,
                                                     .sequence = 3,
                                                     .collective = KOLO__ALLREDUCE,
                                                     .dtype = KOLO_UINT8,
                                                     .count = 10};
    if (bytes >= KOLO__MESSAGE_HEADER_BYTES)
        check_codec(data);

    struct source source = {.data = data, .bytes = bytes};
    KOLO__ASSERT(kolo__stream_init(&source.stream, 0, 2, NULL, &pipe) == KOLO_OK);
    unsigned char received[10];
    memcpy(received, untouched, sizeof received);
    struct kolo__post posts[2] = {
        {.data = received, .bytes = sizeof received, .signature = &signature},
        {.data = NULL, .bytes = 0, .signature = &signature},
    };
    kolo__stream_post_recv(&source.stream.transport, 1, &posts[0]);
    kolo__stream_post_recv(&source.stream.transport, 1, &posts[1]);
    while (kolo__stream_progress(&source.stream))
        continue;
    KOLO__ASSERT(posts[0].bytes_done <= sizeof received);
    KOLO__ASSERT(memcmp(received + posts[0].bytes_done, untouched + posts[0].bytes_done,
                        sizeof received - posts[0].bytes_done) == 0);
    bool failed = source.stream.transport.fault.status != KOLO_OK;
    kolo__stream_release(&source.stream);
    for (int i = 0; i < 2; i++)
        KOLO__ASSERT(posts[i].complete &&
                     (posts[i].status == KOLO_OK || failed || posts[i].status == KOLO_ERR_ABORTED));
    return 0;
}
