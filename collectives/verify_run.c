/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs all ranks together in the most restrictive way that the executor is allowed to: what ends
 * here ends everywhere.
 *
 *   - a step waits until every earlier step of its window that touches the same memory is finished
 * as a whole (the executor goes on segment by segment, which only lets more happen);
 *   - a message step also waits for the earlier ones to or from the same peer;
 *   - a message moves when both its ends can: nothing is buffered;
 *   - at most `window` steps from the oldest unfinished one on have begun;
 *   - fences wait for everything before but messages, everything after waits for them.
 *
 * What can happen never stops being possible, so the order in which ranks are looked at does not
 * matter: if they get stuck in one order, they do in every order.
 */
#include "collectives/verify_state.h"

#include "base/assert.h"

#include <stdio.h>

static void wake(struct kolo__verification *v, uint32_t rank);
static kolo_status advance(struct kolo__verification *v, uint32_t rank);
static kolo_status stuck(struct kolo__verification *v);

kolo_status kolo__verify_run(struct kolo__verification *v)
{
    KOLO__ASSERT(v->size > 0);
    for (uint32_t rank = 0; rank < v->size; rank++) {
        kolo_status status = kolo__verify_begin(v, rank);
        if (status != KOLO_OK)
            return status;
        wake(v, rank);
    }
    while (v->queue_length > 0) {
        uint32_t rank = v->queue[v->queue_head];
        v->queue_head = (v->queue_head + 1) % v->size;
        v->queue_length--;
        v->ranks[rank].queued = false;
        kolo_status status = advance(v, rank);
        if (status != KOLO_OK)
            return status;
    }
    return stuck(v);
}

static void wake(struct kolo__verification *v, uint32_t rank)
{
    if (v->ranks[rank].queued)
        return;
    v->ranks[rank].queued = true;
    v->queue[(v->queue_head + v->queue_length) % v->size] = rank;
    v->queue_length++;
}

struct span {
    size_t first, count; /* cells */
};

static struct span span_of(const struct kolo__verification *v, uint32_t rank,
                           const struct kolo__place *place, size_t count)
{
    return (struct span){kolo__verify_cell(v, place, v->ranks[rank].operation), count};
}

static bool overlap(struct span a, struct span b)
{
    return a.first < b.first + b.count && b.first < a.first + a.count;
}

static bool reads_any(const struct kolo__verification *v, uint32_t rank,
                      const struct kolo__step *step, struct span span)
{
    const struct kolo__schedule *s = &v->schedules[rank];
    for (uint32_t i = 0; i < kolo__step_reads(step); i++)
        if (overlap(span_of(v, rank, kolo__step_read(s, step, i), step->count), span))
            return true;
    return false;
}

static bool writes_any(const struct kolo__verification *v, uint32_t rank,
                       const struct kolo__step *step, struct span span)
{
    const struct kolo__schedule *s = &v->schedules[rank];
    for (uint32_t i = 0; i < kolo__step_writes(step); i++)
        if (overlap(span_of(v, rank, kolo__step_written(s, step, i), step->count), span))
            return true;
    return false;
}

static bool must_wait(const struct kolo__verification *v, uint32_t rank, uint32_t index,
                      uint32_t earlier_index)
{
    const struct kolo__schedule *s = &v->schedules[rank];
    const struct kolo__step *step = &s->steps[index], *earlier = &s->steps[earlier_index];
    if (kolo__step_is_fence(step) || kolo__step_is_fence(earlier))
        return !kolo__step_is_message(earlier);
    if (kolo__step_is_message(step) && kolo__step_is_message(earlier) &&
        step->peer == earlier->peer && (step->kind == KOLO__SEND) == (earlier->kind == KOLO__SEND))
        return true;
    if (step->count == 0 || earlier->count == 0)
        return false;
    for (uint32_t i = 0; i < kolo__step_writes(earlier); i++) {
        struct span written = span_of(v, rank, kolo__step_written(s, earlier, i), earlier->count);
        if (reads_any(v, rank, step, written) || writes_any(v, rank, step, written))
            return true;
    }
    for (uint32_t i = 0; i < kolo__step_writes(step); i++)
        if (reads_any(v, rank, earlier,
                      span_of(v, rank, kolo__step_written(s, step, i), step->count)))
            return true;
    return false;
}

/* Which steps a run does: see kolo__program_leaves_out. */
static bool left_out(const struct kolo__verify_rank *r, const struct kolo__step *step)
{
    if (!kolo__step_is_conditional(step))
        return false;
    if (kolo__step_is_fence(step))
        return r->group->no_windows;
    return ((step->flags & KOLO__MAPPED_ONLY) != 0) != r->group->mapped_throughout;
}

/* Notes which fences come before the step in the order of the program. */
static void note_time(struct kolo__verify_rank *r, const struct kolo__step *step,
                      struct kolo__verify_slot *slot)
{
    if (step->kind == KOLO__ARRIVE && !left_out(r, step))
        r->opened_arrived++;
    else if (step->kind == KOLO__AWAIT && !left_out(r, step))
        r->opened_awaited = r->opened_arrived;
    slot->at = (struct kolo__verify_time){r->opened_awaited, KOLO__VERIFY_AFLOAT};
}

/* The places in the window that the step to be opened next has to wait for; not those for which an
 * unfinished fence after them waits already. */
static uint64_t waits_of_next(const struct kolo__verification *v, uint32_t rank)
{
    const struct kolo__verify_rank *r = &v->ranks[rank];
    uint32_t place = r->opened % v->window;
    uint64_t waits = 0;
    bool fenced = false;
    for (uint32_t earlier = r->opened; earlier-- > r->oldest;) {
        place = (place == 0 ? v->window : place) - 1;
        uint64_t bit = UINT64_C(1) << place;
        const struct kolo__step *step = &r->schedule->steps[earlier];
        if ((r->unfinished & bit) == 0 || (fenced && !kolo__step_is_message(step)))
            continue;
        if (must_wait(v, rank, r->opened, earlier))
            waits |= bit;
        fenced |= kolo__step_is_fence(step);
    }
    return waits;
}

/* Lets steps into the window. */
static void open_steps(struct kolo__verification *v, uint32_t rank)
{
    struct kolo__verify_rank *r = &v->ranks[rank];
    const struct kolo__schedule *s = r->schedule;
    for (; r->opened < s->step_count && r->opened < r->oldest + v->window; r->opened++) {
        struct kolo__verify_slot *slot = &r->slots[r->opened % v->window];
        *slot = (struct kolo__verify_slot){0};
        note_time(r, &s->steps[r->opened], slot);
        slot->waits = waits_of_next(v, rank);
        r->unfinished |= UINT64_C(1) << r->opened % v->window;
    }
}

static void finish(struct kolo__verification *v, uint32_t rank, uint32_t place)
{
    struct kolo__verify_rank *r = &v->ranks[rank];
    uint64_t bit = UINT64_C(1) << place;
    KOLO__ASSERT(place < v->window);
    r->unfinished &= ~bit;
    r->offered &= ~bit;
    for (uint64_t left = r->unfinished; left != 0; left &= left - 1)
        r->slots[__builtin_ctzll(left)].waits &= ~bit;
    while (r->oldest < r->opened && (r->unfinished >> r->oldest % v->window & 1) == 0)
        r->oldest++;
}

static uint32_t index_in(const struct kolo__verification *v, const struct kolo__verify_rank *r,
                         uint32_t place)
{
    return r->oldest + (place + v->window - r->oldest % v->window) % v->window;
}

/* Meets the other end of a message if that is there; else offers it. */
static kolo_status meet(struct kolo__verification *v, uint32_t rank, uint32_t place, bool *moved)
{
    struct kolo__verify_rank *r = &v->ranks[rank];
    uint32_t index = index_in(v, r, place);
    const struct kolo__step *step = &r->schedule->steps[index];
    struct kolo__verify_rank *peer = &v->ranks[step->peer];
    bool sends = step->kind == KOLO__SEND;
    for (uint64_t left = peer->offered; left != 0; left &= left - 1) {
        uint32_t i = (uint32_t)__builtin_ctzll(left);
        uint32_t other_index = index_in(v, peer, i);
        const struct kolo__step *other = &peer->schedule->steps[other_index];
        if (other->peer != rank || (other->kind == KOLO__SEND) == sends)
            continue;
        kolo_status status = sends ? kolo__verify_message(v, rank, index, step->peer, other_index)
                                   : kolo__verify_message(v, step->peer, other_index, rank, index);
        finish(v, step->peer, i);
        wake(v, step->peer);
        *moved = true;
        return status;
    }
    r->offered |= UINT64_C(1) << place;
    return KOLO_OK;
}

static void arrive(struct kolo__verification *v, struct kolo__verify_rank *r)
{
    struct kolo__verify_group *group = r->group;
    group->arrived_at[r->arrived++]++;
    while (group->level < v->repeat * kolo__verify_arrivals(group) &&
           group->arrived_at[group->level] == group->members) {
        group->level++;
        for (uint32_t rank = 0; rank < v->size; rank++)
            if (v->ranks[rank].group == group)
                wake(v, rank);
    }
}

/* Does the step in this place of the window if it can be done now. */
static kolo_status try_step(struct kolo__verification *v, uint32_t rank, uint32_t place,
                            bool *moved)
{
    struct kolo__verify_rank *r = &v->ranks[rank];
    uint32_t index = index_in(v, r, place);
    const struct kolo__step *step = &r->schedule->steps[index];
    kolo_status status = KOLO_OK;
    if (kolo__step_is_message(step)) {
        status = meet(v, rank, place, moved);
        if (!*moved)
            return status;
    } else if (left_out(r, step)) {
        /* nothing to do */
    } else if (step->kind == KOLO__ARRIVE) {
        arrive(v, r);
    } else if (step->kind == KOLO__AWAIT) {
        if (r->group->level < r->arrived)
            return KOLO_OK;
        r->awaited = r->arrived;
    } else {
        status = kolo__verify_local(v, rank, index);
    }
    finish(v, rank, place);
    *moved = true;
    return status;
}

static kolo_status advance(struct kolo__verification *v, uint32_t rank)
{
    struct kolo__verify_rank *r = &v->ranks[rank];
    bool any = true;
    while (any && r->operation < v->repeat) {
        any = false;
        open_steps(v, rank);
        for (uint64_t left = r->unfinished & ~r->offered; left != 0; left &= left - 1) {
            uint32_t place = (uint32_t)__builtin_ctzll(left);
            if (r->slots[place].waits != 0)
                continue;
            bool moved = false;
            kolo_status status = try_step(v, rank, place, &moved);
            if (status != KOLO_OK)
                return status;
            any = any || moved;
        }
        if (r->oldest < r->schedule->step_count)
            continue;
        kolo_status status = kolo__verify_end(v, rank);
        r->operation++;
        r->oldest = r->opened = 0;
        if (status == KOLO_OK && r->operation < v->repeat)
            status = kolo__verify_begin(v, rank);
        if (status != KOLO_OK)
            return status;
        any = true;
    }
    return KOLO_OK;
}

static kolo_status stuck(struct kolo__verification *v)
{
    static const char *const doing[] = {
        [KOLO__COPY] = "a copy",
        [KOLO__REDUCE] = "a reduction",
        [KOLO__SEND] = "a send to",
        [KOLO__RECV] = "a receive from",
        [KOLO__ARRIVE] = "its arrival",
        [KOLO__RECV_REDUCE] = "a receive and reduce from",
        [KOLO__AWAIT] = "the arrival of all",
    };
    for (uint32_t rank = 0; rank < v->size; rank++) {
        const struct kolo__verify_rank *r = &v->ranks[rank];
        if (r->operation == v->repeat)
            continue;
        const struct kolo__step *step = &r->schedule->steps[r->oldest];
        char peer[32] = "";
        if (kolo__step_is_message(step))
            snprintf(peer, sizeof(peer), " rank %u", step->peer);
        return kolo__verify_refuse(
            v, "rank %u, step %u of %u: waits for ever for %s%s (operation %u)", rank, r->oldest,
            r->schedule->step_count, doing[step->kind], peer, r->operation);
    }
    return KOLO_OK;
}
