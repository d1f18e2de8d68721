/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A GPU that fails in the middle, wherever that is: each thing that a rank asks of the driver's
 * stand-in, from the creation of a reducer to the end of a second step, fails once, and everything
 * after it. Both ranks get the driver's word for it, nobody waits for ever, everything that was
 * made is given back, and the communicator that the reducer was made with still works.
 */
#include "models.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { OUT_OF_MEMORY = 2, DEINITIALIZED = 4, LAUNCH_FAILED = 719, COUNT = 3000 };

static const struct kind {
    kolo_reducer_options options;
    bool views;
    unsigned used; /* of two tensors, by rank 1 */
} KINDS[] = {
    {{.clip_norm = 1, .bucket_bytes = 8000, .first_bucket_bytes = 8000}, false, 3},
    {{.wire = KOLO_WIRE_FP8_E4M3, .error_feedback = 1, .allow_unused = 1}, false, 1},
    {{.wire = KOLO_WIRE_BF16, .sharded = 1, .statistics = 1}, true, 3},
};

static atomic_int *of_standin_driver(const char *name)
{
    return of_driver(name);
}

static kolo_status step(kolo_comm *world, const struct kind *kind, kolo_reducer *reducer)
{
    kolo_status status = KOLO_OK;
    for (size_t i = 2; i-- > 0 && status == KOLO_OK;)
        if (kolo_comm_rank(world) == 0 || (kind->used >> i & 1) != 0)
            status = kolo_reducer_ready(reducer, i);
    if (status == KOLO_OK)
        status = kolo_reducer_wait(reducer, -1);
    if (status == KOLO_OK && kind->options.sharded)
        status = kolo_reducer_gather(reducer, -1);
    kolo_reducer_report report = {.size = sizeof report};
    return status == KOLO_OK ? kolo_reducer_get_report(reducer, &report) : status;
}

/* A reducer and two steps, while rank 1's GPU fails at the n-th thing that it is asked. True: there
 * was an n-th. */
static bool fails_at(kolo_comm *world, const struct kind *kind, kolo_tensor tensors[2], int n,
                     int error)
{
    bool fails = kolo_comm_rank(world) == 1;
    kolo_reducer_options options = kind->options;
    kolo_reducer *reducer = NULL;
    char name[40];
    int live = *of_standin_driver("standin_live");
    options.size = sizeof options;
    options.stream = &model_stream;
    snprintf(name, sizeof name, "STANDIN_ERROR_%d", error);
    *of_standin_driver("standin_fail_error") = error;
    *of_standin_driver("standin_fail_in") = fails ? n : 0;
    kolo_status status = kolo_reducer_create(world, tensors, 2, &options, &reducer);
    for (int s = 0; s < 2 && status == KOLO_OK; s++)
        status = step(world, kind, reducer);
    *of_standin_driver("standin_fail_in") = 0;
    CHECK(status == KOLO_OK || said(name));
    int failed = status != KOLO_OK, any;
    CHECK(kolo_allreduce(world, &failed, &any, 1, KOLO_INT32, KOLO_MAX, NULL) == KOLO_OK);
    if (any && !failed) { /* it was the last that rank 1 did: the next call tells */
        CHECK(!fails);
        status = step(world, kind, reducer);
        CHECK(status == (error == OUT_OF_MEMORY ? KOLO_ERR_MEMORY : KOLO_ERR_DEVICE));
        CHECK(said(name));
    }
    CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    if (*of_standin_driver("standin_live") != live)
        fprintf(stderr, "rank %d, error %d at %d: %d more live\n", kolo_comm_rank(world), error, n,
                *of_standin_driver("standin_live") - live);
    CHECK(*of_standin_driver("standin_live") == live);
    still_works(world);
    return any != 0;
}

/* At every place, or at every stride-th. */
static void sweep(kolo_comm *world, const struct kind *kind, int error, int stride)
{
    kolo_tensor tensors[2] = {{.count = COUNT, .dtype = KOLO_FP32},
                              {.count = COUNT, .dtype = KOLO_FP32}};
    float *memory = device_memory(2 * COUNT);
    for (int i = 0; i < 2 && !kind->views; i++)
        tensors[i].data = memory + i * COUNT;
    int n = 1;
    for (alarm(60); fails_at(world, kind, tensors, n, error); alarm(60))
        n += stride;
    CHECK(n > (error == OUT_OF_MEMORY ? 4 : 20));
    release(memory);
}

static void launches_fail(kolo_comm *world)
{
    sweep(world, &KINDS[0], LAUNCH_FAILED, 1);
    sweep(world, &KINDS[1], LAUNCH_FAILED, 1);
    sweep(world, &KINDS[2], LAUNCH_FAILED, 1);
}

static void driver_goes(kolo_comm *world)
{
    sweep(world, &KINDS[0], DEINITIALIZED, 3);
    sweep(world, &KINDS[1], DEINITIALIZED, 3);
}

static void memory_is_short(kolo_comm *world)
{
    for (int kind = 0; kind < 3; kind++)
        sweep(world, &KINDS[kind], OUT_OF_MEMORY, 1);
}

/* What the texts say is to be done. */
static void has_remedies(kolo_comm *world)
{
    static const struct {
        int error;
        const char *words;
    } REMEDIES[] = {{LAUNCH_FAILED, "start it again, under compute-sanitizer"},
                    {DEINITIALIZED, "has lost the GPU or its driver"},
                    {OUT_OF_MEMORY, "nvidia-smi shows who has"}};
    float *memory = device_memory(8);
    kolo_reducer *reducer;
    const kolo_tensor tensor = {.data = memory, .count = 8, .dtype = KOLO_FP32};
    for (int i = 0; i < 3; i++) {
        *of_standin_driver("standin_fail_error") = REMEDIES[i].error;
        *of_standin_driver("standin_fail_in") = kolo_comm_rank(world) == 1;
        const kolo_reducer_options options = {.size = sizeof options, .statistics = 1};
        kolo_status status = kolo_reducer_create(world, &tensor, 1, &options, &reducer);
        if (status == KOLO_OK)
            status = kolo_reducer_ready(reducer, 0);
        if (status == KOLO_OK)
            status = kolo_reducer_wait(reducer, -1);
        *of_standin_driver("standin_fail_in") = 0;
        CHECK(status != KOLO_OK && said(REMEDIES[i].words));
        CHECK(kolo_reducer_free(reducer) == KOLO_OK);
        still_works(world);
    }
}

WORLD_CASE(launches_fail, "", "")
WORLD_CASE(driver_goes, "", "")
WORLD_CASE(memory_is_short, "", "")
WORLD_CASE(has_remedies, "", "")

int main(void)
{
    use_driver("running");
    setenv("KOLO_NCCL", "off", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_launches_fail),
        cmocka_unit_test(test_driver_goes),
        cmocka_unit_test(test_memory_is_short),
        cmocka_unit_test(test_has_remedies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
