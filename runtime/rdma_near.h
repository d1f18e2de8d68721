/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which network cards are near: to the processors that this rank may run on, and to its GPU, whose
 * bytes then cross nothing that others use. hwloc knows the machine.
 *
 *     machine -- package -- node -- host bridge -- bridge (switch) -- GPU
 *                                                         |--------- card        15 - 1
 *                                        |--------- card                         3
 *                             |--------- card                                    2
 *                  |--------- card                                               1
 */
#ifndef KOLO_RUNTIME_RDMA_NEAR_H
#define KOLO_RUNTIME_RDMA_NEAR_H

#include "collectives/transport/rdma_module.h"

#include <hwloc.h>

/* Returns the NUMA node that this process runs on, -1: several, or not known; and sets gpu_near of
 * the ports, where the calling thread uses a GPU already (torch.cuda.set_device). Costs some
 * milliseconds where there is more than one port. */
int kolo__rdma_look_around(struct kolo__rdma_survey *survey);

/* How near two PCI devices are, "0000:19:00.0": 15 - n where a bridge joins them, n bridges from
 * the first (at least 4); 3 at one host bridge, 2 at one NUMA node, 1 in one package; 0 else, and
 * where one of them is not there. The topology has all bridges and PCI devices. */
uint32_t kolo__rdma_nearness(hwloc_topology_t topology, const char *one, const char *other);

#endif
