/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What flight recorders say: who holds up whom. Pure: memory in, text out. The memory may be that
 * of processes which run, and of programs that wrote nonsense into it: numbers are only ever
 * compared and shown.
 *
 * On each communicator, the ranks that have entered the latest collective and wait for it wait for
 * those that have not. If these wait in another operation of kolo, they are held up themselves; so
 * the one to look at is a rank behind that waits for nobody.
 */
#include "runtime/flight.h"

#include "runtime/frame.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double SECOND = 1e9;

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

/* ---- the verdict ----------------------------------------------------------------------------- */

/* A rank's place on one communicator. */
struct place {
    const struct kolo__flight_rank *rank; /* NULL: no recorder of it was found */
    const struct kolo__flight_comm *line;
    uint64_t entered, completed;
    struct kolo__flight_operation last; /* the collective that it entered last; phase NONE: gone */
};

static bool is_open(const struct kolo__flight *flight)
{
    return load_32(&flight->version) == KOLO__FLIGHT_VERSION;
}

/* Or did so until the communicator failed. */
static bool waits(const struct kolo__flight_operation *operation)
{
    return operation->wait_begin_ns != 0 && operation->phase != KOLO__FLIGHT_DONE &&
           operation->phase != KOLO__FLIGHT_NONE;
}

static uint64_t waited_ns(const struct kolo__flight_operation *operation, uint64_t now_ns)
{
    uint64_t end_ns = operation->phase == KOLO__FLIGHT_FAILED ? operation->wait_end_ns : now_ns;
    return end_ns > operation->wait_begin_ns ? end_ns - operation->wait_begin_ns : 0;
}

bool kolo__flight_waiting(const struct kolo__flight *flight,
                          struct kolo__flight_operation *operation)
{
    bool found = false;
    for (uint32_t page = 0; page < KOLO__FLIGHT_PAGES; page++)
        for (uint32_t i = 0; i < KOLO__FLIGHT_PAGE_ENTRIES; i++) {
            struct kolo__flight_operation one = read_entry(&flight->pages[page][i]);
            if (waits(&one) && (!found || one.wait_begin_ns > operation->wait_begin_ns)) {
                *operation = one;
                found = true;
            }
        }
    return found;
}

static struct place find_place(const struct kolo__flight_rank *rank, uint32_t comm)
{
    struct place place = {.rank = rank};
    for (uint32_t i = 0; i < KOLO__FLIGHT_COMMS; i++) {
        const struct kolo__flight_comm *line = &rank->flight->comms[i];
        if (load_32(&line->id_plus_1) != comm + 1)
            continue;
        place.line = line;
        place.entered = load_64(&line->entered);
        place.completed = load_64(&line->completed);
        kolo__flight_find(rank->flight, comm, place.entered, &place.last);
        break;
    }
    return place;
}

/* What a rank that is behind does instead. */
static void describe_absence(const struct place *place, char *text, size_t bytes)
{
    struct kolo__flight_operation other;
    char what[240];
    if (place->rank->state == 0)
        snprintf(text, bytes, "its process has ended");
    else if (place->rank->state == 'T' || place->rank->state == 't')
        snprintf(text, bytes, "it is stopped (SIGSTOP, or a debugger)");
    else if (load_64(&place->rank->flight->left_ns) != 0)
        snprintf(text, bytes, "it has left (kolo_finalize)");
    else if (kolo__flight_waiting(place->rank->flight, &other))
        snprintf(text, bytes, "it waits in %s",
                 kolo__flight_operation_text(&other, what, sizeof what));
    else if (place->entered == 0)
        snprintf(text, bytes, "it is outside of kolo");
    else
        snprintf(text, bytes, "it is outside of kolo, after %s",
                 place->last.phase != KOLO__FLIGHT_NONE
                     ? kolo__flight_operation_text(&place->last, what, sizeof what)
                     : "its last collective");
}

/* A communicator's ranks, as far as they are known. */
struct view {
    struct place *places;
    uint32_t count, size, waiting, behind, differ;
    uint64_t front;                    /* the latest collective that anybody has entered */
    const struct place *ahead, *first; /* one that waits there; the one to look at */
    const struct place *other;         /* that entered something else under that number */
    uint64_t longest_ns;               /* of those that wait */
};

static bool holds_nobody_up(const struct place *place)
{
    struct kolo__flight_operation other;
    return place->rank->state != 0 && kolo__flight_waiting(place->rank->flight, &other);
}

static void look_at(struct view *view, const struct kolo__flight_rank *ranks, uint32_t count,
                    uint32_t comm, uint64_t now_ns)
{
    for (uint32_t i = 0; i < count; i++) {
        struct place place = find_place(&ranks[i], comm);
        if (place.line == NULL)
            continue;
        view->places[view->count++] = place;
        view->size = load_32(&place.line->size);
        if (place.entered > view->front)
            view->front = place.entered;
    }
    for (uint32_t i = 0; i < view->count; i++) {
        const struct place *place = &view->places[i];
        if (place->entered < view->front) {
            view->behind++;
            bool better =
                view->first == NULL || (holds_nobody_up(view->first) && !holds_nobody_up(place));
            view->first = better ? place : view->first;
        } else if (place->completed < view->front && waits(&place->last)) {
            uint64_t waited = waited_ns(&place->last, now_ns);
            view->waiting++;
            view->ahead = view->ahead == NULL ? place : view->ahead;
            view->longest_ns = waited > view->longest_ns ? waited : view->longest_ns;
        }
    }
    for (uint32_t i = 0; view->ahead != NULL && i < view->count; i++) {
        const struct kolo__signature *a = &view->ahead->last.signature;
        const struct place *place = &view->places[i];
        const struct kolo__signature *b = &place->last.signature;
        if (place->entered == view->front && place->last.phase != KOLO__FLIGHT_NONE &&
            (a->collective != b->collective || a->count != b->count || a->dtype != b->dtype ||
             a->op != b->op || a->root != b->root)) {
            view->differ++;
            view->other = place;
        }
    }
}

static void describe(const struct view *view, char *text, size_t bytes)
{
    char what[240], absence[320], theirs[240];
    double seconds = (double)view->longest_ns / SECOND;
    const char *plural = view->waiting == 1 ? " waits" : "s wait";
    kolo__flight_operation_text(&view->ahead->last, what, sizeof what);
    if (view->other != NULL) {
        snprintf(text, bytes, "rank %u (host %.63s) called %s where rank %u called %s",
                 view->other->rank->flight->rank, view->other->rank->flight->host,
                 kolo__flight_operation_text(&view->other->last, theirs, sizeof theirs),
                 view->ahead->rank->flight->rank, what);
    } else if (view->behind > 0) {
        describe_absence(view->first, absence, sizeof absence);
        char others[40] = "";
        if (view->behind > 1)
            snprintf(others, sizeof others, " (nor did %u more)", view->behind - 1);
        snprintf(text, bytes, "rank %u (host %.63s) never entered %s%s; %s; %u rank%s since %.1f s",
                 view->first->rank->flight->rank, view->first->rank->flight->host, what, others,
                 absence, view->waiting, plural, seconds);
    } else if (view->count < view->size) {
        snprintf(text, bytes,
                 "%u rank%s in %s since %.1f s, and all that are known here have entered it: look "
                 "at the other %u of its %u ranks, on their hosts",
                 view->waiting, plural, what, seconds, view->size - view->count, view->size);
    } else {
        snprintf(text, bytes, "all %u ranks have entered %s, and %u rank%s since %.1f s",
                 view->size, what, view->waiting, plural, seconds);
    }
}

static enum kolo__flight_finding find(const struct view *view)
{
    if (view->waiting == 0)
        return KOLO__FLIGHT_NOBODY_WAITS;
    if (view->other != NULL)
        return KOLO__FLIGHT_DIFFERS;
    if (view->behind > 0)
        return holds_nobody_up(view->first) ? KOLO__FLIGHT_BEHIND_IN_TURN : KOLO__FLIGHT_BEHIND;
    return view->count < view->size ? KOLO__FLIGHT_ELSEWHERE : KOLO__FLIGHT_ALL_ENTERED;
}

/* Of several communicators on which ranks wait the plainest finding counts, then the longest wait.
 */
enum kolo__flight_finding kolo__flight_verdict(const struct kolo__flight_rank *ranks,
                                               uint32_t count, uint64_t now_ns, char *text,
                                               size_t bytes)
{
    enum kolo__flight_finding best = KOLO__FLIGHT_NOBODY_WAITS;
    uint64_t longest_ns = 0;
    text[0] = '\0';
    struct place *places = calloc(count > 0 ? count : 1, sizeof *places);
    for (uint32_t r = 0; places != NULL && r < count; r++)
        for (uint32_t i = 0; is_open(ranks[r].flight) && i < KOLO__FLIGHT_COMMS; i++) {
            uint32_t id_plus_1 = load_32(&ranks[r].flight->comms[i].id_plus_1);
            struct view view = {.places = places};
            if (id_plus_1 == 0 || (r > 0 && find_place(&ranks[r - 1], id_plus_1 - 1).line != NULL))
                continue; /* seen with the rank before */
            look_at(&view, ranks, count, id_plus_1 - 1, now_ns);
            enum kolo__flight_finding finding = find(&view);
            if (finding < best || view.waiting == 0 ||
                (finding == best && view.longest_ns <= longest_ns))
                continue;
            best = finding;
            longest_ns = view.longest_ns;
            describe(&view, text, bytes);
        }
    free(places);
    kolo__clean_text(text); /* it may have come from anywhere */
    return best;
}

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
    if (!is_open(flight))
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
