/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way through the host's memory, for buffers in a GPU's memory that NCCL does not take: there
 * is no NCCL, or it lacks the type or the operation. All ranks go it, or none: what decides is the
 * call's arguments, and what they agreed on about NCCL.
 *
 *     GPU     | chunk 0 | chunk 1 | chunk 2 | chunk 3 |          a chunk of each slice
 *                  |         |         |
 *     pinned      [A]       [B]       [A]                        two slots take turns
 *                  |         |         |
 *     network   collective  collective ...                       kolo's own, of the chunk
 *
 * While a chunk is in the network the one before it is copied to the GPU and the one after it from
 * there, on two streams of kolo's own, in the order that events make. The host waits for what the
 * caller's stream had before the call, since it has to send it; but not for what is copied back:
 * the caller's stream does.
 */
#ifndef KOLO_RUNTIME_STAGING_H
#define KOLO_RUNTIME_STAGING_H

#include "runtime/call.h"

/* The plan of such a call. Collective the first time, when it makes the slots: KOLO_ERR_UNSUPPORTED
 * or KOLO_ERR_MEMORY on all ranks if one of them cannot. why: there is no NCCL for it, as
 * "NCCL has no ...". */
kolo_status kolo__staging_plan(kolo_comm *comm, const struct kolo__call *call, int ordinal,
                               const char *why, struct kolo__plan_key *key,
                               struct kolo__plan **plan);
/* Once the transport is closed, which may write to the slots until then. */
void kolo__staging_close(kolo_comm *comm);

/* As kolo__run_begin, kolo__run_progress, kolo__run_state and kolo__run_waiting_for, for requests
 * with such a plan. */
kolo_status kolo__staging_begin(kolo_request *request, struct kolo__fault *fault);
kolo_status kolo__staging_progress(kolo_request *request, bool *moved, struct kolo__fault *fault);
void kolo__staging_state(const kolo_request *request, char *text, size_t bytes);
int kolo__staging_waiting_for(const kolo_request *request);

#endif
