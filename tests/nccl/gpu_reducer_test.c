/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A reducer of gradients in a GPU's memory (runtime/reducer/gpu.c) beside one of the same gradients
 * on the host, in a world of two processes: with a stand-in for the driver that runs the kernels,
 * and collectives through the host. Then what is asked of streams, and with NCCL's stand-in what it
 * is given.
 */
#include "base/clock.h"
#include "kernels/device.h"
#include "models.h"
#include "runtime/call.h"

#include <setjmp.h>
#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Eighths of two ranks: sums and averages are exact, but for the last two. */
static void reduces(kolo_comm *world)
{
    model_same_as_host(world, (kolo_reducer_options){.sum = 1}, true, 0);
    model_same_as_host(world, (kolo_reducer_options){.fixed_order = 1}, true, 0);
    model_same_as_host(
        world, (kolo_reducer_options){.bucket_bytes = 5000, .first_bucket_bytes = 16}, true, 0);
    model_same_as_host(world, (kolo_reducer_options){.scale = 0.5, .no_overlap = 1}, true, 0);
    model_same_as_host(world, (kolo_reducer_options){.wire = KOLO_WIRE_FP16, .sum = 1}, true, 0);
    model_same_as_host(world, (kolo_reducer_options){.wire = KOLO_WIRE_BF16}, true, 1.0 / 64);
    model_same_as_host(world, (kolo_reducer_options){.statistics = 1, .bucket_bytes = 5000}, true,
                       0);
    model_same_as_host(world, (kolo_reducer_options){.clip_norm = 1}, true, 1e-6);
}

static void tells_of_infinity(kolo_comm *world)
{
    const kolo_reducer_options options = {.size = sizeof options, .clip_norm = 1};
    struct model model = model_make(world, &options, false);
    kolo_reducer_report report = {.size = sizeof report};
    for (int i = 0; i < TENSORS; i++) {
        model_fill(&model, i, i, true);
        if (i == 4 && world->rank == 1)
            ((float *)model.tensors[i].data)[MOST - 1] = INFINITY;
        CHECK(kolo_reducer_ready(model.reducer, (size_t)i) == KOLO_OK);
    }
    CHECK(kolo_reducer_wait(model.reducer, -1) == KOLO_OK);
    CHECK(kolo_reducer_get_report(model.reducer, &report) == KOLO_OK);
    CHECK(!report.finite && report.clip_factor == 1);
    model_end(&model);
}

/* ---- streams -------------------------------------------------------------------------------- */

/* Two buckets, the first one of two gradients: an event for each that is ready, on the user's
 * stream. Then, on the reducer's, which waits for them (a), packing and NCCL's work, which is not
 * in the trace, but the watch's events 3 and 4 behind it are; unpacking; and the user's (b) waits
 * for the end. */
static void is_in_order(kolo_comm *world)
{
    static char stream;
    const kolo_reducer_options options = {.size = sizeof options,
                                          .stream = &stream,
                                          .bucket_bytes = 8000,
                                          .first_bucket_bytes = 8000,
                                          .fixed_order = 1,
                                          .no_overlap = 1,
                                          .sum = 1};
    kolo_tensor tensors[3];
    kolo_reducer *reducer;
    char *trace = of_driver("standin_trace");
    for (int i = 0; i < 3; i++)
        tensors[i] = (kolo_tensor){.data = device_memory(1000), .count = 1000, .dtype = KOLO_FP32};
    CHECK(kolo_reducer_create(world, tensors, 3, &options, &reducer) == KOLO_OK);
    trace[0] = '\0';
    for (size_t i = 3; i-- > 0;)
        CHECK(kolo_reducer_ready(reducer, i) == KOLO_OK);
    CHECK(strcmp(trace, "Ra1 Ra1 Ra2") == 0);
    trace[0] = '\0';
    CHECK(kolo_reducer_wait(reducer, -1) == KOLO_OK);
    CHECK(strcmp(trace, "Wa1 Ka Wa2 Ka Ra3 Ra4 Ka Ka Ra5 Wb5") == 0);
    CHECK(((float *)tensors[1].data)[5] == RANKS * 6.0F);
    CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    CHECK(counted("standin_count_memory") == 0 && counted("standin_count_abort") == 0);
}

/* The host has sent everything, and waits for nothing. */
static void waits_for_no_gpu(kolo_comm *world)
{
    const kolo_reducer_options options = {.size = sizeof options, .statistics = 1};
    struct model model = model_make(world, &options, false);
    model_step(&model, 0, true, ~0U); /* makes plans, whose tables are waited for */
    atomic_store((atomic_int *)of_driver("standin_pending"), 1);
    for (int s = 1; s < STEPS; s++)
        model_step(&model, s, true, ~0U);
    atomic_store((atomic_int *)of_driver("standin_pending"), 0);
    model_end(&model);
}

/* ---- what is wrong -------------------------------------------------------------------------- */

static void refuses(kolo_comm *world)
{
    float *device = device_memory(8), host[8];
    static char stream;
    kolo_tensor tensors[] = {{.data = device, .count = 8, .dtype = KOLO_FP32},
                             {.data = host, .count = 8, .dtype = KOLO_FP32}};
    kolo_reducer_options options = {.size = sizeof options};
    kolo_reducer *reducer;
    CHECK(kolo_reducer_create(world, tensors, 2, NULL, &reducer) == KOLO_ERR_INVALID);
    CHECK(said("tensor 1 '(no name)' is in memory of the host, others are not") ||
          said("tensor 1 '' is in memory of the host, others are not"));
    options = (kolo_reducer_options){.size = sizeof options, .stream = &stream};
    CHECK(kolo_reducer_create(world, tensors + 1, 1, &options, &reducer) == KOLO_ERR_INVALID);
    CHECK(said("options->stream"));
    tensors[0].data = world->rank == 0 ? device : host;
    CHECK(kolo_reducer_create(world, tensors, 1, NULL, &reducer) == KOLO_ERR_MISMATCH);
    CHECK(said("a GPU's memory"));
    still_works(world);
}

/* On one rank, in a step: the others hear of it. */
static void gpu_fails(kolo_comm *world)
{
    const kolo_reducer_options options = {.size = sizeof options};
    struct model model = model_make(world, &options, false);
    model_step(&model, 1, true, ~0U);
    let_rank_1_go_on(world);
    if (world->rank == 1)
        atomic_store((atomic_int *)of_driver("standin_late"), 700);
    for (size_t i = 0; i < TENSORS; i++)
        CHECK(kolo_reducer_ready(model.reducer, i) == KOLO_OK);
    CHECK(kolo_reducer_wait(model.reducer, -1) == KOLO_ERR_DEVICE && said("STANDIN_ERROR_700"));
    kolo_reducer_free(model.reducer);
}

/* A pack that cannot be queued on one rank: NCCL would wait for it on the others. */
static void launch_fails(kolo_comm *world)
{
    const kolo_reducer_options options = {.size = sizeof options};
    struct model model = model_make(world, &options, false);
    kolo_status status = KOLO_OK;
    model_step(&model, 1, true, ~0U);
    let_rank_1_go_on(world);
    if (world->rank == 1)
        atomic_store((atomic_int *)of_driver("standin_no_launch"), 719);
    for (int s = 0; s < 1000 && status == KOLO_OK; s++) {
        for (size_t i = 0; i < TENSORS; i++)
            CHECK(kolo_reducer_ready(model.reducer, i) == KOLO_OK || s > 0);
        status = kolo_reducer_wait(model.reducer, -1);
        usleep(1000);
    }
    CHECK(status == KOLO_ERR_DEVICE && said("STANDIN_ERROR_719"));
    kolo_reducer_free(model.reducer);
}

/* Who asks for statistics waits for the GPU, and not for ever. */
static void report_waits(kolo_comm *world)
{
    const kolo_reducer_options options = {.size = sizeof options, .statistics = 1};
    struct model model = model_make(world, &options, false);
    kolo_reducer_report report = {.size = sizeof report};
    model_step(&model, 1, true, ~0U);
    atomic_store((atomic_int *)of_driver("standin_pending"), 1);
    model_step(&model, 2, true, ~0U);
    CHECK(kolo_reducer_get_report(model.reducer, &report) == KOLO_ERR_TIMEOUT);
    CHECK(said("the last step did not end on GPU 1 within 2 s"));
    atomic_store((atomic_int *)of_driver("standin_pending"), 0);
    CHECK(kolo_reducer_get_report(model.reducer, &report) == KOLO_OK);
    kolo_reducer_free(model.reducer);
}

/* A GPU that never ends a step: the reducer goes within KOLO_TIMEOUT, and gives back nothing that
 * the GPU may still use, for which the driver would wait without end. */
static void stuck_at_the_end(kolo_comm *world)
{
    const kolo_reducer_options options = {.size = sizeof options, .statistics = 1};
    struct model model = model_make(world, &options, false);
    atomic_int *endless = of_driver("standin_count_endless");
    model_step(&model, 1, true, ~0U);
    atomic_store((atomic_int *)of_driver("standin_pending"), 1);
    model_step(&model, 2, true, ~0U);
    uint64_t begin = kolo__now_ns(&kolo__real_clock);
    CHECK(kolo_reducer_free(model.reducer) == KOLO_OK);
    double seconds = (double)(kolo__now_ns(&kolo__real_clock) - begin) * 1e-9;
    CHECK(seconds >= 2 && seconds < 20);
    CHECK(atomic_load(endless) == 0);
}

/* Nor does the first step wait without end for its plans' tables. */
static void stuck_at_the_beginning(kolo_comm *world)
{
    const kolo_reducer_options options = {.size = sizeof options};
    struct model model = model_make(world, &options, false);
    atomic_store((atomic_int *)of_driver("standin_pending"), 1);
    for (size_t i = 0; i < TENSORS; i++)
        CHECK(kolo_reducer_ready(model.reducer, i) == KOLO_OK);
    CHECK(kolo_reducer_wait(model.reducer, -1) == KOLO_ERR_TIMEOUT);
    CHECK(said("copying a plan's tables to GPU 1 was not done within 5000 ms"));
    CHECK(kolo_reducer_free(model.reducer) == KOLO_OK);
    CHECK(atomic_load((atomic_int *)of_driver("standin_count_endless")) == 0);
}

/* A step is refused as a part of a CUDA graph, wherever that begins, and is there afterwards. */
static void is_no_part_of_a_graph(kolo_comm *world)
{
    const kolo_reducer_options options = {.size = sizeof options};
    struct model model = model_make(world, &options, false);
    atomic_int *capturing = of_driver("standin_capturing");
    model_step(&model, 1, true, ~0U);
    for (int i = 0; i < TENSORS; i++)
        model_fill(&model, i, 2, true);
    atomic_store(capturing, 1);
    CHECK(kolo_reducer_ready(model.reducer, 0) == KOLO_ERR_UNSUPPORTED);
    CHECK(said("kolo_reducer_ready: the stream is being captured into a CUDA graph"));
    atomic_store(capturing, 0);
    for (size_t i = 0; i < TENSORS; i++)
        CHECK(kolo_reducer_ready(model.reducer, i) == KOLO_OK);
    atomic_store(capturing, 1);
    CHECK(kolo_reducer_wait(model.reducer, -1) == KOLO_ERR_UNSUPPORTED);
    CHECK(said("kolo_reducer_wait: the stream is being captured into a CUDA graph"));
    atomic_store(capturing, 0);
    CHECK(kolo_reducer_wait(model.reducer, -1) == KOLO_OK);
    still_works(world);
    model_end(&model);
}

static void running(void (*body)(kolo_comm *world))
{
    use_driver("running");
    setenv("KOLO_NCCL", "off", 1);
    in_world("", "", body);
    unsetenv("KOLO_NCCL");
    use_driver("whole");
}

#define RUNNING_CASE(name)                                                                         \
    static void test_##name(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        running(name);                                                                             \
    }

RUNNING_CASE(reduces)
RUNNING_CASE(tells_of_infinity)
RUNNING_CASE(refuses)
RUNNING_CASE(gpu_fails)
WORLD_CASE(waits_for_no_gpu, "", "")
WORLD_CASE(launch_fails, "", "")
RUNNING_CASE(is_no_part_of_a_graph)

static void patiently(void (*body)(kolo_comm *world))
{
    setenv("KOLO_TIMEOUT", "2", 1);
    in_world("", "", body);
    unsetenv("KOLO_TIMEOUT");
}

static void test_report_waits(void **state)
{
    (void)state;
    patiently(report_waits);
}

static void test_stuck(void **state)
{
    (void)state;
    patiently(stuck_at_the_end);
    patiently(stuck_at_the_beginning);
}

static void test_is_in_order(void **state)
{
    (void)state;
    use_driver("running");
    in_world("", "", is_in_order);
    use_driver("whole");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reduces),      cmocka_unit_test(test_tells_of_infinity),
        cmocka_unit_test(test_is_in_order),  cmocka_unit_test(test_waits_for_no_gpu),
        cmocka_unit_test(test_refuses),      cmocka_unit_test(test_gpu_fails),
        cmocka_unit_test(test_launch_fails), cmocka_unit_test(test_report_waits),
        cmocka_unit_test(test_stuck),        cmocka_unit_test(test_is_no_part_of_a_graph),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
