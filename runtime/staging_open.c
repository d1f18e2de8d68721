/* SPDX-License-Identifier: Apache-2.0 */
/* See staging.h: slots and streams, made when the first call needs them, and the plans of calls. */
#include "base/log.h"
#include "base/status.h"
#include "runtime/nccl_agree.h"
#include "runtime/staging_state.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- slots ---------------------------------------------------------------------------------- */

/* One element of each slice at least. */
static size_t slot_bytes(const kolo_comm *comm)
{
    size_t least = comm->size * sizeof(double);
    return least > KOLO__STAGING_BYTES ? least : KOLO__STAGING_BYTES;
}

/* Pinned; where network cards reach the heap, in it: then nobody copies between GPU and card. */
static kolo_status take_pinned(const kolo_comm *comm, const struct kolo__staging *staging,
                               unsigned char **memory)
{
    const struct kolo__device_module *gpus = staging->gpus;
    struct kolo__heap *heap = comm->plan_context.heap;
    size_t bytes = slot_bytes(comm);
    void *taken = NULL;
    if (heap != NULL && kolo__heap_alloc(heap, bytes, 1, &taken) == KOLO_OK) {
        *memory = taken;
        if (gpus->host_register(staging->device, taken, bytes) == KOLO_OK)
            return KOLO_OK;
        kolo__heap_free(heap, taken);
        *memory = NULL;
    }
    kolo_status status = gpus->host_alloc(staging->device, bytes, &taken);
    if (status == KOLO_OK)
        *memory = taken;
    return status;
}

static void give_pinned(const kolo_comm *comm, const struct kolo__staging *staging,
                        unsigned char *memory)
{
    struct kolo__heap *heap = comm->plan_context.heap;
    bool in_heap =
        heap != NULL && memory != NULL && kolo__heap_position(heap, memory, 1) != UINT64_MAX;
    if (!in_heap) {
        staging->gpus->host_free(staging->device, memory);
        return;
    }
    staging->gpus->host_unregister(staging->device, memory);
    kolo__heap_free(heap, memory);
}

static kolo_status make_slot(const kolo_comm *comm, const struct kolo__staging *staging,
                             struct kolo__staging_slot *slot)
{
    const struct kolo__device_module *gpus = staging->gpus;
    kolo_status status = take_pinned(comm, staging, &slot->given);
    if (status == KOLO_OK)
        status = take_pinned(comm, staging, &slot->result);
    if (status == KOLO_OK)
        status = gpus->event_create(staging->device, &slot->filled);
    if (status == KOLO_OK)
        status = gpus->event_create(staging->device, &slot->drained);
    return status;
}

static kolo_status make(const kolo_comm *comm, struct kolo__staging *staging)
{
    kolo_status status = kolo__device_load(&staging->gpus);
    if (status == KOLO_OK)
        status = staging->gpus->open(staging->ordinal, &staging->device);
    if (status == KOLO_OK)
        status = staging->gpus->stream_create(staging->device, &staging->in);
    if (status == KOLO_OK)
        status = staging->gpus->stream_create(staging->device, &staging->out);
    if (status == KOLO_OK)
        status = staging->gpus->event_create(staging->device, &staging->begun);
    for (int i = 0; i < KOLO__STAGING_SLOTS && status == KOLO_OK; i++)
        status = make_slot(comm, staging, &staging->slots[i]);
    return status;
}

/* Leaves nothing but what says so. */
static void unmake(const kolo_comm *comm, struct kolo__staging *staging)
{
    const struct kolo__device_module *gpus = staging->gpus;
    struct kolo__device *device = staging->device;
    if (device == NULL)
        return;
    gpus->stream_destroy(device, staging->in);
    gpus->stream_destroy(device, staging->out);
    gpus->event_destroy(device, staging->begun);
    for (int i = 0; i < KOLO__STAGING_SLOTS; i++) {
        gpus->event_destroy(device, staging->slots[i].filled);
        gpus->event_destroy(device, staging->slots[i].drained);
        give_pinned(comm, staging, staging->slots[i].given);
        give_pinned(comm, staging, staging->slots[i].result);
    }
    staging->device = NULL;
}

/* All ranks have slots afterwards, or none. */
static kolo_status open_all(kolo_comm *comm, const char *operation, struct kolo__nccl_word *all)
{
    struct kolo__staging *staging = comm->staging;
    struct kolo__nccl_word mine = {.status = KOLO_OK};
    bool pending;
    mine.status = (int32_t)make(comm, staging);
    if (mine.status != KOLO_OK)
        snprintf(mine.why, sizeof mine.why, "%.*s", KOLO__NCCL_WHY_BYTES - 1, kolo_error_text());
    kolo_status status = kolo__nccl_tell(comm, operation, &mine, all);
    if (status != KOLO_OK)
        return status;
    int failed = kolo__nccl_find_failed(comm, all, &pending);
    if (failed < 0)
        return KOLO_OK;
    unmake(comm, staging);
    staging->status = (kolo_status)all[failed].status;
    snprintf(staging->text, sizeof staging->text,
             "there is no way through the host either: on rank %d (host %s): %.*s", failed,
             comm->hosts[failed], KOLO__NCCL_WHY_BYTES - 1, all[failed].why);
    return KOLO_OK;
}

static kolo_status open_slots(kolo_comm *comm, const char *operation, int ordinal, const char *why)
{
    struct kolo__nccl_word *all = calloc(comm->size, sizeof *all);
    struct kolo__staging *staging = calloc(1, sizeof *staging);
    if (all == NULL || staging == NULL) {
        free(all);
        free(staging);
        return kolo__error(KOLO_ERR_MEMORY, "%s: no memory for a way through the host", operation);
    }
    staging->ordinal = ordinal;
    comm->staging = staging;
    kolo_status status = open_all(comm, operation, all);
    free(all);
    if (status == KOLO_OK && staging->status == KOLO_OK && comm->rank == 0)
        kolo__log(KOLO__LOG_INFO, "buffers in memory of GPUs go through the host's: %s", why);
    return status;
}

/* KOLO_AGAIN: the GPU copies from or to slots, and still will after KOLO_TIMEOUT, or some seconds
 * where the communicator is broken. */
static kolo_status settle(const kolo_comm *comm, const struct kolo__staging *staging)
{
    uint64_t limit_ms = kolo__comm_settle_ms(comm);
    kolo_status status = KOLO_OK;
    for (int i = 0; i < KOLO__STAGING_SLOTS && status != KOLO_AGAIN; i++) {
        const struct kolo__staging_slot *slot = &staging->slots[i];
        status = kolo__device_await(staging->gpus, staging->device, slot->filled, limit_ms);
        if (status != KOLO_AGAIN)
            status = kolo__device_await(staging->gpus, staging->device, slot->drained, limit_ms);
    }
    return status;
}

void kolo__staging_close(kolo_comm *comm)
{
    struct kolo__staging *staging = comm->staging;
    if (staging == NULL)
        return;
    comm->staging = NULL;
    if (staging->device != NULL && settle(comm, staging) == KOLO_AGAIN) {
        kolo__log(
            KOLO__LOG_WARN,
            "GPU %d has not ended its copies from and to the host's memory: is it stuck? That "
            "memory is left to it",
            staging->ordinal);
        return; /* giving it back would wait as well */
    }
    unmake(comm, staging);
    free(staging);
}

/* ---- plans ---------------------------------------------------------------------------------- */

static kolo_status get_chunk(kolo_comm *comm, const struct kolo__plan_key *whole, size_t count,
                             struct kolo__plan **chunk)
{
    struct kolo__plan_key key = *whole;
    struct kolo__plan *plan;
    if (*chunk != NULL || count == 0)
        return KOLO_OK;
    key.kind = KOLO__PLAN_OF_CHUNK;
    key.count = count;
    key.in_place = kolo__staging_in_place(whole->collective);
    kolo_status status = kolo__plan_get(&comm->plans, &comm->plan_context, &key, &plan);
    if (status != KOLO_OK)
        return status;
    plan->users++;
    *chunk = plan;
    return KOLO_OK;
}

/* The most elements of a slice that a slot has room for; the same on all ranks. */
static size_t chunk_count(const kolo_comm *comm, const struct kolo__plan_key *key)
{
    bool has_slices = key->collective == KOLO__REDUCE_SCATTER ||
                      key->collective == KOLO__ALLGATHER || key->collective == KOLO__ALLTOALL;
    size_t element = kolo_dtype_bytes(key->dtype) * (has_slices ? comm->size : 1);
    size_t most = slot_bytes(comm) / element;
    return key->count < most ? key->count : most;
}

static kolo_status get_plan(kolo_comm *comm, struct kolo__plan_key *key, struct kolo__plan **plan)
{
    size_t count = chunk_count(comm, key);
    key->kind = KOLO__PLAN_STAGED;
    kolo_status status = kolo__plan_get(&comm->plans, &comm->plan_context, key, plan);
    if (status != KOLO_OK)
        return status;
    (*plan)->users++; /* so that its chunks do not drive it out */
    status = get_chunk(comm, key, count, &(*plan)->chunks[0]);
    if (status == KOLO_OK)
        status = get_chunk(comm, key, key->count % count, &(*plan)->chunks[1]);
    (*plan)->users--;
    (*plan)->more_chunks = (key->count - 1) / count;
    return status;
}

kolo_status kolo__staging_plan(kolo_comm *comm, const struct kolo__call *call, int ordinal,
                               const char *why, struct kolo__plan_key *key,
                               struct kolo__plan **plan)
{
    static const char CANNOT_JOIN[] = "its GPU buffers go through the host, and need every rank";
    void *stream = call->options != NULL ? call->options->stream : NULL;
    bool capturing = false;
    kolo_status status = kolo__comm_check(comm, call->name);
    if (status == KOLO_OK && comm->staging == NULL)
        status = open_slots(comm, call->name, ordinal, why);
    if (status != KOLO_OK)
        return status;
    const struct kolo__staging *staging = comm->staging;
    if (staging->status != KOLO_OK)
        return kolo__error(staging->status,
                           "%s: the buffers are in memory of GPU %d, %s, and %s: copy them to "
                           "memory of the host",
                           call->name, ordinal, why, staging->text);
    if (staging->ordinal != ordinal)
        return kolo__error(
            KOLO_ERR_INVALID,
            "%s: the buffers are on GPU %d, and this communicator began on GPU %d: a "
            "communicator keeps to one GPU on each rank",
            call->name, ordinal, staging->ordinal);
    status = staging->gpus->stream_is_capturing(staging->device, stream, &capturing);
    if (status == KOLO_OK && capturing)
        status =
            kolo__error(KOLO_ERR_UNSUPPORTED,
                        "%s: the stream is being captured into a CUDA graph, but %s, and the "
                        "way through the host cannot be captured: call it outside of the graph",
                        call->name, why);
    if (status == KOLO_OK)
        status = get_plan(comm, key, plan);
    if (status == KOLO_OK)
        comm->cannot_join = CANNOT_JOIN;
    return status;
}
