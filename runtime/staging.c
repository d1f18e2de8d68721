/* SPDX-License-Identifier: Apache-2.0 */
/* See staging.h: one collective, chunk by chunk. The slots are staging_open.c. */
#include "base/log.h"
#include "base/status.h"
#include "runtime/staging_state.h"

#include <stdio.h>

/* ---- what is where -------------------------------------------------------------------------- */

/* Slices of count elements that this rank's GPU gives, and takes. */
static size_t slices_given(const kolo_request *request)
{
    switch ((enum kolo__collective)request->signature.collective) {
    case KOLO__REDUCE_SCATTER:
    case KOLO__ALLTOALL:
        return request->comm->size;
    case KOLO__BROADCAST:
        return request->signature.root == request->comm->rank;
    default:
        return 1;
    }
}

static size_t slices_taken(const kolo_request *request)
{
    bool is_root = request->signature.root == request->comm->rank;
    switch ((enum kolo__collective)request->signature.collective) {
    case KOLO__ALLGATHER:
    case KOLO__ALLTOALL:
        return request->comm->size;
    case KOLO__BROADCAST:
        return !is_root;
    case KOLO__REDUCE_TO_ROOT:
        return is_root;
    default:
        return 1;
    }
}

bool kolo__staging_in_place(enum kolo__collective collective)
{
    return collective == KOLO__ALLREDUCE || collective == KOLO__BROADCAST;
}

static const struct kolo__plan *chunk_plan(const kolo_request *request, size_t chunk)
{
    const struct kolo__plan *plan = request->plan;
    size_t begin = chunk * plan->chunks[0]->key.count;
    return request->signature.count - begin >= plan->chunks[0]->key.count ? plan->chunks[0]
                                                                          : plan->chunks[1];
}

static size_t chunks_of(const kolo_request *request)
{
    return request->plan->more_chunks + 1;
}

/* ---- copies --------------------------------------------------------------------------------- */

/* A chunk of each slice; in a slot they lie one behind the other. */
static kolo_status copy(const kolo_request *request, size_t chunk, bool to_gpu)
{
    const struct kolo__staging *staging = request->comm->staging;
    const struct kolo__staging_slot *slot = &staging->slots[chunk % KOLO__STAGING_SLOTS];
    size_t element = kolo_dtype_bytes((kolo_dtype)request->signature.dtype);
    size_t bytes = chunk_plan(request, chunk)->key.count * element;
    size_t begin = chunk * request->plan->chunks[0]->key.count * element;
    size_t stride = request->signature.count * element;
    size_t slices = to_gpu ? slices_taken(request) : slices_given(request);
    bool in_place = kolo__staging_in_place((enum kolo__collective)request->signature.collective);
    unsigned char *host = to_gpu && !in_place ? slot->result : slot->given;
    kolo_status status = KOLO_OK;
    for (size_t i = 0; i < slices && status == KOLO_OK; i++) {
        if (to_gpu)
            status =
                staging->gpus->copy(staging->device, (char *)request->output + i * stride + begin,
                                    host + i * bytes, bytes, staging->out);
        else
            status = staging->gpus->copy(staging->device, host + i * bytes,
                                         (const char *)request->input + i * stride + begin, bytes,
                                         staging->in);
    }
    return status;
}

/* From the GPU, once what was in the slot has left it. */
static kolo_status fill(const kolo_request *request, size_t chunk)
{
    const struct kolo__staging *staging = request->comm->staging;
    const struct kolo__staging_slot *slot = &staging->slots[chunk % KOLO__STAGING_SLOTS];
    kolo_status status = staging->gpus->stream_wait(staging->device, staging->in, slot->drained);
    if (status == KOLO_OK)
        status = copy(request, chunk, false);
    return status == KOLO_OK
               ? staging->gpus->event_record(staging->device, slot->filled, staging->in)
               : status;
}

static kolo_status drain(const kolo_request *request, size_t chunk)
{
    const struct kolo__staging *staging = request->comm->staging;
    kolo_status status = copy(request, chunk, true);
    return status == KOLO_OK
               ? staging->gpus->event_record(staging->device,
                                             staging->slots[chunk % KOLO__STAGING_SLOTS].drained,
                                             staging->out)
               : status;
}

/* ---- the run -------------------------------------------------------------------------------- */

static kolo_status copies_failed(const kolo_request *request, kolo_status status,
                                 struct kolo__fault *fault)
{
    *fault = (struct kolo__fault){.status = status, .peer = -1};
    snprintf(fault->text, sizeof fault->text,
             "copying between GPU %d and the host failed on rank %u (host %s): %.200s",
             request->comm->staging->ordinal, request->comm->rank, kolo__host_name(),
             kolo_error_text());
    return status;
}

kolo_status kolo__staging_begin(kolo_request *request, struct kolo__fault *fault)
{
    struct kolo__staging *staging = request->comm->staging;
    const struct kolo__device_module *gpus = staging->gpus;
    staging->chunk = 0;
    staging->running = false;
    /* Behind what the caller's stream has by now; copies to the GPU too, for that may still read
     * what they overwrite. */
    kolo_status status = gpus->event_record(staging->device, staging->begun, request->stream);
    if (status == KOLO_OK)
        status = gpus->stream_wait(staging->device, staging->in, staging->begun);
    if (status == KOLO_OK)
        status = gpus->stream_wait(staging->device, staging->out, staging->begun);
    size_t chunks = chunks_of(request);
    for (size_t i = 0; i < KOLO__STAGING_SLOTS && i < chunks && status == KOLO_OK; i++)
        status = fill(request, i);
    return status == KOLO_OK ? KOLO_OK : copies_failed(request, status, fault);
}

static void run_chunk(const kolo_request *request)
{
    struct kolo__staging *staging = request->comm->staging;
    const struct kolo__staging_slot *slot = &staging->slots[staging->chunk % KOLO__STAGING_SLOTS];
    const struct kolo__plan *plan = chunk_plan(request, staging->chunk);
    bool in_place = kolo__staging_in_place(plan->key.collective);
    struct kolo__run_arguments arguments = {
        .input = slot->given,
        .output = in_place ? slot->given : slot->result,
        .scale = request->scale,
        .signature = request->signature,
        .transport = request->comm->transport,
        .mapping = request->comm->host_mapping,
        .trace = request->comm->context->trace,
    };
    arguments.signature.count = plan->key.count;
    arguments.signature.sequence += staging->chunk;
    arguments.signature.algorithm = plan->algorithm_index;
    kolo__run_begin(plan->program, &arguments);
    staging->running = true;
}

/* To the GPU with it, the next but one from there; KOLO_OK: that was the last, and the caller's
 * stream waits for it. */
static kolo_status end_chunk(const kolo_request *request)
{
    struct kolo__staging *staging = request->comm->staging;
    size_t chunk = staging->chunk++, chunks = chunks_of(request);
    staging->running = false;
    kolo_status status = drain(request, chunk);
    if (status == KOLO_OK && chunk + KOLO__STAGING_SLOTS < chunks)
        status = fill(request, chunk + KOLO__STAGING_SLOTS);
    if (status != KOLO_OK || staging->chunk < chunks)
        return status == KOLO_OK ? KOLO_AGAIN : status;
    return staging->gpus->stream_wait(staging->device, request->stream,
                                      staging->slots[chunk % KOLO__STAGING_SLOTS].drained);
}

kolo_status kolo__staging_progress(kolo_request *request, bool *moved, struct kolo__fault *fault)
{
    struct kolo__staging *staging = request->comm->staging;
    kolo_status status = KOLO_AGAIN;
    while (status == KOLO_AGAIN) {
        const struct kolo__staging_slot *slot =
            &staging->slots[staging->chunk % KOLO__STAGING_SLOTS];
        if (!staging->running) {
            status = staging->gpus->event_query(staging->device, slot->filled);
            request->comm->polls = status == KOLO_AGAIN; /* a GPU wakes nobody */
            if (status == KOLO_AGAIN)
                return status;
            if (status != KOLO_OK)
                break;
            run_chunk(request);
            *moved = true;
        }
        status = kolo__run_progress(chunk_plan(request, staging->chunk)->program, moved, fault);
        if (status != KOLO_OK)
            return status;
        status = end_chunk(request);
        *moved = true;
    }
    return status == KOLO_OK ? KOLO_OK : copies_failed(request, status, fault);
}

void kolo__staging_state(const kolo_request *request, char *text, size_t bytes)
{
    const struct kolo__staging *staging = request->comm->staging;
    char state[160] = "the GPU, or what its stream had before";
    if (staging->running)
        kolo__run_state(chunk_plan(request, staging->chunk)->program, state, sizeof state);
    snprintf(text, bytes, "chunk %zu of %zu: %s", staging->chunk + 1, chunks_of(request), state);
}

int kolo__staging_waiting_for(const kolo_request *request)
{
    const struct kolo__staging *staging = request->comm->staging;
    return staging->running ? kolo__run_waiting_for(chunk_plan(request, staging->chunk)->program)
                            : -1;
}
