/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds, once per program, what each step must wait for: the earlier steps in its window that
 * touch the same memory when one of the two writes.
 *
 * Different buffers can be the same memory: in place, INPUT lies in OUTPUT; EXPOSED_IN may be the
 * caller's INPUT, EXPOSED_OUT its OUTPUT. So every place is first brought to one canonical form, in
 * which two places are the same memory if (and, where it matters, only if) rank, buffer and offset
 * are the same. EXPOSED_* may as well be windows, in which elements far apart share memory: so
 * places in them are compared once more, as places in a window.
 */
#include "collectives/execute_program.h"

#include "base/status.h"

#include <stdlib.h>

/* Elements [first, first + count); first is signed because INPUT in OUTPUT may begin before it. */
struct range {
    uint32_t rank;
    enum kolo__buffer buffer;
    ptrdiff_t first;
    size_t count;
};

static kolo_status link_step(struct kolo__program *program, uint32_t index, uint32_t fence);
static bool conflict(const struct kolo__schedule *s, const struct kolo__step *earlier,
                     const struct kolo__step *later, ptrdiff_t *shift);
static bool names_remote(const struct kolo__schedule *s, const struct kolo__step *step);
static uint32_t previous_in_channel(const struct kolo__schedule *s, uint32_t index);
static kolo_status append(struct kolo__program *program, uint32_t step, ptrdiff_t shift);

kolo_status kolo__program_find_dependencies(struct kolo__program *program)
{
    const struct kolo__schedule *s = &program->schedule;
    uint32_t fence = 0; /* first step after the last fence: of what is before it only messages are
                           waited for */
    for (uint32_t index = 0; index < s->step_count; index++) {
        const struct kolo__step *step = &s->steps[index];
        struct kolo__plan_step *plan = &program->plan[index];
        plan->remote = names_remote(s, step);
        plan->previous = previous_in_channel(s, index);
        kolo_status status = link_step(program, index, fence);
        if (status != KOLO_OK)
            return status;
        if (kolo__step_is_fence(step))
            fence = index + 1;
    }
    return KOLO_OK;
}

size_t kolo__step_limit(struct kolo__program *program, uint32_t index)
{
    const struct kolo__plan_step *plan = &program->plan[index];
    struct kolo__step_run *run = kolo__step_run(program, index);
    const struct kolo__dependency *dependencies = &program->dependencies[plan->first_dependency];
    size_t limit = SIZE_MAX;
    for (uint32_t i = run->first_open_dependency; i < plan->dependency_count; i++) {
        const struct kolo__dependency *dependency = &dependencies[i];
        if (kolo__step_finished(program, dependency->step)) {
            if (i == run->first_open_dependency)
                run->first_open_dependency++;
            continue;
        }
        ptrdiff_t passed =
            (ptrdiff_t)kolo__step_run(program, dependency->step)->done - dependency->shift;
        size_t end = passed > 0 ? (size_t)passed : 0;
        if (end < limit)
            limit = end;
    }
    return limit;
}

static kolo_status link_step(struct kolo__program *program, uint32_t index, uint32_t fence)
{
    const struct kolo__schedule *s = &program->schedule;
    struct kolo__plan_step *plan = &program->plan[index];
    plan->first_dependency = program->dependency_count;
    /* A step further back than the window is finished when this one enters it. */
    uint32_t first = index < KOLO__EXECUTE_WINDOW ? 0 : index - KOLO__EXECUTE_WINDOW + 1;
    for (uint32_t earlier = first; earlier < index; earlier++) {
        ptrdiff_t shift = 0;
        if ((earlier < fence && !kolo__step_is_message(&s->steps[earlier])) ||
            !conflict(s, &s->steps[earlier], &s->steps[index], &shift))
            continue;
        kolo_status status = append(program, earlier, shift);
        if (status != KOLO_OK)
            return status;
    }
    plan->dependency_count = program->dependency_count - plan->first_dependency;
    return KOLO_OK;
}

/* INPUT element i of a rank is its OUTPUT element i + this, when that rank works in place. */
static ptrdiff_t input_in_output(const struct kolo__schedule *s, uint32_t rank)
{
    const struct kolo__problem *problem = &s->problem;
    if (rank == problem->rank)
        return (ptrdiff_t)s->input_in_output;
    switch (problem->collective) {
    case KOLO__ALLGATHER:
        return (ptrdiff_t)(rank * problem->count);
    case KOLO__REDUCE_SCATTER:
        return -(ptrdiff_t)(rank * problem->count);
    default:
        return 0;
    }
}

static struct range canonical(const struct kolo__schedule *s, const struct kolo__place *place,
                              size_t count)
{
    struct range range = {place->rank, place->buffer, (ptrdiff_t)place->offset, count};
    /* Whether another rank works in place is not known here: it might. */
    bool in_place = s->problem.in_place || place->rank != s->problem.rank;
    switch (place->buffer) {
    case KOLO__INPUT:
    case KOLO__EXPOSED_IN:
        range.buffer = in_place ? KOLO__OUTPUT : KOLO__INPUT;
        range.first += in_place ? input_in_output(s, place->rank) : 0;
        break;
    case KOLO__EXPOSED_OUT:
        range.buffer = KOLO__OUTPUT;
        break;
    default:
        break;
    }
    return range;
}

/* Where an EXPOSED place is if it is in a window; false: another buffer. */
static bool in_window(const struct kolo__schedule *s, const struct kolo__place *place, size_t count,
                      struct range *range)
{
    if (place->buffer != KOLO__EXPOSED_IN && place->buffer != KOLO__EXPOSED_OUT)
        return false;
    size_t first = kolo__window_offset(&s->problem, place->offset);
    *range = (struct range){place->rank, KOLO__EXPOSED_IN, (ptrdiff_t)first, count};
    return true;
}

/* Raises *shift to what these two ranges ask for, when they overlap. */
static void overlap(const struct range *earlier, const struct range *later, bool *found,
                    ptrdiff_t *shift)
{
    if (earlier->rank != later->rank || earlier->buffer != later->buffer)
        return;
    if (earlier->first >= later->first + (ptrdiff_t)later->count ||
        later->first >= earlier->first + (ptrdiff_t)earlier->count)
        return;
    ptrdiff_t distance = later->first - earlier->first;
    if (!*found || distance > *shift)
        *shift = distance;
    *found = true;
}

/* The same for two places, wherever EXPOSED_* may lie. */
static void meet(const struct kolo__schedule *s, const struct kolo__place *earlier,
                 size_t earlier_count, const struct kolo__place *later, size_t later_count,
                 bool *found, ptrdiff_t *shift)
{
    struct range a = canonical(s, earlier, earlier_count), b = canonical(s, later, later_count);
    overlap(&a, &b, found, shift);
    if (in_window(s, earlier, earlier_count, &a) && in_window(s, later, later_count, &b))
        overlap(&a, &b, found, shift);
}

static bool conflict(const struct kolo__schedule *s, const struct kolo__step *earlier,
                     const struct kolo__step *later, ptrdiff_t *shift)
{
    bool found = false;
    if (earlier->count == 0 || later->count == 0)
        return false;
    for (uint32_t w = 0; w < kolo__step_writes(earlier); w++) {
        const struct kolo__place *written = kolo__step_written(s, earlier, w);
        for (uint32_t i = 0; i < kolo__step_reads(later); i++)
            meet(s, written, earlier->count, kolo__step_read(s, later, i), later->count, &found,
                 shift);
        for (uint32_t i = 0; i < kolo__step_writes(later); i++)
            meet(s, written, earlier->count, kolo__step_written(s, later, i), later->count, &found,
                 shift);
    }
    for (uint32_t w = 0; w < kolo__step_writes(later); w++) {
        const struct kolo__place *written = kolo__step_written(s, later, w);
        for (uint32_t i = 0; i < kolo__step_reads(earlier); i++)
            meet(s, kolo__step_read(s, earlier, i), earlier->count, written, later->count, &found,
                 shift);
    }
    return found;
}

static bool names_remote(const struct kolo__schedule *s, const struct kolo__step *step)
{
    for (uint32_t i = 0; i < kolo__step_writes(step); i++)
        if (kolo__step_written(s, step, i)->rank != s->problem.rank)
            return true;
    for (uint32_t i = 0; i < kolo__step_reads(step); i++)
        if (kolo__step_read(s, step, i)->rank != s->problem.rank)
            return true;
    return false;
}

static uint32_t previous_in_channel(const struct kolo__schedule *s, uint32_t index)
{
    const struct kolo__step *step = &s->steps[index];
    if (!kolo__step_is_message(step))
        return KOLO__NO_STEP;
    for (uint32_t back = 1; back < KOLO__EXECUTE_WINDOW && back <= index; back++) {
        const struct kolo__step *other = &s->steps[index - back];
        if (kolo__step_is_message(other) && other->peer == step->peer &&
            (other->kind == KOLO__SEND) == (step->kind == KOLO__SEND))
            return index - back;
    }
    return KOLO__NO_STEP;
}

static kolo_status append(struct kolo__program *program, uint32_t step, ptrdiff_t shift)
{
    if (program->dependency_count == program->dependency_capacity) {
        uint32_t capacity =
            program->dependency_capacity == 0 ? 64 : 2 * program->dependency_capacity;
        struct kolo__dependency *grown =
            realloc(program->dependencies, capacity * sizeof(*program->dependencies));
        if (grown == NULL)
            return kolo__error(KOLO_ERR_MEMORY, "no memory for %u dependencies between steps",
                               capacity);
        program->dependencies = grown;
        program->dependency_capacity = capacity;
    }
    program->dependencies[program->dependency_count++] = (struct kolo__dependency){step, shift};
    return KOLO_OK;
}
