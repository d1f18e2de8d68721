/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fp8.c for gradients in a GPU's memory: the same stages, queued. What the host decides there, the
 * scale, the GPU finds for itself:
 *
 *   stage 0   largest absolute value: partials, their total      allreduce of its bits, which are
 * in the order of absolute values stage 1   scale; errors to its units; packed alltoall stage 2 own
 * slice: average of all ranks'                   allgather; sharded: done unpacked by the inverse
 * of the scale
 */
#include "base/status.h"
#include "runtime/call.h"
#include "runtime/reducer/gpu_state.h"

kolo_status kolo__gpu_fp8_start(kolo_reducer *reducer, struct kolo__unit *unit)
{
    const struct kolo__reducer_gpu *gpu = reducer->gpu;
    const struct kolo__gpu_unit *mine = kolo__gpu_unit(reducer, unit);
    const struct kolo__device_run run = {.scale = reducer->options.scale, .partials = gpu->scratch};
    kolo_status status = gpu->module->pack(mine->pack, &run, gpu->own);
    if (status == KOLO_OK)
        status = gpu->module->total(gpu->device, gpu->scratch,
                                    kolo__device_partials(&mine->packing, mine->packed), 0,
                                    &mine->finding->largest, gpu->own);
    if (kolo__gpu_checked(reducer, status) != KOLO_OK)
        return status;
    return kolo__gpu_call(reducer,
                          kolo__call_allreduce(unit->name, &mine->finding->largest.absolute_max, 1,
                                               KOLO_UINT32, KOLO_MAX),
                          &unit->request);
}

static kolo_status start_exchange(kolo_reducer *reducer, struct kolo__unit *unit)
{
    const struct kolo__reducer_gpu *gpu = reducer->gpu;
    const struct kolo__gpu_unit *mine = kolo__gpu_unit(reducer, unit);
    struct kolo__device_scale *scale = &mine->finding->scale;
    const struct kolo__device_scaling scaling = {
        .absolute_max = &mine->finding->largest.absolute_max,
        .largest = kolo__fp8_largest(reducer),
        .scale = reducer->options.scale,
        .sum = reducer->options.sum ? reducer->comm->size : 1,
        .result = scale};
    const struct kolo__device_run rescale = {
        .fused = mine->error, .scale = 1, .factor = &scale->error};
    kolo_status status = gpu->module->choose_scale(gpu->device, &scaling, gpu->own);
    if (status == KOLO_OK && mine->rescale != NULL)
        status = gpu->module->pack(mine->rescale, &rescale, gpu->own);
    if (status == KOLO_OK)
        status = kolo__gpu_pack(reducer, unit, 1, &scale->pack);
    if (kolo__gpu_checked(reducer, status) != KOLO_OK)
        return status;
    return kolo__gpu_call(reducer,
                          (struct kolo__call){.name = unit->name,
                                              .collective = KOLO__ALLTOALL,
                                              .send = mine->fused,
                                              .recv = mine->fused + mine->packed,
                                              .count = mine->slice,
                                              .send_slices = reducer->comm->size,
                                              .recv_slices = reducer->comm->size,
                                              .dtype = KOLO_UINT8},
                          &unit->request);
}

/* KOLO_AGAIN: the sum of the own slice is on its way to the others. */
static kolo_status add_slice(kolo_reducer *reducer, struct kolo__unit *unit)
{
    const struct kolo__reducer_gpu *gpu = reducer->gpu;
    const struct kolo__gpu_unit *mine = kolo__gpu_unit(reducer, unit);
    uint32_t size = reducer->comm->size, rank = reducer->comm->rank;
    unsigned char *own = mine->fused + rank * mine->slice;
    for (uint32_t r = 0; r < size; r++)
        reducer->sources[r] = mine->fused + mine->packed + r * mine->slice;
    kolo_status status = gpu->module->sum_narrow(
        gpu->device, mine->packing.wire, own, reducer->sources, size, size, mine->slice, gpu->own);
    if (kolo__gpu_checked(reducer, status) != KOLO_OK || reducer->options.sharded)
        return status;
    status = kolo__gpu_call(
        reducer,
        kolo__call_allgather(reducer->comm, unit->name, own, mine->fused, mine->slice, KOLO_UINT8),
        &unit->request);
    return status == KOLO_OK ? KOLO_AGAIN : status;
}

kolo_status kolo__gpu_fp8_next(kolo_reducer *reducer, struct kolo__unit *unit)
{
    kolo_status status = KOLO_OK;
    unit->stage++;
    if (unit->stage == 1) {
        status = start_exchange(reducer, unit);
        return status == KOLO_OK ? KOLO_AGAIN : status;
    }
    if (unit->stage == 2)
        status = add_slice(reducer, unit);
    return status == KOLO_OK ? kolo__gpu_finish(reducer, unit) : status;
}
