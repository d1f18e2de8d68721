/* SPDX-License-Identifier: Apache-2.0 */
/* The collectives and messages of the public interface: arguments checked, plan found, request
 * queued. */
#include "runtime/comm.h"

#include "base/status.h"
#include "kernels/kernels.h"

#include <string.h>

/* One call, whatever the collective. */
struct call {
    const char *name;
    enum kolo__collective collective;
    const void *send;
    void *recv;
    size_t count;
    size_t send_slices, recv_slices; /* of count elements; 0: the buffer is not used on this rank */
    size_t in_place_slice;           /* in place: the smaller buffer is this slice of the larger */
    bool may_be_in_place;
    kolo_dtype dtype;
    kolo_op op;
    int root;
    const kolo_call_options *options;
};

static kolo_status check_comm(const kolo_comm *comm, const char *name)
{
    if (comm == NULL)
        return kolo__error(KOLO_ERR_INVALID, "%s: the communicator is NULL", name);
    return KOLO_OK;
}

static kolo_status check_type(const struct call *call)
{
    if (kolo_dtype_bytes(call->dtype) == 0)
        return kolo__error(KOLO_ERR_INVALID, "%s: %d is no dtype", call->name, (int)call->dtype);
    if (!kolo__collective_reduces(call->collective))
        return KOLO_OK;
    if (kolo_op_name(call->op) == NULL)
        return kolo__error(KOLO_ERR_INVALID, "%s: %d is no op", call->name, (int)call->op);
    if (!kolo__reduction_defined(call->dtype, call->op))
        return kolo__error(KOLO_ERR_INVALID, "%s: %s is not defined for %s", call->name,
                           kolo_op_name(call->op), kolo_dtype_name(call->dtype));
    if (call->op == KOLO_PREMUL_SUM && call->options == NULL)
        return kolo__error(KOLO_ERR_INVALID, "%s: premul_sum needs options->scale", call->name);
    return KOLO_OK;
}

/* Finds out whether the call is in place; buffers that overlap in any other way are refused. */
static kolo_status check_buffers(const struct call *call, bool *in_place)
{
    size_t element = kolo_dtype_bytes(call->dtype);
    size_t slices = call->send_slices > call->recv_slices ? call->send_slices : call->recv_slices;
    *in_place = false;
    if (slices > 0 && call->count > SIZE_MAX / 2 / element / slices)
        return kolo__error(KOLO_ERR_INVALID, "%s: %zu elements are more than memory has",
                           call->name, call->count);
    size_t send_bytes = call->send_slices * call->count * element;
    size_t recv_bytes = call->recv_slices * call->count * element;
    if ((send_bytes > 0 && call->send == NULL) || (recv_bytes > 0 && call->recv == NULL))
        return kolo__error(KOLO_ERR_INVALID, "%s: the %s buffer is NULL", call->name,
                           send_bytes > 0 && call->send == NULL ? "send" : "recv");
    if (send_bytes == 0 || recv_bytes == 0)
        return KOLO_OK;

    uintptr_t send = (uintptr_t)call->send, recv = (uintptr_t)call->recv;
    if (send >= recv + recv_bytes || recv >= send + send_bytes)
        return KOLO_OK;
    size_t shift = call->in_place_slice * call->count * element;
    uintptr_t expected_send = call->send_slices < call->recv_slices ? recv + shift : recv;
    uintptr_t expected_recv = call->recv_slices < call->send_slices ? send + shift : send;
    *in_place = call->may_be_in_place && (send == expected_send || recv == expected_recv);
    if (!*in_place)
        return kolo__error(KOLO_ERR_INVALID, "%s: the send and recv buffers overlap%s", call->name,
                           call->may_be_in_place ? ", and not in the way of an in-place call "
                                                   "(see kolo.h)"
                                                 : "; this collective cannot be done in place");
    return KOLO_OK;
}

static kolo_status check_options(const struct call *call, const struct kolo__algorithm **forced)
{
    const kolo_call_options *options = call->options;
    *forced = NULL;
    if (options == NULL)
        return KOLO_OK;
    if (options->size != sizeof *options)
        return kolo__error(KOLO_ERR_INVALID, "%s: set options->size to sizeof(kolo_call_options)",
                           call->name);
    if (options->algorithm == NULL || options->algorithm[0] == '\0')
        return KOLO_OK;
    *forced = kolo__algorithm_find(options->algorithm);
    if (*forced == NULL)
        return kolo__error(KOLO_ERR_INVALID, "%s: there is no algorithm '%s'", call->name,
                           options->algorithm);
    return KOLO_OK;
}

static void remember(kolo_comm *comm, const struct kolo__signature *signature)
{
    struct kolo__verdict_report *recent = &comm->recent;
    if (recent->count == KOLO__VERDICT_RECENT)
        memmove(recent->recent, recent->recent + 1,
                (KOLO__VERDICT_RECENT - 1) * sizeof *recent->recent);
    else
        recent->count++;
    recent->recent[recent->count - 1] = *signature;
}

static kolo_status start(kolo_comm *comm, const struct call *call, kolo_request **result)
{
    bool in_place;
    struct kolo__plan_key key = {
        .collective = call->collective, .dtype = call->dtype, .op = call->op, .count = call->count};
    struct kolo__plan *plan;
    kolo_request *request = NULL;
    kolo_status status = check_comm(comm, call->name);
    if (status == KOLO_OK)
        status = check_type(call);
    if (status == KOLO_OK && (call->root < 0 || (uint32_t)call->root >= comm->size))
        status = kolo__error(KOLO_ERR_INVALID, "%s: root %d is not a rank of %u", call->name,
                             call->root, comm->size);
    if (status == KOLO_OK)
        status = check_buffers(call, &in_place);
    if (status == KOLO_OK)
        status = check_options(call, &key.forced);
    if (status != KOLO_OK)
        return status;
    key.in_place = in_place;
    key.root = (uint32_t)call->root;
    status = kolo__plan_get(&comm->plans, &comm->plan_context, &key, &plan);
    if (status == KOLO_OK)
        status = kolo__request_add(comm, call->name, KOLO__REQUEST_COLLECTIVE, &request);
    if (status != KOLO_OK)
        return status;

    plan->users++;
    request->plan = plan;
    request->input = call->send;
    request->output = call->recv;
    request->scale = call->options != NULL ? call->options->scale : 0;
    request->signature = (struct kolo__signature){
        .comm = comm->id,
        .sequence = ++comm->sequence,
        .collective = (uint8_t)call->collective,
        .dtype = (uint8_t)call->dtype,
        .op = kolo__collective_reduces(call->collective) ? (uint8_t)call->op : 0,
        .algorithm = plan->algorithm_index,
        .root = (uint32_t)call->root,
        .count = call->count,
    };
    remember(comm, &request->signature);
    *result = request;
    return KOLO_OK;
}

static kolo_status start_for_user(kolo_comm *comm, const struct call *call, kolo_request **request)
{
    if (request == NULL)
        return kolo__error(KOLO_ERR_INVALID, "%s_start: request is NULL", call->name);
    *request = NULL;
    kolo_status status = start(comm, call, request);
    if (status == KOLO_OK)
        kolo__comm_progress(comm);
    return status;
}

static kolo_status run(kolo_comm *comm, const struct call *call)
{
    kolo_request *request = NULL;
    kolo_status status = start(comm, call, &request);
    return status == KOLO_OK ? kolo__request_wait(request, -1) : status;
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

static struct call allreduce_call(const void *send, void *recv, size_t count, kolo_dtype dtype,
                                  kolo_op op, const kolo_call_options *options)
{
    return (struct call){.name = "kolo_allreduce",
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
    struct call call = allreduce_call(send, recv, count, dtype, op, options);
    return run(comm, &call);
}

kolo_status kolo_allreduce_start(kolo_comm *comm, const void *send, void *recv, size_t count,
                                 kolo_dtype dtype, kolo_op op, const kolo_call_options *options,
                                 kolo_request **request)
{
    struct call call = allreduce_call(send, recv, count, dtype, op, options);
    return start_for_user(comm, &call, request);
}

static struct call reduce_scatter_call(const kolo_comm *comm, const void *send, void *recv,
                                       size_t recv_count, kolo_dtype dtype, kolo_op op,
                                       const kolo_call_options *options)
{
    return (struct call){.name = "kolo_reduce_scatter",
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
    struct call call = reduce_scatter_call(comm, send, recv, recv_count, dtype, op, options);
    return run(comm, &call);
}

kolo_status kolo_reduce_scatter_start(kolo_comm *comm, const void *send, void *recv,
                                      size_t recv_count, kolo_dtype dtype, kolo_op op,
                                      const kolo_call_options *options, kolo_request **request)
{
    struct call call = reduce_scatter_call(comm, send, recv, recv_count, dtype, op, options);
    return start_for_user(comm, &call, request);
}

static struct call allgather_call(const kolo_comm *comm, const void *send, void *recv,
                                  size_t send_count, kolo_dtype dtype,
                                  const kolo_call_options *options)
{
    return (struct call){.name = "kolo_allgather",
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
    struct call call = allgather_call(comm, send, recv, send_count, dtype, options);
    return run(comm, &call);
}

kolo_status kolo_allgather_start(kolo_comm *comm, const void *send, void *recv, size_t send_count,
                                 kolo_dtype dtype, const kolo_call_options *options,
                                 kolo_request **request)
{
    struct call call = allgather_call(comm, send, recv, send_count, dtype, options);
    return start_for_user(comm, &call, request);
}

static struct call broadcast_call(void *buffer, size_t count, kolo_dtype dtype, int root,
                                  const kolo_call_options *options)
{
    return (struct call){.name = "kolo_broadcast",
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
    struct call call = broadcast_call(buffer, count, dtype, root, options);
    return run(comm, &call);
}

kolo_status kolo_broadcast_start(kolo_comm *comm, void *buffer, size_t count, kolo_dtype dtype,
                                 int root, const kolo_call_options *options, kolo_request **request)
{
    struct call call = broadcast_call(buffer, count, dtype, root, options);
    return start_for_user(comm, &call, request);
}

static struct call reduce_call(const kolo_comm *comm, const void *send, void *recv, size_t count,
                               kolo_dtype dtype, kolo_op op, int root,
                               const kolo_call_options *options)
{
    bool is_root = root >= 0 && rank_of(comm) == (size_t)root;
    return (struct call){.name = "kolo_reduce",
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
    struct call call = reduce_call(comm, send, recv, count, dtype, op, root, options);
    return run(comm, &call);
}

kolo_status kolo_reduce_start(kolo_comm *comm, const void *send, void *recv, size_t count,
                              kolo_dtype dtype, kolo_op op, int root,
                              const kolo_call_options *options, kolo_request **request)
{
    struct call call = reduce_call(comm, send, recv, count, dtype, op, root, options);
    return start_for_user(comm, &call, request);
}

static struct call alltoall_call(const kolo_comm *comm, const void *send, void *recv, size_t count,
                                 kolo_dtype dtype, const kolo_call_options *options)
{
    return (struct call){.name = "kolo_alltoall",
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
    struct call call = alltoall_call(comm, send, recv, count, dtype, options);
    return run(comm, &call);
}

kolo_status kolo_alltoall_start(kolo_comm *comm, const void *send, void *recv, size_t count,
                                kolo_dtype dtype, const kolo_call_options *options,
                                kolo_request **request)
{
    struct call call = alltoall_call(comm, send, recv, count, dtype, options);
    return start_for_user(comm, &call, request);
}

static const struct call barrier_call = {.name = "kolo_barrier", .collective = KOLO__BARRIER};

kolo_status kolo_barrier(kolo_comm *comm)
{
    return run(comm, &barrier_call);
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
    struct call call = barrier_call;
    for (size_t i = 0; kolo__algorithms[i] != NULL && options.algorithm == NULL; i++)
        if (!kolo__algorithms[i]->needs_mapping && kolo__algorithms[i]->accepts(&problem))
            options.algorithm = kolo__algorithms[i]->name;
    call.name = operation;
    call.options = &options;
    return run(comm, &call);
}

/* ---- point to point ------------------------------------------------------------------------ */

static kolo_status start_message(kolo_comm *comm, enum kolo__request_kind kind, const void *input,
                                 void *output, size_t count, kolo_dtype dtype, int peer,
                                 kolo_request **result)
{
    const char *name = kind == KOLO__REQUEST_SEND ? "kolo_send" : "kolo_recv";
    kolo_request *request = NULL;
    kolo_status status = check_comm(comm, name);
    if (status != KOLO_OK)
        return status;
    if (kolo_dtype_bytes(dtype) == 0)
        return kolo__error(KOLO_ERR_INVALID, "%s: %d is no dtype", name, (int)dtype);
    if (peer < 0 || (uint32_t)peer >= comm->size || (uint32_t)peer == comm->rank)
        return kolo__error(KOLO_ERR_INVALID, "%s: peer %d is not another rank of %u", name, peer,
                           comm->size);
    if (count > SIZE_MAX / 2 / kolo_dtype_bytes(dtype) ||
        (count > 0 && input == NULL && output == NULL))
        return kolo__error(KOLO_ERR_INVALID, "%s: the buffer is NULL, or %zu elements too many",
                           name, count);
    status = kolo__request_add(comm, name, kind, &request);
    if (status != KOLO_OK)
        return status;
    uint64_t *sequence = kind == KOLO__REQUEST_SEND ? comm->send_sequence : comm->recv_sequence;
    request->peer = (uint32_t)peer;
    request->input = input;
    request->output = output;
    request->signature = (struct kolo__signature){
        .comm = comm->id,
        .sequence = ++sequence[peer],
        .collective = KOLO__POINT_TO_POINT,
        .dtype = (uint8_t)dtype,
        .algorithm = 0xff,
        .count = count,
    };
    *result = request;
    return KOLO_OK;
}

kolo_status kolo_send(kolo_comm *comm, const void *buffer, size_t count, kolo_dtype dtype, int peer)
{
    kolo_request *request = NULL;
    kolo_status status =
        start_message(comm, KOLO__REQUEST_SEND, buffer, NULL, count, dtype, peer, &request);
    return status == KOLO_OK ? kolo__request_wait(request, -1) : status;
}

kolo_status kolo_recv(kolo_comm *comm, void *buffer, size_t count, kolo_dtype dtype, int peer)
{
    kolo_request *request = NULL;
    kolo_status status =
        start_message(comm, KOLO__REQUEST_RECV, NULL, buffer, count, dtype, peer, &request);
    return status == KOLO_OK ? kolo__request_wait(request, -1) : status;
}

static kolo_status start_message_for_user(kolo_comm *comm, enum kolo__request_kind kind,
                                          const void *input, void *output, size_t count,
                                          kolo_dtype dtype, int peer, kolo_request **request)
{
    if (request == NULL)
        return kolo__error(KOLO_ERR_INVALID, "kolo_%s_start: request is NULL",
                           kind == KOLO__REQUEST_SEND ? "send" : "recv");
    *request = NULL;
    kolo_status status = start_message(comm, kind, input, output, count, dtype, peer, request);
    if (status == KOLO_OK)
        kolo__comm_progress(comm);
    return status;
}

kolo_status kolo_send_start(kolo_comm *comm, const void *buffer, size_t count, kolo_dtype dtype,
                            int peer, kolo_request **request)
{
    return start_message_for_user(comm, KOLO__REQUEST_SEND, buffer, NULL, count, dtype, peer,
                                  request);
}

kolo_status kolo_recv_start(kolo_comm *comm, void *buffer, size_t count, kolo_dtype dtype, int peer,
                            kolo_request **request)
{
    return start_message_for_user(comm, KOLO__REQUEST_RECV, NULL, buffer, count, dtype, peer,
                                  request);
}
