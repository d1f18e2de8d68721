/* SPDX-License-Identifier: Apache-2.0 */
/* One collective of a step: its elements are packed if need be, travel, and are unpacked. */
#include "runtime/reducer/gpu.h"

#include "base/assert.h"
#include "base/status.h"
#include "runtime/call.h"

#include <string.h>

/* ---- where elements are -----------------------------------------------------------------------
 */

static unsigned char *bucket_base(const kolo_reducer *reducer, const struct kolo__unit *unit)
{
    return reducer->arena + reducer->fusion.buckets[unit->bucket].offset;
}

static kolo_dtype dtype_of(const kolo_reducer *reducer, const struct kolo__unit *unit)
{
    return reducer->fusion.buckets[unit->bucket].dtype;
}

/* The last member that begins at or before the element. */
static uint32_t member_at(const kolo_reducer *reducer, const struct kolo__fusion_bucket *bucket,
                          size_t element)
{
    const uint32_t *members = reducer->fusion.members + bucket->first;
    uint32_t low = 0, high = bucket->tensor_count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (reducer->tensors[members[middle]].position <= element)
            low = middle;
        else
            high = middle;
    }
    return low;
}

void kolo__bucket_visit(kolo_reducer *reducer, uint32_t index, size_t first, size_t count,
                        void (*visit)(void *self, const struct kolo__run_of_tensor *run),
                        void *self)
{
    const struct kolo__fusion_bucket *bucket = &reducer->fusion.buckets[index];
    const uint32_t *members = reducer->fusion.members + bucket->first;
    size_t at = first, end = first + count;
    for (uint32_t i = member_at(reducer, bucket, first); at < end; i++) {
        struct kolo__run_of_tensor run = {.at = at, .count = end - at};
        if (i < bucket->tensor_count) {
            struct kolo__reducer_tensor *tensor = &reducer->tensors[members[i]];
            size_t begin = tensor->position, stop = begin + tensor->count;
            if (at < begin) {
                run.count = begin < end ? begin - at : end - at;
                visit(self, &run);
                at += run.count;
            }
            if (at >= stop || at >= end)
                continue;
            run = (struct kolo__run_of_tensor){.tensor = tensor,
                                               .first = at - begin,
                                               .at = at,
                                               .count = stop < end ? stop - at : end - at};
        }
        visit(self, &run);
        at += run.count;
    }
}

/* Where results of the tensor go: what this rank did not use is to be left as it is until all know
 * whether somebody did. */
static unsigned char *target_of(const kolo_reducer *reducer,
                                const struct kolo__reducer_tensor *tensor)
{
    return tensor->unused && !reducer->views ? tensor->shadow : tensor->data;
}

/* ---- packing ----------------------------------------------------------------------------------
 */

struct packing_walk {
    kolo_reducer *reducer;
    struct kolo__packing packing;
    size_t first; /* of the bucket: what lies at `packed` */
    size_t element_bytes, packed_bytes;
    unsigned char *packed;
};

static struct packing_walk begin_walk(kolo_reducer *reducer, const struct kolo__unit *unit,
                                      double scale, size_t first, unsigned char *packed)
{
    kolo_dtype dtype = dtype_of(reducer, unit);
    bool narrows = kolo__reducer_narrows(reducer, dtype);
    size_t bytes = kolo_dtype_bytes(dtype);
    size_t narrow_bytes = kolo__reducer_is_fp8(reducer) ? 1 : 2;
    return (struct packing_walk){
        .reducer = reducer,
        .packing = {.dtype = dtype,
                    .narrows = narrows,
                    .wire =
                        narrows ? kolo__reducer_narrow(reducer->options.wire) : KOLO__NARROW_FP16,
                    .scale = scale},
        .first = first,
        .element_bytes = bytes,
        .packed_bytes = narrows ? narrow_bytes : bytes,
        .packed = packed,
    };
}

static void pack_run(void *self, const struct kolo__run_of_tensor *run)
{
    const struct packing_walk *walk = self;
    const struct kolo__reducer_tensor *tensor = run->tensor;
    unsigned char *to = walk->packed + (run->at - walk->first) * walk->packed_bytes;
    if (tensor == NULL || tensor->unused) {
        memset(to, 0, run->count * walk->packed_bytes);
        return;
    }
    kolo__pack(&walk->packing, to, tensor->data + run->first * walk->element_bytes,
               tensor->error != NULL ? tensor->error + run->first : NULL, run->count);
}

static void unpack_run(void *self, const struct kolo__run_of_tensor *run)
{
    const struct packing_walk *walk = self;
    const struct kolo__reducer_tensor *tensor = run->tensor;
    if (tensor == NULL)
        return;
    kolo__unpack(
        &walk->packing, target_of(walk->reducer, tensor) + run->first * walk->element_bytes,
        walk->packed + (run->at - walk->first) * walk->packed_bytes,
        walk->reducer->options.statistics ? &walk->reducer->norm : NULL, run->first, run->count);
}

void kolo__unit_pack(kolo_reducer *reducer, const struct kolo__unit *unit, double scale,
                     unsigned char *to)
{
    struct kolo__trace *trace = reducer->context->trace;
    uint64_t began_ticks = kolo__trace_now(trace);
    struct packing_walk walk = begin_walk(reducer, unit, scale, unit->first, to);
    kolo__bucket_visit(reducer, unit->bucket, unit->first, unit->count, pack_run, &walk);
    kolo__trace_add(trace, KOLO__TRACE_PACK, NULL, unit->bucket,
                    unit->count * kolo_dtype_bytes(dtype_of(reducer, unit)), began_ticks,
                    kolo__trace_now(trace));
}

void kolo__unit_unpack(kolo_reducer *reducer, const struct kolo__unit *unit, double scale,
                       size_t first, size_t count, const unsigned char *from)
{
    struct kolo__trace *trace = reducer->context->trace;
    uint64_t began_ticks = kolo__trace_now(trace);
    struct packing_walk walk =
        begin_walk(reducer, unit, scale, first, (unsigned char *)(uintptr_t)from);
    kolo__bucket_visit(reducer, unit->bucket, first, count, unpack_run, &walk);
    kolo__trace_add(trace, KOLO__TRACE_UNPACK, NULL, unit->bucket,
                    count * kolo_dtype_bytes(dtype_of(reducer, unit)), began_ticks,
                    kolo__trace_now(trace));
}

/* ---- starting ---------------------------------------------------------------------------------
 */

static bool is_complete(kolo_reducer *reducer, uint32_t index)
{
    const struct kolo__fusion_bucket *bucket = &reducer->fusion.buckets[index];
    uint32_t *known = &reducer->buckets[index].known;
    while (*known < bucket->tensor_count &&
           atomic_load_explicit(&reducer->ready[bucket->first + *known], memory_order_acquire))
        ++*known;
    return *known == bucket->tensor_count;
}

bool kolo__unit_may_start(kolo_reducer *reducer, const struct kolo__unit *unit)
{
    switch (unit->kind) {
    case KOLO__UNIT_GRADIENTS:
        return is_complete(reducer, unit->bucket);
    case KOLO__UNIT_USED:
        return atomic_load_explicit(&reducer->entered, memory_order_acquire);
    default:
        return &reducer->units[reducer->finished] == unit;
    }
}

/* Sums or averages, scaled by the collective itself where nobody packs. */
static kolo_op op_of(const kolo_reducer *reducer, bool scaled, kolo_call_options *options)
{
    double ranks = reducer->options.sum ? 1 : reducer->comm->size;
    *options =
        (kolo_call_options){.size = sizeof *options, .scale = reducer->options.scale / ranks};
    if (scaled && reducer->options.scale != 1)
        return KOLO_PREMUL_SUM;
    return reducer->options.sum ? KOLO_SUM : KOLO_AVERAGE;
}

/* All ranks' elements at `base` are combined in place: all of them, or, sharded, this rank's slice.
 */
static kolo_status start_reduction(kolo_reducer *reducer, struct kolo__unit *unit,
                                   unsigned char *base, kolo_dtype dtype, bool scaled)
{
    kolo_comm *comm = reducer->comm;
    kolo_call_options options;
    struct kolo__call call = {.name = unit->name,
                              .collective = KOLO__ALLREDUCE,
                              .send = base,
                              .recv = base,
                              .count = unit->count,
                              .send_slices = 1,
                              .recv_slices = 1,
                              .may_be_in_place = true,
                              .dtype = dtype,
                              .op = op_of(reducer, scaled, &options),
                              .options = &options};
    if (reducer->options.sharded) {
        call.collective = KOLO__REDUCE_SCATTER;
        call.count = unit->count / comm->size;
        call.send_slices = comm->size;
        call.in_place_slice = comm->rank;
        call.recv = base + comm->rank * call.count * kolo_dtype_bytes(dtype);
    }
    return kolo__call_start(comm, &call, &unit->request);
}

static kolo_status start_scattered(kolo_reducer *reducer, struct kolo__unit *unit)
{
    kolo_call_options options;
    kolo_op op = op_of(reducer, true, &options);
    struct kolo__piece *pieces = reducer->pieces + unit->first_piece;
    const struct kolo__fusion_bucket *bucket = &reducer->fusion.buckets[unit->bucket];
    for (uint32_t i = 0, k = 0; reducer->options.allow_unused && i < bucket->tensor_count; i++) {
        const struct kolo__reducer_tensor *tensor =
            &reducer->tensors[reducer->fusion.members[bucket->first + i]];
        if (tensor->count > 0)
            pieces[k++].data = target_of(reducer, tensor);
    }
    return kolo__allreduce_pieces_start(reducer->comm, unit->name, pieces, unit->piece_count,
                                        unit->count, dtype_of(reducer, unit), op, options.scale,
                                        &unit->request);
}

static kolo_status start_used(kolo_reducer *reducer, struct kolo__unit *unit)
{
    memset(reducer->used, 0, reducer->used_words * sizeof *reducer->used);
    for (uint32_t i = 0; i < reducer->tensor_count; i++)
        if (!reducer->tensors[i].unused)
            reducer->used[i / 64] |= UINT64_C(1) << i % 64;
    struct kolo__call call =
        kolo__call_allreduce(unit->name, reducer->used, reducer->used_words, KOLO_UINT64, KOLO_OR);
    return kolo__call_start(reducer->comm, &call, &unit->request);
}

static kolo_status start_norm(kolo_reducer *reducer, struct kolo__unit *unit)
{
    if (reducer->gpu != NULL)
        return kolo__gpu_start_norm(reducer, unit);
    reducer->squares[0] = kolo__norm_total(&reducer->norm);
    reducer->squares[1] = reducer->norm.not_finite;
    struct kolo__call call =
        kolo__call_allreduce(unit->name, reducer->squares, 2, KOLO_FP64, KOLO_SUM);
    return kolo__call_start(reducer->comm, &call, &unit->request);
}

/* A world of one: nothing travels. What befell it is heard all the same. */
static kolo_status scale_alone(kolo_reducer *reducer, const struct kolo__unit *unit)
{
    kolo_status status = kolo__comm_check(reducer->comm, unit->name);
    if (status != KOLO_OK)
        return status;
    const struct kolo__fusion_bucket *bucket = &reducer->fusion.buckets[unit->bucket];
    for (uint32_t i = 0; reducer->options.scale != 1 && i < bucket->tensor_count; i++) {
        const struct kolo__reducer_tensor *tensor =
            &reducer->tensors[reducer->fusion.members[bucket->first + i]];
        if (!tensor->unused)
            kolo__scale(tensor->dtype, tensor->data, tensor->count, reducer->options.scale);
    }
    return KOLO_OK;
}

static kolo_status start_gradients(kolo_reducer *reducer, struct kolo__unit *unit)
{
    if (reducer->gpu != NULL)
        return kolo__gpu_start(reducer, unit);
    if (unit->fusing != KOLO__FUSING_STAGED && reducer->comm->size == 1)
        return scale_alone(reducer, unit);
    if (unit->fusing == KOLO__FUSING_DIRECT)
        return start_reduction(reducer, unit,
                               bucket_base(reducer, unit) +
                                   unit->first * kolo_dtype_bytes(dtype_of(reducer, unit)),
                               dtype_of(reducer, unit), true);
    if (unit->fusing == KOLO__FUSING_SCATTERED)
        return start_scattered(reducer, unit);

    unit->staging = reducer->staging +
                    (size_t)(unit - reducer->units) % KOLO__STAGES_MAX * reducer->staging_bytes;
    if (kolo__reducer_narrows(reducer, dtype_of(reducer, unit)) && kolo__reducer_is_fp8(reducer))
        return kolo__fp8_start(reducer, unit);
    kolo__unit_pack(reducer, unit, reducer->options.scale, unit->staging);
    return start_reduction(reducer, unit, unit->staging,
                           kolo__reducer_wire_dtype(reducer, unit->bucket), false);
}

static kolo_status start(kolo_reducer *reducer, struct kolo__unit *unit)
{
    struct kolo__trace *trace = reducer->context->trace;
    switch (unit->kind) {
    case KOLO__UNIT_GRADIENTS:
        /* Not in the first step: nobody knew its buckets when gradients got ready. */
        if (trace != NULL && reducer->buckets[unit->bucket].complete_ticks != 0)
            kolo__trace_add(trace, KOLO__TRACE_QUEUE, NULL, unit->bucket,
                            unit->count * kolo_dtype_bytes(dtype_of(reducer, unit)),
                            reducer->buckets[unit->bucket].complete_ticks, kolo__trace_now(trace));
        return start_gradients(reducer, unit);
    case KOLO__UNIT_USED:
        return start_used(reducer, unit);
    default:
        return start_norm(reducer, unit);
    }
}

kolo_status kolo__unit_start(kolo_reducer *reducer, struct kolo__unit *unit)
{
    unit->stage = 0;
    unit->request = NULL;
    reducer->step += unit == reducer->units;
    kolo_status status = start(reducer, unit);
    if (unit->request != NULL)
        kolo__flight_name(unit->request->flight, &unit->request->signature, reducer->step,
                          unit->kind == KOLO__UNIT_GRADIENTS ? unit->bucket + 1 : 0);
    return status;
}

/* ---- finishing --------------------------------------------------------------------------------
 */

static void measure_run(void *self, const struct kolo__run_of_tensor *run)
{
    kolo_reducer *reducer = self;
    if (run->tensor != NULL)
        kolo__norm_add(&reducer->norm, run->tensor->dtype,
                       target_of(reducer, run->tensor) +
                           run->first * kolo_dtype_bytes(run->tensor->dtype),
                       run->first, run->count);
}

static void finish_gradients(kolo_reducer *reducer, const struct kolo__unit *unit)
{
    size_t first = unit->first, count = unit->count;
    if (reducer->options.sharded) {
        count /= reducer->comm->size;
        first += reducer->comm->rank * count;
    }
    if (unit->fusing != KOLO__FUSING_STAGED) {
        if (reducer->options.statistics)
            kolo__bucket_visit(reducer, unit->bucket, first, count, measure_run, reducer);
        return;
    }
    size_t bytes = kolo_dtype_bytes(kolo__reducer_wire_dtype(reducer, unit->bucket));
    kolo__unit_unpack(reducer, unit, 1, first, count,
                      unit->staging + (first - unit->first) * bytes);
}

kolo_status kolo__unit_advance(kolo_reducer *reducer, struct kolo__unit *unit)
{
    if (unit->request != NULL) {
        if (!unit->request->done)
            return KOLO_AGAIN;
        kolo_request *request = unit->request;
        unit->request = NULL;
        kolo_status status = kolo__request_finish(request);
        if (status != KOLO_OK)
            return status;
        if (unit->kind == KOLO__UNIT_GRADIENTS && unit->fusing == KOLO__FUSING_STAGED &&
            kolo__reducer_is_fp8(reducer) &&
            kolo__reducer_narrows(reducer, dtype_of(reducer, unit)))
            return reducer->gpu != NULL ? kolo__gpu_fp8_next(reducer, unit)
                                        : kolo__fp8_next(reducer, unit);
    }
    if (unit->kind == KOLO__UNIT_GRADIENTS && reducer->gpu != NULL)
        return kolo__gpu_finish(reducer, unit);
    if (unit->kind == KOLO__UNIT_GRADIENTS)
        finish_gradients(reducer, unit);
    return KOLO_OK;
}
