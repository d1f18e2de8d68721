/* SPDX-License-Identifier: Apache-2.0 */
/* See names.h. */
#include "runtime/reducer/names.h"

#include "base/status.h"
#include "runtime/reducer/tensors.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the table --------------------------------------------------------------------------------
 */

static uint64_t hash_of(const char *name)
{
    uint64_t hash = 0x6b6f6c6f;
    for (; *name != '\0'; name++)
        hash = (hash ^ (unsigned char)*name) * 0x9e3779b97f4a7c15u, hash ^= hash >> 29;
    return hash;
}

void kolo__names_free(struct kolo__names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free((void *)(uintptr_t)names->entries[i].tensor.name);
    free(names->entries);
    free(names->slots);
    *names = (struct kolo__names){0};
}

struct kolo__name *kolo__names_find(const struct kolo__names *names, const char *name)
{
    if (names->slot_count == 0)
        return NULL;
    uint64_t hash = hash_of(name);
    for (size_t slot = hash; names->slots[slot & (names->slot_count - 1)] != 0; slot++) {
        struct kolo__name *entry =
            &names->entries[names->slots[slot & (names->slot_count - 1)] - 1];
        if (entry->hash == hash && strcmp(entry->tensor.name, name) == 0)
            return entry;
    }
    return NULL;
}

static void enter(struct kolo__names *names, size_t index)
{
    size_t slot = names->entries[index].hash;
    while (names->slots[slot & (names->slot_count - 1)] != 0)
        slot++;
    names->slots[slot & (names->slot_count - 1)] = (uint32_t)index + 1;
}

static bool make_room(struct kolo__names *names)
{
    if (names->count < names->capacity)
        return true;
    size_t capacity = names->capacity > 0 ? 2 * names->capacity : 64;
    struct kolo__name *entries = realloc(names->entries, capacity * sizeof *entries);
    if (entries == NULL)
        return false;
    names->entries = entries;
    uint32_t *slots = calloc(2 * capacity, sizeof *slots);
    if (slots == NULL)
        return false;
    free(names->slots);
    names->slots = slots;
    names->slot_count = 2 * capacity;
    names->capacity = capacity;
    for (size_t i = 0; i < names->count; i++)
        enter(names, i);
    return true;
}

kolo_status kolo__names_add(struct kolo__names *names, const kolo_tensor *tensor,
                            uint32_t announced_by, struct kolo__name **added)
{
    if (names->count >= KOLO__NAMES_MAX)
        return kolo__error(
            KOLO_ERR_INVALID,
            "kolo_named_wait: more than %d names, the last one '%.80s': use the same "
            "names again in every step",
            KOLO__NAMES_MAX, tensor->name);
    char *name = make_room(names) ? strdup(tensor->name) : NULL;
    if (name == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "kolo_named: no memory for name %zu, '%.80s'",
                           names->count, tensor->name);
    struct kolo__name *entry = &names->entries[names->count];
    *entry =
        (struct kolo__name){.tensor = *tensor, .hash = hash_of(name), .announced_by = announced_by};
    entry->tensor.name = name;
    entry->tensor.data = NULL;
    enter(names, names->count++);
    *added = entry;
    return KOLO_OK;
}

bool kolo__names_agree(const kolo_tensor *a, const kolo_tensor *b)
{
    bool same = a->count == b->count && a->dtype == b->dtype && a->dimensions == b->dimensions;
    for (int d = 0; same && d < a->dimensions; d++)
        same = a->shape[d] == b->shape[d];
    return same;
}

/* ---- announcements ----------------------------------------------------------------------------
 */

void kolo__names_write(const struct kolo__names *names, struct kolo__frame_writer *writer)
{
    kolo__put_u32(writer, (uint32_t)names->count);
    for (size_t i = 0; i < names->count; i++) {
        const kolo_tensor *tensor = &names->entries[i].tensor;
        kolo__put_text(writer, tensor->name);
        kolo__put_u32(writer, names->entries[i].announced_by);
        kolo__put_u64(writer, tensor->count);
        kolo__put_u8(writer, (uint8_t)tensor->dtype);
        kolo__put_u8(writer, (uint8_t)tensor->dimensions);
        for (int d = 0; d < tensor->dimensions; d++)
            kolo__put_u64(writer, tensor->shape[d]);
    }
}

/* False: no announcement. The tensor's name is `name`. */
static bool read_one(struct kolo__frame_reader *reader, kolo_tensor *tensor,
                     char name[KOLO__NAME_BYTES_MAX + 1], uint32_t *announced_by)
{
    size_t length;
    const unsigned char *bytes = kolo__get_blob(reader, &length);
    if (bytes == NULL || length == 0 || length > KOLO__NAME_BYTES_MAX ||
        memchr(bytes, '\0', length) != NULL)
        return false;
    memcpy(name, bytes, length);
    name[length] = '\0';
    *announced_by = kolo__get_u32(reader);
    *tensor = (kolo_tensor){.name = name, .count = kolo__get_u64(reader)};
    tensor->dtype = (kolo_dtype)kolo__get_u8(reader);
    tensor->dimensions = kolo__get_u8(reader);
    if (tensor->dimensions > KOLO_TENSOR_DIMENSIONS_MAX)
        return false;
    for (int d = 0; d < tensor->dimensions; d++)
        tensor->shape[d] = kolo__get_u64(reader);
    return !reader->bad &&
           kolo__tensors_check("an announcement", tensor, 1, false, NULL) == KOLO_OK;
}

static void describe_difference(const struct kolo__name *known, const kolo_tensor *tensor,
                                uint32_t rank, char text[KOLO__NAMES_TEXT_BYTES])
{
    char theirs[80], ours[80], name[KOLO__TENSOR_NAME_BYTES];
    struct kolo__tensor_record record;
    kolo__tensor_record(&known->tensor, &record);
    kolo__tensor_describe(&record, theirs, sizeof theirs);
    kolo__tensor_record(tensor, &record);
    kolo__tensor_describe(&record, ours, sizeof ours);
    snprintf(name, sizeof name, "%s", tensor->name);
    kolo__clean_text(name);
    snprintf(text, KOLO__NAMES_TEXT_BYTES,
             "tensor '%s' is %s on rank %u, which announced it, "
             "%s on rank %u",
             name, theirs, known->announced_by, ours, rank);
}

kolo_status kolo__names_merge(struct kolo__names *names, const unsigned char *data, size_t bytes,
                              size_t *differences, char text[KOLO__NAMES_TEXT_BYTES])
{
    struct kolo__frame_reader reader = {.next = data, .end = data + bytes};
    char name[KOLO__NAME_BYTES_MAX + 1];
    uint32_t count = kolo__get_u32(&reader), rank;
    kolo_tensor tensor;
    for (uint32_t i = 0; i < count; i++) {
        if (!read_one(&reader, &tensor, name, &rank))
            return kolo__error(KOLO_ERR_NETWORK, "kolo_named_wait: what came is no list of names");
        struct kolo__name *known = kolo__names_find(names, name);
        if (known == NULL) {
            kolo_status status = kolo__names_add(names, &tensor, rank, &known);
            if (status != KOLO_OK)
                return status;
        } else if (!kolo__names_agree(&known->tensor, &tensor) && ++*differences == 1) {
            describe_difference(known, &tensor, rank, text);
        }
    }
    if (!kolo__frame_done(&reader))
        return kolo__error(KOLO_ERR_NETWORK, "kolo_named_wait: what came is no list of names");
    return KOLO_OK;
}

/* ---- texts ------------------------------------------------------------------------------------
 */

/* A text that is cut where its memory ends. */
struct text {
    char *bytes;
    size_t length, capacity;
};

__attribute__((format(printf, 2, 3))) static void add(struct text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length =
        vsnprintf(text->bytes + text->length, text->capacity - text->length, format, arguments);
    va_end(arguments);
    text->length += length > 0 ? (size_t)length : 0;
    if (text->length >= text->capacity)
        text->length = text->capacity - 1;
}

static void add_name(struct text *text, const char *name)
{
    char clean[KOLO__TENSOR_NAME_BYTES];
    snprintf(clean, sizeof clean, "%s", name);
    kolo__clean_text(clean);
    add(text, "'%s'", clean);
}

enum { SHOWN_NAMES = 4, SHOWN_RANKS = 8 };

static void add_ranks_without(struct text *text, const uint64_t *lacks, size_t words,
                              uint32_t ranks, uint32_t lacking, size_t bit)
{
    uint32_t shown = 0;
    for (uint32_t r = 0; r < ranks && shown < SHOWN_RANKS; r++)
        if (kolo__bit(lacks + r * words, bit))
            add(text, "%s%u", shown++ > 0 ? ", " : " ", r);
    if (lacking > shown)
        add(text, " and %u more", lacking - shown);
}

size_t kolo__names_missing(const struct kolo__names *names, size_t count, const uint64_t *lacks,
                           size_t words, uint32_t ranks, bool here, uint64_t before_ns, char *bytes,
                           size_t capacity)
{
    struct text text = {.bytes = bytes, .capacity = capacity};
    size_t found = 0;
    bytes[0] = '\0';
    for (size_t i = 0; i < count && i < names->count; i++) {
        const struct kolo__name *entry = &names->entries[i];
        uint32_t lacking = 0;
        for (uint32_t r = 0; r < ranks; r++)
            lacking += kolo__bit(lacks + r * words, i);
        if (lacking == 0 || lacking == ranks ||
            (here && (!entry->pending || entry->since_ns > before_ns)) || found++ >= SHOWN_NAMES)
            continue;
        add(&text, "%s", found > 1 ? "; " : "");
        add_name(&text, entry->tensor.name);
        add(&text, " has not come from rank%s", lacking > 1 ? "s" : "");
        add_ranks_without(&text, lacks, words, ranks, lacking, i);
    }
    if (found > SHOWN_NAMES)
        add(&text, "; and so %zu more", found - SHOWN_NAMES);
    return found;
}

void kolo__names_pending(const struct kolo__names *names, const struct kolo__names *fresh,
                         char *bytes, size_t capacity)
{
    const struct kolo__names *both[] = {names, fresh};
    struct text text = {.bytes = bytes, .capacity = capacity};
    size_t found = 0;
    bytes[0] = '\0';
    for (int k = 0; k < 2; k++)
        for (size_t i = 0; i < both[k]->count; i++) {
            if (!both[k]->entries[i].pending || found++ >= SHOWN_NAMES)
                continue;
            add(&text, "%s", found > 1 ? ", " : "");
            add_name(&text, both[k]->entries[i].tensor.name);
        }
    if (found > SHOWN_NAMES)
        add(&text, " and %zu more", found - SHOWN_NAMES);
}
