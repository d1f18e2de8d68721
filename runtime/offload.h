/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Allreduces that the host's MPI does (collectives/offload/offload.h), for fabrics that kolo does
 * not drive. MPI stays where mpirun started the world and either KOLO_ALGORITHM=mpi wants it or
 * there are several hosts; rank 0 decides. On several hosts both are measured when the world
 * begins, and MPI leaves again if it is not faster.
 *
 * Only communicators of all ranks have it: MPI makes them without a wait, in the order in which
 * kolo does. Waits have kolo's deadlines, for what is under way is polled; but MPI takes nothing
 * back, so after a failure the buffers are MPI's.
 *
 * Collectives of buffers in GPUs' memory, which NCCL does (runtime/nccl.h) or which go through the
 * host (runtime/staging.h), come and go the same way.
 */
#ifndef KOLO_RUNTIME_OFFLOAD_H
#define KOLO_RUNTIME_OFFLOAD_H

#include "runtime/comm.h"

/* Collective over the world, once it is joined. */
kolo_status kolo__offload_open(kolo_context *context);
/* After all communicators. sound: nothing has failed, so that all ranks come to the end of MPI. */
void kolo__offload_close(kolo_context *context, bool sound);

/* A communicator of all ranks gets one of MPI's, if there is one to have. */
void kolo__offload_attach(kolo_comm *comm);
void kolo__offload_detach(kolo_comm *comm);

/* A request whose plan has no program. As kolo__run_begin and kolo__run_progress. */
kolo_status kolo__offload_begin(kolo_request *request, struct kolo__fault *fault);
kolo_status kolo__offload_progress(kolo_request *request, bool *moved, struct kolo__fault *fault);
/* What it waits for, as kolo__run_state and kolo__run_waiting_for have it. */
void kolo__offload_state(const kolo_request *request, char *text, size_t bytes);
int kolo__offload_waiting_for(const kolo_request *request);

#endif
