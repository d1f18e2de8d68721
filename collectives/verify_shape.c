/* SPDX-License-Identifier: Apache-2.0 */
/* What can be said of each step alone, before anything runs. */
#include "collectives/verify_state.h"

static kolo_status check_problem(struct kolo__verification *v, uint32_t rank);
static kolo_status check_group(struct kolo__verification *v, uint32_t rank);
static kolo_status check_step(struct kolo__verification *v, uint32_t rank, uint32_t index);
static const char *wrong_flags(const struct kolo__schedule *s, const struct kolo__step *step);
static const char *wrong_condition(const struct kolo__schedule *s, uint32_t index);
static const char *wrong_place(const struct kolo__verification *v, uint32_t rank,
                               const struct kolo__place *place, size_t count, bool may_be_remote);
static const char *wrong_target(const struct kolo__schedule *s, const struct kolo__step *step,
                                const struct kolo__place *place);

kolo_status kolo__verify_shape(struct kolo__verification *v)
{
    for (uint32_t rank = 0; rank < v->size; rank++) {
        kolo_status status = check_problem(v, rank);
        for (uint32_t i = 0; status == KOLO_OK && i < v->schedules[rank].step_count; i++)
            status = check_step(v, rank, i);
        if (status != KOLO_OK)
            return status;
    }
    return KOLO_OK;
}

static uint32_t arrivals(const struct kolo__schedule *s, uint32_t *window_arrivals)
{
    uint32_t count = 0;
    *window_arrivals = 0;
    for (uint32_t i = 0; i < s->step_count; i++) {
        bool arrives = s->steps[i].kind == KOLO__ARRIVE;
        count += arrives;
        *window_arrivals += arrives && (s->steps[i].flags & KOLO__WINDOWS_ONLY) != 0;
    }
    return count;
}

static kolo_status check_problem(struct kolo__verification *v, uint32_t rank)
{
    const struct kolo__problem *a = &v->schedules[0].problem, *b = &v->schedules[rank].problem;
    if (b->rank != rank || b->size != v->size || b->collective != a->collective ||
        b->count != a->count || b->root != a->root || b->prescale != a->prescale ||
        b->window_count != a->window_count || b->window_pieces != a->window_pieces)
        return kolo__verify_refuse(v, "rank %u was asked something else than rank 0", rank);
    return check_group(v, rank);
}

/* Against the first rank that it shares memory with. */
static kolo_status check_group(struct kolo__verification *v, uint32_t rank)
{
    struct kolo__verify_group *group = &v->groups[v->group_of[rank]];
    uint32_t first = 0, for_windows, count = arrivals(&v->schedules[rank], &for_windows);
    while (v->group_of[first] != v->group_of[rank])
        first++;
    if (v->schedules[rank].mapped != v->schedules[first].mapped)
        return kolo__verify_refuse(v, "rank %u and rank %u: one only is mapped", rank, first);
    if (rank == first) {
        group->arrivals = count;
        group->window_arrivals = for_windows;
    }
    if (count != group->arrivals || for_windows != group->window_arrivals)
        return kolo__verify_refuse(v, "rank %u arrives %u times (%u for windows), rank %u %u (%u)",
                                   rank, count, for_windows, first, group->arrivals,
                                   group->window_arrivals);
    return KOLO_OK;
}

static kolo_status check_step(struct kolo__verification *v, uint32_t rank, uint32_t index)
{
    const struct kolo__schedule *s = &v->schedules[rank];
    const struct kolo__step *step = &s->steps[index];
    bool message = kolo__step_is_message(step);
    const char *wrong = NULL;
    if (message && (step->peer >= v->size || step->peer == rank))
        wrong = "its peer is no other rank";
    if (wrong == NULL)
        wrong = wrong_flags(s, step);
    if (wrong == NULL && kolo__step_is_conditional(step))
        wrong = wrong_condition(s, index);
    v->conditional_copies |= step->kind == KOLO__COPY && kolo__step_is_conditional(step);
    if (step->kind == KOLO__REDUCE && step->source_count == 0)
        wrong = "it has no sources";
    if (step->target_count > 0 && step->kind != KOLO__REDUCE)
        wrong = "further targets of a step that is no reduction";
    for (uint32_t i = 0; wrong == NULL && i < kolo__step_reads(step); i++)
        wrong = wrong_place(v, rank, kolo__step_read(s, step, i), step->count, !message);
    for (uint32_t i = 0; wrong == NULL && i < kolo__step_writes(step); i++) {
        const struct kolo__place *place = kolo__step_written(s, step, i);
        wrong = wrong_place(v, rank, place, step->count, !message);
        if (wrong == NULL)
            wrong = wrong_target(s, step, place);
        if (wrong == NULL && place->buffer == KOLO__EXPOSED_OUT && !s->exposes_out &&
            (step->flags & KOLO__MAPPED_ONLY) == 0)
            wrong = "it writes EXPOSED_OUT in a schedule that says it does not";
        if (wrong == NULL && i > 0 && place->rank == rank)
            wrong = "a further target in the rank's own memory";
    }
    if (wrong != NULL)
        return kolo__verify_refuse(v, "rank %u, step %u: %s", rank, index, wrong);
    return KOLO_OK;
}

static bool from_input(const struct kolo__schedule *s, const struct kolo__step *step)
{
    for (uint32_t i = 0; !kolo__step_is_message(step) && i < kolo__step_reads(step); i++)
        if (kolo__step_read(s, step, i)->buffer == KOLO__INPUT)
            return true;
    return false;
}

static const char *wrong_flags(const struct kolo__schedule *s, const struct kolo__step *step)
{
    bool reduces = step->kind == KOLO__REDUCE || step->kind == KOLO__RECV_REDUCE;
    if ((step->flags & KOLO__FINISH) != 0) {
        if (!kolo__collective_reduces(s->problem.collective))
            return "FINISH in a collective that does not reduce";
        if (!reduces && !(step->kind == KOLO__COPY && s->problem.size == 1))
            return "FINISH on a step that combines nothing";
    }
    if ((step->flags & KOLO__INCOMING_FIRST) != 0 && step->kind != KOLO__RECV_REDUCE)
        return "INCOMING_FIRST without RECV_REDUCE";
    if ((step->flags & KOLO__PRESCALE) != 0) {
        if (!s->problem.prescale)
            return "PRESCALE where none is wanted";
        if (!from_input(s, step))
            return "PRESCALE of what is not the rank's own INPUT";
    }
    if (reduces && !kolo__collective_reduces(s->problem.collective))
        return "a reduction in a collective that does not reduce";
    return NULL;
}

static const char *wrong_condition(const struct kolo__schedule *s, uint32_t index)
{
    const struct kolo__step *step = &s->steps[index];
    uint32_t copies = step->flags & (KOLO__MAPPED_ONLY | KOLO__UNMAPPED_ONLY);
    if ((step->flags & KOLO__WINDOWS_ONLY) != 0 && !kolo__step_is_fence(step))
        return "WINDOWS_ONLY on what is no fence";
    if (copies != 0 && step->kind != KOLO__COPY)
        return "MAPPED_ONLY or UNMAPPED_ONLY on what is no copy";
    if (copies == (KOLO__MAPPED_ONLY | KOLO__UNMAPPED_ONLY))
        return "MAPPED_ONLY and UNMAPPED_ONLY: it is never done";
    if (copies != 0 && !s->exposes)
        return "MAPPED_ONLY or UNMAPPED_ONLY in a schedule that exposes nothing";
    for (uint32_t earlier = 0; earlier < index; earlier++)
        if (s->steps[earlier].kind == KOLO__AWAIT)
            return NULL;
    return "it depends on what ranks learn at the first fence";
}

static const char *wrong_place(const struct kolo__verification *v, uint32_t rank,
                               const struct kolo__place *place, size_t count, bool may_be_remote)
{
    if (place->rank >= v->size)
        return "a place of no rank";
    const struct kolo__schedule *owner = &v->schedules[place->rank];
    const size_t limits[KOLO__BUFFER_COUNT] = {owner->input_count,   owner->output_count,
                                               owner->scratch_count, owner->input_count,
                                               owner->output_count,  owner->slot_count};
    bool mapped = place->buffer >= KOLO__EXPOSED_IN;
    bool reached = mapped && may_be_remote && v->group_of[place->rank] == v->group_of[rank];
    if (place->rank != rank && !reached)
        return "another rank's memory, which it cannot reach";
    if (mapped && !may_be_remote)
        return "a message of mapped memory, for which no fence waits";
    if (mapped && !owner->mapped)
        return "mapped memory in a schedule that is not";
    if (place->offset > limits[place->buffer] || count > limits[place->buffer] - place->offset)
        return "a range that ends outside its buffer";
    bool exposed = place->buffer == KOLO__EXPOSED_IN || place->buffer == KOLO__EXPOSED_OUT;
    if (exposed && count > 0 && !kolo__window_holds(&owner->problem, place->offset, count))
        return "a range that crosses the end of a window";
    return NULL;
}

static const char *wrong_target(const struct kolo__schedule *s, const struct kolo__step *step,
                                const struct kolo__place *place)
{
    if (place->buffer == KOLO__INPUT)
        return "it writes INPUT";
    bool fills = step->kind == KOLO__COPY && step->from.buffer == KOLO__INPUT &&
                 place->rank == s->problem.rank && step->from.offset == place->offset;
    if (place->buffer == KOLO__EXPOSED_IN && !fills)
        return "it writes EXPOSED_IN, which may be INPUT";
    return NULL;
}
