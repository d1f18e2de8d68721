/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RDMA in a world: the module, and the port that this rank uses. Options that demand it are an
 * error where there can be none. Without one (auto) it is taken between hosts if a message has come
 * through by it, and TCP otherwise, on all ranks alike (rdma_auto.c).
 */
#ifndef KOLO_RUNTIME_RDMA_H
#define KOLO_RUNTIME_RDMA_H

#include "collectives/transport/rdma.h"
#include "runtime/comm.h"

struct kolo__rdma_port_in_use {
    const struct kolo__rdma_module *module;
    struct kolo__rdma_options options;
    struct kolo__rdma_survey survey;
    struct kolo__rdma_choice choices[KOLO__RDMA_RAILS_MAX]; /* in survey */
    uint32_t choice_count;
};

/* Which ports the rank of this turn, of so many on its host, would use, at this process's NUMA
 * node. own, unasked: as for kolo__rdma_choose. KOLO_ERR_UNSUPPORTED, KOLO_ERR_CONFIG: why none.
 * The caller frees *use. */
kolo_status kolo__rdma_find_port(const struct kolo__interfaces *own, uint32_t turn, uint32_t ranks,
                                 bool unasked, struct kolo__rdma_port_in_use **use);
uint32_t kolo__rdma_turn(const kolo_context *context);
uint32_t kolo__rdma_ranks(const kolo_context *context); /* 0: not known */
/* For whoever asks for it in the log. */
void kolo__rdma_say_ports(const struct kolo__rdma_port_in_use *use);

/* Where options demand RDMA. KOLO_ERR_UNSUPPORTED, KOLO_ERR_CONFIG: why there can be none. */
kolo_status kolo__context_demand_rdma(kolo_context *context);
/* Where they leave it open: collective over the world, after the introductions. What cannot be
 * tried within some seconds is not taken. Fails as the control plane does. */
kolo_status kolo__context_try_rdma(kolo_context *context, uint64_t deadline_ns);
void kolo__context_close_rdma(kolo_context *context);

/* *transport: of a communicator's ranks, by TCP; if the world has RDMA, by RDMA from here on. It is
 * closed, and NULL, on failure. */
kolo_status kolo__rdma_take_over(const kolo_comm *comm, struct kolo__transport **transport);

#endif
