/* SPDX-License-Identifier: Apache-2.0 */
/* A buffer in pieces gets what a contiguous one would, bit by bit, and nothing else is touched. */
#include "fleet.h"

#include "base/random.h"
#include "kernels/kernels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static const kolo_op ops[] = {KOLO_SUM, KOLO_AVERAGE, KOLO_MIN, KOLO_PREMUL_SUM};
static const uint32_t sizes[] = {2, 3, 5};

static void open_and_drive(struct fleet *fleet, const struct fleet_options *options)
{
    char what[400];
    fleet_open(fleet, options);
    if (fleet_drive(fleet) != KOLO_OK)
        fail_msg("%s: stalled: %s", fleet_describe(options, what, sizeof(what)), fleet->text);
    fleet_check(fleet);
}

/* The same operations once in pieces and once not. */
static void run_both(const struct fleet_options *in_pieces)
{
    struct fleet pieces, contiguous;
    struct fleet_options options = *in_pieces;
    char what[400];
    open_and_drive(&pieces, &options);
    options.in_pieces = 0;
    open_and_drive(&contiguous, &options);
    for (uint32_t r = 0; r < options.problem.size; r++)
        if (memcmp(pieces.ranks[r].output, contiguous.ranks[r].output,
                   pieces.ranks[r].output_bytes) != 0)
            fail_msg("%s: rank %u has other bits than without pieces",
                     fleet_describe(in_pieces, what, sizeof(what)), r);
    fleet_close(&pieces);
    fleet_close(&contiguous);
}

static struct fleet_options draw(const char *algorithm, uint32_t size, uint64_t seed,
                                 kolo_dtype dtype, kolo_op op)
{
    struct fleet_options options;
    struct kolo__random random = {.state = seed};
    fleet_draw(kolo__algorithm_find(algorithm), KOLO__ALLREDUCE, size, seed, &options);
    options.dtype = dtype;
    options.op = op;
    options.rough = dtype == KOLO_FP32 && seed % 2 == 0;
    options.problem.in_place = true;
    options.problem.prescale = op == KOLO_PREMUL_SUM;
    options.in_pieces = 1 + (uint32_t)kolo__random_below(&random, (1u << size) - 1);
    return options;
}

static void run_dtypes(const char *algorithm, uint32_t size)
{
    static const size_t longest[] = {1, 3, 40, 5000};
    uint64_t seed = size;
    for (int dtype = 0; dtype < KOLO_DTYPE_COUNT; dtype++)
        for (size_t o = 0; o < sizeof(ops) / sizeof(ops[0]); o++)
            for (size_t l = 0; l < sizeof(longest) / sizeof(longest[0]); l++) {
                if (!kolo__reduction_defined((kolo_dtype)dtype, ops[o]))
                    continue;
                struct fleet_options options =
                    draw(algorithm, size, ++seed, (kolo_dtype)dtype, ops[o]);
                options.longest_piece = longest[l];
                if (l == 3)
                    options.problem.count = 4 * options.problem.window_count + seed % 50;
                run_both(&options);
            }
}

/* From pieces of one element to those that several windows end in; some ranks have none. */
static void test_any_pieces(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        run_dtypes("shm_direct", sizes[i]);
        run_dtypes("shm_one_shot", sizes[i]);
    }
}

/* Steps of several calls, in which short and long pieces take turns. */
static void test_steps_of_several_calls(void **state)
{
    (void)state;
    static const size_t longest[] = {100, 2000, 100000};
    for (size_t l = 0; l < sizeof(longest) / sizeof(longest[0]); l++)
        for (size_t o = 0; o < sizeof(ops) / sizeof(ops[0]); o++) {
            struct fleet_options options = draw("shm_direct", 3, l, KOLO_FP32, ops[o]);
            options.in_pieces = 7 - (uint32_t)o;
            options.longest_piece = longest[l];
            options.problem.window_count = 150000;
            options.problem.count = 2 * options.problem.window_count + 67501;
            options.repeat = 2;
            run_both(&options);
        }
}

/* A reduction that is all in one short piece, and ones that end exactly where pieces do. */
static void test_one_piece(void **state)
{
    (void)state;
    for (size_t count = 1; count < 20; count++) {
        struct fleet_options options = draw("shm_direct", 2, count, KOLO_INT32, KOLO_SUM);
        options.in_pieces = 3;
        options.longest_piece = 1000;
        options.problem.count = count;
        run_both(&options);
        options.longest_piece = 1;
        options.problem.window_count = 2;
        run_both(&options);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_piece),
        cmocka_unit_test(test_any_pieces),
        cmocka_unit_test(test_steps_of_several_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
