/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The executor's frame: makes programs, and walks the window of a run.
 *
 * One call of progress looks at the steps in the window once, oldest first. That is enough: what a
 * step waits for inside its rank is always an earlier step, so everything that one call can set
 * going, it does.
 */
#include "collectives/execute_program.h"

#include "base/assert.h"
#include "base/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check_schedule(const struct kolo__schedule *s);
static kolo_status allocate(struct kolo__program *program);
static kolo_status walk(struct kolo__program *program, bool *moved, struct kolo__fault *fault);

/* Not where results are sums: their lines were read a moment ago, in place or in a window. */
static bool streams(const struct kolo__program *program)
{
    const struct kolo__schedule *s = &program->schedule;
    size_t count = s->output_count + (s->problem.in_place ? 0 : s->input_count);
    return program->options.cache_bytes > 0 && s->mapped &&
           !kolo__collective_reduces(s->problem.collective) &&
           count * program->element_bytes / 4 > program->options.cache_bytes;
}

kolo_status kolo__program_create(struct kolo__schedule *schedule,
                                 const struct kolo__program_options *options,
                                 struct kolo__program **result)
{
    *result = NULL;
    struct kolo__program *program = calloc(1, sizeof(*program));
    if (program == NULL) {
        kolo__schedule_free(schedule);
        return kolo__error(KOLO_ERR_MEMORY, "no memory for a program");
    }
    program->schedule = *schedule;
    memset(schedule, 0, sizeof(*schedule));
    program->options = *options;
    program->element_bytes = kolo_dtype_bytes(options->dtype);
    KOLO__ASSERT(program->element_bytes > 0 && options->depth > 0);
    KOLO__ASSERT(!program->schedule.out_of_memory);
    program->segment_count = options->segment_bytes / program->element_bytes;
    if (program->segment_count == 0)
        program->segment_count = 1;
    program->streams = streams(program);
    check_schedule(&program->schedule);

    kolo_status status = allocate(program);
    if (status == KOLO_OK)
        status = kolo__program_find_dependencies(program);
    if (status != KOLO_OK) {
        kolo__program_free(program);
        return status;
    }
    *result = program;
    return KOLO_OK;
}

void kolo__program_free(struct kolo__program *program)
{
    if (program == NULL)
        return;
    kolo__schedule_free(&program->schedule);
    free(program->plan);
    free(program->dependencies);
    free(program->steps);
    free(program->posts);
    free(program->post_slots);
    kolo__program_give_memory(program, program->scratch);
    kolo__program_give_memory(program, program->staging);
    free(program->free_slots);
    free(program->operands);
    free(program->scales);
    free(program->targets);
    free(program->peers);
    free(program->slots);
    free(program);
}

size_t kolo__program_bytes(const struct kolo__program *program)
{
    return program->bytes;
}

void kolo__run_begin(struct kolo__program *program, const struct kolo__run_arguments *arguments)
{
    const struct kolo__schedule *s = &program->schedule;
    struct kolo__mapping *mapping = arguments->mapping;
    KOLO__ASSERT(!program->running);
    if (s->mapped) {
        KOLO__ASSERT(mapping != NULL);
        KOLO__ASSERT(s->slot_count * program->element_bytes <= mapping->slot_bytes);
        KOLO__ASSERT(s->problem.window_count * program->element_bytes <= mapping->window_bytes);
    }
    program->arguments = *arguments;
    program->bases[KOLO__INPUT] = (unsigned char *)(uintptr_t)arguments->input; /* only read */
    program->bases[KOLO__OUTPUT] = arguments->output;
    program->bases[KOLO__SCRATCH] = program->scratch;
    if (arguments->piece_count > 0)
        kolo__pieces_check(program);
    program->oldest = 0;
    program->opened = 0;
    program->spare_used = 0;
    program->free_slot_count = program->slot_count;
    for (uint32_t i = 0; i < program->slot_count; i++)
        program->free_slots[i] = i;
    program->traced = arguments->trace != NULL && kolo__program_is_worth_tracing(program);
    program->doing.begin_ticks = 0;
    if (s->mapped)
        kolo__program_map(program);
    program->running = true;
}

kolo_status kolo__run_progress(struct kolo__program *program, bool *moved,
                               struct kolo__fault *fault)
{
    const struct kolo__transport *transport = program->arguments.transport;
    bool advanced = false;
    kolo_status status = KOLO_OK;
    KOLO__ASSERT(program->running);
    if (transport != NULL && transport->fault.status != KOLO_OK) {
        *fault = transport->fault;
        status = fault->status;
    }
    program->trace_ticks = 0;
    if (status == KOLO_OK)
        status = walk(program, &advanced, fault);
    if (moved != NULL && advanced)
        *moved = true;
    if (status == KOLO_OK && program->oldest < program->schedule.step_count)
        return KOLO_AGAIN;
    program->running = false;
    if (program->traced)
        kolo__run_trace_end(program);
    if (status == KOLO_OK && program->schedule.exposes)
        program->arguments.mapping->cross_reads = program->all_want_cross_reads;
    return status;
}

static void open_step(struct kolo__program *program, uint32_t index)
{
    const struct kolo__step *step = &program->schedule.steps[index];
    struct kolo__step_run *run = kolo__step_run(program, index);
    *run = (struct kolo__step_run){0};
    if (step->kind == KOLO__COPY || step->kind == KOLO__SEND || step->kind == KOLO__RECV_REDUCE)
        run->from = kolo__program_address(program, &step->from);
    if (!kolo__step_is_fence(step) && step->kind != KOLO__SEND)
        run->to = kolo__program_address(program, &step->to);
    if (program->arguments.piece_count > 0)
        kolo__pieces_open_step(program, index);
    program->opened = index + 1;
}

static inline kolo_status advance(struct kolo__program *program, uint32_t index, bool *moved,
                                  struct kolo__fault *fault)
{
    const struct kolo__step *step = &program->schedule.steps[index];
    if (kolo__step_is_message(step))
        return kolo__step_advance_message(program, index, moved);
    if (kolo__program_leaves_out(program, step))
        kolo__step_run(program, index)->finished = true;
    else if (kolo__step_is_fence(step))
        return kolo__step_advance_fence(program, index, moved, fault);
    else
        return kolo__step_advance_local(program, index, moved, fault);
    return KOLO_OK;
}

/* Apart, so that it costs nothing where nobody wants a timeline. */
__attribute__((noinline, cold)) static kolo_status advance_traced(struct kolo__program *program,
                                                                  uint32_t index, bool *moved,
                                                                  struct kolo__fault *fault)
{
    bool advanced = false;
    if (program->schedule.mapped && !kolo__step_is_message(&program->schedule.steps[index])) {
        kolo__step_trace_mapped(program, index);
        return advance(program, index, moved, fault);
    }
    kolo__step_trace_before(program, index);
    kolo_status status = advance(program, index, &advanced, fault);
    kolo__step_trace_after(program, index, advanced);
    *moved |= advanced;
    return status;
}

static kolo_status walk(struct kolo__program *program, bool *moved, struct kolo__fault *fault)
{
    const struct kolo__schedule *s = &program->schedule;
    const bool traced = program->traced;
    bool open = false; /* an earlier step that a fence waits for is not finished */
    for (uint32_t index = program->oldest;
         index < s->step_count && index - program->oldest < program->window; index++) {
        const struct kolo__step *step = &s->steps[index];
        if (kolo__step_is_fence(step) && open)
            break;
        if (program->plan[index].remote && !kolo__program_gathered(program))
            break;
        if (index == program->opened)
            open_step(program, index);
        struct kolo__step_run *run = kolo__step_run(program, index);
        if (!run->finished) {
            kolo_status status = traced ? advance_traced(program, index, moved, fault)
                                        : advance(program, index, moved, fault);
            if (status != KOLO_OK && kolo__step_is_message(step))
                *fault = program->arguments.transport->fault;
            KOLO__ASSERT(status == KOLO_OK || fault->status != KOLO_OK);
            if (status != KOLO_OK)
                return fault->status;
        }
        if (kolo__step_is_fence(step) && !run->finished)
            break;
        open |= !run->finished && !kolo__step_is_message(step);
        if (run->finished && index == program->oldest) {
            while (program->oldest < program->opened &&
                   kolo__step_run(program, program->oldest)->finished)
                program->oldest++;
        }
    }
    if (!*moved && !s->mapped && program->arguments.mapping != NULL)
        return kolo__program_check_peers(program, fault);
    return KOLO_OK;
}

/* The oldest unfinished step, or NULL while the run waits for the others to join in, or has ended.
 */
static const struct kolo__step *waiting_step(const struct kolo__program *program)
{
    const struct kolo__schedule *s = &program->schedule;
    if (program->oldest >= s->step_count)
        return NULL;
    const struct kolo__step *step = &s->steps[program->oldest];
    bool needs_all = kolo__step_is_fence(step) || program->plan[program->oldest].remote;
    if (s->mapped && program->exposed && needs_all && !kolo__program_gathered(program))
        return NULL;
    return step;
}

int kolo__run_waiting_for(const struct kolo__program *program)
{
    const struct kolo__schedule *s = &program->schedule;
    if (!program->running || program->oldest >= s->step_count)
        return -1;
    const struct kolo__step *step = waiting_step(program);
    if (step == NULL)
        return (int)program->gathered;
    if (kolo__step_is_message(step))
        return (int)step->peer;
    return step->kind == KOLO__AWAIT && program->arrived < s->problem.size ? (int)program->arrived
                                                                           : -1;
}

const char *kolo__run_state(const struct kolo__program *program, char *text, size_t bytes)
{
    static const char *const verbs[] = {[KOLO__COPY] = "copy",
                                        [KOLO__REDUCE] = "reduce",
                                        [KOLO__SEND] = "send to",
                                        [KOLO__RECV] = "receive from",
                                        [KOLO__RECV_REDUCE] = "receive from"};
    const struct kolo__schedule *s = &program->schedule;
    const struct kolo__step *step = waiting_step(program);
    int peer = kolo__run_waiting_for(program);
    if (!program->running) {
        snprintf(text, bytes, "not running");
    } else if (program->oldest >= s->step_count) {
        snprintf(text, bytes, "all %u steps done", s->step_count);
    } else if (step == NULL) {
        snprintf(text, bytes, "rank %d to begin this operation (step %u of %u)", peer,
                 program->oldest + 1, s->step_count);
    } else if (kolo__step_is_fence(step)) {
        char whom[32] = "all ranks";
        if (peer >= 0)
            snprintf(whom, sizeof(whom), "rank %d", peer);
        snprintf(text, bytes, "%s to come as far (step %u of %u)", whom, program->oldest + 1,
                 s->step_count);
    } else {
        bool open = program->oldest < program->opened;
        size_t done = open ? program->steps[program->oldest % program->window].done : 0;
        char whom[32] = "";
        if (peer >= 0)
            snprintf(whom, sizeof(whom), " rank %d", peer);
        snprintf(text, bytes, "%s%s (step %u of %u, %zu of %zu elements)", verbs[step->kind], whom,
                 program->oldest + 1, s->step_count, done, step->count);
    }
    return text;
}

/* Algorithms are proved by verify.h before; this catches at once what else would corrupt memory. */
static void check_place(const struct kolo__schedule *s, const struct kolo__place *place,
                        size_t count)
{
    size_t limit = SIZE_MAX;
    KOLO__ASSERT(place->rank < s->problem.size);
    switch (place->buffer) {
    case KOLO__INPUT:
        limit = s->input_count;
        break;
    case KOLO__OUTPUT:
        limit = s->output_count;
        break;
    case KOLO__SCRATCH:
        limit = s->scratch_count;
        break;
    case KOLO__SLOT:
        limit = s->slot_count;
        break;
    default:
        KOLO__ASSERT(count == 0 || kolo__window_holds(&s->problem, place->offset, count));
        break;
    }
    KOLO__ASSERT(place->offset <= limit && count <= limit - place->offset);
    KOLO__ASSERT(place->rank == s->problem.rank || place->buffer == KOLO__SLOT ||
                 place->buffer == KOLO__EXPOSED_IN || place->buffer == KOLO__EXPOSED_OUT);
}

static void check_schedule(const struct kolo__schedule *s)
{
    for (uint32_t index = 0; index < s->step_count; index++) {
        const struct kolo__step *step = &s->steps[index];
        if (kolo__step_is_fence(step)) {
            KOLO__ASSERT(s->mapped);
            continue;
        }
        if (kolo__step_is_message(step))
            KOLO__ASSERT(step->peer < s->problem.size && step->peer != s->problem.rank);
        for (uint32_t i = 0; i < kolo__step_reads(step); i++)
            check_place(s, kolo__step_read(s, step, i), step->count);
        for (uint32_t i = 0; i < kolo__step_writes(step); i++)
            check_place(s, kolo__step_written(s, step, i), step->count);
    }
}

/* What the steps need, found in one pass before anything is allocated. */
struct needs {
    size_t message_count; /* elements of the longest RECV_REDUCE */
    uint32_t staged;      /* RECV_REDUCE steps in any one window */
    uint32_t sources, targets;
};

static struct needs find_needs(const struct kolo__program *program)
{
    const struct kolo__schedule *s = &program->schedule;
    struct needs needs = {.sources = 1, .targets = 1};
    uint32_t staged = 0;
    for (uint32_t index = 0; index < s->step_count; index++) {
        const struct kolo__step *step = &s->steps[index];
        if (index >= KOLO__EXECUTE_WINDOW &&
            s->steps[index - KOLO__EXECUTE_WINDOW].kind == KOLO__RECV_REDUCE)
            staged--;
        if (step->kind == KOLO__RECV_REDUCE) {
            staged++;
            if (step->count > needs.message_count)
                needs.message_count = step->count;
        }
        if (staged > needs.staged)
            needs.staged = staged;
        if (step->kind == KOLO__REDUCE && step->source_count > needs.sources)
            needs.sources = step->source_count;
        if (kolo__step_writes(step) > needs.targets)
            needs.targets = kolo__step_writes(step);
    }
    return needs;
}

static void plan_staging(struct kolo__program *program, const struct needs *needs)
{
    size_t count = needs->message_count < program->segment_count ? needs->message_count
                                                                 : program->segment_count;
    size_t useful = (size_t)needs->staged * program->options.depth;
    size_t wanted = useful < KOLO__STAGING_SLOTS ? useful : KOLO__STAGING_SLOTS;
    /* Whole cache lines, so that slots do not share any. */
    program->slot_bytes = (count * program->element_bytes + 63) / 64 * 64;
    program->slot_count = wanted > needs->staged ? (uint32_t)wanted : needs->staged;
    program->spare_slots = program->slot_count - needs->staged;
}

/* n times bytes of zero, at least one byte so that NULL is a failure. */
static void *zeroed(size_t n, size_t bytes)
{
    return calloc(n == 0 ? 1 : n, bytes);
}

static kolo_status allocate(struct kolo__program *program)
{
    const struct kolo__schedule *s = &program->schedule;
    struct needs needs = find_needs(program);
    plan_staging(program, &needs);
    program->window =
        s->step_count < KOLO__EXECUTE_WINDOW ? s->step_count + 1 : KOLO__EXECUTE_WINDOW;
    size_t post_count = (size_t)program->window * program->options.depth;
    size_t staging_bytes = program->slot_count * program->slot_bytes;
    size_t scratch_bytes = s->scratch_count * program->element_bytes;
    program->bytes = staging_bytes + scratch_bytes;

    program->plan = zeroed(s->step_count, sizeof(*program->plan));
    program->dependency_capacity = 64;
    program->dependencies = zeroed(program->dependency_capacity, sizeof(*program->dependencies));
    program->steps = zeroed(program->window, sizeof(*program->steps));
    program->posts = zeroed(post_count, sizeof(*program->posts));
    program->post_slots = zeroed(post_count, sizeof(*program->post_slots));
    program->free_slots = zeroed(program->slot_count, sizeof(*program->free_slots));
    program->operands = zeroed(needs.sources, sizeof(*program->operands));
    program->scales = zeroed(needs.sources, sizeof(*program->scales));
    program->targets = zeroed(needs.targets, sizeof(*program->targets));
    program->peers = zeroed(s->mapped ? s->problem.size : 0, sizeof(*program->peers));
    program->slots = zeroed(s->mapped ? 2 * s->problem.size : 0, sizeof(*program->slots));
    program->staging = kolo__program_take_memory(program, staging_bytes);
    program->scratch = kolo__program_take_memory(program, scratch_bytes);
    if (program->plan == NULL || program->dependencies == NULL || program->steps == NULL ||
        program->posts == NULL || program->post_slots == NULL || program->free_slots == NULL ||
        program->operands == NULL || program->scales == NULL || program->targets == NULL ||
        program->peers == NULL || program->slots == NULL || program->staging == NULL ||
        program->scratch == NULL)
        return kolo__error(KOLO_ERR_MEMORY,
                           "no memory for a program of %u steps (%zu bytes of scratch and staging)",
                           s->step_count, program->bytes);
    /* A barrier sends what is in SCRATCH before anything was put there. */
    memset(program->scratch, 0, scratch_bytes);

    for (uint32_t index = 0; index < s->step_count; index++) {
        size_t count = s->steps[index].count;
        program->plan[index].segments = count == 0 ? 1 : (count - 1) / program->segment_count + 1;
    }
    return KOLO_OK;
}
