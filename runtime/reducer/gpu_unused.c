/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tensors that a rank with gradients in a GPU's memory did not use in a step. Who used what is
 * known when the step ends, after their buckets are packed and unpacked, and plans have fixed
 * addresses. So the tensor itself is made zeros, and what it was is kept in its shadow:
 *
 *     shadow   | data, whole 16 bytes (packed) | what feedback keeps of it |
 *
 * A copy and a zeroing of each, on the reducer's stream, and of no other tensor.
 */
#include "base/status.h"
#include "runtime/reducer/gpu_state.h"

static size_t data_bytes(const struct kolo__reducer_tensor *tensor)
{
    return tensor->count * kolo_dtype_bytes(tensor->dtype);
}

static size_t kept_bytes(const kolo_reducer *reducer, const struct kolo__reducer_tensor *tensor)
{
    return reducer->views ? 0 : (data_bytes(tensor) + 15) / 16 * 16;
}

/* In the first step nobody knows units when it is asked. */
static bool has_errors(const kolo_reducer *reducer, const struct kolo__reducer_tensor *tensor)
{
    return reducer->options.error_feedback && kolo__reducer_narrows(reducer, tensor->dtype);
}

kolo_status kolo__gpu_take_for_unused(kolo_reducer *reducer, size_t index)
{
    const struct kolo__reducer_gpu *gpu = reducer->gpu;
    struct kolo__reducer_tensor *tensor = &reducer->tensors[index];
    size_t bytes = kept_bytes(reducer, tensor) +
                   (has_errors(reducer, tensor) ? tensor->count * sizeof(float) : 0);
    kolo_status status = KOLO_OK;
    if (tensor->shadow == NULL && bytes > 0) {
        void *shadow = NULL;
        status = kolo__gpu_checked(reducer, gpu->module->alloc(gpu->device, bytes, &shadow));
        tensor->shadow = shadow;
    }
    return status == KOLO_OK ? kolo__gpu_ready(reducer, index) : status;
}

/* Calls visit for each tensor of the bucket that this rank did not use. */
static kolo_status visit_unused(kolo_reducer *reducer, uint32_t index,
                                kolo_status (*visit)(kolo_reducer *reducer,
                                                     struct kolo__reducer_tensor *tensor))
{
    const struct kolo__fusion_bucket *bucket = &reducer->fusion.buckets[index];
    kolo_status status = KOLO_OK;
    for (uint32_t i = 0; reducer->options.allow_unused && i < bucket->tensor_count; i++) {
        struct kolo__reducer_tensor *tensor =
            &reducer->tensors[reducer->fusion.members[bucket->first + i]];
        if (status == KOLO_OK && tensor->unused && tensor->count > 0)
            status = visit(reducer, tensor);
    }
    return status;
}

static kolo_status copy(const kolo_reducer *reducer, void *to, const void *from, size_t bytes)
{
    const struct kolo__reducer_gpu *gpu = reducer->gpu;
    return bytes > 0 ? gpu->module->copy(gpu->device, to, from, bytes, gpu->own) : KOLO_OK;
}

static kolo_status zero(const kolo_reducer *reducer, void *memory, size_t bytes)
{
    const struct kolo__reducer_gpu *gpu = reducer->gpu;
    return gpu->module->zero(gpu->device, memory, bytes, gpu->own);
}

static kolo_status shelter(kolo_reducer *reducer, struct kolo__reducer_tensor *tensor)
{
    kolo_status status = KOLO_OK;
    if (!reducer->views)
        status = copy(reducer, tensor->shadow, tensor->data, data_bytes(tensor));
    return status == KOLO_OK ? zero(reducer, tensor->data, data_bytes(tensor)) : status;
}

kolo_status kolo__gpu_shelter_data(kolo_reducer *reducer, uint32_t bucket)
{
    return visit_unused(reducer, bucket, shelter);
}

/* A bucket has one unit, and units begin with those of buckets. */
static float *errors_of(const kolo_reducer *reducer, const struct kolo__reducer_tensor *tensor)
{
    uint32_t bucket = reducer->fusion.tensors[tensor - reducer->tensors].bucket;
    float *error = reducer->gpu->units[bucket].error;
    return error != NULL ? error + tensor->position : NULL;
}

static kolo_status shelter_errors(kolo_reducer *reducer, struct kolo__reducer_tensor *tensor)
{
    float *errors = errors_of(reducer, tensor);
    if (errors == NULL)
        return KOLO_OK;
    kolo_status status = copy(reducer, tensor->shadow + kept_bytes(reducer, tensor), errors,
                              tensor->count * sizeof(float));
    return status == KOLO_OK ? zero(reducer, errors, tensor->count * sizeof(float)) : status;
}

static kolo_status return_errors(kolo_reducer *reducer, struct kolo__reducer_tensor *tensor)
{
    float *errors = errors_of(reducer, tensor);
    return errors == NULL ? KOLO_OK
                          : copy(reducer, errors, tensor->shadow + kept_bytes(reducer, tensor),
                                 tensor->count * sizeof(float));
}

kolo_status kolo__gpu_shelter_errors(kolo_reducer *reducer, const struct kolo__unit *unit)
{
    return visit_unused(reducer, unit->bucket, shelter_errors);
}

kolo_status kolo__gpu_return_errors(kolo_reducer *reducer, const struct kolo__unit *unit)
{
    return visit_unused(reducer, unit->bucket, return_errors);
}

kolo_status kolo__gpu_restore_unused(kolo_reducer *reducer)
{
    kolo_status status = KOLO_OK;
    for (uint32_t i = 0; i < reducer->tensor_count && !reducer->views; i++) {
        const struct kolo__reducer_tensor *tensor = &reducer->tensors[i];
        if (status == KOLO_OK && tensor->unused && !kolo_reducer_used(reducer, i))
            status = copy(reducer, tensor->data, tensor->shadow, data_bytes(tensor));
    }
    return status;
}
