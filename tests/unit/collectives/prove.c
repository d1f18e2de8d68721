/* SPDX-License-Identifier: Apache-2.0 */
/* See prove.h. */
#include "prove.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static struct kolo__problem problem_of(const struct prove_problem *problem, uint32_t rank)
{
    return (struct kolo__problem){
        .collective = problem->collective,
        .rank = rank,
        .size = problem->size,
        .root = problem->root,
        .count = problem->count,
        .in_place =
            problem->in_place == IN_PLACE || (problem->in_place == SOME_IN_PLACE && rank % 2 == 1),
        .prescale = problem->prescale,
        .window_count = problem->window_count,
        .host_of = problem->host_of,
    };
}

bool prove_accepts(const struct prove_problem *problem)
{
    struct kolo__problem first = problem_of(problem, 0);
    bool accepts = problem->algorithm->accepts(&first);
    if (problem->in_place == SOME_IN_PLACE && problem->collective == KOLO__ALLTOALL)
        return false; /* no in place for any rank */
    for (uint32_t rank = 1; rank < problem->size; rank += 1 + rank / 4) {
        struct kolo__problem other = problem_of(problem, rank);
        if (problem->algorithm->accepts(&other) != accepts)
            fail_msg("%s: rank %u and rank 0 disagree", problem->algorithm->name, rank);
    }
    return accepts;
}

struct kolo__schedule *prove_build(const struct prove_problem *problem)
{
    struct kolo__schedule *schedules = calloc(problem->size, sizeof(*schedules));
    assert_non_null(schedules);
    for (uint32_t rank = 0; rank < problem->size; rank++) {
        struct kolo__problem one = problem_of(problem, rank);
        assert_int_equal(problem->algorithm->build(&one, &schedules[rank]), KOLO_OK);
    }
    return schedules;
}

void prove_free(struct kolo__schedule *schedules, uint32_t size)
{
    for (uint32_t rank = 0; rank < size; rank++)
        kolo__schedule_free(&schedules[rank]);
    free(schedules);
}

kolo_status prove_verify(const struct kolo__schedule *schedules, uint32_t size,
                         struct kolo__cost *cost, char *text, size_t text_bytes)
{
    struct kolo__verify_options options = {.window = 64, .repeat = schedules[0].mapped ? 3 : 1};
    return kolo__verify(schedules, size, &options, cost, text, text_bytes);
}

void prove(const struct prove_problem *problem, struct kolo__cost *cost)
{
    struct kolo__schedule *schedules = prove_build(problem);
    char text[256] = "";
    kolo_status status = prove_verify(schedules, problem->size, cost, text, sizeof(text));
    prove_free(schedules, problem->size);
    if (status != KOLO_OK)
        fail_msg("%s %s, %u ranks, root %u, count %zu, window %zu, in place %d, prescale %d: %s",
                 problem->algorithm->name, kolo__collective_name(problem->collective),
                 problem->size, problem->root, problem->count, problem->window_count,
                 problem->in_place, problem->prescale, text);
}

static bool has_root(enum kolo__collective collective)
{
    return collective == KOLO__BROADCAST || collective == KOLO__REDUCE_TO_ROOT;
}

/* Counts around everything that could be cut: slices, windows, nothing at all. */
static unsigned counts_of(const struct prove_problem *problem, size_t counts[], unsigned capacity)
{
    size_t size = problem->size, window = problem->window_count;
    bool sliced = problem->collective != KOLO__ALLREDUCE && !has_root(problem->collective);
    const size_t whole[] = {0, 1, size - 1, size, size + 1, 2 * size - 1, 2 * size + 1, 97};
    const size_t slices[] = {0, 1, 3};
    unsigned number = 0;
    for (unsigned i = 0; !sliced && i < sizeof(whole) / sizeof(whole[0]); i++)
        counts[number++] = whole[i];
    for (unsigned i = 0; sliced && i < sizeof(slices) / sizeof(slices[0]); i++)
        counts[number++] = slices[i];
    if (problem->algorithm->needs_mapping) {
        /* A slice may fill a window, or all slices together. */
        bool many = sliced && size >= 12;
        counts[number++] = many ? (window - 1) / size : window - 1;
        counts[number++] = many ? window / size + 1 : window;
        counts[number++] = window + 1;
        if (!many)
            counts[number++] = 2 * window + 1;
    }
    assert_true(number <= capacity);
    return number;
}

static unsigned prove_counts(struct prove_problem *problem)
{
    size_t counts[16];
    unsigned number = counts_of(problem, counts, 16);
    for (unsigned i = 0; i < number; i++) {
        problem->count = problem->collective == KOLO__BARRIER ? 0 : counts[i];
        prove(problem, NULL);
    }
    return number;
}

static unsigned prove_variants(struct prove_problem *problem, bool thorough)
{
    const uint32_t roots[] = {0, problem->size - 1, problem->size / 2};
    /* Shorter than the ranks are many, too, but not so short that 64 ranks need hundreds of rounds.
     */
    uint32_t size = problem->size;
    const size_t windows[] = {size < 12 ? 7 : size - 3, size < 12 ? 1 : size / 2, 2 * size + 16};
    bool windowed = problem->algorithm->needs_mapping;
    unsigned proved = 0, round = 0;
    for (unsigned root = 0; root < (has_root(problem->collective) ? 3 : 1); root++)
        for (unsigned window = 0; window < (windowed ? 3 : 1); window++)
            for (unsigned variant = 0; variant < 6; variant++) {
                problem->root = roots[root];
                problem->window_count = windows[window];
                problem->in_place = variant % 3;
                problem->prescale = variant >= 3 && kolo__collective_reduces(problem->collective);
                bool repeats = variant >= 3 && !problem->prescale;
                bool chosen = thorough || round++ % 6 == problem->size % 6;
                if (!repeats && chosen && prove_accepts(problem))
                    proved += prove_counts(problem);
            }
    return proved;
}

unsigned prove_size(uint32_t size, bool thorough)
{
    uint32_t *host_of = calloc(size, sizeof(*host_of));
    assert_non_null(host_of);
    /* The most even hosts that size allows, their ranks taken in turn, their numbers with gaps. */
    uint32_t hosts = 2;
    while (hosts < size && size % hosts != 0)
        hosts++;
    for (uint32_t rank = 0; rank < size; rank++)
        host_of[rank] = 7 + 1000 * (rank % hosts);
    unsigned proved = 0;
    for (unsigned i = 0; kolo__algorithms[i] != NULL; i++)
        for (int collective = 0; collective < KOLO__POINT_TO_POINT; collective++) {
            struct prove_problem problem = {.algorithm = kolo__algorithms[i],
                                            .collective = (enum kolo__collective)collective,
                                            .size = size,
                                            .host_of = host_of};
            proved += prove_variants(&problem, thorough);
        }
    free(host_of);
    return proved;
}
