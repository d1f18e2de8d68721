/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes the seeds of the fuzz targets here: messages that fit, and each that just does not.
 * Usage: fuzz_wire_seeds tests/fuzz/wire/corpus
 */
#include "base/assert.h"
#include "base/auth.h"
#include "collectives/transport/join.h"
#include "collectives/transport/message.h"

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
    kolo__message_encode(&message, wire);
    for (int i = 0; i < 10; i++)
        wire[KOLO__MESSAGE_HEADER_BYTES + i] = (unsigned char)('a' + i);
    message.bytes = 0;
    message.number = 1;
    kolo__message_encode(&message, second);
    write_seed("message", "two", wire, sizeof wire);
    write_seed("message", "torn", wire, KOLO__MESSAGE_HEADER_BYTES + 5);
    message.signature.count = 11;
    kolo__message_encode(&message, second);
    write_seed("message", "mismatch", wire, sizeof wire);
    message.signature.count = 10;
    message.number = 7;
    kolo__message_encode(&message, second);
    write_seed("message", "lost_one", wire, sizeof wire);
    write_seed("message", "no_header", "GET / HTTP/1.1\r\nHost: kolo.example.com\r\n\r\n", 43);
}

static void write_handshakes(void)
{
    unsigned char seed[1 + KOLO__JOIN_BYTES] = {0};
    struct kolo__join join = {.epoch = 1, .comm = 2, .rank = 1, .size = 3, .job = "j"};
    /* Nonces and proofs of nothing: real ones would differ in every run. */
    memcpy(seed + 1, "kolo\1\2\0\0", 8);
    memset(seed + 9, 'n', 64);
    seed[0] = 0;
    write_seed("handshake", "hello", seed, 1 + KOLO__AUTH_HELLO_BYTES + KOLO__AUTH_PROOF_BYTES);
    seed[0] = 1;
    write_seed("handshake", "reply", seed, 1 + KOLO__AUTH_REPLY_BYTES);
    seed[0] = 2;
    kolo__join_encode(&join, seed + 1);
    write_seed("handshake", "join", seed, 1 + KOLO__JOIN_BYTES);
    join.epoch = 9;
    kolo__join_encode(&join, seed + 1);
    write_seed("handshake", "join_other_epoch", seed, 1 + KOLO__JOIN_BYTES);
    seed[0] = 3;
    kolo__join_answer_encode(KOLO__JOIN_ACCEPTED, &join, seed + 1);
    write_seed("handshake", "accepted", seed, 1 + KOLO__JOIN_ANSWER_BYTES);
    kolo__join_answer_encode(KOLO__JOIN_OTHER_SIZE, &join, seed + 1);
    write_seed("handshake", "refused", seed, 1 + KOLO__JOIN_ANSWER_BYTES);
}

int main(int argc, char **argv)
{
    KOLO__ASSERT(argc == 2);
    folder = argv[1];
    write_messages();
    write_handshakes();
    return 0;
}
