/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/reducer/fusion.h"

#include "base/assert.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const uint32_t NONE = UINT32_MAX;

kolo_status kolo__fusion_create(struct kolo__fusion *fusion, uint32_t tensor_count)
{
    *fusion = (struct kolo__fusion){.tensor_count = tensor_count};
    fusion->tensors = calloc(tensor_count, sizeof *fusion->tensors);
    fusion->members = calloc(tensor_count, sizeof *fusion->members);
    fusion->buckets = calloc(tensor_count, sizeof *fusion->buckets);
    fusion->scratch = calloc(tensor_count, sizeof *fusion->scratch);
    if (fusion->tensors != NULL && fusion->members != NULL && fusion->buckets != NULL &&
        fusion->scratch != NULL)
        return KOLO_OK;
    kolo__fusion_free(fusion);
    return kolo__error(KOLO_ERR_MEMORY, "no memory for the plan of %u tensors", tensor_count);
}

void kolo__fusion_free(struct kolo__fusion *fusion)
{
    free(fusion->tensors);
    free(fusion->members);
    free(fusion->buckets);
    free(fusion->scratch);
    *fusion = (struct kolo__fusion){0};
}

static size_t round_up(size_t bytes, size_t multiple)
{
    return (bytes + multiple - 1) / multiple * multiple;
}

static size_t tensor_bytes(const struct kolo__fusion_tensor *tensor)
{
    return round_up(tensor->count * kolo_dtype_bytes(tensor->dtype), KOLO__FUSION_ALIGNMENT);
}

/* Half of what is to come, so that little is left in the end. */
static size_t next_limit(size_t to_come, size_t bucket_bytes, size_t tail_bytes)
{
    size_t limit = to_come / 2 > tail_bytes ? to_come / 2 : tail_bytes;
    return tail_bytes == 0 || limit > bucket_bytes ? bucket_bytes : limit;
}

/* Buckets in the order in which they close: full, or with the last tensor of their dtype. Tensors
 * get their bucket. scratch[k]: the place in the order of the tensor that opened the k-th one's
 * bucket; members[place]: that bucket's number, once it has one. */
static void cut(struct kolo__fusion *fusion, const uint32_t *order, size_t first_bucket_bytes,
                size_t bucket_bytes, size_t tail_bytes)
{
    size_t to_come = 0;
    uint32_t open[KOLO_DTYPE_COUNT], left[KOLO_DTYPE_COUNT] = {0}, *opened_by = fusion->scratch;
    size_t bytes[KOLO_DTYPE_COUNT], limit = first_bucket_bytes;
    for (int d = 0; d < KOLO_DTYPE_COUNT; d++)
        open[d] = NONE;
    for (uint32_t i = 0; i < fusion->tensor_count; i++)
        left[fusion->tensors[i].dtype]++;
    for (uint32_t i = 0; i < fusion->tensor_count; i++)
        to_come += tensor_bytes(&fusion->tensors[i]);
    fusion->bucket_count = 0;
    for (uint32_t k = 0; k < fusion->tensor_count; k++) {
        const struct kolo__fusion_tensor *tensor = &fusion->tensors[order[k]];
        kolo_dtype dtype = tensor->dtype;
        if (open[dtype] == NONE) {
            open[dtype] = k;
            bytes[dtype] = 0;
        }
        opened_by[k] = open[dtype];
        bytes[dtype] += tensor_bytes(tensor);
        to_come -= tensor_bytes(tensor);
        bool full = bytes[dtype] >= limit;
        if (--left[dtype] > 0 && !full)
            continue;
        if (full)
            limit = next_limit(to_come, bucket_bytes, tail_bytes);
        fusion->members[open[dtype]] = fusion->bucket_count;
        fusion->buckets[fusion->bucket_count++] = (struct kolo__fusion_bucket){.dtype = dtype};
        open[dtype] = NONE;
    }
    for (uint32_t k = 0; k < fusion->tensor_count; k++)
        fusion->tensors[order[k]].bucket = fusion->members[opened_by[k]];
}

static void collect_members(struct kolo__fusion *fusion, const uint32_t *order)
{
    uint32_t first = 0;
    for (uint32_t k = 0; k < fusion->tensor_count; k++)
        fusion->buckets[fusion->tensors[k].bucket].tensor_count++;
    for (uint32_t b = 0; b < fusion->bucket_count; b++) {
        fusion->buckets[b].first = first;
        first += fusion->buckets[b].tensor_count;
        fusion->buckets[b].tensor_count = 0;
    }
    for (uint32_t k = 0; k < fusion->tensor_count; k++) {
        struct kolo__fusion_bucket *bucket = &fusion->buckets[fusion->tensors[order[k]].bucket];
        fusion->members[bucket->first + bucket->tensor_count++] = order[k];
    }
}

/* A region for each dtype, whatever the buckets are. */
static void lay_out_regions(struct kolo__fusion *fusion, const uint32_t *order)
{
    size_t next[KOLO_DTYPE_COUNT], at = 0;
    for (int d = 0; d < KOLO_DTYPE_COUNT; d++) {
        next[d] = at;
        for (uint32_t i = 0; i < fusion->tensor_count; i++)
            if (fusion->tensors[i].dtype == (kolo_dtype)d)
                at += tensor_bytes(&fusion->tensors[i]);
    }
    for (uint32_t k = 0; k < fusion->tensor_count; k++) {
        struct kolo__fusion_tensor *tensor = &fusion->tensors[order[k]];
        tensor->offset = next[tensor->dtype];
        next[tensor->dtype] += tensor_bytes(tensor);
    }
    fusion->arena_bytes = at;
}

static void lay_out_slices(struct kolo__fusion *fusion, uint32_t slices)
{
    size_t at = 0;
    for (uint32_t b = 0; b < fusion->bucket_count; b++) {
        const struct kolo__fusion_bucket *bucket = &fusion->buckets[b];
        for (uint32_t i = 0; i < bucket->tensor_count; i++) {
            struct kolo__fusion_tensor *tensor =
                &fusion->tensors[fusion->members[bucket->first + i]];
            tensor->offset = at;
            at += tensor_bytes(tensor);
        }
        at = round_up(at, KOLO__FUSION_ALIGNMENT);
        size_t begin = fusion->tensors[fusion->members[bucket->first]].offset;
        at = begin + round_up(at - begin, (size_t)KOLO__FUSION_ALIGNMENT * slices);
    }
    fusion->arena_bytes = at;
}

void kolo__fusion_plan(struct kolo__fusion *fusion, const uint32_t *order,
                       size_t first_bucket_bytes, size_t bucket_bytes, size_t tail_bytes,
                       uint32_t slices)
{
    KOLO__ASSERT(slices > 0);
    cut(fusion, order, first_bucket_bytes, bucket_bytes, tail_bytes);
    collect_members(fusion, order);
    if (slices > 1)
        lay_out_slices(fusion, slices);
    else
        lay_out_regions(fusion, order);
    for (uint32_t b = 0; b < fusion->bucket_count; b++) {
        struct kolo__fusion_bucket *bucket = &fusion->buckets[b];
        const uint32_t *members = fusion->members + bucket->first;
        const struct kolo__fusion_tensor *last =
            &fusion->tensors[members[bucket->tensor_count - 1]];
        bucket->offset = fusion->tensors[members[0]].offset;
        bucket->bytes = round_up(last->offset + tensor_bytes(last) - bucket->offset,
                                 (size_t)KOLO__FUSION_ALIGNMENT * slices);
        bucket->count = bucket->bytes / kolo_dtype_bytes(bucket->dtype);
    }
}
