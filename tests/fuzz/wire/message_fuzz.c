/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a peer sends once it is connected: the input arrives, in pieces, where two messages of 10
 * and 0 bytes are expected. Each receive ends exactly once, and nothing is written that is not part
 * of a message that fits.
 *
 * Then the same as it is with KOLO_CHECKSUM=1: a block more stands before the 10 bytes, the right
 * checksums are put where they belong, and one byte of all that is changed, or none. A changed byte
 * is never believed.
 */
#include "base/assert.h"
#include "base/bytes.h"
#include "collectives/transport/stream.h"
#include "kernels/crc32c.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

enum {
    PAYLOAD = 10,
    HEADER = KOLO__MESSAGE_HEADER_BYTES,
    SUM = KOLO__MESSAGE_CHECKSUM_BYTES,
    BLOCK = KOLO__MESSAGE_BLOCK_BYTES,
    BYTES_AT = 40, /* in a header, as COUNT_AT and SUM_AT */
    COUNT_AT = 32,
    SUM_AT = 60,
    REST_MAX = 1024, /* bytes behind the second header that are taken */
};

struct source {
    struct kolo__stream stream; /* first */
    const uint8_t *data;
    size_t bytes, calls, piece_max;
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

/* Pieces of different lengths, so that they end anywhere. */
static kolo_status read_piece(struct kolo__stream *stream, uint32_t peer, const struct iovec *parts,
                              int part_count, size_t *moved)
{
    struct source *source = (struct source *)(void *)stream;
    size_t piece = 1 + source->calls++ * 31 % source->piece_max;
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

/* Receives into `received` what is expected. Returns how many bytes of the first message, and in
 * *failed whether the transport has a fault. */
static size_t receive(struct source *source, bool checksum, unsigned char *received, size_t bytes,
                      bool *failed)
{
    static const struct kolo__pipe_ops pipe = {.write = write_nothing,
                                               .read = read_piece,
                                               .read_ahead_bytes = 100,
                                               .short_message_bytes = 200,
                                               .stop = kolo__pipe_lends_nothing};
    const struct kolo__signature signature = {.epoch = 1,
                                              .comm = 2,
                                              .sequence = 3,
                                              .collective = KOLO__ALLREDUCE,
                                              .dtype = KOLO_UINT8,
                                              .count = bytes};
    KOLO__ASSERT(kolo__stream_init(&source->stream, 0, 2, NULL, &pipe) == KOLO_OK);
    source->stream.checksum = checksum;
    struct kolo__post posts[2] = {
        {.data = received, .bytes = bytes, .signature = &signature},
        {.data = NULL, .bytes = 0, .signature = &signature},
    };
    kolo__stream_post_recv(&source->stream.transport, 1, &posts[0]);
    kolo__stream_post_recv(&source->stream.transport, 1, &posts[1]);
    while (kolo__stream_progress(&source->stream))
        continue;
    *failed = source->stream.transport.fault.status != KOLO_OK;
    kolo__stream_release(&source->stream);
    for (int i = 0; i < 2; i++)
        KOLO__ASSERT(posts[i].complete && (posts[i].status == KOLO_OK || *failed ||
                                           posts[i].status == KOLO_ERR_ABORTED));
    KOLO__ASSERT(posts[0].bytes_done <= bytes);
    return posts[0].bytes_done;
}

static void check_plain(const uint8_t *data, size_t bytes)
{
    static const unsigned char untouched[PAYLOAD] = "0123456789";
    struct source source = {.data = data, .bytes = bytes, .piece_max = 97};
    unsigned char received[PAYLOAD];
    bool failed;
    memcpy(received, untouched, sizeof received);
    size_t done = receive(&source, false, received, sizeof received, &failed);
    KOLO__ASSERT(memcmp(received + done, untouched + done, sizeof received - done) == 0);
}

/* ---- with checksums -------------------------------------------------------------------------- */

/* Appends them, and their checksum. */
static unsigned char *put_block(unsigned char *to, const uint8_t *data, size_t bytes)
{
    memcpy(to, data, bytes);
    kolo__store_u32(to + bytes, kolo__crc32c(0, to, bytes));
    return to + bytes + SUM;
}

/* The first message is a block longer than the input says. */
static unsigned char *put_header(unsigned char *to, const uint8_t *data, size_t longer)
{
    memcpy(to, data, HEADER);
    kolo__store_u64(to + BYTES_AT, kolo__load_u64(to + BYTES_AT) + longer);
    kolo__store_u64(to + COUNT_AT, kolo__load_u64(to + COUNT_AT) + BLOCK);
    kolo__store_u32(to + SUM_AT, kolo__crc32c(0, to, SUM_AT));
    return to + HEADER;
}

static void check_with_checksums(const uint8_t *data, size_t bytes)
{
    static unsigned char block[BLOCK], received[BLOCK + PAYLOAD];
    static unsigned char wire[2 * HEADER + BLOCK + SUM + PAYLOAD + SUM + REST_MAX];
    unsigned char *end = wire;
    bool failed;
    if (bytes < 2 * HEADER + PAYLOAD || bytes > 2 * HEADER + PAYLOAD + REST_MAX)
        return;
    for (size_t i = 0; i < BLOCK; i++)
        block[i] = (unsigned char)(i * 7 + i / 251);
    end = put_header(end, data, BLOCK);
    end = put_block(end, block, BLOCK);
    end = put_block(end, data + HEADER, PAYLOAD);
    end = put_header(end, data + HEADER + PAYLOAD, 0);
    size_t whole = (size_t)(end - wire), rest = bytes - 2 * HEADER - PAYLOAD;
    memcpy(end, data + 2 * HEADER + PAYLOAD, rest);
    /* The input's own last three bytes say what is changed on the way. */
    const uint8_t *last = data + bytes - 3;
    size_t at = (size_t)last[0] << 9 | last[1] << 1;
    uint8_t change = rest >= 3 ? last[2] : 0;
    if (at < whole)
        wire[at] ^= change;
    struct source source = {.data = wire, .bytes = whole + rest, .piece_max = 9973};
    size_t done = receive(&source, true, received, sizeof received, &failed);
    size_t of_block = done < BLOCK ? done : BLOCK;
    KOLO__ASSERT(memcmp(received, block, of_block) == 0);
    KOLO__ASSERT(memcmp(received + of_block, data + HEADER, done - of_block) == 0);
    KOLO__ASSERT(failed || change == 0 || at >= whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes >= HEADER)
        check_codec(data);
    check_plain(data, bytes);
    check_with_checksums(data, bytes);
    return 0;
}
