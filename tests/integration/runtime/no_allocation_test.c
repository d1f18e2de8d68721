/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A repeated call allocates nothing, in no rank.
 */
#include "allocations.h"
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>

static float send_data[4 * 30000], recv_data[4 * 30000];

static int all_operations(kolo_comm *comm, size_t count)
{
    kolo_request *requests[2];
    int rank = kolo_comm_rank(comm), size = kolo_comm_size(comm);
    CHECK(kolo_allreduce(comm, send_data, recv_data, count, KOLO_FP32, KOLO_SUM, NULL) == 0);
    CHECK(kolo_allreduce(comm, send_data, send_data, count, KOLO_BF16, KOLO_AVERAGE, NULL) == 0);
    CHECK(kolo_reduce_scatter(comm, send_data, recv_data, count, KOLO_FP32, KOLO_MAX, NULL) == 0);
    CHECK(kolo_allgather(comm, send_data, recv_data, count, KOLO_FP32, NULL) == 0);
    CHECK(kolo_broadcast(comm, send_data, count, KOLO_FP32, 1, NULL) == 0);
    CHECK(kolo_reduce(comm, send_data, recv_data, count, KOLO_FP32, KOLO_SUM, 2, NULL) == 0);
    CHECK(kolo_alltoall(comm, send_data, recv_data, count, KOLO_FP32, NULL) == 0);
    CHECK(kolo_barrier(comm) == 0);
    CHECK(kolo_send_start(comm, send_data, count, KOLO_FP32, (rank + 1) % size, &requests[0]) == 0);
    CHECK(kolo_recv_start(comm, recv_data, count, KOLO_FP32, (rank + size - 1) % size,
                          &requests[1]) == 0);
    CHECK(kolo_wait(&requests[0], -1) == 0 && kolo_wait(&requests[1], -1) == 0);
    return 0;
}

static int repeat_without_allocating(void)
{
    static const size_t counts[] = {0, 1, 100, 30000};
    kolo_context *context;
    CHECK(kolo_init(NULL, &context) == KOLO_OK);
    kolo_comm *comm = kolo_world(context);
    for (size_t c = 0; c < 4; c++)
        for (int i = 0; i < 2; i++) /* twice: connections and free lists fill */
            CHECK(all_operations(comm, counts[c]) == 0);
    unsigned long before = allocations_so_far();
    CHECK(!allocations_are_counted() || before > 0);
    for (int i = 0; i < 20; i++)
        for (size_t c = 0; c < 4; c++)
            CHECK(all_operations(comm, counts[c]) == 0);
    CHECK(allocations_so_far() == before);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_repeated_calls(void **state)
{
    (void)state;
    /* Signs of life come from a thread beside, at any time. */
    static const char silent[] = "KOLO_PEER_TIMEOUT=0";
    static const char *const environments[][4] = {
        {silent, "KOLO_TRANSPORT=shm", NULL},
        {silent, "KOLO_TRANSPORT=tcp", NULL},
        {silent, "KOLO_TRANSPORT=tcp", "KOLO_ENCRYPT=1", NULL},
        {silent, "KOLO_ALGORITHM=ring", NULL},
        {silent, "KOLO_TIMELINE=timeline.json", NULL}};
    for (size_t i = 0; i < 5; i++) {
        struct world_result result = world_run(4, environments[i], repeat_without_allocating);
        world_assert_all_passed(&result, 4);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_repeated_calls)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
