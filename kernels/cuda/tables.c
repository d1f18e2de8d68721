/* SPDX-License-Identifier: Apache-2.0 */
/* See tables.h. */
#include "kernels/cuda/tables.h"

#include <stdlib.h>

const char *kolo__layout_problem(const struct kolo__device_layout *layout, size_t *tensor)
{
    const struct kolo__packing *packing = &layout->packing;
    size_t element = kolo_dtype_bytes(packing->dtype), wire, end = 0;
    *tensor = 0;
    if (packing->dtype < KOLO_FP16 || element == 0)
        return "only floating-point tensors are packed";
    if (packing->narrows && packing->dtype != KOLO_FP32)
        return "only fp32 is narrowed";
    wire = kolo__device_wire_bytes(packing);
    if (layout->count > SIZE_MAX / 16 || layout->tensor_count > UINT32_MAX / 2)
        return "it is larger than memory";
    if (layout->count * wire % KOLO__DEVICE_ALIGNMENT != 0)
        return "the fused buffer is no whole number of vectors of 16 bytes";
    for (size_t i = 0; i < layout->tensor_count; i++) {
        const struct kolo__device_tensor *t = &layout->tensors[i];
        *tensor = i;
        if (t->begin * wire % KOLO__DEVICE_ALIGNMENT != 0)
            return "its place in the fused buffer is not aligned to 16 bytes";
        if (t->begin < end || t->begin > layout->count || t->count > layout->count - t->begin)
            return "its place in the fused buffer overlaps another, or is outside";
        if (t->count > 0 && ((uintptr_t)t->data % element != 0 || t->data == NULL))
            return "its data is not aligned to its elements";
        end = t->begin + t->count;
    }
    return NULL;
}

void kolo__row_free(struct kolo__row *row)
{
    free(row->segments);
    free(row->tiles);
    *row = (struct kolo__row){0};
}

/* Tensors of no elements have no segment. What lies before the first belongs to a segment of no
 * elements, so that it is zeroed. */
static void add_segments(const struct kolo__device_layout *layout, bool unpacks,
                         struct kolo__row *row)
{
    size_t vector = kolo__device_vector(&layout->packing);
    size_t element = kolo_dtype_bytes(layout->packing.dtype);
    if (!unpacks)
        row->segments[row->segment_count++] = (struct kolo__segment){0};
    for (size_t i = 0; i < layout->tensor_count; i++) {
        const struct kolo__device_tensor *tensor = &layout->tensors[i];
        uint64_t address = (uintptr_t)tensor->data, head = address / element % vector;
        if (tensor->count == 0)
            continue;
        /* A segment of no vectors at all would stand before this one in the search. */
        if (!unpacks && row->segment_count == 1 && tensor->begin == 0)
            row->segment_count = 0;
        row->segments[row->segment_count++] = (struct kolo__segment){
            .tensor = address,
            .begin = tensor->begin,
            .count = tensor->count,
            .first_vector = unpacks ? row->vector_count : tensor->begin / vector};
        if (unpacks)
            row->vector_count += (head + tensor->count + vector - 1) / vector;
    }
    if (!unpacks)
        row->vector_count = layout->count / vector;
}

/* The last segment, from one that does, that begins at the vector or before. */
static uint32_t last_segment(const struct kolo__row *row, uint32_t from, uint64_t vector)
{
    while (from + 1 < row->segment_count && row->segments[from + 1].first_vector <= vector)
        from++;
    return from;
}

bool kolo__row_create(const struct kolo__device_layout *layout, bool unpacks, struct kolo__row *row)
{
    *row = (struct kolo__row){0};
    row->segments = calloc(layout->tensor_count + 1, sizeof *row->segments);
    if (row->segments == NULL)
        return false;
    add_segments(layout, unpacks, row);
    row->tile_count =
        (row->vector_count + KOLO__DEVICE_TILE_VECTORS - 1) / KOLO__DEVICE_TILE_VECTORS;
    row->tiles = calloc(row->tile_count + 1, sizeof *row->tiles);
    if (row->tiles == NULL) {
        kolo__row_free(row);
        return false;
    }
    uint32_t segment = 0;
    for (size_t i = 0; i < row->tile_count; i++) {
        struct kolo__tile *tile = &row->tiles[i];
        uint64_t begin = (uint64_t)i * KOLO__DEVICE_TILE_VECTORS;
        tile->first = segment = last_segment(row, segment, begin);
        tile->last = segment = last_segment(row, segment, begin + KOLO__DEVICE_TILE_VECTORS - 1);
        tile->segment = row->segments[tile->first];
    }
    return true;
}
