/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks of one process that meet over loopback: what all fixtures with TCP in them begin with. */
#ifndef KOLO_TESTS_CONFORMANCE_TCP_ENDS_H
#define KOLO_TESTS_CONFORMANCE_TCP_ENDS_H

#include "collectives/transport/tcp.h"

/* A listening socket for each of `size` ranks, and where it is. */
kolo_status tcp_ends_listen(uint32_t size, int *listeners, struct kolo__endpoint *endpoints);
/* Plain, one connection between two ranks. */
struct kolo__tcp_options tcp_ends_options(uint32_t rank, uint32_t size, int listen_fd,
                                          const struct kolo__endpoint *endpoints);

#endif
