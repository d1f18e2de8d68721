/* SPDX-License-Identifier: Apache-2.0 */
/* The header in front of each message between ranks (docs/PROTOCOL.md, "Data messages"). */
#ifndef KOLO_COLLECTIVES_TRANSPORT_MESSAGE_H
#define KOLO_COLLECTIVES_TRANSPORT_MESSAGE_H

#include "collectives/transport/transport.h"

enum {
    KOLO__MESSAGE_VERSION = 1,
    KOLO__MESSAGE_HEADER_BYTES = 64,
    /* With checksums: each so many bytes of payload, and the last few, have theirs behind them. */
    KOLO__MESSAGE_BLOCK_BYTES = 65536,
    KOLO__MESSAGE_CHECKSUM_BYTES = 4,
};

/* Nothing is sent again: what changed one message has changed others before, or will. */
#define KOLO__CHECKSUM_REMEDY                                                                      \
    "a network card, cable, switch or memory on the way is faulty, and results so far may be "     \
    "wrong; "                                                                                      \
    "try without the card's offloads (ethtool -K INTERFACE tx off rx off tso off gro off), or "    \
    "other hosts"

struct kolo__message {
    struct kolo__signature signature;
    uint64_t bytes;  /* that follow the header */
    uint64_t number; /* of the message on its way from sender to receiver, from 0 */
    uint32_t sender; /* communicator rank */
};

/* checksum: the last four bytes are the CRC-32C of those before them; otherwise zero. */
void kolo__message_encode(const struct kolo__message *message, bool checksum,
                          unsigned char header[KOLO__MESSAGE_HEADER_BYTES]);
/* KOLO_ERR_NETWORK with a text when the bytes are no header, or have changed on their way. */
kolo_status kolo__message_decode(const unsigned char header[KOLO__MESSAGE_HEADER_BYTES],
                                 bool checksum, struct kolo__message *message);

#endif
