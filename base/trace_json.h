/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A timeline as text, in the Trace Event Format that chrome://tracing and Perfetto read ("Trace
 * Event Format", Google, 2016). A file is
 *
 *     kolo__trace_json_head   processes, the first one with `first`   kolo__trace_json_tail
 *
 * Each rank is a process there, each kind of event a thread, its lane. Events of one lane must not
 * overlap, so those that do stand in several lanes of the same name, as few as can be.
 */
#ifndef KOLO_BASE_TRACE_JSON_H
#define KOLO_BASE_TRACE_JSON_H

#include "base/trace.h"

/* This rank's clock against that of the file: two readings, with a straight line between them. */
struct kolo__trace_clock {
    uint64_t at_ns[2];   /* by this rank's clock */
    int64_t shift_ns[2]; /* to be added there; both the same when at_ns are */
    uint64_t origin_ns;  /* by the file's clock: its 0 */
};

struct kolo__trace_process {
    uint32_t rank;
    const char *host;
    bool first; /* of the file */
    struct kolo__trace_clock clock;
};

/* Takes text: bytes of it, not terminated. An error ends the writing. */
typedef kolo_status kolo__trace_put(void *self, const char *text, size_t bytes);

kolo_status kolo__trace_json_head(kolo__trace_put *put, void *self);
/* All events of one rank, in the order in which they began. Threads that still record lose what
 * they record meanwhile. KOLO_ERR_MEMORY: some of them are missing, and may be all. */
kolo_status kolo__trace_json_process(const struct kolo__trace *trace,
                                     const struct kolo__trace_process *process,
                                     kolo__trace_put *put, void *self);
kolo_status kolo__trace_json_tail(kolo__trace_put *put, void *self);

/* The rank's time as the file's, before origin_ns is taken away. */
uint64_t kolo__trace_clock_map(const struct kolo__trace_clock *clock, uint64_t rank_ns);

#endif
