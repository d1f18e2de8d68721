/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages over RDMA: bytes are written by the network card straight into a ring in the receiver's
 * memory, and no system call moves any. Two ranks get connected when first needed, as over TCP: a
 * TCP connection between them, which has proved the job's token, carries what the cards have to
 * know of each other, and tells afterwards when the other process ends.
 */
#ifndef KOLO_COLLECTIVES_TRANSPORT_RDMA_H
#define KOLO_COLLECTIVES_TRANSPORT_RDMA_H

#include "collectives/transport/heap.h"
#include "collectives/transport/rdma_module.h"
#include "collectives/transport/rdma_select.h"
#include "collectives/transport/transport.h"

struct kolo__rdma_setup {
    const struct kolo__rdma_module *module;
    struct kolo__rdma_options options;
    /* The ports to use, up to KOLO__RDMA_RAILS_MAX; copied. Networks of the same kind on all ranks.
     */
    const struct kolo__rdma_choice *choices;
    uint32_t choice_count;
    struct kolo__heap *heap; /* whose blocks cards reach; NULL: none. Borrowed until close */
    /* Of the same ranks; nothing else uses it. Passes to the new transport, also on failure. */
    struct kolo__transport *tcp;
    uint32_t epoch, comm;
    bool checksum;            /* CRC-32C of all that is said; the same on all ranks */
    const char *const *hosts; /* size host names for messages; may be NULL; borrowed until close */
    uint64_t patience_ns;     /* until a port without link, or what nobody confirms, is given up */
};

/* Of each connection. */
extern const struct kolo__rdma_depths kolo__rdma_depths;

kolo_status kolo__rdma_create(const struct kolo__rdma_setup *setup,
                              struct kolo__transport **transport);

/* What went over the wire so far, for tests: equal to the formulas in rdma_transport.h. */
struct kolo__rdma_counts {
    uint64_t data_writes, data_bytes; /* work requests with bytes of messages */
    uint64_t inline_writes;           /* those of them that need no registered memory */
    uint64_t straight_bytes;          /* those of them that nobody copies */
    uint64_t offer_writes;            /* that say where a long message is wanted */
    uint64_t credit_writes;           /* that tell what was read */
};
struct kolo__rdma_counts kolo__rdma_count(const struct kolo__transport *transport);

#endif
