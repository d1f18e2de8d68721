/* SPDX-License-Identifier: Apache-2.0 */
/* See gpu.h: a step. */
#include "base/status.h"
#include "runtime/call.h"
#include "runtime/reducer/gpu_state.h"

void kolo__gpu_begin_step(kolo_reducer *reducer)
{
    if (reducer->gpu != NULL)
        reducer->gpu->by_bucket = reducer->frozen;
}

kolo__device_event kolo__gpu_ready_event(const struct kolo__reducer_gpu *gpu, uint32_t bucket)
{
    return gpu->ready[gpu->by_bucket ? bucket : 0];
}

kolo_status kolo__gpu_check_capture(const kolo_reducer *reducer, const char *function)
{
    const struct kolo__reducer_gpu *gpu = reducer->gpu;
    bool capturing = false;
    kolo_status status = gpu->module->stream_is_capturing(gpu->device, gpu->caller, &capturing);
    if (status != KOLO_OK || !capturing)
        return kolo__gpu_told(reducer, status);
    return kolo__error(KOLO_ERR_UNSUPPORTED,
                       "%s: the stream is being captured into a CUDA graph, and a replay would be "
                       "no step of the reducer: capture what comes before and after a step, or "
                       "kolo_allreduce, by NCCL",
                       function);
}

kolo_status kolo__gpu_ready(kolo_reducer *reducer, size_t tensor)
{
    const struct kolo__reducer_gpu *gpu = reducer->gpu;
    kolo_status status = kolo__gpu_check_capture(reducer, "kolo_reducer_ready");
    if (status != KOLO_OK)
        return status;
    uint32_t bucket = gpu->by_bucket ? reducer->fusion.tensors[tensor].bucket : 0;
    return kolo__gpu_told(
        reducer,
        gpu->module->event_record(gpu->device, kolo__gpu_ready_event(gpu, bucket), gpu->caller));
}

/* ---- out: packed and on its way ------------------------------------------------------------- */

kolo_status kolo__gpu_call(kolo_reducer *reducer, struct kolo__call call, kolo_request **request)
{
    kolo_call_options options = {.size = sizeof options, .stream = reducer->gpu->own};
    call.options = &options;
    return kolo__call_start(reducer->comm, &call, request);
}

kolo_status kolo__gpu_pack(kolo_reducer *reducer, const struct kolo__unit *unit, double scale,
                           const double *factor)
{
    const struct kolo__reducer_gpu *gpu = reducer->gpu;
    const struct kolo__gpu_unit *mine = kolo__gpu_unit(reducer, unit);
    const struct kolo__device_run run = {
        .fused = mine->fused, .scale = scale, .factor = factor, .error = mine->error};
    if (mine->in_place && scale == 1 && factor == NULL)
        return KOLO_OK;
    kolo_status status = kolo__gpu_shelter_errors(reducer, unit);
    if (status == KOLO_OK)
        status = gpu->module->pack(mine->pack, &run, gpu->own);
    return status == KOLO_OK ? kolo__gpu_return_errors(reducer, unit) : status;
}

/* All ranks' elements, in place: all of them, or, sharded, this rank's slice. */
static struct kolo__call reduction_of(const kolo_reducer *reducer, const struct kolo__unit *unit)
{
    const struct kolo__gpu_unit *mine = kolo__gpu_unit(reducer, unit);
    struct kolo__call call =
        kolo__call_allreduce(unit->name, mine->fused, unit->count,
                             kolo__reducer_wire_dtype(reducer, unit->bucket), KOLO_SUM);
    if (reducer->options.sharded) {
        call.collective = KOLO__REDUCE_SCATTER;
        call.count = mine->count;
        call.send_slices = reducer->comm->size;
        call.in_place_slice = reducer->comm->rank;
        call.recv = mine->fused + mine->first * kolo__device_wire_bytes(&mine->packing);
    }
    return call;
}

kolo_status kolo__gpu_start(kolo_reducer *reducer, struct kolo__unit *unit)
{
    const struct kolo__reducer_gpu *gpu = reducer->gpu;
    double ranks = reducer->options.sum ? 1 : reducer->comm->size;
    if (unit->count == 0)
        return KOLO_OK;
    kolo_status status =
        gpu->module->stream_wait(gpu->device, gpu->own, kolo__gpu_ready_event(gpu, unit->bucket));
    if (status == KOLO_OK)
        status = kolo__gpu_shelter_data(reducer, unit->bucket);
    if (status == KOLO_OK && kolo__gpu_unit(reducer, unit)->slice > 0)
        return kolo__gpu_fp8_start(reducer, unit);
    if (status == KOLO_OK)
        status = kolo__gpu_pack(reducer, unit, reducer->options.scale / ranks, NULL);
    if (kolo__gpu_checked(reducer, status) != KOLO_OK)
        return status;
    return kolo__gpu_call(reducer, reduction_of(reducer, unit), &unit->request);
}

/* ---- back: unpacked ------------------------------------------------------------------------- */

static kolo_status unpack(const kolo_reducer *reducer, const struct kolo__unit *unit)
{
    const struct kolo__reducer_gpu *gpu = reducer->gpu;
    const struct kolo__gpu_unit *mine = kolo__gpu_unit(reducer, unit);
    bool clips = reducer->options.clip_norm > 0;
    struct kolo__device_run run = {
        .fused = mine->fused + mine->first * kolo__device_wire_bytes(&mine->packing), .scale = 1};
    kolo_status status = KOLO_OK;
    if (unit->count == 0 || (mine->in_place && !clips))
        return KOLO_OK;
    if (mine->finding != NULL) {
        const struct kolo__device_scaling scaling = {
            .clip = clips ? &gpu->total->factor : NULL,
            .sum = reducer->options.sum ? reducer->comm->size : 1,
            .result = &mine->finding->scale};
        run.factor = &mine->finding->scale.unpack;
        if (clips)
            status = gpu->module->choose_scale(gpu->device, &scaling, gpu->own);
    } else if (clips) {
        run.factor = &gpu->total->factor;
    }
    return status == KOLO_OK ? gpu->module->unpack(mine->unpack, &run, gpu->own) : status;
}

kolo_status kolo__gpu_finish(kolo_reducer *reducer, const struct kolo__unit *unit)
{
    const struct kolo__reducer_gpu *gpu = reducer->gpu;
    const struct kolo__gpu_unit *mine = kolo__gpu_unit(reducer, unit);
    kolo_status status = KOLO_OK;
    if (reducer->options.statistics && unit->count > 0)
        status = gpu->module->measure(
            gpu->device, &mine->packing,
            mine->fused + mine->first * kolo__device_wire_bytes(&mine->packing), mine->count,
            mine->finding != NULL ? &mine->finding->scale.unpack : NULL, mine->partials, gpu->own);
    if (status == KOLO_OK && reducer->options.clip_norm == 0)
        status = unpack(reducer, unit);
    return kolo__gpu_checked(reducer, status);
}

kolo_status kolo__gpu_start_norm(kolo_reducer *reducer, struct kolo__unit *unit)
{
    const struct kolo__reducer_gpu *gpu = reducer->gpu;
    size_t bytes = gpu->partial_count * sizeof *gpu->partials;
    struct kolo__call call = kolo__call_allgather(
        reducer->comm, unit->name, gpu->partials + reducer->comm->rank * gpu->partial_count,
        gpu->partials, bytes, KOLO_UINT8);
    return bytes > 0 ? kolo__gpu_call(reducer, call, &unit->request) : KOLO_OK;
}

/* ---- the end -------------------------------------------------------------------------------- */

static kolo_status end_statistics(kolo_reducer *reducer)
{
    const struct kolo__reducer_gpu *gpu = reducer->gpu;
    size_t parts = reducer->options.sharded ? reducer->comm->size : 1;
    kolo_status status = gpu->module->total(gpu->device, gpu->partials, parts * gpu->partial_count,
                                            reducer->options.clip_norm, gpu->total, gpu->own);
    if (status == KOLO_OK)
        status = gpu->module->copy(gpu->device, gpu->host_total, gpu->total, sizeof *gpu->total,
                                   gpu->own);
    for (uint32_t i = 0; i < reducer->unit_count && status == KOLO_OK; i++)
        if (reducer->options.clip_norm > 0 && reducer->units[i].kind == KOLO__UNIT_GRADIENTS)
            status = unpack(reducer, &reducer->units[i]);
    return status;
}

kolo_status kolo__gpu_end_step(kolo_reducer *reducer)
{
    const struct kolo__reducer_gpu *gpu = reducer->gpu;
    kolo_status status = reducer->options.statistics ? end_statistics(reducer) : KOLO_OK;
    if (status == KOLO_OK && reducer->options.allow_unused)
        status = kolo__gpu_restore_unused(reducer);
    if (status == KOLO_OK)
        status = gpu->module->event_record(gpu->device, gpu->ended, gpu->own);
    if (status == KOLO_OK)
        status = gpu->module->stream_wait(gpu->device, gpu->caller, gpu->ended);
    return kolo__gpu_checked(reducer, status);
}
