/* SPDX-License-Identifier: Apache-2.0 */
/* See gpu.h: beginning and end. */
#include "base/log.h"
#include "base/status.h"
#include "runtime/reducer/gpu_state.h"
#include "runtime/reducer/tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

kolo_status kolo__gpu_checked(const kolo_reducer *reducer, kolo_status status)
{
    if (status != KOLO_OK && reducer->comm->fault.status == KOLO_OK)
        kolo__tensors_give_up(reducer->comm, status);
    return status;
}

kolo_status kolo__gpu_told(const kolo_reducer *reducer, kolo_status status)
{
    kolo_comm *comm = reducer->comm;
    struct kolo__fault fault = {.status = status, .peer = (int)comm->world_ranks[comm->rank]};
    snprintf(fault.text, sizeof fault.text, "%.*s", (int)sizeof fault.text - 1, kolo_error_text());
    if (status != KOLO_OK)
        kolo__comm_abort(comm, &fault);
    return status;
}

void *kolo__gpu_stream(const kolo_reducer *reducer)
{
    return reducer->gpu->caller;
}

/* ---- beginning and end ---------------------------------------------------------------------- */

static kolo_status find_views(const kolo_reducer *reducer, int *ordinal)
{
    const struct kolo__device_module *module;
    if (reducer->options.stream == NULL)
        return KOLO_OK;
    if (!reducer->views)
        return kolo__error(KOLO_ERR_INVALID,
                           "kolo_reducer_create: options->stream goes with tensors in a GPU's "
                           "memory, and these are the host's: set it to NULL");
    kolo_status status = kolo__device_load(&module);
    return status == KOLO_OK ? module->ordinal_of_stream(reducer->options.stream, ordinal) : status;
}

kolo_status kolo__gpu_check(kolo_reducer *reducer, uint32_t ranks, int *ordinal)
{
    kolo_status status = *ordinal < 0 ? find_views(reducer, ordinal) : KOLO_OK;
    if (status != KOLO_OK || *ordinal < 0)
        return status;
    if (reducer->views) /* whoever captures a CUDA graph wants them where they are */
        reducer->options.fixed_order = 1;
    if (kolo__reducer_is_fp8(reducer) && ranks > KOLO__DEVICE_SOURCES_MAX)
        return kolo__error(KOLO_ERR_UNSUPPORTED,
                           "kolo_reducer_create: %u ranks, and a GPU adds the 8-bit floats of at "
                           "most %d: set options->wire to KOLO_WIRE_BF16",
                           ranks, KOLO__DEVICE_SOURCES_MAX);
    return KOLO_OK;
}

kolo_status kolo__gpu_make_events(struct kolo__reducer_gpu *gpu, uint32_t count)
{
    kolo_status status = KOLO_OK;
    kolo__device_event *ready = realloc(gpu->ready, count * sizeof(kolo__device_event));
    if (ready == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "kolo_reducer: no memory for %u events", count);
    gpu->ready = ready;
    while (status == KOLO_OK && gpu->ready_count < count) {
        status = gpu->module->event_create(gpu->device, &gpu->ready[gpu->ready_count]);
        gpu->ready_count += status == KOLO_OK;
    }
    return status;
}

kolo_status kolo__gpu_open(kolo_reducer *reducer, int ordinal)
{
    struct kolo__reducer_gpu *gpu = calloc(1, sizeof *gpu);
    if (gpu == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "kolo_reducer_create: no memory for a GPU's part");
    reducer->gpu = gpu;
    gpu->ordinal = ordinal;
    gpu->caller = reducer->options.stream;
    void *total = NULL, *host_total = NULL;
    kolo_status status = kolo__device_load(&gpu->module);
    if (status == KOLO_OK)
        status = gpu->module->open(ordinal, &gpu->device);
    if (status == KOLO_OK)
        status = gpu->module->stream_create(gpu->device, &gpu->own);
    if (status == KOLO_OK)
        status = gpu->module->event_create(gpu->device, &gpu->ended);
    if (status == KOLO_OK)
        status = kolo__gpu_make_events(gpu, 1);
    if (status == KOLO_OK && reducer->options.statistics) {
        status = gpu->module->alloc(gpu->device, sizeof *gpu->total, &total);
        gpu->total = total;
        if (status == KOLO_OK)
            status = gpu->module->host_alloc(gpu->device, sizeof *gpu->host_total, &host_total);
        gpu->host_total = host_total;
        if (status == KOLO_OK)
            memset(host_total, 0, sizeof *gpu->host_total);
    }
    reducer->comm->cannot_join = "a reducer of tensors in GPUs' memory needs every rank";
    return status;
}

kolo_status kolo__gpu_settle(const kolo_reducer *reducer)
{
    const struct kolo__reducer_gpu *gpu = reducer->gpu;
    uint64_t limit_ms = kolo__comm_settle_ms(reducer->comm);
    if (gpu->own == NULL || gpu->ended == NULL ||
        gpu->module->event_record(gpu->device, gpu->ended, gpu->own) != KOLO_OK ||
        kolo__device_await(gpu->module, gpu->device, gpu->ended, limit_ms) != KOLO_AGAIN)
        return KOLO_OK;
    return kolo__error(KOLO_ERR_TIMEOUT,
                       "GPU %d has not ended the last step of a reducer within %llu s: is it "
                       "stuck, or does it wait for another rank's?",
                       gpu->ordinal, (unsigned long long)limit_ms / 1000);
}

static void give_back(kolo_reducer *reducer)
{
    struct kolo__reducer_gpu *gpu = reducer->gpu;
    kolo__gpu_free_units(reducer);
    kolo__gpu_free_memory(reducer, &gpu->views);
    kolo__gpu_free_memory(reducer, &gpu->parameters);
    for (uint32_t i = 0; i < reducer->tensor_count; i++)
        gpu->module->free(gpu->device, reducer->tensors[i].shadow);
    for (uint32_t i = 0; i < gpu->ready_count; i++)
        gpu->module->event_destroy(gpu->device, gpu->ready[i]);
    gpu->module->event_destroy(gpu->device, gpu->ended);
    gpu->module->stream_destroy(gpu->device, gpu->own);
    gpu->module->free(gpu->device, gpu->total);
    gpu->module->host_free(gpu->device, gpu->host_total);
}

void kolo__gpu_close(kolo_reducer *reducer)
{
    struct kolo__reducer_gpu *gpu = reducer->gpu;
    if (gpu == NULL)
        return;
    if (gpu->device != NULL && kolo__gpu_settle(reducer) == KOLO_OK)
        give_back(reducer);
    else if (gpu->device != NULL)
        kolo__log(KOLO__LOG_WARN, "%s Its memory is left to it", kolo_error_text());
    reducer->arena = reducer->parameters = NULL;
    for (uint32_t i = 0; i < reducer->tensor_count; i++)
        reducer->tensors[i].shadow = NULL;
    free(gpu->ready);
    free(gpu);
    reducer->gpu = NULL;
}

kolo_status kolo__gpu_report(const kolo_reducer *reducer, kolo_reducer_report *report)
{
    const struct kolo__reducer_gpu *gpu = reducer->gpu;
    long timeout_s = reducer->context->config.timeout;
    if (!reducer->options.statistics || report->step == 0)
        return KOLO_OK;
    kolo_status status =
        kolo__device_await(gpu->module, gpu->device, gpu->ended, (uint64_t)timeout_s * 1000);
    if (status == KOLO_AGAIN)
        return kolo__error(KOLO_ERR_TIMEOUT,
                           "kolo_reducer_get_report: the last step did not end on GPU %d within "
                           "%ld s (KOLO_TIMEOUT)",
                           gpu->ordinal, timeout_s);
    if (status != KOLO_OK)
        return kolo__gpu_told(reducer, status);
    report->norm = gpu->host_total->norm;
    report->finite = gpu->host_total->not_finite == 0;
    report->clip_factor = gpu->host_total->factor;
    return KOLO_OK;
}
