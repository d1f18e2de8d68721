/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The verifier refuses what is wrong: every step of every rank of a set of right schedules is
 * spoilt in every way below, one at a time, and none may pass, except where the spoilt schedule
 * does the same as the right one. Those exceptions are the rule `harmless`, and nothing else.
 */
#include "prove.h"

#include "base/assert.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum spoil {
    REMOVE,
    DOUBLE,
    MISDIRECT,      /* another peer */
    FINISH,         /* missing, or one too many */
    PRESCALE,       /* missing, or one too many */
    SHORTEN,        /* the last element left out */
    MOVE_FROM,      /* the operand one element further, or one before */
    MOVE_TO,        /* the result too */
    REPLACE_FROM,   /* INPUT for OUTPUT, OUTPUT for INPUT, another rank's mapped memory */
    REPLACE_SOURCE, /* REDUCE: the last source again instead of the first */
    DROP_TARGET,    /* REDUCE: one target fewer */
    MOVE_TARGET,    /* REDUCE: the last target one element further, or one before */
    DROP_CONDITION, /* COPY: done in mapped runs and others, where it was in one kind only */
    SWAP_CONDITION, /* COPY: done in the other kind of runs */
    ADD_MAPPED,     /* COPY: in mapped runs only, where it was in both; or what is no copy */
    ADD_UNMAPPED,   /* the same for the other kind */
    SPOILS
};

static const char *const spoil_names[SPOILS] = {
    [REMOVE] = "removed",
    [DOUBLE] = "doubled",
    [MISDIRECT] = "misdirected",
    [FINISH] = "FINISH changed",
    [PRESCALE] = "PRESCALE changed",
    [SHORTEN] = "shortened",
    [MOVE_FROM] = "operand moved",
    [MOVE_TO] = "result moved",
    [REPLACE_FROM] = "operand replaced",
    [REPLACE_SOURCE] = "source replaced",
    [DROP_TARGET] = "a target dropped",
    [MOVE_TARGET] = "a target moved",
    [DROP_CONDITION] = "done in all runs",
    [SWAP_CONDITION] = "done in the wrong runs",
    [ADD_MAPPED] = "done in mapped runs only",
    [ADD_UNMAPPED] = "done in other runs than mapped ones only",
};

static bool reads_from(const struct kolo__step *step)
{
    return step->kind == KOLO__COPY || step->kind == KOLO__SEND || step->kind == KOLO__RECV_REDUCE;
}

static size_t limit_of(const struct kolo__schedule *s, enum kolo__buffer buffer)
{
    const size_t limits[KOLO__BUFFER_COUNT] = {s->input_count, s->output_count, s->scratch_count,
                                               s->input_count, s->output_count, s->slot_count};
    return limits[buffer];
}

/* One element further; one before where the buffer ends. False: the place fills its buffer. */
static bool move(const struct kolo__schedule *s, struct kolo__place *place, size_t count)
{
    if (place->offset + count < limit_of(s, place->buffer))
        place->offset++;
    else if (place->offset > 0)
        place->offset--;
    else
        return false;
    return true;
}

static bool replace_from(const struct kolo__schedule *s, struct kolo__step *step)
{
    uint32_t size = s->problem.size;
    if (step->from.buffer == KOLO__INPUT && !s->problem.in_place)
        step->from.buffer = KOLO__OUTPUT;
    else if (step->from.buffer == KOLO__OUTPUT && !s->problem.in_place)
        step->from.buffer = KOLO__INPUT;
    else if (step->from.buffer >= KOLO__EXPOSED_IN)
        step->from.rank = (step->from.rank + 1) % size;
    else
        return false;
    return true;
}

enum { COPY_CONDITIONS = KOLO__MAPPED_ONLY | KOLO__UNMAPPED_ONLY };

/* Spoils step `index` of s, whose arrays are copies with room for one more. False: it cannot be
 * spoilt so.
 */
static bool spoil(struct kolo__schedule *s, uint32_t index, enum spoil how)
{
    struct kolo__step *step = &s->steps[index];
    struct kolo__place *sources = &s->sources[step->first_source];
    size_t after = (s->step_count - index - 1) * sizeof(*step);
    switch (how) {
    case REMOVE:
        memmove(step, step + 1, after);
        s->step_count--;
        return true;
    case DOUBLE:
        memmove(step + 1, step, after + sizeof(*step));
        s->step_count++;
        return true;
    case MISDIRECT:
        step->peer = (step->peer + 1) % s->problem.size;
        if (step->peer == s->problem.rank)
            step->peer = (step->peer + 1) % s->problem.size;
        return kolo__step_is_message(step) && s->problem.size > 2;
    case FINISH:
        step->flags ^= KOLO__FINISH;
        return step->count > 0 && !kolo__step_is_fence(step) && step->kind != KOLO__SEND &&
               step->kind != KOLO__RECV;
    case PRESCALE:
        step->flags ^= KOLO__PRESCALE;
        return step->count > 0 && (step->kind == KOLO__COPY || step->kind == KOLO__REDUCE);
    case SHORTEN:
        return step->count > 0 && step->count-- > 0;
    case MOVE_FROM:
        if (step->kind == KOLO__REDUCE)
            return step->count > 0 && move(s, &sources[0], step->count);
        return step->count > 0 && reads_from(step) && move(s, &step->from, step->count);
    case MOVE_TO:
        return step->count > 0 && !kolo__step_is_fence(step) && step->kind != KOLO__SEND &&
               move(s, &step->to, step->count);
    case REPLACE_FROM:
        return step->count > 0 && reads_from(step) && replace_from(s, step);
    case REPLACE_SOURCE:
        if (step->kind != KOLO__REDUCE || step->count == 0 || step->source_count < 2)
            return false;
        sources[0] = sources[step->source_count - 1];
        return true;
    case DROP_TARGET:
        return step->count > 0 && step->target_count > 0 && step->target_count-- > 0;
    case MOVE_TARGET:
        return step->count > 0 && step->target_count > 0 &&
               move(s, &sources[step->source_count + step->target_count - 1], step->count);
    case DROP_CONDITION:
    case SWAP_CONDITION:
        if ((step->flags & COPY_CONDITIONS) == 0)
            return false;
        step->flags ^= how == SWAP_CONDITION ? COPY_CONDITIONS : step->flags & COPY_CONDITIONS;
        return true;
    case ADD_MAPPED:
    case ADD_UNMAPPED:
        if ((step->flags & COPY_CONDITIONS) != 0)
            return false;
        step->flags |= how == ADD_MAPPED ? KOLO__MAPPED_ONLY : KOLO__UNMAPPED_ONLY;
        return true;
    default:
        return false;
    }
}

/* The memory of a place, where all buffers that can be mapped are. */
static struct kolo__place memory_of(const struct kolo__schedule *s, struct kolo__place place)
{
    if (place.buffer == KOLO__EXPOSED_OUT)
        place.buffer = KOLO__OUTPUT;
    if (place.buffer == KOLO__EXPOSED_IN && !s->problem.prescale)
        place.buffer = KOLO__INPUT;
    if (place.buffer == KOLO__INPUT && s->problem.in_place) {
        place.buffer = KOLO__OUTPUT;
        if (s->problem.collective == KOLO__ALLGATHER)
            place.offset += place.rank * s->problem.count;
        if (s->problem.collective == KOLO__REDUCE_SCATTER)
            place.offset -= place.rank * s->problem.count;
    }
    return place;
}

static bool same(const struct kolo__schedule *s, struct kolo__place a, struct kolo__place b)
{
    a = memory_of(s, a);
    b = memory_of(s, b);
    return a.rank == b.rank && a.buffer == b.buffer && a.offset == b.offset;
}

/* In windows, a result goes to where an operand came from. */
static bool overwrites_in_window(const struct kolo__schedule *s, const struct kolo__step *step)
{
    for (uint32_t i = 0; i < kolo__step_writes(step); i++)
        if (kolo__step_written(s, step, i)->buffer == KOLO__EXPOSED_OUT)
            return true;
    return false;
}

/* Doing it again gives the same: the result is none of the operands, or is the only one. */
static bool repeatable(const struct kolo__schedule *s, const struct kolo__step *step)
{
    if (step->kind == KOLO__COPY)
        return (step->flags & KOLO__PRESCALE) == 0 || !same(s, step->from, step->to);
    for (uint32_t i = 0; step->kind == KOLO__REDUCE && i < step->source_count; i++)
        if (same(s, s->sources[step->first_source + i], step->to) || overwrites_in_window(s, step))
            return false;
    return step->kind == KOLO__REDUCE || step->kind == KOLO__AWAIT;
}

/* Elements by which the place lies behind another in the same memory; SIZE_MAX: it does not. */
static size_t distance(const struct kolo__schedule *s, struct kolo__place from,
                       struct kolo__place to)
{
    from = memory_of(s, from);
    to = memory_of(s, to);
    bool one = from.rank == to.rank && from.buffer == to.buffer && from.offset <= to.offset;
    return one ? to.offset - from.offset : SIZE_MAX;
}

/* An earlier copy put the very same elements to where the operand is now taken from. */
static bool was_copied_there(const struct kolo__schedule *s, uint32_t index,
                             const struct kolo__place *now)
{
    for (uint32_t earlier = 0; earlier < index; earlier++) {
        const struct kolo__step *copy = &s->steps[earlier];
        size_t skipped = distance(s, copy->from, s->steps[index].from);
        bool sent = s->steps[index].kind == KOLO__SEND && skipped < copy->count &&
                    s->steps[index].count <= copy->count - skipped;
        bool all = skipped == 0 && s->steps[index].count == copy->count;
        if (copy->kind == KOLO__COPY && (sent || all) && distance(s, copy->to, *now) == skipped)
            return true;
    }
    return false;
}

/* What the last rank shows to the others in its SLOT ends with what it keeps for itself: in an
 * alltoall, and in a reduce_scatter where its own contribution comes from INPUT. */
static bool ends_with_own(const struct kolo__schedule *s, const struct kolo__step *step)
{
    bool keeps = strcmp(s->algorithm, "shm_one_shot") == 0 &&
                 (s->problem.collective == KOLO__ALLTOALL ||
                  (s->problem.collective == KOLO__REDUCE_SCATTER && !s->problem.prescale));
    return keeps && s->problem.rank == s->problem.size - 1 && step->from.buffer == KOLO__INPUT &&
           step->to.buffer >= KOLO__EXPOSED_IN;
}

/* What is done in mapped runs only copies a part of what the step before it copies in the others.
 */
static bool repeats_the_last(const struct kolo__schedule *s, uint32_t index)
{
    const struct kolo__step *step = &s->steps[index], *last = step - 1;
    return (step->flags & KOLO__MAPPED_ONLY) != 0 && index > 0 && last->kind == KOLO__COPY &&
           last->count >= step->count && same(s, last->from, step->from) &&
           same(s, last->to, step->to);
}

/* A copy out of a window is nothing where the window is the caller's buffer; and scaled
 * contributions lie in windows in all runs. */
static bool needs_windows(const struct kolo__schedule *s, uint32_t index)
{
    const struct kolo__step *step = &s->steps[index];
    if (s->problem.prescale && step->kind == KOLO__COPY && step->to.buffer == KOLO__EXPOSED_OUT)
        return true;
    return step->kind == KOLO__COPY && step->from.buffer == KOLO__EXPOSED_OUT &&
           same(s, step->from, step->to);
}

/* On root's host nobody writes into another's memory: root need not wait for those who begin to
 * read, nor they for those who still do. (The executor wants them to: it compares what they do.) */
static bool waits_for_readers(const struct kolo__schedule *s, uint32_t index)
{
    bool only_reads = strcmp(s->algorithm, "two_level_shm") == 0 &&
                      s->problem.collective == KOLO__BROADCAST && !s->exposes_out;
    uint32_t later = 0;
    for (uint32_t i = index + 1; i < s->step_count; i++)
        later += s->steps[i].kind == KOLO__AWAIT;
    return only_reads && s->steps[index].kind == KOLO__AWAIT &&
           (s->problem.rank == s->problem.root) == (later > 0);
}

static bool harmless(const struct kolo__schedule *s, uint32_t index, enum spoil how,
                     const struct kolo__step *spoilt)
{
    const struct kolo__step *step = &s->steps[index];
    switch (how) {
    case DOUBLE:
        return repeatable(s, step);
    case REMOVE:
        return (!kolo__step_is_message(step) && !kolo__step_is_fence(step) && step->count == 0) ||
               waits_for_readers(s, index);
    case SHORTEN:
        return ends_with_own(s, step);
    case REPLACE_FROM:
        return was_copied_there(s, index, &spoilt->from);
    case DROP_CONDITION:
        return repeats_the_last(s, index);
    case ADD_UNMAPPED:
        return needs_windows(s, index);
    default:
        return false;
    }
}

struct counted {
    unsigned refused, harmless, passed;
};

static void spoil_every_step(const struct prove_problem *problem, struct counted *counted)
{
    struct kolo__schedule *schedules = prove_build(problem);
    const uint32_t *sharing = problem->algorithm->needs_host_mapping ? problem->host_of : NULL;
    char text[256];
    for (uint32_t rank = 0; rank < problem->size; rank++) {
        struct kolo__schedule right = schedules[rank];
        struct kolo__step *steps = calloc(right.step_count + 1, sizeof(*steps));
        struct kolo__place *sources = calloc(right.source_count + 1, sizeof(*sources));
        KOLO__ASSERT(steps != NULL && sources != NULL);
        schedules[rank].steps = steps;
        schedules[rank].sources = sources;
        for (uint32_t index = 0; index < right.step_count; index++)
            for (enum spoil how = 0; how < SPOILS; how++) {
                memcpy(steps, right.steps, right.step_count * sizeof(*steps));
                if (right.source_count > 0)
                    memcpy(sources, right.sources, right.source_count * sizeof(*sources));
                schedules[rank].step_count = right.step_count;
                if (!spoil(&schedules[rank], index, how))
                    continue;
                bool excused = harmless(&right, index, how, &steps[index]);
                text[0] = 0;
                kolo_status status =
                    prove_verify(schedules, problem->size, sharing, NULL, text, sizeof(text));
                if (status == KOLO_ERR_INVALID && text[0] != 0 && !excused) {
                    counted->refused++;
                } else if (status == KOLO_OK && excused) {
                    counted->harmless++;
                } else {
                    counted->passed++;
                    print_error(
                        "%s %s, %u ranks, in place %d, prescale %d: rank %u, step %u %s: %d %s\n",
                        problem->algorithm->name, kolo__collective_name(problem->collective),
                        problem->size, problem->in_place, problem->prescale, rank, index,
                        spoil_names[how], (int)status, text);
                }
            }
        schedules[rank] = right;
        free(steps);
        free(sources);
    }
    prove_free(schedules, problem->size);
}

static void every_spoilt_step_is_refused(void **state)
{
    (void)state;
    const uint32_t hosts[] = {0, 1, 0, 1};
    struct counted counted = {0};
    for (unsigned i = 0; kolo__algorithms[i] != NULL; i++)
        for (int collective = 0; collective < KOLO__POINT_TO_POINT; collective++)
            for (uint32_t size = 2; size <= 5; size++)
                for (unsigned variant = 0; variant < 4; variant++) {
                    struct prove_problem problem = {
                        .algorithm = kolo__algorithms[i],
                        .collective = (enum kolo__collective)collective,
                        .size = size,
                        .root = size - 1,
                        .in_place = variant % 2,
                        .prescale = variant / 2 != 0 &&
                                    kolo__collective_reduces((enum kolo__collective)collective),
                        .host_of = size == 4 ? hosts : NULL,
                        .count = 2 * size + 1,
                        .window_count = 3 * size * size};
                    if (problem.collective == KOLO__BARRIER)
                        problem.count = 0;
                    bool again = variant >= 2 && !problem.prescale;
                    if (!again && prove_accepts(&problem))
                        spoil_every_step(&problem, &counted);
                }
    print_message("%u refused, %u harmless and passed, %u wrong\n", counted.refused,
                  counted.harmless, counted.passed);
    assert_int_equal(counted.passed, 0);
    assert_true(counted.refused > 10000);
}

/* Leaves a fence out, or says that only windows need it. False: the schedule has not so many. */
static bool weaken_fence(struct kolo__schedule *s, uint32_t fence, bool leave_out)
{
    uint32_t seen = 0, index = 0;
    while (index < s->step_count && (s->steps[index].kind != KOLO__ARRIVE || seen++ < fence))
        index++;
    if (index == s->step_count)
        return false;
    bool weaker = leave_out || s->steps[index].flags == 0;
    s->steps[index].flags = s->steps[index + 1].flags = KOLO__WINDOWS_ONLY;
    if (leave_out) {
        s->step_count -= 2;
        memmove(&s->steps[index], &s->steps[index + 2],
                (s->step_count - index) * sizeof(*s->steps));
    }
    return weaker;
}

/* Fences left out, by all ranks alike, always or where there are no windows: nobody waits for ever,
 * but memory is read too early or written too soon. */
static void every_missing_fence_is_refused(void **state)
{
    (void)state;
    const char *const names[] = {"shm_one_shot", "shm_direct", "two_level_shm"};
    const uint32_t hosts[] = {0, 1, 0, 1};
    unsigned refused[2] = {0};
    for (unsigned i = 0; i < 3; i++)
        for (int collective = 0; collective < KOLO__POINT_TO_POINT; collective++)
            for (uint32_t weaker = 0; weaker < 10; weaker++) {
                uint32_t fence = weaker / 2;
                bool leave_out = weaker % 2 == 0;
                struct prove_problem problem = {.algorithm = kolo__algorithm_find(names[i]),
                                                .collective = (enum kolo__collective)collective,
                                                .size = 4,
                                                .root = 1,
                                                .count = 9,
                                                .window_count = 5};
                if (problem.algorithm->needs_host_mapping)
                    problem.host_of = hosts;
                if (!prove_accepts(&problem))
                    continue;
                struct kolo__schedule *schedules = prove_build(&problem);
                bool weakened = true;
                for (uint32_t rank = 0; rank < 4; rank++)
                    weakened = weaken_fence(&schedules[rank], fence, leave_out) && weakened;
                char text[256];
                if (weakened) {
                    if (prove_verify(schedules, 4, problem.host_of, NULL, text, sizeof(text)) ==
                        KOLO_OK)
                        fail_msg("%s %s passes %s fence %u", names[i],
                                 kolo__collective_name(problem.collective),
                                 leave_out ? "without" : "with windows only in need of", fence);
                    refused[leave_out]++;
                }
                prove_free(schedules, 4);
            }
    print_message("%u left out, %u for windows only\n", refused[1], refused[0]);
    assert_true(refused[1] > 15 && refused[0] > 10);
}

static kolo_status verify_text(struct kolo__schedule *schedules, uint32_t size, uint32_t window,
                               const char *wanted)
{
    char text[256] = "";
    struct kolo__verify_options options = {.window = window, .repeat = 1};
    kolo_status status = kolo__verify(schedules, size, &options, NULL, text, sizeof(text));
    if (wanted != NULL && strstr(text, wanted) == NULL)
        fail_msg("'%s' is not in '%s'", wanted, text);
    return status;
}

/* Two ranks that combine in different orders get different bits where NaNs or rounding are about.
 */
static void operand_order_must_agree(void **state)
{
    (void)state;
    const char *const names[] = {"recursive_doubling", "shm_one_shot"};
    for (unsigned i = 0; i < 2; i++) {
        struct prove_problem problem = {.algorithm = kolo__algorithm_find(names[i]),
                                        .collective = KOLO__ALLREDUCE,
                                        .size = 4,
                                        .count = 3,
                                        .window_count = 3};
        struct kolo__schedule *schedules = prove_build(&problem);
        struct kolo__place first = schedules[2].sources[0];
        schedules[2].sources[0] = schedules[2].sources[1];
        schedules[2].sources[1] = first;
        assert_int_equal(verify_text(schedules, 4, 64, "another order"), KOLO_ERR_INVALID);
        prove_free(schedules, 4);
    }
}

/* Rank 0 scales its contribution twice, rank 1 never: two wrongs that add up to the right number.
 */
static void prescaling_must_not_cancel(void **state)
{
    (void)state;
    struct kolo__schedule schedules[2];
    for (uint32_t rank = 0; rank < 2; rank++) {
        struct kolo__problem problem = {.collective = KOLO__ALLREDUCE,
                                        .rank = rank,
                                        .size = 2,
                                        .count = 4,
                                        .in_place = true,
                                        .prescale = true};
        struct kolo__schedule *s = &schedules[rank];
        struct kolo__place input = kolo__place_of(rank, KOLO__INPUT, 0);
        struct kolo__place output = kolo__place_of(rank, KOLO__OUTPUT, 0);
        struct kolo__place incoming = kolo__place_of(rank, KOLO__SCRATCH, 0);
        kolo__schedule_init(s, &problem, "test");
        for (uint32_t times = 0; times < (rank == 0 ? 2 : 0); times++)
            kolo__schedule_copy(s, input, output, 4, KOLO__PRESCALE);
        kolo__schedule_send(s, 1 - rank, output, 4);
        kolo__schedule_recv(s, 1 - rank, incoming, 4);
        const struct kolo__place sources[] = {rank == 0 ? output : incoming,
                                              rank == 0 ? incoming : output};
        kolo__schedule_reduce(s, sources, 2, output, 4, KOLO__FINISH);
    }
    assert_int_equal(verify_text(schedules, 2, 64, "PRESCALE once for each"), KOLO_ERR_INVALID);
    for (uint32_t rank = 0; rank < 2; rank++)
        kolo__schedule_free(&schedules[rank]);
}

/* Both ranks send all of OUTPUT, then receive onto it: each receive waits for its rank's send, each
 * send for the other's receive. Buffering would hide it. */
static void a_deadlock_without_buffering_is_found(void **state)
{
    (void)state;
    struct kolo__schedule schedules[2];
    for (uint32_t rank = 0; rank < 2; rank++) {
        struct kolo__problem problem = {
            .collective = KOLO__ALLREDUCE, .rank = rank, .size = 2, .count = 4, .in_place = true};
        struct kolo__schedule *s = &schedules[rank];
        struct kolo__place output = kolo__place_of(rank, KOLO__OUTPUT, 0);
        kolo__schedule_init(s, &problem, "test");
        kolo__schedule_send(s, 1 - rank, output, 4);
        kolo__schedule_recv_reduce(s, 1 - rank, output, output, 4,
                                   KOLO__FINISH | (rank == 1 ? KOLO__INCOMING_FIRST : 0));
    }
    assert_int_equal(verify_text(schedules, 2, 64, "waits for ever for a send to rank 1"),
                     KOLO_ERR_INVALID);
    for (uint32_t rank = 0; rank < 2; rank++)
        kolo__schedule_free(&schedules[rank]);
}

/* In a ring, a rank's send and receive of a step go on together: with one step in flight all would
 * send and nobody receive. */
static void the_window_limits_what_overlaps(void **state)
{
    (void)state;
    struct prove_problem problem = {.algorithm = kolo__algorithm_find("ring"),
                                    .collective = KOLO__ALLREDUCE,
                                    .size = 3,
                                    .count = 7};
    struct kolo__schedule *schedules = prove_build(&problem);
    assert_int_equal(verify_text(schedules, 3, 2, NULL), KOLO_OK);
    assert_int_equal(verify_text(schedules, 3, 1, "waits for ever"), KOLO_ERR_INVALID);
    assert_int_equal(verify_text(schedules, 3, 65, "out of range"), KOLO_ERR_INVALID);
    prove_free(schedules, 3);
}

static void what_no_rank_may_do_is_refused(void **state)
{
    (void)state;
    struct prove_problem problem = {.algorithm = kolo__algorithm_find("shm_direct"),
                                    .collective = KOLO__ALLREDUCE,
                                    .size = 2,
                                    .count = 8,
                                    .window_count = 4};
    struct kolo__schedule *schedules = prove_build(&problem);
    struct kolo__step *fill = &schedules[1].steps[0], kept = *fill;
    assert_int_equal(fill->kind, KOLO__COPY);
    fill->to = kolo__place_of(1, KOLO__INPUT, 0);
    verify_text(schedules, 2, 64, "writes INPUT");
    *fill = kept;
    fill->from = kolo__place_of(0, KOLO__INPUT, 0);
    verify_text(schedules, 2, 64, "another rank's memory");
    *fill = kept;
    fill->from.offset = fill->to.offset = 3;
    verify_text(schedules, 2, 64, "crosses the end of a window");
    *fill = kept;
    fill->count = 9;
    verify_text(schedules, 2, 64, "ends outside its buffer");
    *fill = kept;
    fill->from.buffer = KOLO__OUTPUT;
    verify_text(schedules, 2, 64, "may be INPUT");
    *fill = kept;
    schedules[1].problem.count++;
    verify_text(schedules, 2, 64, "something else than rank 0");
    schedules[1].problem.count--;
    assert_int_equal(verify_text(schedules, 2, 64, NULL), KOLO_OK);
    prove_free(schedules, 2);
}

/* What depends on whose buffers are mapped: copies, after the first fence, of what is exposed. */
static void wrong_conditions_are_refused(void **state)
{
    (void)state;
    struct prove_problem problem = {.algorithm = kolo__algorithm_find("shm_direct"),
                                    .collective = KOLO__BROADCAST,
                                    .size = 2,
                                    .count = 8,
                                    .window_count = 8};
    struct kolo__schedule *schedules = prove_build(&problem);
    struct kolo__step *push = &schedules[0].steps[3], kept = *push;
    assert_true(push->flags == KOLO__MAPPED_ONLY && push->to.buffer == KOLO__EXPOSED_OUT);
    push->flags = KOLO__MAPPED_ONLY | KOLO__UNMAPPED_ONLY;
    verify_text(schedules, 2, 64, "it is never done");
    push->flags = KOLO__WINDOWS_ONLY;
    verify_text(schedules, 2, 64, "WINDOWS_ONLY on what is no fence");
    push->flags = 0;
    verify_text(schedules, 2, 64, "says it does not");
    *push = kept;
    schedules[0].steps[0].flags = KOLO__UNMAPPED_ONLY; /* fills the window */
    verify_text(schedules, 2, 64, "what ranks learn at the first fence");
    schedules[0].steps[0].flags = 0;
    assert_int_equal(verify_text(schedules, 2, 64, NULL), KOLO_OK);
    prove_free(schedules, 2);

    problem.algorithm = kolo__algorithm_find("shm_one_shot");
    schedules = prove_build(&problem);
    struct kolo__step *last = &schedules[1].steps[schedules[1].step_count - 1];
    assert_int_equal(last->kind, KOLO__COPY);
    last->flags = KOLO__MAPPED_ONLY;
    verify_text(schedules, 2, 64, "exposes nothing");
    prove_free(schedules, 2);
}

/* Rank 1 reads root's buffer only where its own is not mapped, and then nothing but the last fence
 * keeps root from writing it again: windows or not. */
static void an_output_may_be_unmapped_without_windows(void **state)
{
    (void)state;
    for (unsigned weak = 0; weak < 2; weak++) {
        struct kolo__schedule schedules[2];
        for (uint32_t rank = 0; rank < 2; rank++) {
            struct kolo__problem problem = {.collective = KOLO__BROADCAST,
                                            .rank = rank,
                                            .size = 2,
                                            .count = 4,
                                            .in_place = true,
                                            .window_count = 4};
            struct kolo__schedule *s = &schedules[rank];
            struct kolo__place input = kolo__place_of(0, KOLO__INPUT, 0);
            struct kolo__place shown = kolo__place_of(0, KOLO__EXPOSED_IN, 0);
            kolo__schedule_init(s, &problem, "test");
            if (rank == 0)
                kolo__schedule_copy(s, input, shown, 4, 0);
            kolo__schedule_arrive(s, 0);
            kolo__schedule_await(s, 0);
            if (rank == 0)
                kolo__schedule_copy(s, input, kolo__place_of(1, KOLO__EXPOSED_OUT, 0), 4,
                                    KOLO__MAPPED_ONLY);
            kolo__schedule_arrive(s, 0);
            kolo__schedule_await(s, 0);
            if (rank == 1)
                kolo__schedule_copy(s, shown, kolo__place_of(1, KOLO__OUTPUT, 0), 4,
                                    KOLO__UNMAPPED_ONLY);
            kolo__schedule_arrive(s, weak ? KOLO__WINDOWS_ONLY : 0);
            kolo__schedule_await(s, weak ? KOLO__WINDOWS_ONLY : 0);
        }
        char text[256];
        assert_int_equal(prove_verify(schedules, 2, NULL, NULL, text, sizeof(text)),
                         weak ? KOLO_ERR_INVALID : KOLO_OK);
        for (uint32_t rank = 0; rank < 2; rank++)
            kolo__schedule_free(&schedules[rank]);
    }
}

/* A kernel writes its results in any order. */
/* Ranks 0 and 1 share memory, rank 2 is elsewhere. A fence does not wait for what rank 0 receives:
 * only a copy of it is there for rank 1 afterwards. Nor may rank 0 receive where rank 1 still
 * reads, though a fence of both follows in the program. */
static void no_fence_publishes_a_message(void **state)
{
    (void)state;
    const uint32_t host_of[] = {0, 0, 1};
    struct kolo__verify_options options = {.window = 64, .repeat = 2, .host_of = host_of};
    for (unsigned copied = 0; copied < 2; copied++) {
        struct kolo__schedule schedules[3];
        for (uint32_t rank = 0; rank < 3; rank++) {
            struct kolo__schedule *s = &schedules[rank];
            struct kolo__problem problem = {.collective = KOLO__BROADCAST,
                                            .rank = rank,
                                            .root = 2,
                                            .size = 3,
                                            .count = 4,
                                            .window_count = 4};
            kolo__schedule_init(s, &problem, "by hand");
            struct kolo__place output = kolo__place_of(rank, KOLO__OUTPUT, 0);
            struct kolo__place shown = kolo__place_of(0, KOLO__EXPOSED_OUT, 0);
            if (rank == 2) {
                kolo__schedule_copy(s, kolo__place_of(2, KOLO__INPUT, 0), output, 4, 0);
                kolo__schedule_send(s, 0, output, 4);
                continue;
            }
            kolo__schedule_arrive(s, 0);
            kolo__schedule_await(s, 0);
            if (rank == 0) {
                kolo__schedule_recv(s, 2, output, 4);
                if (copied != 0)
                    kolo__schedule_copy(s, output, kolo__place_of(1, KOLO__EXPOSED_OUT, 0), 4, 0);
            }
            kolo__schedule_arrive(s, 0);
            kolo__schedule_await(s, 0);
            if (rank == 1)
                kolo__schedule_copy(
                    s, copied != 0 ? kolo__place_of(1, KOLO__EXPOSED_OUT, 0) : shown, output, 4, 0);
            kolo__schedule_arrive(s, 0);
            kolo__schedule_await(s, 0);
        }
        char text[256] = "";
        kolo_status status = kolo__verify(schedules, 3, &options, NULL, text, sizeof(text));
        assert_int_equal(status, copied != 0 ? KOLO_OK : KOLO_ERR_INVALID);
        for (uint32_t rank = 0; rank < 3; rank++)
            kolo__schedule_free(&schedules[rank]);
    }
}

static void results_must_not_overlap(void **state)
{
    (void)state;
    struct kolo__schedule schedules[2];
    for (uint32_t rank = 0; rank < 2; rank++) {
        struct kolo__problem problem = {
            .collective = KOLO__ALLREDUCE, .rank = rank, .size = 2, .count = 4, .window_count = 8};
        struct kolo__schedule *s = &schedules[rank];
        const struct kolo__place sources[] = {kolo__place_of(0, KOLO__EXPOSED_IN, 0),
                                              kolo__place_of(1, KOLO__EXPOSED_IN, 0)};
        kolo__schedule_init(s, &problem, "test");
        kolo__schedule_copy(s, kolo__place_of(rank, KOLO__INPUT, 0), sources[rank], 4, 0);
        kolo__schedule_arrive(s, 0);
        kolo__schedule_await(s, 0);
        kolo__schedule_reduce(s, sources, 2, kolo__place_of(rank, KOLO__OUTPUT, 0), 2,
                              KOLO__FINISH);
        kolo__schedule_push(s, kolo__place_of(1 - rank, KOLO__EXPOSED_OUT, 0));
        kolo__schedule_push(s, kolo__place_of(1 - rank, KOLO__EXPOSED_OUT, 1));
    }
    assert_int_equal(verify_text(schedules, 2, 64, "results overlap"), KOLO_ERR_INVALID);
    for (uint32_t rank = 0; rank < 2; rank++)
        kolo__schedule_free(&schedules[rank]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_spoilt_step_is_refused),
        cmocka_unit_test(every_missing_fence_is_refused),
        cmocka_unit_test(operand_order_must_agree),
        cmocka_unit_test(prescaling_must_not_cancel),
        cmocka_unit_test(a_deadlock_without_buffering_is_found),
        cmocka_unit_test(the_window_limits_what_overlaps),
        cmocka_unit_test(what_no_rank_may_do_is_refused),
        cmocka_unit_test(wrong_conditions_are_refused),
        cmocka_unit_test(an_output_may_be_unmapped_without_windows),
        cmocka_unit_test(no_fence_publishes_a_message),
        cmocka_unit_test(results_must_not_overlap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
