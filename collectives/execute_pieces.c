/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies and reductions of a caller's buffer that lies in pieces: what an algorithm copies into
 * windows and out of them anyway packs the pieces, and unpacks them.
 *
 * Schedules know nothing of pieces. A step that names the caller's buffer is cut where a piece
 * ends; all its places in that buffer are the same elements. The kernels of a reduction want long
 * runs, so short pieces are gathered into a block in the first-level cache, combined there, and
 * scattered.
 */
#include "collectives/execute_program.h"

#include "base/assert.h"

#include <string.h>

/* A run that is shorter than this many bytes is cheaper to copy than to combine by itself. */
enum { SHORT_BYTES = 1024, BLOCK_BYTES = 4096 };

enum direction { GATHER, SCATTER };

void kolo__pieces_check(const struct kolo__program *program)
{
    const struct kolo__run_arguments *arguments = &program->arguments;
    const struct kolo__schedule *s = &program->schedule;
    KOLO__ASSERT(s->mapped && s->problem.collective == KOLO__ALLREDUCE && s->problem.in_place);
    KOLO__ASSERT(arguments->input == NULL && arguments->output == NULL);
    KOLO__ASSERT(arguments->pieces[0].first == 0);
    KOLO__ASSERT(arguments->pieces[arguments->piece_count - 1].first < s->output_count);
}

/* The last piece that begins at or before this element. */
static const struct kolo__piece *find_piece(const struct kolo__program *program, size_t element)
{
    const struct kolo__piece *pieces = program->arguments.pieces;
    uint32_t low = 0, high = program->arguments.piece_count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (pieces[middle].first <= element)
            low = middle;
        else
            high = middle;
    }
    return &pieces[low];
}

static bool is_callers(const struct kolo__place *place)
{
    return place->buffer == KOLO__INPUT || place->buffer == KOLO__OUTPUT;
}

/* Takes a place of the step into account. */
static void note_place(struct kolo__step_run *run, const struct kolo__place *place, bool *found)
{
    if (!is_callers(place))
        return;
    KOLO__ASSERT(!*found || run->first == place->offset);
    run->first = place->offset;
    *found = true;
}

void kolo__pieces_open_step(struct kolo__program *program, uint32_t index)
{
    const struct kolo__schedule *s = &program->schedule;
    const struct kolo__step *step = &s->steps[index];
    struct kolo__step_run *run = kolo__step_run(program, index);
    bool found = false;
    KOLO__ASSERT(!kolo__step_is_message(step));
    for (uint32_t i = 0; i < kolo__step_reads(step); i++)
        note_place(run, kolo__step_read(s, step, i), &found);
    for (uint32_t i = 0; i < kolo__step_writes(step); i++)
        note_place(run, kolo__step_written(s, step, i), &found);
    if (found && step->count > 0)
        run->piece = find_piece(program, run->first);
}

/* The element that the piece ends before. */
static size_t end_of(const struct kolo__program *program, const struct kolo__piece *piece)
{
    const struct kolo__piece *last = program->arguments.pieces + program->arguments.piece_count - 1;
    return piece < last ? piece[1].first : program->schedule.output_count;
}

/* For a few bytes a call is long. */
static inline void move(void *to, const void *from, size_t bytes)
{
    if (bytes < SHORT_BYTES)
        memcpy(to, from, bytes);
    else
        kolo__copy(to, from, bytes, false);
}

/* Copies `count` elements from `first` on to or from contiguous memory. *piece is the one that
 * holds `first`, and then the one that holds what follows. */
static void copy(const struct kolo__program *program, const struct kolo__piece **piece,
                 size_t first, size_t count, unsigned char *contiguous, enum direction direction)
{
    size_t element = program->element_bytes, end = first + count;
    while (first < end) {
        size_t piece_end = end_of(program, *piece), stop = piece_end < end ? piece_end : end;
        size_t bytes = (stop - first) * element;
        unsigned char *data = (*piece)->data + (first - (*piece)->first) * element;
        if (direction == GATHER)
            move(contiguous, data, bytes);
        else
            move(data, contiguous, bytes);
        contiguous += bytes;
        first = stop;
        if (stop == piece_end && stop < program->schedule.output_count)
            ++*piece;
    }
}

/* By way of a block: as many elements of [begin, end) as it holds. Returns where they end. */
static size_t process_short(struct kolo__program *program, uint32_t index, size_t begin, size_t end,
                            kolo_status *status, struct kolo__fault *fault)
{
    _Alignas(64) unsigned char block[BLOCK_BYTES];
    const struct kolo__step *step = &program->schedule.steps[index];
    struct kolo__step_run *run = kolo__step_run(program, index);
    const struct kolo__piece *piece = run->piece;
    size_t limit = begin + BLOCK_BYTES / program->element_bytes;
    if (end > limit)
        end = limit;
    copy(program, &run->piece, run->first + begin, end - begin, block, GATHER);
    *status = kolo__step_process(program, index, begin, end, block, fault);
    if (is_callers(&step->to))
        copy(program, &piece, run->first + begin, end - begin, block, SCATTER);
    return end;
}

/* Within one piece. */
static size_t process_long(struct kolo__program *program, uint32_t index, size_t begin, size_t end,
                           kolo_status *status, struct kolo__fault *fault)
{
    struct kolo__step_run *run = kolo__step_run(program, index);
    const struct kolo__piece *piece = run->piece;
    size_t first = run->first + begin;
    unsigned char *data = piece->data + (first - piece->first) * program->element_bytes;
    *status = kolo__step_process(program, index, begin, end, data, fault);
    if (run->first + end == end_of(program, piece) &&
        run->first + end < program->schedule.output_count)
        run->piece++;
    return end;
}

kolo_status kolo__pieces_process(struct kolo__program *program, uint32_t index, size_t end,
                                 struct kolo__fault *fault)
{
    const struct kolo__step *step = &program->schedule.steps[index];
    struct kolo__step_run *run = kolo__step_run(program, index);
    size_t element = program->element_bytes, skip = run->done * element;
    if (step->kind == KOLO__COPY && !kolo__step_prescales(program, step)) {
        bool gathers = is_callers(&step->from);
        copy(program, &run->piece, run->first + run->done, end - run->done,
             (gathers ? run->to : run->from) + skip, gathers ? GATHER : SCATTER);
        return KOLO_OK;
    }
    kolo_status status = KOLO_OK;
    for (size_t at = run->done; at < end && status == KOLO_OK;) {
        size_t stop = end_of(program, run->piece) - run->first;
        if (stop > end)
            stop = end;
        if (stop < end && (stop - at) * element < SHORT_BYTES)
            at = process_short(program, index, at, end, &status, fault);
        else
            at = process_long(program, index, at, stop, &status, fault);
    }
    return status;
}
