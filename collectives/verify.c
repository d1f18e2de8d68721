/* SPDX-License-Identifier: Apache-2.0 */
/* Lays out the memory of all ranks, runs the proof once for each way in which buffers can be the
 * same memory, and adds up what the schedules cost. */
#include "collectives/verify_state.h"

#include "base/assert.h"
#include "base/random.h"
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where EXPOSED_* of the ranks lie. HOSTS_DIFFER: on every other host all in windows, on the rest
 * in the callers' buffers. OUT_UNMAPPED: as ALL_CALLERS, but OUTPUT of some rank is not mapped, and
 * nothing stands in for it: no step that names EXPOSED_OUT is done. */
enum layout { ALL_WINDOWS, ALL_CALLERS, MIXED, HOSTS_DIFFER, OUT_UNMAPPED, LAYOUTS };

static bool exposes(const struct kolo__verification *v);
static bool matters(const struct kolo__verification *v, enum layout layout);
static kolo_status group_ranks(struct kolo__verification *v, const uint32_t *host_of);
static kolo_status prove(struct kolo__verification *v, enum layout layout);
static kolo_status allocate(struct kolo__verification *v);
static void release(struct kolo__verification *v);
static void add_up(const struct kolo__verification *v, struct kolo__cost *cost);

kolo_status kolo__verify(const struct kolo__schedule *schedules, uint32_t size,
                         const struct kolo__verify_options *options, struct kolo__cost *cost,
                         char *text, size_t text_bytes)
{
    struct kolo__verification v = {.schedules = schedules,
                                   .size = size,
                                   .window = options->window,
                                   .repeat = options->repeat,
                                   .text = text,
                                   .text_bytes = text_bytes};
    if (size == 0 || size > UINT16_MAX || options->repeat == 0 || options->window == 0 ||
        options->window > KOLO__VERIFY_WINDOW_MAX)
        return kolo__verify_refuse(&v, "size, window or repeat is out of range");
    kolo_status status = group_ranks(&v, options->host_of);
    if (status == KOLO_OK)
        status = kolo__verify_shape(&v);
    if (status == KOLO_OK)
        status = allocate(&v);
    for (enum layout layout = ALL_WINDOWS; status == KOLO_OK && layout < LAYOUTS; layout++)
        if (matters(&v, layout))
            status = prove(&v, layout);
    if (status == KOLO_OK && cost != NULL)
        add_up(&v, cost);
    release(&v);
    return status;
}

kolo_status kolo__verify_refuse(struct kolo__verification *v, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(v->text, v->text_bytes, format, arguments);
    va_end(arguments);
    return KOLO_ERR_INVALID;
}

/* Numbers those who share memory by first appearance. */
static kolo_status group_ranks(struct kolo__verification *v, const uint32_t *host_of)
{
    v->group_of = calloc(v->size, sizeof(*v->group_of));
    v->groups = calloc(v->size, sizeof(*v->groups));
    if (v->group_of == NULL || v->groups == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory to prove schedules of %u ranks", v->size);
    for (uint32_t rank = 0; rank < v->size; rank++) {
        uint32_t first = 0;
        while (host_of != NULL && host_of[first] != host_of[rank])
            first++;
        v->group_of[rank] = first == rank ? v->group_count++ : v->group_of[first];
        v->groups[v->group_of[rank]].members++;
        v->mapped |= v->schedules[rank].mapped;
    }
    return KOLO_OK;
}

/* Whether it matters where EXPOSED_* lie. */
static bool exposes(const struct kolo__verification *v)
{
    bool any = false;
    for (uint32_t rank = 0; rank < v->size; rank++)
        any |= v->schedules[rank].exposes;
    return any;
}

/* Whether this layout can be told from those before. */
static bool matters(const struct kolo__verification *v, enum layout layout)
{
    bool exposes_out = false;
    for (uint32_t rank = 0; rank < v->size; rank++)
        exposes_out |= v->schedules[rank].exposes_out;
    if (layout == OUT_UNMAPPED)
        return v->conditional_copies && !exposes_out;
    if (layout == HOSTS_DIFFER)
        return v->group_count > 1 && exposes(v);
    return layout == ALL_WINDOWS || exposes(v);
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t window_cells(const struct kolo__schedule *s)
{
    return s->exposes ? 2 * s->problem.window_count : 0;
}

static size_t cells_of(const struct kolo__schedule *s)
{
    size_t cells = s->input_count + s->output_count + s->scratch_count;
    if (s->mapped)
        cells += window_cells(s) + 2 * s->slot_count;
    return cells;
}

/* Entries of arrived_at: of each group one more than it has arrivals. */
static size_t arrivals_of_all(const struct kolo__verification *v)
{
    size_t all = 0;
    for (uint32_t group = 0; group < v->group_count; group++)
        all += (size_t)v->repeat * v->groups[group].arrivals + 1;
    return all;
}

static kolo_status allocate(struct kolo__verification *v)
{
    const struct kolo__problem *problem = &v->schedules[0].problem;
    KOLO__ASSERT(v->size > 0);
    for (uint32_t rank = 0; rank < v->size; rank++) {
        v->cell_count += cells_of(&v->schedules[rank]);
        v->stride = larger(v->stride, v->schedules[rank].input_count + 1);
    }
    if (v->stride > UINT32_MAX / v->repeat)
        return kolo__verify_refuse(v, "%zu elements are too many to prove", v->stride);
    size_t outputs = larger(v->schedules[0].output_count, 1);
    v->ranks = calloc(v->size, sizeof(*v->ranks));
    v->cells = calloc(larger(v->cell_count, 1), sizeof(*v->cells));
    v->weights = calloc(v->size, sizeof(*v->weights));
    v->queue = calloc(v->size, sizeof(*v->queue));
    v->arrived_at = calloc(larger(arrivals_of_all(v), 1), sizeof(*v->arrived_at));
    if (v->mapped)
        v->accesses = calloc(larger(v->cell_count, 1), sizeof(*v->accesses));
    if (problem->collective == KOLO__ALLREDUCE)
        v->expressions = calloc(outputs, sizeof(*v->expressions));
    if (v->ranks == NULL || v->cells == NULL || v->weights == NULL || v->queue == NULL ||
        v->arrived_at == NULL || (v->mapped && v->accesses == NULL) ||
        (problem->collective == KOLO__ALLREDUCE && v->expressions == NULL))
        return kolo__error(KOLO_ERR_MEMORY,
                           "no memory to prove schedules of %u ranks, %zu elements", v->size,
                           v->cell_count);
    struct kolo__random random = {.state = v->size};
    for (uint32_t rank = 0; rank < v->size; rank++) {
        v->weights[rank] = v->size <= 64 ? UINT64_C(1) << rank : kolo__random_u64(&random);
        v->all_weights += v->weights[rank];
    }
    return KOLO_OK;
}

static void release(struct kolo__verification *v)
{
    free(v->ranks);
    free(v->cells);
    free(v->weights);
    free(v->queue);
    free(v->arrived_at);
    free(v->group_of);
    free(v->groups);
    free(v->accesses);
    free(v->expressions);
}

/* Gives the rank its cells from `first` on; returns the end. */
static size_t lay_out(struct kolo__verification *v, uint32_t rank, size_t first, enum layout layout)
{
    const struct kolo__schedule *s = &v->schedules[rank];
    struct kolo__verify_rank *r = &v->ranks[rank];
    *r = (struct kolo__verify_rank){
        .schedule = s, .first_cell = first, .group = &v->groups[v->group_of[rank]]};
    r->base[KOLO__INPUT] = first;
    r->base[KOLO__OUTPUT] = first + s->input_count;
    r->caller_cells = s->input_count + s->output_count;
    if (s->problem.in_place && s->problem.collective == KOLO__ALLGATHER) {
        r->base[KOLO__INPUT] = first + s->input_in_output;
        r->base[KOLO__OUTPUT] = first;
        r->caller_cells = s->output_count;
    } else if (s->problem.in_place) {
        r->base[KOLO__OUTPUT] = first - s->input_in_output;
        r->caller_cells = larger(s->input_count, s->output_count);
    }
    size_t next = first + r->caller_cells;
    r->base[KOLO__SCRATCH] = next;
    next += s->scratch_count;
    if (!s->mapped)
        return next;
    /* A scaled copy must not change INPUT, so it always goes to a window. MIXED: all four, and
     * every rank each of them at some size. */
    uint32_t side = rank + v->size;
    bool all = layout == ALL_WINDOWS || (layout == HOSTS_DIFFER && v->group_of[rank] % 2 == 1);
    r->staged_in = all || (layout == MIXED && (side & 1) != 0) || s->problem.prescale;
    r->staged_out = all || (layout == MIXED && (side & 2) != 0);
    r->base[KOLO__EXPOSED_IN] = r->staged_in ? next : r->base[KOLO__INPUT];
    r->base[KOLO__EXPOSED_OUT] = r->staged_out ? next : r->base[KOLO__OUTPUT];
    next += window_cells(s);
    r->base[KOLO__SLOT] = next;
    return next + 2 * s->slot_count;
}

static kolo_status prove(struct kolo__verification *v, enum layout layout)
{
    size_t next = 0;
    for (uint32_t rank = 0; rank < v->size; rank++)
        next = lay_out(v, rank, next, layout);
    memset(v->cells, 0, v->cell_count * sizeof(*v->cells));
    if (v->accesses != NULL)
        memset(v->accesses, 0, v->cell_count * sizeof(*v->accesses));
    memset(v->arrived_at, 0, arrivals_of_all(v) * sizeof(*v->arrived_at));
    uint32_t *arrived_at = v->arrived_at;
    for (uint32_t group = 0; group < v->group_count; group++) {
        struct kolo__verify_group *g = &v->groups[group];
        bool callers = layout == ALL_CALLERS || layout == OUT_UNMAPPED ||
                       (layout == HOSTS_DIFFER && group % 2 == 0);
        g->no_windows = !exposes(v) || (callers && !v->schedules[0].problem.prescale);
        g->mapped_throughout = g->no_windows && layout != OUT_UNMAPPED;
        g->level = 0;
        g->arrived_at = arrived_at;
        arrived_at += (size_t)v->repeat * g->arrivals + 1;
    }
    return kolo__verify_run(v);
}

/* INPUT to one's own EXPOSED_IN, EXPOSED_OUT to OUTPUT. */
static bool is_window_copy(const struct kolo__step *step)
{
    return step->kind == KOLO__COPY && step->from.rank == step->to.rank &&
           ((step->from.buffer == KOLO__INPUT && step->to.buffer == KOLO__EXPOSED_IN) ||
            (step->from.buffer == KOLO__EXPOSED_OUT && step->to.buffer == KOLO__OUTPUT));
}

static void add_local(struct kolo__cost *cost, const struct kolo__schedule *s,
                      const struct kolo__step *step)
{
    cost->mapped_loads_all += kolo__step_reads(step) * step->count;
    cost->mapped_stores_all += kolo__step_writes(step) * step->count;
    for (uint32_t i = 0; i < kolo__step_reads(step); i++)
        if (kolo__step_read(s, step, i)->rank != s->problem.rank)
            cost->remote_loads_all += step->count;
    for (uint32_t i = 0; i < kolo__step_writes(step); i++)
        if (kolo__step_written(s, step, i)->rank != s->problem.rank)
            cost->remote_stores_all += step->count;
}

static void add_up(const struct kolo__verification *v, struct kolo__cost *cost)
{
    *cost = (struct kolo__cost){.rounds = v->depth};
    for (uint32_t rank = 0; rank < v->size; rank++) {
        const struct kolo__schedule *s = &v->schedules[rank];
        size_t sent = 0;
        uint32_t waits = 0, window_waits = 0;
        for (uint32_t i = 0; i < s->step_count; i++) {
            const struct kolo__step *step = &s->steps[i];
            if ((step->flags & KOLO__UNMAPPED_ONLY) != 0)
                continue;
            if (step->kind == KOLO__SEND) {
                sent += step->count;
                cost->messages_all++;
            } else if (step->kind == KOLO__AWAIT) {
                waits++;
                window_waits += (step->flags & KOLO__WINDOWS_ONLY) != 0;
            } else if (is_window_copy(step)) {
                cost->window_copies_all += step->count;
            } else if (step->kind == KOLO__COPY || step->kind == KOLO__REDUCE) {
                add_local(cost, s, step);
            }
        }
        cost->elements_sent_all += sent;
        cost->elements_sent_max = larger(cost->elements_sent_max, sent);
        if (cost->waits_max < waits)
            cost->waits_max = waits;
        if (cost->window_waits_max < window_waits)
            cost->window_waits_max = window_waits;
    }
}
