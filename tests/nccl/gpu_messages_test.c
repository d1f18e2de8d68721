/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of a GPU's memory (runtime/bounce.h) kolo_broadcast_tensors and kolo_named of it, in a
 * world of two processes with the stand-in for the driver: contents, order, and what fails.
 */
#include "cases.h"
#include "runtime/comm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { LONG = 1000003 };

static bool is_sender(kolo_comm *world)
{
    return kolo_comm_rank(world) == 0;
}

static int other(kolo_comm *world)
{
    return 1 - kolo_comm_rank(world);
}

/* `count` floats from rank 0 to rank 1, each on a GPU or not. */
static void carry(kolo_comm *world, size_t count, bool from_gpu, bool to_gpu)
{
    bool on_gpu = is_sender(world) ? from_gpu : to_gpu;
    float *data = on_gpu ? device_memory(count + 1) : malloc((count + 1) * sizeof *data);
    CHECK(data != NULL);
    for (size_t i = 0; i <= count; i++)
        data[i] = is_sender(world) ? (float)(3 * i) : -1;
    if (is_sender(world))
        CHECK(kolo_send(world, data, count, KOLO_FP32, other(world)) == KOLO_OK);
    else
        CHECK(kolo_recv(world, data, count, KOLO_FP32, other(world)) == KOLO_OK);
    for (size_t i = 0; i < count; i++)
        CHECK(data[i] == (float)(3 * i));
    CHECK(is_sender(world) || data[count] == -1);
    if (on_gpu)
        release(data);
    else
        free(data);
}

static void carries(kolo_comm *world)
{
    static const size_t COUNTS[] = {0, 1, 1001, LONG};
    for (size_t i = 0; i < sizeof COUNTS / sizeof *COUNTS; i++)
        for (int from_gpu = 0; from_gpu < 2; from_gpu++)
            for (int to_gpu = 0; to_gpu < 2; to_gpu++)
                carry(world, COUNTS[i], from_gpu != 0, to_gpu != 0);
}

/* One after the other takes the same memory, and of several at a time each has its own. */
static void keeps_memory(kolo_comm *world)
{
    enum { MESSAGES = 5, COUNT = 100 };
    float *data = device_memory(MESSAGES * COUNT);
    kolo_request *requests[MESSAGES];
    carry(world, COUNT, true, true);
    struct kolo__bounce *first = world->bounces;
    carry(world, COUNT, true, true);
    CHECK(first != NULL && world->bounces == first);
    for (int i = 0; i < MESSAGES * COUNT; i++)
        data[i] = is_sender(world) ? (float)i : 0;
    for (int i = 0; i < MESSAGES; i++)
        CHECK((is_sender(world)
                   ? kolo_send_start(world, data + i * COUNT, COUNT, KOLO_FP32, 1, &requests[i])
                   : kolo_recv_start(world, data + i * COUNT, COUNT, KOLO_FP32, 0, &requests[i])) ==
              KOLO_OK);
    for (int i = MESSAGES; i-- > 0;)
        CHECK(kolo_wait(&requests[i], -1) == KOLO_OK);
    for (int i = 0; i < MESSAGES * COUNT; i++)
        CHECK(data[i] == (float)i);
    release(data);
}

/* What the GPU is not done with is not sent, nor anything behind it. */
static void keeps_order(kolo_comm *world)
{
    float *data = device_memory(8), host[8] = {0};
    kolo_request *of_gpu, *of_host;
    still_works(world);
    if (!is_sender(world)) {
        CHECK(kolo_recv(world, host, 8, KOLO_FP32, 0) == KOLO_OK && host[7] == 8);
        CHECK(kolo_recv(world, host, 8, KOLO_FP32, 0) == KOLO_OK && host[7] == 0);
        return;
    }
    atomic_store((atomic_int *)of_driver("standin_pending"), 1);
    CHECK(kolo_send_start(world, data, 8, KOLO_FP32, 1, &of_gpu) == KOLO_OK);
    CHECK(kolo_send_start(world, host, 8, KOLO_FP32, 1, &of_host) == KOLO_OK);
    CHECK(kolo_test(&of_host) == KOLO_AGAIN && kolo_test(&of_gpu) == KOLO_AGAIN);
    CHECK(!of_gpu->begun && !of_host->begun && world->held == 1);
    atomic_store((atomic_int *)of_driver("standin_pending"), 0);
    CHECK(kolo_wait(&of_host, -1) == KOLO_OK && kolo_wait(&of_gpu, -1) == KOLO_OK);
    CHECK(world->held == 0);
}

/* Both ranks learn it: the one that would receive does not wait for ever. */
static void gpu_fails(kolo_comm *world)
{
    float *data = device_memory(8);
    let_rank_1_go_on(world);
    if (kolo_comm_rank(world) == 1) {
        atomic_store((atomic_int *)of_driver("standin_late"), 700);
        CHECK(kolo_send(world, data, 8, KOLO_FP32, 0) == KOLO_ERR_DEVICE);
        CHECK(said("copying between GPU 1 and the host failed") && said("STANDIN_ERROR_700"));
    } else {
        CHECK(kolo_recv(world, data, 8, KOLO_FP32, 1) == KOLO_ERR_DEVICE);
        CHECK(said("STANDIN_ERROR_700"));
    }
}

/* The receiver, who has no deadline here, hears of it from the sender. */
static void gpu_never_ends(kolo_comm *world)
{
    float *data = device_memory(8);
    kolo_request *request;
    kolo_status status = KOLO_AGAIN;
    still_works(world);
    if (is_sender(world)) {
        CHECK(kolo_send(world, data, 8, KOLO_FP32, 1) == KOLO_ERR_TIMEOUT);
        CHECK(said("the GPU, or what its default stream had before the message"));
        return;
    }
    CHECK(kolo_recv_start(world, data, 8, KOLO_FP32, 0, &request) == KOLO_OK);
    while (status == KOLO_AGAIN) {
        status = kolo_test(&request);
        usleep(1000);
    }
    CHECK(status == KOLO_ERR_TIMEOUT && said("rank 0 reported"));
}

/* Nothing was begun, so nothing is broken. */
static void no_memory(kolo_comm *world)
{
    float *data = device_memory(8);
    still_works(world);
    if (is_sender(world)) {
        setenv("STANDIN_CUDA", "memory", 1);
        CHECK(kolo_send(world, data, 8, KOLO_FP32, 1) == KOLO_ERR_MEMORY);
        setenv("STANDIN_CUDA", "", 1);
    }
    carry(world, 8, true, true);
}

/* ---- tensors -------------------------------------------------------------------------------- */

static void broadcasts(kolo_comm *world)
{
    enum { TENSORS = 9 };
    static const size_t COUNTS[TENSORS] = {5, 70000, 0, 65535, 65535, 65535, 65535, 65535, 300000};
    kolo_tensor tensors[TENSORS];
    for (int t = 0; t < TENSORS; t++) {
        float *data = device_memory(COUNTS[t] + 1);
        for (size_t i = 0; i <= COUNTS[t]; i++)
            data[i] = kolo_comm_rank(world) == 1 ? (float)(i + (size_t)t) : -1;
        tensors[t] = (kolo_tensor){.data = data, .count = COUNTS[t], .dtype = KOLO_FP32};
    }
    CHECK(kolo_broadcast_tensors(world, tensors, TENSORS, 1) == KOLO_OK);
    for (int t = 0; t < TENSORS; t++) {
        const float *data = tensors[t].data;
        for (size_t i = 0; i < COUNTS[t]; i++)
            CHECK(data[i] == (float)(i + (size_t)t));
        CHECK(kolo_comm_rank(world) == 1 || data[COUNTS[t]] == -1);
    }
    float host[5];
    if (kolo_comm_rank(world) == 0)
        tensors[0].data = host;
    CHECK(kolo_broadcast_tensors(world, tensors, 1, 1) == KOLO_ERR_MISMATCH);
    CHECK(said("a GPU's memory"));
    still_works(world);
}

/* In each rank's own order: small ones of two types, a large one, one of no elements. */
static void names(kolo_comm *world)
{
    enum { TENSORS = 5 };
    static const size_t COUNTS[TENSORS] = {5, 7, 40000, 0, 1001};
    static const char *const NAMES[TENSORS] = {"a", "b", "large", "empty", "c"};
    static char stream;
    const kolo_reducer_options options = {.size = sizeof options, .sum = 1, .stream = &stream};
    kolo_tensor tensors[TENSORS];
    kolo_named *named;
    release(device_memory(1)); /* the driver is there */
    float host = 1, *memory = device_memory(1);
    CHECK(kolo_named_create(world, &options, &named) == KOLO_OK);
    for (int t = 0; t < TENSORS; t++)
        tensors[t] = (kolo_tensor){.data = device_memory(COUNTS[t] + 1),
                                   .count = COUNTS[t],
                                   .dtype = KOLO_FP32,
                                   .name = NAMES[t]};
    for (int step = 0; step < 3; step++) {
        for (int k = 0; k < TENSORS; k++) {
            int t = kolo_comm_rank(world) == 0 ? k : TENSORS - 1 - k;
            float *data = tensors[t].data;
            for (size_t i = 0; i <= COUNTS[t]; i++)
                data[i] = (float)((int)i + kolo_comm_rank(world) + step);
            CHECK(kolo_named_submit(named, &tensors[t]) == KOLO_OK);
        }
        CHECK(kolo_named_wait(named, -1) == KOLO_OK);
        for (int t = 0; t < TENSORS; t++)
            for (size_t i = 0; i < COUNTS[t]; i++)
                CHECK(((float *)tensors[t].data)[i] == (float)(2 * ((int)i + step) + 1));
    }
    kolo_tensor wrong = {.data = &host, .count = 1, .dtype = KOLO_FP32, .name = "host"};
    CHECK(kolo_named_submit(named, &wrong) == KOLO_ERR_INVALID && said("not in memory of GPU"));
    CHECK(kolo_named_free(named) == KOLO_OK);
    CHECK(kolo_named_create(world, NULL, &named) == KOLO_OK);
    wrong.data = memory;
    CHECK(kolo_named_submit(named, &wrong) == KOLO_ERR_INVALID && said("options->stream"));
    CHECK(kolo_named_free(named) == KOLO_OK);
    still_works(world);
}

static void with_tcp(void (*body)(kolo_comm *world))
{
    in_world("", "", body);
    setenv("KOLO_TRANSPORT", "tcp", 1);
    in_world("", "", body);
    unsetenv("KOLO_TRANSPORT");
}

#define BOTH_CASE(name)                                                                            \
    static void test_##name(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        with_tcp(name);                                                                            \
    }

BOTH_CASE(carries)
BOTH_CASE(keeps_order)
BOTH_CASE(names)
WORLD_CASE(keeps_memory, "", "")
WORLD_CASE(gpu_fails, "", "")
WORLD_CASE(no_memory, "", "")
WORLD_CASE(broadcasts, "", "")

static void test_gpu_never_ends(void **state)
{
    (void)state;
    setenv("KOLO_TIMEOUT", "2", 1);
    in_world("/pending", "/pending", gpu_never_ends);
    unsetenv("KOLO_TIMEOUT");
}

int main(void)
{
    setenv("KOLO_NCCL", "off", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_carries),    cmocka_unit_test(test_keeps_order),
        cmocka_unit_test(test_gpu_fails),  cmocka_unit_test(test_keeps_memory),
        cmocka_unit_test(test_no_memory),  cmocka_unit_test(test_gpu_never_ends),
        cmocka_unit_test(test_broadcasts), cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
