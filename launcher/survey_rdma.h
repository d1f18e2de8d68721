/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KOLO_LAUNCHER_SURVEY_RDMA_H
#define KOLO_LAUNCHER_SURVEY_RDMA_H

#include "base/interfaces.h"
#include "launcher/findings.h"

/* The RDMA ports of this machine, and which of them a rank would use, or in one line why none.
 * own: the addresses of this host. */
void kolo__tell_rdma(struct kolo__findings *findings, const struct kolo__interfaces *own);

#endif
