/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Little endian:
 *
 *   join    0 "kojn"  4 version:u16  6 lane:u8  7 lanes:u8  8 epoch:u32  12 comm:u32  16 rank:u32
 *           20 size:u32  24 job[104], filled up with zeros, the last one always zero
 *   answer  0 "koja"  4 version:u16  6 verdict:u16  8 epoch:u32  12 comm:u32  16 rank:u32
 *           20 size:u32
 */
#include "collectives/transport/join.h"

#include "base/bytes.h"
#include "base/status.h"

#include <stdio.h>
#include <string.h>

static const unsigned char join_magic[4] = {'k', 'o', 'j', 'n'};
static const unsigned char answer_magic[4] = {'k', 'o', 'j', 'a'};

static void encode_head(const unsigned char *magic, uint16_t number, const struct kolo__join *join,
                        unsigned char *bytes)
{
    memcpy(bytes, magic, 4);
    kolo__store_u16(bytes + 4, KOLO__JOIN_VERSION);
    kolo__store_u16(bytes + 6, number);
    kolo__store_u32(bytes + 8, join->epoch);
    kolo__store_u32(bytes + 12, join->comm);
    kolo__store_u32(bytes + 16, join->rank);
    kolo__store_u32(bytes + 20, join->size);
}

static kolo_status decode_head(const unsigned char *magic, const unsigned char *bytes,
                               struct kolo__join *join)
{
    if (memcmp(bytes, magic, 4) != 0)
        return kolo__error(KOLO_ERR_NETWORK, "the other side does not speak kolo");
    if (kolo__load_u16(bytes + 4) != KOLO__JOIN_VERSION)
        return kolo__error(KOLO_ERR_NETWORK,
                           "the other side joins with version %u, this kolo speaks %u",
                           kolo__load_u16(bytes + 4), (unsigned)KOLO__JOIN_VERSION);
    memset(join, 0, sizeof *join);
    join->epoch = kolo__load_u32(bytes + 8);
    join->comm = kolo__load_u32(bytes + 12);
    join->rank = kolo__load_u32(bytes + 16);
    join->size = kolo__load_u32(bytes + 20);
    return KOLO_OK;
}

void kolo__join_encode(const struct kolo__join *join, unsigned char bytes[KOLO__JOIN_BYTES])
{
    memset(bytes, 0, KOLO__JOIN_BYTES);
    encode_head(join_magic, (uint16_t)(join->lane | join->lanes << 8), join, bytes);
    memcpy(bytes + 24, join->job, strnlen(join->job, KOLO__JOIN_JOB_BYTES - 1));
}

kolo_status kolo__join_decode(const unsigned char bytes[KOLO__JOIN_BYTES], struct kolo__join *join)
{
    kolo_status status = decode_head(join_magic, bytes, join);
    if (status != KOLO_OK)
        return status;
    join->lane = bytes[6];
    join->lanes = bytes[7];
    if (join->lane >= join->lanes || bytes[KOLO__JOIN_BYTES - 1] != 0)
        return kolo__error(KOLO_ERR_NETWORK, "a join of connection %u of %u, or without an end",
                           join->lane, join->lanes);
    memcpy(join->job, bytes + 24, KOLO__JOIN_JOB_BYTES);
    return KOLO_OK;
}

void kolo__join_answer_encode(enum kolo__join_verdict verdict, const struct kolo__join *own,
                              unsigned char bytes[KOLO__JOIN_ANSWER_BYTES])
{
    encode_head(answer_magic, (uint16_t)verdict, own, bytes);
}

kolo_status kolo__join_answer_decode(const unsigned char bytes[KOLO__JOIN_ANSWER_BYTES],
                                     enum kolo__join_verdict *verdict, struct kolo__join *other)
{
    kolo_status status = decode_head(answer_magic, bytes, other);
    if (status != KOLO_OK)
        return status;
    uint16_t number = kolo__load_u16(bytes + 6);
    if (number > KOLO__JOIN_OTHER_LANES)
        return kolo__error(KOLO_ERR_NETWORK, "unknown answer %u to a join", number);
    *verdict = (enum kolo__join_verdict)number;
    return KOLO_OK;
}

enum kolo__join_verdict kolo__join_judge(const struct kolo__join *own,
                                         const struct kolo__join *other)
{
    if (strcmp(own->job, other->job) != 0)
        return KOLO__JOIN_OTHER_JOB;
    if (own->epoch != other->epoch)
        return KOLO__JOIN_OTHER_EPOCH;
    if (own->comm != other->comm)
        return KOLO__JOIN_OTHER_COMM;
    if (own->size != other->size)
        return KOLO__JOIN_OTHER_SIZE;
    return KOLO__JOIN_ACCEPTED;
}

const char *kolo__join_verdict_text(enum kolo__join_verdict verdict, const struct kolo__join *own,
                                    const struct kolo__join *other, char *text, size_t bytes)
{
    switch (verdict) {
    case KOLO__JOIN_ACCEPTED:
        snprintf(text, bytes, "accepted");
        break;
    case KOLO__JOIN_OTHER_JOB:
        snprintf(text, bytes, "it is of another job than '%s'", own->job);
        break;
    case KOLO__JOIN_OTHER_EPOCH:
        snprintf(text, bytes, "it is of epoch %u, this rank of epoch %u", other->epoch, own->epoch);
        break;
    case KOLO__JOIN_OTHER_COMM:
        snprintf(text, bytes, "it is of communicator %u, this rank of communicator %u", other->comm,
                 own->comm);
        break;
    case KOLO__JOIN_OTHER_SIZE:
        snprintf(text, bytes, "its communicator has %u ranks, this rank's has %u", other->size,
                 own->size);
        break;
    case KOLO__JOIN_BAD_RANK:
        snprintf(text, bytes, "rank %u does not expect a connection between it and rank %u",
                 own->rank, other->rank);
        break;
    case KOLO__JOIN_OTHER_LANES:
        snprintf(text, bytes,
                 "rank %u and rank %u differ in how many connections there are between them: "
                 "set KOLO_STREAMS alike",
                 own->rank, other->rank);
        break;
    }
    return text;
}
