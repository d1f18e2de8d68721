/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buffers in a GPU's memory that go through the host's (runtime/staging.h), in a world of two
 * processes with the stand-in for the driver: every collective against what the same call makes of
 * buffers on the host, in one chunk and in several, and what is asked of the driver's streams.
 */
#include "cases.h"
#include "kernels/device.h"
#include "runtime/call.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* LONG: three chunks of fp64 in an allreduce, the last one shorter; several in all others. */
enum { SHORT = 1001, LONG = 1100003, ELEMENT_MOST = 8 };

struct collective {
    enum kolo__collective is;
    bool in_place;
    kolo_dtype dtype;
    kolo_op op;
};

static const struct collective COLLECTIVES[] = {
    {KOLO__ALLREDUCE, false, KOLO_FP64, KOLO_SUM},
    {KOLO__ALLREDUCE, true, KOLO_INT16, KOLO_SUM},
    {KOLO__ALLREDUCE, false, KOLO_INT32, KOLO_AVERAGE},
    {KOLO__ALLREDUCE, true, KOLO_UINT64, KOLO_XOR},
    {KOLO__ALLREDUCE, false, KOLO_FP32, KOLO_PREMUL_SUM},
    {KOLO__REDUCE_SCATTER, false, KOLO_FP32, KOLO_PREMUL_SUM},
    {KOLO__REDUCE_SCATTER, true, KOLO_FP64, KOLO_MAX},
    {KOLO__ALLGATHER, false, KOLO_BF16, 0},
    {KOLO__ALLGATHER, true, KOLO_FP64, 0},
    {KOLO__BROADCAST, true, KOLO_FP64, 0},
    {KOLO__REDUCE_TO_ROOT, false, KOLO_FP64, KOLO_MIN},
    {KOLO__REDUCE_TO_ROOT, true, KOLO_INT64, KOLO_AND},
    {KOLO__ALLTOALL, false, KOLO_FP64, 0},
};

/* Whole numbers of 16 bits, so that sums are exact and NaN is nowhere. */
static void fill(void *memory, kolo_dtype dtype, size_t count, int seed)
{
    for (size_t i = 0; i < count; i++) {
        int value = (int)((i * 7 + (size_t)seed * 13) % 101);
        switch (dtype) {
        case KOLO_FP64:
            ((double *)memory)[i] = value;
            break;
        case KOLO_FP32:
            ((float *)memory)[i] = (float)value;
            break;
        default:
            memset((char *)memory + i * kolo_dtype_bytes(dtype), value & 63,
                   kolo_dtype_bytes(dtype));
            break;
        }
    }
}

static kolo_status call(kolo_comm *world, const struct collective *c, void *from, void *to,
                        size_t count, const kolo_call_options *options)
{
    size_t slice = count * kolo_dtype_bytes(c->dtype);
    const void *send = c->in_place ? to : from;
    switch (c->is) {
    case KOLO__REDUCE_SCATTER:
        return kolo_reduce_scatter(world, send, c->in_place ? (char *)to + world->rank * slice : to,
                                   count, c->dtype, c->op, options);
    case KOLO__ALLGATHER:
        return kolo_allgather(world, c->in_place ? (char *)to + world->rank * slice : from, to,
                              count, c->dtype, options);
    case KOLO__BROADCAST:
        return kolo_broadcast(world, to, count, c->dtype, 1, options);
    case KOLO__REDUCE_TO_ROOT:
        return kolo_reduce(world, send, to, count, c->dtype, c->op, 1, options);
    case KOLO__ALLTOALL:
        return kolo_alltoall(world, from, to, count, c->dtype, options);
    default:
        return kolo_allreduce(world, send, to, count, c->dtype, c->op, options);
    }
}

/* All of memory is compared: what no result belongs to stays as it was. */
static void compare(kolo_comm *world, const struct collective *c, size_t count)
{
    size_t elements = RANKS * count, bytes = elements * kolo_dtype_bytes(c->dtype);
    static char stream;
    kolo_call_options options = {.size = sizeof options, .scale = 0.5 + world->rank};
    char *from = (char *)device_memory((bytes + 3) / 4),
         *to = (char *)device_memory((bytes + 3) / 4);
    char *host_from = malloc(bytes), *host_to = malloc(bytes);
    CHECK(host_from != NULL && host_to != NULL);
    fill(from, c->dtype, elements, (int)world->rank);
    fill(to, c->dtype, elements, 5 + (int)world->rank);
    memcpy(host_from, from, bytes);
    memcpy(host_to, to, bytes);
    CHECK(call(world, c, host_from, host_to, count, &options) == KOLO_OK);
    options.stream = &stream;
    CHECK(call(world, c, from, to, count, &options) == KOLO_OK);
    if (memcmp(to, host_to, bytes) != 0 || memcmp(from, host_from, bytes) != 0)
        fprintf(stderr, "rank %u: collective %d dtype %d count %zu\n", world->rank, (int)c->is,
                (int)c->dtype, count);
    CHECK(memcmp(to, host_to, bytes) == 0 && memcmp(from, host_from, bytes) == 0);
    release(from);
    release(to);
    free(host_from);
    free(host_to);
}

static void is_the_same(kolo_comm *world)
{
    for (size_t i = 0; i < sizeof COLLECTIVES / sizeof *COLLECTIVES; i++) {
        compare(world, &COLLECTIVES[i], 1);
        compare(world, &COLLECTIVES[i], SHORT);
        compare(world, &COLLECTIVES[i], LONG);
    }
}

/* NCCL is there, and has no such type, operation or algorithm. */
static void what_nccl_lacks(kolo_comm *world)
{
    float *data = device_memory(SHORT);
    int16_t *words = (int16_t *)data;
    const kolo_call_options ring = {.size = sizeof ring, .algorithm = "ring"};
    memset(data, 0, SHORT * sizeof *data);
    words[1] = 3;
    CHECK(kolo_allreduce(world, words, words, SHORT, KOLO_INT16, KOLO_SUM, NULL) == KOLO_OK);
    CHECK(words[0] == 0 && words[1] == 3 * RANKS);
    data[1] = 3;
    CHECK(kolo_allreduce(world, data, data, SHORT, KOLO_FP32, KOLO_SUM, &ring) == KOLO_OK);
    CHECK(data[1] == 3 * RANKS);
    CHECK(kolo_join(world, NULL) == KOLO_ERR_UNSUPPORTED && said("go through the host"));
    data[1] = 3;
    CHECK(kolo_allreduce(world, data, data, SHORT, KOLO_FP32, KOLO_SUM, NULL) == KOLO_OK);
    CHECK(data[1] == 3 * RANKS &&
          strncmp(of_standin("whole", "standin_last"), "AllReduce", 9) == 0);
    still_works(world);
}

/* Several under way, and messages and host buffers between them. */
static void takes_turns(kolo_comm *world)
{
    float *a = device_memory(LONG), *b = device_memory(LONG);
    kolo_request *requests[3];
    int one = 1, sum = 0;
    CHECK(kolo_allreduce_start(world, a, a, LONG, KOLO_FP32, KOLO_MAX, NULL, &requests[0]) ==
          KOLO_OK);
    CHECK(kolo_allreduce_start(world, &one, &sum, 1, KOLO_INT32, KOLO_SUM, NULL, &requests[1]) ==
          KOLO_OK);
    CHECK(kolo_allreduce_start(world, b, b, LONG, KOLO_FP32, KOLO_SUM, NULL, &requests[2]) ==
          KOLO_OK);
    for (int i = 2; i >= 0; i--)
        CHECK(kolo_wait(&requests[i], -1) == KOLO_OK);
    CHECK(sum == RANKS && a[LONG - 1] == (float)LONG && b[LONG - 1] == (float)RANKS * LONG);
}

/* A slot is read when the GPU has filled it, not before. */
static void waits_for_the_gpu(kolo_comm *world)
{
    float *data = device_memory(SHORT);
    kolo_request *request;
    CHECK(kolo_allreduce(world, data, data, SHORT, KOLO_FP32, KOLO_MAX, NULL) == KOLO_OK);
    atomic_store((atomic_int *)of_driver("standin_pending"), 1);
    CHECK(kolo_allreduce_start(world, data, data, SHORT, KOLO_FP32, KOLO_SUM, NULL, &request) ==
          KOLO_OK);
    for (int i = 0; i < 100; i++)
        CHECK(kolo_test(&request) == KOLO_AGAIN);
    CHECK(data[1] == 2);
    atomic_store((atomic_int *)of_driver("standin_pending"), 0);
    CHECK(kolo_wait(&request, -1) == KOLO_OK && data[1] == 2 * RANKS);
}

static void gpu_never_ends(kolo_comm *world)
{
    float *data = device_memory(SHORT);
    CHECK(kolo_allreduce(world, data, data, SHORT, KOLO_FP32, KOLO_SUM, NULL) == KOLO_ERR_TIMEOUT);
    CHECK(said("chunk 1 of 1: the GPU, or what its stream had before"));
}

static void gpu_fails(kolo_comm *world)
{
    float *data = device_memory(SHORT);
    CHECK(kolo_allreduce(world, data, data, SHORT, KOLO_FP32, KOLO_SUM, NULL) == KOLO_OK);
    let_rank_1_go_on(world);
    if (world->rank == 1)
        atomic_store((atomic_int *)of_driver("standin_late"), 700);
    CHECK(kolo_allreduce(world, data, data, SHORT, KOLO_FP32, KOLO_SUM, NULL) == KOLO_ERR_DEVICE);
    CHECK(said("copying between GPU 1 and the host failed on rank 1 (host ") &&
          said("STANDIN_ERROR_700"));
}

/* Pinned memory is refused on one rank, and for good; both hear why. */
static void no_memory(kolo_comm *world)
{
    float *data = device_memory(SHORT);
    if (world->rank == 1)
        setenv("STANDIN_CUDA", "memory", 1);
    for (int i = 0; i < 2; i++) {
        CHECK(kolo_allreduce(world, data, data, SHORT, KOLO_FP32, KOLO_SUM, NULL) ==
              KOLO_ERR_MEMORY);
        CHECK(said("KOLO_NCCL=off") && said("on rank 1 (host ") && said("copy them to"));
    }
    still_works(world);
}

static void calls_differ(kolo_comm *world)
{
    float *data = device_memory(SHORT);
    size_t count = SHORT - world->rank;
    CHECK(kolo_allreduce(world, data, data, count, KOLO_FP32, KOLO_SUM, NULL) == KOLO_ERR_MISMATCH);
    CHECK(said("1001") && said("1000"));
}

static void peer_dies(kolo_comm *world)
{
    float *data = device_memory(LONG);
    CHECK(kolo_allreduce(world, data, data, LONG, KOLO_FP32, KOLO_SUM, NULL) == KOLO_OK);
    let_rank_1_go_on(world);
    if (world->rank == 1)
        _exit(0);
    CHECK(kolo_allreduce(world, data, data, LONG, KOLO_FP32, KOLO_SUM, NULL) == KOLO_ERR_PEER_LOST);
}

static void is_captured(kolo_comm *world)
{
    float *data = device_memory(SHORT);
    atomic_store((atomic_int *)of_driver("standin_capturing"), 1);
    CHECK(kolo_allreduce(world, data, data, SHORT, KOLO_FP32, KOLO_SUM, NULL) ==
          KOLO_ERR_UNSUPPORTED);
    CHECK(said("KOLO_NCCL=off") && said("cannot be captured"));
    atomic_store((atomic_int *)of_driver("standin_capturing"), 0);
    CHECK(kolo_allreduce(world, data, data, SHORT, KOLO_FP32, KOLO_SUM, NULL) == KOLO_OK);
    still_works(world);
}

/* a: the caller's stream; b, c: from the GPU and to it. 1: what the caller had; 2 and 4: a slot is
 * drained; 3 and 5: it is filled. */
static void is_in_order(kolo_comm *world)
{
    double *data = (double *)(void *)device_memory(2 * LONG);
    char *trace = of_driver("standin_trace");
    static char stream;
    const kolo_call_options options = {.size = sizeof options, .stream = &stream};
    for (int i = 0; i < 2; i++) { /* the same when the slots have been used */
        trace[0] = '\0';
        CHECK(kolo_allreduce(world, data, data, SHORT, KOLO_FP64, KOLO_MAX, &options) == KOLO_OK);
        CHECK(strcmp(trace, "Ra1 Wb1 Wc1 Wb2 Cb Rb3 Cc Rc2 Wa2") == 0);
        trace[0] = '\0';
        CHECK(kolo_allreduce(world, data, data, LONG, KOLO_FP64, KOLO_MAX, &options) == KOLO_OK);
        CHECK(strcmp(trace, "Ra1 Wb1 Wc1 Wb2 Cb Rb3 Wb4 Cb Rb5 Cc Rc2 Wb2 Cb Rb3 Cc Rc4 Cc Rc2 "
                            "Wa2") == 0);
    }
    trace[0] = '\0';
    CHECK(kolo_broadcast(world, data, SHORT, KOLO_FP64, 1, &options) == KOLO_OK);
    CHECK(strcmp(trace, world->rank == 1 ? "Ra1 Wb1 Wc1 Wb2 Cb Rb3 Rc2 Wa2"
                                         : "Ra1 Wb1 Wc1 Wb2 Rb3 Cc Rc2 Wa2") == 0);
}

/* A communicator's plans are more than it keeps, and chunks' are among them. */
static void has_many_plans(kolo_comm *world)
{
    float *data = device_memory(SHORT);
    for (size_t count = 1; count <= 600; count++)
        CHECK(kolo_allreduce(world, data, data, count, KOLO_FP32, KOLO_MAX, NULL) == KOLO_OK);
    for (size_t count = 600; count > 0; count--)
        CHECK(kolo_allreduce(world, data, data, count, KOLO_FP32, KOLO_MAX, NULL) == KOLO_OK);
    CHECK(data[599] == 600 && world->plans.count <= KOLO__PLANS_MAX);
}

static void without_nccl(const char *first, const char *second, void (*body)(kolo_comm *world))
{
    setenv("KOLO_NCCL", "off", 1);
    in_world(first, second, body);
    unsetenv("KOLO_NCCL");
}

#define HOST_CASE(name, first, second)                                                             \
    static void test_##name(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        without_nccl(first, second, name);                                                         \
    }

HOST_CASE(takes_turns, "", "")
HOST_CASE(waits_for_the_gpu, "", "")
HOST_CASE(gpu_fails, "", "")
HOST_CASE(no_memory, "", "")
HOST_CASE(calls_differ, "", "")
HOST_CASE(peer_dies, "", "")
HOST_CASE(is_captured, "", "")
HOST_CASE(is_in_order, "", "")
HOST_CASE(has_many_plans, "", "")
WORLD_CASE(what_nccl_lacks, "", "")

/* Where ranks share memory, and where they do not. */
static void test_is_the_same(void **state)
{
    (void)state;
    without_nccl("", "", is_the_same);
    setenv("KOLO_TRANSPORT", "tcp", 1);
    without_nccl("", "", is_the_same);
    unsetenv("KOLO_TRANSPORT");
}

static void test_gpu_never_ends(void **state)
{
    (void)state;
    setenv("KOLO_TIMEOUT", "2", 1);
    without_nccl("/pending", "/pending", gpu_never_ends);
    unsetenv("KOLO_TIMEOUT");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_is_the_same),    cmocka_unit_test(test_what_nccl_lacks),
        cmocka_unit_test(test_takes_turns),    cmocka_unit_test(test_waits_for_the_gpu),
        cmocka_unit_test(test_gpu_never_ends), cmocka_unit_test(test_gpu_fails),
        cmocka_unit_test(test_no_memory),      cmocka_unit_test(test_calls_differ),
        cmocka_unit_test(test_peer_dies),      cmocka_unit_test(test_is_captured),
        cmocka_unit_test(test_has_many_plans), cmocka_unit_test(test_is_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
