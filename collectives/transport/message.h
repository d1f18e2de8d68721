/* SPDX-License-Identifier: Apache-2.0 */
/* The header in front of each message between ranks (docs/PROTOCOL.md, "Data messages"). */
#ifndef KOLO_COLLECTIVES_TRANSPORT_MESSAGE_H
#define KOLO_COLLECTIVES_TRANSPORT_MESSAGE_H

#include "collectives/transport/transport.h"

enum { KOLO__MESSAGE_VERSION = 1, KOLO__MESSAGE_HEADER_BYTES = 64 };

struct kolo__message {
    struct kolo__signature signature;
    uint64_t bytes;  /* that follow the header */
    uint64_t number; /* of the message on its way from sender to receiver, from 0 */
    uint32_t sender; /* communicator rank */
};

void kolo__message_encode(const struct kolo__message *message,
                          unsigned char header[KOLO__MESSAGE_HEADER_BYTES]);
/* KOLO_ERR_NETWORK with a text when the bytes are no header. */
kolo_status kolo__message_decode(const unsigned char header[KOLO__MESSAGE_HEADER_BYTES],
                                 struct kolo__message *message);

#endif
