/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who holds up whom, out of flight recorders: recorders in, text out. What they hold may be
 * nonsense: numbers are only ever compared and shown.
 *
 * Who waits in a collective waits for those who have not entered it, or have called another one
 * under its number; who waits for a message, for its peer. If these wait in kolo themselves, they
 * are held up in turn; so the one to look at is one that waits for nobody.
 */
#include "runtime/flight.h"

#include "runtime/frame.h"

#include <stdio.h>
#include <stdlib.h>

static const double SECOND = 1e9;

/* A rank's place on one communicator. */
struct place {
    const struct kolo__flight_rank *rank;
    uint64_t entered;
    bool joined;
};

/* What a rank waits for. */
struct wait {
    const struct kolo__flight_rank *rank;
    struct kolo__flight_operation operation;
};

/* All that is known, once; and the ranks of the communicator that is looked at. */
struct view {
    const struct kolo__flight_rank *ranks;
    uint32_t count;
    uint64_t now_ns;
    struct wait *waits; /* by rank; phase NONE: it waits for nothing */
    struct place *places;
    uint32_t place_count, size; /* of the communicator; size may be larger */
};

static bool is_open(const struct kolo__flight *flight)
{
    return atomic_load(&flight->version) == KOLO__FLIGHT_VERSION;
}

static uint64_t waited_ns(const struct kolo__flight_operation *operation, uint64_t now_ns)
{
    uint64_t end_ns = operation->phase == KOLO__FLIGHT_FAILED ? operation->wait_end_ns : now_ns;
    return end_ns > operation->wait_begin_ns ? end_ns - operation->wait_begin_ns : 0;
}

static const struct kolo__flight_comm *find_line(const struct kolo__flight *flight, uint32_t comm)
{
    for (uint32_t i = 0; is_open(flight) && i < KOLO__FLIGHT_COMMS; i++)
        if (atomic_load(&flight->comms[i].id_plus_1) == comm + 1)
            return &flight->comms[i];
    return NULL;
}

static bool is_stopped(const struct kolo__flight_rank *rank)
{
    return rank->state == 'T' || rank->state == 't';
}

/* Its wait cannot end by what others do: it is stopped, or was killed in it. */
static bool is_halted(const struct wait *wait)
{
    return is_stopped(wait->rank) ||
           (wait->rank->state == 0 && wait->operation.phase != KOLO__FLIGHT_FAILED);
}

/* It is itself held up, or was until that failed. */
static bool is_held_up(const struct wait *wait)
{
    return wait->operation.phase != KOLO__FLIGHT_NONE && !is_halted(wait);
}

static const struct wait *wait_of(const struct view *view, const struct kolo__flight_rank *rank)
{
    return &view->waits[rank - view->ranks];
}

/* What a rank that others wait for does. */
static void describe_instead(const struct view *view, const struct kolo__flight_rank *rank,
                             uint32_t comm, char *text, size_t bytes)
{
    struct kolo__flight_operation last;
    char what[240];
    const struct kolo__flight_comm *line = find_line(rank->flight, comm);
    uint64_t entered = line != NULL ? atomic_load(&line->entered) : 0;
    const struct wait *wait = wait_of(view, rank);
    kolo__flight_operation_text(&wait->operation, what, sizeof what);
    if (is_held_up(wait) && wait->operation.phase == KOLO__FLIGHT_FAILED)
        snprintf(text, bytes, "it waited in %s until that failed", what);
    else if (rank->state == 0)
        snprintf(text, bytes, "its process has ended");
    else if (is_stopped(rank))
        snprintf(text, bytes, "it is stopped (SIGSTOP, or a debugger)");
    else if (atomic_load(&rank->flight->left_ns) != 0)
        snprintf(text, bytes, "it has left (kolo_finalize)");
    else if (is_held_up(wait))
        snprintf(text, bytes, "it waits in %s", what);
    else if (atomic_load(&rank->flight->in_reducers) > 0)
        snprintf(text, bytes, "it is in kolo_reducer_wait, for gradients that are not ready");
    else if (entered == 0)
        snprintf(text, bytes, "it is outside of kolo");
    else
        snprintf(text, bytes, "it is outside of kolo, after %s",
                 kolo__flight_find(rank->flight, comm, entered, &last)
                     ? kolo__flight_operation_text(&last, what, sizeof what)
                     : "its last collective");
}

static void take(struct kolo__flight_verdict *verdict, enum kolo__flight_finding finding,
                 uint64_t longest_ns, const char *text)
{
    if (finding < verdict->finding ||
        (finding == verdict->finding && longest_ns <= verdict->longest_ns))
        return;
    verdict->finding = finding;
    verdict->longest_ns = longest_ns;
    snprintf(verdict->text, sizeof verdict->text, "%s", text);
}

/* ---- who waits for a message ----------------------------------------------------------------- */

static void judge_message(const struct view *view, const struct wait *wait,
                          struct kolo__flight_verdict *verdict)
{
    char what[240], instead[320], text[1024];
    const struct kolo__flight_rank *peer = NULL;
    for (uint32_t r = 0; r < view->count && peer == NULL; r++)
        if (view->ranks[r].flight->rank == wait->operation.other)
            peer = &view->ranks[r];
    uint64_t waited = waited_ns(&wait->operation, view->now_ns);
    kolo__flight_operation_text(&wait->operation, what, sizeof what);
    int length =
        snprintf(text, sizeof text, "rank %u (host %.63s) waits since %.1f s in %s",
                 wait->rank->flight->rank, wait->rank->flight->host, (double)waited / SECOND, what);
    if (peer == NULL) {
        take(verdict, KOLO__FLIGHT_ELSEWHERE, waited, text);
        return;
    }
    describe_instead(view, peer, wait->operation.signature.comm, instead, sizeof instead);
    snprintf(text + length, sizeof text - (size_t)length, "; of rank %u: %s", peer->flight->rank,
             instead);
    take(verdict,
         is_held_up(wait_of(view, peer)) ? KOLO__FLIGHT_BEHIND_IN_TURN : KOLO__FLIGHT_BEHIND,
         waited, text);
}

/* ---- who waits in a collective ----------------------------------------------------------------
 */

static bool waits_here(const struct wait *wait, uint32_t comm)
{
    return is_held_up(wait) && wait->operation.kind == KOLO__FLIGHT_COLLECTIVE &&
           wait->operation.signature.comm == comm;
}

static void find_places(struct view *view, uint32_t comm)
{
    view->place_count = view->size = 0;
    for (uint32_t r = 0; r < view->count; r++) {
        const struct kolo__flight_comm *line = find_line(view->ranks[r].flight, comm);
        if (line == NULL)
            continue;
        view->size = atomic_load(&line->size);
        view->places[view->place_count++] =
            (struct place){.rank = &view->ranks[r],
                           .entered = atomic_load(&line->entered),
                           .joined = atomic_load(&line->joined) != 0};
    }
}

static bool is_behind(const struct place *place, uint64_t sequence)
{
    return place->entered < sequence && !place->joined;
}

/* Of those who have not entered the collective: one that waits for nobody, or any. */
static const struct place *find_straggler(const struct view *view, uint64_t sequence,
                                          uint32_t *others)
{
    const struct place *straggler = NULL;
    uint32_t behind = 0;
    for (uint32_t i = 0; i < view->place_count; i++) {
        const struct place *place = &view->places[i];
        if (!is_behind(place, sequence))
            continue;
        behind++;
        if (straggler == NULL ||
            (is_held_up(wait_of(view, straggler->rank)) && !is_held_up(wait_of(view, place->rank))))
            straggler = place;
    }
    *others = behind > 0 ? behind - 1 : 0;
    return straggler;
}

/* The earliest collective that somebody waits in and somebody else has not entered; or just the
 * earliest that is waited in. */
static const struct wait *find_collective(const struct view *view, uint32_t comm)
{
    const struct wait *best = NULL;
    bool held_up = false;
    uint32_t others;
    for (uint32_t r = 0; r < view->count; r++) {
        const struct wait *wait = &view->waits[r];
        if (!waits_here(wait, comm))
            continue;
        uint64_t sequence = wait->operation.signature.sequence;
        bool here = find_straggler(view, sequence, &others) != NULL;
        if (best == NULL || (here && !held_up) ||
            (here == held_up && sequence < best->operation.signature.sequence)) {
            best = wait;
            held_up = here;
        }
    }
    return best;
}

static bool is_another(const struct kolo__signature *a, const struct kolo__signature *b)
{
    return a->collective != b->collective || a->count != b->count || a->dtype != b->dtype ||
           a->op != b->op || a->root != b->root;
}

/* One that has called something else under the same number. */
static const struct place *find_other(const struct view *view, const struct wait *wait,
                                      struct kolo__flight_operation *theirs)
{
    const struct kolo__signature *ours = &wait->operation.signature;
    for (uint32_t i = 0; i < view->place_count; i++)
        if (view->places[i].entered >= ours->sequence &&
            kolo__flight_find(view->places[i].rank->flight, ours->comm, ours->sequence, theirs) &&
            is_another(ours, &theirs->signature))
            return &view->places[i];
    return NULL;
}

/* One that has entered it and does not go on. */
static const struct wait *find_halted(const struct view *view, uint32_t comm)
{
    for (uint32_t r = 0; r < view->count; r++)
        if (view->waits[r].operation.phase != KOLO__FLIGHT_NONE &&
            view->waits[r].operation.signature.comm == comm && is_halted(&view->waits[r]))
            return &view->waits[r];
    return NULL;
}

static void judge_collective(const struct view *view, uint32_t comm,
                             struct kolo__flight_verdict *verdict)
{
    char what[240], more[320], who[64], text[1024];
    struct kolo__flight_operation theirs;
    const struct wait *wait = find_collective(view, comm);
    if (wait == NULL)
        return;
    uint64_t sequence = wait->operation.signature.sequence, longest = 0;
    uint32_t waiting = 0, others;
    for (uint32_t r = 0; r < view->count; r++) {
        const struct kolo__flight_operation *one = &view->waits[r].operation;
        if (!waits_here(&view->waits[r], comm) || one->signature.sequence < sequence)
            continue;
        waiting++;
        longest = waited_ns(one, view->now_ns) > longest ? waited_ns(one, view->now_ns) : longest;
    }
    kolo__flight_operation_text(&wait->operation, what, sizeof what);
    snprintf(who, sizeof who, "%u rank%s since %.1f s", waiting, waiting == 1 ? " waits" : "s wait",
             (double)longest / SECOND);
    const struct place *other = find_other(view, wait, &theirs);
    const struct place *straggler = find_straggler(view, sequence, &others);
    const struct wait *halted = NULL;
    if (other != NULL) {
        kolo__flight_operation_text(&theirs, more, sizeof more);
        snprintf(text, sizeof text, "rank %u (host %.63s) called %s where rank %u called %s",
                 other->rank->flight->rank, other->rank->flight->host, more,
                 wait->rank->flight->rank, what);
        take(verdict, KOLO__FLIGHT_DIFFERS, longest, text);
    } else if (straggler != NULL) {
        char count[40] = "";
        describe_instead(view, straggler->rank, comm, more, sizeof more);
        if (others > 0)
            snprintf(count, sizeof count, " (nor did %u more)", others);
        snprintf(text, sizeof text, "rank %u (host %.63s) never entered %s%s; %s; %s",
                 straggler->rank->flight->rank, straggler->rank->flight->host, what, count, more,
                 who);
        take(verdict,
             is_held_up(wait_of(view, straggler->rank)) ? KOLO__FLIGHT_BEHIND_IN_TURN
                                                        : KOLO__FLIGHT_BEHIND,
             longest, text);
    } else if ((halted = find_halted(view, comm)) != NULL) {
        describe_instead(view, halted->rank, comm, more, sizeof more);
        snprintf(text, sizeof text, "rank %u (host %.63s) is in %s, but %s; %s",
                 halted->rank->flight->rank, halted->rank->flight->host, what, more, who);
        take(verdict, KOLO__FLIGHT_BEHIND, longest, text);
    } else if (view->place_count < view->size) {
        snprintf(text, sizeof text,
                 "%s in %s, which all that are known here have entered: look at the other %u of "
                 "its %u ranks, on their hosts",
                 who, what, view->size - view->place_count, view->size);
        take(verdict, KOLO__FLIGHT_ELSEWHERE, longest, text);
    } else {
        snprintf(text, sizeof text, "all %u ranks have entered %s, and %s", view->size, what, who);
        take(verdict, KOLO__FLIGHT_ALL_ENTERED, longest, text);
    }
}

/* Ranks that wait in calls which are no operations. */
static void judge_calls(const struct view *view, struct kolo__flight_verdict *verdict)
{
    char text[200];
    uint32_t starting = 0, joined = 0;
    for (uint32_t r = 0; r < view->count; r++) {
        const struct kolo__flight *flight = view->ranks[r].flight;
        bool lives = is_open(flight) && view->ranks[r].state != 0 && !is_stopped(&view->ranks[r]) &&
                     atomic_load(&flight->left_ns) == 0;
        bool has_lines = atomic_load(&flight->pages_taken) > 0, in_join = false;
        for (uint32_t i = 0; i < KOLO__FLIGHT_COMMS; i++) {
            bool used = atomic_load(&flight->comms[i].id_plus_1) != 0;
            has_lines |= used;
            in_join |= used && atomic_load(&flight->comms[i].joined) != 0;
        }
        starting += lives && !has_lines;
        joined += lives && in_join;
    }
    if (joined > 0)
        snprintf(text, sizeof text, "%u rank%s in kolo_join, for the others to come there", joined,
                 joined == 1 ? " waits" : "s wait");
    else
        snprintf(text, sizeof text, "%u of %u ranks %s in kolo_init, which all must come to",
                 starting, view->count > 0 ? view->ranks[0].flight->world_size : 0,
                 starting == 1 ? "is" : "are");
    if (joined > 0 || starting > 0)
        take(verdict, KOLO__FLIGHT_ELSEWHERE, 1, text);
}

static void judge_waits(struct view *view, struct kolo__flight_verdict *verdict)
{
    for (uint32_t r = 0; r < view->count; r++) {
        const struct kolo__flight_operation *one = &view->waits[r].operation;
        if (!is_held_up(&view->waits[r]))
            continue;
        if (one->kind != KOLO__FLIGHT_COLLECTIVE) {
            judge_message(view, &view->waits[r], verdict);
            continue;
        }
        /* Of each communicator that is waited on, once. */
        uint32_t first = 0;
        while (!waits_here(&view->waits[first], one->signature.comm))
            first++;
        if (first < r)
            continue;
        find_places(view, one->signature.comm);
        if (view->place_count > 0) /* else it has been freed */
            judge_collective(view, one->signature.comm, verdict);
    }
}

void kolo__flight_judge(const struct kolo__flight_rank *ranks, uint32_t count, uint64_t now_ns,
                        struct kolo__flight_verdict *verdict)
{
    *verdict = (struct kolo__flight_verdict){.finding = KOLO__FLIGHT_NOBODY_WAITS};
    struct view view = {.ranks = ranks, .count = count, .now_ns = now_ns};
    view.waits = calloc(count > 0 ? count : 1, sizeof *view.waits);
    view.places = calloc(count > 0 ? count : 1, sizeof *view.places);
    bool roomy = view.waits != NULL && view.places != NULL;
    for (uint32_t r = 0; roomy && r < count; r++) {
        view.waits[r].rank = &ranks[r];
        if (is_open(ranks[r].flight))
            kolo__flight_waiting(ranks[r].flight, &view.waits[r].operation);
    }
    if (roomy) {
        judge_waits(&view, verdict);
        judge_calls(&view, verdict);
    }
    free(view.waits);
    free(view.places);
    kolo__clean_text(verdict->text); /* it may have come from anywhere */
}
