/* SPDX-License-Identifier: Apache-2.0 */
/* What flight recorders hold, as a reader takes it out. The memory may be that of processes which
 * run, and of programs that wrote nonsense into it. */
#include "runtime/flight.h"

#include <stdio.h>
#include <string.h>

/* ---- operations ------------------------------------------------------------------------------ */

static uint32_t load_32(const _Atomic uint32_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static uint64_t load_64(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static struct kolo__flight_operation read_entry(const struct kolo__flight_entry *entry)
{
    uint64_t place = load_64(&entry->place), what = load_64(&entry->what);
    uint64_t part = load_64(&entry->part), begin_ns = load_64(&entry->wait_begin_ns);
    return (struct kolo__flight_operation){
        .signature = {.comm = (uint32_t)(place >> 32),
                      .sequence = load_64(&entry->sequence),
                      .collective = (uint8_t)what,
                      .dtype = (uint8_t)(what >> 24),
                      .op = (uint8_t)(what >> 16),
                      .algorithm = (uint8_t)(what >> 8),
                      .root = (uint32_t)place,
                      .count = load_64(&entry->count)},
        .kind = (enum kolo__flight_kind)(what >> 32),
        .phase = (enum kolo__flight_phase)load_64(&entry->phase),
        .other = (uint32_t)place,
        .step = (uint32_t)(part >> 32),
        .bucket = (uint32_t)part,
        .wait_begin_ns = begin_ns,
        .wait_end_ns = begin_ns != 0 ? load_64(&entry->wait_end_ns) : 0,
    };
}

uint32_t kolo__flight_operations(const struct kolo__flight *flight,
                                 struct kolo__flight_operation *operations, uint32_t count)
{
    uint64_t last = load_64(&flight->pages_taken);
    uint32_t found = 0;
    /* Backwards, to the end of the array; moved to its beginning afterwards. */
    for (uint64_t back = 0; back < KOLO__FLIGHT_PAGES && back < last && found < count; back++) {
        uint32_t page = (uint32_t)((last - back) % KOLO__FLIGHT_PAGES);
        if (load_64(&flight->page_number[page]) != last - back)
            continue;
        for (int i = KOLO__FLIGHT_PAGE_ENTRIES - 1; i >= 0 && found < count; i--) {
            struct kolo__flight_operation operation = read_entry(&flight->pages[page][i]);
            if (operation.phase != KOLO__FLIGHT_NONE)
                operations[count - ++found] = operation;
        }
    }
    memmove(operations, operations + (count - found), found * sizeof *operations);
    return found;
}

bool kolo__flight_find(const struct kolo__flight *flight, uint32_t comm, uint64_t sequence,
                       struct kolo__flight_operation *operation)
{
    for (uint32_t page = 0; page < KOLO__FLIGHT_PAGES; page++)
        for (uint32_t i = 0; i < KOLO__FLIGHT_PAGE_ENTRIES; i++) {
            *operation = read_entry(&flight->pages[page][i]);
            if (operation->phase != KOLO__FLIGHT_NONE &&
                operation->kind == KOLO__FLIGHT_COLLECTIVE && operation->signature.comm == comm &&
                operation->signature.sequence == sequence)
                return true;
        }
    return false;
}

const char *kolo__flight_operation_text(const struct kolo__flight_operation *operation, char *text,
                                        size_t bytes)
{
    char signature[160];
    kolo__signature_text(&operation->signature, signature, sizeof signature);
    if (operation->kind != KOLO__FLIGHT_COLLECTIVE)
        snprintf(text, bytes, "%s rank %u, %s",
                 operation->kind == KOLO__FLIGHT_SEND ? "send to" : "receive from",
                 operation->other, signature);
    else if (operation->step != 0 && operation->bucket != 0)
        snprintf(text, bytes, "%s, bucket %u of step %u", signature, operation->bucket,
                 operation->step);
    else if (operation->step != 0)
        snprintf(text, bytes, "%s, of step %u", signature, operation->step);
    else
        snprintf(text, bytes, "%s", signature);
    return text;
}

/* A wait that failed is one as long as nothing was called after it. */
static bool waits(const struct kolo__flight_operation *operation,
                  const struct kolo__flight_operation *last)
{
    bool failed = operation->phase == KOLO__FLIGHT_FAILED;
    return operation->wait_begin_ns != 0 && (operation->phase == KOLO__FLIGHT_CALLED ||
                                             (failed && last->phase == KOLO__FLIGHT_FAILED));
}

static void take_places(const struct kolo__flight *flight, struct kolo__flight_state *state)
{
    for (uint32_t i = 0; i < KOLO__FLIGHT_COMMS; i++) {
        const struct kolo__flight_comm *line = &flight->comms[i];
        uint32_t id_plus_1 = load_32(&line->id_plus_1);
        if (id_plus_1 != 0)
            state->places[state->count++] =
                (struct kolo__flight_place){.comm = id_plus_1 - 1,
                                            .size = load_32(&line->size),
                                            .joined = load_32(&line->joined) != 0,
                                            .entered = load_64(&line->entered),
                                            .last.phase = KOLO__FLIGHT_NONE};
    }
}

static void take_entry(const struct kolo__flight_operation *one, struct kolo__flight_state *state)
{
    if (waits(one, &state->last) && one->wait_begin_ns > state->waits.wait_begin_ns)
        state->waits = *one;
    for (uint32_t i = 0; i < state->count && one->kind == KOLO__FLIGHT_COLLECTIVE; i++)
        if (state->places[i].comm == one->signature.comm &&
            state->places[i].entered == one->signature.sequence)
            state->places[i].last = *one;
}

void kolo__flight_take_state(const struct kolo__flight *flight, struct kolo__flight_state *state)
{
    const char process = state->process;
    memset(state, 0, sizeof *state);
    state->process = process;
    state->flight = flight;
    state->rank = flight->rank;
    state->world_size = flight->world_size;
    snprintf(state->host, sizeof state->host, "%.*s", (int)sizeof flight->host - 1, flight->host);
    if (load_32(&flight->version) != KOLO__FLIGHT_VERSION)
        return; /* nobody's, or of a rank that moves to its next epoch */
    state->open = true;
    state->left = load_64(&flight->left_ns) != 0;
    state->in_reducer = load_32(&flight->in_reducers) > 0;
    state->has_called = load_64(&flight->pages_taken) > 0;
    kolo__flight_operations(flight, &state->last, 1);
    take_places(flight, state);
    for (uint32_t page = 0; page < KOLO__FLIGHT_PAGES; page++)
        for (uint32_t i = 0; i < KOLO__FLIGHT_PAGE_ENTRIES; i++) {
            struct kolo__flight_operation one = read_entry(&flight->pages[page][i]);
            if (one.phase != KOLO__FLIGHT_NONE)
                take_entry(&one, state);
        }
}

/* ---- from another host ----------------------------------------------------------------------- */

static void shift(_Atomic uint64_t *time_ns, uint64_t by_ns)
{
    uint64_t time = load_64(time_ns);
    if (time != 0)
        atomic_store_explicit(time_ns, time + by_ns, memory_order_relaxed);
}

bool kolo__flight_import(struct kolo__flight *flight, const void *bytes, size_t count,
                         uint64_t their_ns, uint64_t our_ns)
{
    if (count != sizeof *flight)
        return false;
    memcpy(flight, bytes, sizeof *flight);
    if (load_32(&flight->version) != KOLO__FLIGHT_VERSION)
        return false;
    uint64_t by_ns = our_ns - their_ns; /* modulo 2^64 */
    flight->began_ns += by_ns;
    for (uint32_t page = 0; page < KOLO__FLIGHT_PAGES; page++)
        for (uint32_t i = 0; i < KOLO__FLIGHT_PAGE_ENTRIES; i++) {
            shift(&flight->pages[page][i].wait_begin_ns, by_ns);
            shift(&flight->pages[page][i].wait_end_ns, by_ns);
        }
    return true;
}
