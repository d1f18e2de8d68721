/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the two ends of a tcp connection tell each other once both have proved that they know the
 * token: who connects, and whether it fits (docs/PROTOCOL.md, "Data connections").
 */
#ifndef KOLO_COLLECTIVES_TRANSPORT_JOIN_H
#define KOLO_COLLECTIVES_TRANSPORT_JOIN_H

#include <kolo/kolo.h>

enum {
    KOLO__JOIN_VERSION = 2,
    KOLO__JOIN_JOB_BYTES = 104, /* with the final zero */
    KOLO__JOIN_BYTES = 128,
    KOLO__JOIN_ANSWER_BYTES = 24,
};

struct kolo__join {
    uint32_t epoch, comm;
    uint32_t rank, size; /* of the one who says it, in the communicator */
    uint8_t lane, lanes; /* which connection of how many between the two; 0 in answers */
    char job[KOLO__JOIN_JOB_BYTES];
};

/* Why a connection is refused; on the wire. */
enum kolo__join_verdict {
    KOLO__JOIN_ACCEPTED = 0,
    KOLO__JOIN_OTHER_JOB = 1,
    KOLO__JOIN_OTHER_EPOCH = 2,
    KOLO__JOIN_OTHER_COMM = 3,
    KOLO__JOIN_OTHER_SIZE = 4,
    KOLO__JOIN_BAD_RANK = 5, /* does not connect to this rank, or is connected already */
    KOLO__JOIN_OTHER_LANES = 6,
};

void kolo__join_encode(const struct kolo__join *join, unsigned char bytes[KOLO__JOIN_BYTES]);
/* KOLO_ERR_NETWORK with a text when the bytes are no join. */
kolo_status kolo__join_decode(const unsigned char bytes[KOLO__JOIN_BYTES], struct kolo__join *join);

/* The answer carries the acceptor's own epoch, comm, rank and size, so that both sides can be
 * shown. */
void kolo__join_answer_encode(enum kolo__join_verdict verdict, const struct kolo__join *own,
                              unsigned char bytes[KOLO__JOIN_ANSWER_BYTES]);
kolo_status kolo__join_answer_decode(const unsigned char bytes[KOLO__JOIN_ANSWER_BYTES],
                                     enum kolo__join_verdict *verdict, struct kolo__join *other);

/* Everything but rank and lanes, which need to know who is connected already. */
enum kolo__join_verdict kolo__join_judge(const struct kolo__join *own,
                                         const struct kolo__join *other);
/* "it is of epoch 3, this rank of epoch 2"; returns text. */
const char *kolo__join_verdict_text(enum kolo__join_verdict verdict, const struct kolo__join *own,
                                    const struct kolo__join *other, char *text, size_t bytes);

#endif
