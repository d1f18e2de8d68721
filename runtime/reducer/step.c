/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a step: units move, the caller waits, what comes of it is drawn, the next one begins.
 */
#include "runtime/reducer/gpu.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "runtime/metrics.h"

#include <stdio.h>
#include <string.h>

static const uint64_t MILLISECOND = 1000000, SECOND = 1000000000;

/* A gradient that is missing for so long is named in the log, once a wait. */
static const uint64_t MISSING_NS = 5000000000;

enum { TURNS_PER_CHECK = 16 };

static uint64_t now_ns(void)
{
    return kolo__now_ns(&kolo__real_clock);
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

/* True while this rank itself is what the step waits for. */
static bool lacks_gradients(const kolo_reducer *reducer, char *text, size_t bytes)
{
    uint32_t count, first = kolo__reducer_first_missing(reducer, &count);
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

static void end_step(kolo_reducer *reducer)
{
    kolo_reducer_report *report = &reducer->report;
    kolo__reducer_await_returns(reducer);
    kolo__reducer_draw(reducer);
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
    kolo__reducer_await_returns(reducer);
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
            status = kolo__reducer_take_for_unused(reducer);
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
    if (reducer->gpu != NULL && !reducer->ended) {
        kolo_status refused = kolo__gpu_check_capture(reducer, "kolo_reducer_wait");
        if (refused != KOLO_OK)
            return refused;
    }
    struct kolo__trace *trace = reducer->context->trace;
    struct kolo__metrics *metrics = reducer->context->metrics;
    uint64_t began = kolo__trace_now(trace), began_ns = metrics != NULL ? now_ns() : 0;
    kolo_status status = KOLO_OK;
    /* While the thread drives, the status is the thread's. */
    struct kolo__flight *flight = reducer->context->recorder.flight;
    atomic_fetch_add(&flight->in_reducers, 1);
    if (atomic_load(&reducer->driver) != KOLO__DRIVER_CALLER || reducer->status == KOLO_OK)
        status = wait_for_step(reducer, timeout_ms);
    atomic_fetch_sub(&flight->in_reducers, 1);
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
