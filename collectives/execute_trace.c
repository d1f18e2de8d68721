/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps as events of a timeline. A step begins before the look in which it first moves, and ends
 * after the look in which it is finished; a fence begins with the first look. The clock is not read
 * between the pieces of a step: that waits for all loads under way, and costs more than it looks.
 */
#include "collectives/execute_program.h"

/* In shared memory less than this is done in some microseconds, of which recording each step would
 * take a noticeable part. */
enum { SMALL_BYTES = 512 * 1024 };

static const char *const names[] = {
    [KOLO__COPY] = "copy",
    [KOLO__REDUCE] = "reduce",
    [KOLO__SEND] = "send",
    [KOLO__RECV] = "receive",
    [KOLO__RECV_REDUCE] = "receive and reduce",
    [KOLO__ARRIVE] = "arrive", /* takes no time: not recorded */
    [KOLO__AWAIT] = "wait for all",
};

bool kolo__program_is_worth_tracing(const struct kolo__program *program)
{
    const struct kolo__schedule *s = &program->schedule;
    size_t count = s->input_count > s->output_count ? s->input_count : s->output_count;
    return !s->mapped || count * program->element_bytes >= SMALL_BYTES;
}

/* In the caller's own buffers a copy may have nothing to do. */
static bool says_something(const struct kolo__step *step, const struct kolo__step_run *run)
{
    return step->kind != KOLO__ARRIVE && (step->kind != KOLO__COPY || run->from != run->to);
}

static void record(struct kolo__program *program, uint32_t index)
{
    const struct kolo__step *step = &program->schedule.steps[index];
    const struct kolo__step_run *run = kolo__step_run(program, index);
    struct kolo__trace_event event = {
        .kind = KOLO__TRACE_STEP,
        .id = kolo__step_is_message(step) ? step->peer : KOLO__TRACE_NO_ID,
        .comm = program->arguments.signature.comm,
        .label = names[step->kind],
        .bytes = kolo__step_is_fence(step) ? 0 : step->count * program->element_bytes,
        .begin_ns = run->begin_ns,
        .end_ns = program->trace_ns,
    };
    kolo__trace_record(program->arguments.trace, &event);
}

void kolo__step_trace_before(struct kolo__program *program, uint32_t index)
{
    if (program->trace_ns == 0 && kolo__step_run(program, index)->begin_ns == 0)
        program->trace_ns = kolo__trace_now(program->arguments.trace);
}

void kolo__step_trace_after(struct kolo__program *program, uint32_t index, bool advanced)
{
    const struct kolo__step *step = &program->schedule.steps[index];
    struct kolo__step_run *run = kolo__step_run(program, index);
    if (run->begin_ns == 0 && (advanced || kolo__step_is_fence(step)))
        run->begin_ns = program->trace_ns;
    if (advanced)
        program->trace_ns = 0;
    if (run->finished && run->begin_ns != 0 && says_something(step, run)) {
        program->trace_ns = kolo__trace_now(program->arguments.trace);
        record(program, index);
    }
}
