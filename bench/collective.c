/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/collective.h"

#include <string.h>

/* Bus bandwidth is what the links must carry at least, so that it can be compared with the hardware
 * and between numbers of ranks. Factors: nccl-tests, doc/PERFORMANCE.md. */
static double factor_one(int ranks)
{
    (void)ranks;
    return 1;
}

static double factor_slices(int ranks)
{
    return (double)(ranks - 1) / ranks;
}

static double factor_allreduce(int ranks)
{
    return 2.0 * (ranks - 1) / ranks;
}

static kolo_status run_allreduce(const struct bench_call *call)
{
    return kolo_allreduce(call->comm, call->send, call->recv, call->count, call->dtype,
                          (kolo_op)call->op, call->options);
}

static kolo_status run_allgather(const struct bench_call *call)
{
    return kolo_allgather(call->comm, call->send, call->recv, call->count, call->dtype,
                          call->options);
}

static kolo_status run_reduce_scatter(const struct bench_call *call)
{
    return kolo_reduce_scatter(call->comm, call->send, call->recv, call->count, call->dtype,
                               (kolo_op)call->op, call->options);
}

static kolo_status run_broadcast(const struct bench_call *call)
{
    return kolo_broadcast(call->comm, call->recv, call->count, call->dtype, BENCH_ROOT,
                          call->options);
}

static kolo_status run_reduce(const struct bench_call *call)
{
    return kolo_reduce(call->comm, call->send, call->recv, call->count, call->dtype,
                       (kolo_op)call->op, BENCH_ROOT, call->options);
}

static kolo_status run_alltoall(const struct bench_call *call)
{
    return kolo_alltoall(call->comm, call->send, call->recv, call->count, call->dtype,
                         call->options);
}

/* Every rank sends to the next and receives from the one before, at the same time. */
static kolo_status run_sendrecv(const struct bench_call *call)
{
    if (call->ranks == 1) { /* nobody to send to: kolo_send refuses the sender itself */
        memcpy(call->recv, call->send, call->count * kolo_dtype_bytes(call->dtype));
        return KOLO_OK;
    }
    int next = (call->rank + 1) % call->ranks;
    int previous = (call->rank + call->ranks - 1) % call->ranks;
    kolo_request *recv, *send;
    kolo_status status =
        kolo_recv_start(call->comm, call->recv, call->count, call->dtype, previous, &recv);
    if (status != KOLO_OK)
        return status;
    status = kolo_send_start(call->comm, call->send, call->count, call->dtype, next, &send);
    if (status != KOLO_OK)
        return status;
    status = kolo_wait(&send, -1);
    if (status != KOLO_OK)
        return status;
    return kolo_wait(&recv, -1);
}

static kolo_status run_barrier(const struct bench_call *call)
{
    return kolo_barrier(call->comm);
}

static const struct bench_collective COLLECTIVES[] = {
    {.name = "allreduce",
     .moves_data = true,
     .reduces = true,
     .in_place = BENCH_EITHER_PLACE,
     .bus_factor = factor_allreduce,
     .run = run_allreduce},
    {.name = "allgather",
     .moves_data = true,
     .recv_slices = true,
     .in_place = BENCH_EITHER_PLACE,
     .bus_factor = factor_slices,
     .run = run_allgather},
    {.name = "reduce_scatter",
     .moves_data = true,
     .reduces = true,
     .send_slices = true,
     .in_place = BENCH_EITHER_PLACE,
     .bus_factor = factor_slices,
     .run = run_reduce_scatter},
    {.name = "broadcast",
     .moves_data = true,
     .in_place = BENCH_ALWAYS_IN_PLACE,
     .bus_factor = factor_one,
     .run = run_broadcast},
    {.name = "reduce",
     .moves_data = true,
     .reduces = true,
     .to_root = true,
     .in_place = BENCH_EITHER_PLACE,
     .bus_factor = factor_one,
     .run = run_reduce},
    {.name = "alltoall",
     .moves_data = true,
     .send_slices = true,
     .recv_slices = true,
     .in_place = BENCH_NEVER_IN_PLACE,
     .bus_factor = factor_slices,
     .run = run_alltoall},
    {.name = "sendrecv",
     .moves_data = true,
     .in_place = BENCH_NEVER_IN_PLACE,
     .bus_factor = factor_one,
     .run = run_sendrecv},
    {.name = "barrier",
     .in_place = BENCH_NEVER_IN_PLACE,
     .bus_factor = factor_one,
     .run = run_barrier},
};

const struct bench_collective *bench_collective_find(const char *name)
{
    for (size_t i = 0; i < sizeof COLLECTIVES / sizeof *COLLECTIVES; i++)
        if (strcmp(COLLECTIVES[i].name, name) == 0)
            return &COLLECTIVES[i];
    return NULL;
}

const char *bench_collective_names(void)
{
    return "allreduce, allgather, reduce_scatter, broadcast, reduce, alltoall, sendrecv, barrier";
}

static size_t slices(const struct bench_collective *collective, int ranks)
{
    return collective->send_slices || collective->recv_slices ? (size_t)ranks : 1;
}

size_t bench_collective_count(const struct bench_collective *collective, size_t bytes,
                              kolo_dtype dtype, int ranks)
{
    if (!collective->moves_data)
        return 0;
    size_t count = bytes / kolo_dtype_bytes(dtype) / slices(collective, ranks);
    return count > 0 ? count : 1;
}

size_t bench_collective_bytes(const struct bench_collective *collective, size_t count,
                              kolo_dtype dtype, int ranks)
{
    return count * slices(collective, ranks) * kolo_dtype_bytes(dtype);
}

void bench_collective_place(const struct bench_collective *collective, void *first, void *second,
                            struct bench_call *call)
{
    call->send = first;
    call->recv = call->in_place ? first : second;
    if (!call->in_place)
        return;
    /* In place, the short buffer of a pair is this rank's slice of the long one. */
    size_t offset = (size_t)call->rank * call->count * kolo_dtype_bytes(call->dtype);
    if (collective->recv_slices)
        call->send = (char *)first + offset;
    else if (collective->send_slices)
        call->recv = (char *)first + offset;
}
