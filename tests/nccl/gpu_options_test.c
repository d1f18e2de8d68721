/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What reducers may be asked for, of gradients in a GPU's memory beside the same on the host, in a
 * world of two processes: 8-bit wires, error feedback, tensors that some rank did not use, views,
 * shards. The driver's stand-in runs the kernels, and collectives go through the host, so the
 * numbers have to be the same: contributions of two ranks are halved exactly, and added in one
 * rounding.
 */
#include "models.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void narrows(kolo_comm *world)
{
    for (int wire = KOLO_WIRE_BF16; wire < KOLO_WIRE_COUNT; wire++)
        for (int feedback = 0; feedback < 2; feedback++)
            for (int sum = 0; sum < 2; sum++)
                model_same_as_host(world,
                                   (kolo_reducer_options){.wire = (kolo_wire)wire,
                                                          .error_feedback = feedback,
                                                          .sum = sum,
                                                          .scale = sum ? 0.75 : 0,
                                                          .statistics = feedback,
                                                          .bucket_bytes = sum ? 0 : 9000},
                                   false, 0);
}

static void clips(kolo_comm *world)
{
    model_same_as_host(
        world,
        (kolo_reducer_options){
            .wire = KOLO_WIRE_FP8_E4M3, .clip_norm = 1, .error_feedback = 1, .sum = 1},
        false, 1e-6);
    model_same_as_host(
        world, (kolo_reducer_options){.wire = KOLO_WIRE_FP16, .clip_norm = 1, .error_feedback = 1},
        false, 1e-6);
}

/* Gradients that grow and vanish: the scale goes along, and what feedback keeps with it. */
static void rescales(kolo_comm *world)
{
    static const float FACTORS[] = {1, 1e-9F, 1e6F, 0, 1e-30F, 3e30F, 1};
    const kolo_reducer_options options = {
        .size = sizeof options, .wire = KOLO_WIRE_FP8_E5M2, .error_feedback = 1};
    struct model model = model_make(world, &options, false);
    for (int s = 0; s < 7; s++) {
        for (int t = TENSORS - 1; t >= 0; t--) {
            model_fill(&model, t, 3 * s + t + kolo_comm_rank(world), false);
            for (int of_gpu = 0; of_gpu < 2 && t != 5; of_gpu++)
                for (size_t i = 0; i < model_counts[t]; i++)
                    ((float *)model_data(&model, t, of_gpu != 0))[i] *= FACTORS[s];
            CHECK(kolo_reducer_ready(model.reducer, (size_t)t) == KOLO_OK);
            CHECK(kolo_reducer_ready(model.of_host, (size_t)t) == KOLO_OK);
        }
        CHECK(kolo_reducer_wait(model.reducer, -1) == KOLO_OK);
        CHECK(kolo_reducer_wait(model.of_host, -1) == KOLO_OK);
        model_compare(&model, 0);
    }
    model_end(&model);
}

/* ---- unused --------------------------------------------------------------------------------- */

/* By step and rank: what each used. Tensor 4 is used by rank 0 alone, then by nobody, ... */
static const unsigned USED[4][RANKS] = {{0x7f, 0x6f}, {0x6e, 0x6f}, {0x02, 0x7f}, {0x7f, 0x7f}};

static void unused_with(kolo_comm *world, kolo_reducer_options options, bool views)
{
    options.size = sizeof options;
    options.allow_unused = 1;
    struct model model = model_make(world, &options, views);
    for (int s = 0; s < 4; s++) {
        model_step(&model, 10 * s + 5 * kolo_comm_rank(world), false,
                   USED[s][kolo_comm_rank(world)]);
        model_compare(&model, 0);
        for (size_t i = 0; i < TENSORS; i++)
            CHECK(kolo_reducer_used(model.reducer, i) == kolo_reducer_used(model.of_host, i));
    }
    model_end(&model);
}

static void leaves_out(kolo_comm *world)
{
    unused_with(world, (kolo_reducer_options){.statistics = 1}, false);
    unused_with(world, (kolo_reducer_options){.bucket_bytes = 9000, .sum = 1}, false);
    unused_with(world, (kolo_reducer_options){.wire = KOLO_WIRE_BF16, .error_feedback = 1}, false);
    unused_with(world, (kolo_reducer_options){.wire = KOLO_WIRE_FP8_E4M3, .error_feedback = 1},
                false);
    unused_with(world, (kolo_reducer_options){.sum = 1, .fixed_order = 1}, true);
    unused_with(
        world,
        (kolo_reducer_options){.wire = KOLO_WIRE_FP16, .error_feedback = 1, .fixed_order = 1},
        true);
}

/* ---- views and shards ----------------------------------------------------------------------- */

static void views_with(kolo_comm *world, kolo_reducer_options options, double tolerance)
{
    options.size = sizeof options;
    struct model model = model_make(world, &options, true);
    const void *before[TENSORS];
    int device;
    for (int i = 0; i < TENSORS; i++) {
        before[i] = kolo_reducer_view(model.reducer, (size_t)i);
        CHECK(model_counts[i] == 0 || kolo_memory_find(before[i], &device) == KOLO_MEMORY_DEVICE);
        CHECK((uintptr_t)before[i] % 64 == 0);
        if (model_counts[i] > 0)
            CHECK(model_element(&model.tensors[i], before[i], model_counts[i] - 1) == 0);
    }
    for (int s = 0; s < STEPS; s++) {
        model_step(&model, 10 * s + 5 * kolo_comm_rank(world), false, ~0U);
        model_compare(&model, tolerance);
        for (int i = 0; i < TENSORS; i++)
            CHECK(kolo_reducer_view(model.reducer, (size_t)i) == before[i]);
    }
    model_end(&model);
}

static void views(kolo_comm *world)
{
    views_with(world, (kolo_reducer_options){0}, 0);
    views_with(world, (kolo_reducer_options){.sum = 1}, 0);
    views_with(world, (kolo_reducer_options){.sum = 1, .scale = 0.5, .bucket_bytes = 5000}, 0);
    views_with(world, (kolo_reducer_options){.clip_norm = 1}, 1e-6);
    views_with(world, (kolo_reducer_options){.wire = KOLO_WIRE_BF16, .error_feedback = 1}, 0);
    views_with(world, (kolo_reducer_options){.wire = KOLO_WIRE_FP8_E4M3, .statistics = 1}, 0);
}

static void update(const kolo_reducer *reducer, float *state)
{
    kolo_reducer_shard piece;
    for (size_t k = 0; kolo_reducer_piece(reducer, k, &piece) == KOLO_OK; k++)
        for (size_t i = 0; i < piece.count && piece.dtype == KOLO_FP32; i++) {
            state[piece.state + i] += ((const float *)piece.gradients)[i];
            ((float *)piece.parameters)[i] -= state[piece.state + i] / 4;
        }
}

static void shards_with(kolo_comm *world, kolo_reducer_options options, double tolerance)
{
    options.size = sizeof options;
    options.sharded = 1;
    struct model model = model_make(world, &options, true);
    size_t count = kolo_reducer_state_count(model.reducer);
    CHECK(count > 0 && count == kolo_reducer_state_count(model.of_host));
    float *states[2] = {calloc(count, sizeof(float)), calloc(count, sizeof(float))};
    for (int s = 0; s < STEPS; s++) {
        kolo_reducer_report report = {.size = sizeof report}, of_host = {.size = sizeof of_host};
        model_step(&model, 10 * s + 5 * kolo_comm_rank(world), false, ~0U);
        CHECK(kolo_reducer_get_report(model.reducer, &report) == KOLO_OK);
        CHECK(kolo_reducer_get_report(model.of_host, &of_host) == KOLO_OK);
        CHECK(fabs(report.norm - of_host.norm) <= 1e-12 * of_host.norm);
        CHECK(fabs(report.clip_factor - of_host.clip_factor) <= 1e-12);
        update(model.reducer, states[0]);
        update(model.of_host, states[1]);
        CHECK(kolo_reducer_gather(model.reducer, -1) == KOLO_OK);
        CHECK(kolo_reducer_gather(model.of_host, -1) == KOLO_OK);
        for (int t = 0; t < TENSORS; t++) {
            size_t zeros = 0;
            for (size_t i = 0; i < model_counts[t]; i++) {
                double expected = model_element(
                    &model.tensors[t], kolo_reducer_parameters(model.of_host, (size_t)t), i);
                double found = model_element(&model.tensors[t],
                                             kolo_reducer_parameters(model.reducer, (size_t)t), i);
                CHECK(fabs(found - expected) <= tolerance);
                zeros += expected == 0;
            }
            CHECK(t == 5 || zeros <= model_counts[t] / 8); /* others' pieces have come */
        }
    }
    free(states[0]);
    free(states[1]);
    model_end(&model);
}

static void shards(kolo_comm *world)
{
    shards_with(world, (kolo_reducer_options){0}, 0);
    shards_with(world, (kolo_reducer_options){.statistics = 1, .bucket_bytes = 9000}, 0);
    shards_with(world, (kolo_reducer_options){.clip_norm = 1, .sum = 1}, 1e-6);
    shards_with(world, (kolo_reducer_options){.wire = KOLO_WIRE_FP16, .error_feedback = 1}, 0);
    shards_with(
        world,
        (kolo_reducer_options){.wire = KOLO_WIRE_FP8_E5M2, .error_feedback = 1, .clip_norm = 1},
        1e-6);
}

#define RUNNING_CASE(name)                                                                         \
    static void test_##name(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        in_world("", "", name);                                                                    \
    }

RUNNING_CASE(narrows)
RUNNING_CASE(clips)
RUNNING_CASE(rescales)
RUNNING_CASE(leaves_out)
RUNNING_CASE(views)
RUNNING_CASE(shards)

int main(void)
{
    use_driver("running");
    setenv("KOLO_NCCL", "off", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_narrows),  cmocka_unit_test(test_clips),
        cmocka_unit_test(test_rescales), cmocka_unit_test(test_leaves_out),
        cmocka_unit_test(test_views),    cmocka_unit_test(test_shards),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
