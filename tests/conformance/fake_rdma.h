/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks in one process that move messages by RDMA over verbs that are no device's. */
#ifndef KOLO_TESTS_CONFORMANCE_FAKE_RDMA_H
#define KOLO_TESTS_CONFORMANCE_FAKE_RDMA_H

#include "conformance.h"

/* As the fixture's create. */
kolo_status fake_rdma_create(uint32_t size, bool checksum, struct kolo__transport **transports);

#endif
