/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a step: gradients get ready, units move, the caller waits, the end is drawn. */
#include "runtime/reducer/gpu.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "runtime/metrics.h"

#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t MILLISECOND = 1000000, SECOND = 1000000000;

/* A gradient that is missing for so long is named in the log, once a wait. */
static const uint64_t MISSING_NS = 5000000000;

enum {
    TURNS_PER_CHECK = 16,
    LEFT_TO_CALLER_BYTES = 256 << 10, /* 5 to 10 us in shared memory */
};

static uint64_t now_ns(void)
{
    return kolo__now_ns(&kolo__real_clock);
}

/* ---- ready ------------------------------------------------------------------------------------
 */

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
        atomic_store_explicit(&reducer->first_ready_ns, now_ns(), memory_order_relaxed);
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

/* All that is left of kolo_reducer_ready in other threads, which may have been put to sleep there.
 */
static void wait_for_returns(kolo_reducer *reducer)
{
    for (uint32_t i = 0; i < reducer->tensor_count; i++)
        while (atomic_load_explicit(&reducer->ready[i], memory_order_acquire) == KOLO__READY)
            sched_yield();
}

void kolo__reducer_rewind(kolo_reducer *reducer)
{
    memset((void *)reducer->ready, 0, reducer->tensor_count);
    for (uint32_t i = 0; reducer->options.allow_unused && i < reducer->tensor_count; i++)
        reducer->tensors[i].unused = false;
    for (uint32_t b = 0; b < reducer->fusion.bucket_count; b++)
        reducer->buckets[b].known = 0;
    atomic_store_explicit(&reducer->first_ready_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&reducer->entered, false, memory_order_relaxed);
    atomic_store_explicit(&reducer->awaited, 0, memory_order_relaxed);
    reducer->entered_ns = 0;
    reducer->started = reducer->finished = 0;
    memset(&reducer->norm, 0, sizeof reducer->norm);
    reducer->sequence_before = reducer->comm->sequence;
    kolo__gpu_begin_step(reducer);
}

/* ---- driving ----------------------------------------------------------------------------------
 */

static void fail(kolo_reducer *reducer, kolo_status status)
{
    reducer->status = status;
    snprintf(reducer->error, sizeof reducer->error, "%s", kolo_error_text());
}

bool kolo__reducer_drive(kolo_reducer *reducer, bool *moved)
{
    kolo_status status = KOLO_OK;
    while (status == KOLO_OK && reducer->started < reducer->unit_count &&
           reducer->started - reducer->finished < reducer->depth &&
           kolo__unit_may_start(reducer, &reducer->units[reducer->started])) {
        status = kolo__unit_start(reducer, &reducer->units[reducer->started]);
        reducer->started += status == KOLO_OK;
        *moved = true;
    }
    if (reducer->started < reducer->unit_count)
        atomic_store_explicit(&reducer->awaited, reducer->started, memory_order_relaxed);
    if (status == KOLO_OK && reducer->started > reducer->finished)
        *moved |= kolo__comm_progress(reducer->comm);
    while (status == KOLO_OK && reducer->finished < reducer->started) {
        status = kolo__unit_advance(reducer, &reducer->units[reducer->finished]);
        if (status == KOLO_AGAIN)
            break;
        reducer->finished += status == KOLO_OK;
        *moved = true;
    }
    if (status != KOLO_OK && status != KOLO_AGAIN)
        fail(reducer, status);
    return reducer->status == KOLO_OK && reducer->started > reducer->finished;
}

/* ---- waiting ----------------------------------------------------------------------------------
 */

/* What a wait has to keep in mind. */
struct wait {
    int timeout_ms;
    uint64_t begin, deadline; /* ns */
    bool warned;
};

static struct wait begin_wait(const kolo_reducer *reducer, int timeout_ms)
{
    uint64_t begin = now_ns();
    uint64_t most = timeout_ms >= 0 ? (uint64_t)timeout_ms * MILLISECOND
                                    : (uint64_t)reducer->context->config.timeout * SECOND;
    return (struct wait){.timeout_ms = timeout_ms, .begin = begin, .deadline = begin + most};
}

static uint64_t deadline_of(const struct wait *wait)
{
    return wait->timeout_ms < 0 ? KOLO__NO_DEADLINE : wait->deadline;
}

static uint32_t first_missing(const kolo_reducer *reducer, uint32_t *count)
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

/* True while this rank itself is what the step waits for. */
static bool lacks_gradients(const kolo_reducer *reducer, char *text, size_t bytes)
{
    uint32_t count, first = first_missing(reducer, &count);
    if (count > 0)
        snprintf(text, bytes,
                 "%u of %u gradients never got ready on rank %u, first tensor %u '%s': call "
                 "kolo_reducer_ready for every one, or set options.allow_unused",
                 count, reducer->tensor_count, reducer->comm->rank, first,
                 kolo__reducer_label(reducer, first));
    return count > 0;
}

/* KOLO_OK: go on waiting. */
static kolo_status check_time(kolo_reducer *reducer, struct wait *wait)
{
    char text[300];
    uint64_t now = now_ns();
    if (now >= wait->deadline && wait->timeout_ms >= 0)
        return KOLO_AGAIN;
    if (now >= wait->deadline && lacks_gradients(reducer, text, sizeof text)) {
        struct kolo__fault fault = {.status = KOLO_ERR_TIMEOUT, .peer = -1};
        snprintf(fault.text, sizeof fault.text, "kolo_reducer_wait: after %ld s %s",
                 reducer->context->config.timeout, text);
        kolo__driver_take_back(reducer, UINT64_MAX);
        kolo__comm_fail(reducer->comm, &fault, true);
        return kolo__error(KOLO_ERR_TIMEOUT, "%s", fault.text);
    }
    if (!wait->warned && now - wait->begin > MISSING_NS) {
        wait->warned = true;
        if (lacks_gradients(reducer, text, sizeof text))
            kolo__log(KOLO__LOG_WARN, "kolo_reducer_wait has waited for 5 s: %s", text);
    }
    return KOLO_OK;
}

static uint64_t nap_until(const struct wait *wait)
{
    uint64_t now = now_ns(), left = wait->deadline > now ? wait->deadline - now : 0;
    return left < SECOND ? left : SECOND;
}

/* KOLO_OK: the step is the caller's. */
static kolo_status take_back(kolo_reducer *reducer, struct wait *wait)
{
    kolo_status status = KOLO_OK;
    while (status == KOLO_OK && !kolo__driver_take_back(reducer, nap_until(wait)))
        status = check_time(reducer, wait);
    return status;
}

/* Nothing is under way, and the next bucket is not complete: other threads will say when it is. */
static void wait_for_gradients(kolo_reducer *reducer, const struct wait *wait)
{
    struct kolo__waker *waker = &reducer->own_waker;
    kolo__waker_idle(waker);
    bool may_start = reducer->frozen
                         ? kolo__unit_may_start(reducer, &reducer->units[reducer->started])
                         : atomic_load(&reducer->recorded) == reducer->tensor_count;
    if (!may_start)
        kolo__waker_sleep(waker, nap_until(wait));
    atomic_store(&waker->idle, false);
}

static kolo_status drive_here(kolo_reducer *reducer, struct wait *wait)
{
    uint64_t moved_at = 0;
    for (unsigned turn = 1;; turn++) {
        bool moved = false, busy = kolo__reducer_drive(reducer, &moved);
        if (kolo__reducer_step_done(reducer))
            return KOLO_OK;
        if (moved) {
            moved_at = 0;
            continue;
        }
        uint64_t now = now_ns();
        if (moved_at == 0)
            moved_at = now;
        kolo_status status =
            turn % TURNS_PER_CHECK == 0 || !busy ? check_time(reducer, wait) : KOLO_OK;
        if (status != KOLO_OK)
            return status;
        if (busy)
            kolo__comm_rest(reducer->comm, now - moved_at, nap_until(wait));
        else
            wait_for_gradients(reducer, wait);
    }
}

/* ---- the end of a step ------------------------------------------------------------------------
 */

/* Memory that stands in for a gradient which this rank did not compute; kept for the next time. */
static kolo_status make_shadow(kolo_reducer *reducer, struct kolo__reducer_tensor *tensor)
{
    size_t bytes = tensor->count * kolo_dtype_bytes(tensor->dtype);
    if (reducer->views) {
        memset(tensor->data, 0, bytes);
        return KOLO_OK;
    }
    if (tensor->shadow == NULL)
        tensor->shadow = malloc(bytes > 0 ? bytes : 1);
    if (tensor->shadow == NULL)
        return kolo__error(KOLO_ERR_MEMORY,
                           "kolo_reducer_wait: no %zu bytes for tensor '%s', "
                           "which this rank did not use",
                           bytes, tensor->label != NULL ? tensor->label : "(no name)");
    memset(tensor->shadow, 0, bytes);
    return KOLO_OK;
}

/* What is not ready now contributes nothing. */
static kolo_status take_for_unused(kolo_reducer *reducer)
{
    for (uint32_t i = 0; i < reducer->tensor_count; i++) {
        struct kolo__reducer_tensor *tensor = &reducer->tensors[i];
        atomic_uchar *ready = &reducer->ready[reducer->slots[i]];
        if (atomic_load_explicit(ready, memory_order_relaxed))
            continue;
        tensor->unused = true;
        kolo_status status = make_shadow(reducer, tensor);
        if (status != KOLO_OK)
            return status;
        atomic_store_explicit(ready, KOLO__RETURNED, memory_order_release);
    }
    return KOLO_OK;
}

int kolo_reducer_used(const kolo_reducer *reducer, size_t tensor)
{
    if (reducer == NULL || tensor >= reducer->tensor_count)
        return 0;
    return !reducer->options.allow_unused || (reducer->used[tensor / 64] >> tensor % 64 & 1) != 0;
}

/* What others used this rank has a result for as well. */
static void keep_used(kolo_reducer *reducer)
{
    for (uint32_t i = 0; i < reducer->tensor_count; i++) {
        struct kolo__reducer_tensor *tensor = &reducer->tensors[i];
        if (tensor->unused && !reducer->views && kolo_reducer_used(reducer, i))
            memcpy(tensor->data, tensor->shadow, tensor->count * kolo_dtype_bytes(tensor->dtype));
    }
}

static void clip(kolo_reducer *reducer, double factor)
{
    for (size_t k = 0; reducer->options.sharded; k++) {
        kolo_reducer_shard piece;
        if (kolo_reducer_piece(reducer, k, &piece) != KOLO_OK)
            return;
        kolo__scale(piece.dtype, piece.gradients, piece.count, factor);
    }
    for (uint32_t i = 0; i < reducer->tensor_count; i++) {
        struct kolo__reducer_tensor *tensor = &reducer->tensors[i];
        if (kolo_reducer_used(reducer, i))
            kolo__scale(tensor->dtype, tensor->data, tensor->count, factor);
    }
}

static void draw_statistics(kolo_reducer *reducer)
{
    kolo_reducer_report *report = &reducer->report;
    double squares = kolo__norm_total(&reducer->norm);
    bool finite = !reducer->norm.not_finite;
    if (reducer->options.sharded) {
        squares = reducer->squares[0];
        finite = reducer->squares[1] == 0;
    }
    report->norm = sqrt(squares);
    report->finite = finite;
    report->clip_factor = 1;
    double limit = reducer->options.clip_norm;
    if (limit > 0 && finite && isfinite(report->norm) && report->norm > limit) {
        report->clip_factor = limit / report->norm;
        clip(reducer, report->clip_factor);
    }
}

static void end_step(kolo_reducer *reducer)
{
    kolo_reducer_report *report = &reducer->report;
    wait_for_returns(reducer);
    if (reducer->options.allow_unused)
        keep_used(reducer);
    if (reducer->options.statistics && reducer->gpu == NULL)
        draw_statistics(reducer);
    report->step++;
    report->collectives = reducer->comm->sequence - reducer->sequence_before;
    kolo__driver_choose(reducer);
    kolo__reducer_rewind(reducer);
    if (reducer->tunes && reducer->step_began_ns != 0)
        kolo__tuner_record(&reducer->tuner, (double)(now_ns() - reducer->step_began_ns) * 1e-9);
    reducer->ended = true;
}

/* What is agreed on between two steps. KOLO_AGAIN: not yet. */
static kolo_status begin_next_step(kolo_reducer *reducer, const struct wait *wait)
{
    kolo_status status = KOLO_OK;
    if (reducer->agreement != NULL || (reducer->tunes && reducer->step_began_ns != 0))
        status = kolo__reducer_tune(reducer, deadline_of(wait));
    if (status == KOLO_AGAIN)
        return status;
    struct kolo__trace *trace = reducer->context->trace;
    uint64_t ticks = kolo__trace_now(trace);
    if (reducer->step_began_ns != 0) /* the first step has no beginning */
        kolo__trace_add(trace, KOLO__TRACE_TRAINING_STEP, NULL, (uint32_t)reducer->report.step, 0,
                        reducer->step_began_ticks, ticks);
    reducer->step_began_ns = now_ns();
    reducer->step_began_ticks = ticks;
    reducer->ended = false;
    if (reducer->threaded)
        kolo__driver_offer(reducer);
    return status;
}

/* The first step is not over before its order is known to all. */
static kolo_status freeze(kolo_reducer *reducer, struct wait *wait)
{
    while (!reducer->options.allow_unused &&
           atomic_load(&reducer->recorded) != reducer->tensor_count) {
        kolo_status status = check_time(reducer, wait);
        if (status != KOLO_OK)
            return status;
        wait_for_gradients(reducer, wait);
    }
    if (reducer->options.allow_unused) /* from now on the order is everybody's */
        atomic_store(&reducer->closed, true);
    wait_for_returns(reducer);
    return kolo__reducer_freeze(reducer, deadline_of(wait));
}

/* The caller has come back too early, and goes on computing. */
static void offer_again(kolo_reducer *reducer)
{
    reducer->waker = kolo__thread_waker(reducer);
    kolo__driver_offer(reducer);
    kolo__waker_wake(reducer->waker);
}

static kolo_status finish_step(kolo_reducer *reducer, struct wait *wait)
{
    if (reducer->entered_ns == 0) /* before what the first step has to agree on */
        reducer->entered_ns = wait->begin;
    kolo_status status = reducer->frozen ? take_back(reducer, wait) : freeze(reducer, wait);
    if (status != KOLO_OK)
        return status;
    if (!atomic_load_explicit(&reducer->entered, memory_order_relaxed)) {
        if (reducer->options.allow_unused)
            status = take_for_unused(reducer);
        atomic_store(&reducer->entered, true);
    }
    if (status == KOLO_OK)
        status = drive_here(reducer, wait);
    if (status == KOLO_OK && reducer->status == KOLO_OK && reducer->gpu != NULL)
        status = kolo__gpu_end_step(reducer);
    if (status == KOLO_OK && reducer->status == KOLO_OK)
        end_step(reducer);
    else if (status == KOLO_AGAIN && reducer->threaded)
        offer_again(reducer);
    return status;
}

static kolo_status wait_for_step(kolo_reducer *reducer, int timeout_ms)
{
    struct wait wait = begin_wait(reducer, timeout_ms);
    kolo_status status = reducer->ended ? KOLO_OK : finish_step(reducer, &wait);
    return reducer->ended && status == KOLO_OK ? begin_next_step(reducer, &wait) : status;
}

kolo_status kolo_reducer_wait(kolo_reducer *reducer, int timeout_ms)
{
    if (reducer == NULL)
        return kolo__error(KOLO_ERR_INVALID, "kolo_reducer_wait: the reducer is NULL");
    if (reducer->accumulates && reducer->status == KOLO_OK && !reducer->ended)
        return KOLO_OK;
    struct kolo__trace *trace = reducer->context->trace;
    struct kolo__metrics *metrics = reducer->context->metrics;
    uint64_t began = kolo__trace_now(trace), began_ns = metrics != NULL ? now_ns() : 0;
    kolo_status status = KOLO_OK;
    /* While the thread drives, the status is the thread's. */
    if (atomic_load(&reducer->driver) != KOLO__DRIVER_CALLER || reducer->status == KOLO_OK)
        status = wait_for_step(reducer, timeout_ms);
    if (metrics != NULL)
        kolo__counter_add_shared(&metrics->reducer_wait_ns, now_ns() - began_ns);
    if (status == KOLO_AGAIN)
        return status;
    if (metrics != NULL && status == KOLO_OK && reducer->status == KOLO_OK)
        kolo__counter_add_shared(&metrics->reducer_steps, 1);
    kolo__trace_add(trace, KOLO__TRACE_WAIT, "kolo_reducer_wait", KOLO__TRACE_NO_ID, 0, began,
                    kolo__trace_now(trace));
    if (reducer->status != KOLO_OK)
        return kolo__error(reducer->status, "%s", reducer->error);
    /* What went wrong between ranks stays wrong; what was only this rank's may be tried again. */
    if (status != KOLO_OK && status != KOLO_AGAIN)
        fail(reducer, status);
    return status;
}

kolo_status kolo_reducer_accumulate(kolo_reducer *reducer, int on)
{
    if (reducer == NULL)
        return kolo__error(KOLO_ERR_INVALID, "kolo_reducer_accumulate: the reducer is NULL");
    uint32_t missing;
    first_missing(reducer, &missing);
    if (missing != reducer->tensor_count)
        return kolo__error(KOLO_ERR_INVALID,
                           "kolo_reducer_accumulate: %u gradients are ready: end the step with "
                           "kolo_reducer_wait first",
                           reducer->tensor_count - missing);
    reducer->accumulates = on != 0;
    return KOLO_OK;
}
