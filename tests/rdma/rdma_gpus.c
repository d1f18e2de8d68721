/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of GPUs' memory between two ranks over RDMA, with the stand-in for the CUDA driver. With
 * "straight" (and standin_dma_buf.c preloaded) cards read and write that memory, and the
 * processor's mapping of it is closed meanwhile; with "by_host" the device takes no dma-buf.
 */
#include "cases.h"
#include "collectives/transport/rdma.h"
#include "runtime/comm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <sys/mman.h>

enum { LONG = 300007, SHORT = 1001 };

static bool straight;

static bool is_sender(kolo_comm *world)
{
    return kolo_comm_rank(world) == 0;
}

static int other(kolo_comm *world)
{
    return 1 - kolo_comm_rank(world);
}

static uint64_t straight_bytes(const kolo_comm *world)
{
    return kolo__rdma_count(world->transport).straight_bytes;
}

enum where { IN_GPU, IN_HEAP, ANYWHERE, PLACES };

static float *take(kolo_comm *world, enum where where, size_t count)
{
    void *memory = NULL;
    if (where == IN_GPU)
        return device_memory(count);
    if (where == ANYWHERE)
        memory = malloc(count * sizeof(float));
    else
        CHECK(kolo_alloc(world->context, count * sizeof(float), &memory) == KOLO_OK);
    CHECK(memory != NULL);
    return memory;
}

static void give_back(kolo_comm *world, enum where where, float *memory)
{
    if (where == IN_GPU)
        release(memory);
    else if (where == IN_HEAP)
        kolo_free(world->context, memory);
    else
        free(memory);
}

/* `count` floats from rank 0 to rank 1; data has one more. */
static void carry(kolo_comm *world, float *data, size_t count, bool closed)
{
    size_t bytes = (count + 1) * sizeof *data;
    for (size_t i = 0; i <= count; i++)
        data[i] = is_sender(world) ? (float)(3 * i) : -1;
    CHECK(!closed || mprotect(data, bytes, PROT_NONE) == 0);
    if (is_sender(world))
        CHECK(kolo_send(world, data, count, KOLO_FP32, other(world)) == KOLO_OK);
    else
        CHECK(kolo_recv(world, data, count, KOLO_FP32, other(world)) == KOLO_OK);
    CHECK(!closed || mprotect(data, bytes, PROT_READ | PROT_WRITE) == 0);
    for (size_t i = 0; i < count; i++)
        CHECK(data[i] == (float)(3 * i));
    CHECK(is_sender(world) || data[count] == -1);
}

static void carries(kolo_comm *world)
{
    static const size_t COUNTS[] = {1, SHORT, LONG};
    for (size_t i = 0; i < sizeof COUNTS / sizeof *COUNTS; i++)
        for (enum where from = IN_GPU; from < PLACES; from++)
            for (enum where to = IN_GPU; to < PLACES; to++) {
                enum where mine = is_sender(world) ? from : to;
                bool cards_reach = from != ANYWHERE && to != ANYWHERE &&
                                   (straight || (from == IN_HEAP && to == IN_HEAP));
                uint64_t before = straight_bytes(world);
                float *data = take(world, mine, COUNTS[i] + 1);
                carry(world, data, COUNTS[i],
                      straight && cards_reach && mine == IN_GPU && COUNTS[i] == LONG);
                CHECK(!is_sender(world) ||
                      straight_bytes(world) - before ==
                          (cards_reach && COUNTS[i] == LONG ? LONG * sizeof *data : 0));
                give_back(world, mine, data);
            }
    still_works(world);
}

/* New memory under an old address. */
static void is_never_stale(kolo_comm *world)
{
    const float *before = NULL;
    int again = 0;
    for (int i = 0; i < 6; i++) {
        float *data = take(world, IN_GPU, LONG + 1);
        again += data == before;
        before = data;
        carry(world, data, LONG, straight);
        give_back(world, IN_GPU, data);
    }
    CHECK(again > 0);
    CHECK(!is_sender(world) || straight_bytes(world) == (straight ? 6 * LONG * sizeof(float) : 0));
    still_works(world);
}

static atomic_int *pending(void)
{
    return of_driver("standin_pending");
}

/* What the sender's GPU is not through with is not sent, nor what is behind it. */
static void waits_for_the_senders_gpu(kolo_comm *world)
{
    float *data = take(world, IN_GPU, LONG), host[8] = {0};
    kolo_request *of_gpu, *of_host;
    still_works(world);
    if (!is_sender(world)) {
        CHECK(kolo_recv(world, data, LONG, KOLO_FP32, 0) == KOLO_OK && data[LONG - 1] == LONG);
        CHECK(kolo_recv(world, host, 8, KOLO_FP32, 0) == KOLO_OK && host[7] == 8);
        return;
    }
    host[7] = 8;
    atomic_store(pending(), 1);
    CHECK(kolo_send_start(world, data, LONG, KOLO_FP32, 1, &of_gpu) == KOLO_OK);
    CHECK(kolo_send_start(world, host, 8, KOLO_FP32, 1, &of_host) == KOLO_OK);
    for (int i = 0; i < 1000; i++)
        CHECK(kolo_test(&of_host) == KOLO_AGAIN && kolo_test(&of_gpu) == KOLO_AGAIN);
    CHECK(!of_gpu->begun && !of_host->begun && world->held == 1);
    atomic_store(pending(), 0);
    CHECK(kolo_wait(&of_host, -1) == KOLO_OK && kolo_wait(&of_gpu, -1) == KOLO_OK);
    CHECK(world->held == 0);
}

/* What the receiver's GPU may still read is not written; and it is not waited for. */
static void is_beside_the_receivers_gpu(kolo_comm *world)
{
    float *data = take(world, IN_GPU, LONG + 1), host[8] = {0};
    kolo_request *of_gpu, *of_host;
    still_works(world);
    if (is_sender(world)) {
        carry(world, data, LONG, false);
        CHECK(kolo_send(world, host, 8, KOLO_FP32, 1) == KOLO_OK);
        CHECK(straight_bytes(world) == 0);
    } else {
        memset(data, 0, (LONG + 1) * sizeof *data);
        atomic_store(pending(), 1);
        CHECK(kolo_recv_start(world, data, LONG, KOLO_FP32, 0, &of_gpu) == KOLO_OK);
        CHECK(kolo_recv_start(world, host, 8, KOLO_FP32, 0, &of_host) == KOLO_OK);
        CHECK(kolo_wait(&of_host, -1) == KOLO_OK && kolo_wait(&of_gpu, -1) == KOLO_OK);
        atomic_store(pending(), 0);
        for (size_t i = 0; i < LONG; i++)
            CHECK(data[i] == (float)(3 * i));
    }
    carry(world, data, LONG, straight);
    CHECK(!is_sender(world) || straight_bytes(world) == (straight ? LONG * sizeof *data : 0));
}

/* Where the GPU does not keep the order, each message that came straight ends with a flush, and no
 * other does. */
static void is_flushed(kolo_comm *world)
{
    atomic_int *flushes = of_driver("standin_count_flushes");
    float *data = take(world, IN_GPU, LONG + 1);
    carry(world, data, LONG, straight);
    int begun = atomic_load(flushes); /* one was a trial */
    for (int i = 1; i <= 3; i++) {
        carry(world, data, LONG, straight);
        CHECK(atomic_load(flushes) - begun == (straight && !is_sender(world) ? i : 0));
    }
    carry(world, data, SHORT, false);
    CHECK(atomic_load(flushes) - begun == (straight && !is_sender(world) ? 3 : 0));
}

/* The peer gives up while the card may write. */
static void is_given_up(kolo_comm *world)
{
    float *data = take(world, IN_GPU, LONG);
    kolo_request *request;
    still_works(world);
    if (is_sender(world))
        _exit(0);
    CHECK(kolo_recv_start(world, data, LONG, KOLO_FP32, 0, &request) == KOLO_OK);
    CHECK(kolo_wait(&request, -1) == KOLO_ERR_PEER_LOST);
}

#define WORLD_TEST(name, script)                                                                   \
    static void test_##name(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        in_world(script, script, name);                                                            \
    }

WORLD_TEST(carries, "/ipc")
WORLD_TEST(is_never_stale, "/ipc")
WORLD_TEST(waits_for_the_senders_gpu, "/ipc")
WORLD_TEST(is_beside_the_receivers_gpu, "/ipc")
WORLD_TEST(is_flushed, "/ipc disorder")
WORLD_TEST(is_given_up, "/ipc")

int main(int argc, char **argv)
{
    straight = argc > 1 && strcmp(argv[1], "straight") == 0;
    setenv("KOLO_NCCL", "off", 1);
    setenv("KOLO_TRANSPORT", "rdma", 1);
    use_driver("running");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_carries),
        cmocka_unit_test(test_is_never_stale),
        cmocka_unit_test(test_waits_for_the_senders_gpu),
        cmocka_unit_test(test_is_beside_the_receivers_gpu),
        cmocka_unit_test(test_is_flushed),
        cmocka_unit_test(test_is_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
