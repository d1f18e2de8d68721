/* SPDX-License-Identifier: Apache-2.0 */
/* See nccl.h: how ranks agree on NCCL, its memory, and its end. Calls are nccl_call.c. */
#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "runtime/nccl_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t SECOND_NS = 1000000000;

enum {
    ABORT_MS = 5000,    /* as long as a fault may take until all ranks have ended */
    FINALIZE_MS = 5000, /* what is on the streams of a sound communicator ends sooner */
    /* Registering is a matter of milliseconds; who has not got through after this waits for a rank
     * that was refused. */
    WINDOW_MS = 3000,
};

/* ---- opening -------------------------------------------------------------------------------- */

void kolo__nccl_set_watched(struct kolo__nccl *nccl, bool watched)
{
    pthread_mutex_lock(&nccl->watch.lock);
    nccl->watch.on = watched && nccl->comm != NULL;
    pthread_mutex_unlock(&nccl->watch.lock);
}

/* With the lock. */
static void abort_comm(kolo_comm *comm)
{
    struct kolo__nccl *nccl = comm->nccl;
    struct kolo__nccl_comm *ending = nccl->comm;
    char why[KOLO__NCCL_WHY_BYTES] = "";
    nccl->comm = NULL; /* first: nobody else is to end it as well */
    nccl->watch.on = false;
    kolo__watch_forget(&nccl->watch);
    if (ending != NULL && nccl->module->comm_abort(ending, ABORT_MS, why) != KOLO_OK)
        kolo__log(KOLO__LOG_WARN, "rank %u (host %s): %s", comm->rank, kolo__host_name(), why);
}

static void abort_own(kolo_comm *comm)
{
    pthread_mutex_lock(&comm->nccl->watch.lock);
    abort_comm(comm);
    pthread_mutex_unlock(&comm->nccl->watch.lock);
}

/* As struct kolo__watched has them. */
void kolo__nccl_end(kolo_comm *comm, const struct kolo__fault *fault)
{
    struct kolo__nccl *nccl = comm->nccl;
    if (nccl->comm == NULL)
        return;
    nccl->status = fault->status;
    snprintf(nccl->text, sizeof nccl->text, "%.*s", (int)sizeof nccl->text - 1, fault->text);
    abort_comm(comm);
}

static kolo_status ask_comm(kolo_comm *comm, char *why)
{
    return comm->nccl->module->comm_poll(comm->nccl->comm, why);
}

_Static_assert((int)KOLO__NCCL_WHY_BYTES <= (int)KOLO__WATCH_WHY_BYTES, "reasons have room");
const struct kolo__watched kolo__nccl_watched = {
    .name = "NCCL", .ask = ask_comm, .end = kolo__nccl_end};

/* What all ranks have to say to one that failed; remembered for later calls. */
static kolo_status refuse(kolo_comm *comm, const char *operation, kolo_status status,
                          const char *text)
{
    struct kolo__nccl *nccl = comm->nccl;
    abort_own(comm);
    kolo__watch_stop(&nccl->watch);
    nccl->status = status;
    snprintf(nccl->text, sizeof nccl->text, "%s", text);
    return kolo__error(status, "%s: %s", operation, nccl->text);
}

static kolo_status refuse_for(kolo_comm *comm, const char *operation,
                              const struct kolo__nccl_word *all, int failed)
{
    char text[sizeof comm->nccl->text];
    snprintf(text, sizeof text, "NCCL cannot be used: on rank %d (host %s): %.*s", failed,
             comm->hosts[failed], KOLO__NCCL_WHY_BYTES - 1, all[failed].why);
    return refuse(comm, operation, KOLO_ERR_UNSUPPORTED, text);
}

/* Averages need it, and the watch. NCCL goes without. */
static void open_device(struct kolo__nccl *nccl)
{
    kolo_status status = kolo__device_load(&nccl->gpus);
    if (status == KOLO_OK)
        status = nccl->gpus->open(nccl->ordinal, &nccl->device);
    if (status != KOLO_OK)
        kolo__log(KOLO__LOG_INFO, "NCCL's work on GPU %d is not watched: %s", nccl->ordinal,
                  kolo_error_text());
}

static void introduce(kolo_comm *comm, const char *operation, struct kolo__nccl_word *mine)
{
    struct kolo__nccl *nccl = comm->nccl;
    const char *path = comm->context->config.nccl;
    if (strcmp(path, "off") == 0) {
        mine->status = KOLO_ERR_UNSUPPORTED;
        snprintf(mine->why, sizeof mine->why, "KOLO_NCCL=off");
        return;
    }
    mine->status = (int32_t)kolo__nccl_load(path, &nccl->module, &nccl->library);
    if (mine->status == KOLO_OK && nccl->watch.thread == NULL) {
        open_device(nccl);
        mine->status = (int32_t)kolo__watch_start(&nccl->watch, operation, nccl->gpus, nccl->device,
                                                  nccl->ordinal);
    }
    if (mine->status != KOLO_OK) {
        snprintf(mine->why, sizeof mine->why, "%.*s", KOLO__NCCL_WHY_BYTES - 1, kolo_error_text());
        return;
    }
    mine->version = nccl->library.version;
    mine->has_windows = nccl->library.has_windows;
    mine->scales = nccl->device != NULL;
    if (comm->rank == 0)
        mine->status = (int32_t)nccl->module->unique_id(mine->id, mine->why);
}

/* NCCL's own protocols differ from version to version. */
static kolo_status check_versions(kolo_comm *comm, const char *operation,
                                  const struct kolo__nccl_word *all)
{
    char text[400];
    for (uint32_t r = 1; r < comm->size; r++)
        if (all[r].version != all[0].version) {
            snprintf(text, sizeof text,
                     "NCCL cannot be used: rank 0 (host %.80s) has %d.%d.%d, rank %u (host %.80s) "
                     "has %d.%d.%d: install one version on all hosts",
                     comm->hosts[0], all[0].version / 10000, all[0].version % 10000 / 100,
                     all[0].version % 100, r, comm->hosts[r], all[r].version / 10000,
                     all[r].version % 10000 / 100, all[r].version % 100);
            return refuse(comm, operation, KOLO_ERR_UNSUPPORTED, text);
        }
    return KOLO_OK;
}

uint64_t kolo__nccl_limit_ns(const kolo_comm *comm)
{
    return (uint64_t)comm->context->config.timeout * SECOND_NS;
}

/* all: room for the words of all ranks. An error that is not UNSUPPORTED is the host's
 * communicator's, which is poisoned then. */
static kolo_status open_all(kolo_comm *comm, const char *operation, struct kolo__nccl_word *all)
{
    struct kolo__nccl *nccl = comm->nccl;
    struct kolo__nccl_word mine = {.status = KOLO_OK};
    bool pending;
    introduce(comm, operation, &mine);
    kolo_status status = kolo__nccl_tell(comm, operation, &mine, all);
    if (status != KOLO_OK)
        return refuse(comm, operation, status, kolo_error_text());
    int failed = kolo__nccl_find_failed(comm, all, &pending);
    if (failed >= 0)
        return refuse_for(comm, operation, all, failed);
    status = check_versions(comm, operation, all);
    if (status != KOLO_OK)
        return status;
    for (uint32_t r = 0; r < comm->size; r++) {
        nccl->no_windows |= all[r].has_windows == 0;
        nccl->no_scaling |= all[r].scales == 0;
    }
    mine.status = (int32_t)nccl->module->comm_begin(all[0].id, (int)comm->rank, (int)comm->size,
                                                    nccl->ordinal, &nccl->comm, mine.why);
    status = kolo__nccl_settle(comm, operation, nccl->module, nccl->comm, kolo__nccl_limit_ns(comm),
                               "making its communicator (KOLO_TIMEOUT)", &mine, all, &failed);
    if (status != KOLO_OK)
        return refuse(comm, operation, status, kolo_error_text());
    if (failed >= 0)
        return refuse_for(comm, operation, all, failed);
    kolo__nccl_set_watched(nccl, true);
    return KOLO_OK;
}

static kolo_status with_words(kolo_comm *comm, const char *operation, struct kolo__nccl_word **all)
{
    *all = calloc(comm->size, sizeof **all);
    if (*all != NULL)
        return KOLO_OK;
    return kolo__error(KOLO_ERR_MEMORY, "%s: no memory for the words of %u ranks about NCCL",
                       operation, comm->size);
}

kolo_status kolo__nccl_open(kolo_comm *comm, const char *operation, int ordinal)
{
    struct kolo__nccl_word *all;
    if (comm->nccl != NULL) {
        struct kolo__nccl *nccl = comm->nccl;
        pthread_mutex_lock(&nccl->watch.lock);
        kolo_status ended = nccl->status;
        pthread_mutex_unlock(&nccl->watch.lock);
        if (ended != KOLO_OK)
            return kolo__error(ended, "%s: %s", operation, nccl->text);
        if (nccl->ordinal != ordinal)
            return kolo__error(KOLO_ERR_INVALID,
                               "%s: the buffers are on GPU %d, and this communicator began on GPU "
                               "%d: a communicator keeps to one GPU on each rank",
                               operation, ordinal, nccl->ordinal);
        return KOLO_OK;
    }
    kolo_status status = with_words(comm, operation, &all);
    if (status != KOLO_OK)
        return status;
    comm->nccl = calloc(1, sizeof *comm->nccl);
    if (comm->nccl == NULL) {
        free(all);
        return kolo__error(KOLO_ERR_MEMORY, "%s: no memory for NCCL's communicator", operation);
    }
    comm->nccl->ordinal = ordinal;
    kolo__watch_init(&comm->nccl->watch, comm, &kolo__nccl_watched);
    status = open_all(comm, operation, all);
    free(all);
    return status;
}

kolo_status kolo__nccl_take(kolo_comm *comm, const char *operation)
{
    struct kolo__nccl *nccl = comm->nccl;
    kolo__nccl_set_watched(nccl, false);
    return nccl->comm != NULL ? KOLO_OK
                              : kolo__error(nccl->status, "%s: %s", operation, nccl->text);
}

kolo_status kolo__nccl_open_again(kolo_comm *comm, const char *operation,
                                  struct kolo__nccl_word *all)
{
    abort_own(comm);
    return open_all(comm, operation, all);
}

/* ---- the end -------------------------------------------------------------------------------- */

void kolo__nccl_fail(kolo_comm *comm)
{
    if (comm->nccl == NULL)
        return;
    pthread_mutex_lock(&comm->nccl->watch.lock);
    kolo__nccl_end(comm, &comm->fault);
    pthread_mutex_unlock(&comm->nccl->watch.lock);
}

static bool finalize(struct kolo__nccl *nccl)
{
    char why[KOLO__NCCL_WHY_BYTES];
    return nccl->module->comm_finalize(nccl->comm, why) == KOLO_OK &&
           kolo__nccl_await(nccl, FINALIZE_MS, why) == KOLO_OK;
}

void kolo__nccl_close(kolo_comm *comm)
{
    struct kolo__nccl *nccl = comm->nccl;
    if (nccl == NULL)
        return;
    kolo__watch_stop(&nccl->watch);
    if (nccl->comm != NULL && comm->fault.status == KOLO_OK && finalize(nccl)) {
        nccl->module->comm_destroy(nccl->comm);
        nccl->comm = NULL;
    }
    abort_own(comm);
    comm->nccl = NULL;
    kolo__watch_free(&nccl->watch);
    free(nccl);
}

/* ---- buffers -------------------------------------------------------------------------------- */

/* Registers on all ranks, or says so once and registers on none. */
static kolo_status register_all(kolo_comm *comm, const char *operation, struct kolo__nccl_word *all,
                                struct kolo__nccl_buffer *buffer)
{
    struct kolo__nccl *nccl = comm->nccl;
    struct kolo__nccl_word mine = {.status = KOLO_OK};
    int failed;
    kolo_status status = kolo__nccl_take(comm, operation);
    if (status != KOLO_OK)
        return status;
    mine.status = (int32_t)nccl->module->window_begin(nccl->comm, buffer->memory, buffer->bytes,
                                                      &buffer->window, mine.why);
    status =
        kolo__nccl_settle(comm, operation, nccl->module, nccl->comm, WINDOW_MS * (SECOND_NS / 1000),
                          "registering memory", &mine, all, &failed);
    kolo__nccl_set_watched(nccl, status == KOLO_OK && failed < 0);
    if (status != KOLO_OK || failed < 0)
        return status;
    if (comm->rank == 0)
        kolo__log(KOLO__LOG_INFO,
                  "NCCL's memory is registered on no rank: rank %d (host %s) was refused (%.*s)",
                  failed, comm->hosts[failed], KOLO__NCCL_WHY_BYTES - 1, all[failed].why);
    status = kolo__nccl_open_again(comm, operation, all);
    nccl->no_windows = true;
    nccl->module->window_close(NULL, buffer->window, mine.why);
    buffer->window = NULL;
    return status;
}

kolo_status kolo__nccl_buffer_open(kolo_comm *comm, const char *operation, size_t bytes,
                                   struct kolo__nccl_buffer *buffer)
{
    struct kolo__nccl *nccl = comm->nccl;
    struct kolo__nccl_word mine = {.bytes = bytes}, *all;
    bool pending;
    *buffer = (struct kolo__nccl_buffer){.bytes = bytes};
    kolo_status status = with_words(comm, operation, &all);
    if (status != KOLO_OK)
        return status;
    mine.status = (int32_t)nccl->module->alloc(nccl->ordinal, bytes, &buffer->memory, mine.why);
    status = kolo__nccl_tell(comm, operation, &mine, all);
    int failed = status == KOLO_OK ? kolo__nccl_find_failed(comm, all, &pending) : -1;
    if (failed >= 0)
        status = kolo__error(KOLO_ERR_MEMORY,
                             "%s: no memory for NCCL, %zu bytes, on rank %d (host %s): %s",
                             operation, bytes, failed, comm->hosts[failed], all[failed].why);
    for (uint32_t r = 0; status == KOLO_OK && r < comm->size; r++)
        if (all[r].bytes != all[0].bytes)
            status = kolo__error(
                KOLO_ERR_INVALID, "%s: rank 0 wants %llu bytes of NCCL's memory, rank %u %llu",
                operation, (unsigned long long)all[0].bytes, r, (unsigned long long)all[r].bytes);
    if (status == KOLO_OK && !nccl->no_windows)
        status = register_all(comm, operation, all, buffer);
    free(all);
    if (status != KOLO_OK)
        kolo__nccl_buffer_close(comm, buffer);
    return status;
}

/* The memory is NCCL's until that is done, and the communicator takes nothing else before. */
static void close_window(kolo_comm *comm, struct kolo__nccl_window *window)
{
    struct kolo__nccl *nccl = comm->nccl;
    struct kolo__fault fault = {.status = KOLO_OK, .peer = -1};
    char why[KOLO__NCCL_WHY_BYTES] = "";
    kolo__nccl_set_watched(nccl, false);
    fault.status = nccl->module->window_close(nccl->comm, window, why);
    if (fault.status == KOLO_OK && nccl->comm != NULL)
        fault.status = kolo__nccl_await(nccl, WINDOW_MS, why);
    kolo__nccl_set_watched(nccl, fault.status == KOLO_OK);
    if (fault.status == KOLO_OK)
        return;
    if (fault.status == KOLO_AGAIN) {
        fault.status = KOLO_ERR_TIMEOUT;
        snprintf(why, sizeof why, "memory was not given back within %d ms", WINDOW_MS);
    }
    snprintf(fault.text, sizeof fault.text, "NCCL failed on rank %u (host %s): %s", comm->rank,
             kolo__host_name(), why);
    kolo__comm_fail(comm, &fault, true);
}

void kolo__nccl_buffer_close(kolo_comm *comm, struct kolo__nccl_buffer *buffer)
{
    struct kolo__nccl *nccl = comm->nccl;
    if (nccl == NULL || nccl->module == NULL)
        return;
    if (buffer->window != NULL)
        close_window(comm, buffer->window);
    nccl->module->free(nccl->ordinal, buffer->memory);
    *buffer = (struct kolo__nccl_buffer){0};
}
