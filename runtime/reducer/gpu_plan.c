/* SPDX-License-Identifier: Apache-2.0 */
/* See gpu.h: memory of views and units, and the plans by which units are packed. */
#include "base/status.h"
#include "runtime/reducer/gpu_state.h"

#include <stdlib.h>

enum { UNIT_ALIGNMENT = 256, ZERO_MS = 5000 };

static kolo_status make_memory(kolo_reducer *reducer, size_t bytes, struct kolo__gpu_memory *memory)
{
    struct kolo__reducer_gpu *gpu = reducer->gpu;
    kolo_status status = kolo__nccl_open(reducer->comm, "kolo_reducer", gpu->ordinal);
    if (status == KOLO_OK) {
        memory->of_nccl = true;
        return kolo__nccl_buffer_open(reducer->comm, "kolo_reducer", bytes, &memory->buffer);
    }
    if (status != KOLO_ERR_UNSUPPORTED)
        return status;
    return gpu->module->alloc(gpu->device, bytes, &memory->buffer.memory);
}

void kolo__gpu_free_memory(kolo_reducer *reducer, struct kolo__gpu_memory *memory)
{
    if (memory->of_nccl)
        kolo__nccl_buffer_close(reducer->comm, &memory->buffer);
    else
        reducer->gpu->module->free(reducer->gpu->device, memory->buffer.memory);
    *memory = (struct kolo__gpu_memory){0};
}

kolo_status kolo__gpu_make_views(kolo_reducer *reducer)
{
    struct kolo__reducer_gpu *gpu = reducer->gpu;
    size_t bytes = reducer->fusion.arena_bytes;
    kolo_status status = make_memory(reducer, bytes, &gpu->views);
    if (status == KOLO_OK)
        status = gpu->module->zero(gpu->device, gpu->views.buffer.memory, bytes, gpu->own);
    if (status == KOLO_OK && reducer->options.sharded)
        status = make_memory(reducer, bytes, &gpu->parameters);
    if (status == KOLO_OK && reducer->options.sharded)
        status = gpu->module->zero(gpu->device, gpu->parameters.buffer.memory, bytes, gpu->own);
    reducer->arena = gpu->views.buffer.memory;
    reducer->parameters = gpu->parameters.buffer.memory;
    /* Before the user writes there, on whatever stream. */
    if (status == KOLO_OK)
        status = gpu->module->event_record(gpu->device, gpu->ended, gpu->own);
    if (status == KOLO_OK)
        status = kolo__device_await(gpu->module, gpu->device, gpu->ended, ZERO_MS);
    return status == KOLO_AGAIN ? kolo__error(KOLO_ERR_TIMEOUT,
                                              "kolo_reducer_create: GPU %d has not zeroed %zu "
                                              "bytes within %d ms: is it stuck?",
                                              gpu->ordinal, bytes, ZERO_MS)
                                : status;
}

/* ---- units ---------------------------------------------------------------------------------- */

/* NULL where there is to be none, or the status is an error or becomes one. */
static void *make_zeros(const struct kolo__reducer_gpu *gpu, size_t bytes, kolo_status *status)
{
    void *memory = NULL;
    if (*status == KOLO_OK && bytes > 0)
        *status = gpu->module->alloc(gpu->device, bytes, &memory);
    if (memory != NULL)
        *status = gpu->module->zero(gpu->device, memory, bytes, gpu->own);
    return memory;
}

/* Elements of an array for all units; where each begins, so that all are aligned. */
static size_t place(size_t *used, size_t bytes)
{
    size_t at = *used;
    *used += (bytes + UNIT_ALIGNMENT - 1) / UNIT_ALIGNMENT * UNIT_ALIGNMENT;
    return at;
}

static bool is_of_gradients(const struct kolo__unit *unit)
{
    return unit->kind == KOLO__UNIT_GRADIENTS && unit->count > 0;
}

static void describe(const kolo_reducer *reducer, const struct kolo__unit *unit,
                     struct kolo__gpu_unit *mine)
{
    kolo_dtype dtype = reducer->fusion.buckets[unit->bucket].dtype;
    uint32_t size = reducer->comm->size;
    bool narrows = kolo__reducer_narrows(reducer, dtype);
    mine->packing = (struct kolo__packing){.dtype = dtype,
                                           .narrows = narrows,
                                           .wire = kolo__reducer_narrow(reducer->options.wire),
                                           .scale = 1};
    mine->in_place = reducer->views && !narrows;
    mine->packed = unit->count;
    if (narrows && kolo__reducer_is_fp8(reducer)) {
        size_t slice = (unit->count + size - 1) / size;
        mine->slice =
            (slice + KOLO__DEVICE_ALIGNMENT - 1) / KOLO__DEVICE_ALIGNMENT * KOLO__DEVICE_ALIGNMENT;
        mine->packed = mine->slice * size;
    }
    mine->count = reducer->options.sharded ? unit->count / size : unit->count;
    mine->first = reducer->options.sharded ? reducer->comm->rank * mine->count : 0;
}

/* What units take of the memory that is made for all of them. */
struct sizes {
    size_t fused, errors, scratch, findings; /* bytes, bytes, partials, number */
};

/* Adds the unit's, and says where its parts begin. */
static void add_sizes(const kolo_reducer *reducer, const struct kolo__gpu_unit *mine,
                      struct sizes *sizes, struct sizes *begin)
{
    size_t partials = kolo__device_partials(&mine->packing, mine->packed);
    size_t bytes = mine->packed * kolo__device_wire_bytes(&mine->packing);
    *begin = *sizes;
    if (!mine->in_place)
        begin->fused = place(&sizes->fused, mine->slice > 0 ? 2 * bytes : bytes);
    if (reducer->options.error_feedback && mine->packing.narrows)
        begin->errors = place(&sizes->errors, mine->packed * sizeof(float));
    if (mine->slice > 0) {
        sizes->scratch = partials > sizes->scratch ? partials : sizes->scratch;
        sizes->findings++;
    }
}

static kolo_status make_arrays(kolo_reducer *reducer, const struct sizes *sizes)
{
    struct kolo__reducer_gpu *gpu = reducer->gpu;
    size_t parts = reducer->options.sharded ? reducer->comm->size : 1;
    size_t partials = reducer->options.statistics ? parts * gpu->partial_count : 0;
    kolo_status status =
        sizes->fused > 0 ? make_memory(reducer, sizes->fused, &gpu->fused) : KOLO_OK;
    gpu->errors = make_zeros(gpu, sizes->errors, &status);
    gpu->findings = make_zeros(gpu, sizes->findings * sizeof *gpu->findings, &status);
    gpu->scratch = make_zeros(gpu, sizes->scratch * sizeof *gpu->scratch, &status);
    gpu->partials = make_zeros(gpu, partials * sizeof *gpu->partials, &status);
    return status;
}

static kolo_status place_units(kolo_reducer *reducer)
{
    struct kolo__reducer_gpu *gpu = reducer->gpu;
    const kolo_reducer_options *options = &reducer->options;
    struct sizes all = {0}, used = {0}, begin;
    gpu->partial_count = 0;
    for (uint32_t i = 0; i < reducer->unit_count; i++) {
        struct kolo__gpu_unit *mine = &gpu->units[i];
        if (!is_of_gradients(&reducer->units[i]))
            continue;
        describe(reducer, &reducer->units[i], mine);
        add_sizes(reducer, mine, &all, &begin);
        gpu->partial_count += kolo__device_partials(&mine->packing, mine->count);
    }
    kolo_status status = make_arrays(reducer, &all);
    if (status != KOLO_OK)
        return status;
    struct kolo__device_partial *partials = gpu->partials;
    if (partials != NULL && options->sharded)
        partials += reducer->comm->rank * gpu->partial_count;
    for (uint32_t i = 0; i < reducer->unit_count; i++) {
        const struct kolo__unit *unit = &reducer->units[i];
        struct kolo__gpu_unit *mine = &gpu->units[i];
        if (!is_of_gradients(unit))
            continue;
        add_sizes(reducer, mine, &used, &begin);
        mine->fused = mine->in_place ? reducer->arena + reducer->fusion.buckets[unit->bucket].offset
                                     : (unsigned char *)gpu->fused.buffer.memory + begin.fused;
        if (options->error_feedback && mine->packing.narrows)
            mine->error = gpu->errors + begin.errors / sizeof(float);
        if (mine->slice > 0)
            mine->finding = &gpu->findings[begin.findings];
        mine->partials = partials;
        if (partials != NULL)
            partials += kolo__device_partials(&mine->packing, mine->count);
    }
    return KOLO_OK;
}

/* ---- plans ---------------------------------------------------------------------------------- */

/* Of tensors' elements in [first, first + count) of the unit, in a fused buffer of `room`. */
static kolo_status make_plan(const kolo_reducer *reducer, const struct kolo__unit *unit,
                             size_t first, size_t count, size_t room,
                             struct kolo__device_tensor *tensors, struct kolo__device_plan **plan)
{
    const struct kolo__fusion_bucket *bucket = &reducer->fusion.buckets[unit->bucket];
    struct kolo__device_layout layout = {
        .packing = kolo__gpu_unit(reducer, unit)->packing, .tensors = tensors, .count = room};
    for (uint32_t i = 0; i < bucket->tensor_count; i++) {
        const struct kolo__reducer_tensor *tensor =
            &reducer->tensors[reducer->fusion.members[bucket->first + i]];
        size_t begin = tensor->position, end = begin + tensor->count;
        size_t low = begin > first ? begin : first;
        size_t high = end < first + count ? end : first + count;
        if (low < high)
            tensors[layout.tensor_count++] = (struct kolo__device_tensor){
                tensor->data + (low - begin) * kolo_dtype_bytes(bucket->dtype), high - low,
                low - first};
    }
    return reducer->gpu->module->plan_create(reducer->gpu->device, &layout, plan);
}

static kolo_status make_plans(const kolo_reducer *reducer, const struct kolo__unit *unit,
                              struct kolo__device_tensor *tensors)
{
    struct kolo__gpu_unit *mine = kolo__gpu_unit(reducer, unit);
    const struct kolo__device_tensor errors = {mine->error, mine->packed, 0};
    const struct kolo__device_layout in_place = {.packing = {.dtype = KOLO_FP32, .scale = 1},
                                                 .tensors = &errors,
                                                 .tensor_count = 1,
                                                 .count = mine->packed};
    kolo_status status =
        make_plan(reducer, unit, 0, unit->count, mine->packed, tensors, &mine->pack);
    mine->unpack = mine->pack;
    if (status == KOLO_OK && reducer->options.sharded)
        status =
            make_plan(reducer, unit, mine->first, mine->count, mine->count, tensors, &mine->unpack);
    if (status == KOLO_OK && mine->error != NULL && mine->slice > 0)
        status = reducer->gpu->module->plan_create(reducer->gpu->device, &in_place, &mine->rescale);
    return status;
}

kolo_status kolo__gpu_cut(kolo_reducer *reducer)
{
    struct kolo__reducer_gpu *gpu = reducer->gpu;
    struct kolo__device_tensor *tensors = calloc(reducer->tensor_count, sizeof *tensors);
    gpu->units = calloc(reducer->unit_count, sizeof *gpu->units);
    if (tensors == NULL || gpu->units == NULL) {
        free(tensors);
        return kolo__gpu_checked(
            reducer, kolo__error(KOLO_ERR_MEMORY, "a reducer has no memory for its plan"));
    }
    gpu->unit_count = reducer->unit_count;
    kolo_status status = kolo__gpu_make_events(gpu, reducer->fusion.bucket_count);
    if (status == KOLO_OK)
        status = place_units(reducer);
    for (uint32_t i = 0; i < reducer->unit_count && status == KOLO_OK; i++)
        if (is_of_gradients(&reducer->units[i]))
            status = make_plans(reducer, &reducer->units[i], tensors);
    free(tensors);
    return kolo__gpu_checked(reducer, status);
}

void kolo__gpu_free_units(kolo_reducer *reducer)
{
    struct kolo__reducer_gpu *gpu = reducer->gpu;
    for (uint32_t i = 0; i < gpu->unit_count; i++) {
        if (gpu->units[i].unpack != gpu->units[i].pack)
            gpu->module->plan_destroy(gpu->units[i].unpack);
        gpu->module->plan_destroy(gpu->units[i].pack);
        gpu->module->plan_destroy(gpu->units[i].rescale);
    }
    free(gpu->units);
    gpu->units = NULL;
    gpu->unit_count = 0;
    kolo__gpu_free_memory(reducer, &gpu->fused);
    gpu->module->free(gpu->device, gpu->errors);
    gpu->module->free(gpu->device, gpu->findings);
    gpu->module->free(gpu->device, gpu->scratch);
    gpu->module->free(gpu->device, gpu->partials);
    gpu->errors = NULL;
    gpu->findings = NULL;
    gpu->scratch = gpu->partials = NULL;
}

kolo_status kolo__gpu_uncut(kolo_reducer *reducer)
{
    if (reducer->gpu == NULL || reducer->gpu->units == NULL)
        return KOLO_OK;
    kolo_status status = kolo__gpu_settle(reducer);
    if (status == KOLO_OK)
        kolo__gpu_free_units(reducer);
    return kolo__gpu_checked(reducer, status);
}
