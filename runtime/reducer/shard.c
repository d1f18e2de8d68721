/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sharding: of every bucket, rank r has slice r of size equal ones. Its elements of each tensor in
 * that slice are a piece.
 *
 *     bucket   | tensor 5 ...........| tensor 4 ....| tensor 3 .....  | padding |
 *     slices   |  rank 0      |  rank 1      |  rank 2      |  rank 3           |
 *     pieces   |  5           |  5   |  4    |  4   |  3    |  3      |
 */
#include "runtime/reducer/gpu.h"

#include "base/clock.h"
#include "base/status.h"
#include "runtime/call.h"

#include <stdlib.h>

static size_t slice_of(const kolo_reducer *reducer, const struct kolo__fusion_bucket *bucket)
{
    return bucket->count / reducer->comm->size;
}

/* The tensor's elements in this rank's slice of its bucket; where they are in the slice. False:
 * none. */
static bool own_part(const kolo_reducer *reducer, uint32_t index, size_t *first, size_t *count,
                     size_t *at)
{
    const struct kolo__reducer_tensor *tensor = &reducer->tensors[index];
    const struct kolo__fusion_bucket *bucket =
        &reducer->fusion.buckets[reducer->fusion.tensors[index].bucket];
    size_t slice = slice_of(reducer, bucket), low = reducer->comm->rank * slice;
    size_t begin = tensor->position > low ? tensor->position : low;
    size_t end = tensor->position + tensor->count;
    end = end < low + slice ? end : low + slice;
    if (begin >= end)
        return false;
    *first = begin - tensor->position;
    *count = end - begin;
    *at = begin - low;
    return true;
}

/* Slices are kept whole in the optimizer's state, so that it has the padding's holes as well. */
static size_t state_before(const kolo_reducer *reducer, uint32_t bucket)
{
    size_t count = 0;
    for (uint32_t b = 0; b < bucket; b++)
        count += slice_of(reducer, &reducer->fusion.buckets[b]);
    return count;
}

size_t kolo_reducer_state_count(const kolo_reducer *reducer)
{
    if (reducer == NULL || !reducer->options.sharded)
        return 0;
    return state_before(reducer, reducer->fusion.bucket_count);
}

kolo_status kolo__shard_list(kolo_reducer *reducer)
{
    reducer->shards = calloc(reducer->tensor_count + (size_t)1, sizeof *reducer->shards);
    if (reducer->shards == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "kolo_reducer_create: no memory for %u pieces",
                           reducer->tensor_count);
    for (uint32_t i = 0; i < reducer->tensor_count; i++) {
        size_t first, count, at;
        if (!own_part(reducer, i, &first, &count, &at))
            continue;
        const struct kolo__fusion_tensor *place = &reducer->fusion.tensors[i];
        size_t offset = place->offset + first * kolo_dtype_bytes(place->dtype);
        reducer->shards[reducer->shard_count++] =
            (kolo_reducer_shard){.tensor = i,
                                 .first = first,
                                 .count = count,
                                 .dtype = place->dtype,
                                 .gradients = reducer->arena + offset,
                                 .parameters = reducer->parameters + offset,
                                 .state = state_before(reducer, place->bucket) + at};
    }
    return KOLO_OK;
}

kolo_status kolo_reducer_piece(const kolo_reducer *reducer, size_t k, kolo_reducer_shard *piece)
{
    if (reducer == NULL || piece == NULL || !reducer->options.sharded)
        return kolo__error(KOLO_ERR_INVALID, "kolo_reducer_piece: %s",
                           reducer == NULL ? "the reducer is NULL"
                           : piece == NULL ? "piece is NULL"
                                           : "the reducer is not sharded (options.sharded)");
    if (k >= reducer->shard_count)
        return kolo__error(KOLO_ERR_INVALID,
                           "kolo_reducer_piece: this rank has %zu pieces, asked for number %zu",
                           reducer->shard_count, k);
    *piece = reducer->shards[k];
    return KOLO_OK;
}

void *kolo_reducer_parameters(const kolo_reducer *reducer, size_t tensor)
{
    if (reducer == NULL || tensor >= reducer->tensor_count || reducer->parameters == NULL)
        return NULL;
    return reducer->parameters + reducer->fusion.tensors[tensor].offset;
}

static kolo_status start_gather(kolo_reducer *reducer, const struct kolo__fusion_bucket *bucket,
                                kolo_request **request)
{
    kolo_comm *comm = reducer->comm;
    size_t slice = slice_of(reducer, bucket);
    unsigned char *base = reducer->parameters + bucket->offset;
    const unsigned char *own = base + comm->rank * slice * kolo_dtype_bytes(bucket->dtype);
    struct kolo__call call =
        kolo__call_allgather(comm, "kolo_reducer_gather", own, base, slice, bucket->dtype);
    kolo_call_options options = {.size = sizeof options};
    if (reducer->gpu != NULL) { /* behind the updates of parameters */
        options.stream = kolo__gpu_stream(reducer);
        call.options = &options;
    }
    return kolo__call_start(comm, &call, request);
}

kolo_status kolo_reducer_gather(kolo_reducer *reducer, int timeout_ms)
{
    if (reducer == NULL || !reducer->options.sharded)
        return kolo__error(KOLO_ERR_INVALID, "kolo_reducer_gather: %s",
                           reducer == NULL ? "the reducer is NULL"
                                           : "the reducer is not sharded (options.sharded)");
    if (reducer->status != KOLO_OK)
        return kolo__error(reducer->status, "%s", reducer->error);
    uint64_t begin = kolo__now_ns(&kolo__real_clock);
    kolo_status status = KOLO_OK;
    for (; status == KOLO_OK && reducer->gathered < reducer->fusion.bucket_count;) {
        const struct kolo__fusion_bucket *bucket = &reducer->fusion.buckets[reducer->gathered];
        if (reducer->gather == NULL)
            status = start_gather(reducer, bucket, &reducer->gather);
        if (status != KOLO_OK)
            break;
        uint64_t spent_ms = (kolo__now_ns(&kolo__real_clock) - begin) / 1000000;
        int left_ms = timeout_ms < 0                     ? -1
                      : spent_ms >= (uint64_t)timeout_ms ? 0
                                                         : timeout_ms - (int)spent_ms;
        status = kolo_wait(&reducer->gather, left_ms);
        reducer->gathered += status == KOLO_OK;
    }
    if (status == KOLO_OK)
        reducer->gathered = 0;
    reducer->sequence_before = reducer->comm->sequence;
    return status;
}
