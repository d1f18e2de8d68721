/* SPDX-License-Identifier: Apache-2.0 */
/* What reducers and kolo_broadcast_tensors say when something is wrong, and what they leave whole.
 */
#include "reducer_case.h"

#include "runtime/reducer/reducer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
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

/* Only rank 1 can know that it is wrong: the others learn what it found, at once. */
static int one_rank_is_wrong(void)
{
    kolo_reducer *reducer;
    kolo_reducer_options wrong = {.size = sizeof wrong, .wire = (kolo_wire)9};
    static const char *const said[] = {"options->wire is no kolo_wire", "tensors is NULL",
                                       "tensor 4 'weight': 77 is no dtype", "there are no tensors",
                                       "reducer is NULL"};
    enum { WIRE, LIST, DTYPE, EMPTY, RESULT, WRONG };
    CHECK(begin() == 0);
    for (int what = 0; what < WRONG; what++) {
        bool here = rank == 1;
        tensors[4].dtype = here && what == DTYPE ? (kolo_dtype)77 : KOLO_FP32;
        CHECK(kolo_reducer_create(comm, here && what == LIST ? NULL : tensors,
                                  here && what == EMPTY ? 0 : TENSORS,
                                  here && what == WIRE ? &wrong : NULL,
                                  here && what == RESULT ? NULL : &reducer) == KOLO_ERR_INVALID);
        CHECK(error_says("kolo_reducer_create: ") && error_says(said[what]));
        CHECK((strstr(kolo_error_text(), "rank 1 reported: ") != NULL) == !here);
        CHECK((here && what == RESULT) || reducer == NULL);
    }
    tensors[4].dtype = KOLO_FP32;
    tensors[2].data = rank == 1 ? NULL : data[2];
    CHECK(kolo_broadcast_tensors(comm, tensors, TENSORS, 0) == KOLO_ERR_INVALID);
    CHECK(error_says("kolo_broadcast_tensors: tensor 2 'weight' has no data"));
    tensors[2].data = data[2];
    CHECK(kolo_broadcast_tensors(comm, tensors, TENSORS, rank == 2 ? 3 : 0) == KOLO_ERR_INVALID);
    CHECK(error_says("root 3 is not a rank of 3"));
    CHECK(rank == 2 || error_says("rank 2 reported: "));
    /* Nothing is broken. */
    CHECK(kolo_reducer_create(comm, tensors, TENSORS, NULL, &reducer) == KOLO_OK);
    CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_one_rank_is_wrong(void **state)
{
    (void)state;
    world_run_over_both(3, NULL, one_rank_is_wrong);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(__clang__)
static const bool limits_of_memory_work = false; /* sanitizers reserve terabytes */
#else
static const bool limits_of_memory_work = true;
#endif

/* So much more address space than there is now: enough for connections, which are made meanwhile.
 */
static int leave_memory(size_t bytes)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    CHECK(file != NULL && fscanf(file, "%lu", &pages) == 1);
    fclose(file);
    bytes += pages * (size_t)sysconf(_SC_PAGESIZE);
    CHECK(setrlimit(RLIMIT_AS, &(struct rlimit){bytes, bytes}) == 0);
    return 0;
}

/* Rank 1 has no memory for what all agreed on: the others learn it when they need that rank. */
static int one_rank_has_no_memory(void)
{
    enum { LARGE = 400 << 20 };
    kolo_reducer *reducer;
    kolo_reducer_options options = {
        .size = sizeof options, .wire = KOLO_WIRE_BF16, .error_feedback = 1};
    CHECK(begin() == 0);
    /* Never touched: nothing is reduced. */
    void *memory = mmap(NULL, LARGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(memory != MAP_FAILED);
    tensors[7] = (kolo_tensor){.data = memory, .count = LARGE / 4, .dtype = KOLO_FP32};
    if (rank == 1)
        CHECK(leave_memory(LARGE / 4) == 0);
    kolo_status status = kolo_reducer_create(comm, tensors, TENSORS, &options, &reducer);
    CHECK(rank != 1 || (status == KOLO_ERR_MEMORY && reducer == NULL));
    CHECK(rank == 1 || status == KOLO_OK);
    if (rank != 1) {
        CHECK(ready_all(reducer) == 0);
        CHECK(kolo_reducer_wait(reducer, -1) == KOLO_ERR_MEMORY);
        CHECK(error_says("rank 1 reported: kolo_reducer_create: no memory for 12 tensors"));
        CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    }
    CHECK(kolo_barrier(comm) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_one_rank_has_no_memory(void **state)
{
    (void)state;
    if (limits_of_memory_work)
        world_run_over_both(3, NULL, one_rank_has_no_memory);
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

/* Rank 1 is still computing, its thread ends the step for it; rank 0 wants to agree with it on what
 * they have measured. */
static int limit_while_sizes_are_compared(void)
{
    enum { STEPS = 100, THREADED = 4 };
    kolo_reducer *reducer;
    int32_t token = 0;
    int interrupted = 0;
    CHECK(begin() == 0);
    CHECK(kolo_reducer_create(comm, tensors, TENSORS, NULL, &reducer) == KOLO_OK);
    for (int step = 0; step < STEPS; step++) {
        fill_all((float)(step + rank));
        CHECK(ready_all(reducer) == 0);
        if (rank == 0) {
            kolo_status status = KOLO_AGAIN;
            while (step >= THREADED && status == KOLO_AGAIN && !reducer->ended)
                status = kolo_reducer_wait(reducer, 20);
            interrupted += reducer->ended;
            CHECK(kolo_send(comm, &token, 1, KOLO_INT32, 1) == KOLO_OK);
            if (status == KOLO_AGAIN)
                status = kolo_reducer_wait(reducer, -1);
            CHECK(status == KOLO_OK && !reducer->ended);
        } else {
            usleep(2000);
            CHECK(kolo_recv(comm, &token, 1, KOLO_INT32, 0) == KOLO_OK);
            CHECK(kolo_reducer_wait(reducer, -1) == KOLO_OK);
        }
        CHECK(data[3][7] == (float)step + 0.5F);
        CHECK(report_of(reducer).step == (uint64_t)step + 1);
    }
    CHECK(rank != 0 || interrupted > 0);
    CHECK(!reducer->tunes);
    CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

/* What was taken for unused in the first step comes too late, as in any other. */
static int late_in_the_first_step(void)
{
    kolo_reducer *reducer;
    kolo_reducer_options options = {.size = sizeof options, .allow_unused = 1};
    int32_t token = 0;
    CHECK(begin() == 0);
    CHECK(kolo_reducer_create(comm, tensors, TENSORS, &options, &reducer) == KOLO_OK);
    fill_all((float)(rank + 1));
    for (size_t i = 0; i < TENSORS - (size_t)rank; i++)
        CHECK(kolo_reducer_ready(reducer, i) == KOLO_OK);
    if (rank == 1) {
        CHECK(kolo_reducer_wait(reducer, 0) == KOLO_AGAIN);
        CHECK(kolo_reducer_ready(reducer, TENSORS - 1) == KOLO_ERR_INVALID);
        CHECK(error_says("kolo_reducer_wait has taken it for unused"));
        CHECK(kolo_send(comm, &token, 1, KOLO_INT32, 0) == KOLO_OK);
    } else {
        CHECK(kolo_recv(comm, &token, 1, KOLO_INT32, 1) == KOLO_OK);
    }
    CHECK(kolo_reducer_wait(reducer, -1) == KOLO_OK);
    CHECK(data[0][0] == 1.5F && data[TENSORS - 1][0] == 0.5F);
    CHECK(ready_all(reducer) == 0);
    CHECK(kolo_reducer_wait(reducer, -1) == KOLO_OK);
    CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_limits_of_time(void **state)
{
    (void)state;
    /* Nobody finds what an earlier run has saved. And tcp, because over shared memory the thread
     * would leave so small a bucket to the caller. */
    static const char *const tcp[] = {"KOLO_TRANSPORT=tcp", "XDG_CACHE_HOME=/dev/null/none", NULL};
    struct world_result result = world_run(2, tcp, limit_while_sizes_are_compared);
    world_assert_all_passed(&result, 2);
    world_run_over_both(2, NULL, late_in_the_first_step);
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
        cmocka_unit_test(test_different_tensors),
        cmocka_unit_test(test_wrong_calls),
        cmocka_unit_test(test_one_rank_is_wrong),
        cmocka_unit_test(test_one_rank_has_no_memory),
        cmocka_unit_test(test_missing_gradient),
        cmocka_unit_test(test_limits_of_time),
        cmocka_unit_test(test_killed),
        cmocka_unit_test(test_aborted),
        cmocka_unit_test(test_broadcast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
