/* SPDX-License-Identifier: Apache-2.0 */
/* The collectives of the public interface: each says what its buffers are, the rest is alike. */
#include "runtime/call.h"

#include "base/status.h"

static kolo_status start_for_user(kolo_comm *comm, const struct kolo__call *call,
                                  kolo_request **request)
{
    if (request == NULL)
        return kolo__error(KOLO_ERR_INVALID, "%s_start: request is NULL", call->name);
    *request = NULL;
    kolo_status status = kolo__call_start(comm, call, request);
    if (status == KOLO_OK)
        kolo__comm_progress(comm);
    return status;
}

static size_t ranks_of(const kolo_comm *comm)
{
    return comm != NULL ? comm->size : 1;
}

static size_t rank_of(const kolo_comm *comm)
{
    return comm != NULL ? comm->rank : 0;
}

/* ---- one function a collective: what its buffers are ---------------------------------------- */

static struct kolo__call allreduce_call(const void *send, void *recv, size_t count,
                                        kolo_dtype dtype, kolo_op op,
                                        const kolo_call_options *options)
{
    return (struct kolo__call){.name = "kolo_allreduce",
                               .collective = KOLO__ALLREDUCE,
                               .send = send,
                               .recv = recv,
                               .count = count,
                               .send_slices = 1,
                               .recv_slices = 1,
                               .may_be_in_place = true,
                               .dtype = dtype,
                               .op = op,
                               .options = options};
}

kolo_status kolo_allreduce(kolo_comm *comm, const void *send, void *recv, size_t count,
                           kolo_dtype dtype, kolo_op op, const kolo_call_options *options)
{
    struct kolo__call call = allreduce_call(send, recv, count, dtype, op, options);
    return kolo__call_run(comm, &call);
}

kolo_status kolo_allreduce_start(kolo_comm *comm, const void *send, void *recv, size_t count,
                                 kolo_dtype dtype, kolo_op op, const kolo_call_options *options,
                                 kolo_request **request)
{
    struct kolo__call call = allreduce_call(send, recv, count, dtype, op, options);
    return start_for_user(comm, &call, request);
}

static struct kolo__call reduce_scatter_call(const kolo_comm *comm, const void *send, void *recv,
                                             size_t recv_count, kolo_dtype dtype, kolo_op op,
                                             const kolo_call_options *options)
{
    return (struct kolo__call){.name = "kolo_reduce_scatter",
                               .collective = KOLO__REDUCE_SCATTER,
                               .send = send,
                               .recv = recv,
                               .count = recv_count,
                               .send_slices = ranks_of(comm),
                               .recv_slices = 1,
                               .in_place_slice = rank_of(comm),
                               .may_be_in_place = true,
                               .dtype = dtype,
                               .op = op,
                               .options = options};
}

kolo_status kolo_reduce_scatter(kolo_comm *comm, const void *send, void *recv, size_t recv_count,
                                kolo_dtype dtype, kolo_op op, const kolo_call_options *options)
{
    struct kolo__call call = reduce_scatter_call(comm, send, recv, recv_count, dtype, op, options);
    return kolo__call_run(comm, &call);
}

kolo_status kolo_reduce_scatter_start(kolo_comm *comm, const void *send, void *recv,
                                      size_t recv_count, kolo_dtype dtype, kolo_op op,
                                      const kolo_call_options *options, kolo_request **request)
{
    struct kolo__call call = reduce_scatter_call(comm, send, recv, recv_count, dtype, op, options);
    return start_for_user(comm, &call, request);
}

static struct kolo__call allgather_call(const kolo_comm *comm, const void *send, void *recv,
                                        size_t send_count, kolo_dtype dtype,
                                        const kolo_call_options *options)
{
    return (struct kolo__call){.name = "kolo_allgather",
                               .collective = KOLO__ALLGATHER,
                               .send = send,
                               .recv = recv,
                               .count = send_count,
                               .send_slices = 1,
                               .recv_slices = ranks_of(comm),
                               .in_place_slice = rank_of(comm),
                               .may_be_in_place = true,
                               .dtype = dtype,
                               .options = options};
}

kolo_status kolo_allgather(kolo_comm *comm, const void *send, void *recv, size_t send_count,
                           kolo_dtype dtype, const kolo_call_options *options)
{
    struct kolo__call call = allgather_call(comm, send, recv, send_count, dtype, options);
    return kolo__call_run(comm, &call);
}

kolo_status kolo_allgather_start(kolo_comm *comm, const void *send, void *recv, size_t send_count,
                                 kolo_dtype dtype, const kolo_call_options *options,
                                 kolo_request **request)
{
    struct kolo__call call = allgather_call(comm, send, recv, send_count, dtype, options);
    return start_for_user(comm, &call, request);
}

static struct kolo__call broadcast_call(void *buffer, size_t count, kolo_dtype dtype, int root,
                                        const kolo_call_options *options)
{
    return (struct kolo__call){.name = "kolo_broadcast",
                               .collective = KOLO__BROADCAST,
                               .send = buffer,
                               .recv = buffer,
                               .count = count,
                               .send_slices = 1,
                               .recv_slices = 1,
                               .may_be_in_place = true,
                               .dtype = dtype,
                               .root = root,
                               .options = options};
}

kolo_status kolo_broadcast(kolo_comm *comm, void *buffer, size_t count, kolo_dtype dtype, int root,
                           const kolo_call_options *options)
{
    struct kolo__call call = broadcast_call(buffer, count, dtype, root, options);
    return kolo__call_run(comm, &call);
}

kolo_status kolo_broadcast_start(kolo_comm *comm, void *buffer, size_t count, kolo_dtype dtype,
                                 int root, const kolo_call_options *options, kolo_request **request)
{
    struct kolo__call call = broadcast_call(buffer, count, dtype, root, options);
    return start_for_user(comm, &call, request);
}

static struct kolo__call reduce_call(const kolo_comm *comm, const void *send, void *recv,
                                     size_t count, kolo_dtype dtype, kolo_op op, int root,
                                     const kolo_call_options *options)
{
    bool is_root = root >= 0 && rank_of(comm) == (size_t)root;
    return (struct kolo__call){.name = "kolo_reduce",
                               .collective = KOLO__REDUCE_TO_ROOT,
                               .send = send,
                               .recv = is_root ? recv : NULL,
                               .count = count,
                               .send_slices = 1,
                               .recv_slices = is_root,
                               .may_be_in_place = true,
                               .dtype = dtype,
                               .op = op,
                               .root = root,
                               .options = options};
}

kolo_status kolo_reduce(kolo_comm *comm, const void *send, void *recv, size_t count,
                        kolo_dtype dtype, kolo_op op, int root, const kolo_call_options *options)
{
    struct kolo__call call = reduce_call(comm, send, recv, count, dtype, op, root, options);
    return kolo__call_run(comm, &call);
}

kolo_status kolo_reduce_start(kolo_comm *comm, const void *send, void *recv, size_t count,
                              kolo_dtype dtype, kolo_op op, int root,
                              const kolo_call_options *options, kolo_request **request)
{
    struct kolo__call call = reduce_call(comm, send, recv, count, dtype, op, root, options);
    return start_for_user(comm, &call, request);
}

static struct kolo__call alltoall_call(const kolo_comm *comm, const void *send, void *recv,
                                       size_t count, kolo_dtype dtype,
                                       const kolo_call_options *options)
{
    return (struct kolo__call){.name = "kolo_alltoall",
                               .collective = KOLO__ALLTOALL,
                               .send = send,
                               .recv = recv,
                               .count = count,
                               .send_slices = ranks_of(comm),
                               .recv_slices = ranks_of(comm),
                               .dtype = dtype,
                               .options = options};
}

kolo_status kolo_alltoall(kolo_comm *comm, const void *send, void *recv, size_t count,
                          kolo_dtype dtype, const kolo_call_options *options)
{
    struct kolo__call call = alltoall_call(comm, send, recv, count, dtype, options);
    return kolo__call_run(comm, &call);
}

kolo_status kolo_alltoall_start(kolo_comm *comm, const void *send, void *recv, size_t count,
                                kolo_dtype dtype, const kolo_call_options *options,
                                kolo_request **request)
{
    struct kolo__call call = alltoall_call(comm, send, recv, count, dtype, options);
    return start_for_user(comm, &call, request);
}

static const struct kolo__call barrier_call = {.name = "kolo_barrier", .collective = KOLO__BARRIER};

kolo_status kolo_barrier(kolo_comm *comm)
{
    return kolo__call_run(comm, &barrier_call);
}

kolo_status kolo_barrier_start(kolo_comm *comm, kolo_request **request)
{
    return start_for_user(comm, &barrier_call, request);
}

kolo_status kolo__comm_close_ranks(kolo_comm *comm, const char *operation)
{
    struct kolo__problem problem = {
        .collective = KOLO__BARRIER, .rank = comm->rank, .size = comm->size, .window_count = 1};
    kolo_call_options options = {.size = sizeof options};
    struct kolo__call call = barrier_call;
    for (size_t i = 0; kolo__algorithms[i] != NULL && options.algorithm == NULL; i++)
        if (!kolo__algorithms[i]->needs_mapping && !kolo__algorithms[i]->needs_host_mapping &&
            kolo__algorithms[i]->accepts(&problem))
            options.algorithm = kolo__algorithms[i]->name;
    call.name = operation;
    call.options = &options;
    return kolo__call_run(comm, &call);
}
