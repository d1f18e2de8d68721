/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks in one process that move messages by RDMA over verbs that are no device's. */
#ifndef KOLO_TESTS_CONFORMANCE_FAKE_RDMA_H
#define KOLO_TESTS_CONFORMANCE_FAKE_RDMA_H

#include "harness.h"

/* Zero is the usual for all. */
struct fake_rdma_options {
    bool checksum;
    struct kolo__heap *heap; /* all ranks' */
    uint32_t ports;          /* of each rank; */
    bool uneven;             /* rank 0 has one */
    long connections;        /* of two ports */
    const char *no_dma_buf;  /* the last port takes none: why; NULL: all take them */
};

/* Of those that are made next. */
extern struct fake_rdma_options fake_rdma_how;

/* A fixture's create; seed is not used. */
kolo_status fake_rdma_create(uint32_t size, uint64_t seed, struct kolo__transport **transports,
                             void **world);

/* A message from rank 0 to rank 1, to the end. */
void pass_message(struct world *world, size_t bytes);

#endif
