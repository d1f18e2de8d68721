/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Allreduces among GPUs by kolo's own kernels (runtime/exchange.h): 2 to 4 processes that map each
 * other's memory by the driver's stand-in, which runs the kernels in a thread, from the text that
 * nvcc compiles. That the bits are those of the host in the order of ranks, whichever way; that all
 * ranks go another way when one of them cannot go this; and that a kernel which waits for a rank
 * that does not come ends. Waiting for the stream is standin_synchronize, which hangs, until the
 * alarm, where that does not happen.
 */
#include "cases.h"
#include "base/random.h"
#include "kernels/device.h"
#include "kernels/kernels.h"
#include "runtime/comm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* LIMIT: KOLO_GPU_EXCHANGE, in bytes; beyond ONE_SHOT four ranks go in two steps. */
#define LIMIT "600000"
enum { LIMIT_BYTES = 600000, ONE_SHOT = 400000, COUNT = 1000, CALLS = 24 };

static void synchronize(void)
{
    void (*wait_for_kernels)(void);
    void *found = of_driver("standin_synchronize");
    memcpy(&wait_for_kernels, &found, sizeof wait_for_kernels);
    wait_for_kernels();
}

static int of_gpu(const char *what)
{
    return atomic_load((atomic_int *)of_driver(what));
}

static const char *nccls_last(void)
{
    return of_standin("whole", "standin_last");
}

/* Whether kolo's kernel did it: NCCL's stand-in knows no other rank, and would say so. */
static bool goes_by_kernel(kolo_comm *comm, float *data)
{
    int before = of_gpu("standin_count_launches");
    CHECK(kolo_allreduce(comm, data, data, COUNT, KOLO_FP32, KOLO_MAX, NULL) == KOLO_OK);
    synchronize();
    return of_gpu("standin_count_launches") == before + 1;
}

/* ---- bits ----------------------------------------------------------------------------------- */

static void fill(struct kolo__random *random, kolo_dtype dtype, unsigned char *to, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        float value = (float)((int)kolo__random_below(random, 4001) - 2000) / 64;
        double wide = value;
        uint16_t half =
            dtype == KOLO_FP16 ? kolo__fp16_from_fp32(value) : kolo__bf16_from_fp32(value);
        const void *from = dtype == KOLO_FP64   ? (const void *)&wide
                           : dtype == KOLO_FP32 ? (const void *)&value
                                                : (const void *)&half;
        memcpy(to + i * kolo_dtype_bytes(dtype), from, kolo_dtype_bytes(dtype));
    }
}

/* All ranks draw the same calls, and what the others contribute. */
static void is_the_host(kolo_comm *world)
{
    static const kolo_op ops[] = {KOLO_SUM, KOLO_AVERAGE, KOLO_PRODUCT, KOLO_MIN, KOLO_MAX};
    const int size = kolo_comm_size(world), rank = kolo_comm_rank(world);
    struct kolo__random random = {77};
    unsigned char *inputs[RANKS_MOST], *expected = malloc(LIMIT_BYTES);
    float *send = device_memory(LIMIT_BYTES / 4), *recv = device_memory(LIMIT_BYTES / 4);
    static char stream;
    const kolo_call_options options = {.size = sizeof options, .stream = &stream};
    const void *sources[RANKS_MOST];
    for (int r = 0; r < size; r++)
        sources[r] = inputs[r] = malloc(LIMIT_BYTES);
    for (int c = 0; c < CALLS; c++) {
        kolo_dtype dtype = (kolo_dtype)(KOLO_FP16 + kolo__random_below(&random, 4));
        kolo_op op = ops[kolo__random_below(&random, 5)];
        size_t element = kolo_dtype_bytes(dtype);
        size_t bytes = c == 0   ? LIMIT_BYTES
                       : c == 1 ? ONE_SHOT + 16
                                : element + kolo__random_below(&random, c % 2 ? 500 : 100000);
        size_t count = bytes / element;
        void *to = c % 3 == 0 ? send : recv;
        for (int r = 0; r < size; r++)
            fill(&random, dtype, inputs[r], count);
        memcpy(send, inputs[rank], count * element);
        memset(recv, 0xa5, LIMIT_BYTES);
        CHECK(kolo_allreduce(world, send, to, count, dtype, op, &options) == KOLO_OK);
        synchronize();
        const struct kolo__reduction reduction = {.dtype = dtype,
                                                  .op = op == KOLO_AVERAGE ? KOLO_SUM : op,
                                                  .divisor =
                                                      op == KOLO_AVERAGE ? (uint32_t)size : 1};
        kolo__reduce(&reduction, expected, sources, (uint32_t)size, count);
        CHECK(memcmp(to, expected, count * element) == 0);
    }
    CHECK(of_gpu("standin_count_launches") == CALLS && of_gpu("standin_count_mapped") == size - 1);
    CHECK(kolo_join(world, NULL) == KOLO_ERR_UNSUPPORTED && said("its GPUs exchange buffers"));
    still_works(world);
}

/* ---- which calls ---------------------------------------------------------------------------- */

static void takes_few_bytes_of_floats(kolo_comm *world)
{
    float *data = device_memory(LIMIT_BYTES);
    const kolo_call_options ring = {.size = sizeof ring, .algorithm = "ring"};
    CHECK(goes_by_kernel(world, data));
    CHECK(kolo_allreduce(world, data, data, LIMIT_BYTES / 4 + 1, KOLO_FP32, KOLO_SUM, NULL) ==
          KOLO_OK);
    CHECK(strncmp(nccls_last(), "AllReduce count=150001", 22) == 0);
    CHECK(kolo_allreduce(world, data, data, 5, KOLO_INT32, KOLO_SUM, NULL) == KOLO_OK);
    CHECK(strncmp(nccls_last(), "AllReduce count=5 ", 18) == 0);
    CHECK(kolo_broadcast(world, data, 7, KOLO_FP32, 0, NULL) == KOLO_OK);
    CHECK(strncmp(nccls_last(), "Broadcast count=28 ", 19) == 0);
    int before = of_gpu("standin_count_launches");
    CHECK(kolo_allreduce(world, data, data, 5, KOLO_FP32, KOLO_SUM, &ring) == KOLO_OK);
    CHECK(of_gpu("standin_count_launches") == before);
    CHECK(goes_by_kernel(world, data));
}

static void is_off(kolo_comm *world)
{
    float *data = device_memory(COUNT);
    CHECK(!goes_by_kernel(world, data) && strncmp(nccls_last(), "AllReduce", 9) == 0);
}

/* The event would be the graph's. */
static void is_captured(kolo_comm *world)
{
    float *data = device_memory(COUNT);
    CHECK(goes_by_kernel(world, data));
    int before = of_gpu("standin_count_records");
    atomic_store((atomic_int *)of_driver("standin_capturing"), 1);
    CHECK(goes_by_kernel(world, data) && of_gpu("standin_count_records") == before);
    atomic_store((atomic_int *)of_driver("standin_capturing"), 0);
    CHECK(goes_by_kernel(world, data) && of_gpu("standin_count_records") == before + 1);
}

/* A call follows the one before it, on whatever stream: a, b and a again; with an event each. */
static void is_in_order(kolo_comm *world)
{
    float *data = device_memory(COUNT);
    static char a, b;
    void *const streams[] = {&a, &b, &a};
    kolo_call_options options = {.size = sizeof options};
    CHECK(goes_by_kernel(world, data));
    atomic_store((atomic_int *)of_driver("standin_pending"), 1);
    char *trace = of_driver("standin_trace");
    trace[0] = '\0';
    for (int i = 0; i < 3; i++) {
        options.stream = streams[i];
        CHECK(kolo_allreduce(world, data, data, COUNT, KOLO_FP32, KOLO_MAX, &options) == KOLO_OK);
    }
    synchronize();
    const char *asked = strstr(trace, "Ka"); /* the first may follow the one before */
    CHECK(asked != NULL && strcmp(asked, trace[0] == 'W' ? "Ka Ra2 Wb2 Kb Rb3 Wa3 Ka Ra4"
                                                         : "Ka Ra1 Wb1 Kb Rb2 Wa2 Ka Ra3") == 0);
    atomic_store((atomic_int *)of_driver("standin_pending"), 0);
}

/* Each has its own; what is mapped goes with it. */
static void has_parts(kolo_comm *world)
{
    float *data = device_memory(COUNT);
    kolo_comm *part;
    for (int i = 0; i < 2; i++) {
        CHECK(goes_by_kernel(world, data) && of_gpu("standin_count_mapped") == 1);
        CHECK(kolo_comm_split(world, 0, -kolo_comm_rank(world), &part) == KOLO_OK);
        CHECK(goes_by_kernel(part, data) && of_gpu("standin_count_mapped") == 2);
        CHECK(kolo_comm_free(part) == KOLO_OK && of_gpu("standin_count_mapped") == 1);
    }
}

/* ---- not on one of them --------------------------------------------------------------------- */

/* Rank 0 says why, once; that is what the log ends up in. */
static void goes_another_way(kolo_comm *world, const char *words)
{
    float *data = device_memory(COUNT);
    char line[1024] = "";
    FILE *log = tmpfile();
    CHECK(log != NULL && dup2(fileno(log), STDERR_FILENO) >= 0);
    for (int i = 0; i < 2; i++)
        CHECK(!goes_by_kernel(world, data) && strncmp(nccls_last(), "AllReduce", 9) == 0);
    rewind(log);
    line[fread(line, 1, sizeof line - 1, log)] = '\0';
    const char *end = strchr(line, '\n');
    if (kolo_comm_rank(world) == 0)
        CHECK(strstr(line, words) != NULL && end != NULL && end[1] == '\0');
    else
        CHECK(line[0] == '\0');
    CHECK(of_gpu("standin_count_mapped") == 0);
    still_works(world);
}

static void not_mapped(kolo_comm *world)
{
    goes_another_way(world, "by KOLO_GPU_EXCHANGE here: on rank 1 (host ");
}

static void not_shared(kolo_comm *world)
{
    goes_another_way(world, "sharing memory of GPU 1");
}

static void one_gpu(kolo_comm *world)
{
    goes_another_way(world, "rank 0 and rank 1 have one GPU, 0000:01:00.0");
}

static void differs(kolo_comm *world)
{
    goes_another_way(world, "differs between rank 0 and rank 1");
}

/* ---- a rank that does not come -------------------------------------------------------------- */

/* Both have begun it; then rank 0 waits for its stream, in which a kernel waits for rank 1. */
static float *waits_for_rank_1(kolo_comm *world)
{
    float *data = device_memory(COUNT);
    CHECK(goes_by_kernel(world, data));
    let_rank_1_go_on(world);
    if (kolo_comm_rank(world) == 0)
        CHECK(kolo_allreduce(world, data, data, COUNT, KOLO_FP32, KOLO_SUM, NULL) == KOLO_OK);
    return data;
}

static void is_poisoned(kolo_comm *world, float *data, kolo_status status, const char *words)
{
    CHECK(kolo_allreduce(world, data, data, COUNT, KOLO_FP32, KOLO_SUM, NULL) == status);
    CHECK(said(words));
    CHECK(kolo_barrier(world) == status);
}

static void peer_dies(kolo_comm *world)
{
    float *data = waits_for_rank_1(world);
    if (kolo_comm_rank(world) == 1)
        _exit(0);
    synchronize();
    is_poisoned(world, data, KOLO_ERR_PEER_LOST, "rank 1");
}

static void another_thread_aborts(kolo_comm *world)
{
    float *data = waits_for_rank_1(world);
    if (kolo_comm_rank(world) == 1)
        CHECK(kolo_comm_abort(world, "enough") == KOLO_OK);
    synchronize();
    is_poisoned(world, data, KOLO_ERR_ABORTED, "aborted: enough");
}

/* Rank 1 calls nothing, but listens. */
static void listens(kolo_comm *world)
{
    while (kolo__comm_check(world, "test") == KOLO_OK)
        usleep(1000);
}

static void nobody_moves(kolo_comm *world)
{
    float *data = waits_for_rank_1(world);
    if (kolo_comm_rank(world) == 1)
        listens(world);
    synchronize();
    is_poisoned(world, data, KOLO_ERR_TIMEOUT, "did not finish within 2 s on GPU 1 of rank 0");
    CHECK(said("the exchange among GPUs waits for another rank"));
}

/* The kernel itself, since it was told to look a few times only. */
static void gives_up(kolo_comm *world)
{
    float *data = device_memory(COUNT);
    CHECK(goes_by_kernel(world, data));
    let_rank_1_go_on(world);
    atomic_store((atomic_int *)of_driver("standin_spins"), 1000);
    if (kolo_comm_rank(world) == 0)
        CHECK(kolo_allreduce(world, data, data, COUNT, KOLO_FP32, KOLO_SUM, NULL) == KOLO_OK);
    synchronize();
    listens(world);
    is_poisoned(world, data, KOLO_ERR_TIMEOUT, "the exchange among GPUs failed on rank 0 (host ");
    CHECK(said("the kernel of rank 1 (host "));
}

/* One goes by kernel, the other to NCCL: neither can see the other. */
static void calls_differ(kolo_comm *world)
{
    float *data = waits_for_rank_1(world), *more = device_memory(LIMIT_BYTES);
    if (kolo_comm_rank(world) == 1)
        CHECK(kolo_allreduce(world, more, more, LIMIT_BYTES, KOLO_FP32, KOLO_SUM, NULL) ==
              KOLO_ERR_MISMATCH);
    synchronize();
    is_poisoned(world, data, KOLO_ERR_MISMATCH, "(1000 x fp32, sum, exchange)");
}

static void gpu_fails(kolo_comm *world)
{
    float *data = waits_for_rank_1(world);
    if (kolo_comm_rank(world) == 0)
        atomic_store((atomic_int *)of_driver("standin_late"), 700);
    synchronize();
    listens(world);
    is_poisoned(world, data, KOLO_ERR_DEVICE, "the GPU failed on rank 0 (host ");
}

static void cannot_launch(kolo_comm *world)
{
    float *data = device_memory(COUNT);
    CHECK(goes_by_kernel(world, data));
    let_rank_1_go_on(world);
    if (kolo_comm_rank(world) == 1)
        atomic_store((atomic_int *)of_driver("standin_no_launch"), 701);
    kolo_status status = KOLO_OK;
    while (status == KOLO_OK) {
        status = kolo_allreduce(world, data, data, COUNT, KOLO_FP32, KOLO_SUM, NULL);
        synchronize();
    }
    CHECK(status == KOLO_ERR_DEVICE && said("the exchange among GPUs failed on rank 1 (host "));
}

/* ---- worlds --------------------------------------------------------------------------------- */

static const char *const GPUS[] = {"/ipc bus=1/" LIMIT, "/ipc bus=2/" LIMIT, "/ipc bus=3/" LIMIT,
                                   "/ipc bus=4/" LIMIT};

#define GPU_CASE(name)                                                                             \
    static void test_##name(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        in_ranks(2, GPUS, name);                                                                   \
    }

GPU_CASE(takes_few_bytes_of_floats)
GPU_CASE(is_captured)
GPU_CASE(is_in_order)
GPU_CASE(has_parts)
GPU_CASE(peer_dies)
GPU_CASE(another_thread_aborts)
GPU_CASE(gpu_fails)
GPU_CASE(calls_differ)
GPU_CASE(cannot_launch)
WORLD_CASE(is_off, "/ipc bus=1", "/ipc bus=2")
GPU_CASE(gives_up)

static void test_is_the_host(void **state)
{
    (void)state;
    for (int size = 2; size <= RANKS_MOST; size++)
        in_ranks(size, GPUS, is_the_host);
}

static void test_goes_another_way(void **state)
{
    (void)state;
    setenv("KOLO_LOG", "warn", 1);
    in_world("/ipc bus=1/" LIMIT, "/ipc bus=2 map=217/" LIMIT, not_mapped);
    in_world("/ipc bus=1 share=801/" LIMIT, "/ipc bus=2/" LIMIT, not_shared);
    in_world("/ipc/" LIMIT, "/ipc/" LIMIT, one_gpu);
    in_world("/ipc bus=1/" LIMIT, "/ipc bus=2/500000", differs);
    unsetenv("KOLO_LOG");
}

static void test_nobody_moves(void **state)
{
    (void)state;
    setenv("KOLO_TIMEOUT", "2", 1);
    in_ranks(2, GPUS, nobody_moves);
    unsetenv("KOLO_TIMEOUT");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_is_the_host),
        cmocka_unit_test(test_takes_few_bytes_of_floats),
        cmocka_unit_test(test_is_off),
        cmocka_unit_test(test_is_captured),
        cmocka_unit_test(test_has_parts),
        cmocka_unit_test(test_is_in_order),
        cmocka_unit_test(test_goes_another_way),
        cmocka_unit_test(test_peer_dies),
        cmocka_unit_test(test_another_thread_aborts),
        cmocka_unit_test(test_nobody_moves),
        cmocka_unit_test(test_gives_up),
        cmocka_unit_test(test_gpu_fails),
        cmocka_unit_test(test_calls_differ),
        cmocka_unit_test(test_cannot_launch),
    };
    use_driver("running");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
