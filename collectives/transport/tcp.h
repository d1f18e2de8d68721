/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages over TCP. Two ranks get connected when first needed: the higher rank connects, the lower
 * accepts. There is one connection between them, or one through each network interface, or as many
 * as are wanted (lanes; tcp_lanes.c). Who connects tries the other's addresses one after the other,
 * and again, until one answers that leads to the right rank. Both prove that they know the job's
 * token (base/secure.h), then name job, epoch, communicator and rank; whoever does not fit is
 * refused, logged once, and costs nothing more.
 */
#ifndef KOLO_COLLECTIVES_TRANSPORT_TCP_H
#define KOLO_COLLECTIVES_TRANSPORT_TCP_H

#include "base/interfaces.h"
#include "collectives/transport/transport.h"

enum {
    KOLO__TCP_LANES_MAX = 8,
    /* Of a message, so that with a header as many fit into as many of the bursts in which the
     * kernel sends (65,483 bytes over loopback, hardly less elsewhere) and what is left over does
     * not go out by itself, at the price of a whole one. Whole elements of every dtype. */
    KOLO__TCP_BURST_BYTES = 65408,
};

/* Connections between two ranks that listen there: one through each interface of whoever has fewer,
 * and at least as many as streams. The same on both sides. */
uint32_t kolo__tcp_lanes_between(const struct kolo__endpoint *a, const struct kolo__endpoint *b,
                                 uint32_t streams);

struct kolo__tcp_options {
    uint32_t rank, size;
    uint32_t epoch, comm;
    const char *job, *token; /* copied, or their like */
    bool checksum;           /* CRC-32C of all that is said; the same on all ranks */
    bool encrypt;            /* what follows the handshake too; the same on all ranks */
    int listen_fd;           /* from kolo__listen; passes to the transport, also on failure */
    const struct kolo__endpoint *endpoints; /* size entries, copied: where each rank listens */
    /* Of this host, copied: connections leave by the one in the network of who they go to. NULL:
     * as the system routes them. */
    const struct kolo__interfaces *own_interfaces;
    bool quiet;       /* says nothing of its connections */
    uint32_t streams; /* connections between two ranks, at least; 0: 1. The same on all ranks */
    const char *const *hosts; /* size host names for messages; may be NULL; borrowed until close */
    uint64_t connect_timeout_ns; /* until a host that does not answer is KOLO_ERR_NETWORK */
    long silence_s; /* until one that does not answer any more is lost; 0: by the kernel's limits */
};

kolo_status kolo__tcp_create(const struct kolo__tcp_options *options,
                             struct kolo__transport **transport);

/* A peer that was connected has closed a connection, or it broke, as far as progress and arm have
 * seen. For who moves bytes otherwise, and has posted nothing here. */
bool kolo__tcp_hangup(const struct kolo__transport *transport, uint32_t peer);

#endif
