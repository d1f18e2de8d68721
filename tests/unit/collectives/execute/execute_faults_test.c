/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When something goes wrong, every run ends, with the right status and a text that says what. And
 * a run takes no memory.
 */
#include "fleet.h"

#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif

/* ---- no allocation on the way ------------------------------------------------------------------
 */

static size_t allocations;

#ifndef SANITIZED
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);

void *malloc(size_t bytes)
{
    allocations++;
    return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    allocations++;
    return __libc_calloc(count, bytes);
}

void *realloc(void *memory, size_t bytes)
{
    allocations++;
    return __libc_realloc(memory, bytes);
}
#endif

static void draw(const struct kolo__algorithm *algorithm, uint64_t seed,
                 struct fleet_options *options)
{
    fleet_draw(algorithm, KOLO__ALLREDUCE, 5, seed, options);
    options->dtype = KOLO_INT32;
    options->op = KOLO_SUM;
    options->rough = false;
    options->problem.prescale = false;
    options->problem.count = 400;
    options->segment_bytes = 64;
    options->repeat = 2;
}

static void test_no_allocation(void **state)
{
    (void)state;
#ifdef SANITIZED
    print_message("the sanitizer has malloc\n");
    skip();
#endif
    for (size_t a = 0; kolo__algorithms[a] != NULL; a++) {
        struct fleet_options options;
        struct fleet fleet;
        draw(kolo__algorithms[a], 5, &options);
        /* The fleet's own checks allocate: they are off for an odd one. */
        options.odd_algorithm = options.algorithm;
        options.odd_count = options.problem.count;
        if (!options.algorithm->accepts(&options.problem))
            continue;
        fleet_open(&fleet, &options);
        size_t before = allocations;
        assert_true(before > 0);
        assert_int_equal(fleet_drive(&fleet), KOLO_OK);
        assert_int_equal(allocations, before);
        fleet_close(&fleet);
    }
}

/* ---- faults ------------------------------------------------------------------------------------
 */

static void expect_all(struct fleet *fleet, kolo_status expected)
{
    char what[400];
    fleet_describe(&fleet->options, what, sizeof(what));
    for (uint32_t r = 0; r < fleet->options.problem.size; r++)
        if (fleet->statuses[r] != expected)
            fail_msg("%s: rank %u ended with %s (%s)", what, r,
                     kolo_status_name(fleet->statuses[r]), fleet->faults[r].text);
}

static void expect_no_stall(struct fleet *fleet)
{
    char what[400];
    if (fleet_drive(fleet) != KOLO_OK)
        fail_msg("%s: stalled: %s", fleet_describe(&fleet->options, what, sizeof(what)),
                 fleet->text);
}

/* One rank calls with another count: both counts are in everybody's text. */
static void test_mismatch(void **state)
{
    (void)state;
    for (size_t a = 0; kolo__algorithms[a] != NULL; a++) {
        for (uint64_t seed = 0; seed < 20; seed++) {
            struct fleet_options options;
            struct fleet fleet;
            draw(kolo__algorithms[a], seed, &options);
            options.odd_rank = (uint32_t)(seed % 5);
            options.odd_algorithm = options.algorithm;
            options.odd_count = 399;
            if (!options.algorithm->accepts(&options.problem))
                continue;
            fleet_open(&fleet, &options);
            expect_no_stall(&fleet);
            expect_all(&fleet, KOLO_ERR_MISMATCH);
            for (uint32_t r = 0; r < 5; r++) {
                assert_non_null(strstr(fleet.faults[r].text, "(400 x int32, sum"));
                assert_non_null(strstr(fleet.faults[r].text, "(399 x int32, sum"));
            }
            fleet_close(&fleet);
        }
    }
}

/* One rank sends messages where the others use mapped memory: neither waits for ever. */
static void test_mismatch_of_kind(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct fleet_options options;
        struct fleet fleet;
        draw(kolo__algorithm_find(seed % 2 == 0 ? "shm_direct" : "shm_one_shot"), seed, &options);
        options.odd_rank = (uint32_t)(seed % 5);
        options.odd_algorithm = kolo__algorithm_find("ring");
        options.odd_count = options.problem.count;
        fleet_open(&fleet, &options);
        expect_no_stall(&fleet);
        expect_all(&fleet, KOLO_ERR_MISMATCH);
        for (uint32_t r = 0; r < 5; r++) {
            assert_non_null(strstr(fleet.faults[r].text, "ring)"));
            assert_non_null(strstr(fleet.faults[r].text, options.algorithm->name));
        }
        fleet_close(&fleet);
    }
}

/* A rank dies at some time: the survivors finish, or say who died. */
static void test_lost_rank(void **state)
{
    (void)state;
    size_t lost = 0;
    for (size_t a = 0; kolo__algorithms[a] != NULL; a++) {
        for (uint64_t seed = 0; seed < 40; seed++) {
            struct fleet_options options;
            struct fleet fleet;
            draw(kolo__algorithms[a], seed, &options);
            if (!options.algorithm->accepts(&options.problem))
                continue;
            uint32_t victim = (uint32_t)(seed % 5);
            struct kolo__sim_fate fates[5];
            for (uint32_t r = 0; r < 5; r++)
                fates[r] = (struct kolo__sim_fate){.lost_ns = r == victim ? seed * seed * 20
                                                                          : KOLO__SIM_NEVER};
            options.sim.fates = fates;
            fleet_open(&fleet, &options);
            expect_no_stall(&fleet);
            for (uint32_t r = 0; r < 5; r++) {
                if (r == victim || fleet.statuses[r] == KOLO_OK)
                    continue;
                assert_int_equal(fleet.statuses[r], KOLO_ERR_PEER_LOST);
                assert_int_equal(fleet.faults[r].peer, victim);
                lost++;
            }
            fleet_close(&fleet);
        }
    }
    assert_true(lost > 100);
}

static void test_garbled_header(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct fleet_options options;
        struct fleet fleet;
        draw(kolo__algorithm_find("ring"), seed, &options);
        options.sim.garbled = seed * 3;
        fleet_open(&fleet, &options);
        expect_no_stall(&fleet);
        expect_all(&fleet, KOLO_ERR_NETWORK);
        fleet_close(&fleet);
    }
}

/* Nobody fails, but a rank never calls: the deadline passes, and each of the others says whom it
 * waits for. */
static void test_stall_is_described(void **state)
{
    (void)state;
    const struct kolo__sim_options sim_options = {
        .size = 2, .seed = 1, .delay_ns = 10, .garbled = KOLO__SIM_NEVER};
    const struct kolo__program_options options = {
        .dtype = KOLO_FP32, .op = KOLO_SUM, .segment_bytes = 16, .depth = 2};
    struct kolo__problem problem = {
        .collective = KOLO__ALLREDUCE, .rank = 1, .size = 2, .count = 10};
    struct kolo__schedule schedule;
    struct kolo__sim *sim;
    struct kolo__program *program;
    struct kolo__fault fault;
    float input[10] = {0}, output[10];
    char text[160];
    assert_int_equal(kolo__sim_create(&sim_options, &sim), KOLO_OK);
    kolo__schedule_init(&schedule, &problem, "by hand");
    kolo__schedule_recv_reduce(&schedule, 0, kolo__place_of(1, KOLO__INPUT, 0),
                               kolo__place_of(1, KOLO__OUTPUT, 0), 10, KOLO__FINISH);
    kolo__schedule_send(&schedule, 0, kolo__place_of(1, KOLO__OUTPUT, 0), 10);
    assert_int_equal(kolo__program_create(&schedule, &options, &program), KOLO_OK);
    assert_true(kolo__program_bytes(program) >= 2 * 16);
    struct kolo__run_arguments arguments = {.input = input,
                                            .output = output,
                                            .signature = {.sequence = 1},
                                            .transport = kolo__sim_transport(sim, 1)};
    kolo__run_begin(program, &arguments);
    for (int i = 0; i < 100; i++) {
        bool moved = false;
        assert_int_equal(kolo__run_progress(program, &moved, &fault), KOLO_AGAIN);
        assert_int_equal(moved, i == 0);
        kolo__sim_step(sim);
    }
    assert_int_equal(kolo__run_waiting_for(program), 0);
    assert_string_equal(kolo__run_state(program, text, sizeof(text)),
                        "receive from rank 0 (step 1 of 2, 0 of 10 elements)");
    kolo__sim_transport(sim, 1)->ops->close(kolo__sim_transport(sim, 1));
    kolo__sim_transport(sim, 0)->ops->close(kolo__sim_transport(sim, 0));
    kolo__program_free(program);
    kolo__sim_free(sim);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_allocation),    cmocka_unit_test(test_mismatch),
        cmocka_unit_test(test_mismatch_of_kind), cmocka_unit_test(test_lost_rank),
        cmocka_unit_test(test_garbled_header),   cmocka_unit_test(test_stall_is_described),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
