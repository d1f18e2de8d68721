/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the order in which gradients got ready on rank 0 to what every later step does: where
 * tensors lie, buckets, units. All of it follows from what is the same on all ranks, so that one
 * broadcast is all that is ever said about it.
 */
#include "runtime/reducer/gpu.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "kernels/device.h"
#include "runtime/call.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Over shared memory a collective of a few MiB is as fast as a longer one; between hosts longer
 * ones hide the latency. The first bucket is small: it is there soon, and nothing hides the last
 * one. Staged units are cut, so that what was packed is still in the cache when it travels. */
enum {
    MAPPED_BUCKET_BYTES = 4 << 20,
    REMOTE_BUCKET_BYTES = 8 << 20,
    GPU_BUCKET_BYTES = 32 << 20, /* long beside the launches of a unit; not measured */
    FIRST_BUCKET_BYTES = 1 << 20,
    MAPPED_STAGE_BYTES = 512 << 10,
    REMOTE_STAGE_BYTES = 4 << 20,
    TAIL_BYTES = 256 << 10,
    BUCKETS_MAX = 400, /* a communicator keeps so many plans without making them anew */
    DIRECT_DEPTH = 8,
};

static kolo_status no_memory(size_t bytes)
{
    return kolo__error(KOLO_ERR_MEMORY, "a reducer needs %zu bytes more than there are", bytes);
}

static uint32_t slices_of(const kolo_reducer *reducer)
{
    return reducer->options.sharded ? reducer->comm->size : 1;
}

size_t kolo__reducer_least_bucket(const kolo_reducer *reducer)
{
    return reducer->report.gradient_bytes / BUCKETS_MAX;
}

static struct kolo__tuning standard(const kolo_reducer *reducer)
{
    size_t bytes = reducer->options.bucket_bytes;
    size_t least = kolo__reducer_least_bucket(reducer);
    if (bytes == 0)
        bytes = reducer->gpu != NULL             ? GPU_BUCKET_BYTES
                : reducer->comm->mapping != NULL ? MAPPED_BUCKET_BYTES
                                                 : REMOTE_BUCKET_BYTES;
    return (struct kolo__tuning){.bucket_bytes = bytes > least ? bytes : least};
}

static size_t first_bucket_bytes(const kolo_reducer *reducer, const struct kolo__tuning *tuning)
{
    if (reducer->options.first_bucket_bytes > 0)
        return reducer->options.first_bucket_bytes;
    return tuning->bucket_bytes < FIRST_BUCKET_BYTES ? tuning->bucket_bytes : FIRST_BUCKET_BYTES;
}

/* Who says how large buckets are gets them. */
static size_t tail_bytes(const kolo_reducer *reducer)
{
    size_t least = kolo__reducer_least_bucket(reducer);
    if (reducer->options.bucket_bytes > 0)
        return 0;
    return least > TAIL_BYTES ? least : TAIL_BYTES;
}

/* ---- layout -----------------------------------------------------------------------------------
 */

static kolo_status allocate(kolo_reducer *reducer, size_t bytes, unsigned char **memory)
{
    void *block = NULL;
    kolo_status status = kolo_alloc(reducer->context, bytes, &block);
    *memory = block;
    return status;
}

/* Views are where the layout says. */
static void place_views(kolo_reducer *reducer, unsigned char *arena)
{
    for (uint32_t i = 0; i < reducer->tensor_count; i++)
        reducer->tensors[i].data = arena + reducer->fusion.tensors[i].offset;
}

kolo_status kolo__reducer_lay_out(kolo_reducer *reducer)
{
    uint32_t count = reducer->tensor_count;
    kolo_status status = kolo__fusion_create(&reducer->fusion, count);
    if (status != KOLO_OK)
        return status;
    for (uint32_t i = 0; i < count; i++) {
        const struct kolo__reducer_tensor *tensor = &reducer->tensors[i];
        reducer->report.gradient_bytes += tensor->count * kolo_dtype_bytes(tensor->dtype);
        reducer->fusion.tensors[i].count = reducer->tensors[i].count;
        reducer->fusion.tensors[i].dtype = reducer->tensors[i].dtype;
        reducer->order[i] = count - 1 - i; /* most models: the last layer's gradient comes first */
    }
    struct kolo__tuning tuning = standard(reducer);
    kolo__fusion_plan(&reducer->fusion, reducer->order, first_bucket_bytes(reducer, &tuning),
                      tuning.bucket_bytes, tail_bytes(reducer), slices_of(reducer));
    if (reducer->views)
        status = reducer->gpu != NULL
                     ? kolo__gpu_make_views(reducer)
                     : allocate(reducer, reducer->fusion.arena_bytes, &reducer->arena);
    if (status == KOLO_OK && reducer->options.sharded && reducer->gpu == NULL)
        status = allocate(reducer, reducer->fusion.arena_bytes, &reducer->parameters);
    if (status != KOLO_OK)
        return status;
    if (reducer->views)
        place_views(reducer, reducer->arena);
    if (reducer->options.fixed_order) {
        atomic_store(&reducer->ordered, count);
        atomic_store(&reducer->recorded, count);
        status = kolo__reducer_freeze(reducer, KOLO__NO_DEADLINE);
    }
    if (status == KOLO_OK && reducer->options.sharded)
        status = kolo__shard_list(reducer);
    return status;
}

/* Views move to their new places. Old and new memory may not be the same. */
static kolo_status move_views(kolo_reducer *reducer)
{
    unsigned char *arena;
    kolo_status status = allocate(reducer, reducer->fusion.arena_bytes, &arena);
    if (status != KOLO_OK)
        return status;
    for (uint32_t i = 0; i < reducer->tensor_count; i++) {
        const struct kolo__reducer_tensor *tensor = &reducer->tensors[i];
        memcpy(arena + reducer->fusion.tensors[i].offset, tensor->data,
               tensor->count * kolo_dtype_bytes(tensor->dtype));
    }
    place_views(reducer, arena);
    kolo_free(reducer->context, reducer->arena);
    reducer->arena = arena;
    return KOLO_OK;
}

/* ---- the plan ---------------------------------------------------------------------------------
 */

static size_t wire_bytes_of(const kolo_reducer *reducer, kolo_dtype dtype)
{
    if (!kolo__reducer_narrows(reducer, dtype))
        return kolo_dtype_bytes(dtype);
    return kolo__reducer_is_fp8(reducer) ? 1 : 2;
}

/* Places of tensors in their buckets; packed ones follow each other without holes. */
static void place_in_buckets(kolo_reducer *reducer)
{
    for (uint32_t b = 0; b < reducer->fusion.bucket_count; b++) {
        const struct kolo__fusion_bucket *bucket = &reducer->fusion.buckets[b];
        size_t at = 0, vector = KOLO__DEVICE_ALIGNMENT / wire_bytes_of(reducer, bucket->dtype);
        for (uint32_t i = 0; i < bucket->tensor_count; i++) {
            uint32_t member = reducer->fusion.members[bucket->first + i];
            struct kolo__reducer_tensor *tensor = &reducer->tensors[member];
            size_t offset = reducer->fusion.tensors[member].offset - bucket->offset;
            tensor->position = reducer->views ? offset / kolo_dtype_bytes(bucket->dtype) : at;
            at += tensor->count;
            if (reducer->gpu != NULL) /* each in the fused buffer at a whole vector */
                at = (at + vector - 1) / vector * vector;
            reducer->slots[member] = bucket->first + i;
        }
        reducer->buckets[b].elements = reducer->views ? bucket->count : at;
    }
}

static void fill_pieces(kolo_reducer *reducer, struct kolo__unit *unit)
{
    const struct kolo__fusion_bucket *bucket = &reducer->fusion.buckets[unit->bucket];
    unit->first_piece = bucket->first;
    unit->piece_count = 0;
    for (uint32_t i = 0; i < bucket->tensor_count; i++) {
        const struct kolo__reducer_tensor *tensor =
            &reducer->tensors[reducer->fusion.members[bucket->first + i]];
        if (tensor->count > 0)
            reducer->pieces[unit->first_piece + unit->piece_count++] =
                (struct kolo__piece){.first = tensor->position, .data = tensor->data};
    }
}

static enum kolo__fusing fusing_of(const kolo_reducer *reducer, kolo_dtype dtype)
{
    bool mapped = reducer->comm->mapping != NULL || reducer->comm->size == 1;
    if (kolo__reducer_narrows(reducer, dtype))
        return KOLO__FUSING_STAGED;
    if (reducer->views)
        return KOLO__FUSING_DIRECT;
    if (reducer->gpu != NULL)
        return KOLO__FUSING_STAGED;
    return mapped ? KOLO__FUSING_SCATTERED : KOLO__FUSING_STAGED;
}

/* Room for one unit more; NULL when there is no memory. */
static struct kolo__unit *add_unit(kolo_reducer *reducer, enum kolo__unit_kind kind,
                                   const char *name)
{
    if (reducer->unit_count == reducer->unit_capacity) {
        uint32_t capacity = reducer->unit_capacity * 2 + 16;
        struct kolo__unit *units = realloc(reducer->units, capacity * sizeof *units);
        if (units == NULL) {
            no_memory(capacity * sizeof *units);
            return NULL;
        }
        reducer->units = units;
        reducer->unit_capacity = capacity;
    }
    struct kolo__unit *unit = &reducer->units[reducer->unit_count++];
    *unit = (struct kolo__unit){.kind = kind};
    snprintf(unit->name, sizeof unit->name, "%s", name);
    return unit;
}

static kolo_status add_units_of(kolo_reducer *reducer, uint32_t index, size_t *staging)
{
    kolo_dtype dtype = reducer->fusion.buckets[index].dtype;
    enum kolo__fusing fusing = fusing_of(reducer, dtype);
    size_t elements = reducer->buckets[index].elements, most = elements;
    size_t wire = wire_bytes_of(reducer, dtype);
    size_t stage = reducer->comm->mapping != NULL ? MAPPED_STAGE_BYTES : REMOTE_STAGE_BYTES;
    if (fusing == KOLO__FUSING_STAGED && !reducer->options.sharded && reducer->gpu == NULL &&
        stage / wire < most)
        most = stage / wire;
    size_t first = 0;
    do {
        char name[KOLO__UNIT_NAME_BYTES];
        snprintf(name, sizeof name, "kolo_reducer_wait (bucket %u of %u)", index + 1,
                 reducer->fusion.bucket_count);
        struct kolo__unit *unit = add_unit(reducer, KOLO__UNIT_GRADIENTS, name);
        if (unit == NULL)
            return KOLO_ERR_MEMORY;
        unit->bucket = index;
        unit->fusing = fusing;
        unit->first = first;
        unit->count = elements - first < most ? elements - first : most;
        if (fusing == KOLO__FUSING_SCATTERED)
            fill_pieces(reducer, unit);
        size_t needs = kolo__reducer_narrows(reducer, dtype) && kolo__reducer_is_fp8(reducer)
                           ? kolo__fp8_staging(reducer, unit->count)
                           : unit->count * wire;
        if (fusing == KOLO__FUSING_STAGED && reducer->gpu == NULL && needs > *staging)
            *staging = needs;
        reducer->report.wire_bytes += unit->count * wire;
        first += unit->count;
    } while (first < elements);
    return KOLO_OK;
}

static kolo_status make_units(kolo_reducer *reducer)
{
    size_t staging = 0;
    kolo_status status = kolo__gpu_uncut(reducer);
    if (status != KOLO_OK)
        return status;
    reducer->unit_count = 0;
    reducer->report.wire_bytes = 0;
    for (uint32_t b = 0; status == KOLO_OK && b < reducer->fusion.bucket_count; b++)
        status = add_units_of(reducer, b, &staging);
    if (status == KOLO_OK && reducer->options.allow_unused &&
        add_unit(reducer, KOLO__UNIT_USED, "kolo_reducer_wait (who used what)") == NULL)
        status = KOLO_ERR_MEMORY;
    if (status == KOLO_OK && reducer->options.sharded && reducer->options.statistics &&
        add_unit(reducer, KOLO__UNIT_NORM, "kolo_reducer_wait (norm)") == NULL)
        status = KOLO_ERR_MEMORY;
    if (status != KOLO_OK)
        return status;
    /* 8-bit units are several collectives each: a second one must not come between them. */
    reducer->depth = kolo__reducer_is_fp8(reducer) ? 1
                     : staging > 0                 ? KOLO__STAGES_MAX
                                                   : DIRECT_DEPTH;
    staging = (staging + 4095) / 4096 * 4096;
    if (staging > reducer->staging_bytes) {
        kolo_free(reducer->context, reducer->staging);
        reducer->staging_bytes = staging;
        status = allocate(reducer, KOLO__STAGES_MAX * staging, &reducer->staging);
    }
    if (status == KOLO_OK && reducer->gpu != NULL)
        status = kolo__gpu_cut(reducer);
    return status;
}

kolo_status kolo__reducer_cut(kolo_reducer *reducer, const struct kolo__tuning *tuning)
{
    kolo_comm *comm = reducer->comm;
    kolo__fusion_plan(&reducer->fusion, reducer->order, first_bucket_bytes(reducer, tuning),
                      tuning->bucket_bytes, tail_bytes(reducer), slices_of(reducer));
    place_in_buckets(reducer);
    size_t segment =
        tuning->segment_bytes > 0 ? tuning->segment_bytes : reducer->standard_segment_bytes;
    if (segment != comm->plan_context.segment_bytes) {
        comm->plan_context.segment_bytes = segment;
        kolo__plan_cache_clear(&comm->plans);
    }
    reducer->tuning = *tuning;
    reducer->report.buckets = reducer->fusion.bucket_count;
    reducer->report.bucket_bytes = tuning->bucket_bytes;
    return make_units(reducer);
}

/* ---- agreement --------------------------------------------------------------------------------
 */

/* What was not ready on rank 0 in the first step comes last. */
static void complete_order(kolo_reducer *reducer)
{
    uint32_t count = atomic_load(&reducer->recorded);
    for (uint32_t i = reducer->tensor_count; i-- > 0 && count < reducer->tensor_count;)
        if (!atomic_load(&reducer->ready[reducer->slots[i]]))
            reducer->order[count++] = i;
}

kolo_status kolo__reducer_agree(kolo_reducer *reducer, const struct kolo__call *call,
                                uint64_t deadline_ns)
{
    kolo_status status = KOLO_OK;
    if (reducer->agreement == NULL)
        status = kolo__call_start(reducer->comm, call, &reducer->agreement);
    if (status != KOLO_OK)
        return status;
    uint64_t now = kolo__now_ns(&kolo__real_clock);
    uint64_t left_ms = deadline_ns > now ? (deadline_ns - now) / 1000000 : 0;
    int timeout_ms = left_ms < INT_MAX ? (int)left_ms : INT_MAX;
    return kolo_wait(&reducer->agreement, deadline_ns == KOLO__NO_DEADLINE ? -1 : timeout_ms);
}

/* Bytes from another process are believed when they name every tensor once. */
static bool is_permutation(kolo_reducer *reducer)
{
    memset(reducer->used, 0, reducer->used_words * sizeof *reducer->used);
    for (uint32_t i = 0; i < reducer->tensor_count; i++) {
        uint32_t tensor = reducer->order[i];
        if (tensor >= reducer->tensor_count || (reducer->used[tensor / 64] >> tensor % 64 & 1) != 0)
            return false;
        reducer->used[tensor / 64] |= UINT64_C(1) << tensor % 64;
    }
    return true;
}

static kolo_status agree_on_order(kolo_reducer *reducer, uint32_t root, uint64_t deadline_ns,
                                  bool *changed)
{
    uint32_t count = reducer->tensor_count;
    const struct kolo__call call =
        kolo__call_broadcast("kolo_reducer (agreement on the plan)", reducer->order,
                             count * sizeof *reducer->order, KOLO_UINT8, root);
    kolo_status status = kolo__reducer_agree(reducer, &call, deadline_ns);
    if (status == KOLO_OK && !is_permutation(reducer))
        status = kolo__error(KOLO_ERR_NETWORK,
                             "kolo_reducer_wait: the order of gradients that "
                             "rank %u sent does not name each of %u tensors once",
                             root, count);
    *changed = false;
    for (uint32_t i = 0; i < count; i++)
        *changed |= reducer->order[i] != count - 1 - i;
    return status;
}

/* Tensors get other places; who was ready stays so. */
static kolo_status cut_first(kolo_reducer *reducer, const struct kolo__tuning *tuning)
{
    for (uint32_t i = 0; i < reducer->tensor_count; i++)
        reducer->tensors[i].unused = !atomic_load(&reducer->ready[reducer->slots[i]]);
    kolo_status status = kolo__reducer_cut(reducer, tuning);
    for (uint32_t i = 0; i < reducer->tensor_count; i++) {
        atomic_store(&reducer->ready[reducer->slots[i]],
                     reducer->tensors[i].unused ? KOLO__NOT_READY : KOLO__RETURNED);
        reducer->tensors[i].unused = false;
    }
    return status;
}

/* From now on any rank may join. */
static void become_frozen(kolo_reducer *reducer)
{
    reducer->comm->root_joined = NULL;
    reducer->frozen = true;
}

/* From the order to all that does not depend on sizes. */
static kolo_status prepare(kolo_reducer *reducer, bool order_changed)
{
    kolo_status status = KOLO_OK;
    if (order_changed) {
        kolo__fusion_plan(&reducer->fusion, reducer->order, 0, SIZE_MAX, 0, slices_of(reducer));
        if (reducer->views)
            status = move_views(reducer);
    }
    if (reducer->buckets == NULL) /* kolo_join may end a first step that was interrupted */
        reducer->buckets = calloc(reducer->tensor_count, sizeof *reducer->buckets);
    if (reducer->pieces == NULL)
        reducer->pieces = calloc(reducer->tensor_count, sizeof *reducer->pieces);
    if (status == KOLO_OK && (reducer->buckets == NULL || reducer->pieces == NULL))
        status = no_memory(reducer->tensor_count * sizeof *reducer->pieces);
    reducer->standard_segment_bytes = reducer->comm->plan_context.segment_bytes;
    return status;
}

kolo_status kolo__reducer_freeze(kolo_reducer *reducer, uint64_t deadline_ns)
{
    bool changed;
    kolo_status status = KOLO_OK;
    if (!reducer->order_agreed) {
        if (reducer->comm->rank == 0 && reducer->agreement == NULL)
            complete_order(reducer);
        status = agree_on_order(reducer, 0, deadline_ns, &changed);
        if (status == KOLO_OK)
            status = prepare(reducer, changed);
        reducer->order_agreed = status == KOLO_OK;
    }
    struct kolo__tuning tuning = standard(reducer);
    if (status == KOLO_OK)
        status = kolo__reducer_begin_tuning(reducer, deadline_ns, &tuning);
    if (status == KOLO_OK)
        status = cut_first(reducer, &tuning);
    if (status == KOLO_OK)
        become_frozen(reducer);
    reducer->sequence_before = reducer->comm->sequence;
    return status;
}

kolo_status kolo__reducer_freeze_as(kolo_reducer *reducer, uint32_t root,
                                    const struct kolo__tuning *tuning)
{
    bool changed;
    bool frozen = reducer->frozen;
    kolo_status status = agree_on_order(reducer, root, KOLO__NO_DEADLINE, &changed);
    if (frozen || status != KOLO_OK)
        return status;
    atomic_store(&reducer->ordered, reducer->tensor_count);
    atomic_store(&reducer->recorded, reducer->tensor_count);
    status = prepare(reducer, changed);
    if (status == KOLO_OK)
        status = cut_first(reducer, tuning);
    if (status == KOLO_OK)
        become_frozen(reducer);
    return status;
}
