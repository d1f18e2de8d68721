/* SPDX-License-Identifier: Apache-2.0 */
/* Recording a timeline, and its text. */
#include "base/trace_json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 4, EVENTS = 5000 };

static struct kolo__trace *made(size_t capacity)
{
    struct kolo__trace *trace;
    assert_int_equal(kolo__trace_create(capacity, &trace), KOLO_OK);
    return trace;
}

/* ---- recording ------------------------------------------------------------------------------ */

static void nobody_wants_a_timeline(void **state)
{
    (void)state;
    assert_int_equal(kolo__trace_now(NULL), 0);
    kolo__trace_add(NULL, KOLO__TRACE_WAIT, "x", 1, 2, 3, 4);
    assert_null(kolo__trace_label(NULL, "x"));
    assert_int_equal(kolo__trace_count(NULL), 0);
    assert_int_equal(kolo__trace_dropped(NULL), 0);
    kolo__trace_free(NULL);
}

static void events_come_back_as_they_were(void **state)
{
    (void)state;
    struct kolo__trace *trace = made(4);
    struct kolo__trace_event event;
    uint64_t before = kolo__trace_now(trace);
    assert_true(before > 0);
    assert_true(kolo__trace_now(trace) >= before);
    kolo__trace_add(trace, KOLO__TRACE_PACK, "bucket", 7, 4096, 100, 250);
    event = (struct kolo__trace_event){.kind = KOLO__TRACE_COLLECTIVE,
                                       .id = 3,
                                       .comm = 2,
                                       .label = "ring",
                                       .bytes = 5,
                                       .begin_ticks = 6,
                                       .end_ticks = 7,
                                       .caller = "kolo_wait",
                                       .caller_begin_ticks = 4};
    kolo__trace_record(trace, &event);

    assert_int_equal(kolo__trace_count(trace), 2);
    assert_true(kolo__trace_get(trace, 0, &event));
    assert_int_equal(event.kind, KOLO__TRACE_PACK);
    assert_string_equal(event.label, "bucket");
    assert_int_equal(event.id, 7);
    assert_int_equal(event.comm, 0);
    assert_int_equal(event.bytes, 4096);
    assert_int_equal(event.begin_ticks, 100);
    assert_int_equal(event.end_ticks, 250);
    assert_true(kolo__trace_get(trace, 1, &event));
    assert_int_equal(event.comm, 2);
    assert_string_equal(event.caller, "kolo_wait");
    assert_int_equal(event.caller_begin_ticks, 4);
    assert_false(kolo__trace_get(trace, 2, &event));
    kolo__trace_free(trace);
}

static void a_full_buffer_keeps_the_first_and_counts_the_rest(void **state)
{
    (void)state;
    struct kolo__trace *trace = made(3);
    for (uint32_t i = 0; i < 10; i++)
        kolo__trace_add(trace, KOLO__TRACE_READY, NULL, i, 0, i, i);
    assert_int_equal(kolo__trace_count(trace), 3);
    assert_int_equal(kolo__trace_dropped(trace), 7);
    for (uint32_t i = 0; i < 3; i++) {
        struct kolo__trace_event event;
        assert_true(kolo__trace_get(trace, i, &event));
        assert_int_equal(event.id, i);
    }
    /* Labels lie behind the events: what was dropped has not touched them. */
    assert_string_equal(kolo__trace_label(trace, "name"), "name");
    kolo__trace_free(trace);
}

struct recorder {
    struct kolo__trace *trace;
    uint32_t number;
};

static void *record(void *self)
{
    const struct recorder *recorder = self;
    for (uint32_t i = 0; i < EVENTS; i++) {
        char name[32];
        snprintf(name, sizeof name, "tensor %u", i % 50);
        const char *label = i < 100 ? kolo__trace_label(recorder->trace, name) : "same";
        kolo__trace_add(recorder->trace, KOLO__TRACE_READY, label, recorder->number, i, i, i);
    }
    return NULL;
}

static void threads_lose_nothing(void **state)
{
    (void)state;
    struct kolo__trace *trace = made(THREADS * EVENTS);
    struct recorder recorders[THREADS];
    pthread_t threads[THREADS];
    for (uint32_t t = 0; t < THREADS; t++) {
        recorders[t] = (struct recorder){trace, t};
        assert_int_equal(pthread_create(&threads[t], NULL, record, &recorders[t]), 0);
    }
    for (uint32_t t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    uint64_t next[THREADS] = {0}; /* each thread's events are in its order */
    assert_int_equal(kolo__trace_count(trace), THREADS * EVENTS);
    assert_int_equal(kolo__trace_dropped(trace), 0);
    for (size_t i = 0; i < THREADS * EVENTS; i++) {
        struct kolo__trace_event event;
        char name[32];
        assert_true(kolo__trace_get(trace, i, &event));
        assert_true(event.id < THREADS);
        assert_int_equal(event.bytes, next[event.id]);
        snprintf(name, sizeof name, "tensor %u", (unsigned)event.bytes % 50);
        assert_string_equal(event.label, event.bytes < 100 ? name : "same");
        next[event.id]++;
    }
    kolo__trace_free(trace);
}

static void labels_outlive_their_texts(void **state)
{
    (void)state;
    struct kolo__trace *trace = made(1);
    char name[] = "h.3.attn.w";
    const char *label = kolo__trace_label(trace, name), *other, *again;
    memset(name, 'x', sizeof name - 1);
    other = kolo__trace_label(trace, name);
    again = kolo__trace_label(trace, "h.3.attn.w");
    assert_string_equal(label, "h.3.attn.w");
    assert_string_equal(other, "xxxxxxxxxx");
    assert_ptr_equal(label, again);
    assert_string_equal(kolo__trace_label(trace, ""), "");
    kolo__trace_free(trace);
}

static void labels_run_out(void **state)
{
    (void)state;
    struct kolo__trace *trace = made(1);
    char long_name[64 * 1024];
    memset(long_name, 'a', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    const char *first = kolo__trace_label(trace, "first"), *label = first;
    for (int i = 0; i < 40 && strcmp(label, "(too many names)") != 0; i++) {
        long_name[0] = (char)('A' + i);
        label = kolo__trace_label(trace, long_name);
    }
    assert_string_equal(label, "(too many names)");
    assert_ptr_equal(kolo__trace_label(trace, "first"), first);
    kolo__trace_free(trace);
}

/* ---- text ----------------------------------------------------------------------------------- */

static char written[1 << 20];
static size_t written_bytes;

static kolo_status keep(void *self, const char *text, size_t bytes)
{
    (void)self;
    assert_true(written_bytes + bytes < sizeof written);
    memcpy(written + written_bytes, text, bytes);
    written_bytes += bytes;
    written[written_bytes] = '\0';
    return KOLO_OK;
}

static void write_text(const struct kolo__trace *trace, const struct kolo__trace_process *process)
{
    written_bytes = 0;
    assert_int_equal(kolo__trace_json_process(trace, process, keep, NULL), KOLO_OK);
}

/* How often part is in the text. */
static int occurrences(const char *part)
{
    int count = 0;
    for (const char *at = written; (at = strstr(at, part)) != NULL; at++)
        count++;
    return count;
}

static void times_and_arguments(void **state)
{
    (void)state;
    struct kolo__trace *trace = made(8);
    struct kolo__trace_process process = {.rank = 3, .host = "h", .first = true};
    process.clock.origin_ns = 1000;
    kolo__trace_add(trace, KOLO__TRACE_PACK, "fast", 7, 4096, 2005, 3010);
    kolo__trace_add(trace, KOLO__TRACE_UNPACK, NULL, 3, 0, 2005, 3010);
    kolo__trace_add(trace, KOLO__TRACE_READY, NULL, 12, 0, 2000, 2100); /* no duration */
    kolo__trace_add(trace, KOLO__TRACE_WAIT, "kolo_wait", KOLO__TRACE_NO_ID, 0, 1000, 1001);
    write_text(trace, &process);
    assert_int_equal(written[0], '\n'); /* the first of the file: no comma */
    assert_int_equal(occurrences("\"name\":\"rank 3 (host h)\",\"dropped\":0"), 1);
    assert_int_equal(occurrences("\"ts\":1.005,\"dur\":1.005,\"cat\":\"pack\",\"name\":\"fast\","
                                 "\"args\":{\"bucket\":7,\"bytes\":4096}}"),
                     1);
    assert_int_equal(occurrences("{\"ph\":\"i\",\"s\":\"t\",\"pid\":3"), 1);
    assert_int_equal(occurrences("\"ts\":1.000,\"cat\":\"gradients\",\"name\":\"ready\","
                                 "\"args\":{\"tensor\":12}}"),
                     1);
    assert_int_equal(occurrences("\"ts\":0.000,\"dur\":0.001,\"cat\":\"caller\","
                                 "\"name\":\"kolo_wait\",\"args\":{}}"),
                     1);
    assert_int_equal(occurrences("\"cat\":\"unpack\",\"name\":\"unpack 3\","), 1);
    process.first = false;
    write_text(trace, &process);
    assert_int_equal(written[0], ',');
    kolo__trace_free(trace);
}

/* One record, two events. It began before what it waited for, and ended with it. */
static void a_call_that_waits_is_an_event_of_its_own(void **state)
{
    (void)state;
    struct kolo__trace *trace = made(1);
    struct kolo__trace_process process = {.host = "h"};
    struct kolo__trace_event event = {.kind = KOLO__TRACE_COLLECTIVE,
                                      .id = 3,
                                      .comm = 2,
                                      .label = "allreduce ring",
                                      .bytes = 64,
                                      .begin_ticks = 2000,
                                      .end_ticks = 5000,
                                      .caller = "kolo_allreduce",
                                      .caller_begin_ticks = 1000};
    kolo__trace_record(trace, &event);
    write_text(trace, &process);
    assert_int_equal(occurrences("\"ts\":1.000,\"dur\":4.000,\"cat\":\"caller\","
                                 "\"name\":\"kolo_allreduce\",\"args\":{\"communicator\":2}}"),
                     1);
    assert_int_equal(occurrences("\"ts\":2.000,\"dur\":3.000,\"cat\":\"collectives\""), 1);
    assert_true(strstr(written, "kolo_allreduce") < strstr(written, "allreduce ring"));
    kolo__trace_free(trace);
}

/* As readings of two processors may say. */
static void no_event_ends_before_it_begins(void **state)
{
    (void)state;
    struct kolo__trace *trace = made(1);
    struct kolo__trace_event event;
    kolo__trace_add(trace, KOLO__TRACE_QUEUE, NULL, 1, 0, 105, 100);
    assert_true(kolo__trace_get(trace, 0, &event));
    assert_int_equal(event.begin_ticks, 100);
    assert_int_equal(event.end_ticks, 100);
    kolo__trace_free(trace);
}

static void what_overlaps_gets_another_lane(void **state)
{
    (void)state;
    static const uint64_t times[][2] = {{10, 20}, {15, 30}, {20, 25}, {26, 40}, {30, 31}};
    struct kolo__trace *trace = made(8);
    struct kolo__trace_process process = {.host = "h"};
    char lane[2][64];
    for (size_t i = 0; i < 5; i++) /* the last first: they are sorted */
        kolo__trace_add(trace, KOLO__TRACE_STEP, NULL, 0, 0, times[4 - i][0], times[4 - i][1]);
    write_text(trace, &process);
    for (unsigned i = 0; i < 2; i++)
        snprintf(lane[i], sizeof lane[i], "\"ph\":\"X\",\"pid\":0,\"tid\":%u,",
                 KOLO__TRACE_STEP * 1000 + i);
    assert_int_equal(occurrences(lane[0]), 3); /* 10, 20, 26 */
    assert_int_equal(occurrences(lane[1]), 2); /* 15, 30 */
    assert_int_equal(occurrences("\"thread_name\",\"args\":{\"name\":\"steps\"}"), 2);
    assert_true(strstr(written, "\"ts\":0.010") < strstr(written, "\"ts\":0.015"));
    kolo__trace_free(trace);
}

static void any_name_is_good_json(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text;
    } cases[] = {
        {"a\"b\\c", "a\\\"b\\\\c"},
        {"tab\there\n", "tab\\u0009here\\u000a"},
        {"gradient \xe2\x88\x87w \xf0\x9f\x98\x80", "gradient \xe2\x88\x87w \xf0\x9f\x98\x80"},
        {"cut \xe2\x88", "cut ??"},
        {"alone \x80 \xff", "alone ? ?"},
        {"surrogate \xed\xa0\x80", "surrogate ???"},
        {"overlong \xc0\x80 \xe0\x80\x80", "overlong ?? ???"},
        {"", ""},
    };
    struct kolo__trace_process process = {.host = "h"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char expected[160];
        struct kolo__trace *trace = made(1);
        kolo__trace_add(trace, KOLO__TRACE_READY, cases[i].name, 0, 0, 0, 0);
        write_text(trace, &process);
        snprintf(expected, sizeof expected, "\"name\":\"%s\",\"args\"", cases[i].text);
        if (occurrences(expected) != 1)
            fail_msg("%s is not in %s", expected, written);
        kolo__trace_free(trace);
    }
}

static void long_names_are_cut(void **state)
{
    (void)state;
    char name[70000];
    struct kolo__trace_process process = {.host = "h"};
    struct kolo__trace *trace = made(2000);
    memset(name, '\x01', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    const char *label = kolo__trace_label(trace, name);
    for (uint32_t i = 0; i < 1000; i++) /* more than fits into one piece of text */
        kolo__trace_add(trace, KOLO__TRACE_READY, label, i, UINT64_MAX, UINT64_MAX, UINT64_MAX);
    write_text(trace, &process);
    assert_int_equal(occurrences("\"ph\":\"i\""), 1000);
    kolo__trace_free(trace);
}

static void what_was_dropped_is_said(void **state)
{
    (void)state;
    struct kolo__trace_process process = {.rank = 1, .host = "h"};
    struct kolo__trace *trace = made(1);
    for (uint32_t i = 0; i < 6; i++)
        kolo__trace_add(trace, KOLO__TRACE_READY, NULL, 0, 0, 0, 0);
    write_text(trace, &process);
    assert_int_equal(occurrences("\"rank 1 (host h), 5 later events dropped\",\"dropped\":5"), 1);
    kolo__trace_free(trace);
}

static kolo_status refuse(void *self, const char *text, size_t bytes)
{
    (void)text;
    (void)bytes;
    ++*(int *)self;
    return KOLO_ERR_SYSTEM;
}

static void writing_ends_with_the_first_error(void **state)
{
    (void)state;
    struct kolo__trace_process process = {.host = "h"};
    struct kolo__trace *trace = made(4000);
    int asked = 0;
    for (uint32_t i = 0; i < 4000; i++)
        kolo__trace_add(trace, KOLO__TRACE_READY, NULL, i, 0, i, i);
    assert_int_equal(kolo__trace_json_process(trace, &process, refuse, &asked), KOLO_ERR_SYSTEM);
    assert_int_equal(asked, 1);
    kolo__trace_free(trace);
}

/* ---- clocks --------------------------------------------------------------------------------- */

static void clocks_that_drift(void **state)
{
    (void)state;
    struct kolo__trace_clock same = {.at_ns = {500, 500}, .shift_ns = {-100, -100}};
    struct kolo__trace_clock drifting = {.at_ns = {1000, 2000}, .shift_ns = {50, 250}};
    struct kolo__trace_clock slowing = {.at_ns = {1000, 2000}, .shift_ns = {0, -10}};
    assert_int_equal(kolo__trace_clock_map(&same, 1000), 900);
    assert_int_equal(kolo__trace_clock_map(&drifting, 1000), 1050);
    assert_int_equal(kolo__trace_clock_map(&drifting, 1500), 1650);
    assert_int_equal(kolo__trace_clock_map(&drifting, 2000), 2250);
    assert_int_equal(kolo__trace_clock_map(&drifting, 500), 450);
    for (uint64_t ns = 0; ns < 3000; ns++) /* or events of a lane would overlap */
        assert_true(kolo__trace_clock_map(&slowing, ns) <= kolo__trace_clock_map(&slowing, ns + 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_wants_a_timeline),
        cmocka_unit_test(events_come_back_as_they_were),
        cmocka_unit_test(a_full_buffer_keeps_the_first_and_counts_the_rest),
        cmocka_unit_test(threads_lose_nothing),
        cmocka_unit_test(labels_outlive_their_texts),
        cmocka_unit_test(labels_run_out),
        cmocka_unit_test(times_and_arguments),
        cmocka_unit_test(a_call_that_waits_is_an_event_of_its_own),
        cmocka_unit_test(no_event_ends_before_it_begins),
        cmocka_unit_test(what_overlaps_gets_another_lane),
        cmocka_unit_test(any_name_is_good_json),
        cmocka_unit_test(long_names_are_cut),
        cmocka_unit_test(what_was_dropped_is_said),
        cmocka_unit_test(writing_ends_with_the_first_error),
        cmocka_unit_test(clocks_that_drift),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
