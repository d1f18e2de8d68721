/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps as events of a timeline. A step begins where the look began in which it first moved, and
 * ends where the look ended in which it was finished; a fence begins with the first look. The clock
 * is read once for each look that moved something.
 */
#include "collectives/execute_program.h"

static const char *const names[] = {
    [KOLO__COPY] = "copy",
    [KOLO__REDUCE] = "reduce",
    [KOLO__SEND] = "send",
    [KOLO__RECV] = "receive",
    [KOLO__RECV_REDUCE] = "receive and reduce",
    [KOLO__ARRIVE] = "arrive",
    [KOLO__AWAIT] = "wait for all",
};

/* In the caller's own buffers a copy may have nothing to do: it says nothing in a timeline. */
static bool says_something(const struct kolo__step *step, const struct kolo__step_run *run)
{
    return step->kind != KOLO__COPY || run->from != run->to;
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

void kolo__step_trace(struct kolo__program *program, uint32_t index, bool advanced)
{
    const struct kolo__step *step = &program->schedule.steps[index];
    struct kolo__step_run *run = kolo__step_run(program, index);
    if (run->begin_ns == 0 && (advanced || kolo__step_is_fence(step)))
        run->begin_ns = program->trace_ns;
    if (advanced)
        program->trace_ns = kolo__trace_now(program->arguments.trace);
    if (run->finished && run->begin_ns != 0 && says_something(step, run))
        record(program, index);
}
