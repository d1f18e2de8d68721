/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Advances steps that are messages. A step of n elements is cut into messages of segment_count
 * elements, the same cut on both sides; up to `depth` of them are posted at a time, and they
 * complete in order:
 *
 *   0        done          completed         posted                    count
 *   |-finished-|----------------|---in flight---|----- not begun ---------|
 *              (RECV_REDUCE: received, completed only when reduced)
 */
#include "collectives/execute_program.h"

#include "base/assert.h"

static kolo_status complete_segments(struct kolo__program *program, uint32_t index);
static void post_segments(struct kolo__program *program, uint32_t index);
static void reduce_segment(struct kolo__program *program, uint32_t index, size_t segment);

kolo_status kolo__step_advance_message(struct kolo__program *program, uint32_t index, bool *moved)
{
    struct kolo__step_run *run = kolo__step_run(program, index);
    for (;;) {
        size_t before = run->posted + run->completed;
        kolo_status status = complete_segments(program, index);
        if (status != KOLO_OK)
            return status;
        post_segments(program, index);
        if (run->posted + run->completed == before)
            break;
        *moved = true;
    }
    run->finished = run->completed == program->plan[index].segments;
    return KOLO_OK;
}

static uint32_t post_index(const struct kolo__program *program, uint32_t index, size_t segment)
{
    uint32_t depth = program->options.depth;
    return index % program->window * depth + (uint32_t)(segment % depth);
}

/* The first element after the segment. */
static size_t segment_end(const struct kolo__program *program, uint32_t index, size_t segment)
{
    size_t count = program->schedule.steps[index].count;
    size_t begin = segment * program->segment_count;
    return count - begin < program->segment_count ? count : begin + program->segment_count;
}

/* Data that a SEND reads and a RECV writes is the caller's; a RECV_REDUCE writes it when reducing.
 */
static kolo_status complete_segments(struct kolo__program *program, uint32_t index)
{
    struct kolo__step_run *run = kolo__step_run(program, index);
    bool reduces = program->schedule.steps[index].kind == KOLO__RECV_REDUCE;
    while (run->completed < run->posted) {
        const struct kolo__post *post = &program->posts[post_index(program, index, run->completed)];
        if (!post->complete)
            break;
        if (post->status != KOLO_OK)
            return post->status;
        size_t end = segment_end(program, index, run->completed);
        if (reduces) {
            if (end > kolo__step_limit(program, index))
                break;
            reduce_segment(program, index, run->completed);
        }
        run->done = end;
        run->completed++;
    }
    return KOLO_OK;
}

/* Messages of one pair of ranks in one direction are matched in program order, so a step begins
 * only when the step before it in this channel has posted all its segments. */
static bool in_turn(struct kolo__program *program, uint32_t index)
{
    struct kolo__step_run *run = kolo__step_run(program, index);
    uint32_t previous = program->plan[index].previous;
    if (!run->in_turn)
        run->in_turn =
            previous == KOLO__NO_STEP || kolo__step_finished(program, previous) ||
            kolo__step_run(program, previous)->posted == program->plan[previous].segments;
    return run->in_turn;
}

/* A step without a slot always gets one; a second one only out of the spare. */
static bool take_slot(struct kolo__program *program, struct kolo__step_run *run, uint32_t *slot)
{
    if (run->slots > 0) {
        if (program->spare_used == program->spare_slots)
            return false;
        program->spare_used++;
    }
    KOLO__ASSERT(program->free_slot_count > 0);
    run->slots++;
    *slot = program->free_slots[--program->free_slot_count];
    return true;
}

static void give_slot(struct kolo__program *program, struct kolo__step_run *run, uint32_t slot)
{
    program->free_slots[program->free_slot_count++] = slot;
    run->slots--;
    if (run->slots > 0)
        program->spare_used--;
}

static void post_segments(struct kolo__program *program, uint32_t index)
{
    const struct kolo__step *step = &program->schedule.steps[index];
    struct kolo__step_run *run = kolo__step_run(program, index);
    size_t segments = program->plan[index].segments;
    if (run->posted == segments || run->posted - run->completed == program->options.depth ||
        !in_turn(program, index))
        return;

    struct kolo__transport *transport = program->arguments.transport;
    bool staged = step->kind == KOLO__RECV_REDUCE; /* touches `from` and `to` only when reducing */
    size_t limit = staged ? SIZE_MAX : kolo__step_limit(program, index);
    while (run->posted < segments && run->posted - run->completed < program->options.depth) {
        size_t begin = run->posted * program->segment_count;
        size_t end = segment_end(program, index, run->posted);
        if (end > limit)
            return;
        uint32_t i = post_index(program, index, run->posted);
        struct kolo__post *post = &program->posts[i];
        if (staged && !take_slot(program, run, &program->post_slots[i]))
            return;
        *post = (struct kolo__post){.bytes = (end - begin) * program->element_bytes,
                                    .signature = &program->arguments.signature};
        run->posted++;
        if (step->kind == KOLO__SEND) {
            post->data = run->from + begin * program->element_bytes;
            transport->ops->post_send(transport, step->peer, post);
        } else {
            post->data = staged ? program->staging + program->post_slots[i] * program->slot_bytes
                                : run->to + begin * program->element_bytes;
            transport->ops->post_recv(transport, step->peer, post);
        }
    }
}

static void reduce_segment(struct kolo__program *program, uint32_t index, size_t segment)
{
    const struct kolo__step *step = &program->schedule.steps[index];
    struct kolo__step_run *run = kolo__step_run(program, index);
    size_t begin = segment * program->segment_count;
    size_t end = segment_end(program, index, segment);
    uint32_t i = post_index(program, index, segment);

    if (end > begin) {
        const void *own = run->from + begin * program->element_bytes;
        const void *message = program->posts[i].data;
        bool incoming_first = (step->flags & KOLO__INCOMING_FIRST) != 0;
        const void *sources[2] = {incoming_first ? message : own, incoming_first ? own : message};
        struct kolo__reduction reduction = kolo__step_reduction(program, step);
        kolo__reduce(&reduction, run->to + begin * program->element_bytes, sources, 2, end - begin);
    }
    give_slot(program, run, program->post_slots[i]);
}
