/* SPDX-License-Identifier: Apache-2.0 */
/* See reduce_module.h. */
#include "kernels/cuda/reduce_module.h"

#include "kernels/cuda/combine.h"

#include <limits.h>

_Static_assert((int)COMBINE_SOURCES_MAX == (int)KOLO__DEVICE_SOURCES_MAX, "as many sources");

/* format: of what the kernel combines, or one as wide. */
static kolo_status launch(struct kolo__device *device, CUfunction kernel, enum format format,
                          struct combination *c, const void *const *sources,
                          kolo__device_stream stream)
{
    uint64_t element = (uint64_t)format_bytes(format), misplaced = c->to % element;
    void *parameters[] = {c};
    if (c->source_count < 1 || c->source_count > COMBINE_SOURCES_MAX)
        return kolo__services.error(KOLO_ERR_UNSUPPORTED,
                                    "a GPU reduces 1 to %d buffers at once, not %u",
                                    COMBINE_SOURCES_MAX, c->source_count);
    for (uint32_t i = 0; i < c->source_count; i++) {
        c->sources[i] = (uintptr_t)sources[i];
        misplaced |= c->sources[i] % element;
    }
    if (misplaced != 0)
        return kolo__services.error(KOLO_ERR_INVALID,
                                    "buffers that a GPU reduces have to be aligned to elements");
    uint64_t blocks = (combine_vector_count(format, c) + WALK_THREADS - 1) / WALK_THREADS;
    if (c->count == 0)
        return KOLO_OK;
    if (blocks > INT_MAX)
        return kolo__services.error(KOLO_ERR_INVALID, "more than a GPU can reduce at once");
    kolo_status status = kolo__device_enter(device);
    if (status != KOLO_OK)
        return status;
    CUresult result = device->driver->cuLaunchKernel(kernel, (unsigned)blocks, 1, 1, WALK_THREADS,
                                                     1, 1, 0, stream, parameters, NULL);
    kolo__device_leave(device);
    return kolo__driver_check(result, "starting a kernel on GPU %d", device->ordinal);
}

kolo_status kolo__cuda_reduce(struct kolo__device *device, const struct kolo__reduction *reduction,
                              void *to, const void *const *sources, uint32_t source_count,
                              size_t count, kolo__device_stream stream)
{
    static const enum format floats[] = {FORMAT_FP16, FORMAT_BF16, FORMAT_FP32, FORMAT_FP64};
    static const enum combine_op ops[KOLO_OP_COUNT] = {
        [KOLO_SUM] = COMBINE_SUM, [KOLO_AVERAGE] = COMBINE_SUM, [KOLO_PRODUCT] = COMBINE_PRODUCT,
        [KOLO_MIN] = COMBINE_MIN, [KOLO_MAX] = COMBINE_MAX,     [KOLO_PREMUL_SUM] = COMBINE_SUM,
        [KOLO_AND] = COMBINE_AND, [KOLO_OR] = COMBINE_OR,       [KOLO_XOR] = COMBINE_XOR};
    /* Of the bytes alone; the kernel knows what they are. */
    static const enum format widths[] = {FORMAT_E4M3, FORMAT_FP16, FORMAT_FP32, FORMAT_FP64};
    const kolo_dtype dtype = reduction->dtype;
    if (!kolo__reduction_defined(dtype, reduction->op))
        return kolo__services.error(KOLO_ERR_INVALID, "there is no such reduction of that dtype");
    struct combination c = {.to = (uintptr_t)to,
                            .count = count,
                            .source_count = source_count,
                            .divisor = reduction->divisor,
                            .op = ops[reduction->op]};
    c.scaled = reduction->op == KOLO_PREMUL_SUM && reduction->scales != NULL;
    for (uint32_t i = 0; c.scaled && i < source_count && i < COMBINE_SOURCES_MAX; i++)
        c.scales[i] = reduction->scales[i];
    if (dtype < KOLO_FP16)
        return launch(device, device->reduce_integers[dtype], widths[dtype % 4], &c, sources,
                      stream);
    enum format format = floats[dtype - KOLO_FP16];
    return launch(device, device->reduce[format], format, &c, sources, stream);
}

kolo_status kolo__cuda_sum_narrow(struct kolo__device *device, enum kolo__narrow_float wire,
                                  void *to, const void *const *sources, uint32_t source_count,
                                  uint32_t divisor, size_t count, kolo__device_stream stream)
{
    struct combination c = {.to = (uintptr_t)to,
                            .count = count,
                            .source_count = source_count,
                            .divisor = divisor,
                            .op = COMBINE_SUM,
                            .casts = 1};
    return launch(device, device->reduce[wire], (enum format)wire, &c, sources, stream);
}
