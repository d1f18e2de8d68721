/* SPDX-License-Identifier: Apache-2.0 */
/* See call.h. */
#include "runtime/call.h"

#include "base/assert.h"
#include "base/status.h"
#include "kernels/device.h"
#include "kernels/kernels.h"
#include "runtime/nccl.h"

#include <stdio.h>

kolo_status kolo__call_check_comm(const kolo_comm *comm, const char *name)
{
    if (comm == NULL)
        return kolo__error(KOLO_ERR_INVALID, "%s: the communicator is NULL", name);
    return KOLO_OK;
}

static kolo_status check_type(const struct kolo__call *call)
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
static kolo_status check_buffers(const struct kolo__call *call, bool *in_place)
{
    size_t element = kolo_dtype_bytes(call->dtype);
    size_t slices = call->send_slices > call->recv_slices ? call->send_slices : call->recv_slices;
    *in_place = call->piece_count > 0; /* elsewhere nobody would notice */
    if (*in_place)
        return KOLO_OK;
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

static kolo_status check_options(const struct kolo__call *call,
                                 const struct kolo__algorithm **forced)
{
    const kolo_call_options *options = call->options;
    /* The only one that takes pieces. */
    *forced = call->piece_count > 0 ? kolo__algorithm_find("shm_direct") : NULL;
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

bool kolo__call_root_has_joined(const kolo_comm *comm, const struct kolo__signature *signature,
                                char *text, size_t bytes)
{
    uint64_t sequence;
    if (!kolo__call_has_root(signature->collective) || signature->root >= comm->size ||
        comm->context->control == NULL ||
        !kolo__control_has_joined(comm->context->control, comm->id,
                                  comm->world_ranks[signature->root], &sequence) ||
        sequence >= signature->sequence) /* it has joined after its part of this very one */
        return false;
    kolo__call_root_joined_text(comm, signature, text, bytes);
    return true;
}

void kolo__call_root_joined_text(const kolo_comm *comm, const struct kolo__signature *signature,
                                 char *text, size_t bytes)
{
    char description[160];
    if (comm->root_joined != NULL)
        snprintf(text, bytes, "%s", comm->root_joined);
    else
        snprintf(text, bytes,
                 "the root of %s, rank %u, has joined (kolo_join): take a root that has not",
                 kolo__signature_text(signature, description, sizeof description), signature->root);
}

static kolo_status check_root_has_not_joined(const kolo_comm *comm, const struct kolo__call *call)
{
    char text[480];
    const struct kolo__signature signature = {.comm = comm->id,
                                              .sequence = comm->sequence + 1,
                                              .collective = (uint8_t)call->collective,
                                              .algorithm = 0xff,
                                              .dtype = (uint8_t)call->dtype,
                                              .op = (uint8_t)call->op,
                                              .root = (uint32_t)call->root,
                                              .count = call->count};
    if (!kolo__call_root_has_joined(comm, &signature, text, sizeof text))
        return KOLO_OK;
    return kolo__error(KOLO_ERR_INVALID, "%s: %s", call->name, text);
}

/* Where the buffers are: *ordinal is that of their GPU, -1: the host's memory. */
static kolo_status find_memory(const struct kolo__call *call, int *ordinal)
{
    kolo_status status = kolo__nccl_find_buffers(call, ordinal);
    if (status == KOLO_OK && *ordinal < 0 && call->count > 0 && call->options != NULL &&
        call->options->stream != NULL)
        return kolo__error(KOLO_ERR_INVALID,
                           "%s: options->stream goes with buffers in a GPU's memory, and these are "
                           "the host's: set it to NULL",
                           call->name);
    return status;
}

/* The plan, by where the buffers are. That is asked in every call once the process uses a GPU;
 * before, when a plan is new: what was a processor's once stays so until there is a GPU's. */
static kolo_status get_plan(kolo_comm *comm, const struct kolo__call *call,
                            struct kolo__plan_key *key, struct kolo__plan **plan)
{
    bool asks =
        kolo__device_is_loaded() || (call->options != NULL && call->options->stream != NULL);
    int ordinal = -1;
    kolo_status status = asks ? find_memory(call, &ordinal) : KOLO_OK;
    if (status == KOLO_OK && ordinal < 0)
        status = kolo__plan_get(&comm->plans, &comm->plan_context, key, plan);
    if (status == KOLO_OK && !asks && !(*plan)->memory_checked) {
        status = find_memory(call, &ordinal);
        (*plan)->memory_checked = status == KOLO_OK && ordinal < 0;
    }
    if (status == KOLO_OK && ordinal >= 0)
        status = kolo__nccl_plan(comm, call, ordinal, key, plan);
    return status;
}

static void remember(kolo_comm *comm, const struct kolo__signature *signature)
{
    comm->recent[comm->recent_count++ % KOLO__VERDICT_RECENT] = *signature;
}

kolo_status kolo__call_start(kolo_comm *comm, const struct kolo__call *call, kolo_request **result)
{
    bool in_place;
    struct kolo__plan_key key = {
        .collective = call->collective, .dtype = call->dtype, .op = call->op, .count = call->count};
    struct kolo__plan *plan;
    kolo_request *request = NULL;
    kolo_status status = kolo__call_check_comm(comm, call->name);
    if (status == KOLO_OK)
        status = check_type(call);
    if (status == KOLO_OK && (call->root < 0 || (uint32_t)call->root >= comm->size))
        status = kolo__error(KOLO_ERR_INVALID, "%s: root %d is not a rank of %u", call->name,
                             call->root, comm->size);
    if (status == KOLO_OK)
        status = check_buffers(call, &in_place);
    if (status == KOLO_OK)
        status = check_options(call, &key.forced);
    bool somebody_joined = comm != NULL && comm->context->control != NULL &&
                           kolo__control_joins(comm->context->control);
    if (status == KOLO_OK && somebody_joined)
        status = check_root_has_not_joined(comm, call);
    if (status != KOLO_OK)
        return status;
    key.in_place = in_place;
    key.root = (uint32_t)call->root;
    status = get_plan(comm, call, &key, &plan);
    if (status == KOLO_OK)
        status = kolo__request_add(comm, call->name, KOLO__REQUEST_COLLECTIVE, &request);
    if (status != KOLO_OK)
        return status;

    plan->users++;
    request->plan = plan;
    request->input = call->send;
    request->output = call->recv;
    request->pieces = call->pieces;
    request->piece_count = call->piece_count;
    request->scale = call->options != NULL ? call->options->scale : 0;
    request->stream = call->options != NULL ? call->options->stream : NULL;
    request->signature = (struct kolo__signature){
        .epoch = comm->epoch,
        .comm = comm->id,
        .sequence = ++comm->sequence,
        .collective = (uint8_t)call->collective,
        .dtype = (uint8_t)call->dtype,
        .op = kolo__collective_reduces(call->collective) ? (uint8_t)call->op : 0,
        .algorithm = plan->algorithm_index,
        .root = (uint32_t)call->root,
        .count = call->count,
    };
    comm->sequence += plan->more_chunks;
    remember(comm, &request->signature);
    request->flight = kolo__flight_add(&comm->pen, &request->signature, KOLO__FLIGHT_COLLECTIVE,
                                       request->signature.root);
    *result = request;
    if (somebody_joined)
        kolo__comm_announce(comm);
    return KOLO_OK;
}

kolo_status kolo__call_gather(kolo_comm *comm, const char *name, const void *mine, void *all,
                              size_t bytes)
{
    const struct kolo__call call = kolo__call_allgather(comm, name, mine, all, bytes, KOLO_UINT8);
    return kolo__call_run(comm, &call);
}

kolo_status kolo__allreduce_pieces_start(kolo_comm *comm, const char *name,
                                         const struct kolo__piece *pieces, uint32_t piece_count,
                                         size_t count, kolo_dtype dtype, kolo_op op, double scale,
                                         kolo_request **request)
{
    kolo_call_options options = {.size = sizeof options, .scale = scale};
    const struct kolo__call call = {.name = name,
                                    .collective = KOLO__ALLREDUCE,
                                    .pieces = pieces,
                                    .piece_count = piece_count,
                                    .count = count,
                                    .dtype = dtype,
                                    .op = op,
                                    .options = &options};
    *request = NULL;
    if (comm->mapping == NULL)
        return kolo__error(KOLO_ERR_UNSUPPORTED,
                           "%s: a buffer in pieces needs ranks that share memory (one host, more "
                           "than one rank, transport shm): pack it into one buffer",
                           name);
    KOLO__ASSERT((count > 0) == (piece_count > 0));
    return kolo__call_start(comm, &call, request);
}
