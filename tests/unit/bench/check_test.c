/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checker, held against the reference kernels: what it expects is what reducing its inputs
 * gives, in every dtype and op and in any order of the ranks; and every element that is wrong is
 * counted.
 */
#include "bench/check.h"
#include "bench/options.h"
#include "kernels/kernels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { COUNT = 2 * BENCH_PERIOD + 100, PHASE = 1000 };

/* ---- what is expected of a reduction --------------------------------------------------------- */

struct inputs {
    int ranks;
    unsigned char **buffers;
    const void **sources;
    double *scales;
};

static void make_inputs(const struct bench_pattern *pattern, size_t count, struct inputs *inputs)
{
    struct bench_table table;
    inputs->ranks = pattern->ranks;
    inputs->buffers = calloc((size_t)pattern->ranks, sizeof *inputs->buffers);
    inputs->sources = calloc((size_t)pattern->ranks, sizeof *inputs->sources);
    inputs->scales = calloc((size_t)pattern->ranks, sizeof *inputs->scales);
    for (int rank = 0; rank < pattern->ranks; rank++) {
        int place = pattern->ranks - 1 - rank; /* any order will do: take the reverse */
        inputs->buffers[place] = malloc(count * kolo_dtype_bytes(pattern->dtype));
        bench_table_input(pattern, rank, 0, &table);
        bench_fill(&table, PHASE, inputs->buffers[place], count);
        inputs->sources[place] = inputs->buffers[place];
        inputs->scales[place] = bench_scale(rank);
    }
}

static void free_inputs(struct inputs *inputs)
{
    for (int rank = 0; rank < inputs->ranks; rank++)
        free(inputs->buffers[rank]);
    free(inputs->buffers);
    free(inputs->sources);
    free(inputs->scales);
}

static void assert_expected(kolo_dtype dtype, kolo_op op, int ranks)
{
    struct bench_pattern pattern = {.dtype = dtype, .op = (int)op, .ranks = ranks, .seed = 5};
    size_t count = ranks > 64 ? 500 : COUNT, width = kolo_dtype_bytes(dtype);
    struct inputs inputs;
    make_inputs(&pattern, count, &inputs);
    struct kolo__reduction reduction = {.dtype = dtype,
                                        .op = op,
                                        .divisor = op == KOLO_AVERAGE ? (uint32_t)ranks : 1,
                                        .scales = op == KOLO_PREMUL_SUM ? inputs.scales : NULL};
    unsigned char *result = malloc(count * width);
    kolo__reduce(&reduction, result, inputs.sources, (uint32_t)ranks, count);

    struct bench_table table;
    bench_table_result(&pattern, &table);
    size_t wrong = bench_count_wrong(&table, PHASE, result, count);
    if (wrong != 0)
        fail_msg("%s %s of %d ranks: %zu of %zu elements", kolo_op_name(op), kolo_dtype_name(dtype),
                 ranks, wrong, count);
    free(result);
    free_inputs(&inputs);
}

static void expects_what_the_kernels_compute(void **state)
{
    (void)state;
    static const int RANKS[] = {1, 2, 3, 4, 7, 16, 300};
    for (size_t i = 0; i < sizeof RANKS / sizeof *RANKS; i++)
        for (int dtype = 0; dtype < KOLO_DTYPE_COUNT; dtype++)
            for (int op = 0; op < KOLO_OP_COUNT; op++)
                if (bench_is_defined((kolo_dtype)dtype, (kolo_op)op))
                    assert_expected((kolo_dtype)dtype, (kolo_op)op, RANKS[i]);
}

/* A check that a rank's missing contribution passes would prove nothing. */
static void a_missing_rank_is_seen(void **state)
{
    (void)state;
    for (int op = 0; op < KOLO_OP_COUNT; op++) {
        kolo_dtype dtype = bench_is_defined(KOLO_FP32, (kolo_op)op) ? KOLO_FP32 : KOLO_INT32;
        struct bench_pattern pattern = {.dtype = dtype, .op = op, .ranks = 4, .seed = 5};
        struct inputs inputs;
        make_inputs(&pattern, COUNT, &inputs);
        struct kolo__reduction reduction = {.dtype = dtype,
                                            .op = (kolo_op)op,
                                            .divisor = op == KOLO_AVERAGE ? 4 : 1,
                                            .scales = op == KOLO_PREMUL_SUM ? inputs.scales : NULL};
        unsigned char *result = malloc(COUNT * kolo_dtype_bytes(dtype));
        kolo__reduce(&reduction, result, inputs.sources, 3, COUNT);
        struct bench_table table;
        bench_table_result(&pattern, &table);
        assert_true(bench_count_wrong(&table, PHASE, result, COUNT) > COUNT / 10);
        free(result);
        free_inputs(&inputs);
    }
}

/* ---- counting -------------------------------------------------------------------------------- */

static void every_corrupted_element_is_counted(void **state)
{
    (void)state;
    static const size_t PLACES[] = {0, 1, BENCH_PERIOD - PHASE - 1, BENCH_PERIOD - PHASE,
                                    COUNT - 1};
    struct bench_table table;
    for (int dtype = 0; dtype < KOLO_DTYPE_COUNT; dtype++) {
        size_t width = kolo_dtype_bytes((kolo_dtype)dtype);
        unsigned char *buffer = malloc(COUNT * width);
        struct bench_pattern pattern = {(kolo_dtype)dtype, BENCH_MOVE, 2, 9};
        bench_table_input(&pattern, 1, 0, &table);
        bench_fill(&table, PHASE, buffer, COUNT);
        assert_int_equal(bench_count_wrong(&table, PHASE, buffer, COUNT), 0);
        for (size_t i = 0; i < sizeof PLACES / sizeof *PLACES; i++) {
            buffer[PLACES[i] * width + width - 1] ^= 0x40; /* one bit */
            assert_int_equal(bench_count_wrong(&table, PHASE, buffer, COUNT), i + 1);
        }
        free(buffer);
    }
}

/* Data at a wrong place, in whole pages or slices, must not look right. */
static void displaced_data_is_wrong(void **state)
{
    (void)state;
    static const size_t OFFSETS[] = {1, 64, 1024, 4096, BENCH_PERIOD / 2};
    struct bench_pattern pattern = {KOLO_FP32, KOLO_SUM, 4, 1};
    struct bench_table table;
    float *buffer = malloc(COUNT * sizeof *buffer);
    bench_table_result(&pattern, &table);
    for (size_t i = 0; i < sizeof OFFSETS / sizeof *OFFSETS; i++) {
        bench_fill(&table, OFFSETS[i], buffer, COUNT);
        assert_true(bench_count_wrong(&table, 0, buffer, COUNT) > COUNT / 2);
    }
    free(buffer);
}

/* ---- whole collectives, over ranks that are played here -------------------------------------- */

enum { RANKS = 3, SLICE = 5000 };

struct fleet {
    const struct bench_collective *collective;
    struct bench_call calls[RANKS];
    unsigned char *first[RANKS], *second[RANKS];
};

static void make_fleet(const char *name, bool in_place, struct fleet *fleet)
{
    fleet->collective = bench_collective_find(name);
    for (int rank = 0; rank < RANKS; rank++) {
        struct bench_call *call = &fleet->calls[rank];
        size_t bytes = (size_t)RANKS * SLICE * sizeof(int32_t);
        *call = (struct bench_call){.rank = rank,
                                    .ranks = RANKS,
                                    .count = SLICE,
                                    .dtype = KOLO_INT32,
                                    .op = fleet->collective->reduces ? (int)KOLO_SUM : BENCH_MOVE,
                                    .in_place = in_place};
        fleet->first[rank] = calloc(1, bytes);
        fleet->second[rank] = calloc(1, bytes);
        bench_collective_place(fleet->collective, fleet->first[rank], fleet->second[rank], call);
        bench_fill_call(fleet->collective, call, 1);
        bench_spoil_call(fleet->collective, call);
    }
}

static void free_fleet(struct fleet *fleet)
{
    for (int rank = 0; rank < RANKS; rank++) {
        free(fleet->first[rank]);
        free(fleet->second[rank]);
    }
}

/* Element `index` of what a rank sends, read before anything is written. */
static int32_t sent[RANKS][RANKS * SLICE];

static int32_t sum_of(size_t index)
{
    int32_t sum = 0;
    for (int rank = 0; rank < RANKS; rank++)
        sum += sent[rank][index];
    return sum;
}

/* What the definitions in kolo.h say, element by element. */
static void play(struct fleet *fleet)
{
    const char *name = fleet->collective->name;
    for (int rank = 0; rank < RANKS; rank++)
        memcpy(sent[rank], fleet->calls[rank].send,
               (fleet->collective->send_slices ? RANKS : 1) * SLICE * sizeof(int32_t));
    for (size_t rank = 0; rank < RANKS; rank++) {
        int32_t *recv = fleet->calls[rank].recv;
        for (size_t i = 0; i < SLICE; i++) {
            if (strcmp(name, "allreduce") == 0 || (strcmp(name, "reduce") == 0 && rank == 0))
                recv[i] = sum_of(i);
            else if (strcmp(name, "reduce_scatter") == 0)
                recv[i] = sum_of(rank * SLICE + i);
            else if (strcmp(name, "broadcast") == 0)
                recv[i] = sent[0][i];
            else if (strcmp(name, "sendrecv") == 0)
                recv[i] = sent[(rank + RANKS - 1) % RANKS][i];
            for (size_t peer = 0; peer < RANKS; peer++) {
                if (strcmp(name, "allgather") == 0)
                    recv[peer * SLICE + i] = sent[peer][i];
                else if (strcmp(name, "alltoall") == 0)
                    recv[peer * SLICE + i] = sent[peer][rank * SLICE + i];
            }
        }
    }
}

static size_t wrong_of(const struct fleet *fleet)
{
    size_t wrong = 0;
    for (int rank = 0; rank < RANKS; rank++)
        wrong += bench_count_wrong_call(fleet->collective, &fleet->calls[rank], 1);
    return wrong;
}

static void check_collective(const char *name, bool in_place)
{
    struct fleet fleet;
    make_fleet(name, in_place, &fleet);
    if (wrong_of(&fleet) < SLICE / 2)
        fail_msg("%s: nothing was done, and that went unnoticed", name);
    play(&fleet);
    if (wrong_of(&fleet) != 0)
        fail_msg("%s%s: %zu right elements were refused", name, in_place ? " in place" : "",
                 wrong_of(&fleet));
    ((int32_t *)fleet.calls[0].recv)[SLICE - 1] ^= 1;
    assert_int_equal(wrong_of(&fleet), 1);
    free_fleet(&fleet);
}

static void every_collective_is_checked(void **state)
{
    (void)state;
    static const char *const NAMES[] = {"allreduce", "allgather", "reduce_scatter", "broadcast",
                                        "reduce",    "alltoall",  "sendrecv"};
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        enum bench_in_place in_place = bench_collective_find(NAMES[i])->in_place;
        if (in_place != BENCH_ALWAYS_IN_PLACE)
            check_collective(NAMES[i], false);
        if (in_place != BENCH_NEVER_IN_PLACE)
            check_collective(NAMES[i], true);
    }
}

/* Repeated in place, the values of timed operations must not grow. */
static void rewritten_floats_stay_as_they_are(void **state)
{
    (void)state;
    for (int dtype = KOLO_FP16; dtype <= KOLO_FP64; dtype++)
        for (int op = 0; op < KOLO_OP_COUNT; op++) {
            if (!bench_is_defined((kolo_dtype)dtype, (kolo_op)op))
                continue;
            uint64_t buffer[8], before[8];
            double scales[] = {1, 2, 1};
            struct bench_call call = {.ranks = 3,
                                      .send = buffer,
                                      .recv = buffer,
                                      .count = 8,
                                      .dtype = (kolo_dtype)dtype,
                                      .op = op,
                                      .in_place = true};
            memset(buffer, 0, sizeof buffer);
            bench_rewrite_call(bench_collective_find("allreduce"), &call);
            memcpy(before, buffer, sizeof buffer);
            const void *sources[] = {buffer, buffer, buffer};
            struct kolo__reduction reduction = {(kolo_dtype)dtype, (kolo_op)op,
                                                op == KOLO_AVERAGE ? 3 : 1,
                                                op == KOLO_PREMUL_SUM ? scales : NULL};
            kolo__reduce(&reduction, buffer, sources, 3, 8);
            assert_memory_equal(buffer, before, sizeof buffer);
            assert_int_not_equal(before[0], 0);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expects_what_the_kernels_compute),
        cmocka_unit_test(a_missing_rank_is_seen),
        cmocka_unit_test(every_corrupted_element_is_counted),
        cmocka_unit_test(displaced_data_is_wrong),
        cmocka_unit_test(every_collective_is_checked),
        cmocka_unit_test(rewritten_floats_stay_as_they_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
