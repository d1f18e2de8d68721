/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What else a reducer does: a silent steady state, unused tensors, accumulation, statistics and
 * clipping, sharding, several reducers and threads at a time, and what it says when something is
 * wrong.
 */
#include "world.h"

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

enum { TENSORS = 12, COUNT = 1500 };

static atomic_ulong allocations;

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(__clang__)
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);

void *malloc(size_t bytes)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_calloc(count, bytes);
}

void *realloc(void *memory, size_t bytes)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_realloc(memory, bytes);
}
#endif

static kolo_context *context;
static kolo_comm *comm;
static int rank, size;
static float data[TENSORS][COUNT];
static kolo_tensor tensors[TENSORS];

static int begin(void)
{
    CHECK(kolo_init(NULL, &context) == KOLO_OK);
    comm = kolo_world(context);
    rank = kolo_comm_rank(comm);
    size = kolo_comm_size(comm);
    for (int i = 0; i < TENSORS; i++)
        tensors[i] = (kolo_tensor){
            .data = data[i], .count = COUNT - (size_t)i, .dtype = KOLO_FP32, .name = "weight"};
    return 0;
}

static void fill_all(float value)
{
    for (int i = 0; i < TENSORS; i++)
        for (int k = 0; k < COUNT; k++)
            data[i][k] = value;
}

static int ready_all(kolo_reducer *reducer)
{
    for (size_t i = TENSORS; i-- > 0;)
        CHECK(kolo_reducer_ready(reducer, i) == KOLO_OK);
    return 0;
}

static kolo_reducer_report report_of(const kolo_reducer *reducer)
{
    kolo_reducer_report report = {.size = sizeof report};
    if (kolo_reducer_get_report(reducer, &report) != KOLO_OK)
        abort();
    return report;
}

static bool error_says(const char *text)
{
    if (strstr(kolo_error_text(), text) != NULL)
        return true;
    fprintf(stderr, "the error does not say '%s': %s\n", text, kolo_error_text());
    return false;
}

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
    unsigned long before = atomic_load(&allocations);
    uint64_t messages = kolo__control_sent(context->control);
    uint64_t sequence = reducer->report.collectives;
    for (int step = 0; step < 50; step++)
        CHECK(step_once(reducer) == 0);
    CHECK(atomic_load(&allocations) == before);
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
    world_run_over_both(3, NULL, steady_state);
    overlaps = true;
    world_run_over_both(2, NULL, steady_state);
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

/* ---- what goes wrong ----------------------------------------------------------------------------
 */

static int different_tensors(void)
{
    kolo_reducer *reducer;
    kolo_reducer_options options = {.size = sizeof options};
    static const char *const said[] = {"tensor 5 'weight': 3x499 fp32 on rank 0, 1495 elements",
                                       "12 tensors on rank 0, 11 on rank 2",
                                       "option clip_norm is 0 on rank 0, 1 on rank 2"};
    CHECK(begin() == 0);
    for (int difference = 0; difference < 3; difference++) {
        tensors[5].count = COUNT - 5;
        if (difference == 0 && rank != 2) {
            tensors[5].count = 1497;
            tensors[5].dimensions = 2;
            tensors[5].shape[0] = 3;
            tensors[5].shape[1] = 499;
        } else {
            tensors[5].dimensions = 0;
        }
        size_t count = TENSORS - (difference == 1 && rank == 2);
        options.clip_norm = difference == 2 && rank == 2;
        CHECK(kolo_reducer_create(comm, tensors, count, &options, &reducer) == KOLO_ERR_MISMATCH);
        CHECK(error_says(said[difference]));
        CHECK(reducer == NULL);
    }
    /* Nothing is broken. */
    tensors[5].count = COUNT - 5;
    options.clip_norm = 0;
    CHECK(kolo_reducer_create(comm, tensors, TENSORS, &options, &reducer) == KOLO_OK);
    CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_different_tensors(void **state)
{
    (void)state;
    world_run_over_both(3, NULL, different_tensors);
}

static int wrong_calls(void)
{
    kolo_reducer *reducer;
    kolo_reducer_options options = {.size = sizeof options, .wire = (kolo_wire)9};
    CHECK(begin() == 0);
    CHECK(kolo_reducer_create(comm, tensors, TENSORS, &options, &reducer) == KOLO_ERR_INVALID);
    options = (kolo_reducer_options){.size = 3};
    CHECK(kolo_reducer_create(comm, tensors, TENSORS, &options, &reducer) == KOLO_ERR_INVALID);
    options = (kolo_reducer_options){.size = sizeof options, .sharded = 1};
    CHECK(kolo_reducer_create(comm, tensors, TENSORS, &options, &reducer) == KOLO_ERR_INVALID);
    CHECK(error_says("has views"));
    tensors[3].data = NULL;
    CHECK(kolo_reducer_create(comm, tensors, TENSORS, NULL, &reducer) == KOLO_ERR_INVALID);
    CHECK(error_says("11 of 12 tensors have data"));
    tensors[3].data = data[3];
    CHECK(kolo_reducer_create(comm, tensors, 0, NULL, &reducer) == KOLO_ERR_INVALID);
    CHECK(kolo_reducer_create(NULL, tensors, 1, NULL, &reducer) == KOLO_ERR_INVALID);
    CHECK(kolo_reducer_create(comm, tensors, TENSORS, NULL, &reducer) == KOLO_OK);
    CHECK(kolo_reducer_ready(reducer, TENSORS) == KOLO_ERR_INVALID);
    CHECK(kolo_reducer_ready(NULL, 0) == KOLO_ERR_INVALID);
    CHECK(kolo_reducer_wait(NULL, 0) == KOLO_ERR_INVALID);
    CHECK(kolo_reducer_ready(reducer, 2) == KOLO_OK);
    CHECK(kolo_reducer_ready(reducer, 2) == KOLO_ERR_INVALID);
    CHECK(error_says("tensor 2 'weight' was ready in this step before"));
    kolo_reducer_shard piece;
    CHECK(kolo_reducer_piece(reducer, 0, &piece) == KOLO_ERR_INVALID);
    CHECK(kolo_reducer_view(reducer, TENSORS) == NULL);
    CHECK(kolo_reducer_free(NULL) == KOLO_OK);
    CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_wrong_calls(void **state)
{
    (void)state;
    world_run_over_both(1, NULL, wrong_calls);
}

/* A wait with a limit loses nothing; a gradient that never comes is named. */
static int missing_gradient(void)
{
    kolo_reducer *reducer;
    CHECK(begin() == 0);
    CHECK(kolo_reducer_create(comm, tensors, TENSORS, NULL, &reducer) == KOLO_OK);
    for (int step = 0; step < 3; step++) {
        fill_all((float)rank);
        for (size_t i = 1; i < TENSORS; i++)
            CHECK(kolo_reducer_ready(reducer, i) == KOLO_OK);
        CHECK(kolo_reducer_wait(reducer, 0) == KOLO_AGAIN);
        CHECK(kolo_reducer_wait(reducer, 20) == KOLO_AGAIN);
        if (step == 2 && rank == 1)
            break;
        CHECK(kolo_reducer_ready(reducer, 0) == KOLO_OK);
        if (step < 2)
            CHECK(kolo_reducer_wait(reducer, -1) == KOLO_OK);
    }
    /* Tensor 0 of rank 1 never comes. */
    CHECK(kolo_reducer_wait(reducer, -1) == KOLO_ERR_TIMEOUT);
    CHECK(error_says("rank 1"));
    CHECK(rank != 1 || error_says("first tensor 0 'weight'"));
    CHECK(kolo_reducer_wait(reducer, -1) == KOLO_ERR_TIMEOUT);
    CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    kolo_finalize(context);
    return 0;
}

static void test_missing_gradient(void **state)
{
    (void)state;
    world_run_over_both(2, "KOLO_TIMEOUT=2", missing_gradient);
}

/* The thread is under way with buckets when rank 2 dies. */
static int killed(void)
{
    kolo_reducer *reducer;
    kolo_reducer_options options = {.size = sizeof options, .bucket_bytes = 6000};
    CHECK(begin() == 0);
    CHECK(kolo_reducer_create(comm, tensors, TENSORS, &options, &reducer) == KOLO_OK);
    for (int step = 0;; step++) {
        kolo_status status = KOLO_OK;
        for (size_t i = TENSORS; i-- > 0;) {
            usleep(100);
            if (step == 5 && i == 4 && rank == 2)
                kill(getpid(), SIGKILL);
            CHECK(kolo_reducer_ready(reducer, i) == KOLO_OK);
        }
        status = kolo_reducer_wait(reducer, -1);
        if (status == KOLO_OK && step < 6)
            continue;
        CHECK(status == KOLO_ERR_PEER_LOST);
        CHECK(error_says("rank 2"));
        break;
    }
    CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_ERR_PEER_LOST);
    return 0;
}

static void test_killed(void **state)
{
    static const char *const shm[] = {"KOLO_TRANSPORT=shm", NULL};
    static const char *const tcp[] = {"KOLO_TRANSPORT=tcp", NULL};
    (void)state;
    for (int t = 0; t < 2; t++) {
        struct world_result result = world_run(3, t == 0 ? shm : tcp, killed);
        assert_true(WIFSIGNALED(result.status[2]));
        result.status[2] = 0;
        world_assert_all_passed(&result, 3);
    }
}

static int aborted(void)
{
    kolo_reducer *reducer;
    CHECK(begin() == 0);
    CHECK(kolo_reducer_create(comm, tensors, TENSORS, NULL, &reducer) == KOLO_OK);
    CHECK(ready_all(reducer) == 0);
    CHECK(kolo_reducer_wait(reducer, -1) == KOLO_OK);
    if (rank == 0) {
        CHECK(kolo_comm_abort(comm, "enough") == KOLO_OK);
    } else {
        CHECK(ready_all(reducer) == 0);
        CHECK(kolo_reducer_wait(reducer, -1) == KOLO_ERR_ABORTED);
        CHECK(error_says("enough"));
    }
    CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    kolo_finalize(context);
    return 0;
}

/* With a step under way, a reducer is freed once the world it was made in is broken. */
static int freed_after_abort(void)
{
    kolo_reducer *reducer;
    CHECK(begin() == 0);
    CHECK(kolo_reducer_create(comm, tensors, TENSORS, NULL, &reducer) == KOLO_OK);
    CHECK(ready_all(reducer) == 0);
    CHECK(kolo_reducer_wait(reducer, -1) == KOLO_OK);
    if (rank == 0) {
        CHECK(ready_all(reducer) == 0);
        CHECK(kolo_reducer_wait(reducer, 10) == KOLO_AGAIN);
        CHECK(kolo_reducer_free(reducer) == KOLO_ERR_INVALID);
        CHECK(error_says("a step is under way"));
        CHECK(kolo_comm_abort(comm, "enough") == KOLO_OK);
    }
    while (rank == 1 && kolo_barrier(comm) == KOLO_OK) {
    }
    CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    kolo_finalize(context);
    return 0;
}

static void test_aborted(void **state)
{
    (void)state;
    world_run_over_both(2, NULL, aborted);
    world_run_over_both(2, NULL, freed_after_abort);
}

/* ---- broadcast ----------------------------------------------------------------------------------
 */

static int broadcast(void)
{
    static float large[200000];
    static int8_t small[301];
    kolo_tensor list[TENSORS + 3];
    CHECK(begin() == 0);
    memcpy(list, tensors, sizeof tensors);
    list[TENSORS] = (kolo_tensor){.data = large, .count = 200000, .dtype = KOLO_FP32};
    list[TENSORS + 1] = (kolo_tensor){.data = small, .count = 301, .dtype = KOLO_INT8};
    list[TENSORS + 2] = (kolo_tensor){.data = NULL, .count = 0, .dtype = KOLO_INT64};
    for (int root = 0; root < size; root++) {
        fill_all((float)(rank * 3 + root));
        large[199999] = (float)(rank + 1);
        small[300] = (int8_t)(rank + 2);
        CHECK(kolo_broadcast_tensors(comm, list, TENSORS + 3, root) == KOLO_OK);
        for (int i = 0; i < TENSORS; i++)
            for (size_t k = 0; k < tensors[i].count; k++)
                CHECK(data[i][k] == (float)(root * 3 + root));
        CHECK(large[199999] == (float)(root + 1) && small[300] == root + 2);
    }
    list[1].count -= rank == 1;
    CHECK(kolo_broadcast_tensors(comm, list, TENSORS + 3, 0) == KOLO_ERR_MISMATCH);
    CHECK(error_says("kolo_broadcast_tensors") && error_says("tensor 1 'weight'"));
    CHECK(kolo_broadcast_tensors(comm, list, TENSORS + 3, size) == KOLO_ERR_INVALID);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_broadcast(void **state)
{
    (void)state;
    world_run_over_both(3, NULL, broadcast);
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
        cmocka_unit_test(test_different_tensors),
        cmocka_unit_test(test_wrong_calls),
        cmocka_unit_test(test_missing_gradient),
        cmocka_unit_test(test_killed),
        cmocka_unit_test(test_aborted),
        cmocka_unit_test(test_broadcast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
