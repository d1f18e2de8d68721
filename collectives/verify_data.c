/* SPDX-License-Identifier: Apache-2.0 */
/* Moves contributions instead of numbers, and says in the end whether OUTPUT holds the right ones.
 */
#include "collectives/verify_state.h"

static kolo_status check_output(struct kolo__verification *v, uint32_t rank);
static kolo_status check_barrier(struct kolo__verification *v, uint32_t rank);

/* Not commutative: operands in another order give another hash. */
static uint64_t mix(uint64_t left, uint64_t right)
{
    uint64_t z = left * 0x9e3779b97f4a7c15u + (right ^ (right >> 29));
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    return z ^ (z >> 31);
}

size_t kolo__verify_cell(const struct kolo__verification *v, const struct kolo__place *place,
                         uint32_t operation)
{
    const struct kolo__verify_rank *owner = &v->ranks[place->rank];
    size_t offset = place->offset;
    if ((place->buffer == KOLO__EXPOSED_IN && owner->staged_in) ||
        (place->buffer == KOLO__EXPOSED_OUT && owner->staged_out))
        offset = kolo__window_offset(&owner->schedule->problem, offset);
    if (place->buffer == KOLO__SLOT && operation % 2 == 1)
        offset += owner->schedule->slot_count;
    return owner->base[place->buffer] + offset;
}

/* A new operation: the caller has written its INPUT and expects nothing of what OUTPUT holds. */
kolo_status kolo__verify_begin(struct kolo__verification *v, uint32_t rank)
{
    struct kolo__verify_rank *r = &v->ranks[rank];
    const struct kolo__schedule *s = r->schedule;
    for (size_t i = 0; i < r->caller_cells; i++) {
        kolo_status status = kolo__verify_write(v, rank, r->first_cell + i, kolo__verify_now(r));
        if (status != KOLO_OK)
            return status;
        v->cells[r->first_cell + i] = (struct kolo__cell){0};
    }
    struct kolo__cell own = {.sum = v->weights[rank],
                             .expression = mix(rank, 1),
                             .number = 1,
                             .element = (uint32_t)(r->operation * v->stride)};
    for (size_t i = 0; i < s->scratch_count; i++)
        v->cells[r->base[KOLO__SCRATCH] + i] = (struct kolo__cell){0};
    /* A barrier's token is what a rank says by being there. */
    if (s->problem.collective == KOLO__BARRIER && s->scratch_count > 0)
        v->cells[r->base[KOLO__SCRATCH]] = own;
    for (size_t i = 0; i < s->input_count; i++, own.element++)
        v->cells[r->base[KOLO__INPUT] + i] = own;
    return KOLO_OK;
}

/* When the step touches memory. */
static struct kolo__verify_time time_of(const struct kolo__verification *v, uint32_t rank,
                                        uint32_t index)
{
    const struct kolo__verify_rank *r = &v->ranks[rank];
    return kolo__step_is_message(&r->schedule->steps[index]) ? r->slots[index % v->window].at
                                                             : kolo__verify_now(r);
}

static kolo_status load(struct kolo__verification *v, uint32_t rank, uint32_t index, size_t cell,
                        struct kolo__cell *value)
{
    kolo_status status = kolo__verify_read(v, rank, cell, time_of(v, rank, index));
    *value = v->cells[cell];
    if (status == KOLO_OK && value->number == 0)
        status = kolo__verify_refuse(v, "rank %u, step %u: reads what nobody wrote", rank, index);
    return status;
}

/* *left becomes *left op *right. */
static kolo_status combine(struct kolo__verification *v, uint32_t rank, uint32_t index,
                           struct kolo__cell *left, const struct kolo__cell *right)
{
    if (left->element != right->element)
        return kolo__verify_refuse(v, "rank %u, step %u: combines elements %u and %u", rank, index,
                                   left->element, right->element);
    if (left->finished || right->finished)
        return kolo__verify_refuse(v, "rank %u, step %u: combines what was finished (element %u)",
                                   rank, index, left->element);
    if (left->number + right->number > v->size)
        return kolo__verify_refuse(v, "rank %u, step %u: element %u gets %u contributions of %u",
                                   rank, index, left->element, left->number + right->number,
                                   v->size);
    left->sum += right->sum;
    left->expression = mix(left->expression, right->expression);
    left->number = (uint16_t)(left->number + right->number);
    left->scaled = (uint16_t)(left->scaled + right->scaled);
    left->scaled_sum += right->scaled_sum;
    if (left->depth < right->depth)
        left->depth = right->depth;
    return KOLO_OK;
}

static kolo_status store(struct kolo__verification *v, uint32_t rank, uint32_t index, size_t cell,
                         const struct kolo__cell *value, uint32_t flags)
{
    kolo_status status = kolo__verify_write(v, rank, cell, time_of(v, rank, index));
    v->cells[cell] = *value;
    /* One rounding for all operands of a step: not the same as two steps. */
    enum kolo__step_kind kind = v->schedules[rank].steps[index].kind;
    if (kind == KOLO__REDUCE || kind == KOLO__RECV_REDUCE)
        v->cells[cell].expression = mix(value->expression, 2);
    if ((flags & KOLO__FINISH) != 0) {
        if (value->finished)
            return kolo__verify_refuse(v, "rank %u, step %u: finishes twice (element %u)", rank,
                                       index, value->element);
        v->cells[cell].finished = true;
    }
    return status;
}

/* A source and a result may be the same place, or disjoint; results are disjoint. */
static kolo_status check_overlap(struct kolo__verification *v, uint32_t rank, uint32_t index)
{
    const struct kolo__schedule *s = &v->schedules[rank];
    const struct kolo__step *step = &s->steps[index];
    uint32_t operation = v->ranks[rank].operation;
    for (uint32_t w = 0; w < kolo__step_writes(step); w++)
        for (uint32_t other = 0; other < w; other++) {
            size_t a = kolo__verify_cell(v, kolo__step_written(s, step, w), operation);
            size_t b = kolo__verify_cell(v, kolo__step_written(s, step, other), operation);
            if (step->count > 0 && a < b + step->count && b < a + step->count)
                return kolo__verify_refuse(v, "rank %u, step %u: its results overlap", rank, index);
        }
    for (uint32_t i = 0; i < kolo__step_reads(step); i++)
        for (uint32_t w = 0; w < kolo__step_writes(step); w++) {
            size_t from = kolo__verify_cell(v, kolo__step_read(s, step, i), operation);
            size_t to = kolo__verify_cell(v, kolo__step_written(s, step, w), operation);
            if (from != to && from < to + step->count && to < from + step->count)
                return kolo__verify_refuse(v, "rank %u, step %u: source and result overlap in part",
                                           rank, index);
        }
    return KOLO_OK;
}

/* COPY and REDUCE. */
kolo_status kolo__verify_local(struct kolo__verification *v, uint32_t rank, uint32_t index)
{
    const struct kolo__schedule *s = &v->schedules[rank];
    const struct kolo__step *step = &s->steps[index];
    uint32_t operation = v->ranks[rank].operation;
    if (step->kind == KOLO__COPY && step->flags == 0 &&
        kolo__verify_cell(v, &step->from, operation) == kolo__verify_cell(v, &step->to, operation))
        return KOLO_OK; /* onto itself: not even an access */
    kolo_status status = check_overlap(v, rank, index);
    for (size_t k = 0; status == KOLO_OK && k < step->count; k++) {
        struct kolo__cell result = {0}, value;
        for (uint32_t i = 0; status == KOLO_OK && i < kolo__step_reads(step); i++) {
            const struct kolo__place *place = kolo__step_read(s, step, i);
            status = load(v, rank, index, kolo__verify_cell(v, place, operation) + k, &value);
            if ((step->flags & KOLO__PRESCALE) != 0 && place->buffer == KOLO__INPUT) {
                value.scaled = (uint16_t)(value.scaled + value.number);
                value.scaled_sum += value.sum;
            }
            if (i == 0)
                result = value;
            else if (status == KOLO_OK)
                status = combine(v, rank, index, &result, &value);
        }
        for (uint32_t i = 0; status == KOLO_OK && i < kolo__step_writes(step); i++) {
            size_t target = kolo__verify_cell(v, kolo__step_written(s, step, i), operation);
            status = store(v, rank, index, target + k, &result, step->flags);
        }
    }
    return status;
}

/* A SEND and the RECV or RECV_REDUCE that it meets. */
kolo_status kolo__verify_message(struct kolo__verification *v, uint32_t from, uint32_t send_index,
                                 uint32_t to, uint32_t recv_index)
{
    const struct kolo__step *send = &v->schedules[from].steps[send_index];
    const struct kolo__step *recv = &v->schedules[to].steps[recv_index];
    uint32_t operation = v->ranks[to].operation;
    if (v->ranks[from].operation != operation)
        return kolo__verify_refuse(v, "rank %u, step %u: its message meets another operation", from,
                                   send_index);
    if (send->count != recv->count)
        return kolo__verify_refuse(
            v, "rank %u, step %u sends %zu elements, rank %u, step %u expects %zu", from,
            send_index, send->count, to, recv_index, recv->count);
    size_t source = kolo__verify_cell(v, &send->from, operation);
    size_t target = kolo__verify_cell(v, &recv->to, operation);
    size_t mine =
        recv->kind == KOLO__RECV_REDUCE ? kolo__verify_cell(v, &recv->from, operation) : 0;
    uint16_t depth = 0;
    for (size_t k = 0; k < send->count; k++)
        if (v->cells[source + k].depth > depth)
            depth = v->cells[source + k].depth;
    depth++;
    if (v->depth < depth)
        v->depth = depth;
    for (size_t k = 0; k < send->count; k++) {
        struct kolo__cell value, own;
        kolo_status status = load(v, from, send_index, source + k, &value);
        value.depth = depth;
        if (recv->kind == KOLO__RECV_REDUCE && status == KOLO_OK) {
            bool first = (recv->flags & KOLO__INCOMING_FIRST) != 0;
            status = load(v, to, recv_index, mine + k, &own);
            if (status == KOLO_OK)
                status = combine(v, to, recv_index, first ? &value : &own, first ? &own : &value);
            value = first ? value : own;
        }
        if (status == KOLO_OK)
            status = store(v, to, recv_index, target + k, &value,
                           recv->kind == KOLO__RECV ? 0 : recv->flags);
        if (status != KOLO_OK)
            return status;
    }
    return KOLO_OK;
}

kolo_status kolo__verify_end(struct kolo__verification *v, uint32_t rank)
{
    if (v->schedules[rank].problem.collective == KOLO__BARRIER)
        return check_barrier(v, rank);
    return check_output(v, rank);
}

/* OUTPUT element i of a rank, if all is right; expression and depth left open. */
static struct kolo__cell expected(const struct kolo__verification *v, uint32_t rank, size_t i)
{
    const struct kolo__problem *problem = &v->schedules[rank].problem;
    struct kolo__cell cell = {.sum = v->all_weights, .number = (uint16_t)v->size, .finished = true};
    size_t element = i;
    uint32_t source = problem->root;
    if (problem->collective == KOLO__REDUCE_SCATTER)
        element = rank * problem->count + i;
    if (problem->collective == KOLO__ALLGATHER || problem->collective == KOLO__ALLTOALL) {
        source = (uint32_t)(i / problem->count);
        element = i % problem->count;
        if (problem->collective == KOLO__ALLTOALL)
            element += rank * problem->count;
    }
    if (!kolo__collective_reduces(problem->collective)) {
        cell.sum = v->weights[source];
        cell.number = 1;
        cell.finished = false;
    }
    if (problem->prescale && cell.finished) {
        cell.scaled = cell.number;
        cell.scaled_sum = cell.sum;
    }
    cell.element = (uint32_t)(v->ranks[rank].operation * v->stride + element);
    return cell;
}

static kolo_status check_output(struct kolo__verification *v, uint32_t rank)
{
    const struct kolo__schedule *s = &v->schedules[rank];
    for (size_t i = 0; i < s->output_count; i++) {
        size_t index = v->ranks[rank].base[KOLO__OUTPUT] + i;
        const struct kolo__cell *cell = &v->cells[index];
        struct kolo__cell right = expected(v, rank, i);
        kolo_status status = kolo__verify_read(v, rank, index, kolo__verify_now(&v->ranks[rank]));
        if (status != KOLO_OK)
            return status;
        const char *wrong = NULL;
        if (cell->number == 0)
            wrong = "was never written";
        else if (cell->element != right.element)
            wrong = "comes from a wrong element";
        else if (cell->number != right.number || cell->sum != right.sum)
            wrong = "has not every contribution once";
        else if (cell->finished != right.finished)
            wrong = "did not pass FINISH";
        else if (cell->scaled != right.scaled || cell->scaled_sum != right.scaled_sum)
            wrong = "did not pass PRESCALE once for each contribution";
        else if (v->expressions != NULL && v->expressions[i] == 0)
            v->expressions[i] = cell->expression;
        else if (v->expressions != NULL && v->expressions[i] != cell->expression)
            wrong = "was combined in another order than on other ranks";
        if (wrong != NULL)
            return kolo__verify_refuse(v, "rank %u: OUTPUT element %zu %s (operation %u)", rank, i,
                                       wrong, v->ranks[rank].operation);
    }
    return KOLO_OK;
}

/* Every rank had entered: all tokens are here, or all ranks, which share memory, were seen to
 * arrive.
 */
static kolo_status check_barrier(struct kolo__verification *v, uint32_t rank)
{
    const struct kolo__verify_rank *r = &v->ranks[rank];
    if (v->size == 1 || (r->group->members == v->size &&
                         r->awaited > r->operation * kolo__verify_arrivals(r->group)))
        return KOLO_OK;
    uint64_t sum = 0, number = 0;
    for (size_t i = 0; i < r->schedule->scratch_count; i++) {
        const struct kolo__cell *cell = &v->cells[r->base[KOLO__SCRATCH] + i];
        if (cell->number > 0 && cell->element == r->operation * v->stride) {
            sum += cell->sum;
            number += cell->number;
        }
    }
    if (sum != v->all_weights || number != v->size)
        return kolo__verify_refuse(v, "rank %u leaves the barrier without having heard of all",
                                   rank);
    return KOLO_OK;
}
