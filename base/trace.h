/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The timeline of one rank: what happened from when to when (docs/TIMELINE.md).
 *
 * Recording is for every layer and any thread. Events go into memory taken when the trace is made,
 * each into a place of its own: no lock, no allocation, no system call but the clock where the
 * processor has no better one. When the memory is full, later events are counted and dropped. All
 * functions take NULL for a trace, which means that nobody wants a timeline: then not even the
 * clock is read.
 */
#ifndef KOLO_BASE_TRACE_H
#define KOLO_BASE_TRACE_H

#include <kolo/kolo.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kolo__trace;

/* Each has a lane of the timeline, but for READY and QUEUE, which share one. id: what it says
 * there.
 */
enum kolo__trace_kind {
    KOLO__TRACE_TRAINING_STEP = 1, /* from one wait's end to the next; id: its number */
    KOLO__TRACE_WAIT,              /* a caller waits; id: 0 */
    KOLO__TRACE_READY,             /* begin == end: a gradient is ready; id: the tensor */
    KOLO__TRACE_QUEUE,             /* a bucket is ready, but not under way; id: the bucket */
    KOLO__TRACE_PACK,              /* gradients into a bucket; id: the bucket */
    KOLO__TRACE_UNPACK,            /* and back; id: the bucket */
    KOLO__TRACE_COLLECTIVE,        /* from its first step to its end; id: its number in comm */
    KOLO__TRACE_MESSAGE,           /* point to point; id: the peer */
    KOLO__TRACE_STEP,              /* of a schedule; id: the peer */
    KOLO__TRACE_KIND_COUNT
};

/* For ids: this event has none. */
#define KOLO__TRACE_NO_ID UINT32_MAX

struct kolo__trace_event {
    enum kolo__trace_kind kind;
    uint32_t id;
    uint32_t comm;     /* the communicator's id; 0: says nothing */
    const char *label; /* as of kolo__trace_add */
    uint64_t bytes;
    uint64_t begin_ticks, end_ticks; /* as of kolo__trace_now */
    /* A call that waited for it from then on, and returned when it ended; NULL: none. Two events
     * of the timeline, which cost no more than one: most calls do one thing, and wait for it. */
    const char *caller; /* as label */
    uint64_t caller_begin_ticks;
};

/* Room for so many events, of which each takes 64 bytes. */
kolo_status kolo__trace_create(size_t capacity, struct kolo__trace **trace);
void kolo__trace_free(struct kolo__trace *trace);

/* Before the first event: ticks are the processor's from now on (ticks.h), where they can be
 * trusted. Else they are nanoseconds of kolo__real_clock. */
void kolo__trace_use_counter(struct kolo__trace *trace);

/* In ticks; 0 when trace is NULL. */
uint64_t kolo__trace_now(const struct kolo__trace *trace);

/* label: lives as long as the trace: a literal, or what kolo__trace_label gave; NULL: none. */
void kolo__trace_add(struct kolo__trace *trace, enum kolo__trace_kind kind, const char *label,
                     uint32_t id, uint64_t bytes, uint64_t begin_ticks, uint64_t end_ticks);
void kolo__trace_record(struct kolo__trace *trace, const struct kolo__trace_event *event);

/* A copy of text that lives as long as the trace; the same pointer for the same text. Takes a lock:
 * for names, when something is created. NULL when trace or text is; when there is no room for more
 * names, a text that says so. */
const char *kolo__trace_label(struct kolo__trace *trace, const char *text);

/* ---- reading -------------------------------------------------------------------------------- */

/* When all is recorded, and before kolo__trace_ns. Again when more has been recorded. */
void kolo__trace_calibrate(struct kolo__trace *trace);
/* Ticks as nanoseconds of kolo__real_clock. */
uint64_t kolo__trace_ns(const struct kolo__trace *trace, uint64_t ticks);

/* Of places that events took, and events that found none. */
size_t kolo__trace_count(const struct kolo__trace *trace);
uint64_t kolo__trace_dropped(const struct kolo__trace *trace);
/* The event in place `index` below count, which does not end before it begins; false: a thread is
 * still writing it. */
bool kolo__trace_get(const struct kolo__trace *trace, size_t index,
                     struct kolo__trace_event *event);

#endif
