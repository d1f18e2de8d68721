/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks in one process that move messages by RDMA over verbs that are no device's. */
#ifndef KOLO_TESTS_CONFORMANCE_FAKE_RDMA_H
#define KOLO_TESTS_CONFORMANCE_FAKE_RDMA_H

#include "conformance.h"

/* Zero is the usual for all. */
struct fake_rdma_options {
    bool checksum;
    struct kolo__heap *heap; /* all ranks' */
    uint32_t ports;          /* of each rank; */
    bool uneven;             /* rank 0 has one */
    long connections;        /* of two ports */
    const char *no_dma_buf;  /* the last port takes none: why; NULL: all take them */
};

/* As the fixture's create. */
kolo_status fake_rdma_create(uint32_t size, const struct fake_rdma_options *how,
                             struct kolo__transport **transports);

#endif
