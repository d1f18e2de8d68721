/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/frame.h"

#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

static const uint64_t MILLISECOND = 1000000;

/* Room for more bytes; NULL when memory is out. */
static unsigned char *extend(struct kolo__frame_writer *writer, size_t bytes)
{
    if (writer->failed)
        return NULL;
    if (writer->bytes + bytes > writer->capacity) {
        size_t capacity = writer->capacity * 2 + bytes + 256;
        unsigned char *data = realloc(writer->data, capacity);
        if (data == NULL) {
            writer->failed = true;
            return NULL;
        }
        writer->data = data;
        writer->capacity = capacity;
    }
    unsigned char *place = writer->data + writer->bytes;
    writer->bytes += bytes;
    return place;
}

void kolo__frame_begin(struct kolo__frame_writer *writer, enum kolo__frame_type type)
{
    writer->frame = writer->bytes;
    unsigned char *head = extend(writer, KOLO__FRAME_HEAD_BYTES);
    if (head == NULL)
        return;
    kolo__store_u32(head, 0);
    kolo__store_u16(head + 4, (uint16_t)type);
    kolo__store_u16(head + 6, 0);
}

void kolo__frame_end(struct kolo__frame_writer *writer)
{
    if (!writer->failed)
        kolo__store_u32(writer->data + writer->frame,
                        (uint32_t)(writer->bytes - writer->frame - KOLO__FRAME_HEAD_BYTES));
}

void kolo__put_u8(struct kolo__frame_writer *writer, uint8_t value)
{
    unsigned char *place = extend(writer, 1);
    if (place != NULL)
        *place = value;
}

void kolo__put_u32(struct kolo__frame_writer *writer, uint32_t value)
{
    unsigned char *place = extend(writer, 4);
    if (place != NULL)
        kolo__store_u32(place, value);
}

void kolo__put_u64(struct kolo__frame_writer *writer, uint64_t value)
{
    unsigned char *place = extend(writer, 8);
    if (place != NULL)
        kolo__store_u64(place, value);
}

void kolo__put_raw(struct kolo__frame_writer *writer, const void *data, size_t bytes)
{
    unsigned char *place = extend(writer, bytes);
    if (place != NULL && bytes > 0)
        memcpy(place, data, bytes);
}

void kolo__put_blob(struct kolo__frame_writer *writer, const void *data, size_t bytes)
{
    kolo__put_u32(writer, (uint32_t)bytes);
    kolo__put_raw(writer, data, bytes);
}

void kolo__put_text(struct kolo__frame_writer *writer, const char *text)
{
    kolo__put_blob(writer, text, strlen(text));
}

void kolo__put_signature(struct kolo__frame_writer *writer, const struct kolo__signature *signature)
{
    kolo__put_u32(writer, signature->epoch);
    kolo__put_u32(writer, signature->comm);
    kolo__put_u64(writer, signature->sequence);
    kolo__put_u8(writer, signature->collective);
    kolo__put_u8(writer, signature->dtype);
    kolo__put_u8(writer, signature->op);
    kolo__put_u8(writer, signature->algorithm);
    kolo__put_u32(writer, signature->root);
    kolo__put_u64(writer, signature->count);
}

void kolo__put_announcement(struct kolo__frame_writer *writer,
                            const struct kolo__announcement *announcement)
{
    kolo__put_signature(writer, &announcement->signature);
    kolo__put_u64(writer, announcement->segment_bytes);
}

static void put_operation(struct kolo__frame_writer *writer,
                          const struct kolo__flight_operation *operation)
{
    kolo__put_u8(writer, (uint8_t)operation->phase);
    if (operation->phase == KOLO__FLIGHT_NONE)
        return;
    kolo__put_u8(writer, (uint8_t)operation->kind);
    kolo__put_u32(writer, operation->other);
    kolo__put_u32(writer, operation->step);
    kolo__put_u32(writer, operation->bucket);
    kolo__put_signature(writer, &operation->signature);
}

void kolo__put_beat(struct kolo__frame_writer *writer, uint32_t timeout_ms,
                    const struct kolo__flight_state *state, uint64_t now_ns)
{
    const struct kolo__flight_operation none = {.phase = KOLO__FLIGHT_NONE};
    bool waits = state->waits.phase == KOLO__FLIGHT_CALLED; /* not: until it failed */
    uint64_t begin_ns = waits ? state->waits.wait_begin_ns : now_ns;
    kolo__put_u32(writer, timeout_ms);
    kolo__put_u32(writer, now_ns > begin_ns ? (uint32_t)((now_ns - begin_ns) / MILLISECOND) : 0);
    put_operation(writer, waits ? &state->waits : &none);
    put_operation(writer, &state->last);
    kolo__put_u8(writer, state->in_reducer);
    kolo__put_u32(writer, state->count);
    for (uint32_t i = 0; i < state->count; i++) {
        const struct kolo__flight_place *place = &state->places[i];
        kolo__put_u32(writer, place->comm);
        kolo__put_u32(writer, place->size);
        kolo__put_u8(writer, place->joined);
        kolo__put_u64(writer, place->entered);
        put_operation(writer, &place->last);
    }
}

void kolo__put_report(struct kolo__frame_writer *writer, const struct kolo__verdict_report *report)
{
    kolo__put_u32(writer, report->comm);
    kolo__put_u32(writer, report->count);
    for (uint32_t i = 0; i < report->count; i++)
        kolo__put_signature(writer, &report->recent[i]);
    kolo__put_u8(writer, (uint8_t)report->needs);
    kolo__put_u32(writer, report->from);
    kolo__put_signature(writer, &report->waited_in);
    kolo__put_u32(writer, report->sent_count);
    for (uint32_t i = 0; i < report->sent_count; i++) {
        kolo__put_u32(writer, report->sent[i].to);
        kolo__put_u64(writer, report->sent[i].messages);
    }
}

void kolo__frame_writer_free(struct kolo__frame_writer *writer)
{
    free(writer->data);
    memset(writer, 0, sizeof *writer);
}

size_t kolo__frame_split(const unsigned char *data, size_t bytes, size_t payload_max,
                         uint16_t *type, struct kolo__frame_reader *payload)
{
    if (bytes < KOLO__FRAME_HEAD_BYTES)
        return 0;
    size_t length = kolo__load_u32(data);
    if (length > payload_max || kolo__load_u16(data + 6) != 0)
        return (size_t)-1;
    *type = kolo__load_u16(data + 4);
    if (bytes < KOLO__FRAME_HEAD_BYTES + length)
        return 0;
    payload->next = data + KOLO__FRAME_HEAD_BYTES;
    payload->end = payload->next + length;
    payload->bad = false;
    return KOLO__FRAME_HEAD_BYTES + length;
}

size_t kolo__frame_parse(const unsigned char *data, size_t bytes, size_t payload_max,
                         enum kolo__frame_type *type, struct kolo__frame_reader *payload)
{
    uint16_t kind = KOLO__FRAME_JOIN;
    size_t length = kolo__frame_split(data, bytes, payload_max, &kind, payload);
    if (kind < KOLO__FRAME_JOIN || kind > KOLO__FRAME_NEWCOMERS)
        return (size_t)-1;
    *type = (enum kolo__frame_type)kind;
    return length;
}

/* The next bytes, or NULL (and bad) when they are not there. */
static const unsigned char *take(struct kolo__frame_reader *reader, size_t bytes)
{
    if (reader->bad || (size_t)(reader->end - reader->next) < bytes) {
        reader->bad = true;
        return NULL;
    }
    const unsigned char *place = reader->next;
    reader->next += bytes;
    return place;
}

uint8_t kolo__get_u8(struct kolo__frame_reader *reader)
{
    const unsigned char *place = take(reader, 1);
    return place != NULL ? *place : 0;
}

uint32_t kolo__get_u32(struct kolo__frame_reader *reader)
{
    const unsigned char *place = take(reader, 4);
    return place != NULL ? kolo__load_u32(place) : 0;
}

uint64_t kolo__get_u64(struct kolo__frame_reader *reader)
{
    const unsigned char *place = take(reader, 8);
    return place != NULL ? kolo__load_u64(place) : 0;
}

const unsigned char *kolo__get_blob(struct kolo__frame_reader *reader, size_t *bytes)
{
    *bytes = kolo__get_u32(reader);
    const unsigned char *place = take(reader, *bytes);
    if (place == NULL)
        *bytes = 0;
    return place;
}

void kolo__clean_text(char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
}

void kolo__get_text(struct kolo__frame_reader *reader, char *text, size_t bytes)
{
    size_t length;
    const unsigned char *place = kolo__get_blob(reader, &length);
    if (length > bytes - 1)
        length = bytes - 1;
    for (size_t i = 0; i < length; i++)
        text[i] = place[i] < 0x20 || place[i] == 0x7f ? '?' : (char)place[i];
    text[length] = '\0';
}

void kolo__get_signature(struct kolo__frame_reader *reader, struct kolo__signature *signature)
{
    memset(signature, 0, sizeof *signature);
    signature->epoch = kolo__get_u32(reader);
    signature->comm = kolo__get_u32(reader);
    signature->sequence = kolo__get_u64(reader);
    signature->collective = kolo__get_u8(reader);
    signature->dtype = kolo__get_u8(reader);
    signature->op = kolo__get_u8(reader);
    signature->algorithm = kolo__get_u8(reader);
    signature->root = kolo__get_u32(reader);
    signature->count = kolo__get_u64(reader);
}

void kolo__get_announcement(struct kolo__frame_reader *reader,
                            struct kolo__announcement *announcement)
{
    kolo__get_signature(reader, &announcement->signature);
    announcement->segment_bytes = kolo__get_u64(reader);
}

static void get_operation(struct kolo__frame_reader *reader,
                          struct kolo__flight_operation *operation)
{
    *operation = (struct kolo__flight_operation){.phase = KOLO__FLIGHT_NONE};
    uint8_t phase = kolo__get_u8(reader);
    uint8_t kind = phase != KOLO__FLIGHT_NONE ? kolo__get_u8(reader) : 0;
    reader->bad |= phase > KOLO__FLIGHT_FAILED || kind > KOLO__FLIGHT_RECV;
    if (reader->bad || phase == KOLO__FLIGHT_NONE)
        return;
    operation->phase = (enum kolo__flight_phase)phase;
    operation->kind = (enum kolo__flight_kind)kind;
    operation->other = kolo__get_u32(reader);
    operation->step = kolo__get_u32(reader);
    operation->bucket = kolo__get_u32(reader);
    kolo__get_signature(reader, &operation->signature);
}

void kolo__get_beat(struct kolo__frame_reader *reader, uint64_t now_ns, uint32_t *timeout_ms,
                    struct kolo__flight_state *state)
{
    *timeout_ms = kolo__get_u32(reader);
    uint64_t waited_ns = kolo__get_u32(reader) * MILLISECOND;
    get_operation(reader, &state->waits);
    get_operation(reader, &state->last);
    if (state->waits.phase != KOLO__FLIGHT_NONE && waited_ns < now_ns)
        state->waits.wait_begin_ns = now_ns - waited_ns;
    state->in_reducer = kolo__get_u8(reader) != 0;
    state->count = kolo__get_u32(reader);
    reader->bad |= state->count > KOLO__FLIGHT_COMMS;
    state->count = reader->bad ? 0 : state->count;
    for (uint32_t i = 0; i < state->count && !reader->bad; i++) {
        struct kolo__flight_place *place = &state->places[i];
        place->comm = kolo__get_u32(reader);
        place->size = kolo__get_u32(reader);
        place->joined = kolo__get_u8(reader) != 0;
        place->entered = kolo__get_u64(reader);
        get_operation(reader, &place->last);
    }
}

/* Memory is taken for what is there, not for what is promised. */
static void get_sent(struct kolo__frame_reader *reader, struct kolo__verdict_report *report)
{
    uint32_t count = kolo__get_u32(reader);
    if (count > KOLO__VERDICT_SENT_MAX || (size_t)(reader->end - reader->next) != count * 12u)
        reader->bad = true;
    if (reader->bad || count == 0)
        return;
    report->sent = calloc(count, sizeof *report->sent);
    if (report->sent == NULL) {
        report->needs = KOLO__NEEDS_NOBODY; /* what is not known cannot be judged */
        reader->next = reader->end;
        return;
    }
    report->sent_count = count;
    for (uint32_t i = 0; i < count; i++) {
        report->sent[i].to = kolo__get_u32(reader);
        report->sent[i].messages = kolo__get_u64(reader);
    }
}

void kolo__get_report(struct kolo__frame_reader *reader, struct kolo__verdict_report *report)
{
    memset(report, 0, sizeof *report);
    report->comm = kolo__get_u32(reader);
    report->count = kolo__get_u32(reader);
    if (report->count > KOLO__VERDICT_RECENT) {
        reader->bad = true;
        report->count = 0;
    }
    for (uint32_t i = 0; i < report->count; i++)
        kolo__get_signature(reader, &report->recent[i]);
    uint8_t needs = kolo__get_u8(reader);
    reader->bad |= needs > KOLO__NEEDS_ALL;
    report->needs = reader->bad ? KOLO__NEEDS_NOBODY : (enum kolo__verdict_needs)needs;
    report->from = kolo__get_u32(reader);
    kolo__get_signature(reader, &report->waited_in);
    get_sent(reader, report);
}

bool kolo__frame_done(const struct kolo__frame_reader *reader)
{
    return !reader->bad && reader->next == reader->end;
}
