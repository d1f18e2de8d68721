/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NCCL for the buffers of a communicator that are in GPUs' memory (collectives/offload/offload.h
 * has what an offload is, nccl_module.h what NCCL is asked for).
 *
 *     first call with a GPU's buffers      every rank: is there NCCL, which version; rank 0: the id
 *       kolo__nccl_open                      told to all by host memory; the communicator begun;
 *                                            then in rounds: ready, not yet, or why not
 *     every call                           queued on the caller's stream, and polled until it is
 *       kolo__nccl_begin, _progress          there: no message of kolo's, nobody waits for the GPU
 *     a fault of the communicator          aborted, in ABORT_MS at most
 *       kolo__nccl_fail
 *     the caller waits for his stream      a thread watches, and aborts (watch.h)
 *
 * All ranks have it or none: whatever one of them lacks, all learn with its name, and the call goes
 * through the host's memory everywhere (staging.h), as later ones do. Every wait has KOLO_TIMEOUT.
 */
#ifndef KOLO_RUNTIME_NCCL_H
#define KOLO_RUNTIME_NCCL_H

#include "collectives/offload/nccl_module.h"
#include "runtime/call.h"

/* Memory for what travels, and whether NCCL's symmetric kernels may take it. */
struct kolo__nccl_buffer {
    void *memory;
    size_t bytes;
    struct kolo__nccl_window *window; /* NULL: on no rank is it registered */
};

/* Collective; blocks the first time, and then answers what it found. ordinal: of this rank's GPU.
 * KOLO_ERR_UNSUPPORTED: no NCCL here, the text says why; the communicator goes on without. */
kolo_status kolo__nccl_open(kolo_comm *comm, const char *operation, int ordinal);
/* Local. In order where nothing failed, else by abort; waits for neither longer than some
 * seconds. */
void kolo__nccl_close(kolo_comm *comm);
/* The communicator is poisoned: ends what NCCL has under way. */
void kolo__nccl_fail(kolo_comm *comm);

/* ---- parts (nccl_parts.c) ---- */

/* For kolo_comm_split. Collective on comm: what the new communicator of this color takes over as
 * its NCCL, so that it need not begin its own; rank and size are those of it. color negative: there
 * is none. NULL where comm has no NCCL, and where NCCL could not, of which rank 0 says why. */
kolo_status kolo__nccl_split(kolo_comm *comm, int color, uint32_t rank, uint32_t size,
                             struct kolo__nccl **part);
/* part, which may be NULL, is the communicator's from now on. */
kolo_status kolo__nccl_adopt(kolo_comm *comm, struct kolo__nccl *part);
/* For a world that goes on without some of its ranks, none of which has failed: collective on
 * `smaller`, which has the others of comm in their order, and no NCCL so far. left: ranks of comm,
 * ascending. Where comm has none, or it cannot be shrunk, `smaller` begins its own when need be. */
kolo_status kolo__nccl_shrink(kolo_comm *comm, const int *left, int left_count, kolo_comm *smaller);

/* ---- memory ---- */

/* Collective, blocks. As many bytes on every rank. Where one of them cannot register its memory
 * none does, and the buffer serves nevertheless. */
kolo_status kolo__nccl_buffer_open(kolo_comm *comm, const char *operation, size_t bytes,
                                   struct kolo__nccl_buffer *buffer);
void kolo__nccl_buffer_close(kolo_comm *comm, struct kolo__nccl_buffer *buffer);

/* Where the used buffers of a call are: *ordinal of their GPU, -1: all in the host's memory.
 * KOLO_ERR_INVALID: some here, some there. */
kolo_status kolo__nccl_find_buffers(const struct kolo__call *call, int *ordinal);
/* The plan of a call with a GPU's buffers, instead of the one for the host's: exchange.h's where
 * that takes it, else NCCL's, which it opens where that is to be done. Where NCCL is not here, or
 * has no such collective, it is staging.h's. */
kolo_status kolo__nccl_plan(kolo_comm *comm, const struct kolo__call *call, int ordinal,
                            struct kolo__plan_key *key, struct kolo__plan **plan);
/* A request whose plan is NCCL's: as kolo__run_begin and kolo__run_progress. Done: it is on the
 * stream. */
kolo_status kolo__nccl_begin(kolo_request *request, struct kolo__fault *fault);
kolo_status kolo__nccl_progress(kolo_request *request, struct kolo__fault *fault);

#endif
