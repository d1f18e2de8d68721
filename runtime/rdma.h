/* SPDX-License-Identifier: Apache-2.0 */
/* RDMA in a world that wants it: the module, and the port that this rank uses. */
#ifndef KOLO_RUNTIME_RDMA_H
#define KOLO_RUNTIME_RDMA_H

#include "runtime/comm.h"

struct kolo__rdma_port_in_use;

/* Does nothing where options want no RDMA. KOLO_ERR_UNSUPPORTED, KOLO_ERR_CONFIG: why there can be
 * none. */
kolo_status kolo__context_open_rdma(kolo_context *context);
void kolo__context_close_rdma(kolo_context *context);

/* *transport: of a communicator's ranks, by TCP; if the world wants RDMA, by RDMA from here on. It
 * is closed, and NULL, on failure. */
kolo_status kolo__rdma_take_over(const kolo_comm *comm, struct kolo__transport **transport);

#endif
