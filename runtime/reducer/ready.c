/* SPDX-License-Identifier: Apache-2.0 */
/* A gradient gets ready, in whatever thread computed it: a flag, and a driver that sleeps is woken
 * when its bucket is complete. Called for every gradient of every step, so it costs next to
 * nothing. */
#include "runtime/reducer/gpu.h"

#include "base/clock.h"
#include "base/status.h"

#include <sched.h>

enum { LEFT_TO_CALLER_BYTES = 256 << 10 }; /* 5 to 10 us in shared memory */

/* The thread is not woken for a last bucket that takes less time than waking it: kolo_reducer_wait
 * is next. */
static bool is_left_to_caller(const kolo_reducer *reducer, const struct kolo__waker *waker,
                              uint32_t bucket)
{
    return waker != &reducer->own_waker && bucket + 1 == reducer->fusion.bucket_count &&
           reducer->fusion.buckets[bucket].bytes <= LEFT_TO_CALLER_BYTES &&
           reducer->comm->mapping != NULL;
}

/* The driver looks for one bucket's last gradient, and is told of no other. */
static void wake_if_complete(kolo_reducer *reducer, struct kolo__waker *waker)
{
    if (!reducer->frozen) {
        if (atomic_load(&reducer->recorded) == reducer->tensor_count)
            kolo__waker_wake(waker);
        return;
    }
    const struct kolo__unit *unit =
        &reducer->units[atomic_load_explicit(&reducer->awaited, memory_order_relaxed)];
    const struct kolo__fusion_bucket *bucket = &reducer->fusion.buckets[unit->bucket];
    for (uint32_t i = 0; i < bucket->tensor_count; i++)
        if (!atomic_load_explicit(&reducer->ready[bucket->first + i], memory_order_relaxed))
            return;
    if (!is_left_to_caller(reducer, waker, unit->bucket))
        kolo__waker_wake(waker);
}

/* In the first step: who comes when. */
static void record(kolo_reducer *reducer, uint32_t index)
{
    uint32_t place = atomic_fetch_add(&reducer->ordered, 1);
    reducer->order[place] = index;
    atomic_fetch_add(&reducer->recorded, 1);
}

static void trace_ready(kolo_reducer *reducer, size_t index)
{
    struct kolo__trace *trace = reducer->context->trace;
    const struct kolo__reducer_tensor *tensor = &reducer->tensors[index];
    uint64_t now = kolo__trace_now(trace);
    kolo__trace_add(trace, KOLO__TRACE_READY, tensor->trace_label, (uint32_t)index,
                    tensor->count * kolo_dtype_bytes(tensor->dtype), now, now);
    if (reducer->frozen) /* the bucket's last one stands in the end */
        atomic_store_explicit(
            &reducer->buckets[reducer->fusion.tensors[index].bucket].complete_ticks, now,
            memory_order_relaxed);
}

kolo_status kolo_reducer_ready(kolo_reducer *reducer, size_t index)
{
    if (reducer == NULL)
        return kolo__error(KOLO_ERR_INVALID, "kolo_reducer_ready: the reducer is NULL");
    if (index >= reducer->tensor_count)
        return kolo__error(KOLO_ERR_INVALID,
                           "kolo_reducer_ready: tensor %zu: the reducer has %u, from 0", index,
                           reducer->tensor_count);
    if (reducer->accumulates)
        return KOLO_OK;
    atomic_uchar *ready = &reducer->ready[reducer->slots[index]];
    if (atomic_load_explicit(ready, memory_order_relaxed) ||
        (!reducer->frozen && atomic_load(&reducer->closed)))
        return kolo__error(KOLO_ERR_INVALID,
                           "kolo_reducer_ready: tensor %zu '%s' was ready in this step before, or "
                           "kolo_reducer_wait has taken it for unused",
                           index, kolo__reducer_label(reducer, index));
    if (atomic_load_explicit(&reducer->first_ready_ns, memory_order_relaxed) == 0)
        atomic_store_explicit(&reducer->first_ready_ns, kolo__now_ns(&kolo__real_clock),
                              memory_order_relaxed);
    kolo_status status = reducer->gpu != NULL ? kolo__gpu_ready(reducer, index) : KOLO_OK;
    if (status != KOLO_OK)
        return status;
    if (reducer->context->trace != NULL)
        trace_ready(reducer, index);
    atomic_store_explicit(ready, KOLO__READY, memory_order_release);
    if (!reducer->frozen) /* behind the flag: once all are recorded, all flags are there */
        record(reducer, (uint32_t)index);
    kolo__waker_light_barrier();
    struct kolo__waker *waker = reducer->waker;
    if (atomic_load_explicit(&waker->idle, memory_order_relaxed))
        wake_if_complete(reducer, waker);
    atomic_store_explicit(ready, KOLO__RETURNED, memory_order_release);
    return KOLO_OK;
}

void kolo__reducer_await_returns(kolo_reducer *reducer)
{
    for (uint32_t i = 0; i < reducer->tensor_count; i++)
        while (atomic_load_explicit(&reducer->ready[i], memory_order_acquire) == KOLO__READY)
            sched_yield();
}

uint32_t kolo__reducer_first_missing(const kolo_reducer *reducer, uint32_t *count)
{
    uint32_t first = reducer->tensor_count;
    *count = 0;
    for (uint32_t i = 0; i < reducer->tensor_count; i++)
        if (!atomic_load_explicit(&reducer->ready[reducer->slots[i]], memory_order_relaxed)) {
            first = *count == 0 ? i : first;
            ++*count;
        }
    return first;
}

kolo_status kolo_reducer_accumulate(kolo_reducer *reducer, int on)
{
    if (reducer == NULL)
        return kolo__error(KOLO_ERR_INVALID, "kolo_reducer_accumulate: the reducer is NULL");
    uint32_t missing;
    kolo__reducer_first_missing(reducer, &missing);
    if (missing != reducer->tensor_count)
        return kolo__error(KOLO_ERR_INVALID,
                           "kolo_reducer_accumulate: %u gradients are ready: end the step with "
                           "kolo_reducer_wait first",
                           reducer->tensor_count - missing);
    reducer->accumulates = on != 0;
    return KOLO_OK;
}
