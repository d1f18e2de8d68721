/* SPDX-License-Identifier: Apache-2.0 */
/* What algorithms say they send (flows.h) is what their schedules send, between each two ranks. */
#include "collectives/flows.h"

#include "prove.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

/* Divisible by all numbers of ranks below and their powers of two, so slices are equal. */
enum { RANKS_MAX = 16, PHASES_MAX = 64, COUNT = 720720 };

struct tally {
    struct kolo__flow_sink sink;
    uint32_t rank;
    double sent[RANKS_MAX][RANKS_MAX];
    double chain[PHASES_MAX]; /* the longest of each phase */
    uint32_t phases;
};

static void send(struct kolo__flow_sink *sink, uint32_t phase, uint32_t peer, double elements)
{
    struct tally *tally = (struct tally *)sink;
    assert_true(phase < PHASES_MAX && peer < RANKS_MAX && peer != tally->rank);
    tally->sent[tally->rank][peer] += elements;
}

static void chain(struct kolo__flow_sink *sink, uint32_t phase, double messages)
{
    struct tally *tally = (struct tally *)sink;
    assert_true(phase < PHASES_MAX);
    tally->chain[phase] = fmax(tally->chain[phase], messages);
    tally->phases = phase >= tally->phases ? phase + 1 : tally->phases;
}

static void count_flows(const struct kolo__algorithm *algorithm, uint32_t size, uint32_t per_host,
                        struct tally *tally)
{
    *tally = (struct tally){.sink = {.send = send, .chain = chain}};
    for (uint32_t rank = 0; rank < size; rank++) {
        struct kolo__flow_problem problem = {
            .rank = rank, .size = size, .per_host = per_host, .count = COUNT};
        tally->rank = rank;
        algorithm->flows(&problem, &tally->sink);
    }
}

static void compare(const struct kolo__algorithm *algorithm, uint32_t size, uint32_t per_host)
{
    uint32_t host_of[RANKS_MAX];
    for (uint32_t rank = 0; rank < size; rank++)
        host_of[rank] = rank / per_host;
    struct prove_problem problem = {.algorithm = algorithm,
                                    .collective = KOLO__ALLREDUCE,
                                    .size = size,
                                    .count = COUNT,
                                    .window_count = 8 * COUNT, /* one round */
                                    .host_of = host_of};
    if (!prove_accepts(&problem))
        return;
    struct tally tally;
    count_flows(algorithm, size, per_host, &tally);
    struct kolo__schedule *schedules = prove_build(&problem);
    for (uint32_t rank = 0; rank < size; rank++) {
        double sent[RANKS_MAX] = {0};
        for (uint32_t i = 0; i < schedules[rank].step_count; i++) {
            const struct kolo__step *step = &schedules[rank].steps[i];
            if (step->kind == KOLO__SEND)
                sent[step->peer] += (double)step->count;
        }
        for (uint32_t peer = 0; peer < size; peer++)
            if (fabs(sent[peer] - tally.sent[rank][peer]) > 1e-6 * COUNT)
                fail_msg("%s, %u ranks, %u a host: rank %u sends %.1f elements to %u, its flows "
                         "say %.1f",
                         algorithm->name, size, per_host, rank, sent[peer], peer,
                         tally.sent[rank][peer]);
    }
    prove_free(schedules, size);
}

static void flows_are_what_schedules_send(void **state)
{
    (void)state;
    unsigned compared = 0;
    for (size_t i = 0; kolo__algorithms[i] != NULL; i++) {
        if (kolo__algorithms[i]->flows == NULL)
            continue;
        compared++;
        for (uint32_t size = 2; size <= RANKS_MAX; size++)
            for (uint32_t per_host = 1; per_host <= size; per_host++)
                if (size % per_host == 0)
                    compare(kolo__algorithms[i], size, per_host);
    }
    assert_int_equal(compared, 7);
}

/* Whoever sends messages in an allreduce tells what. */
static void all_that_send_have_flows(void **state)
{
    (void)state;
    static const uint32_t host_of[4] = {0, 0, 1, 1};
    for (size_t i = 0; kolo__algorithms[i] != NULL; i++) {
        const struct kolo__algorithm *algorithm = kolo__algorithms[i];
        struct kolo__problem problem = {
            .collective = KOLO__ALLREDUCE, .size = 4, .count = 4, .host_of = host_of};
        bool sends = algorithm->accepts(&problem) && !algorithm->needs_mapping;
        assert_int_equal(algorithm->flows != NULL, sends);
    }
}

static double messages_of(const char *name, uint32_t size, uint32_t per_host)
{
    struct tally tally;
    double messages = 0;
    count_flows(kolo__algorithm_find(name), size, per_host, &tally);
    for (uint32_t phase = 0; phase < tally.phases; phase++)
        messages += tally.chain[phase];
    return messages;
}

/* The messages on the path, as docs/ARCHITECTURE.md has them. */
static void chains_are_as_long_as_documented(void **state)
{
    (void)state;
    assert_float_equal(messages_of("ring", 8, 1), 14, 1e-9);
    assert_float_equal(messages_of("recursive_doubling", 8, 1), 3, 1e-9);
    assert_float_equal(messages_of("recursive_doubling", 12, 1), 5, 1e-9);
    assert_float_equal(messages_of("halving_doubling", 8, 1), 6, 1e-9);
    assert_float_equal(messages_of("halving_doubling", 12, 1), 8, 1e-9);
    assert_float_equal(messages_of("double_binary_tree", 8, 1), 6, 1e-9);
    assert_float_equal(messages_of("double_binary_tree", 12, 1), 6, 1e-9);
    assert_float_equal(messages_of("two_level", 12, 4), 2 * 3 + 2 * 2, 1e-9);
    assert_float_equal(messages_of("two_level_shm", 12, 4), 2 * 2, 1e-9);
    assert_float_equal(messages_of("two_level_shm", 8, 4), 1, 1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flows_are_what_schedules_send),
        cmocka_unit_test(all_that_send_have_flows),
        cmocka_unit_test(chains_are_as_long_as_documented),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
