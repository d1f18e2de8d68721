/* SPDX-License-Identifier: Apache-2.0 */
/* See trace_json.h. */
#include "base/trace_json.h"

#include "base/status.h"
#include "base/utf8.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BUFFER_BYTES = 64 * 1024,
    LINE_BYTES = 1024,      /* at least those of any event */
    LABEL_BYTES = 120,      /* of a label are shown; a byte takes 6 characters at most */
    LANES_OF_A_KIND = 1000, /* have short numbers, so that the viewers show them well */
};

/* Lanes are shown in the order of the kinds. */
static const struct {
    const char *lane, *name; /* of events without a label */
    const char *id;
    bool numbered; /* "pack 3" */
    bool instant;
} kinds[KOLO__TRACE_KIND_COUNT] = {
    [KOLO__TRACE_TRAINING_STEP] = {"training step", "step", "number", true, false},
    [KOLO__TRACE_WAIT] = {"caller", "wait", "number", false, false},
    [KOLO__TRACE_READY] = {"gradients", "ready", "tensor", false, true},
    [KOLO__TRACE_QUEUE] = {"queue", "bucket", "bucket", true, false},
    [KOLO__TRACE_PACK] = {"pack", "pack", "bucket", true, false},
    [KOLO__TRACE_UNPACK] = {"unpack", "unpack", "bucket", true, false},
    [KOLO__TRACE_COLLECTIVE] = {"collectives", "collective", "number", false, false},
    [KOLO__TRACE_MESSAGE] = {"messages", "message", "peer", false, false},
    [KOLO__TRACE_STEP] = {"steps", "step", "peer", false, false},
};

/* ---- text ----------------------------------------------------------------------------------- */

struct text {
    kolo__trace_put *put;
    void *self;
    kolo_status status;
    size_t used;
    char buffer[BUFFER_BYTES];
};

static void flush(struct text *text)
{
    if (text->status == KOLO_OK && text->used > 0)
        text->status = text->put(text->self, text->buffer, text->used);
    text->used = 0;
}

static void begin_line(struct text *text)
{
    if (sizeof text->buffer - text->used < LINE_BYTES)
        flush(text);
}

__attribute__((format(printf, 2, 3))) static void add(struct text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    text->used += (size_t)vsnprintf(text->buffer + text->used, sizeof text->buffer - text->used,
                                    format, arguments);
    va_end(arguments);
}

/* In quotes. A tensor may be called anything. */
static void add_quoted(struct text *text, const char *string)
{
    const unsigned char *c = (const unsigned char *)string;
    add(text, "\"");
    for (size_t shown = 0, bytes; *c != '\0' && shown < LABEL_BYTES; c += bytes, shown += bytes) {
        bytes = kolo__utf8_bytes((const char *)c, NULL);
        if (bytes == 0) {
            add(text, "?");
            bytes = 1;
        } else if (*c == '"' || *c == '\\') {
            add(text, "\\%c", *c);
        } else if (*c < 0x20 || *c == 0x7f) {
            add(text, "\\u%04x", *c);
        } else {
            add(text, "%.*s", (int)bytes, (const char *)c);
        }
    }
    add(text, "\"");
}

/* Nanoseconds as microseconds. */
static void add_time(struct text *text, const char *name, uint64_t ns)
{
    add(text, ",\"%s\":%" PRIu64 ".%03" PRIu64, name, ns / 1000, ns % 1000);
}

/* ---- lanes ---------------------------------------------------------------------------------- */

/* One kind's lanes: when the last event in each ends. */
struct lanes {
    uint64_t *ends; /* ticks */
    size_t count, capacity;
};

/* The first lane that is free; SIZE_MAX: no memory. */
static size_t find_lane(struct lanes *lanes, uint64_t begin_ticks, uint64_t end_ticks)
{
    size_t lane = 0;
    while (lane < lanes->count && lanes->ends[lane] > begin_ticks)
        lane++;
    if (lane == lanes->capacity) {
        size_t capacity = 2 * lanes->capacity + 8;
        uint64_t *ends = realloc(lanes->ends, capacity * sizeof *ends);
        if (ends == NULL)
            return SIZE_MAX;
        lanes->ends = ends;
        lanes->capacity = capacity;
    }
    lanes->count += lane == lanes->count;
    lanes->ends[lane] = end_ticks;
    return lane;
}

/* ---- events --------------------------------------------------------------------------------- */

uint64_t kolo__trace_clock_map(const struct kolo__trace_clock *clock, uint64_t rank_ns)
{
    double part = 0;
    if (clock->at_ns[1] > clock->at_ns[0])
        part = (double)(int64_t)(rank_ns - clock->at_ns[0]) /
               (double)(clock->at_ns[1] - clock->at_ns[0]);
    double drift = part * (double)(clock->shift_ns[1] - clock->shift_ns[0]);
    return rank_ns + (uint64_t)(clock->shift_ns[0] + (int64_t)drift);
}

static uint64_t file_time(const struct kolo__trace_clock *clock, uint64_t rank_ns)
{
    uint64_t ns = kolo__trace_clock_map(clock, rank_ns);
    return ns > clock->origin_ns ? ns - clock->origin_ns : 0;
}

static unsigned thread_of(unsigned kind, size_t lane)
{
    if (lane < LANES_OF_A_KIND)
        return kind * LANES_OF_A_KIND + (unsigned)lane;
    return (kind << 24) + (unsigned)lane;
}

static void add_event(struct text *text, const struct kolo__trace *trace,
                      const struct kolo__trace_process *process,
                      const struct kolo__trace_event *event, unsigned thread)
{
    const char *separator = "";
    uint64_t begin = file_time(&process->clock, kolo__trace_ns(trace, event->begin_ticks));
    uint64_t end = file_time(&process->clock, kolo__trace_ns(trace, event->end_ticks));
    bool instant = kinds[event->kind].instant;
    begin_line(text);
    add(text, ",\n{\"ph\":\"%s\",\"pid\":%u,\"tid\":%u", instant ? "i\",\"s\":\"t" : "X",
        process->rank, thread);
    add_time(text, "ts", begin);
    if (!instant)
        add_time(text, "dur", end > begin ? end - begin : 0);
    add(text, ",\"cat\":\"%s\",\"name\":", kinds[event->kind].lane);
    if (event->label != NULL)
        add_quoted(text, event->label);
    else if (kinds[event->kind].numbered)
        add(text, "\"%s %u\"", kinds[event->kind].name, event->id);
    else
        add_quoted(text, kinds[event->kind].name);
    add(text, ",\"args\":{");
    if (event->id != KOLO__TRACE_NO_ID) {
        add(text, "\"%s\":%u", kinds[event->kind].id, event->id);
        separator = ",";
    }
    if (event->comm != 0) {
        add(text, "%s\"communicator\":%u", separator, event->comm);
        separator = ",";
    }
    if (event->bytes > 0)
        add(text, "%s\"bytes\":%" PRIu64, separator, event->bytes);
    add(text, "}}");
}

/* What the viewers call metadata: names of processes and threads, and their order. */
static void add_process(struct text *text, const struct kolo__trace *trace,
                        const struct kolo__trace_process *process)
{
    char name[512], dropped[64] = "";
    uint64_t lost = kolo__trace_dropped(trace);
    if (lost > 0)
        snprintf(dropped, sizeof dropped, ", %" PRIu64 " later events dropped", lost);
    snprintf(name, sizeof name, "rank %u (host %.64s)%s", process->rank, process->host, dropped);
    begin_line(text);
    add(text,
        "%s\n{\"ph\":\"M\",\"pid\":%u,\"tid\":0,\"name\":\"process_name\",\"args\":{\"name\":",
        process->first ? "" : ",", process->rank);
    add_quoted(text, name);
    add(text, ",\"dropped\":%" PRIu64 "}}", lost);
    add(text,
        ",\n{\"ph\":\"M\",\"pid\":%u,\"tid\":0,\"name\":\"process_sort_index\","
        "\"args\":{\"sort_index\":%u}}",
        process->rank, process->rank);
}

static void add_lanes(struct text *text, uint32_t rank, const struct lanes *lanes)
{
    for (unsigned kind = 1; kind < KOLO__TRACE_KIND_COUNT; kind++)
        for (size_t lane = 0; lane < lanes[kind].count; lane++) {
            unsigned thread = thread_of(kind, lane);
            begin_line(text);
            add(text,
                ",\n{\"ph\":\"M\",\"pid\":%u,\"tid\":%u,\"name\":\"thread_name\","
                "\"args\":{\"name\":\"%s\"}}",
                rank, thread, kinds[kind].lane);
            add(text,
                ",\n{\"ph\":\"M\",\"pid\":%u,\"tid\":%u,\"name\":\"thread_sort_index\","
                "\"args\":{\"sort_index\":%u}}",
                rank, thread, thread);
        }
}

static int compare_events(const void *a, const void *b)
{
    const struct kolo__trace_event *x = a, *y = b;
    if (x->begin_ticks != y->begin_ticks)
        return x->begin_ticks < y->begin_ticks ? -1 : 1;
    if (x->end_ticks != y->end_ticks)
        return x->end_ticks < y->end_ticks ? -1 : 1;
    return x->kind < y->kind ? -1 : x->kind > y->kind;
}

/* A call that waited for an event, as one of its own. */
static struct kolo__trace_event caller_of(const struct kolo__trace_event *event)
{
    return (struct kolo__trace_event){
        .kind = KOLO__TRACE_WAIT,
        .id = KOLO__TRACE_NO_ID,
        .comm = event->comm,
        .label = event->caller,
        .begin_ticks = event->caller_begin_ticks,
        .end_ticks = event->end_ticks,
    };
}

/* Up to two of each place. */
static size_t take_events(const struct kolo__trace *trace, size_t places,
                          struct kolo__trace_event *events)
{
    size_t count = 0;
    for (size_t i = 0; i < places; i++) {
        struct kolo__trace_event *event = &events[count];
        if (!kolo__trace_get(trace, i, event))
            continue;
        if (kinds[event->kind].instant)
            event->end_ticks = event->begin_ticks;
        count++;
        if (event->caller != NULL)
            events[count++] = caller_of(event);
    }
    qsort(events, count, sizeof *events, compare_events);
    return count;
}

kolo_status kolo__trace_json_process(const struct kolo__trace *trace,
                                     const struct kolo__trace_process *process,
                                     kolo__trace_put *put, void *self)
{
    size_t places = kolo__trace_count(trace), count = 0;
    struct lanes lanes[KOLO__TRACE_KIND_COUNT] = {0};
    struct kolo__trace_event *events = malloc((2 * places + 1) * sizeof *events);
    struct text *text = malloc(sizeof *text);
    kolo_status status = KOLO_ERR_MEMORY;
    if (events == NULL || text == NULL) {
        kolo__error(status, "no memory to write a timeline of %zu events", places);
        goto done;
    }
    *text = (struct text){.put = put, .self = self};
    count = take_events(trace, places, events);
    add_process(text, trace, process);
    for (size_t i = 0; i < count && text->status == KOLO_OK; i++) {
        size_t lane = find_lane(&lanes[events[i].kind], events[i].begin_ticks, events[i].end_ticks);
        if (lane == SIZE_MAX)
            text->status = kolo__error(KOLO_ERR_MEMORY, "no memory to write a timeline");
        else
            add_event(text, trace, process, &events[i], thread_of(events[i].kind, lane));
    }
    add_lanes(text, process->rank, lanes);
    flush(text);
    status = text->status;
done:
    for (unsigned kind = 0; kind < KOLO__TRACE_KIND_COUNT; kind++)
        free(lanes[kind].ends);
    free(events);
    free(text);
    return status;
}

kolo_status kolo__trace_json_head(kolo__trace_put *put, void *self)
{
    char text[160];
    int bytes = snprintf(text, sizeof text,
                         "{\"displayTimeUnit\":\"ns\",\"otherData\":{\"version\":\"kolo %s\"},"
                         "\"traceEvents\":[",
                         kolo_version());
    return put(self, text, (size_t)bytes);
}

kolo_status kolo__trace_json_tail(kolo__trace_put *put, void *self)
{
    return put(self, "\n]}\n", 4);
}
