/* SPDX-License-Identifier: Apache-2.0 */
/* Advances steps that only touch memory: copy and reduce, a piece a call. */
#include "collectives/execute_program.h"

static void process(struct kolo__program *program, uint32_t index, size_t begin, size_t end);

struct kolo__reduction kolo__step_reduction(const struct kolo__program *program,
                                            const struct kolo__step *step)
{
    bool average = program->options.op == KOLO_AVERAGE && (step->flags & KOLO__FINISH) != 0;
    return (struct kolo__reduction){.dtype = program->options.dtype,
                                    .op = program->options.op,
                                    .divisor = average ? program->schedule.problem.size : 1};
}

/* PREMUL_SUM: this rank's contribution enters here, multiplied by the rank's factor. */
static bool prescales(const struct kolo__program *program, const struct kolo__step *step)
{
    return (step->flags & KOLO__PRESCALE) != 0 && program->options.op == KOLO_PREMUL_SUM;
}

void kolo__step_advance_local(struct kolo__program *program, uint32_t index, bool *moved)
{
    const struct kolo__step *step = &program->schedule.steps[index];
    struct kolo__step_run *run = kolo__step_run(program, index);
    size_t limit = kolo__step_limit(program, index);
    size_t end = limit < step->count ? limit : step->count;
    if (run->done < end) {
        /* A copy onto itself is nothing but its place in the order. */
        bool nothing =
            step->kind == KOLO__COPY && run->from == run->to && !prescales(program, step);
        size_t piece = KOLO__PIECE_BYTES / program->element_bytes;
        if (!nothing) {
            if (end - run->done > piece)
                end = run->done + piece;
            process(program, index, run->done, end);
        }
        run->done = end;
        *moved = true;
    }
    run->finished = run->done == step->count;
}

static void process(struct kolo__program *program, uint32_t index, size_t begin, size_t end)
{
    const struct kolo__step *step = &program->schedule.steps[index];
    const struct kolo__step_run *run = kolo__step_run(program, index);
    size_t skip = begin * program->element_bytes;
    struct kolo__reduction reduction = kolo__step_reduction(program, step);
    bool scaled = prescales(program, step);

    if (step->kind == KOLO__COPY && !scaled) {
        kolo__copy(run->to + skip, run->from + skip, (end - begin) * program->element_bytes, false);
        return;
    }
    uint32_t source_count = kolo__step_reads(step);
    for (uint32_t i = 0; i < source_count; i++) {
        const struct kolo__place *place = kolo__step_read(&program->schedule, step, i);
        program->operands[i] = kolo__program_address(program, place) + skip;
        /* Only what comes from INPUT has not been scaled yet. */
        program->scales[i] = place->buffer == KOLO__INPUT ? program->arguments.scale : 1;
    }
    if (scaled)
        reduction.scales = program->scales;
    uint32_t target_count = kolo__step_writes(step);
    program->targets[0] = run->to + skip;
    for (uint32_t i = 1; i < target_count; i++)
        program->targets[i] =
            kolo__program_address(program, kolo__step_written(&program->schedule, step, i)) + skip;
    kolo__reduce_to_many(&reduction, program->targets, target_count, program->operands,
                         source_count, end - begin);
}
