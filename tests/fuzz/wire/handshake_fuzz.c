/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first bytes of a data connection: hello, reply, proof, join and answer of somebody who may be
 * anybody. The first byte of an input says which; what can be read is written as it was.
 */
#include "base/assert.h"
#include "base/auth.h"
#include "collectives/transport/join.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* What is missing is zero. */
static void read_as(unsigned char *fixed, size_t wanted, const uint8_t *data, size_t bytes)
{
    memset(fixed, 0, wanted);
    if (bytes > 0)
        memcpy(fixed, data, bytes < wanted ? bytes : wanted);
}

/* Nobody guesses a proof: the nonce is new each time. */
static void check_acceptor(const uint8_t *data, size_t bytes)
{
    unsigned char hello[KOLO__AUTH_HELLO_BYTES], reply[KOLO__AUTH_REPLY_BYTES];
    unsigned char proof[KOLO__AUTH_PROOF_BYTES];
    struct kolo__auth auth;
    kolo__auth_init(&auth, KOLO__AUTH_DATA, "secret");
    read_as(hello, sizeof hello, data, bytes);
    if (kolo__auth_reply(&auth, hello, reply) != KOLO_OK)
        return;
    size_t used = bytes < sizeof hello ? bytes : sizeof hello;
    read_as(proof, sizeof proof, data + used, bytes - used);
    KOLO__ASSERT(kolo__auth_check_proof(&auth, proof) == KOLO_ERR_NETWORK);
}

static void check_initiator(const uint8_t *data, size_t bytes)
{
    unsigned char hello[KOLO__AUTH_HELLO_BYTES], reply[KOLO__AUTH_REPLY_BYTES];
    unsigned char proof[KOLO__AUTH_PROOF_BYTES];
    struct kolo__auth auth;
    kolo__auth_init(&auth, KOLO__AUTH_DATA, "secret");
    KOLO__ASSERT(kolo__auth_hello(&auth, hello) == KOLO_OK);
    read_as(reply, sizeof reply, data, bytes);
    KOLO__ASSERT(kolo__auth_check_reply(&auth, reply, proof) == KOLO_ERR_NETWORK);
}

static void check_join(const uint8_t *data, size_t bytes)
{
    static const struct kolo__join own = {.epoch = 1, .comm = 2, .rank = 0, .size = 3, .job = "j"};
    unsigned char fixed[KOLO__JOIN_BYTES], again[KOLO__JOIN_BYTES];
    struct kolo__join join;
    char text[160];
    read_as(fixed, sizeof fixed, data, bytes);
    if (kolo__join_decode(fixed, &join) != KOLO_OK)
        return;
    KOLO__ASSERT(memchr(join.job, '\0', sizeof join.job) != NULL);
    kolo__join_encode(&join, again);
    KOLO__ASSERT(memcmp(again, fixed, 24 + strlen(join.job)) == 0);
    enum kolo__join_verdict verdict = kolo__join_judge(&own, &join);
    kolo__join_verdict_text(verdict, &own, &join, text, sizeof text);
    KOLO__ASSERT(strlen(text) > 0 && strlen(text) < sizeof text);
    if (verdict == KOLO__JOIN_ACCEPTED)
        KOLO__ASSERT(strcmp(join.job, "j") == 0 && join.epoch == 1 && join.comm == 2);
}

static void check_answer(const uint8_t *data, size_t bytes)
{
    unsigned char fixed[KOLO__JOIN_ANSWER_BYTES], again[KOLO__JOIN_ANSWER_BYTES];
    enum kolo__join_verdict verdict;
    struct kolo__join other;
    read_as(fixed, sizeof fixed, data, bytes);
    if (kolo__join_answer_decode(fixed, &verdict, &other) != KOLO_OK)
        return;
    kolo__join_answer_encode(verdict, &other, again);
    KOLO__ASSERT(memcmp(again, fixed, sizeof fixed) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static void (*const checks[])(const uint8_t *, size_t) = {check_acceptor, check_initiator,
                                                              check_join, check_answer};
    if (bytes > 0)
        checks[data[0] % 4](data + 1, bytes - 1);
    return 0;
}
