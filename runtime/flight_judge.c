/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who holds up whom: what ranks do in, text out. What is told of them may be nonsense: numbers are
 * only ever compared and shown.
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

/* A rank's place on the communicator that is looked at. */
struct place {
    const struct kolo__flight_state *rank;
    const struct kolo__flight_place *line;
};

/* All that is known, and the ranks of the communicator that is looked at. */
struct view {
    const struct kolo__flight_state *ranks;
    uint32_t count;
    uint64_t now_ns;
    struct place *places;
    uint32_t place_count, size; /* of the communicator; size may be larger */
};

static uint64_t waited_ns(const struct kolo__flight_operation *operation, uint64_t now_ns)
{
    uint64_t end_ns = operation->phase == KOLO__FLIGHT_FAILED ? operation->wait_end_ns : now_ns;
    return end_ns > operation->wait_begin_ns ? end_ns - operation->wait_begin_ns : 0;
}

static const struct kolo__flight_place *find_line(const struct kolo__flight_state *rank,
                                                  uint32_t comm)
{
    for (uint32_t i = 0; i < rank->count; i++)
        if (rank->places[i].comm == comm)
            return &rank->places[i];
    return NULL;
}

static bool is_stopped(const struct kolo__flight_state *rank)
{
    return rank->process == 'T' || rank->process == 't';
}

/* Its wait cannot end by what others do: it is stopped, or was killed in it. */
static bool is_halted(const struct kolo__flight_state *rank)
{
    return is_stopped(rank) || (rank->process == 0 && rank->waits.phase != KOLO__FLIGHT_FAILED);
}

/* It is itself held up, or was until that failed. */
static bool is_held_up(const struct kolo__flight_state *rank)
{
    return rank->waits.phase != KOLO__FLIGHT_NONE && !is_halted(rank);
}

/* What a rank that others wait for does. */
static void describe_instead(const struct kolo__flight_state *rank, uint32_t comm, char *text,
                             size_t bytes)
{
    char what[240];
    const struct kolo__flight_place *line = find_line(rank, comm);
    kolo__flight_operation_text(&rank->waits, what, sizeof what);
    if (is_held_up(rank) && rank->waits.phase == KOLO__FLIGHT_FAILED)
        snprintf(text, bytes, "it waited in %s until that failed", what);
    else if (rank->process == 0)
        snprintf(text, bytes, "its process has ended");
    else if (is_stopped(rank))
        snprintf(text, bytes, "it is stopped (SIGSTOP, or a debugger)");
    else if (rank->left)
        snprintf(text, bytes, "it has left (kolo_finalize)");
    else if (is_held_up(rank))
        snprintf(text, bytes, "it waits in %s", what);
    else if (rank->in_reducer)
        snprintf(text, bytes, "it is in kolo_reducer_wait, for gradients that are not ready");
    else if (line == NULL || line->entered == 0)
        snprintf(text, bytes, "it is outside of kolo");
    else
        snprintf(text, bytes, "it is outside of kolo, after %s",
                 line->last.phase != KOLO__FLIGHT_NONE
                     ? kolo__flight_operation_text(&line->last, what, sizeof what)
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

static void judge_message(const struct view *view, const struct kolo__flight_state *waiter,
                          struct kolo__flight_verdict *verdict)
{
    char what[240], instead[320], text[1024];
    const struct kolo__flight_operation *message = &waiter->waits;
    const struct kolo__flight_state *peer = NULL;
    for (uint32_t r = 0; r < view->count && peer == NULL; r++)
        if (view->ranks[r].rank == message->other)
            peer = &view->ranks[r];
    uint64_t waited = waited_ns(message, view->now_ns);
    kolo__flight_operation_text(message, what, sizeof what);
    int length = snprintf(text, sizeof text, "rank %u (host %.63s) waits since %.1f s in %s",
                          waiter->rank, waiter->host, (double)waited / SECOND, what);
    if (peer == NULL) {
        take(verdict, KOLO__FLIGHT_ELSEWHERE, waited, text);
        return;
    }
    describe_instead(peer, message->signature.comm, instead, sizeof instead);
    snprintf(text + length, sizeof text - (size_t)length, "; of rank %u: %s", peer->rank, instead);
    take(verdict, is_held_up(peer) ? KOLO__FLIGHT_BEHIND_IN_TURN : KOLO__FLIGHT_BEHIND, waited,
         text);
}

/* ---- who waits in a collective ----------------------------------------------------------------
 */

static bool waits_here(const struct kolo__flight_state *rank, uint32_t comm)
{
    return is_held_up(rank) && rank->waits.kind == KOLO__FLIGHT_COLLECTIVE &&
           rank->waits.signature.comm == comm;
}

static void find_places(struct view *view, uint32_t comm)
{
    view->place_count = view->size = 0;
    for (uint32_t r = 0; r < view->count; r++) {
        const struct kolo__flight_place *line = find_line(&view->ranks[r], comm);
        if (line == NULL)
            continue;
        view->size = line->size;
        view->places[view->place_count++] = (struct place){.rank = &view->ranks[r], .line = line};
    }
}

static bool is_behind(const struct place *place, uint64_t sequence)
{
    return place->line->entered < sequence && !place->line->joined;
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
        if (straggler == NULL || (is_held_up(straggler->rank) && !is_held_up(place->rank)))
            straggler = place;
    }
    *others = behind > 0 ? behind - 1 : 0;
    return straggler;
}

/* Of the earliest collective that somebody waits in and somebody else has not entered; or just of
 * the earliest that is waited in. */
static const struct kolo__flight_state *find_waiter(const struct view *view, uint32_t comm)
{
    const struct kolo__flight_state *best = NULL;
    bool held_up = false, here = false;
    uint64_t looked_at = 0; /* most wait in the same */
    uint32_t others;
    for (uint32_t r = 0; r < view->count; r++) {
        const struct kolo__flight_state *waiter = &view->ranks[r];
        if (!waits_here(waiter, comm))
            continue;
        uint64_t sequence = waiter->waits.signature.sequence;
        if (best == NULL || sequence != looked_at)
            here = find_straggler(view, sequence, &others) != NULL;
        looked_at = sequence;
        if (best == NULL || (here && !held_up) ||
            (here == held_up && sequence < best->waits.signature.sequence)) {
            best = waiter;
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

static bool find_collective(const struct place *place, const struct kolo__signature *signature,
                            struct kolo__flight_operation *found)
{
    *found = place->line->last;
    if (place->line->entered == signature->sequence)
        return found->phase != KOLO__FLIGHT_NONE;
    return place->line->entered > signature->sequence && place->rank->flight != NULL &&
           kolo__flight_find(place->rank->flight, signature->comm, signature->sequence, found);
}

/* One that has called something else under the same number. */
static const struct place *find_other(const struct view *view,
                                      const struct kolo__signature *signature,
                                      struct kolo__flight_operation *theirs)
{
    for (uint32_t i = 0; i < view->place_count; i++)
        if (find_collective(&view->places[i], signature, theirs) &&
            is_another(signature, &theirs->signature))
            return &view->places[i];
    return NULL;
}

/* One that has entered it and does not go on. */
static const struct kolo__flight_state *find_halted(const struct view *view, uint32_t comm)
{
    for (uint32_t r = 0; r < view->count; r++) {
        const struct kolo__flight_state *rank = &view->ranks[r];
        if (rank->waits.phase != KOLO__FLIGHT_NONE && rank->waits.signature.comm == comm &&
            is_halted(rank))
            return rank;
    }
    return NULL;
}

static void judge_collective(const struct view *view, uint32_t comm,
                             struct kolo__flight_verdict *verdict)
{
    char what[240], more[320], who[64], text[1024];
    struct kolo__flight_operation theirs;
    const struct kolo__flight_state *waiter = find_waiter(view, comm);
    if (waiter == NULL)
        return;
    uint64_t sequence = waiter->waits.signature.sequence, longest = 0;
    uint32_t waiting = 0, others;
    for (uint32_t r = 0; r < view->count; r++) {
        const struct kolo__flight_operation *one = &view->ranks[r].waits;
        if (!waits_here(&view->ranks[r], comm) || one->signature.sequence < sequence)
            continue;
        waiting++;
        longest = waited_ns(one, view->now_ns) > longest ? waited_ns(one, view->now_ns) : longest;
    }
    kolo__flight_operation_text(&waiter->waits, what, sizeof what);
    snprintf(who, sizeof who, "%u rank%s since %.1f s", waiting, waiting == 1 ? " waits" : "s wait",
             (double)longest / SECOND);
    const struct place *other = find_other(view, &waiter->waits.signature, &theirs);
    const struct place *straggler = find_straggler(view, sequence, &others);
    const struct kolo__flight_state *halted = NULL;
    if (other != NULL) {
        kolo__flight_operation_text(&theirs, more, sizeof more);
        snprintf(text, sizeof text, "rank %u (host %.63s) called %s where rank %u called %s",
                 other->rank->rank, other->rank->host, more, waiter->rank, what);
        take(verdict, KOLO__FLIGHT_DIFFERS, longest, text);
    } else if (straggler != NULL) {
        char count[40] = "";
        describe_instead(straggler->rank, comm, more, sizeof more);
        if (others > 0)
            snprintf(count, sizeof count, " (nor did %u more)", others);
        snprintf(text, sizeof text, "rank %u (host %.63s) never entered %s%s; %s; %s",
                 straggler->rank->rank, straggler->rank->host, what, count, more, who);
        take(verdict,
             is_held_up(straggler->rank) ? KOLO__FLIGHT_BEHIND_IN_TURN : KOLO__FLIGHT_BEHIND,
             longest, text);
    } else if ((halted = find_halted(view, comm)) != NULL) {
        describe_instead(halted, comm, more, sizeof more);
        snprintf(text, sizeof text, "rank %u (host %.63s) is in %s, but %s; %s", halted->rank,
                 halted->host, what, more, who);
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
        const struct kolo__flight_state *rank = &view->ranks[r];
        bool lives = rank->open && rank->process != 0 && !is_stopped(rank) && !rank->left;
        bool in_join = false;
        for (uint32_t i = 0; i < rank->count; i++)
            in_join |= rank->places[i].joined;
        starting += lives && !rank->has_called && rank->count == 0;
        joined += lives && in_join;
    }
    if (joined > 0)
        snprintf(text, sizeof text, "%u rank%s in kolo_join, for the others to come there", joined,
                 joined == 1 ? " waits" : "s wait");
    else
        snprintf(text, sizeof text, "%u of %u ranks %s in kolo_init, which all must come to",
                 starting, view->count > 0 ? view->ranks[0].world_size : 0,
                 starting == 1 ? "is" : "are");
    if (joined > 0 || starting > 0)
        take(verdict, KOLO__FLIGHT_ELSEWHERE, 1, text);
}

static void judge_waits(struct view *view, struct kolo__flight_verdict *verdict)
{
    for (uint32_t r = 0; r < view->count; r++) {
        const struct kolo__flight_operation *one = &view->ranks[r].waits;
        if (!is_held_up(&view->ranks[r]))
            continue;
        if (one->kind != KOLO__FLIGHT_COLLECTIVE) {
            judge_message(view, &view->ranks[r], verdict);
            continue;
        }
        /* Of each communicator that is waited on, once. */
        uint32_t first = 0;
        while (!waits_here(&view->ranks[first], one->signature.comm))
            first++;
        if (first < r)
            continue;
        find_places(view, one->signature.comm);
        if (view->place_count > 0) /* else it has been freed */
            judge_collective(view, one->signature.comm, verdict);
    }
}

void kolo__flight_judge_states(const struct kolo__flight_state *ranks, uint32_t count,
                               uint64_t now_ns, struct kolo__flight_verdict *verdict)
{
    *verdict = (struct kolo__flight_verdict){.finding = KOLO__FLIGHT_NOBODY_WAITS};
    struct view view = {.ranks = ranks, .count = count, .now_ns = now_ns};
    view.places = calloc(count > 0 ? count : 1, sizeof *view.places);
    if (view.places != NULL) {
        judge_waits(&view, verdict);
        judge_calls(&view, verdict);
    }
    free(view.places);
    kolo__clean_text(verdict->text); /* it may have come from anywhere */
}

void kolo__flight_judge(const struct kolo__flight_rank *ranks, uint32_t count, uint64_t now_ns,
                        struct kolo__flight_verdict *verdict)
{
    struct kolo__flight_state *states = calloc(count > 0 ? count : 1, sizeof *states);
    for (uint32_t r = 0; states != NULL && r < count; r++) {
        states[r].process = ranks[r].state;
        kolo__flight_take_state(ranks[r].flight, &states[r]);
    }
    kolo__flight_judge_states(states, states != NULL ? count : 0, now_ns, verdict);
    free(states);
}
