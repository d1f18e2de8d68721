/* SPDX-License-Identifier: Apache-2.0 */
/* Several transports as one: each peer is reached through one of them. */
#ifndef KOLO_COLLECTIVES_TRANSPORT_MUX_H
#define KOLO_COLLECTIVES_TRANSPORT_MUX_H

#include "collectives/transport/transport.h"

/* route[peer]: index into children. The children pass to the mux (closed with it, also on failure).
 * A fault of one is a fault of all. */
kolo_status kolo__mux_create(uint32_t rank, uint32_t size, struct kolo__transport *const *children,
                             uint32_t child_count, const uint8_t *route,
                             struct kolo__transport **transport);

#endif
