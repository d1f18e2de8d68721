/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KOLO_COLLECTIVES_TRANSPORT_RDMA_LOAD_H
#define KOLO_COLLECTIVES_TRANSPORT_RDMA_LOAD_H

#include "collectives/transport/rdma_module.h"

#include <kolo/kolo.h>

/* The system knows an RDMA device: else the module need not be loaded to find that there is none.
 */
bool kolo__rdma_exists(void);
/* Loads libkolo-rdma.so (base/module.h). */
kolo_status kolo__rdma_load(const struct kolo__rdma_module **module);

#endif
