/* SPDX-License-Identifier: Apache-2.0 */
/* How the heap's descriptor gets from member 0, which made it, to the other members. */
#ifndef KOLO_COLLECTIVES_TRANSPORT_HEAP_PASS_H
#define KOLO_COLLECTIVES_TRANSPORT_HEAP_PASS_H

#include "collectives/transport/heap.h"

enum { KOLO__HEAP_NONCE_BYTES = 16 };

/* What comes with the descriptor; the first page of the heap says the same. */
struct kolo__heap_geometry {
    uint64_t share_bytes;
    uint32_t members, reserved; /* no padding: it travels, and is compared, as bytes */
    unsigned char nonce[KOLO__HEAP_NONCE_BYTES];
};

/* Member 0 has the name, before anybody can ask for it. */
kolo_status kolo__heap_listen(const struct kolo__heap_options *options, int *listen_fd);
/* Member 0: passes the descriptor to all others, and returns when all have mapped it. */
kolo_status kolo__heap_serve(const struct kolo__heap_options *options, int listen_fd, int heap_fd,
                             const struct kolo__heap_geometry *geometry);

/* The others: the descriptor (owned by the caller) and a connection for kolo__heap_confirm. */
kolo_status kolo__heap_fetch(const struct kolo__heap_options *options, int *heap_fd,
                             struct kolo__heap_geometry *geometry, int *connection_fd);
/* Says that this member has mapped the heap, and waits until all have. Closes the connection. */
kolo_status kolo__heap_confirm(const struct kolo__heap_options *options, int connection_fd);

#endif
