/* SPDX-License-Identifier: Apache-2.0 */
/* See exchange.h: calls, and the end. How it begins is exchange_open.c. */
#include "base/log.h"
#include "base/status.h"
#include "runtime/exchange_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    RANKS = KOLO__EXCHANGE_RANKS,
    WHY_BYTES = KOLO__EXCHANGE_WHY_BYTES,
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

const struct kolo__watched kolo__exchange_watched = {
    .name = "the exchange among GPUs", .ask = ask, .end = end_for};

void kolo__exchange_fail(kolo_comm *comm)
{
    if (comm->exchange != NULL)
        end(comm);
}

/* ---- the end -------------------------------------------------------------------------------- */

void kolo__exchange_unmap(const kolo_comm *comm)
{
    struct kolo__exchange *exchange = comm->exchange;
    for (uint32_t r = 0; r < comm->size; r++)
        if (r != comm->rank) {
            exchange->gpus->unmap(exchange->device, exchange->part.regions[r],
                                  &exchange->handles[r]);
            exchange->part.regions[r] = NULL;
        }
}

static void pause_ms(unsigned milliseconds)
{
    const struct timespec time = {.tv_nsec = (long)milliseconds * 1000000};
    nanosleep(&time, NULL);
}

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
        kolo__exchange_unmap(comm);
        exchange->gpus->host_free(exchange->device, exchange->part.stop);
    }
    comm->exchange = NULL;
    free(exchange);
}

/* ---- one allreduce -------------------------------------------------------------------------- */

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

/* Behind the one before it, wherever that is: two at a time would use one slot. */
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
    kolo_status status = kolo__watch_follow(&exchange->watch, request->stream);
    return status == KOLO_OK ? exchange->gpus->exchange(exchange->device, &run, &exchange->part, 1,
                                                        request->stream)
                             : status;
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
    snprintf(fault->text, sizeof fault->text, "%s failed on rank %u (host %s): %s",
             kolo__exchange_watched.name, comm->rank, kolo__host_name(), why);
    return status;
}

/* Once the watch has ended it, it is for ever KOLO_AGAIN: what it found is the communicator's
 * fault, and reaches whoever waits as any other news does. */
kolo_status kolo__exchange_progress(const kolo_request *request)
{
    return atomic_load(&request->comm->exchange->ended) ? KOLO_AGAIN : KOLO_OK;
}
