/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of libkolo-rdma.so, shared by the files that make it up:
 *
 *   rdma_device_module.c   what there is; devices and registered memory
 *   rdma_dma_buf_module.c  memory of GPUs
 *   rdma_module.c          links, what is written and completes; the table
 */
#ifndef KOLO_COLLECTIVES_TRANSPORT_RDMA_VERBS_H
#define KOLO_COLLECTIVES_TRANSPORT_RDMA_VERBS_H

#include "collectives/transport/rdma_module.h"

#include <infiniband/verbs.h>

struct kolo__rdma_device {
    struct ibv_context *context;
    struct ibv_pd *pd;
    struct ibv_comp_channel *channel;
    struct ibv_cq *cq;
    int cq_wanted; /* completions that all links may leave at once */
    uint32_t port;
    bool on_demand; /* it can look for pages when it needs them */
};

struct kolo__rdma_region {
    struct ibv_mr *mr;
};

enum { KOLO__VERBS_PIECES = 4 }; /* of a work request: inline ones have several */

/* Returns false. */
bool kolo__verbs_failed(char *why, size_t bytes, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* What to do about this errno of verbs; "": nothing is known. */
const char *kolo__verbs_remedy(int failure);
uint32_t kolo__verbs_mtu_bytes(enum ibv_mtu mtu);

/* Whether the device takes dma-bufs: "", or why it takes none. */
const char *kolo__verbs_try_dma_buf(struct ibv_context *context);

/* For the slots of the same names in the table. */
bool kolo__verbs_survey(struct kolo__rdma_survey *survey, char *why, size_t bytes);
struct kolo__rdma_device *kolo__verbs_open(const char *name, uint32_t port,
                                           const struct kolo__rdma_needs *needs, char *why,
                                           size_t bytes);
void kolo__verbs_close(struct kolo__rdma_device *device);
bool kolo__verbs_take_trouble(struct kolo__rdma_device *device, bool *fatal, bool *port_down,
                              bool *port_up, const char **text);
struct kolo__rdma_region *kolo__verbs_region_open(struct kolo__rdma_device *device, void *memory,
                                                  size_t memory_bytes, bool may_fault,
                                                  uint32_t *remote_key, char *why, size_t bytes);
struct kolo__rdma_region *kolo__verbs_region_open_dma_buf(struct kolo__rdma_device *device, int fd,
                                                          uint64_t offset, size_t memory_bytes,
                                                          uint64_t address, uint32_t *remote_key,
                                                          bool *never, char *why, size_t bytes);
void kolo__verbs_region_close(struct kolo__rdma_region *region);

#endif
