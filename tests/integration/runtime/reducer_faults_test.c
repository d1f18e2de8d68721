/* SPDX-License-Identifier: Apache-2.0 */
/* What reducers and kolo_broadcast_tensors say when something is wrong, and what they leave whole.
 */
#include "reducer_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

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
        cmocka_unit_test(test_different_tensors), cmocka_unit_test(test_wrong_calls),
        cmocka_unit_test(test_missing_gradient),  cmocka_unit_test(test_killed),
        cmocka_unit_test(test_aborted),           cmocka_unit_test(test_broadcast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
