/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages over TCP. One connection a pair of ranks, made when first needed: the higher rank
 * connects, the lower accepts. Who connects tries the other's addresses one after the other, and
 * again, until one answers that leads to the right rank. Both prove that they know the job's token
 * (base/secure.h), then name job, epoch, communicator and rank; whoever does not fit is refused,
 * logged once, and costs nothing more.
 */
#ifndef KOLO_COLLECTIVES_TRANSPORT_TCP_H
#define KOLO_COLLECTIVES_TRANSPORT_TCP_H

#include "base/socket.h"
#include "collectives/transport/transport.h"

struct kolo__tcp_options {
    uint32_t rank, size;
    uint32_t epoch, comm;
    const char *job, *token; /* copied, or their like */
    bool encrypt;            /* what follows the handshake too; the same on all ranks */
    int listen_fd;           /* from kolo__listen; passes to the transport, also on failure */
    const struct kolo__endpoint *endpoints; /* size entries, copied: where each rank listens */
    const char *const *hosts; /* size host names for messages; may be NULL; borrowed until close */
    uint64_t connect_timeout_ns; /* until a host that does not answer is KOLO_ERR_NETWORK */
    long silence_s; /* until one that does not answer any more is lost; 0: by the kernel's limits */
};

kolo_status kolo__tcp_create(const struct kolo__tcp_options *options,
                             struct kolo__transport **transport);

#endif
