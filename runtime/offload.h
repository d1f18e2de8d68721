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

/* A request whose plan is MPI's. As kolo__run_begin and kolo__run_progress. */
kolo_status kolo__offload_begin(kolo_request *request, struct kolo__fault *fault);
kolo_status kolo__offload_progress(kolo_request *request, struct kolo__fault *fault);

#endif
