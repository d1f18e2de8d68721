/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Measured constants in a file, so that they are measured once a machine and layout:
 *
 *     kolo costs 1
 *     AMD EPYC ...; caches 49152 1048576 33554432; cpus 2; Linux 6.1.0; ranks 2, bound
 *     messages 1500000000 200000            a message, a byte of it
 *     fences 190000000 75000000             the first of an operation, a later one
 *     memory 49152 6000 10000 24000         up to so many bytes: a byte mapped, by SLOT, reduced
 *     memory ...                            for each level
 *     check 0123456789abcdef                FNV-1a of all before
 *
 * Times are whole femtoseconds: what is read does not depend on the locale. Anybody may have
 * written into the file, so what it says is believed only within bounds, and costs at most time.
 */
#include "runtime/costs.h"

#include "runtime/cache_file.h"
#include "runtime/cpus.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#define FIRST_LINE       "kolo costs 1"
#define FEMTOSECONDS     1e15
#define BYTE_LEAST       1
#define BYTE_MOST        1000000000 /* a microsecond */
#define EVENT_LEAST      1000
#define EVENT_MOST       1000000000000000 /* a second */
#define LEVEL_BYTES_MOST (UINT64_C(1) << 50)

/* ---- what they depend on ------------------------------------------------------------------- */

enum kolo__costs_layout kolo__costs_layout(uint32_t ranks, bool crowded)
{
    cpu_set_t set;
    if (crowded)
        return KOLO__LAYOUT_OVERSUBSCRIBED;
    /* Bound: its processors are no more than its share of them. */
    if (sched_getaffinity(0, sizeof set, &set) == 0 &&
        (uint64_t)CPU_COUNT(&set) * ranks <= (uint64_t)sysconf(_SC_NPROCESSORS_ONLN))
        return KOLO__LAYOUT_BOUND;
    return KOLO__LAYOUT_FREE;
}

void kolo__costs_key(uint32_t ranks, enum kolo__costs_layout layout,
                     char key[KOLO__COSTS_KEY_BYTES])
{
    static const char *const layouts[] = {"bound", "free", "oversubscribed"};
    char processor[128];
    struct utsname system;
    double levels[KOLO__COST_LEVELS];
    kolo__cache_processor(processor, sizeof processor);
    kolo__costs_levels(ranks, levels);
    snprintf(key, KOLO__COSTS_KEY_BYTES,
             "%s; caches %.0f %.0f %.0f; cpus %d; Linux %.100s; ranks %u, %s", processor, levels[0],
             levels[1], levels[2], kolo__usable_cpus(),
             uname(&system) == 0 ? system.release : "unknown", ranks, layouts[layout]);
    /* One line: whatever the processor calls itself. */
    for (char *c = key; *c != '\0'; c++)
        if (*c == '\n' || *c == '\r')
            *c = ' ';
}

bool kolo__costs_path(const char *key, char path[PATH_MAX])
{
    return kolo__cache_path("costs", key, path);
}

/* ---- writing -------------------------------------------------------------------------------- */

static uint64_t femtoseconds(double seconds, uint64_t least, uint64_t most)
{
    double whole = seconds * FEMTOSECONDS + 0.5;
    if (!(whole >= (double)least)) /* NaN, too */
        return least;
    return whole >= (double)most ? most : (uint64_t)whole;
}

static uint64_t event(double seconds)
{
    return femtoseconds(seconds, EVENT_LEAST, EVENT_MOST);
}

static uint64_t byte(double seconds)
{
    return femtoseconds(seconds, BYTE_LEAST, BYTE_MOST);
}

size_t kolo__costs_text(const char *key, const struct kolo__cost_model *model,
                        char text[KOLO__COSTS_TEXT_BYTES])
{
    size_t length = (size_t)snprintf(
        text, KOLO__COSTS_TEXT_BYTES,
        FIRST_LINE "\n%.*s\nmessages %" PRIu64 " %" PRIu64 "\nfences %" PRIu64 " %" PRIu64 "\n",
        KOLO__COSTS_KEY_BYTES, key, event(model->message_local), byte(model->byte_local),
        event(model->fence), event(model->next_fence));
    for (int level = 0; level < KOLO__COST_LEVELS; level++) {
        const struct kolo__memory_cost *memory = &model->memory[level];
        length += (size_t)snprintf(text + length, KOLO__COSTS_TEXT_BYTES - length,
                                   "memory %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
                                   (uint64_t)memory->bytes, byte(memory->mapped),
                                   byte(memory->slot), byte(memory->reduced));
    }
    length += (size_t)snprintf(text + length, KOLO__COSTS_TEXT_BYTES - length,
                               "check %016" PRIx64 "\n", kolo__cache_hash(text, length));
    return length;
}

/* ---- reading -------------------------------------------------------------------------------- */

struct reader {
    const char *at, *end;
    bool wrong;
};

static void expect(struct reader *reader, const char *text)
{
    size_t length = strlen(text);
    if (reader->wrong || (size_t)(reader->end - reader->at) < length ||
        memcmp(reader->at, text, length) != 0)
        reader->wrong = true;
    else
        reader->at += length;
}

static double number(struct reader *reader, uint64_t least, uint64_t most)
{
    uint64_t value = 0;
    const char *begin = reader->at;
    expect(reader, " ");
    while (!reader->wrong && reader->at < reader->end && *reader->at >= '0' && *reader->at <= '9') {
        value = 10 * value + (uint64_t)(*reader->at++ - '0');
        reader->wrong = value > most;
    }
    reader->wrong |= value < least || reader->at < begin + 2;
    return (double)value;
}

static double read_event(struct reader *reader)
{
    return number(reader, EVENT_LEAST, EVENT_MOST) / FEMTOSECONDS;
}

static double read_byte(struct reader *reader)
{
    return number(reader, BYTE_LEAST, BYTE_MOST) / FEMTOSECONDS;
}

bool kolo__costs_parse(const char *text, size_t bytes, const char *key,
                       struct kolo__cost_model *model)
{
    struct reader reader = {.at = text, .end = text + bytes};
    struct kolo__cost_model read = kolo__default_cost_model;
    char check[40];
    expect(&reader, FIRST_LINE "\n");
    expect(&reader, key);
    expect(&reader, "\nmessages");
    read.message_local = read_event(&reader);
    read.byte_local = read_byte(&reader);
    expect(&reader, "\nfences");
    read.fence = read_event(&reader);
    read.next_fence = read_event(&reader);
    read.fence_rank = 0;
    expect(&reader, "\n");
    for (int level = 0; level < KOLO__COST_LEVELS; level++) {
        struct kolo__memory_cost *memory = &read.memory[level];
        expect(&reader, "memory");
        memory->bytes = number(&reader, 0, LEVEL_BYTES_MOST);
        memory->mapped = read_byte(&reader);
        memory->slot = read_byte(&reader);
        memory->reduced = read_byte(&reader);
        expect(&reader, "\n");
    }
    if (reader.wrong)
        return false;
    snprintf(check, sizeof check, "check %016" PRIx64 "\n",
             kolo__cache_hash(text, (size_t)(reader.at - text)));
    expect(&reader, check);
    if (reader.wrong || reader.at != reader.end)
        return false;
    *model = read;
    return true;
}

/* ---- the file ------------------------------------------------------------------------------- */

bool kolo__costs_load(const char *path, const char *key, struct kolo__cost_model *model)
{
    char text[KOLO__COSTS_TEXT_BYTES];
    size_t length = kolo__cache_read(path, text, sizeof text);
    return length > 0 && kolo__costs_parse(text, length, key, model);
}

bool kolo__costs_save(const char *path, const char *key, const struct kolo__cost_model *model)
{
    char text[KOLO__COSTS_TEXT_BYTES];
    return kolo__cache_write(path, text, kolo__costs_text(key, model, text));
}
