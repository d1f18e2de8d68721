/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of a GPU's memory go through pinned memory of the host, as long as the message, which a
 * communicator keeps for later ones:
 *
 *     kolo_send   GPU -> bounce, behind what the default stream has; sent once the copy is there
 *     kolo_recv   received into the bounce; bounce -> GPU on the default stream
 *
 * Where network cards reach the GPU's memory (rdma_gpus.h) a long one goes straight, and nothing is
 * copied:
 *
 *     kolo_send   sent once the default stream is through with what it has
 *     kolo_recv   written there, if the default stream is through with what it has by then: else
 *                 what it still has may read what was there before. It is not waited for, since it
 *                 may wait for this rank's peers; the message goes by the bounce then, beside it.
 * So it does where the sender's card does not reach the sender's memory.
 *
 * Not by NCCL: one of two ranks may know of NCCL before the other, and nobody else takes part. So
 * each side goes its own way, and what one sends from a GPU the other may receive on the host.
 */
#ifndef KOLO_RUNTIME_BOUNCE_H
#define KOLO_RUNTIME_BOUNCE_H

#include "runtime/comm.h"

/* *bounce, for a message of a buffer on that GPU; with input the copy from there is queued. May
 * make memory. straight: the message is, as far as is known; then it is of no bytes. */
kolo_status kolo__bounce_take(kolo_comm *comm, const char *operation, int ordinal,
                              const void *input, size_t bytes, bool straight,
                              struct kolo__bounce **bounce);
/* Of a recv that is not straight after all: another one, of its bytes. */
kolo_status kolo__bounce_exchange(kolo_request *request, struct kolo__fault *fault);
void *kolo__bounce_memory(struct kolo__bounce *bounce);
/* KOLO_AGAIN: the copy is not there yet, or the default stream not through. A recv that has waited
 * enough is not straight any more. The request that has it. */
kolo_status kolo__bounce_is_ready(kolo_request *request, struct kolo__fault *fault);
/* Queues the copy of what was received; of what came straight, sees to it that the GPU sees it. */
kolo_status kolo__bounce_deliver(const kolo_request *request, struct kolo__fault *fault);
/* NULL is allowed. */
void kolo__bounce_give_back(struct kolo__bounce *bounce);
/* Once the transport is closed, which may write to them until then. */
void kolo__bounces_close(kolo_comm *comm);

#endif
