/* SPDX-License-Identifier: Apache-2.0 */
#include "collectives/offload/offload.h"

#include "collectives/offload/mpi_module.h"

#include <limits.h>

/* A tenth may be noise: MPI is taken for more than that. */
static const double CLEARLY = 0.8;

static bool accepts(const struct kolo__problem *problem)
{
    return problem->collective == KOLO__ALLREDUCE && problem->size > 1;
}

const struct kolo__algorithm kolo__offload_mpi = {.name = "mpi", .accepts = accepts};

static bool accepts_none(const struct kolo__problem *problem)
{
    (void)problem;
    return false;
}

const struct kolo__algorithm kolo__offload_nccl = {.name = "nccl", .accepts = accepts_none};
const struct kolo__algorithm kolo__offload_exchange = {.name = "exchange", .accepts = accepts_none};
const struct kolo__algorithm kolo__offload_staged = {.name = "staged", .accepts = accepts_none};

const char *kolo__offload_obstacle(const struct kolo__offload *offload,
                                   const struct kolo__problem *problem, kolo_dtype dtype,
                                   kolo_op op)
{
    if (!accepts(problem))
        return "only an allreduce goes to MPI";
    if (problem->count > INT_MAX || !kolo__mpi_has(dtype, op))
        return "MPI has no such allreduce";
    if (offload == NULL)
        return "mpirun has not started this world";
    return offload->missing;
}

bool kolo__offload_is_faster(const struct kolo__offload *offload, double bytes)
{
    return offload != NULL && offload->missing == NULL && offload->measured &&
           offload->latency + bytes * offload->per_byte <
               CLEARLY * (offload->own_latency + bytes * offload->own_per_byte);
}
