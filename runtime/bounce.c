/* SPDX-License-Identifier: Apache-2.0 */
/* See bounce.h. */
#include "runtime/bounce.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "kernels/device.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    LEAST_BYTES = 64 << 10,
    /* For an idle GPU to say so takes some ten of them. */
    IDLE_WITHIN_US = 500,
};

struct kolo__bounce {
    struct kolo__bounce *next; /* of the communicator's */
    const struct kolo__device_module *gpus;
    struct kolo__device *device;
    int ordinal;
    void *memory;
    size_t bytes;
    /* Behind its last copy; of a straight message, behind what the stream had before it. */
    kolo__device_event copied;
    bool taken;
    uint64_t idle_until_ns; /* a straight recv that is not ready by then is straight no more */
};

static const kolo__device_stream DEFAULT_STREAM = NULL;

static void destroy(struct kolo__bounce *bounce)
{
    if (bounce->device != NULL) {
        bounce->gpus->event_destroy(bounce->device, bounce->copied);
        bounce->gpus->host_free(bounce->device, bounce->memory);
    }
    free(bounce);
}

/* Some more than asked for, so that messages of about as many bytes share one. */
static kolo_status make(const char *operation, int ordinal, size_t bytes,
                        struct kolo__bounce **result)
{
    struct kolo__bounce *bounce = calloc(1, sizeof *bounce);
    *result = NULL;
    if (bounce == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "%s: no memory for a message of a GPU", operation);
    bounce->ordinal = ordinal;
    bounce->bytes = LEAST_BYTES;
    while (bounce->bytes < bytes)
        bounce->bytes = bounce->bytes <= SIZE_MAX / 2 ? bounce->bytes * 2 : bytes;
    kolo_status status = kolo__device_load(&bounce->gpus);
    if (status == KOLO_OK)
        status = bounce->gpus->open(ordinal, &bounce->device);
    if (status == KOLO_OK)
        status = bounce->gpus->host_alloc(bounce->device, bounce->bytes, &bounce->memory);
    if (status == KOLO_OK)
        status = bounce->gpus->event_create(bounce->device, &bounce->copied);
    if (status != KOLO_OK) {
        destroy(bounce);
        return status;
    }
    *result = bounce;
    return KOLO_OK;
}

/* Nothing is copied from or to it any more. */
static bool is_free(const struct kolo__bounce *bounce)
{
    return !bounce->taken && bounce->gpus->event_query(bounce->device, bounce->copied) == KOLO_OK;
}

static kolo_status find(kolo_comm *comm, const char *operation, int ordinal, size_t bytes,
                        struct kolo__bounce **found)
{
    for (struct kolo__bounce *bounce = comm->bounces; bounce != NULL; bounce = bounce->next)
        if (bounce->ordinal == ordinal && bounce->bytes >= bytes && is_free(bounce)) {
            *found = bounce;
            return KOLO_OK;
        }
    kolo_status status = make(operation, ordinal, bytes, found);
    if (status != KOLO_OK)
        return status;
    (*found)->next = comm->bounces;
    comm->bounces = *found;
    return KOLO_OK;
}

static kolo_status copy(struct kolo__bounce *bounce, void *to, const void *from, size_t bytes)
{
    kolo_status status = bounce->gpus->copy(bounce->device, to, from, bytes, DEFAULT_STREAM);
    if (status == KOLO_OK)
        status = bounce->gpus->event_record(bounce->device, bounce->copied, DEFAULT_STREAM);
    return status;
}

kolo_status kolo__bounce_take(kolo_comm *comm, const char *operation, int ordinal,
                              const void *input, size_t bytes, bool straight,
                              struct kolo__bounce **result)
{
    struct kolo__bounce *bounce;
    kolo_status status = find(comm, operation, ordinal, bytes, &bounce);
    if (status == KOLO_OK && input != NULL)
        status = copy(bounce, bounce->memory, input, bytes);
    if (status == KOLO_OK && straight)
        status = bounce->gpus->event_record(bounce->device, bounce->copied, DEFAULT_STREAM);
    if (status != KOLO_OK)
        return status;
    bounce->idle_until_ns = kolo__now_ns(&kolo__real_clock) + (uint64_t)IDLE_WITHIN_US * 1000;
    bounce->taken = true;
    *result = bounce;
    return KOLO_OK;
}

void *kolo__bounce_memory(struct kolo__bounce *bounce)
{
    return bounce->memory;
}

static size_t bytes_of(const kolo_request *request)
{
    return request->signature.count * kolo_dtype_bytes((kolo_dtype)request->signature.dtype);
}

static kolo_status failed(const kolo_request *request, kolo_status status,
                          struct kolo__fault *fault)
{
    *fault = (struct kolo__fault){.status = status, .peer = -1};
    snprintf(fault->text, sizeof fault->text,
             "copying between GPU %d and the host failed on rank %u (host %s): %.200s",
             request->bounce->ordinal, request->comm->rank, kolo__host_name(), kolo_error_text());
    return status;
}

kolo_status kolo__bounce_is_ready(kolo_request *request, struct kolo__fault *fault)
{
    const struct kolo__bounce *bounce = request->bounce;
    kolo_status status = bounce->gpus->event_query(bounce->device, bounce->copied);
    if (status == KOLO_AGAIN && request->kind == KOLO__REQUEST_RECV &&
        kolo__now_ns(&kolo__real_clock) >= bounce->idle_until_ns) {
        request->straight = false;
        return kolo__bounce_exchange(request, fault);
    }
    return status == KOLO_OK || status == KOLO_AGAIN ? status : failed(request, status, fault);
}

kolo_status kolo__bounce_exchange(kolo_request *request, struct kolo__fault *fault)
{
    struct kolo__bounce *bounce;
    kolo_status status =
        kolo__bounce_take(request->comm, request->operation, request->bounce->ordinal, NULL,
                          bytes_of(request), false, &bounce);
    if (status != KOLO_OK)
        return failed(request, status, fault);
    kolo__bounce_give_back(request->bounce);
    request->bounce = bounce;
    return KOLO_OK;
}

kolo_status kolo__bounce_deliver(const kolo_request *request, struct kolo__fault *fault)
{
    struct kolo__bounce *bounce = request->bounce;
    kolo_status status;
    if (request->straight && !request->post.wants_instead)
        status = bounce->gpus->flush_writes(bounce->device);
    else
        status = copy(bounce, request->output, bounce->memory, bytes_of(request));
    return status == KOLO_OK ? status : failed(request, status, fault);
}

void kolo__bounce_give_back(struct kolo__bounce *bounce)
{
    if (bounce != NULL)
        bounce->taken = false;
}

void kolo__bounces_close(kolo_comm *comm)
{
    while (comm->bounces != NULL) {
        struct kolo__bounce *bounce = comm->bounces;
        comm->bounces = bounce->next;
        destroy(bounce);
    }
}
