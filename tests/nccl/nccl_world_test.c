/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NCCL in a world of two processes, with stand-ins for NCCL and for the driver: that ranks agree on
 * it, that whatever fails on one of them becomes an error on all in time, and what calls with a
 * GPU's buffers do. Each rank follows a script of its own.
 */
#include "cases.h"
#include "base/status.h"
#include "kernels/device.h"
#include "runtime/nccl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <cmocka.h>

enum { COUNT = 6 };

/* ---- agreeing ------------------------------------------------------------------------------- */

static void agrees(kolo_comm *world)
{
    CHECK(kolo__nccl_open(world, "test", 0) == KOLO_OK);
    CHECK(kolo__nccl_open(world, "test", 0) == KOLO_OK);
    CHECK(kolo__nccl_open(world, "test", 1) == KOLO_ERR_INVALID && said("keeps to one GPU"));
    still_works(world);
}

static void both_know(kolo_comm *world, const char *words)
{
    CHECK(kolo__nccl_open(world, "test", 0) == KOLO_ERR_UNSUPPORTED);
    CHECK(said("test: NCCL cannot be used: ") && said(words));
    CHECK(kolo__nccl_open(world, "test", 0) == KOLO_ERR_UNSUPPORTED && said(words));
    still_works(world);
}

static void old_on_one(kolo_comm *world)
{
    both_know(world, "on rank 1 (host ");
    CHECK(said("NCCL 2.18.5 is too old"));
}

static void versions_differ(kolo_comm *world)
{
    both_know(world, "has 2.27.3: install one version on all hosts");
    CHECK(said("rank 1 (host "));
}

static void id_fails(kolo_comm *world)
{
    both_know(world, "on rank 0 (host ");
    CHECK(said("ncclGetUniqueId: standin error 2"));
}

static void init_fails(kolo_comm *world)
{
    both_know(world, "on rank 1 (host ");
    CHECK(said("ncclCommInitRankConfig: standin error 3"));
    CHECK(counted("standin_count_abort") == (world->rank == 0)); /* that rank has nothing to end */
}

static void init_fails_later(kolo_comm *world)
{
    both_know(world, "on rank 0 (host ");
    CHECK(said("NCCL: standin error 1") && counted("standin_count_abort") == 1);
}

static void init_hangs(kolo_comm *world)
{
    both_know(world, "on rank 1 (host ");
    CHECK(said("did not finish within 2 s") && counted("standin_count_abort") == 1);
}

static void is_off(kolo_comm *world)
{
    both_know(world, "on rank 0 (host ");
    CHECK(said("KOLO_NCCL=off"));
}

/* ---- buffers -------------------------------------------------------------------------------- */

static void registers(kolo_comm *world)
{
    struct kolo__nccl_buffer buffer;
    CHECK(kolo__nccl_open(world, "test", 0) == KOLO_OK);
    CHECK(kolo__nccl_buffer_open(world, "test", 4096, &buffer) == KOLO_OK);
    CHECK(buffer.memory != NULL && buffer.window != NULL && buffer.bytes == 4096);
    CHECK(counted("standin_count_window") == 1);
    kolo__nccl_buffer_close(world, &buffer);
    CHECK(counted("standin_count_window") == 0 && counted("standin_count_memory") == 0);
    CHECK(kolo__nccl_buffer_open(world, "test", 4096 + world->rank, &buffer) == KOLO_ERR_INVALID);
    CHECK(said("rank 0 wants 4096 bytes of NCCL's memory, rank 1 4097"));
    CHECK(buffer.memory == NULL && counted("standin_count_memory") == 0);
}

static void does_not_return(kolo_comm *world)
{
    struct kolo__nccl_buffer buffer;
    CHECK(kolo__nccl_open(world, "test", 0) == KOLO_OK);
    CHECK(kolo__nccl_buffer_open(world, "test", 4096, &buffer) == KOLO_OK);
    kolo__nccl_buffer_close(world, &buffer);
    CHECK(counted("standin_count_abort") == 1 && counted("standin_count_memory") == 0);
    CHECK(kolo_barrier(world) == KOLO_ERR_TIMEOUT && said("was not given back within"));
}

/* On one rank: then on none, the buffers serve, and NCCL goes on. */
static void refuses(kolo_comm *world)
{
    struct kolo__nccl_buffer buffer, another;
    CHECK(kolo__nccl_open(world, "test", 0) == KOLO_OK);
    CHECK(kolo__nccl_buffer_open(world, "test", 4096, &buffer) == KOLO_OK);
    CHECK(buffer.memory != NULL && buffer.window == NULL);
    CHECK(counted("standin_count_abort") == 1);
    CHECK(kolo__nccl_buffer_open(world, "test", 64, &another) == KOLO_OK);
    CHECK(another.window == NULL && counted("standin_count_abort") == 1);
    CHECK(kolo__nccl_open(world, "test", 0) == KOLO_OK);
    kolo__nccl_buffer_close(world, &buffer);
    kolo__nccl_buffer_close(world, &another);
    CHECK(counted("standin_count_memory") == 0);
    still_works(world);
}

static void no_memory(kolo_comm *world)
{
    struct kolo__nccl_buffer buffer;
    CHECK(kolo__nccl_open(world, "test", 0) == KOLO_OK);
    CHECK(kolo__nccl_buffer_open(world, "test", 4096, &buffer) == KOLO_ERR_MEMORY);
    CHECK(said("4096 bytes, on rank 1 (host ") && said("ncclMemAlloc"));
    CHECK(buffer.memory == NULL && counted("standin_count_memory") == 0);
    still_works(world);
}

/* ---- calls ---------------------------------------------------------------------------------- */

static void reduces(kolo_comm *world)
{
    float *from = device_memory(RANKS * COUNT), *to = device_memory(RANKS * COUNT);
    static char stream;
    float host[COUNT];
    const kolo_call_options options = {.size = sizeof options, .stream = &stream};
    char asked[128];
    CHECK(kolo_allreduce(world, from, to, COUNT, KOLO_FP32, KOLO_SUM, &options) == KOLO_OK);
    snprintf(asked, sizeof asked, "AllReduce count=%d type=7 op=0 stream=%p", COUNT,
             (void *)&stream);
    CHECK(strcmp(of_standin("whole", "standin_last"), asked) == 0);
    for (int i = 0; i < COUNT; i++)
        CHECK(from[i] == (float)(i + 1) && to[i] == (float)RANKS * (float)(i + 1));
    CHECK(kolo_allgather(world, from, to, COUNT, KOLO_FP32, NULL) == KOLO_OK);
    CHECK(strncmp(of_standin("whole", "standin_last"), "AllGather count=24", 18) == 0);
    CHECK(to[COUNT] == 1);
    CHECK(kolo_reduce_scatter(world, from, to, COUNT, KOLO_FP32, KOLO_SUM, NULL) == KOLO_OK);
    CHECK(to[0] == (float)(RANKS * (1 + COUNT * (int)world->rank)));
    kolo_request *request;
    CHECK(kolo_allreduce_start(world, from, from, COUNT, KOLO_FP32, KOLO_MAX, NULL, &request) ==
          KOLO_OK);
    CHECK(kolo_wait(&request, -1) == KOLO_OK && from[1] == 2);
    /* What does not fit together. */
    CHECK(kolo_alltoall(world, from, from, COUNT / 2, KOLO_FP32, NULL) != KOLO_OK);
    CHECK(kolo_allreduce(world, host, from, COUNT, KOLO_FP32, KOLO_SUM, NULL) == KOLO_ERR_INVALID);
    CHECK(said("the recv buffer is in memory of GPU 1, the send buffer in the host's: give both"));
    CHECK(kolo_join(world, NULL) == KOLO_ERR_UNSUPPORTED && said("NCCL carries its GPU buffers"));
    still_works(world);
}

/* The driver's stand-in runs no kernel, but counts them. */
static int launched(void)
{
    return *(int *)of_driver("standin_count_launches");
}

static void scales(kolo_comm *world, bool first, kolo_op op, bool reduce_scatter)
{
    float *from = device_memory(RANKS * COUNT), *to = device_memory(RANKS * COUNT);
    const kolo_call_options options = {.size = sizeof options, .scale = 0.5};
    CHECK(kolo_allreduce(world, from, to, COUNT, KOLO_FP32, KOLO_SUM, NULL) == KOLO_OK);
    CHECK(launched() == 0 && *(void **)of_standin("whole", "standin_send") == from);
    if (reduce_scatter)
        CHECK(kolo_reduce_scatter(world, from, to, COUNT, KOLO_FP32, op, &options) == KOLO_OK);
    else
        CHECK(kolo_allreduce(world, from, to, COUNT, KOLO_FP32, op, &options) == KOLO_OK);
    CHECK(launched() == 1 && strstr(of_standin("whole", "standin_last"), " op=0 ") != NULL);
    CHECK(*(void **)of_standin("whole", "standin_send") == (first ? to : from));
    CHECK(from[1] == 2);
}

static void averages(kolo_comm *world)
{
    scales(world, true, KOLO_AVERAGE, false);
}

static void averages_slices(kolo_comm *world)
{
    scales(world, false, KOLO_AVERAGE, true);
}

static void scales_first(kolo_comm *world)
{
    scales(world, true, KOLO_PREMUL_SUM, false);
}

/* What NCCL cannot have scaled for it goes by another way. */
static void does_not_scale(kolo_comm *world)
{
    float *data = device_memory(RANKS * COUNT);
    const kolo_call_options options = {.size = sizeof options, .scale = 0.5};
    CHECK(kolo_allreduce(world, data, data, COUNT, KOLO_FP32, KOLO_SUM, NULL) == KOLO_OK);
    char *last = of_standin("whole", "standin_last");
    last[0] = '\0';
    CHECK(kolo_allreduce(world, data, data, COUNT, KOLO_INT32, KOLO_AVERAGE, NULL) == KOLO_OK);
    CHECK(kolo_reduce_scatter(world, data, data + COUNT * world->rank, COUNT, KOLO_FP32,
                              KOLO_PREMUL_SUM, &options) == KOLO_OK);
    CHECK(last[0] == '\0' && launched() == 0);
}

/* The error comes from one rank's communicator; both are told, and end theirs. */
static void fails_later(kolo_comm *world)
{
    float *data = device_memory(COUNT);
    kolo_status status = KOLO_OK;
    for (int i = 0; i < 1000 && status == KOLO_OK; i++) {
        status = kolo_allreduce(world, data, data, COUNT, KOLO_FP32, KOLO_SUM, NULL);
        usleep(1000);
    }
    CHECK(status == KOLO_ERR_NETWORK);
    CHECK(said("NCCL failed on rank 1 (host ") && said("standin error 6"));
    CHECK(counted("standin_count_abort") == 1);
    CHECK(kolo_allreduce(world, data, data, COUNT, KOLO_FP32, KOLO_SUM, NULL) == KOLO_ERR_NETWORK);
}

static void hangs(kolo_comm *world)
{
    float *data = device_memory(COUNT);
    CHECK(kolo_allreduce(world, data, data, COUNT, KOLO_FP32, KOLO_SUM, NULL) == KOLO_ERR_TIMEOUT);
    CHECK(said("did not finish within 2 s") && said("waits for: NCCL to take it"));
    CHECK(counted("standin_count_abort") == 1);
}

/* NCCL sees no difference, and waits: what the ranks say of their waits shows it. */
static void calls_differ(kolo_comm *world)
{
    float *data = device_memory(COUNT);
    size_t count = world->rank == 0 ? COUNT : COUNT - 1;
    CHECK(kolo_allreduce(world, data, data, count, KOLO_FP32, KOLO_SUM, NULL) == KOLO_ERR_MISMATCH);
    CHECK(said("(6 x fp32, sum, nccl)") && said("(5 x fp32, sum, nccl)") &&
          counted("standin_count_abort") == 1);
}

static void peer_dies(kolo_comm *world)
{
    float *data = device_memory(COUNT);
    CHECK(kolo_allreduce(world, data, data, COUNT, KOLO_FP32, KOLO_SUM, NULL) == KOLO_OK);
    let_rank_1_go_on(world);
    if (world->rank == 1)
        _exit(0);
    kolo_status status = KOLO_OK;
    for (int i = 0; i < 20000 && status == KOLO_OK; i++) {
        status = kolo_allreduce(world, data, data, COUNT, KOLO_FP32, KOLO_SUM, NULL);
        usleep(1000);
    }
    CHECK(status == KOLO_ERR_PEER_LOST && said("rank 1"));
    CHECK(counted("standin_count_abort") == 1);
}

WORLD_CASE(agrees, "", "")
WORLD_CASE(old_on_one, "", "version=21805")
WORLD_CASE(versions_differ, "", "version=22703")
WORLD_CASE(id_fails, "id=2", "")
WORLD_CASE(init_fails, "", "init=3")
WORLD_CASE(init_fails_later, "init_later=1", "")
WORLD_CASE(registers, "", "")
WORLD_CASE(no_memory, "", "memory=1")
WORLD_CASE(reduces, "queue_slow", "")
WORLD_CASE(averages, "queue_slow", "")
WORLD_CASE(averages_slices, "queue_slow", "")
WORLD_CASE(scales_first, "", "")
WORLD_CASE(does_not_scale, "", "")
WORLD_CASE(does_not_return, "return_hangs", "return_hangs")
WORLD_CASE(fails_later, "", "async=6")
WORLD_CASE(calls_differ, "queue_hangs", "queue_hangs")
WORLD_CASE(peer_dies, "", "")

static void test_init_hangs(void **state)
{
    (void)state;
    setenv("KOLO_TIMEOUT", "2", 1);
    in_world("", "init_hangs", init_hangs);
    unsetenv("KOLO_TIMEOUT");
}

static void test_is_off(void **state)
{
    (void)state;
    setenv("KOLO_NCCL", "off", 1);
    in_world("", "", is_off);
    unsetenv("KOLO_NCCL");
}

/* The others may hear of the refusal at once, or wait in NCCL for the rank that was refused. */
static void test_refuses(void **state)
{
    (void)state;
    in_world("", "window=4", refuses);
    in_world("window_hangs", "window=4", refuses);
}

static void test_hangs(void **state)
{
    (void)state;
    setenv("KOLO_TIMEOUT", "2", 1);
    in_world("queue_hangs", "queue_hangs", hangs);
    unsetenv("KOLO_TIMEOUT");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_agrees),          cmocka_unit_test(test_old_on_one),
        cmocka_unit_test(test_versions_differ), cmocka_unit_test(test_id_fails),
        cmocka_unit_test(test_init_fails),      cmocka_unit_test(test_init_fails_later),
        cmocka_unit_test(test_init_hangs),      cmocka_unit_test(test_is_off),
        cmocka_unit_test(test_registers),       cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_no_memory),       cmocka_unit_test(test_reduces),
        cmocka_unit_test(test_averages),        cmocka_unit_test(test_averages_slices),
        cmocka_unit_test(test_scales_first),    cmocka_unit_test(test_does_not_scale),
        cmocka_unit_test(test_fails_later),     cmocka_unit_test(test_hangs),
        cmocka_unit_test(test_peer_dies),       cmocka_unit_test(test_calls_differ),
        cmocka_unit_test(test_does_not_return),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
