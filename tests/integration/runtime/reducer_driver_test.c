/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who drives a step, in real processes: the thread from the second one of a training loop on, the
 * caller as soon as it waits, and again the thread when the caller goes on computing.
 */
#include "reducer_case.h"

#include "runtime/comm.h"
#include "runtime/reducer/reducer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <unistd.h>

static kolo_reducer *reducer;

static int create(void)
{
    kolo_reducer_options options = {.size = sizeof options, .bucket_bytes = 9000};
    CHECK(begin() == 0);
    CHECK(kolo_reducer_create(comm, tensors, TENSORS, &options, &reducer) == KOLO_OK);
    return 0;
}

static int end(void)
{
    CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

/* The first `count` in the order of readiness, which is that of the buckets. */
static int ready_some(int first, int count)
{
    for (int k = first; k < first + count; k++)
        CHECK(kolo_reducer_ready(reducer, (size_t)(TENSORS - 1 - k)) == KOLO_OK);
    return 0;
}

static int expect_averages(void)
{
    for (int i = 0; i < TENSORS; i++)
        CHECK(data[i][COUNT - TENSORS] == (float)(size - 1) / 2);
    return 0;
}

static int long_step(void)
{
    fill_all((float)rank);
    CHECK(ready_some(0, TENSORS / 2) == 0);
    usleep(2000);
    CHECK(ready_some(TENSORS / 2, TENSORS / 2) == 0);
    CHECK(kolo_reducer_wait(reducer, -1) == KOLO_OK);
    CHECK(expect_averages() == 0);
    return 0;
}

/* ---- the second step ----------------------------------------------------------------------------
 */

static int offered_from_the_second_step(void)
{
    CHECK(create() == 0);
    for (int step = 0; step < 3; step++) {
        CHECK(long_step() == 0);
        CHECK(reducer->threaded && atomic_load(&reducer->driver) != KOLO__DRIVER_CALLER);
    }
    CHECK(end() == 0);
    return 0;
}

static void test_second_step(void **state)
{
    (void)state;
    world_run_over_both(2, NULL, offered_from_the_second_step);
}

/* ---- too early ----------------------------------------------------------------------------------
 */

/* Between waits that end too early the step is the thread's, and nothing is lost. */
static int waits_too_early(void)
{
    CHECK(create() == 0);
    CHECK(long_step() == 0);
    for (int step = 0; step < 20; step++) {
        fill_all((float)rank);
        for (int k = 0; k < TENSORS; k++) {
            CHECK(kolo_reducer_wait(reducer, (step + k + rank) % 2) == KOLO_AGAIN);
            CHECK(atomic_load(&reducer->driver) != KOLO__DRIVER_CALLER);
            CHECK(ready_some(k, 1) == 0);
        }
        CHECK(kolo_reducer_wait(reducer, -1) == KOLO_OK);
        CHECK(expect_averages() == 0);
        CHECK(long_step() == 0);
    }
    CHECK(end() == 0);
    return 0;
}

static void test_too_early(void **state)
{
    (void)state;
    world_run_over_both(2, NULL, waits_too_early);
}

/* ---- who is woken -------------------------------------------------------------------------------
 */

/* The thread's place is taken by the test, which says that it sleeps, and looks who woke it. */
static int wakes_only_for_what_is_worth_it(void)
{
    struct kolo__waker asleep = {.idle = true};
    CHECK(create() == 0);
    CHECK(long_step() == 0);
    CHECK(kolo__driver_take_back(reducer, UINT64_MAX));
    CHECK(sem_init(&asleep.semaphore, 0, 0) == 0);
    reducer->waker = &asleep;
    fill_all((float)rank);

    const struct kolo__fusion_bucket *first = &reducer->fusion.buckets[0];
    const struct kolo__fusion_bucket *last = &reducer->fusion.buckets[reducer->unit_count - 1];
    int before = TENSORS - (int)last->tensor_count;
    CHECK(reducer->unit_count > 2 && first->tensor_count > 1);
    CHECK(ready_some(0, 1) == 0);
    CHECK(atomic_load(&asleep.idle)); /* the bucket is not complete */
    CHECK(ready_some(1, (int)first->tensor_count - 1) == 0);
    CHECK(!atomic_load(&asleep.idle));

    atomic_store(&asleep.idle, true);
    atomic_store(&reducer->awaited, reducer->unit_count - 1);
    CHECK(ready_some((int)first->tensor_count, before - (int)first->tensor_count) == 0);
    CHECK(atomic_load(&asleep.idle));
    CHECK(ready_some(before, TENSORS - before) == 0);
    CHECK(atomic_load(&asleep.idle) == (reducer->comm->mapping != NULL)); /* left to the caller */

    CHECK(kolo_reducer_wait(reducer, -1) == KOLO_OK);
    CHECK(expect_averages() == 0);
    CHECK(end() == 0);
    sem_destroy(&asleep.semaphore);
    return 0;
}

static void test_wakes(void **state)
{
    (void)state;
    world_run_over_both(2, NULL, wakes_only_for_what_is_worth_it);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_second_step),
        cmocka_unit_test(test_too_early),
        cmocka_unit_test(test_wakes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
