/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Allreduces of few bytes among the GPUs of one host by kolo's own kernels
 * (kernels/cuda/exchange.h), which read each other's memory: one kernel, and nobody waits for the
 * host.
 *
 *     first such call            every rank: a region on its GPU, and its handle told to all by the
 *       kolo__exchange_open        host's memory; all map all others; did all succeed?
 *     every call                 one kernel on the caller's stream
 *       kolo__exchange_begin
 *     a fault of the             the stop word is set: kernels that wait for another rank return
 *     communicator
 *       kolo__exchange_fail
 *     the caller waits for       a thread watches, and sets the stop word (watch.h)
 *     his stream
 *
 * All ranks go this way or none: whatever one of them lacks, all learn, rank 0 says so once, and
 * these calls go where the others do. KOLO_GPU_EXCHANGE turns it on; off until there are figures of
 * several GPUs.
 */
#ifndef KOLO_RUNTIME_EXCHANGE_H
#define KOLO_RUNTIME_EXCHANGE_H

#include "runtime/call.h"

/* By what all ranks know alike: that it may go this way. */
bool kolo__exchange_takes(const kolo_comm *comm, const struct kolo__call *call);
/* Collective; blocks the first time, and then answers what it found. ordinal: of this rank's GPU.
 * KOLO_ERR_UNSUPPORTED: not this way, on no rank. */
kolo_status kolo__exchange_open(kolo_comm *comm, const char *operation, int ordinal);
/* Local. Waits for what is on the streams, some seconds at most. The own region is left to the end
 * of the process: another rank's last kernel may still read it, and nobody tells when that is done.
 */
void kolo__exchange_close(kolo_comm *comm);
/* The communicator is poisoned. */
void kolo__exchange_fail(kolo_comm *comm);

/* A request whose plan is kolo__offload_exchange's, as in offload.h. Done: it is on the stream. */
kolo_status kolo__exchange_begin(kolo_request *request, struct kolo__fault *fault);
kolo_status kolo__exchange_progress(const kolo_request *request);

#endif
