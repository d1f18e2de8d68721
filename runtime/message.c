/* SPDX-License-Identifier: Apache-2.0 */
/* Messages between two ranks, in the public interface. */
#include "runtime/bounce.h"
#include "runtime/call.h"

#include "base/status.h"
#include "kernels/device.h"

/* Of a buffer in a GPU's memory; NULL: the host's, which goes from and to where it is. */
static kolo_status take_bounce(kolo_comm *comm, const char *name, const void *input,
                               const void *output, size_t bytes, uint32_t peer, bool *straight,
                               struct kolo__bounce **bounce)
{
    struct kolo__memory_place place;
    const void *buffer = input != NULL ? input : output;
    *bounce = NULL;
    *straight = false;
    if (bytes == 0)
        return KOLO_OK;
    kolo__memory_find(buffer, &place);
    if (place.kind != KOLO_MEMORY_DEVICE)
        return KOLO_OK;
    const struct kolo__post post = {
        .data = (void *)(uintptr_t)buffer, .bytes = bytes, .on_gpu = true};
    *straight = comm->transport->ops->takes_gpu(comm->transport, peer, &post);
    if (*straight)
        return kolo__bounce_take(comm, name, place.ordinal, NULL, 0, true, bounce);
    return kolo__bounce_take(comm, name, place.ordinal, input, bytes, false, bounce);
}

static kolo_status start_message(kolo_comm *comm, enum kolo__request_kind kind, const void *input,
                                 void *output, size_t count, kolo_dtype dtype, int peer,
                                 kolo_request **result)
{
    const char *name = kind == KOLO__REQUEST_SEND ? "kolo_send" : "kolo_recv";
    kolo_request *request = NULL;
    kolo_status status = kolo__call_check_comm(comm, name);
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
    uint64_t joined_after;
    if (kind == KOLO__REQUEST_SEND &&
        kolo__control_has_joined(comm->context->control, comm->id, comm->world_ranks[peer],
                                 &joined_after))
        return kolo__error(KOLO_ERR_INVALID,
                           "%s: rank %d has joined (kolo_join) and receives nothing", name, peer);
    bool straight;
    struct kolo__bounce *bounce;
    status = take_bounce(comm, name, input, output, count * kolo_dtype_bytes(dtype), (uint32_t)peer,
                         &straight, &bounce);
    if (status == KOLO_OK)
        status = kolo__request_add(comm, name, kind, &request);
    if (status != KOLO_OK) {
        kolo__bounce_give_back(bounce);
        return status;
    }
    request->bounce = bounce;
    request->straight = straight;
    request->waits_for_gpu = bounce != NULL && (straight || kind == KOLO__REQUEST_SEND);
    comm->held += request->waits_for_gpu;
    uint64_t *sequence = kind == KOLO__REQUEST_SEND ? comm->send_sequence : comm->recv_sequence;
    request->peer = (uint32_t)peer;
    request->input = input;
    request->output = output;
    request->signature = (struct kolo__signature){
        .epoch = comm->epoch,
        .comm = comm->id,
        .sequence = ++sequence[peer],
        .collective = KOLO__POINT_TO_POINT,
        .dtype = (uint8_t)dtype,
        .algorithm = 0xff,
        .count = count,
    };
    request->flight =
        kolo__flight_add(&comm->pen, &request->signature,
                         kind == KOLO__REQUEST_SEND ? KOLO__FLIGHT_SEND : KOLO__FLIGHT_RECV,
                         comm->world_ranks[peer]);
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
