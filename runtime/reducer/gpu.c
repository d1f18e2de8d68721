/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gradients in a GPU's memory: the same buckets and units, but all that happens to elements is
 * queued, and the host asks for nothing.
 *
 *     caller's stream   backward... | ready: event of its bucket | ...            | what comes
 *                                              |                                 after ended
 *     own stream                        pack -> allreduce -> unpack (or measure) | ended
 *
 *     with statistics   ... measure, for each unit; at the end of the step: total -> unpack all,
 *                       by the clip factor, which stays in the GPU's memory
 *
 * So kolo_reducer_wait ends when a step is queued, and the caller's stream waits for it. Fused
 * buffers of all units are kept, one behind the other, in memory that NCCL's symmetric kernels take
 * where there is such.
 */
#include "runtime/reducer/gpu.h"

#include "base/clock.h"
#include "base/status.h"
#include "kernels/device.h"
#include "runtime/call.h"
#include "runtime/nccl.h"
#include "runtime/reducer/tensors.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { UNIT_ALIGNMENT = 256, CLOSE_MS = 5000 };

struct kolo__reducer_gpu {
    const struct kolo__device_module *module;
    struct kolo__device *device;
    int ordinal;
    kolo__device_stream caller, own; /* caller: the user's */
    kolo__device_event ended;
    /* By bucket, recorded again by each of its gradients. The first one is for all while nobody
     * knows buckets, in a first step. */
    kolo__device_event *ready;
    uint32_t ready_count;
    bool by_bucket;
    struct kolo__nccl_buffer arena;
    bool of_nccl; /* the arena is */
    struct kolo__device_partial *partials;
    size_t partial_count;
    struct kolo__device_total *total, *host_total; /* host_total: pinned */
};

/* What goes wrong on one GPU the other ranks would wait for. */
static kolo_status checked(const kolo_reducer *reducer, kolo_status status)
{
    if (status != KOLO_OK && reducer->comm->fault.status == KOLO_OK)
        kolo__tensors_give_up(reducer->comm, status);
    return status;
}

/* ---- beginning and end ---------------------------------------------------------------------- */

static kolo_status refuse(const char *what)
{
    return kolo__error(KOLO_ERR_UNSUPPORTED,
                       "kolo_reducer_create: %s, which this version does not have for tensors in a "
                       "GPU's memory: leave it 0",
                       what);
}

kolo_status kolo__gpu_check(const kolo_reducer_options *options, int ordinal)
{
    if (ordinal < 0 && options->stream != NULL)
        return kolo__error(KOLO_ERR_INVALID,
                           "kolo_reducer_create: options->stream goes with tensors in a GPU's "
                           "memory, and these are the host's: set it to NULL");
    if (ordinal < 0)
        return KOLO_OK;
    if (options->wire == KOLO_WIRE_FP8_E4M3 || options->wire == KOLO_WIRE_FP8_E5M2)
        return refuse("options->wire has 8 bits");
    if (options->error_feedback)
        return refuse("options->error_feedback is set");
    if (options->allow_unused)
        return refuse("options->allow_unused is set");
    return KOLO_OK;
}

static kolo_status make_ready(struct kolo__reducer_gpu *gpu, uint32_t count)
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
        status = make_ready(gpu, 1);
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

/* KOLO_AGAIN: not within the limit. */
static kolo_status wait_for_end(const struct kolo__reducer_gpu *gpu, uint64_t limit_ms)
{
    const struct timespec pause = {.tv_nsec = 50000};
    uint64_t deadline_ns = kolo__now_ns(&kolo__real_clock) + limit_ms * 1000000;
    kolo_status status = gpu->module->event_query(gpu->device, gpu->ended);
    while (status == KOLO_AGAIN && kolo__now_ns(&kolo__real_clock) < deadline_ns) {
        nanosleep(&pause, NULL);
        status = gpu->module->event_query(gpu->device, gpu->ended);
    }
    return status;
}

static void free_arena(kolo_reducer *reducer)
{
    struct kolo__reducer_gpu *gpu = reducer->gpu;
    if (gpu->of_nccl)
        kolo__nccl_buffer_close(reducer->comm, &gpu->arena);
    else
        gpu->module->free(gpu->device, gpu->arena.memory);
    gpu->module->free(gpu->device, gpu->partials);
    gpu->arena = (struct kolo__nccl_buffer){0};
    gpu->of_nccl = false;
    gpu->partials = NULL;
    for (uint32_t i = 0; i < reducer->unit_count; i++) {
        gpu->module->plan_destroy(reducer->units[i].plan);
        reducer->units[i].plan = NULL;
    }
}

void kolo__gpu_close(kolo_reducer *reducer)
{
    struct kolo__reducer_gpu *gpu = reducer->gpu;
    if (gpu == NULL)
        return;
    if (gpu->device != NULL) {
        if (gpu->ended != NULL)
            wait_for_end(gpu, CLOSE_MS);
        free_arena(reducer);
        for (uint32_t i = 0; i < gpu->ready_count; i++)
            gpu->module->event_destroy(gpu->device, gpu->ready[i]);
        gpu->module->event_destroy(gpu->device, gpu->ended);
        gpu->module->stream_destroy(gpu->device, gpu->own);
        gpu->module->free(gpu->device, gpu->total);
        gpu->module->host_free(gpu->device, gpu->host_total);
    }
    free(gpu->ready);
    free(gpu);
    reducer->gpu = NULL;
}

/* ---- the plan ------------------------------------------------------------------------------- */

static struct kolo__packing packing_of(const kolo_reducer *reducer, const struct kolo__unit *unit)
{
    kolo_dtype dtype = reducer->fusion.buckets[unit->bucket].dtype;
    return (struct kolo__packing){.dtype = dtype,
                                  .narrows = kolo__reducer_narrows(reducer, dtype),
                                  .wire = kolo__reducer_narrow(reducer->options.wire),
                                  .scale = 1};
}

static kolo_status make_plan(kolo_reducer *reducer, struct kolo__unit *unit,
                             struct kolo__device_tensor *tensors)
{
    const struct kolo__fusion_bucket *bucket = &reducer->fusion.buckets[unit->bucket];
    struct kolo__device_layout layout = {
        .packing = packing_of(reducer, unit), .tensors = tensors, .count = unit->count};
    for (uint32_t i = 0; i < bucket->tensor_count; i++) {
        const struct kolo__reducer_tensor *tensor =
            &reducer->tensors[reducer->fusion.members[bucket->first + i]];
        if (tensor->count > 0)
            tensors[layout.tensor_count++] =
                (struct kolo__device_tensor){tensor->data, tensor->count, tensor->position};
    }
    return reducer->gpu->module->plan_create(reducer->gpu->device, &layout, &unit->plan);
}

/* Where NCCL is, its own memory; elsewhere any. */
static kolo_status make_arena(kolo_reducer *reducer, size_t bytes)
{
    struct kolo__reducer_gpu *gpu = reducer->gpu;
    kolo_status status = kolo__nccl_open(reducer->comm, "kolo_reducer", gpu->ordinal);
    if (status == KOLO_OK) {
        gpu->of_nccl = true;
        return kolo__nccl_buffer_open(reducer->comm, "kolo_reducer", bytes, &gpu->arena);
    }
    if (status != KOLO_ERR_UNSUPPORTED)
        return status;
    return gpu->module->alloc(gpu->device, bytes, &gpu->arena.memory);
}

static kolo_status place_units(kolo_reducer *reducer)
{
    struct kolo__reducer_gpu *gpu = reducer->gpu;
    size_t bytes = 0;
    gpu->partial_count = 0;
    for (uint32_t i = 0; i < reducer->unit_count; i++) {
        const struct kolo__packing packing = packing_of(reducer, &reducer->units[i]);
        size_t count = reducer->units[i].count;
        reducer->units[i].place = bytes;
        reducer->units[i].first_partial = gpu->partial_count;
        bytes += (count * kolo__device_wire_bytes(&packing) + UNIT_ALIGNMENT - 1) / UNIT_ALIGNMENT *
                 UNIT_ALIGNMENT;
        gpu->partial_count += kolo__device_partials(&packing, count);
    }
    kolo_status status = make_arena(reducer, bytes > 0 ? bytes : UNIT_ALIGNMENT);
    for (uint32_t i = 0; i < reducer->unit_count; i++)
        reducer->units[i].staging = (unsigned char *)gpu->arena.memory + reducer->units[i].place;
    if (status == KOLO_OK && reducer->options.statistics && gpu->partial_count > 0) {
        void *partials;
        status =
            gpu->module->alloc(gpu->device, gpu->partial_count * sizeof *gpu->partials, &partials);
        gpu->partials = partials;
    }
    return status;
}

void kolo__gpu_uncut(kolo_reducer *reducer)
{
    if (reducer->gpu != NULL)
        free_arena(reducer);
}

kolo_status kolo__gpu_cut(kolo_reducer *reducer)
{
    struct kolo__device_tensor *tensors = calloc(reducer->tensor_count, sizeof *tensors);
    if (tensors == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "a reducer has no memory for its plan");
    kolo_status status = make_ready(reducer->gpu, reducer->fusion.bucket_count);
    if (status == KOLO_OK)
        status = place_units(reducer);
    for (uint32_t i = 0; i < reducer->unit_count && status == KOLO_OK; i++)
        if (reducer->units[i].count > 0)
            status = make_plan(reducer, &reducer->units[i], tensors);
    free(tensors);
    return checked(reducer, status);
}

void kolo__gpu_begin_step(kolo_reducer *reducer)
{
    if (reducer->gpu != NULL)
        reducer->gpu->by_bucket = reducer->frozen;
}

/* ---- a step --------------------------------------------------------------------------------- */

static kolo__device_event ready_event(const struct kolo__reducer_gpu *gpu, uint32_t bucket)
{
    return gpu->ready[gpu->by_bucket ? bucket : 0];
}

kolo_status kolo__gpu_ready(kolo_reducer *reducer, size_t tensor)
{
    const struct kolo__reducer_gpu *gpu = reducer->gpu;
    uint32_t bucket = gpu->by_bucket ? reducer->fusion.tensors[tensor].bucket : 0;
    return gpu->module->event_record(gpu->device, ready_event(gpu, bucket), gpu->caller);
}

static struct kolo__device_run run_of(const struct kolo__unit *unit, double scale)
{
    return (struct kolo__device_run){.fused = unit->staging, .scale = scale};
}

kolo_status kolo__gpu_start(kolo_reducer *reducer, struct kolo__unit *unit)
{
    const struct kolo__reducer_gpu *gpu = reducer->gpu;
    double ranks = reducer->options.sum ? 1 : reducer->comm->size;
    struct kolo__device_run run = run_of(unit, reducer->options.scale / ranks);
    if (unit->count == 0)
        return KOLO_OK;
    kolo_status status =
        gpu->module->stream_wait(gpu->device, gpu->own, ready_event(gpu, unit->bucket));
    if (status == KOLO_OK)
        status = gpu->module->pack(unit->plan, &run, gpu->own);
    if (checked(reducer, status) != KOLO_OK)
        return status;
    kolo_call_options options = {.size = sizeof options, .stream = gpu->own};
    struct kolo__call call =
        kolo__call_allreduce(unit->name, unit->staging, unit->count,
                             kolo__reducer_wire_dtype(reducer, unit->bucket), KOLO_SUM);
    call.options = &options;
    return kolo__call_start(reducer->comm, &call, &unit->request);
}

static kolo_status unpack(const kolo_reducer *reducer, const struct kolo__unit *unit)
{
    const struct kolo__reducer_gpu *gpu = reducer->gpu;
    struct kolo__device_run run = run_of(unit, 1);
    if (reducer->options.clip_norm > 0)
        run.factor = &gpu->total->factor;
    return unit->count > 0 ? gpu->module->unpack(unit->plan, &run, gpu->own) : KOLO_OK;
}

kolo_status kolo__gpu_finish(kolo_reducer *reducer, const struct kolo__unit *unit)
{
    const struct kolo__reducer_gpu *gpu = reducer->gpu;
    const struct kolo__packing packing = packing_of(reducer, unit);
    kolo_status status = KOLO_OK;
    if (!reducer->options.statistics)
        status = unpack(reducer, unit);
    else if (unit->count > 0)
        status = gpu->module->measure(gpu->device, &packing, unit->staging, unit->count,
                                      gpu->partials + unit->first_partial, gpu->own);
    return checked(reducer, status);
}

static kolo_status end_statistics(kolo_reducer *reducer)
{
    const struct kolo__reducer_gpu *gpu = reducer->gpu;
    kolo_status status = gpu->module->total(gpu->device, gpu->partials, gpu->partial_count,
                                            reducer->options.clip_norm, gpu->total, gpu->own);
    if (status == KOLO_OK)
        status = gpu->module->copy(gpu->device, gpu->host_total, gpu->total, sizeof *gpu->total,
                                   gpu->own);
    for (uint32_t i = 0; i < reducer->unit_count && status == KOLO_OK; i++)
        status = unpack(reducer, &reducer->units[i]);
    return status;
}

kolo_status kolo__gpu_end_step(kolo_reducer *reducer)
{
    const struct kolo__reducer_gpu *gpu = reducer->gpu;
    kolo_status status = reducer->options.statistics ? end_statistics(reducer) : KOLO_OK;
    if (status == KOLO_OK)
        status = gpu->module->event_record(gpu->device, gpu->ended, gpu->own);
    if (status == KOLO_OK)
        status = gpu->module->stream_wait(gpu->device, gpu->caller, gpu->ended);
    return checked(reducer, status);
}

kolo_status kolo__gpu_report(const kolo_reducer *reducer, kolo_reducer_report *report)
{
    const struct kolo__reducer_gpu *gpu = reducer->gpu;
    long timeout_s = reducer->context->config.timeout;
    if (!reducer->options.statistics || report->step == 0)
        return KOLO_OK;
    kolo_status status = wait_for_end(gpu, (uint64_t)timeout_s * 1000);
    if (status == KOLO_AGAIN)
        return kolo__error(KOLO_ERR_TIMEOUT,
                           "kolo_reducer_get_report: the last step did not end on GPU %d within "
                           "%ld s (KOLO_TIMEOUT)",
                           gpu->ordinal, timeout_s);
    if (status != KOLO_OK)
        return status;
    report->norm = gpu->host_total->norm;
    report->finite = gpu->host_total->not_finite == 0;
    report->clip_factor = gpu->host_total->factor;
    return KOLO_OK;
}
