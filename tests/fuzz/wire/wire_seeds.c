/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes the seeds of the fuzz targets here: messages that fit, and each that just does not.
 * Usage: fuzz_wire_seeds tests/fuzz/wire/corpus
 */
#include "base/assert.h"
#include "base/bytes.h"
#include "collectives/transport/join.h"
#include "collectives/transport/message.h"
#include "../recorded_hello.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static const char *folder;

static void write_seed(const char *target, const char *name, const void *data, size_t bytes)
{
    char path[4096];
    mkdir(folder, 0777);
    snprintf(path, sizeof path, "%s/%s", folder, target);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/%s/%s", folder, target, name);
    FILE *file = fopen(path, "wb");
    KOLO__ASSERT(file != NULL && fwrite(data, 1, bytes, file) == bytes && fclose(file) == 0);
}

/* What message_fuzz.c expects: ten bytes, then none. */
static void write_messages(void)
{
    unsigned char wire[2 * KOLO__MESSAGE_HEADER_BYTES + 10];
    unsigned char *second = wire + KOLO__MESSAGE_HEADER_BYTES + 10;
    struct kolo__message message = {.signature = {.epoch = 1,
                                                  .comm = 2,
                                                  .sequence = 3,
                                                  .collective = KOLO__ALLREDUCE,
                                                  .dtype = KOLO_UINT8,
                                                  .count = 10},
                                    .bytes = 10,
                                    .sender = 1};
    kolo__message_encode(&message, false, wire);
    for (int i = 0; i < 10; i++)
        wire[KOLO__MESSAGE_HEADER_BYTES + i] = (unsigned char)('a' + i);
    message.bytes = 0;
    message.number = 1;
    kolo__message_encode(&message, false, second);
    write_seed("message", "two", wire, sizeof wire);
    write_seed("message", "torn", wire, KOLO__MESSAGE_HEADER_BYTES + 5);
    static const unsigned char in_block[] = {0x80, 0x30, 1}, in_header[] = {0, 5, 1};
    unsigned char more[sizeof wire + 3];
    memcpy(more, wire, sizeof wire);
    memcpy(more + sizeof wire, in_block, sizeof in_block); /* what is changed: the second one */
    write_seed("message", "changed_payload", more, sizeof more);
    memcpy(more + sizeof wire, in_header, sizeof in_header);
    write_seed("message", "changed_header", more, sizeof more);
    message.signature.count = 11;
    kolo__message_encode(&message, false, second);
    write_seed("message", "mismatch", wire, sizeof wire);
    message.signature.count = 10;
    message.number = 7;
    kolo__message_encode(&message, false, second);
    write_seed("message", "lost_one", wire, sizeof wire);
    write_seed("message", "no_header", "GET / HTTP/1.1\r\nHost: kolo.example.com\r\n\r\n", 43);
}

static void write_joins(void)
{
    unsigned char seed[1 + KOLO__JOIN_BYTES] = {0};
    struct kolo__join join = {.epoch = 1, .comm = 2, .rank = 1, .size = 3, .lanes = 1, .job = "j"};
    kolo__join_encode(&join, seed + 1);
    write_seed("join", "join", seed, 1 + KOLO__JOIN_BYTES);
    join.epoch = 9;
    kolo__join_encode(&join, seed + 1);
    write_seed("join", "join_other_epoch", seed, 1 + KOLO__JOIN_BYTES);
    seed[0] = 1;
    kolo__join_answer_encode(KOLO__JOIN_ACCEPTED, &join, seed + 1);
    write_seed("join", "accepted", seed, 1 + KOLO__JOIN_ANSWER_BYTES);
    kolo__join_answer_encode(KOLO__JOIN_OTHER_SIZE, &join, seed + 1);
    write_seed("join", "refused", seed, 1 + KOLO__JOIN_ANSWER_BYTES);
}

static const char http[] = "GET / HTTP/1.1\r\nHost: kolo.example.com\r\n\r\n";
/* The answer of a server that hides behind a certificate: an alert, and the head of a ServerHello.
 */
static const unsigned char alert[] = {0x15, 3, 3, 0, 2, 2, 40};
static const unsigned char server_hello[] = {0x16, 3, 3, 0, 90, 2, 0, 0, 86, 3, 3, 1, 2, 3, 4, 5};

static void write_handshakes(void)
{
    unsigned char seed[1 + sizeof recorded_hello];
    seed[0] = 0;
    memcpy(seed + 1, recorded_hello, sizeof recorded_hello);
    write_seed("handshake", "hello", seed, sizeof seed);
    write_seed("handshake", "half_a_hello", seed, sizeof seed / 2);
    memcpy(seed + 1, http, sizeof http - 1);
    write_seed("handshake", "http", seed, sizeof http);
    seed[0] = 1;
    memcpy(seed + 1, alert, sizeof alert);
    write_seed("handshake", "alert", seed, 1 + sizeof alert);
    memcpy(seed + 1, server_hello, sizeof server_hello);
    write_seed("handshake", "server_hello", seed, 1 + sizeof server_hello);
    write_seed("handshake", "untouched", "\2", 1);
    write_seed("handshake", "changed_hello", "\2\x20\0\4", 4);
    write_seed("handshake", "changed_answer", "\2\x80\1\1\x90\1\x80", 7);
}

struct play {
    unsigned char data[2048];
    size_t bytes;
};

static void act(struct play *play, unsigned who, const void *data, size_t bytes)
{
    unsigned char *next = play->data + play->bytes;
    next[0] = (unsigned char)who;
    kolo__store_u16(next + 1, (uint16_t)bytes);
    if (who < 3)
        memcpy(next + 3, data, bytes);
    play->bytes += 3 + (who < 3 ? bytes : 0);
}

/* What port_fuzz.c expects. */
static void write_ports(void)
{
    unsigned char join[KOLO__JOIN_BYTES];
    struct kolo__join other = {
        .epoch = 1, .comm = 2, .rank = 1, .size = 3, .lanes = 1, .job = "job"};
    struct play play = {.data = {0}, .bytes = 1};
    kolo__join_encode(&other, join);
    act(&play, 2, join, sizeof join);
    write_seed("port", "other_size", play.data, play.bytes);
    play.bytes = 1;
    other =
        (struct kolo__join){.epoch = 0, .comm = 2, .rank = 1, .size = 2, .lanes = 1, .job = "job"};
    kolo__join_encode(&other, join);
    act(&play, 2, join, 100);
    act(&play, 2, join + 100, sizeof join - 100);
    write_seed("port", "old_epoch", play.data, play.bytes);
    play.bytes = 1;
    act(&play, 0, recorded_hello, sizeof recorded_hello);
    act(&play, 1, http, sizeof http - 1);
    act(&play, 3, NULL, 0);
    write_seed("port", "replayed_hello", play.data, play.bytes);
    play.data[0] = 1;
    act(&play, 0, recorded_hello, 100);
    act(&play, 2, http, sizeof http - 1);
    act(&play, 0, recorded_hello + 100, sizeof recorded_hello - 100);
    write_seed("port", "encrypted", play.data, play.bytes);
}

/* What heap_fuzz.c adds to a grant (40 bytes), a header (40) and a word, or a request (8). */
static void write_heap(void)
{
    enum { GRANT = 40, HEADER = 40, REQUEST = 8 };
    static const unsigned char one = 1 << 1, two = 2 << 1, sized = 1 << 1 | 8, from_member = 1;
    unsigned char seed[1 + GRANT + HEADER + 1] = {one};
    write_seed("heap", "right", seed, 1);
    write_seed("heap", "no_descriptor", "\0", 1);
    seed[0] = two;
    write_seed("heap", "two_descriptors", seed, 1);
    seed[0] = one;
    seed[1] = 1; /* accepted: 0 */
    write_seed("heap", "refused", seed, 2);
    seed[1] = 0;
    seed[1 + GRANT] = 1;
    write_seed("heap", "other_magic", seed, 2 + GRANT);
    seed[1 + GRANT] = 0;
    seed[1 + GRANT + HEADER] = 1;
    write_seed("heap", "other_word", seed, sizeof seed);
    seed[1 + GRANT + HEADER] = 0;
    seed[0] = sized;
    kolo__store_u64(seed + 9, (2 << 20) ^ (uint64_t)(4 << 20)); /* share_bytes */
    write_seed("heap", "other_header", seed, 1 + GRANT);
    kolo__store_u64(seed + 1 + GRANT + 8, (2 << 20) ^ (uint64_t)(4 << 20));
    write_seed("heap", "larger", seed, sizeof seed);
    seed[0] = from_member;
    memset(seed + 1, 0, sizeof seed - 1);
    write_seed("heap", "right_member", seed, 1);
    seed[1 + REQUEST] = 1;
    write_seed("heap", "member_with_other_word", seed, 2 + REQUEST);
    seed[1] = 2;
    write_seed("heap", "member_too_large", seed, 1 + REQUEST);
}

int main(int argc, char **argv)
{
    KOLO__ASSERT(argc == 2);
    folder = argv[1];
    write_messages();
    write_joins();
    write_handshakes();
    write_ports();
    write_heap();
    return 0;
}
