/* SPDX-License-Identifier: Apache-2.0 */
/* kolo_init and kolo_finalize, and what belongs to the process: options, heap. */
#include "runtime/context.h"

#include "base/clock.h"
#include "base/last_words.h"
#include "base/log.h"
#include "base/memlock.h"
#include "base/status.h"
#include "runtime/comm.h"
#include "runtime/cpus.h"
#include "runtime/heartbeat.h"
#include "runtime/metrics.h"
#include "runtime/offload.h"
#include "runtime/rdma.h"
#include "runtime/timeline.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;

enum {
    FAREWELL_SECONDS = 10
}; /* how long rank 0 holds the rendezvous for those who have not left */

static atomic_bool exists; /* one context a process */

/* ---- who and where ------------------------------------------------------------------------- */

static kolo_status apply_options(kolo_context *context, const kolo_init_options *options)
{
    struct kolo__config *config = &context->config;
    kolo_status status = KOLO_OK;
    if (options == NULL)
        return KOLO_OK;
    if (options->size != sizeof *options)
        return kolo__error(KOLO_ERR_INVALID,
                           "kolo_init: set options->size to sizeof(kolo_init_options)");
    if (options->world_size < 0)
        return kolo__error(
            KOLO_ERR_INVALID,
            "kolo_init: options->world_size is %d: give the number of ranks, or 0 to "
            "take rank and size from the environment",
            options->world_size);
    if (options->world_size > 0 && (options->rank < 0 || options->rank >= options->world_size))
        return kolo__error(
            KOLO_ERR_INVALID,
            "kolo_init: options->rank is %d, but must be from 0 to %d (world_size - 1)",
            options->rank, options->world_size - 1);
    if (options->world_size > 0) {
        config->rank = options->rank;
        config->world_size = options->world_size;
    }
    if (options->rendezvous != NULL)
        status = kolo__config_set(config, "rendezvous", options->rendezvous);
    if (status == KOLO_OK && options->transport != NULL)
        status = kolo__config_set(config, "transport", options->transport);
    return status;
}

static kolo_status detect(struct kolo__launch *launch)
{
    char host_name[KOLO__HOST_VARIABLE_BYTES];
    char **environment = kolo__launch_environment(host_name);
    if (environment == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for the environment");
    kolo_status status = kolo__launch_detect(environment, launch);
    free(environment);
    return status;
}

/* What the program itself says comes before all that launchers say. */
static kolo_status find_identity(kolo_context *context, const kolo_init_options *options)
{
    struct kolo__config *config = &context->config;
    struct kolo__launch *launch = &context->launch;
    bool by_program = options != NULL && options->world_size > 0;
    kolo_status status = KOLO_OK;
    if (by_program)
        *launch = (struct kolo__launch){.source = "the program",
                                        .rank = config->rank,
                                        .size = config->world_size,
                                        .local_rank = -1,
                                        .meeting = config->world_size > 1 ? KOLO__MEET_UNKNOWN
                                                                          : KOLO__MEET_NOBODY,
                                        .missing = "kolo_init_options.rendezvous"};
    else
        status = detect(launch);
    bool given = options != NULL && options->rendezvous != NULL; /* else detected, or not wanted */
    if (status == KOLO_OK && config->rendezvous[0] != '\0' && (by_program || given))
        status = kolo__launch_meet_at(launch, config->rendezvous);
    if (status != KOLO_OK)
        return status;
    if (launch->size > 1 << 20)
        return kolo__error(KOLO_ERR_WORLD, "a world of %ld ranks is more than kolo can do",
                           launch->size);
    context->rank = launch->newcomer ? 0 : (uint32_t)launch->rank; /* until it is told */
    context->size = launch->newcomer ? 1 : (uint32_t)launch->size;
    snprintf(context->job, sizeof context->job, "%s",
             config->job[0] != '\0' ? config->job : launch->job);
    return KOLO_OK;
}

static kolo_status read_token(kolo_context *context)
{
    kolo_status status = kolo__token_read(&context->config, context->token);
    /* One copy is enough. */
    memset((char *)(uintptr_t)context->config.token, '*', strlen(context->config.token));
    context->config.token = "";
    return status;
}

/* ---- sockets and memory -------------------------------------------------------------------- */

kolo_status kolo__context_listen(kolo_context *context, int *fd, uint16_t *port)
{
    struct kolo__address address;
    kolo_status status = kolo__listen(context->listen_host, 0, fd, &address);
    if (status == KOLO_OK)
        *port = kolo__address_port(&address);
    return status;
}

kolo_status kolo__context_heap(kolo_context *context, struct kolo__heap **heap)
{
    kolo_status status = KOLO_OK;
    pthread_mutex_lock(&context->lock);
    if (context->heap == NULL) {
        struct kolo__heap_options options = {.name = "", .token = "", .members = 1};
        status = kolo__heap_open(&options, &context->heap);
    }
    *heap = context->heap;
    pthread_mutex_unlock(&context->lock);
    return status;
}

kolo_status kolo_alloc(kolo_context *context, size_t bytes, void **memory)
{
    struct kolo__heap *heap;
    if (context == NULL || memory == NULL)
        return kolo__error(KOLO_ERR_INVALID, "kolo_alloc: %s is NULL",
                           context == NULL ? "the context" : "memory");
    *memory = NULL;
    kolo_status status = kolo__context_heap(context, &heap);
    if (status != KOLO_OK)
        return status;
    return kolo__heap_alloc(heap, bytes > 0 ? bytes : 1, 4096, memory);
}

void kolo_free(kolo_context *context, void *memory)
{
    if (context == NULL || memory == NULL)
        return;
    struct kolo__heap *heap = context->heap;
    for (size_t i = 0; i < context->old_heap_count; i++)
        if (kolo__heap_position(context->old_heaps[i], memory, 1) != UINT64_MAX)
            heap = context->old_heaps[i];
    kolo__heap_free(heap, memory);
}

/* ---- begin and end ---------------------------------------------------------------------- */

/* sound: kolo_finalize found no fault. */
static void release(kolo_context *context, bool sound)
{
    kolo__timeline_close(context);
    while (context->comms != NULL)
        kolo__comm_destroy(context->comms);
    kolo__metrics_close(context);
    kolo__offload_close(context, sound);
    kolo__heartbeat_end(context->heartbeat);
    kolo__flight_close(&context->recorder);
    kolo__context_close_rdma(context);
    kolo__heap_close(context->heap);
    for (size_t i = 0; i < context->old_heap_count; i++)
        kolo__heap_close(context->old_heaps[i]);
    free(context->old_heaps);
    kolo__control_close(context->control);
    kolo__bootstrap_end(&context->place,
                        kolo__now_ns(&kolo__real_clock) + FAREWELL_SECONDS * 1000000000u);
    pthread_mutex_destroy(&context->lock);
    free(context->host_of);
    free(context->shares_kernel);
    free(context->endpoints);
    explicit_bzero(context->token, sizeof context->token);
    free(context);
    atomic_store(&exists, false);
}

void kolo__context_report(kolo_context *context, kolo_status status)
{
    struct kolo__fault fault = {.status = status, .peer = -1};
    snprintf(fault.text, sizeof fault.text, "rank %u (host %s): %s", context->rank,
             kolo__host_name(), kolo_error_text());
    kolo__control_report(context->control, 0, &fault);
}

kolo_status kolo__context_equip(kolo_context *context)
{
    kolo__log_configure(context->config.log, context->size > 1 ? (int)context->rank : -1);
    kolo__flight_move(&context->recorder, context->rank, context->size);
    kolo_status status = kolo__costs_find(context);
    if (status == KOLO_OK)
        status = kolo__offload_open(context);
    if (status == KOLO_OK)
        status = kolo__timeline_open(context);
    if (status == KOLO_OK)
        status = kolo__metrics_open(context);
    return status;
}

kolo_status kolo__context_create(const kolo_init_options *options, kolo_context **result)
{
    kolo_context *context = calloc(1, sizeof *context);
    if (context == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "kolo_init: no memory for a context");
    pthread_mutex_init(&context->lock, NULL);
    context->place.pmi_fd = -1;
    kolo_status status = kolo__config_load(&context->config, environ);
    if (status == KOLO_OK)
        status = apply_options(context, options);
    if (status == KOLO_OK)
        status = kolo__memlock_check(context->config.memlock, "KOLO_MEMLOCK");
    if (status == KOLO_OK)
        status = find_identity(context, options);
    if (status == KOLO_OK)
        status = read_token(context);
    if (status == KOLO_OK) {
        kolo__log_configure(context->config.log, context->size > 1 ? (int)context->rank : -1);
        context->cpus = kolo__usable_cpus();
        status = kolo__flight_open(&context->recorder, context->config.flight,
                                   context->config.local_rank, context->rank, context->size,
                                   context->job);
    }
    if (status == KOLO_OK)
        status = kolo__metrics_prepare(context);
    if (status == KOLO_OK)
        status = kolo__world_join(context);
    if (status == KOLO_OK)
        status = kolo__context_equip(context);
    if (context->joined &&
        !context->from_the_start) /* a newcomer stays one of those who are left */
        status = kolo__context_go_on(context, NULL, status);
    if (status != KOLO_OK) {
        kolo__last_words_write(context->config.last_words, context->config.local_rank,
                               kolo_error_text());
        /* The rendezvous would else only see a rank leave. It believes the first that tells it. */
        if (context->joined && (status == KOLO_ERR_CONFIG || status == KOLO_ERR_WORLD))
            kolo__context_report(context, status);
        if (!context->joined && (options == NULL || options->world_size <= 0))
            status = kolo__bootstrap_abandon(
                &context->place, context->launch.source != NULL ? &context->launch : NULL, status);
        release(context, false);
        return status;
    }
    *result = context;
    return KOLO_OK;
}

kolo_status kolo_init(const kolo_init_options *options, kolo_context **result)
{
    if (result == NULL)
        return kolo__error(KOLO_ERR_INVALID, "kolo_init: context is NULL");
    *result = NULL;
    if (atomic_exchange(&exists, true))
        return kolo__error(KOLO_ERR_INVALID,
                           "kolo_init: this process has a context already; one is all it may have");
    kolo_status status = kolo__context_create(options, result);
    if (status != KOLO_OK)
        atomic_store(&exists, false);
    return status;
}

kolo_status kolo_finalize(kolo_context *context)
{
    if (context == NULL)
        return KOLO_OK;
    if (context->left) {
        release(context, true);
        return KOLO_OK;
    }
    kolo_status gathered = kolo__timeline_gather(context);
    kolo_status status = kolo__comm_close_ranks(context->world, "kolo_finalize");
    /* A fault of the world everybody hears of, and who goes after that has left in good order. */
    const kolo_comm *world = context->world;
    bool told = status == KOLO_OK || (world->fault.status != KOLO_OK && !world->retired);
    if (told && context->control != NULL)
        kolo__control_bye(context->control);
    bool done = status == KOLO_OK || context->all_is_done;
    if (status != KOLO_OK && done)
        kolo__log(KOLO__LOG_INFO, "a rank was lost when all was done: %s", kolo_error_text());
    release(context, status == KOLO_OK);
    return done ? gathered : status;
}

kolo_comm *kolo_world(kolo_context *context)
{
    return context != NULL ? context->world : NULL;
}
