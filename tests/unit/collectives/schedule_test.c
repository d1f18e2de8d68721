/* SPDX-License-Identifier: Apache-2.0 */
/* Slices, the builder, the table of algorithms, and offsets beyond 32 bits. */
#include "collectives/algorithm/algorithm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static void slices_cover_the_whole(void **state)
{
    (void)state;
    const size_t counts[] = {0, 1, 2, 3, 7, 8, 9, 100, SIZE_MAX / 2};
    for (uint32_t parts = 1; parts <= 70; parts++)
        for (unsigned i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
            size_t count = counts[i], next = 0;
            for (uint32_t part = 0; part < parts; part++) {
                assert_true(kolo__slice_offset(count, parts, part) == next);
                size_t length = kolo__slice_count(count, parts, part);
                assert_true(length == count / parts || length == count / parts + 1);
                if (part > 0)
                    assert_true(length <= kolo__slice_count(count, parts, part - 1));
                next += length;
            }
            assert_true(next == count);
        }
}

static struct kolo__schedule begin(enum kolo__collective collective, uint32_t rank)
{
    struct kolo__problem problem = {
        .collective = collective, .rank = rank, .size = 4, .root = 1, .count = 10};
    struct kolo__schedule s;
    kolo__schedule_init(&s, &problem, "test");
    return s;
}

static void buffers_have_their_sizes(void **state)
{
    (void)state;
    const struct {
        enum kolo__collective collective;
        uint32_t rank;
        size_t input, output;
        size_t input_in_output;
    } rows[] = {
        {KOLO__ALLREDUCE, 3, 10, 10, 0},     {KOLO__REDUCE_SCATTER, 3, 40, 10, (size_t)0 - 30},
        {KOLO__ALLGATHER, 3, 10, 40, 30},    {KOLO__BROADCAST, 1, 10, 10, 0},
        {KOLO__BROADCAST, 3, 0, 10, 0},      {KOLO__REDUCE_TO_ROOT, 1, 10, 10, 0},
        {KOLO__REDUCE_TO_ROOT, 3, 10, 0, 0}, {KOLO__ALLTOALL, 3, 40, 40, 0},
        {KOLO__BARRIER, 3, 0, 0, 0},
    };
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct kolo__schedule s = begin(rows[i].collective, rows[i].rank);
        assert_true(s.input_count == rows[i].input);
        assert_true(s.output_count == rows[i].output);
        assert_true(s.input_in_output == rows[i].input_in_output);
    }
}

static void building_grows_what_is_needed(void **state)
{
    (void)state;
    struct kolo__schedule s = begin(KOLO__ALLREDUCE, 2);
    struct kolo__place sources[3] = {kolo__place_of(0, KOLO__SLOT, 4),
                                     kolo__place_of(1, KOLO__SLOT, 4),
                                     kolo__place_of(2, KOLO__SCRATCH, 5)};
    kolo__schedule_recv(&s, 1, kolo__here(&s, KOLO__SCRATCH, 7), 3);
    assert_false(s.mapped);
    for (size_t i = 0; i < 100; i++)
        kolo__schedule_reduce(&s, sources, 3, kolo__here(&s, KOLO__OUTPUT, i), 2, KOLO__FINISH);
    kolo__schedule_send(&s, 3, kolo__here(&s, KOLO__OUTPUT, 9), 1);
    assert_int_equal(kolo__schedule_built(&s), KOLO_OK);
    assert_true(s.mapped);
    assert_true(s.scratch_count == 10);
    assert_true(s.slot_count == 6);
    assert_int_equal(s.step_count, 102);
    for (uint32_t i = 0; i < 100; i++) {
        const struct kolo__step *step = &s.steps[1 + i];
        assert_int_equal(step->kind, KOLO__REDUCE);
        assert_int_equal(step->source_count, 3);
        assert_memory_equal(&s.sources[step->first_source], sources, sizeof(sources));
        assert_true(step->to.offset == i && step->to.rank == 2);
    }
    assert_int_equal(s.steps[101].peer, 3);
    kolo__schedule_free(&s);
    assert_null(s.steps);
    kolo__schedule_free(&s);
}

static void a_lost_append_is_an_error(void **state)
{
    (void)state;
    struct kolo__schedule s = begin(KOLO__ALLREDUCE, 0);
    kolo__schedule_arrive(&s, 0);
    s.out_of_memory = true;
    assert_int_equal(kolo__schedule_built(&s), KOLO_ERR_MEMORY);
    assert_null(s.steps);
}

static void names_are_unique_and_found(void **state)
{
    (void)state;
    for (unsigned i = 0; kolo__algorithms[i] != NULL; i++) {
        assert_ptr_equal(kolo__algorithm_find(kolo__algorithms[i]->name), kolo__algorithms[i]);
        for (int c = 0; c < KOLO__COLLECTIVE_COUNT; c++)
            assert_string_not_equal(kolo__algorithms[i]->name,
                                    kolo__collective_name((enum kolo__collective)c));
    }
    assert_null(kolo__algorithm_find("rings"));
    assert_null(kolo__algorithm_find(""));
    assert_string_equal(kolo__collective_name(KOLO__REDUCE_TO_ROOT), "reduce");
    assert_string_equal(kolo__collective_name(KOLO__COLLECTIVE_COUNT), "unknown collective");
}

static size_t limit_of(const struct kolo__schedule *s, enum kolo__buffer buffer)
{
    const size_t limits[KOLO__BUFFER_COUNT] = {s->input_count, s->output_count, s->scratch_count,
                                               s->input_count, s->output_count, s->slot_count};
    return limits[buffer];
}

/* The proofs use small counts; here offsets pass 2^32 elements. */
static void large_counts_stay_within_buffers(void **state)
{
    (void)state;
    const size_t count = (size_t)5 << 30;
    const uint32_t hosts[] = {1, 1, 1, 2, 2, 2};
    for (unsigned i = 0; kolo__algorithms[i] != NULL; i++)
        for (int c = 0; c < KOLO__BARRIER; c++) {
            struct kolo__problem problem = {.collective = (enum kolo__collective)c,
                                            .rank = 4,
                                            .size = 6,
                                            .root = 5,
                                            .count = count + 1,
                                            .window_count = (size_t)1 << 29,
                                            .host_of = hosts};
            if (!kolo__algorithms[i]->accepts(&problem))
                continue;
            struct kolo__schedule s;
            assert_int_equal(kolo__algorithms[i]->build(&problem, &s), KOLO_OK);
            size_t written = 0;
            for (uint32_t k = 0; k < s.step_count; k++) {
                const struct kolo__step *step = &s.steps[k];
                bool reads = step->kind == KOLO__COPY || step->kind == KOLO__SEND ||
                             step->kind == KOLO__RECV_REDUCE;
                if (reads && step->from.rank == problem.rank)
                    assert_true(step->from.offset + step->count <= limit_of(&s, step->from.buffer));
                if (step->kind == KOLO__SEND || step->to.rank != problem.rank)
                    continue;
                assert_true(step->to.offset + step->count <= limit_of(&s, step->to.buffer));
                if (step->to.buffer == KOLO__OUTPUT)
                    written += step->count;
            }
            assert_true(written >= s.output_count);
            kolo__schedule_free(&s);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices_cover_the_whole),
        cmocka_unit_test(buffers_have_their_sizes),
        cmocka_unit_test(building_grows_what_is_needed),
        cmocka_unit_test(a_lost_append_is_an_error),
        cmocka_unit_test(names_are_unique_and_found),
        cmocka_unit_test(large_counts_stay_within_buffers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
