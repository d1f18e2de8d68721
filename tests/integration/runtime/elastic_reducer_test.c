/* SPDX-License-Identifier: Apache-2.0 */
/* Reducers when the world is renewed: the interrupted step is repeated, and averages are those of
 * the ranks that are there. */
#include "elastic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TENSORS = 6, ELEMENTS = 9000 };

static float packed[TENSORS][ELEMENTS];
static kolo_tensor tensors[TENSORS];
static kolo_reducer_options options;
static bool views, comes;

static kolo_status create(kolo_reducer **reducer)
{
    for (int i = 0; i < TENSORS; i++)
        tensors[i] = (kolo_tensor){.data = views ? NULL : packed[i],
                                   .count = (size_t)(ELEMENTS - i),
                                   .dtype = KOLO_FP32,
                                   .name = i == 2 ? "two" : NULL,
                                   .dimensions = 1,
                                   .shape = {(size_t)(ELEMENTS - i)}};
    options.size = sizeof options;
    options.bucket_bytes = 64 * 1024;
    return kolo_reducer_create(comm, tensors, TENSORS, &options, reducer);
}

static float *gradient(const kolo_reducer *reducer, int tensor)
{
    return views ? kolo_reducer_view(reducer, (size_t)tensor) : packed[tensor];
}

/* Gradients of this rank, as backward would make them; slowly: with a thread that drives. */
static kolo_status step(kolo_reducer *reducer, bool slowly)
{
    for (int i = TENSORS - 1; i >= 0; i--) {
        float *data = gradient(reducer, i);
        for (int e = 0; e < ELEMENTS - i; e++)
            data[e] = (float)(rank + 1 + i);
        kolo_status status = kolo_reducer_ready(reducer, (size_t)i);
        if (status != KOLO_OK)
            return status;
        if (slowly)
            usleep(300);
    }
    return kolo_reducer_wait(reducer, -1);
}

static int step_is_right(kolo_reducer *reducer)
{
    CHECK(step(reducer, false) == KOLO_OK);
    for (int i = 0; i < TENSORS && !options.sharded; i++)
        for (int e = 0; e < ELEMENTS - i; e++)
            CHECK(gradient(reducer, i)[e] == (float)(size + 1) / 2 + (float)i);
    kolo_reducer_shard piece;
    for (size_t k = 0; options.sharded && kolo_reducer_piece(reducer, k, &piece) == KOLO_OK; k++)
        for (size_t e = 0; e < piece.count; e++)
            CHECK(((float *)piece.gradients)[e] == (float)(size + 1) / 2 + (float)piece.tensor);
    return 0;
}

static int parameters_are(const kolo_reducer *reducer, float value)
{
    for (int i = 0; i < TENSORS; i++) {
        const float *parameters = kolo_reducer_parameters(reducer, (size_t)i);
        for (int e = 0; e < ELEMENTS - i; e++)
            CHECK(parameters[e] == value + (float)i);
    }
    return 0;
}

static void set_parameters(kolo_reducer *reducer, float value)
{
    for (int i = 0; i < TENSORS; i++)
        for (int e = 0; e < ELEMENTS - i; e++)
            ((float *)kolo_reducer_parameters(reducer, (size_t)i))[e] = value + (float)i;
}

/* A kill in the middle of a step, with the progress thread at work. */
static int step_is_repeated(void)
{
    kolo_reducer *reducer, *other;
    CHECK(join() == 0);
    if (world_rank() == 3) { /* a newcomer */
        CHECK(create(&reducer) == KOLO_OK);
    } else {
        CHECK(create(&reducer) == KOLO_OK && create(&other) == KOLO_OK);
        CHECK(kolo_reducer_renew(&reducer, comm) == KOLO_ERR_INVALID);
        for (int i = 0; i < 4; i++)
            CHECK(step(reducer, true) == KOLO_OK);
        if (options.sharded)
            set_parameters(reducer, 7);
        if (rank == 1) {
            for (int i = TENSORS - 1; i > 2; i--)
                CHECK(kolo_reducer_ready(reducer, (size_t)i) == KOLO_OK);
            usleep(1000);
            die();
        }
        kolo_status status;
        while ((status = step(reducer, true)) == KOLO_OK) {
        }
        CHECK(status == KOLO_ERR_PEER_LOST && error_has("rank 1"));
        CHECK(renew() == 0);
        CHECK(kolo_reducer_wait(reducer, -1) == KOLO_ERR_PEER_LOST); /* dead */
        CHECK(step(other, false) != KOLO_OK);
        CHECK(kolo_reducer_free(other) == KOLO_OK);
        CHECK(kolo_reducer_renew(&reducer, comm) == KOLO_OK);
        CHECK(!options.sharded || parameters_are(reducer, 7) == 0);
        if (size == 2 && comes) { /* it was not there yet */
            CHECK(step_is_right(reducer) == 0);
            CHECK(work_until_wanted() == 0);
            CHECK(renew() == 0);
            CHECK(kolo_reducer_renew(&reducer, comm) == KOLO_OK);
        }
    }
    CHECK(size == (comes ? 3 : 2));
    for (int i = 0; i < 5; i++) {
        CHECK(step_is_right(reducer) == 0);
        CHECK(!options.sharded || kolo_reducer_gather(reducer, -1) == KOLO_OK);
    }
    CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void run(bool with_views, kolo_reducer_options with)
{
    views = with_views;
    options = with;
    for (int run = 0; run < 4; run++) {
        comes = run / 2 == 1;
        expect_on(elastic_ways[run % 2], 3, comes, (int[]){1, -1}, step_is_repeated);
    }
}

static void test_packed(void **state)
{
    (void)state;
    run(false, (kolo_reducer_options){.statistics = 1});
}

static void test_views(void **state)
{
    (void)state;
    run(true, (kolo_reducer_options){0});
}

static void test_sharded(void **state)
{
    (void)state;
    run(true, (kolo_reducer_options){.sharded = 1});
}

static void test_narrow(void **state)
{
    (void)state;
    run(false, (kolo_reducer_options){.wire = KOLO_WIRE_BF16, .error_feedback = 1});
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packed),
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_sharded),
        cmocka_unit_test(test_narrow),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
