/* SPDX-License-Identifier: Apache-2.0 */
/* See exchange.h. */
#include "runtime/exchange.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "runtime/watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const uint64_t SECOND_NS = 1000000000;

enum {
    RANKS = KOLO__EXCHANGE_RANKS,
    WHY_BYTES = KOLO__WATCH_WHY_BYTES,
    /* A vector for each thread of so many blocks is 256 KiB. */
    BLOCKS_MOST = 32,
    THREADS = 512, /* of a block */
    /* Looks at a flag in a second are fewer. So a kernel that nobody ends, because its process
     * hangs, ends by itself, but not before the watch would have ended it. */
    SPINS_PER_SECOND = 10000000,
    /* What a rank reads in the time of one more wait for all others: an estimate, 1.5 us at 400
     * GB/s. */
    WAIT_BYTES = 600000,
    CLOSE_MS = 5000, /* for what is on the streams; */
    END_MS = 1000,   /* then for kernels that were told to stop */
};

struct kolo__exchange {
    const struct kolo__device_module *gpus;
    struct kolo__device *device;
    int ordinal;
    size_t slot_bytes;
    uint32_t blocks_most;
    struct kolo__device_exchange part; /* from and to: of the call */
    struct kolo__device_handle handles[RANKS];
    struct kolo__watch watch;
    atomic_bool ended;  /* no kernel waits any more, nor does one begin */
    kolo_status status; /* of opening */
};

/* What each rank tells all others, by host memory. */
struct word {
    int32_t status; /* kolo_status */
    uint32_t blocks_most;
    uint64_t slot_bytes;
    char bus_id[32]; /* of the GPU */
    struct kolo__device_handle handle;
    char why[WHY_BYTES];
};

static void pause_ms(unsigned milliseconds)
{
    const struct timespec time = {.tv_nsec = (long)milliseconds * 1000000};
    nanosleep(&time, NULL);
}

/* ---- what is watched ------------------------------------------------------------------------ */

/* A word of the host's memory that kernels look at, and write: 1 + the rank that did not come. */
static uint32_t read_stop(const struct kolo__exchange *exchange)
{
    return __atomic_load_n(exchange->part.stop, __ATOMIC_ACQUIRE);
}

static kolo_status ask(kolo_comm *comm, char *why)
{
    uint32_t stop = read_stop(comm->exchange);
    if (stop == 0)
        return KOLO_OK;
    uint32_t missing = stop - 1 < comm->size ? stop - 1 : comm->rank;
    snprintf(why, WHY_BYTES, "the kernel of rank %u (host %.80s) did not come", missing,
             comm->hosts[missing]);
    return KOLO_ERR_TIMEOUT;
}

static void end(kolo_comm *comm)
{
    struct kolo__exchange *exchange = comm->exchange;
    if (exchange->part.stop == NULL || atomic_exchange(&exchange->ended, true))
        return;
    __atomic_store_n(exchange->part.stop, RANKS + 1, __ATOMIC_RELEASE);
}

static void end_for(kolo_comm *comm, const struct kolo__fault *fault)
{
    (void)fault; /* the communicator's, too */
    end(comm);
    comm->exchange->watch.on = false;
}

static const struct kolo__watched WATCHED = {
    .name = "the exchange among GPUs", .ask = ask, .end = end_for};

void kolo__exchange_fail(kolo_comm *comm)
{
    if (comm->exchange != NULL)
        end(comm);
}

/* ---- opening -------------------------------------------------------------------------------- */

bool kolo__exchange_takes(const kolo_comm *comm, const struct kolo__call *call)
{
    size_t limit = (size_t)comm->context->config.gpu_exchange;
    bool forced = call->options != NULL && call->options->algorithm != NULL &&
                  call->options->algorithm[0] != '\0';
    return limit > 0 && !forced && call->collective == KOLO__ALLREDUCE &&
           call->dtype >= KOLO_FP16 && call->op != KOLO_PREMUL_SUM &&
           call->count <= limit / kolo_dtype_bytes(call->dtype) && comm->size >= 2 &&
           comm->size <= RANKS && comm->local_size == comm->size;
}

/* Zeros, before anybody else looks. */
static kolo_status zero(const kolo_comm *comm, void *memory, size_t bytes)
{
    const struct kolo__device_module *gpus = comm->exchange->gpus;
    struct kolo__device *device = comm->exchange->device;
    kolo__device_stream stream = NULL;
    kolo__device_event event = NULL;
    uint64_t deadline_ns =
        kolo__now_ns(&kolo__real_clock) + (uint64_t)comm->context->config.timeout * SECOND_NS;
    kolo_status status = gpus->stream_create(device, &stream);
    if (status == KOLO_OK)
        status = gpus->event_create(device, &event);
    if (status == KOLO_OK)
        status = gpus->zero(device, memory, bytes, stream);
    if (status == KOLO_OK)
        status = gpus->event_record(device, event, stream);
    while (status == KOLO_OK && (status = gpus->event_query(device, event)) == KOLO_AGAIN) {
        if (kolo__now_ns(&kolo__real_clock) > deadline_ns) {
            status = kolo__error(KOLO_ERR_TIMEOUT, "GPU %d did not zero memory within %ld s",
                                 comm->exchange->ordinal, comm->context->config.timeout);
            break;
        }
        pause_ms(1);
        status = KOLO_OK;
    }
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
    word->blocks_most = gpu->processors < BLOCKS_MOST ? (uint32_t)gpu->processors : BLOCKS_MOST;
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

static void unmap_all(const kolo_comm *comm)
{
    struct kolo__exchange *exchange = comm->exchange;
    for (uint32_t r = 0; r < comm->size; r++)
        if (r != comm->rank) {
            exchange->gpus->unmap(exchange->device, exchange->part.regions[r],
                                  &exchange->handles[r]);
            exchange->part.regions[r] = NULL;
        }
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
        exchange->blocks_most = BLOCKS_MOST;
        for (uint32_t r = 0; r < comm->size; r++)
            if (all[r].blocks_most < exchange->blocks_most)
                exchange->blocks_most = all[r].blocks_most;
        status = map_all(comm, all);
        if (status == KOLO_OK)
            status = kolo__watch_start(&exchange->watch, operation, exchange->gpus,
                                       exchange->device, exchange->ordinal);
        status = tell(comm, operation, status, &mine, all);
        if (status != KOLO_OK)
            return status;
        find_obstacle(comm, all, text, sizeof text);
        if (text[0] == '\0')
            return KOLO_OK;
        kolo__watch_stop(&exchange->watch);
        unmap_all(comm);
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
                                 WATCHED.name);
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
    kolo__watch_init(&exchange->watch, comm, &WATCHED);
    comm->exchange = exchange;
    kolo_status status = open_all(comm, operation, all);
    free(all);
    if (status != KOLO_OK)
        exchange->status = status;
    exchange->watch.on = exchange->status == KOLO_OK;
    return exchange->status;
}

/* ---- the end -------------------------------------------------------------------------------- */

static kolo_status await(struct kolo__watch *watch, int limit_ms)
{
    kolo_status status = KOLO_AGAIN;
    for (int waited_ms = 0; status == KOLO_AGAIN && waited_ms < limit_ms; waited_ms++) {
        pthread_mutex_lock(&watch->lock);
        status = kolo__watch_reached(watch);
        pthread_mutex_unlock(&watch->lock);
        if (status == KOLO_AGAIN)
            pause_ms(1);
    }
    return status;
}

/* KOLO_OK: no kernel of this rank uses memory of the exchange any more. */
static kolo_status settle(kolo_comm *comm)
{
    struct kolo__exchange *exchange = comm->exchange;
    kolo_status status = exchange->status;
    if (status == KOLO_OK)
        status = await(&exchange->watch, CLOSE_MS);
    if (status == KOLO_AGAIN) {
        end(comm);
        status = await(&exchange->watch, END_MS);
    }
    return status;
}

void kolo__exchange_close(kolo_comm *comm)
{
    struct kolo__exchange *exchange = comm->exchange;
    if (exchange == NULL)
        return;
    kolo_status status = settle(comm);
    kolo__watch_stop(&exchange->watch);
    kolo__watch_free(&exchange->watch);
    if (status == KOLO_OK) {
        unmap_all(comm);
        exchange->gpus->host_free(exchange->device, exchange->part.stop);
    }
    comm->exchange = NULL;
    free(exchange);
}

/* ---- one allreduce -------------------------------------------------------------------------- */

/* One-shot reads (n-1)(n-2)/n times the bytes more, and waits once less. */
static enum kolo__device_exchange_kind kind_for(size_t bytes, size_t ranks)
{
    return bytes * (ranks - 1) * (ranks - 2) / ranks <= WAIT_BYTES ? KOLO__EXCHANGE_ONE_SHOT
                                                                   : KOLO__EXCHANGE_TWO_SHOT;
}

static uint32_t blocks_for(const struct kolo__exchange *exchange, size_t bytes)
{
    size_t blocks = (bytes + THREADS * 16 - 1) / (THREADS * 16);
    return blocks < exchange->blocks_most ? (uint32_t)blocks : exchange->blocks_most;
}

static uint32_t spins_for(const kolo_comm *comm)
{
    uint64_t spins = (uint64_t)comm->context->config.timeout * SPINS_PER_SECOND;
    return spins < UINT32_MAX ? (uint32_t)spins : UINT32_MAX;
}

static kolo_status launch(const kolo_request *request)
{
    const struct kolo__signature *signature = &request->signature;
    struct kolo__exchange *exchange = request->comm->exchange;
    bool average = signature->op == KOLO_AVERAGE;
    size_t bytes = signature->count * kolo_dtype_bytes((kolo_dtype)signature->dtype);
    const struct kolo__reduction reduction = {
        .dtype = (kolo_dtype)signature->dtype,
        .op = average ? KOLO_SUM : (kolo_op)signature->op,
        .divisor = average ? request->comm->size : 1,
    };
    const struct kolo__device_exchange_run run = {
        .kind = kind_for(bytes, request->comm->size),
        .rank_count = request->comm->size,
        .slot_bytes = exchange->slot_bytes,
        .reduction = &reduction,
        .count = signature->count,
        .spins = spins_for(request->comm),
        .blocks = blocks_for(exchange, bytes),
        .step = -1,
    };
    exchange->part.from = request->input;
    exchange->part.to = request->output;
    return exchange->gpus->exchange(exchange->device, &run, &exchange->part, 1, request->stream);
}

kolo_status kolo__exchange_begin(kolo_request *request, struct kolo__fault *fault)
{
    kolo_comm *comm = request->comm;
    struct kolo__exchange *exchange = comm->exchange;
    char why[WHY_BYTES] = "";
    pthread_mutex_lock(&exchange->watch.lock);
    bool ended = atomic_load(&exchange->ended);
    kolo_status status = ended ? KOLO_OK : ask(comm, why);
    if (status == KOLO_OK && !ended) {
        status = launch(request);
        if (status == KOLO_OK)
            kolo__watch_note(&exchange->watch, request);
        else
            snprintf(why, sizeof why, "%.*s", WHY_BYTES - 1, kolo_error_text());
    }
    pthread_mutex_unlock(&exchange->watch.lock);
    if (status == KOLO_OK)
        return KOLO_OK;
    *fault = (struct kolo__fault){.status = status, .peer = -1};
    snprintf(fault->text, sizeof fault->text, "%s failed on rank %u (host %s): %s", WATCHED.name,
             comm->rank, kolo__host_name(), why);
    return status;
}

/* Once the watch has ended it, it is for ever KOLO_AGAIN: what it found is the communicator's
 * fault, and reaches whoever waits as any other news does. */
kolo_status kolo__exchange_progress(const kolo_request *request)
{
    return atomic_load(&request->comm->exchange->ended) ? KOLO_AGAIN : KOLO_OK;
}
