/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps as events of a timeline.
 *
 * Over messages steps overlap, and each is an event: from before the look in which it first moved
 * to after the look in which it was finished.
 *
 * In shared memory a rank does one thing after the other, and there is an event for as long as it
 * does the same: all reductions between two waits are one. So the clock is read only where that
 * changes. Where it is not the processor's counter, reading it waits for all loads under way: once
 * for each 128 KiB makes a sum of 4 MiB slower by a sixth.
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
static bool says_something(struct kolo__program *program, uint32_t index)
{
    const struct kolo__step *step = &program->schedule.steps[index];
    const struct kolo__step_run *run = kolo__step_run(program, index);
    if (step->kind == KOLO__ARRIVE || kolo__program_leaves_out(program, step))
        return false;
    return step->kind != KOLO__COPY || run->from != run->to;
}

static uint64_t now_ticks(const struct kolo__program *program)
{
    return kolo__trace_now(program->arguments.trace);
}

static void record(struct kolo__program *program, enum kolo__step_kind kind, uint32_t peer,
                   uint64_t bytes, uint64_t begin_ticks, uint64_t end_ticks)
{
    struct kolo__trace_event event = {
        .kind = KOLO__TRACE_STEP,
        .id = peer,
        .comm = program->arguments.signature.comm,
        .label = names[kind],
        .bytes = bytes,
        .begin_ticks = begin_ticks,
        .end_ticks = end_ticks,
    };
    kolo__trace_record(program->arguments.trace, &event);
}

/* ---- in shared memory: what the rank does now ------------------------------------------------ */

static void end_doing(struct kolo__program *program, uint64_t end_ticks)
{
    struct kolo__doing *doing = &program->doing;
    if (doing->begin_ticks != 0)
        record(program, doing->kind, KOLO__TRACE_NO_ID, doing->bytes, doing->begin_ticks,
               end_ticks);
    doing->begin_ticks = 0;
}

void kolo__step_trace_mapped(struct kolo__program *program, uint32_t index)
{
    if (!says_something(program, index))
        return;
    const struct kolo__step *step = &program->schedule.steps[index];
    struct kolo__step_run *run = kolo__step_run(program, index);
    struct kolo__doing *doing = &program->doing;
    if (doing->begin_ticks == 0 || doing->kind != step->kind) {
        uint64_t now = now_ticks(program);
        end_doing(program, now);
        *doing = (struct kolo__doing){.kind = step->kind, .begin_ticks = now};
    }
    if (run->begin_ticks == 0 && !kolo__step_is_fence(step))
        doing->bytes += step->count * program->element_bytes;
    run->begin_ticks = doing->begin_ticks;
}

void kolo__run_trace_end(struct kolo__program *program)
{
    if (program->doing.begin_ticks != 0)
        end_doing(program, now_ticks(program));
}

/* ---- over messages --------------------------------------------------------------------------- */

/* The time is kept until something moves. */
void kolo__step_trace_before(struct kolo__program *program, uint32_t index)
{
    if (program->trace_ticks == 0 && kolo__step_run(program, index)->begin_ticks == 0)
        program->trace_ticks = now_ticks(program);
}

void kolo__step_trace_after(struct kolo__program *program, uint32_t index, bool advanced)
{
    const struct kolo__step *step = &program->schedule.steps[index];
    struct kolo__step_run *run = kolo__step_run(program, index);
    if (!advanced)
        return;
    if (run->begin_ticks == 0)
        run->begin_ticks = program->trace_ticks;
    program->trace_ticks = 0;
    if (run->finished && says_something(program, index)) {
        program->trace_ticks = now_ticks(program);
        record(program, step->kind, kolo__step_is_message(step) ? step->peer : KOLO__TRACE_NO_ID,
               step->count * program->element_bytes, run->begin_ticks, program->trace_ticks);
    }
}
