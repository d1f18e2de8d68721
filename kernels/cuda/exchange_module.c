/* SPDX-License-Identifier: Apache-2.0 */
/* Allreduces among GPUs that map each other's memory (exchange.h): arguments and launches. */
#include "kernels/cuda/exchange.h"
#include "kernels/cuda/forms.h"
#include "kernels/cuda/reduce_module.h"

#include <string.h>

_Static_assert((int)EXCHANGE_RANKS == (int)KOLO__EXCHANGE_RANKS &&
                   (int)EXCHANGE_HEADER == (int)KOLO__EXCHANGE_HEADER_BYTES &&
                   (int)EXCHANGE_RING == (int)KOLO__EXCHANGE_RING,
               "one layout of regions");
_Static_assert((int)KOLO__KERNEL_EXCHANGES == KOLO__EXCHANGE_KINDS * KOLO__EXCHANGE_FORMATS,
               "a kernel of each kind");

/* NULL: the run is one that kernels do. */
static const char *problem_of(const struct kolo__device_exchange_run *run,
                              const struct kolo__device_exchange *parts, uint32_t part_count)
{
    const struct kolo__reduction *reduction = run->reduction;
    size_t element = kolo_dtype_bytes(reduction->dtype);
    if (reduction->dtype < KOLO_FP16 || !kolo__reduction_defined(reduction->dtype, reduction->op) ||
        reduction->scales != NULL)
        return "only floats, without scales, are exchanged by kernels";
    if (run->rank_count < 2 || run->rank_count > EXCHANGE_RANKS || part_count < 1 ||
        part_count > run->rank_count)
        return "2 to 8 ranks take part";
    if (run->blocks < 1 || run->blocks > EXCHANGE_BLOCKS)
        return "a rank has 1 to 64 blocks";
    if (run->slot_bytes % 16 != 0 || run->count > run->slot_bytes / element)
        return "the slot is too small, or no multiple of 16 bytes";
    if (run->step >= kolo__exchange_steps(run->kind, run->rank_count))
        return "there is no such step";
    for (uint32_t i = 0; i < part_count; i++) {
        if (parts[i].rank >= run->rank_count)
            return "there is no such rank";
        if (((uintptr_t)parts[i].from | (uintptr_t)parts[i].to) % element != 0)
            return "its buffers are not aligned to their elements";
        for (uint32_t r = 0; r < run->rank_count; r++)
            if (parts[i].regions[r] == NULL || (uintptr_t)parts[i].regions[r] % 16 != 0)
                return "a region is missing, or not aligned to 16 bytes";
    }
    return NULL;
}

static void fill(struct exchange *x, const struct kolo__device_exchange_run *run,
                 const struct kolo__device_exchange *part)
{
    static const enum combine_op ops[KOLO_OP_COUNT] = {
        [KOLO_PRODUCT] = COMBINE_PRODUCT, [KOLO_MIN] = COMBINE_MIN, [KOLO_MAX] = COMBINE_MAX};
    *x = (struct exchange){.from = (uintptr_t)part->from,
                           .to = (uintptr_t)part->to,
                           .count = run->count,
                           .slot_bytes = run->slot_bytes,
                           .stop = (uintptr_t)part->stop,
                           .rank = part->rank,
                           .rank_count = run->rank_count,
                           .op = ops[run->reduction->op],
                           .divisor = run->reduction->divisor,
                           .spins = run->spins,
                           .first_step = run->step < 0 ? 0 : (uint32_t)run->step};
    x->last_step = run->step < 0 ? (uint32_t)kolo__exchange_steps(run->kind, run->rank_count) - 1
                                 : x->first_step;
    for (uint32_t r = 0; r < run->rank_count; r++)
        x->regions[r] = (uintptr_t)part->regions[r];
}

kolo_status kolo__cuda_exchange(struct kolo__device *device,
                                const struct kolo__device_exchange_run *run,
                                const struct kolo__device_exchange *parts, uint32_t part_count,
                                kolo__device_stream stream)
{
    struct exchange_launch launch = {.rank_count = part_count};
    void *parameters[] = {&launch};
    const char *problem = problem_of(run, parts, part_count);
    if (problem != NULL)
        return kolo__services.error(KOLO_ERR_INVALID, "GPUs cannot exchange this: %s", problem);
    for (uint32_t i = 0; i < part_count; i++)
        fill(&launch.ranks[i], run, &parts[i]);
    CUfunction kernel = device->exchanges[(int)run->kind * KOLO__EXCHANGE_FORMATS +
                                          (int)(run->reduction->dtype - KOLO_FP16)];
    kolo_status status = kolo__device_enter(device);
    if (status != KOLO_OK)
        return status;
    const unsigned blocks = part_count * run->blocks;
    CUresult result = part_count > 1
                          ? device->driver->cuLaunchCooperativeKernel(
                                kernel, blocks, 1, 1, EXCHANGE_THREADS, 1, 1, 0, stream, parameters)
                          : device->driver->cuLaunchKernel(kernel, blocks, 1, 1, EXCHANGE_THREADS,
                                                           1, 1, 0, stream, parameters, NULL);
    kolo__device_leave(device);
    return kolo__driver_check(result, "starting a kernel on GPU %d", device->ordinal);
}
