/* SPDX-License-Identifier: Apache-2.0 */
/* See exchange.h: how ranks come to map each other's memory. Calls, and the end, are exchange.c. */
#include "base/log.h"
#include "base/status.h"
#include "runtime/exchange_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WHY_BYTES = KOLO__EXCHANGE_WHY_BYTES };

/* What each rank tells all others, by host memory. */
struct word {
    int32_t status; /* kolo_status */
    uint32_t blocks_most;
    uint64_t slot_bytes;
    char bus_id[32]; /* of the GPU */
    struct kolo__device_handle handle;
    char why[WHY_BYTES];
};

static kolo_status await(const kolo_comm *comm, kolo__device_event event)
{
    const struct kolo__exchange *exchange = comm->exchange;
    const long limit_s = comm->context->config.timeout;
    kolo_status status =
        kolo__device_await(exchange->gpus, exchange->device, event, (uint64_t)limit_s * 1000);
    return status == KOLO_AGAIN
               ? kolo__error(KOLO_ERR_TIMEOUT, "GPU %d did not zero memory within %ld s",
                             exchange->ordinal, limit_s)
               : status;
}

/* Zeros, before anybody else looks. */
static kolo_status zero(const kolo_comm *comm, void *memory, size_t bytes)
{
    const struct kolo__device_module *gpus = comm->exchange->gpus;
    struct kolo__device *device = comm->exchange->device;
    kolo__device_stream stream = NULL;
    kolo__device_event event = NULL;
    kolo_status status = gpus->stream_create(device, &stream);
    if (status == KOLO_OK)
        status = gpus->event_create(device, &event);
    if (status == KOLO_OK)
        status = gpus->zero(device, memory, bytes, stream);
    if (status == KOLO_OK)
        status = gpus->event_record(device, event, stream);
    if (status == KOLO_OK)
        status = await(comm, event);
    gpus->event_destroy(device, event);
    gpus->stream_destroy(device, stream);
    return status;
}

static kolo_status describe(const struct kolo__exchange *exchange, struct word *word)
{
    struct kolo__device_survey survey;
    kolo_status status = exchange->gpus->survey(&survey);
    if (status != KOLO_OK)
        return status;
    const struct kolo__device_description *gpu = &survey.devices[exchange->ordinal];
    memcpy(word->bus_id, gpu->bus_id, sizeof word->bus_id);
    word->blocks_most = gpu->processors < KOLO__EXCHANGE_BLOCKS_MOST ? (uint32_t)gpu->processors
                                                                     : KOLO__EXCHANGE_BLOCKS_MOST;
    return KOLO_OK;
}

/* This rank's region, and all that needs no other. */
static kolo_status make(const kolo_comm *comm, struct word *word)
{
    struct kolo__exchange *exchange = comm->exchange;
    size_t bytes = kolo__exchange_region_bytes(exchange->slot_bytes);
    void **own = &exchange->part.regions[comm->rank], *stop = NULL;
    kolo_status status = kolo__device_load(&exchange->gpus);
    if (status == KOLO_OK)
        status = exchange->gpus->open(exchange->ordinal, &exchange->device);
    if (status == KOLO_OK)
        status = describe(exchange, word);
    if (status == KOLO_OK)
        status = exchange->gpus->host_alloc(exchange->device, sizeof(uint32_t), &stop);
    if (status != KOLO_OK)
        return status;
    exchange->part.stop = stop;
    *exchange->part.stop = 0;
    exchange->part.rank = comm->rank;
    status = exchange->gpus->alloc(exchange->device, bytes, own);
    if (status == KOLO_OK)
        status = zero(comm, *own, bytes);
    if (status == KOLO_OK)
        status = exchange->gpus->share(exchange->device, *own, &word->handle);
    return status;
}

static kolo_status map_all(const kolo_comm *comm, const struct word *all)
{
    struct kolo__exchange *exchange = comm->exchange;
    kolo_status status = KOLO_OK;
    for (uint32_t r = 0; r < comm->size && status == KOLO_OK; r++) {
        exchange->handles[r] = all[r].handle;
        if (r != comm->rank)
            status =
                exchange->gpus->map(exchange->device, &all[r].handle, &exchange->part.regions[r]);
    }
    return status;
}

/* Its events order calls, and tell when they are done. */
static kolo_status start_watch(struct kolo__exchange *exchange, const char *operation)
{
    kolo_status status = kolo__watch_start(&exchange->watch, operation, exchange->gpus,
                                           exchange->device, exchange->ordinal);
    if (status == KOLO_OK && !kolo__watch_has_events(&exchange->watch))
        status = kolo__error(KOLO_ERR_UNSUPPORTED, "GPU %d has no events", exchange->ordinal);
    return status;
}

/* Nobody has the region mapped. */
static void unmake(const kolo_comm *comm)
{
    struct kolo__exchange *exchange = comm->exchange;
    if (exchange->device == NULL)
        return;
    exchange->gpus->free(exchange->device, exchange->part.regions[comm->rank]);
    exchange->gpus->host_free(exchange->device, exchange->part.stop);
    exchange->part.stop = NULL;
}

/* What is wrong with some rank, or between two of them; text is empty where all is well. */
static void find_obstacle(const kolo_comm *comm, const struct word *all, char *text, size_t bytes)
{
    text[0] = '\0';
    for (uint32_t r = 0; r < comm->size && text[0] == '\0'; r++)
        if (all[r].status != KOLO_OK)
            snprintf(text, bytes, "on rank %u (host %s): %.*s", r, comm->hosts[r], WHY_BYTES - 1,
                     all[r].why);
        else if (all[r].slot_bytes != all[0].slot_bytes)
            snprintf(text, bytes, "KOLO_GPU_EXCHANGE differs between rank 0 and rank %u", r);
    for (uint32_t r = 0; r < comm->size && text[0] == '\0'; r++)
        for (uint32_t before = 0; before < r && text[0] == '\0'; before++)
            if (strcmp(all[r].bus_id, all[before].bus_id) == 0)
                snprintf(text, bytes, "rank %u and rank %u have one GPU, %s", before, r,
                         all[r].bus_id);
}

static kolo_status tell(kolo_comm *comm, const char *operation, kolo_status status,
                        struct word *mine, struct word *all)
{
    mine->status = (int32_t)status;
    if (status != KOLO_OK)
        snprintf(mine->why, sizeof mine->why, "%.*s", WHY_BYTES - 1, kolo_error_text());
    return kolo__call_gather(comm, operation, mine, all, sizeof *mine);
}

/* All ranks have it afterwards, or none. An error is the communicator's: what others may have
 * mapped by then is left to the end of the process. */
static kolo_status open_all(kolo_comm *comm, const char *operation, struct word *all)
{
    struct kolo__exchange *exchange = comm->exchange;
    struct word mine = {.slot_bytes = exchange->slot_bytes};
    char text[WHY_BYTES + 160];
    kolo_status status = tell(comm, operation, make(comm, &mine), &mine, all);
    if (status != KOLO_OK)
        return status;
    find_obstacle(comm, all, text, sizeof text);
    if (text[0] == '\0') {
        exchange->blocks_most = KOLO__EXCHANGE_BLOCKS_MOST;
        for (uint32_t r = 0; r < comm->size; r++)
            if (all[r].blocks_most < exchange->blocks_most)
                exchange->blocks_most = all[r].blocks_most;
        status = map_all(comm, all);
        if (status == KOLO_OK)
            status = start_watch(exchange, operation);
        status = tell(comm, operation, status, &mine, all);
        if (status != KOLO_OK)
            return status;
        find_obstacle(comm, all, text, sizeof text);
        if (text[0] == '\0')
            return KOLO_OK;
        kolo__watch_stop(&exchange->watch);
        kolo__exchange_unmap(comm);
        status = tell(comm, operation, KOLO_OK, &mine, all); /* nobody frees what is mapped */
    }
    if (status == KOLO_OK)
        unmake(comm);
    exchange->status = KOLO_ERR_UNSUPPORTED;
    if (status == KOLO_OK && comm->rank == 0)
        kolo__log(KOLO__LOG_WARN, "no allreduce goes by KOLO_GPU_EXCHANGE here: %s", text);
    return status;
}

kolo_status kolo__exchange_open(kolo_comm *comm, const char *operation, int ordinal)
{
    if (comm->exchange != NULL) {
        const struct kolo__exchange *exchange = comm->exchange;
        if (exchange->status == KOLO_OK && exchange->ordinal != ordinal)
            return kolo__error(KOLO_ERR_INVALID,
                               "%s: the buffers are on GPU %d, and this communicator began on GPU "
                               "%d: a communicator keeps to one GPU on each rank",
                               operation, ordinal, exchange->ordinal);
        return exchange->status == KOLO_OK || exchange->status == KOLO_ERR_UNSUPPORTED
                   ? exchange->status
                   : kolo__error(exchange->status, "%s: %s was not begun by all ranks", operation,
                                 kolo__exchange_watched.name);
    }
    struct word *all = calloc(comm->size, sizeof *all);
    struct kolo__exchange *exchange = calloc(1, sizeof *exchange);
    if (all == NULL || exchange == NULL) {
        free(all);
        free(exchange);
        return kolo__error(KOLO_ERR_MEMORY, "%s: no memory for an exchange among GPUs", operation);
    }
    exchange->ordinal = ordinal;
    exchange->slot_bytes = ((size_t)comm->context->config.gpu_exchange + 15) / 16 * 16;
    kolo__watch_init(&exchange->watch, comm, &kolo__exchange_watched);
    comm->exchange = exchange;
    kolo_status status = open_all(comm, operation, all);
    free(all);
    if (status != KOLO_OK)
        exchange->status = status;
    pthread_mutex_lock(&exchange->watch.lock);
    exchange->watch.on = exchange->status == KOLO_OK;
    pthread_mutex_unlock(&exchange->watch.lock);
    return exchange->status;
}
