/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What else a reducer does: a silent steady state, unused tensors, accumulation, statistics and
 * clipping, sharding, several reducers and threads at a time.
 */
#include "allocations.h"
#include "reducer_case.h"

#include "runtime/comm.h"
#include "runtime/reducer/reducer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- the steady state ---------------------------------------------------------------------------
 */

static bool overlaps;

static int step_once(kolo_reducer *reducer)
{
    fill_all((float)rank);
    CHECK(kolo_reducer_ready(reducer, TENSORS - 1) == KOLO_OK);
    if (overlaps)
        usleep(1000);
    for (size_t i = TENSORS - 1; i-- > 0;)
        CHECK(kolo_reducer_ready(reducer, i) == KOLO_OK);
    CHECK(kolo_reducer_wait(reducer, -1) == KOLO_OK);
    CHECK(data[3][5] == (float)(size - 1) / 2);
    return 0;
}

static int steady_state(void)
{
    kolo_reducer *reducer;
    kolo_reducer_options options = {
        .size = sizeof options, .bucket_bytes = 9000, .no_overlap = !overlaps};
    CHECK(begin() == 0);
    CHECK(kolo_reducer_create(comm, tensors, TENSORS, &options, &reducer) == KOLO_OK);
    for (int step = 0; step < 6; step++)
        CHECK(step_once(reducer) == 0);
    CHECK(!overlaps == (reducer->thread == NULL));
    CHECK(kolo_barrier(comm) == KOLO_OK);
    unsigned long before = allocations_so_far();
    uint64_t messages = kolo__control_sent(context->control);
    uint64_t sequence = reducer->report.collectives;
    for (int step = 0; step < 50; step++)
        CHECK(step_once(reducer) == 0);
    CHECK(allocations_so_far() == before);
    CHECK(kolo__control_sent(context->control) == messages);
    /* One collective a bucket, and not one more. */
    CHECK(report_of(reducer).collectives == reducer->unit_count && sequence == reducer->unit_count);
    CHECK(report_of(reducer).buckets == reducer->unit_count && reducer->unit_count > 5);
    CHECK(report_of(reducer).step == 56);
    CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_steady_state(void **state)
{
    (void)state;
    overlaps = false;
    world_run_over_both(3, "KOLO_PEER_TIMEOUT=0", steady_state); /* no signs of life between */
    overlaps = true;
    world_run_over_both(2, "KOLO_PEER_TIMEOUT=0", steady_state);
}

/* ---- unused tensors -----------------------------------------------------------------------------
 */

static int unused(void)
{
    for (int views = 0; views < 2; views++) {
        kolo_reducer *reducer;
        kolo_reducer_options options = {
            .size = sizeof options, .bucket_bytes = 9000, .allow_unused = 1, .sum = 1};
        CHECK(views == 1 || begin() == 0);
        for (int i = 0; i < TENSORS && views; i++)
            tensors[i].data = NULL;
        CHECK(kolo_reducer_create(comm, tensors, TENSORS, &options, &reducer) == KOLO_OK);
        for (int step = 0; step < 6; step++) {
            for (int i = 0; i < TENSORS; i++) {
                float *gradient = views ? kolo_reducer_view(reducer, (size_t)i) : data[i];
                for (size_t k = 0; k < tensors[i].count; k++)
                    gradient[k] = 7;
            }
            /* Tensor 4: nobody. Tensor 7: rank 1 alone. The others: all. */
            for (size_t i = 0; i < TENSORS; i++)
                if (i != 4 && (i != 7 || rank == 1))
                    CHECK(kolo_reducer_ready(reducer, i) == KOLO_OK);
            CHECK(kolo_reducer_wait(reducer, -1) == KOLO_OK);
            for (size_t i = 0; i < TENSORS; i++) {
                float *gradient = views ? kolo_reducer_view(reducer, i) : data[i];
                float want = i == 7 ? 7 : i == 4 ? (views ? 0 : 7) : 7 * (float)size;
                for (size_t k = 0; k < tensors[i].count; k++)
                    CHECK(gradient[k] == want);
                CHECK(kolo_reducer_used(reducer, i) == (i != 4));
            }
        }
        CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    }
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_unused(void **state)
{
    (void)state;
    world_run_over_both(3, NULL, unused);
}

/* ---- accumulation -------------------------------------------------------------------------------
 */

static int accumulate(void)
{
    kolo_reducer *reducer;
    CHECK(begin() == 0);
    CHECK(kolo_reducer_create(comm, tensors, TENSORS, NULL, &reducer) == KOLO_OK);
    for (int step = 0; step < 4; step++) {
        fill_all(0);
        for (int part = 0; part < 3; part++) {
            CHECK(kolo_reducer_accumulate(reducer, part < 2) == KOLO_OK);
            for (int i = 0; i < TENSORS; i++)
                for (int k = 0; k < COUNT; k++)
                    data[i][k] += (float)(rank + part);
            CHECK(ready_all(reducer) == 0);
            CHECK(kolo_reducer_wait(reducer, -1) == KOLO_OK);
            CHECK(part == 2 || data[2][2] == (float)(part == 0 ? rank : 2 * rank + 1));
        }
        CHECK(data[2][2] == 3 * (float)(size - 1) / 2 + 3);
    }
    CHECK(kolo_reducer_ready(reducer, 0) == KOLO_OK);
    CHECK(kolo_reducer_accumulate(reducer, 1) == KOLO_ERR_INVALID);
    CHECK(error_says("1 gradients are ready"));
    for (size_t i = 1; i < TENSORS; i++)
        CHECK(kolo_reducer_ready(reducer, i) == KOLO_OK);
    CHECK(kolo_reducer_wait(reducer, -1) == KOLO_OK);
    CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_accumulate(void **state)
{
    (void)state;
    world_run_over_both(2, NULL, accumulate);
}

/* ---- statistics ---------------------------------------------------------------------------------
 */

static int statistics_of(kolo_wire wire, bool sharded)
{
    kolo_reducer *reducer;
    kolo_reducer_options options = {.size = sizeof options,
                                    .bucket_bytes = 9000,
                                    .clip_norm = 2,
                                    .wire = wire,
                                    .sharded = sharded};
    for (int i = 0; i < TENSORS; i++)
        tensors[i].data = sharded ? NULL : data[i];
    CHECK(kolo_reducer_create(comm, tensors, TENSORS, &options, &reducer) == KOLO_OK);
    for (int step = 0; step < 3; step++) {
        size_t elements = 0;
        for (size_t i = 0; i < TENSORS; i++) {
            float *gradient = sharded ? kolo_reducer_view(reducer, i) : data[i];
            for (size_t k = 0; k < tensors[i].count; k++)
                gradient[k] = (float)(rank * 2 + 1);
            elements += tensors[i].count;
        }
        bool bad = step == 1;
        if (bad && rank == size - 1)
            ((float *)(sharded ? kolo_reducer_view(reducer, 3) : data[3]))[77] = NAN;
        CHECK(ready_all(reducer) == 0);
        CHECK(kolo_reducer_wait(reducer, -1) == KOLO_OK);
        kolo_reducer_report report = report_of(reducer);
        CHECK(report.finite == !bad);
        if (bad) {
            CHECK(report.clip_factor == 1);
            continue;
        }
        double mean = size, norm = mean * sqrt((double)elements);
        CHECK(fabs(report.norm - norm) < 1e-9 * norm);
        CHECK(fabs(report.clip_factor - 2 / norm) < 1e-9);
        float want = (float)mean * (float)(2 / norm);
        if (!sharded)
            CHECK(fabsf(data[5][9] - want) <= fabsf(want) * 1e-6f);
        kolo_reducer_shard piece;
        for (size_t n = 0; sharded && kolo_reducer_piece(reducer, n, &piece) == KOLO_OK; n++)
            for (size_t k = 0; k < piece.count; k++)
                CHECK(fabsf(((float *)piece.gradients)[k] - want) <= fabsf(want) * 1e-6f);
        /* The same bits on all ranks. */
        uint64_t bits[2];
        memcpy(&bits[0], &report.norm, 8);
        bits[1] = ~bits[0];
        CHECK(kolo_allreduce(comm, bits, bits, 2, KOLO_UINT64, KOLO_MIN, NULL) == KOLO_OK);
        CHECK(bits[0] == ~bits[1]);
    }
    CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    return 0;
}

static int statistics(void)
{
    CHECK(begin() == 0);
    for (kolo_wire wire = KOLO_WIRE_SAME; wire < KOLO_WIRE_COUNT; wire++) {
        CHECK(statistics_of(wire, false) == 0);
        CHECK(statistics_of(wire, true) == 0);
    }
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_statistics(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= 3; ranks++)
        world_run_over_both(ranks, NULL, statistics);
}

/* ---- sharding -----------------------------------------------------------------------------------
 */

/* Plain momentum on own pieces: parameters come out as if every rank had done all of it. */
static int sharded(void)
{
    kolo_reducer *reducer;
    kolo_reducer_options options = {.size = sizeof options, .bucket_bytes = 9000, .sharded = 1};
    static float all_parameters[TENSORS][COUNT], all_momentum[TENSORS][COUNT];
    CHECK(begin() == 0);
    for (int i = 0; i < TENSORS; i++)
        tensors[i].data = NULL;
    CHECK(kolo_reducer_create(comm, tensors, TENSORS, &options, &reducer) == KOLO_OK);
    size_t states = kolo_reducer_state_count(reducer), covered = 0, total = 0;
    float *momentum = calloc(states, sizeof *momentum);
    kolo_reducer_shard piece;
    for (size_t n = 0; kolo_reducer_piece(reducer, n, &piece) == KOLO_OK; n++) {
        CHECK(piece.state + piece.count <= states);
        covered += piece.count;
    }
    for (size_t i = 0; i < TENSORS; i++) {
        total += tensors[i].count;
        float *parameters = kolo_reducer_parameters(reducer, i);
        for (size_t k = 0; k < tensors[i].count; k++)
            parameters[k] = all_parameters[i][k] = (float)(i + k);
    }
    CHECK(states <= total / (size_t)size + 40 * TENSORS);
    uint64_t sum = covered;
    CHECK(kolo_allreduce(comm, &sum, &sum, 1, KOLO_UINT64, KOLO_SUM, NULL) == KOLO_OK);
    CHECK(sum == total); /* every element has one owner */
    for (int step = 0; step < 4; step++) {
        for (size_t i = 0; i < TENSORS; i++) {
            float *gradient = kolo_reducer_view(reducer, i);
            for (size_t k = 0; k < tensors[i].count; k++) {
                gradient[k] = (float)((k + (size_t)step) % 5 + (size_t)rank * 2);
                float mean = (float)((k + (size_t)step) % 5) + (float)(size - 1);
                all_momentum[i][k] = 0.5f * all_momentum[i][k] + mean;
                all_parameters[i][k] -= 0.25f * all_momentum[i][k];
            }
        }
        CHECK(ready_all(reducer) == 0);
        CHECK(kolo_reducer_wait(reducer, -1) == KOLO_OK);
        for (size_t n = 0; kolo_reducer_piece(reducer, n, &piece) == KOLO_OK; n++)
            for (size_t k = 0; k < piece.count; k++) {
                float *m = &momentum[piece.state + k];
                *m = 0.5f * *m + ((float *)piece.gradients)[k];
                ((float *)piece.parameters)[k] -= 0.25f * *m;
            }
        CHECK(kolo_reducer_gather(reducer, -1) == KOLO_OK);
        for (size_t i = 0; i < TENSORS; i++) {
            const float *parameters = kolo_reducer_parameters(reducer, i);
            for (size_t k = 0; k < tensors[i].count; k++)
                CHECK(parameters[k] == all_parameters[i][k]);
        }
    }
    free(momentum);
    CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_sharded(void **state)
{
    (void)state;
    for (int ranks = 1; ranks <= 4; ranks++)
        world_run_over_both(ranks, NULL, sharded);
}

/* ---- ends of the range --------------------------------------------------------------------------
 */

/* Gradients near the least that fp32 has do not become infinite on an 8-bit wire. */
static int tiny_gradients(void)
{
    static const float magnitudes[] = {1e-20F, 1e-34F, 1e-38F, 1e-42F};
    CHECK(begin() == 0);
    for (kolo_wire wire = KOLO_WIRE_FP8_E4M3; wire <= KOLO_WIRE_FP8_E5M2; wire++) {
        kolo_reducer *reducer;
        kolo_reducer_options options = {.size = sizeof options, .wire = wire, .statistics = 1};
        CHECK(kolo_reducer_create(comm, tensors, TENSORS, &options, &reducer) == KOLO_OK);
        for (int i = 0; i < 4; i++) {
            fill_all(magnitudes[i]);
            CHECK(ready_all(reducer) == 0);
            CHECK(kolo_reducer_wait(reducer, -1) == KOLO_OK);
            CHECK(report_of(reducer).finite);
            CHECK(data[2][2] >= 0 && data[2][2] <= magnitudes[i] * 1.1F);
            CHECK(i > 0 || data[2][2] >= magnitudes[i] * 0.9F);
        }
        CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    }
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

/* Squares that fp64 cannot hold clip nothing away. */
static int huge_gradients(void)
{
    double huge[10];
    kolo_reducer *reducer;
    kolo_reducer_options options = {.size = sizeof options, .clip_norm = 1};
    kolo_tensor tensor = {.data = huge, .count = 10, .dtype = KOLO_FP64};
    CHECK(begin() == 0);
    for (int i = 0; i < 10; i++)
        huge[i] = 1e200;
    CHECK(kolo_reducer_create(comm, &tensor, 1, &options, &reducer) == KOLO_OK);
    CHECK(kolo_reducer_ready(reducer, 0) == KOLO_OK);
    CHECK(kolo_reducer_wait(reducer, -1) == KOLO_OK);
    CHECK(huge[3] == 1e200 && report_of(reducer).clip_factor == 1);
    CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    options = (kolo_reducer_options){.size = sizeof options, .scale = 1e40};
    CHECK(kolo_reducer_create(comm, &tensor, 1, &options, &reducer) == KOLO_ERR_INVALID);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_ends_of_the_range(void **state)
{
    (void)state;
    world_run_over_both(2, NULL, tiny_gradients);
    world_run_over_both(2, NULL, huge_gradients);
}

/* ---- a limit in the first step, too
 * --------------------------------------------------------------- */

static int late_first_step(void)
{
    kolo_reducer *reducer;
    kolo_status status;
    int again = 0;
    CHECK(begin() == 0);
    CHECK(kolo_reducer_create(comm, tensors, TENSORS, NULL, &reducer) == KOLO_OK);
    if (rank == 0)
        usleep(3500000); /* longer than KOLO_TIMEOUT */
    fill_all((float)rank);
    CHECK(ready_all(reducer) == 0);
    while ((status = kolo_reducer_wait(reducer, 50)) == KOLO_AGAIN)
        again++;
    CHECK(status == KOLO_OK);
    CHECK(rank == 0 || again > 10);
    CHECK(data[1][1] == 0.5F);
    CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_late_first_step(void **state)
{
    (void)state;
    world_run_over_both(2, "KOLO_TIMEOUT=2", late_first_step);
}

/* ---- who may not join
 * ----------------------------------------------------------------------------- */

static int join_refused(void)
{
    kolo_reducer *reducer;
    kolo_reducer_options options = {.size = sizeof options, .wire = KOLO_WIRE_FP8_E4M3};
    CHECK(begin() == 0);
    CHECK(kolo_reducer_create(comm, tensors, TENSORS, &options, &reducer) == KOLO_OK);
    CHECK(kolo_join(comm, NULL) == KOLO_ERR_UNSUPPORTED);
    CHECK(error_says("8-bit wire"));
    CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    for (int i = 0; i < TENSORS; i++)
        tensors[i].data = NULL;
    options = (kolo_reducer_options){.size = sizeof options, .sharded = 1};
    CHECK(kolo_reducer_create(comm, tensors, TENSORS, &options, &reducer) == KOLO_OK);
    CHECK(kolo_join(comm, NULL) == KOLO_ERR_UNSUPPORTED);
    CHECK(error_says("sharded"));
    CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    CHECK(kolo_join(comm, NULL) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_join_refused(void **state)
{
    (void)state;
    world_run_over_both(2, NULL, join_refused);
}

/* ---- several at a time --------------------------------------------------------------------------
 */

enum { REDUCERS = 3, HELPERS = 2 };

struct share {
    kolo_reducer *reducer;
    size_t first, step;
    bool failed;
    pthread_t thread;
};

static void *make_ready(void *argument)
{
    struct share *share = argument;
    for (size_t i = share->first; i < TENSORS; i += HELPERS) {
        usleep(100);
        share->failed |= kolo_reducer_ready(share->reducer, i) != KOLO_OK;
    }
    return NULL;
}

/* Gradients of each reducer come from two threads, and reducers finish in another order on each
 * rank's main thread than they began. */
static int several(void)
{
    static float own[REDUCERS][TENSORS][COUNT];
    kolo_reducer *reducers[REDUCERS];
    struct share shares[REDUCERS][HELPERS];
    kolo_reducer_options options = {.size = sizeof options, .bucket_bytes = 9000, .sum = 1};
    CHECK(begin() == 0);
    for (int r = 0; r < REDUCERS; r++) {
        for (int i = 0; i < TENSORS; i++)
            tensors[i].data = own[r][i];
        CHECK(kolo_reducer_create(comm, tensors, TENSORS, &options, &reducers[r]) == KOLO_OK);
    }
    for (int step = 0; step < 8; step++) {
        for (int r = 0; r < REDUCERS; r++)
            for (int i = 0; i < TENSORS; i++)
                for (int k = 0; k < COUNT; k++)
                    own[r][i][k] = (float)(r + step + rank);
        for (int r = 0; r < REDUCERS; r++)
            for (size_t h = 0; h < HELPERS; h++) {
                shares[r][h] = (struct share){.reducer = reducers[r], .first = h};
                CHECK(pthread_create(&shares[r][h].thread, NULL, make_ready, &shares[r][h]) == 0);
            }
        for (int r = REDUCERS - 1; r >= 0; r--)
            CHECK(kolo_reducer_wait(reducers[r], -1) == KOLO_OK);
        for (int r = 0; r < REDUCERS; r++)
            for (int h = 0; h < HELPERS; h++) {
                pthread_join(shares[r][h].thread, NULL);
                CHECK(!shares[r][h].failed);
            }
        float want = (float)size * ((float)(size - 1) / 2 + (float)step);
        for (int r = 0; r < REDUCERS; r++)
            for (int i = 0; i < TENSORS; i++)
                CHECK(own[r][i][17] == want + (float)(size * r));
    }
    for (int r = 0; r < REDUCERS; r++)
        CHECK(kolo_reducer_free(reducers[r]) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_several(void **state)
{
    (void)state;
    world_run_over_both(2, NULL, several);
    world_run_over_both(3, NULL, several);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ends_of_the_range),
        cmocka_unit_test(test_late_first_step),
        cmocka_unit_test(test_join_refused),
        cmocka_unit_test(test_steady_state),
        cmocka_unit_test(test_unused),
        cmocka_unit_test(test_accumulate),
        cmocka_unit_test(test_statistics),
        cmocka_unit_test(test_sharded),
        cmocka_unit_test(test_several),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
