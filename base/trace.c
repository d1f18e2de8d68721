/* SPDX-License-Identifier: Apache-2.0 */
/* See trace.h. */
#include "base/trace.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/status.h"
#include "base/ticks.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Of labels: some thousand names of tensors. */
enum { LABEL_BYTES = 1 << 20 };

enum { CACHE_LINE = 64 };

/* kind is written last, so a place whose kind is 0 holds no event yet. */
struct place {
    _Alignas(CACHE_LINE) uint64_t begin_ticks; /* one line: what is written is not read back */
    uint64_t end_ticks, caller_begin_ticks;
    uint64_t bytes;
    const char *label, *caller;
    uint32_t id, comm;
    atomic_uint kind;
};

/* One mapping:
 *
 *   | struct kolo__trace | places, capacity of them | labels: texts, each with its '\0' |
 */
struct kolo__trace {
    _Alignas(CACHE_LINE) struct place *places; /* where it ends another line begins */
    size_t mapped_bytes;
    size_t capacity;
    bool counter; /* ticks are the processor's */
    struct kolo__ticks_reading readings[2];
    pthread_mutex_t label_lock;
    char *labels;
    size_t label_bytes;
    atomic_size_t claimed; /* may exceed capacity: the rest was dropped */
};

kolo_status kolo__trace_create(size_t capacity, struct kolo__trace **result)
{
    size_t bytes = sizeof(struct kolo__trace) + capacity * sizeof(struct place) + LABEL_BYTES;
    *result = NULL;
    /* All of it now: a page that comes into being later takes longer than what is recorded there.
     */
    struct kolo__trace *trace = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (trace == MAP_FAILED)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for a timeline (%zu bytes)", bytes);
    trace->mapped_bytes = bytes;
    trace->capacity = capacity;
    trace->places = (struct place *)(void *)(trace + 1);
    trace->labels = (char *)(trace->places + capacity);
    pthread_mutex_init(&trace->label_lock, NULL);
    atomic_init(&trace->claimed, 0);
    *result = trace;
    return KOLO_OK;
}

void kolo__trace_free(struct kolo__trace *trace)
{
    if (trace == NULL)
        return;
    pthread_mutex_destroy(&trace->label_lock);
    munmap(trace, trace->mapped_bytes);
}

void kolo__trace_use_counter(struct kolo__trace *trace)
{
    trace->counter = kolo__ticks_are_trusted();
    trace->readings[0] = kolo__ticks_read();
}

uint64_t kolo__trace_now(const struct kolo__trace *trace)
{
    if (trace == NULL)
        return 0;
    return trace->counter ? kolo__ticks() : kolo__now_ns(&kolo__real_clock);
}

void kolo__trace_add(struct kolo__trace *trace, enum kolo__trace_kind kind, const char *label,
                     uint32_t id, uint64_t bytes, uint64_t begin_ticks, uint64_t end_ticks)
{
    struct kolo__trace_event event = {
        .kind = kind,
        .id = id,
        .label = label,
        .bytes = bytes,
        .begin_ticks = begin_ticks,
        .end_ticks = end_ticks,
    };
    kolo__trace_record(trace, &event);
}

void kolo__trace_record(struct kolo__trace *trace, const struct kolo__trace_event *event)
{
    if (trace == NULL)
        return;
    size_t index = atomic_fetch_add_explicit(&trace->claimed, 1, memory_order_relaxed);
    if (index >= trace->capacity)
        return;
    struct place *place = &trace->places[index];
    place->begin_ticks = event->begin_ticks;
    place->end_ticks = event->end_ticks;
    place->caller_begin_ticks = event->caller_begin_ticks;
    place->bytes = event->bytes;
    place->label = event->label;
    place->caller = event->caller;
    place->id = event->id;
    place->comm = event->comm;
    atomic_store_explicit(&place->kind, event->kind, memory_order_release);
}

const char *kolo__trace_label(struct kolo__trace *trace, const char *text)
{
    if (trace == NULL || text == NULL)
        return NULL;
    const char *label = "(too many names)";
    size_t length = strlen(text) + 1;
    pthread_mutex_lock(&trace->label_lock);
    char *end = trace->labels + trace->label_bytes, *at = trace->labels;
    while (at < end && strcmp(at, text) != 0)
        at += strlen(at) + 1;
    if (at < end) {
        label = at;
    } else if (length <= LABEL_BYTES - trace->label_bytes) {
        label = memcpy(end, text, length);
        trace->label_bytes += length;
    }
    pthread_mutex_unlock(&trace->label_lock);
    return label;
}

/* ---- reading -------------------------------------------------------------------------------- */

void kolo__trace_calibrate(struct kolo__trace *trace)
{
    trace->readings[1] = kolo__ticks_read();
}

uint64_t kolo__trace_ns(const struct kolo__trace *trace, uint64_t ticks)
{
    if (!trace->counter)
        return ticks;
    KOLO__ASSERT(trace->readings[1].ns != 0);
    return kolo__ticks_to_ns(trace->readings, ticks);
}

/* Readings of two processors, or of one that took them out of order, may be some ticks off. */
static uint64_t not_after(uint64_t begin_ticks, uint64_t end_ticks)
{
    return begin_ticks < end_ticks ? begin_ticks : end_ticks;
}

size_t kolo__trace_count(const struct kolo__trace *trace)
{
    if (trace == NULL)
        return 0;
    size_t claimed = atomic_load(&trace->claimed);
    return claimed < trace->capacity ? claimed : trace->capacity;
}

uint64_t kolo__trace_dropped(const struct kolo__trace *trace)
{
    return trace != NULL ? atomic_load(&trace->claimed) - kolo__trace_count(trace) : 0;
}

bool kolo__trace_get(const struct kolo__trace *trace, size_t index, struct kolo__trace_event *event)
{
    const struct place *place = &trace->places[index];
    unsigned kind = atomic_load_explicit(&place->kind, memory_order_acquire);
    *event = (struct kolo__trace_event){
        .kind = (enum kolo__trace_kind)kind,
        .id = place->id,
        .comm = place->comm,
        .label = place->label,
        .bytes = place->bytes,
        .begin_ticks = not_after(place->begin_ticks, place->end_ticks),
        .end_ticks = place->end_ticks,
        .caller = place->caller,
        .caller_begin_ticks = not_after(place->caller_begin_ticks, place->end_ticks),
    };
    return kind != 0;
}
