/* SPDX-License-Identifier: Apache-2.0 */
/* The executor runs every algorithm to the right result, whatever the network does. */
#include "fleet.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const uint32_t sizes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 16};
enum { SIZES = sizeof(sizes) / sizeof(sizes[0]), SEEDS = 12 };

static void run_right(const struct fleet_options *options)
{
    struct fleet fleet;
    char what[400];
    fleet_open(&fleet, options);
    if (fleet_drive(&fleet) != KOLO_OK)
        fail_msg("%s: stalled: %s", fleet_describe(options, what, sizeof(what)), fleet.text);
    fleet_check(&fleet);
    fleet_close(&fleet);
}

static void test_every_algorithm(void **state)
{
    (void)state;
    size_t runs = 0;
    for (size_t a = 0; kolo__algorithms[a] != NULL; a++) {
        for (unsigned c = 0; c < KOLO__POINT_TO_POINT; c++) {
            for (uint64_t i = 0; i < SIZES * SEEDS; i++) {
                struct fleet_options options;
                uint64_t seed = a * 100000 + c * 10000 + i;
                if (!fleet_draw(kolo__algorithms[a], (enum kolo__collective)c, sizes[i % SIZES],
                                seed, &options))
                    continue;
                run_right(&options);
                runs++;
            }
        }
    }
    print_message("%zu fleets\n", runs);
    assert_true(runs > 100);
}

/* More steps than the window holds, and more segments than posts. */
static void test_long_schedules(void **state)
{
    (void)state;
    for (size_t a = 0; kolo__algorithms[a] != NULL; a++) {
        for (uint32_t depth = 1; depth <= 4; depth += 3) {
            struct fleet_options options;
            fleet_draw(kolo__algorithms[a], KOLO__ALLREDUCE, 16, 1, &options);
            options.dtype = KOLO_INT32;
            options.op = KOLO_SUM;
            options.rough = false;
            options.problem.prescale = false;
            options.problem.count = 20011;
            options.problem.window_count = 4096;
            options.segment_bytes = 400;
            options.depth = depth;
            options.repeat = 1;
            if (kolo__algorithms[a]->accepts(&options.problem))
                run_right(&options);
        }
    }
}

/* Steps that take several calls: whoever does not wait at the fences reads what is not there yet.
 */
static void test_fences(void **state)
{
    (void)state;
    for (size_t a = 0; kolo__algorithms[a] != NULL; a++) {
        bool mapped = kolo__algorithms[a]->needs_mapping || kolo__algorithms[a]->needs_host_mapping;
        for (uint64_t seed = 0; seed < 10 && mapped; seed++) {
            struct fleet_options options;
            fleet_draw(kolo__algorithms[a], KOLO__ALLREDUCE, 3, seed, &options);
            options.dtype = KOLO_INT32;
            options.op = KOLO_SUM;
            options.rough = false;
            options.in_heap = seed % 2 == 0;
            options.problem.prescale = false;
            options.problem.count = 200003;
            options.problem.window_count = 150000;
            if (kolo__algorithms[a]->accepts(&options.problem))
                run_right(&options);
        }
    }
}

/* Whose buffers are mapped decides who copies what: with any one rank's in the heap or not, in
 * pieces, several windows long. */
static void test_broadcast_with_any_buffers_mapped(void **state)
{
    (void)state;
    for (uint32_t out_of_heap = 0; out_of_heap < 8; out_of_heap++)
        for (unsigned cross_reads = 0; cross_reads < 2; cross_reads++) {
            struct fleet_options options;
            fleet_draw(kolo__algorithm_find("shm_direct"), KOLO__BROADCAST, 3, 1, &options);
            options.dtype = KOLO_INT32;
            options.in_heap = true;
            options.out_of_heap = out_of_heap;
            options.sim.cross_reads = cross_reads != 0;
            options.problem.in_place = true;
            options.problem.window_count = 150000;
            options.problem.count = 2 * options.problem.window_count + 67501;
            run_right(&options);
        }
}

/* The last window is shorter, so its slices lie elsewhere: whoever fills it before he has emptied
 * the same memory of what is there, piece by piece, loses some of that. */
static void test_windows_are_emptied_before_they_are_filled(void **state)
{
    (void)state;
    for (unsigned in_place = 0; in_place < 2; in_place++) {
        struct fleet_options options;
        fleet_draw(kolo__algorithm_find("shm_direct"), KOLO__ALLREDUCE, 3, 1, &options);
        options.dtype = KOLO_INT32;
        options.op = KOLO_SUM;
        options.rough = options.in_heap = options.problem.prescale = false;
        options.problem.in_place = in_place;
        options.problem.window_count = 150000;
        options.problem.count = 2 * options.problem.window_count + 67500;
        run_right(&options);
    }
}

static void test_same_seed_same_run(void **state)
{
    (void)state;
    uint64_t traces[3];
    const uint64_t seeds[3] = {7, 7, 8};
    for (int i = 0; i < 3; i++) {
        struct fleet_options options;
        struct fleet fleet;
        fleet_draw(kolo__algorithm_find("ring"), KOLO__ALLREDUCE, 5, 77, &options);
        options.sim.seed = seeds[i];
        options.problem.count = 500;
        fleet_open(&fleet, &options);
        assert_int_equal(fleet_drive(&fleet), KOLO_OK);
        traces[i] = fleet.trace;
        fleet_close(&fleet);
    }
    assert_true(traces[0] == traces[1]);
    assert_true(traces[0] != traces[2]);
}

/* Of sums that are rounded: slices lie elsewhere where a vector is cut into chunks. */
static void test_chunks_do_not_change_bits(void **state)
{
    (void)state;
    enum { COUNT = 20011 };
    static float whole[COUNT];
    for (size_t chunk_count = 0; chunk_count <= 500; chunk_count += 250) {
        struct fleet_options options;
        struct fleet fleet;
        fleet_draw(kolo__algorithm_find("halving_doubling"), KOLO__ALLREDUCE, 8, 1, &options);
        options.dtype = KOLO_FP32;
        options.op = KOLO_SUM;
        options.rough = true;
        options.problem.prescale = false;
        options.problem.count = COUNT;
        options.problem.chunk_count = chunk_count;
        options.segment_bytes = 400;
        fleet_open(&fleet, &options);
        assert_int_equal(fleet_drive(&fleet), KOLO_OK);
        fleet_check(&fleet);
        if (chunk_count == 0)
            memcpy(whole, fleet.ranks[0].output, sizeof(whole));
        assert_memory_equal(fleet.ranks[0].output, whole, sizeof(whole));
        fleet_close(&fleet);
    }
}

/* ---- schedules by hand ----------------------------------------------------------------------- */

/* A chain 0 -> 1 -> 2: the middle rank forwards what it has before it has everything. */
static void test_streams_through(void **state)
{
    (void)state;
    enum { COUNT = 200 };
    const struct kolo__sim_options sim_options = {
        .size = 3, .seed = 1, .delay_ns = 10, .garbled = KOLO__SIM_NEVER};
    const struct kolo__program_options options = {
        .dtype = KOLO_INT32, .op = KOLO_SUM, .segment_bytes = 40, .depth = 2};
    struct kolo__sim *sim;
    struct kolo__program *programs[3];
    int32_t buffers[3][COUNT];
    assert_int_equal(kolo__sim_create(&sim_options, &sim), KOLO_OK);
    for (uint32_t r = 0; r < 3; r++) {
        struct kolo__problem problem = {
            .collective = KOLO__BROADCAST, .rank = r, .size = 3, .count = COUNT, .in_place = true};
        struct kolo__schedule schedule;
        kolo__schedule_init(&schedule, &problem, "chain");
        if (r > 0)
            kolo__schedule_recv(&schedule, r - 1, kolo__place_of(r, KOLO__OUTPUT, 0), COUNT);
        if (r < 2)
            kolo__schedule_send(&schedule, r + 1, kolo__place_of(r, KOLO__OUTPUT, 0), COUNT);
        assert_int_equal(kolo__program_create(&schedule, &options, &programs[r]), KOLO_OK);
        for (int i = 0; i < COUNT; i++)
            buffers[r][i] = r == 0 ? i : -1;
        struct kolo__run_arguments arguments = {.input = buffers[r],
                                                .output = buffers[r],
                                                .signature = {.sequence = 1},
                                                .transport = kolo__sim_transport(sim, r)};
        kolo__run_begin(programs[r], &arguments);
    }

    kolo_status statuses[3] = {KOLO_AGAIN, KOLO_AGAIN, KOLO_AGAIN};
    bool overlapped = false;
    for (int i = 0; i < 100000 && (statuses[1] == KOLO_AGAIN || statuses[2] == KOLO_AGAIN); i++) {
        for (uint32_t r = 0; r < 3; r++) {
            struct kolo__transport *transport = kolo__sim_transport(sim, r);
            struct kolo__fault fault;
            transport->ops->progress(transport);
            if (statuses[r] == KOLO_AGAIN)
                statuses[r] = kolo__run_progress(programs[r], NULL, &fault);
        }
        kolo__sim_step(sim);
        overlapped = overlapped || (buffers[2][9] == 9 && buffers[1][COUNT - 1] == -1);
        for (int k = 1; k < COUNT; k++)
            assert_true(buffers[2][k] == -1 || buffers[2][k - 1] == k - 1);
    }
    assert_true(overlapped);
    assert_int_equal(statuses[2], KOLO_OK);
    assert_memory_equal(buffers[2], buffers[0], sizeof(buffers[0]));
    for (uint32_t r = 0; r < 3; r++) {
        kolo__sim_transport(sim, r)->ops->close(kolo__sim_transport(sim, r));
        kolo__program_free(programs[r]);
    }
    kolo__sim_free(sim);
}

/* Local steps only: overlapping ranges must be passed in program order, a piece at a time. */
static void test_local_order(void **state)
{
    (void)state;
    const size_t count = 100003; /* several pieces */
    struct kolo__problem problem = {.collective = KOLO__ALLREDUCE, .size = 1, .count = count};
    const struct kolo__program_options options = {
        .dtype = KOLO_FP64, .op = KOLO_SUM, .segment_bytes = 1, .depth = 1};
    struct kolo__schedule s;
    struct kolo__program *program;
    double *input = malloc(count * sizeof(*input)), *output = malloc(count * sizeof(*output));
    assert_non_null(input);
    assert_non_null(output);
    for (size_t i = 0; i < count; i++)
        input[i] = (double)i;
    kolo__schedule_init(&s, &problem, "local");
    struct kolo__place in = kolo__place_of(0, KOLO__INPUT, 0);
    struct kolo__place out = kolo__place_of(0, KOLO__OUTPUT, 0);
    struct kolo__place scratch = kolo__place_of(0, KOLO__SCRATCH, 0);
    const size_t half = count / 2;
    kolo__schedule_copy(&s, in, scratch, count, 0);
    kolo__schedule_copy(&s, kolo__place_of(0, KOLO__SCRATCH, half), out, half, 0);
    /* Overwrites what the step before reads: out = in, moved by half. */
    kolo__schedule_copy(&s, in, kolo__place_of(0, KOLO__SCRATCH, half), half, 0);
    struct kolo__place sources[2] = {out, kolo__place_of(0, KOLO__SCRATCH, half)};
    kolo__schedule_reduce(&s, sources, 2, out, half, KOLO__FINISH);
    assert_int_equal(kolo__program_create(&s, &options, &program), KOLO_OK);
    struct kolo__run_arguments arguments = {.input = input, .output = output};
    for (int run = 0; run < 2; run++) {
        struct kolo__fault fault;
        kolo_status status = KOLO_AGAIN;
        int calls = 0;
        kolo__run_begin(program, &arguments);
        for (; status == KOLO_AGAIN && calls < 10000; calls++)
            status = kolo__run_progress(program, NULL, &fault);
        assert_int_equal(status, KOLO_OK);
        assert_true(calls > 2); /* it let others run in between */
        for (size_t i = 0; i < half; i++)
            assert_true(output[i] == (double)(i + half) + (double)i);
    }
    kolo__program_free(program);
    free(input);
    free(output);
}

/* Element 0 of OUTPUT is copied in mapped runs only, element 1 in the others. */
static void build_conditional(uint32_t rank, struct kolo__schedule *s)
{
    struct kolo__problem problem = {
        .collective = KOLO__ALLREDUCE, .rank = rank, .size = 2, .count = 2, .window_count = 2};
    kolo__schedule_init(s, &problem, "conditional");
    kolo__schedule_copy(s, kolo__place_of(rank, KOLO__INPUT, 0),
                        kolo__place_of(rank, KOLO__EXPOSED_IN, 0), 2, 0);
    kolo__schedule_arrive(s, 0);
    kolo__schedule_await(s, 0);
    for (uint32_t i = 0; i < 2; i++)
        kolo__schedule_copy(s, kolo__place_of(rank, KOLO__INPUT, i),
                            kolo__place_of(rank, KOLO__OUTPUT, i), 1,
                            i == 0 ? KOLO__MAPPED_ONLY : KOLO__UNMAPPED_ONLY);
}

/* One private buffer of one rank is enough for all to do what unmapped runs do, and no more. */
static void check_conditional(bool private_input, bool private_output)
{
    const struct kolo__sim_options sim_options = {.size = 2,
                                                  .seed = 1,
                                                  .delay_ns = 10,
                                                  .share_bytes = 4096,
                                                  .slot_bytes = 64,
                                                  .window_bytes = 64,
                                                  .garbled = KOLO__SIM_NEVER};
    const struct kolo__program_options options = {
        .dtype = KOLO_INT32, .op = KOLO_SUM, .segment_bytes = 40, .depth = 1};
    struct kolo__sim *sim;
    struct kolo__program *programs[2];
    int32_t private[2][2], *output[2];
    kolo_status statuses[2] = {KOLO_AGAIN, KOLO_AGAIN};
    assert_int_equal(kolo__sim_create(&sim_options, &sim), KOLO_OK);
    for (uint32_t r = 0; r < 2; r++) {
        struct kolo__schedule schedule;
        bool in = r == 1 && private_input, out = r == 1 && private_output;
        int32_t *input = in ? private[0] : kolo__sim_alloc(sim, r, sizeof(private[0]));
        output[r] = out ? private[1] : kolo__sim_alloc(sim, r, sizeof(private[1]));
        if (input == NULL || output[r] == NULL)
            abort();
        input[0] = input[1] = 7;
        output[r][0] = output[r][1] = -1;
        build_conditional(r, &schedule);
        assert_int_equal(kolo__program_create(&schedule, &options, &programs[r]), KOLO_OK);
        struct kolo__run_arguments arguments = {.input = input,
                                                .output = output[r],
                                                .signature = {.sequence = 1},
                                                .transport = kolo__sim_transport(sim, r),
                                                .mapping = kolo__sim_mapping(sim, r)};
        kolo__run_begin(programs[r], &arguments);
    }
    for (int i = 0; i < 1000; i++, kolo__sim_step(sim))
        for (uint32_t r = 0; r < 2; r++) {
            struct kolo__fault fault;
            if (statuses[r] == KOLO_AGAIN)
                statuses[r] = kolo__run_progress(programs[r], NULL, &fault);
        }
    bool mapped = !private_input && !private_output;
    for (uint32_t r = 0; r < 2; r++) {
        assert_int_equal(statuses[r], KOLO_OK);
        assert_int_equal(output[r][0], mapped ? 7 : -1);
        assert_int_equal(output[r][1], mapped ? -1 : 7);
        kolo__sim_transport(sim, r)->ops->close(kolo__sim_transport(sim, r));
        kolo__program_free(programs[r]);
    }
    kolo__sim_free(sim);
}

static void test_which_copies_a_run_does(void **state)
{
    (void)state;
    for (unsigned private = 0; private < 4; private ++)
        check_conditional(private % 2 != 0, private / 2 != 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_local_order),
        cmocka_unit_test(test_streams_through),
        cmocka_unit_test(test_same_seed_same_run),
        cmocka_unit_test(test_every_algorithm),
        cmocka_unit_test(test_long_schedules),
        cmocka_unit_test(test_chunks_do_not_change_bits),
        cmocka_unit_test(test_fences),
        cmocka_unit_test(test_windows_are_emptied_before_they_are_filled),
        cmocka_unit_test(test_broadcast_with_any_buffers_mapped),
        cmocka_unit_test(test_which_copies_a_run_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
