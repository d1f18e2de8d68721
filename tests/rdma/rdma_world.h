/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks that move messages by RDMA in the virtual machine, on its two devices in turn. */
#ifndef KOLO_TESTS_RDMA_WORLD_H
#define KOLO_TESTS_RDMA_WORLD_H

#include "base/socket.h"
#include "collectives/transport/rdma.h"

enum { RDMA_WORLD_PATIENCE_S = 5 };

struct rdma_rank {
    uint32_t rank, size;
    bool checksum;
    struct kolo__heap *heap; /* as in struct kolo__rdma_setup */
    bool both;               /* devices, the own one first */
};

/* Ends the program where there is no RDMA. */
void rdma_world_begin(void);
/* listen_fd (tcp_ends.h) passes to the transport. */
kolo_status rdma_world_join(const struct rdma_rank *rank, int listen_fd,
                            const struct kolo__endpoint *endpoints,
                            struct kolo__transport **transport);

#endif
