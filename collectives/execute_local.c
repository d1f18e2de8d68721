/* SPDX-License-Identifier: Apache-2.0 */
/* Advances steps that only touch memory: copy and reduce, a piece a call. */
#include "collectives/execute_program.h"

#include "base/assert.h"

/* Elements of which so many sources fit into the bounce buffer. */
static size_t bounce_count(const struct kolo__program *program, uint32_t sources)
{
    size_t count = program->arguments.mapping->bounce_bytes / sources / program->element_bytes;
    KOLO__ASSERT(count > 0);
    return count;
}

static uint32_t private_sources(const struct kolo__program *program, const struct kolo__step *step);

struct kolo__reduction kolo__step_reduction(const struct kolo__program *program,
                                            const struct kolo__step *step)
{
    bool average = program->options.op == KOLO_AVERAGE && (step->flags & KOLO__FINISH) != 0;
    return (struct kolo__reduction){.dtype = program->options.dtype,
                                    .op = program->options.op,
                                    .divisor = average ? program->schedule.problem.size : 1};
}

bool kolo__step_prescales(const struct kolo__program *program, const struct kolo__step *step)
{
    return (step->flags & KOLO__PRESCALE) != 0 && program->options.op == KOLO_PREMUL_SUM;
}

kolo_status kolo__step_advance_local(struct kolo__program *program, uint32_t index, bool *moved,
                                     struct kolo__fault *fault)
{
    const struct kolo__step *step = &program->schedule.steps[index];
    struct kolo__step_run *run = kolo__step_run(program, index);
    size_t limit = kolo__step_limit(program, index);
    size_t end = limit < step->count ? limit : step->count;
    if (run->done < end) {
        /* A copy onto itself is nothing but its place in the order. */
        bool nothing = step->kind == KOLO__COPY && run->from == run->to &&
                       !kolo__step_prescales(program, step);
        size_t piece = KOLO__PIECE_BYTES / program->element_bytes;
        if (!nothing) {
            uint32_t bounced = step->kind == KOLO__REDUCE ? private_sources(program, step) : 0;
            if (bounced > 0)
                piece = bounce_count(program, bounced);
            if (end - run->done > piece)
                end = run->done + piece;
            kolo_status status =
                run->piece != NULL
                    ? kolo__pieces_process(program, index, end, fault)
                    : kolo__step_process(program, index, run->done, end, NULL, fault);
            if (status != KOLO_OK)
                return status;
        }
        run->done = end;
        *moved = true;
    }
    run->finished = run->done == step->count;
    return KOLO_OK;
}

/* How many sources have to be read out of other processes. */
static uint32_t private_sources(const struct kolo__program *program, const struct kolo__step *step)
{
    uint32_t count = 0;
    for (uint32_t i = 0; program->schedule.exposes && i < kolo__step_reads(step); i++)
        count += kolo__place_is_private(program, kolo__step_read(&program->schedule, step, i));
    return count;
}

/* Where elements of the step are in a place of it. */
static unsigned char *address(const struct kolo__program *program, const struct kolo__place *place,
                              size_t skip, unsigned char *callers)
{
    bool is_callers = place->buffer == KOLO__INPUT || place->buffer == KOLO__OUTPUT;
    return callers != NULL && is_callers ? callers : kolo__program_address(program, place) + skip;
}

kolo_status kolo__step_process(struct kolo__program *program, uint32_t index, size_t begin,
                               size_t end, unsigned char *callers, struct kolo__fault *fault)
{
    const struct kolo__step *step = &program->schedule.steps[index];
    const struct kolo__step_run *run = kolo__step_run(program, index);
    size_t skip = begin * program->element_bytes;
    struct kolo__reduction reduction = kolo__step_reduction(program, step);
    bool scaled = kolo__step_prescales(program, step);
    size_t bytes = (end - begin) * program->element_bytes;

    if (step->kind == KOLO__COPY && program->schedule.exposes &&
        kolo__place_is_private(program, &step->from))
        return kolo__program_cross_read(program, &step->from, skip, run->to + skip, bytes, fault);
    if (step->kind == KOLO__COPY && !scaled) {
        /* A copy for mapped runs only has OUTPUT for its target, be it a peer's. */
        bool to_output = step->to.buffer == KOLO__OUTPUT || (step->flags & KOLO__MAPPED_ONLY) != 0;
        kolo__copy(run->to + skip, run->from + skip, bytes, program->streams && to_output);
        return KOLO_OK;
    }
    unsigned char *bounce =
        program->arguments.mapping == NULL ? NULL : program->arguments.mapping->bounce;
    uint32_t source_count = kolo__step_reads(step);
    for (uint32_t i = 0; i < source_count; i++) {
        const struct kolo__place *place = kolo__step_read(&program->schedule, step, i);
        if (program->schedule.exposes && kolo__place_is_private(program, place)) {
            kolo_status status =
                kolo__program_cross_read(program, place, skip, bounce, bytes, fault);
            if (status != KOLO_OK)
                return status;
            program->operands[i] = bounce;
            bounce += bytes;
        } else {
            program->operands[i] = address(program, place, skip, callers);
        }
        /* Only what comes from INPUT has not been scaled yet. */
        program->scales[i] = place->buffer == KOLO__INPUT ? program->arguments.scale : 1;
    }
    if (scaled)
        reduction.scales = program->scales;
    uint32_t target_count = kolo__step_writes(step);
    program->targets[0] = run->to != NULL ? run->to + skip : callers;
    for (uint32_t i = 1; i < target_count; i++)
        program->targets[i] =
            kolo__program_address(program, kolo__step_written(&program->schedule, step, i)) + skip;
    kolo__reduce_to_many(&reduction, program->targets, target_count, program->operands,
                         source_count, end - begin);
    return KOLO_OK;
}
