/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that waits for its stream, and calls nothing of kolo's, while NCCL's kernel waits for
 * ever (runtime/watch.h). Waiting for the stream is here to wait for what ends such kernels:
 * ncclCommAbort. Each test hangs, until its alarm, where that does not come.
 */
#include "cases.h"
#include "kernels/device.h"
#include "runtime/nccl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { COUNT = 6 };

static kolo_status allreduce(kolo_comm *world, float *data, size_t count)
{
    return kolo_allreduce(world, data, data, count, KOLO_FP32, KOLO_SUM, NULL);
}

/* On all ranks, before anything happens to one of them. */
static float *queued(kolo_comm *world)
{
    float *data = device_memory(COUNT);
    CHECK(allreduce(world, data, COUNT) == KOLO_OK);
    let_rank_1_go_on(world);
    return data;
}

static void synchronize(void)
{
    while (counted("standin_count_abort") == 0)
        usleep(1000);
}

/* ---- who is woken --------------------------------------------------------------------------- */

static void peer_dies(kolo_comm *world)
{
    float *data = queued(world);
    if (world->rank == 1)
        _exit(0);
    synchronize();
    CHECK(allreduce(world, data, COUNT) == KOLO_ERR_PEER_LOST && said("rank 1"));
    CHECK(kolo_barrier(world) == KOLO_ERR_PEER_LOST);
    CHECK(counted("standin_count_abort") == 1);
}

static void another_thread_aborts(kolo_comm *world)
{
    float *data = queued(world);
    if (world->rank == 1)
        CHECK(kolo_comm_abort(world, "enough") == KOLO_OK);
    synchronize();
    CHECK(allreduce(world, data, COUNT) == KOLO_ERR_ABORTED);
    CHECK(said("rank 1 (host ") && said("aborted: enough"));
}

static void nccl_fails(kolo_comm *world)
{
    float *data = queued(world);
    if (world->rank == 1)
        atomic_store((atomic_int *)of_standin("whole", "standin_error"), 6);
    synchronize();
    CHECK(allreduce(world, data, COUNT) == KOLO_ERR_NETWORK);
    CHECK(said("NCCL failed on rank 1 (host ") && said("standin error 6"));
}

static void gpu_fails(kolo_comm *world)
{
    float *data = queued(world);
    if (world->rank == 1)
        atomic_store((atomic_int *)of_driver("standin_late"), 700);
    synchronize();
    CHECK(allreduce(world, data, COUNT) == KOLO_ERR_DEVICE);
    CHECK(said("the GPU failed on rank 1 (host ") && said("STANDIN_ERROR_700"));
}

/* The second call differs; NCCL has taken both. */
static void calls_differ(kolo_comm *world)
{
    float *data = device_memory(COUNT);
    CHECK(allreduce(world, data, COUNT) == KOLO_OK);
    CHECK(allreduce(world, data, COUNT - world->rank) == KOLO_OK);
    synchronize();
    CHECK(allreduce(world, data, COUNT) == KOLO_ERR_MISMATCH);
    CHECK(said("(6 x fp32, sum, nccl)") && said("(5 x fp32, sum, nccl)"));
}

static void nobody_moves(kolo_comm *world)
{
    float *data = queued(world);
    synchronize();
    CHECK(allreduce(world, data, COUNT) == KOLO_ERR_TIMEOUT);
    CHECK(said("did not finish within 2 s on GPU 1 of rank ") && said("KOLO_TIMEOUT"));
}

/* ---- who is not ----------------------------------------------------------------------------- */

static bool waits_as_recorded(const kolo_comm *world)
{
    struct kolo__flight_state state = {.process = 'R'};
    kolo__flight_take_state(world->context->recorder.flight, &state);
    return state.waits.phase == KOLO__FLIGHT_CALLED &&
           state.waits.signature.collective == KOLO__ALLREDUCE;
}

/* More than the ring has room for, and a stream that is behind for longer than anybody is patient;
 * then all is reached, and the next call is watched from its own beginning. */
static void is_only_slow(kolo_comm *world)
{
    float *data = device_memory(COUNT);
    atomic_int *pending = of_driver("standin_pending");
    atomic_store(pending, 1);
    for (int i = 0; i < 100; i++)
        CHECK(allreduce(world, data, COUNT) == KOLO_OK);
    usleep(1500000);
    CHECK(waits_as_recorded(world));
    atomic_store(pending, 0);
    usleep(300000); /* so that the next wait is another one */
    CHECK(!waits_as_recorded(world));
    atomic_store(pending, 1);
    CHECK(allreduce(world, data, COUNT) == KOLO_OK);
    usleep(1500000);
    atomic_store(pending, 0);
    CHECK(atomic_load((atomic_int *)of_driver("standin_count_records")) == 101);
    CHECK(allreduce(world, data, COUNT) == KOLO_OK);
    CHECK(counted("standin_count_abort") == 0);
    still_works(world);
}

/* Each call has its own time, from when the one before it was done. */
static void moves_on(kolo_comm *world)
{
    float *data = device_memory(COUNT);
    atomic_int *pending = of_driver("standin_pending");
    atomic_store(pending, 1);
    CHECK(allreduce(world, data, COUNT) == KOLO_OK && allreduce(world, data, COUNT) == KOLO_OK);
    usleep(1500000);
    atomic_store((atomic_int *)of_driver("standin_reached"), 1);
    usleep(1500000);
    atomic_store(pending, 0);
    CHECK(allreduce(world, data, COUNT) == KOLO_OK && counted("standin_count_abort") == 0);
}

/* Nobody tells a rank that is alone what its own watch has found. */
static void alone(void)
{
    char path[512];
    kolo_context *context;
    snprintf(path, sizeof path, "%s/whole/libnccl.so.2", STANDIN);
    setenv("KOLO_NCCL", path, 1);
    float *data = device_memory(COUNT);
    CHECK(kolo_init(NULL, &context) == KOLO_OK);
    kolo_comm *world = kolo_world(context);
    CHECK(allreduce(world, data, COUNT) == KOLO_OK);
    atomic_store((atomic_int *)of_standin("whole", "standin_error"), 1);
    synchronize();
    CHECK(kolo_barrier(world) == KOLO_ERR_DEVICE && said("standin error 1"));
    CHECK(allreduce(world, data, COUNT) == KOLO_ERR_DEVICE);
    kolo_finalize(context);
}

/* An event in a graph is the graph's. Errors are seen all the same; and the graph is not spoilt by
 * questions about what was queued before. */
static void is_captured(kolo_comm *world)
{
    atomic_int *pending = of_driver("standin_pending"), *capturing = of_driver("standin_capturing");
    atomic_int *records = of_driver("standin_count_records");
    atomic_store(pending, 1);
    float *data = queued(world);
    CHECK(atomic_load(records) == 1);
    atomic_store(capturing, 1);
    CHECK(allreduce(world, data, COUNT) == KOLO_OK && atomic_load(records) == 1);
    usleep(300000);
    CHECK(counted("standin_count_abort") == 0);
    let_rank_1_go_on(world);
    if (world->rank == 1)
        _exit(0);
    synchronize();
    CHECK(allreduce(world, data, COUNT) == KOLO_ERR_PEER_LOST);
}

/* What goes with the communicator: the thread, however the end came. */
static void ends_in_order(kolo_comm *world)
{
    kolo_comm *part;
    float *data = device_memory(COUNT);
    for (int i = 0; i < 3; i++) {
        CHECK(kolo_comm_split(world, 0, 0, &part) == KOLO_OK);
        CHECK(allreduce(part, data, COUNT) == KOLO_OK);
        CHECK(kolo_comm_free(part) == KOLO_OK);
    }
    CHECK(counted("standin_count_abort") == 0 && counted("standin_count_destroy") == 3);
    still_works(world);
}

WORLD_CASE(peer_dies, "/pending", "/pending")
WORLD_CASE(another_thread_aborts, "/pending", "/pending")
WORLD_CASE(nccl_fails, "/pending", "/pending")
WORLD_CASE(gpu_fails, "/pending", "/pending")
WORLD_CASE(calls_differ, "/pending", "/pending")
WORLD_CASE(is_captured, "", "")
WORLD_CASE(ends_in_order, "", "")

static void test_nobody_moves(void **state)
{
    (void)state;
    setenv("KOLO_TIMEOUT", "2", 1);
    in_world("/pending", "/pending", nobody_moves);
    unsetenv("KOLO_TIMEOUT");
}

CASE(alone, "")

static void test_moves_on(void **state)
{
    (void)state;
    setenv("KOLO_TIMEOUT", "2", 1);
    in_world("", "", moves_on);
    unsetenv("KOLO_TIMEOUT");
}

static void test_is_only_slow(void **state)
{
    (void)state;
    setenv("KOLO_TIMEOUT", "2", 1);
    in_world("", "", is_only_slow);
    unsetenv("KOLO_TIMEOUT");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_peer_dies),     cmocka_unit_test(test_another_thread_aborts),
        cmocka_unit_test(test_nccl_fails),    cmocka_unit_test(test_gpu_fails),
        cmocka_unit_test(test_calls_differ),  cmocka_unit_test(test_nobody_moves),
        cmocka_unit_test(test_is_only_slow),  cmocka_unit_test(test_is_captured),
        cmocka_unit_test(test_ends_in_order), cmocka_unit_test(test_moves_on),
        cmocka_unit_test(test_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
