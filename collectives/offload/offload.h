/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Collectives that somebody else does as a whole. One has the name of an algorithm, so that it is
 * chosen, forced, compared and shown like one; but it builds no schedule, and stands in no list of
 * those that are proved. How it runs is runtime/offload.h.
 */
#ifndef KOLO_COLLECTIVES_OFFLOAD_OFFLOAD_H
#define KOLO_COLLECTIVES_OFFLOAD_OFFLOAD_H

#include "collectives/schedule.h"

/* "mpi": MPI_Iallreduce of the host's MPI. */
extern const struct kolo__algorithm kolo__offload_mpi;
/* "nccl": NCCL, for buffers in GPUs' memory. Nobody chooses it and no name forces it: there is no
 * other for those, and it can do no others. */
extern const struct kolo__algorithm kolo__offload_nccl;
/* "staged": kolo's own, for buffers in GPUs' memory that NCCL does not take: chunk by chunk through
 * memory of the host (runtime/staging.h). Chosen and forced like "nccl". */
extern const struct kolo__algorithm kolo__offload_staged;
/* "exchange": kolo's own kernels, for few bytes in memory of GPUs that map each other's
 * (runtime/exchange.h). Chosen and forced like "nccl". */
extern const struct kolo__algorithm kolo__offload_exchange;
/* In signatures, instead of one into kolo__algorithms. */
enum {
    KOLO__OFFLOAD_MPI_INDEX = 0xfe,
    KOLO__OFFLOAD_NCCL_INDEX = 0xfd,
    KOLO__OFFLOAD_STAGED_INDEX = 0xfc,
    KOLO__OFFLOAD_EXCHANGE_INDEX = 0xfb
};

/* Where it may be chosen; what is measured is in seconds, of allreduces of the world. */
struct kolo__offload {
    const char *missing; /* why it may not; NULL: it may */
    bool measured;
    double latency, per_byte;         /* its own */
    double own_latency, own_per_byte; /* of what kolo does otherwise */
};

/* Why it cannot do this problem, or may not; NULL: it can. */
const char *kolo__offload_obstacle(const struct kolo__offload *offload,
                                   const struct kolo__problem *problem, kolo_dtype dtype,
                                   kolo_op op);
/* Measured to be clearly faster for so many bytes. */
bool kolo__offload_is_faster(const struct kolo__offload *offload, double bytes);

#endif
