/* SPDX-License-Identifier: Apache-2.0 */
/* kolo_comm_free is local: in any order, at any time, also while others are still in the operation
 * that this rank has finished; and it disturbs no other communicator. */
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RANKS = 4, COMMS = 6, COUNT_MAX = 1 << 18 };

static const size_t counts[] = {0, 3, COUNT_MAX};

static kolo_status sum_of_ones(kolo_comm *comm, float *sum)
{
    float one = 1;
    return kolo_allreduce(comm, &one, sum, 1, KOLO_FP32, KOLO_SUM, NULL);
}

static int free_in_an_order_of_its_own(void)
{
    kolo_context *context;
    kolo_comm *comms[COMMS];
    float sum;
    CHECK(kolo_init(NULL, &context) == KOLO_OK);
    int rank = kolo_comm_rank(kolo_world(context));
    const char *wanted = getenv("KOLO_TRANSPORT");
    CHECK(wanted != NULL && strcmp(kolo_comm_transport(kolo_world(context)), wanted) == 0);
    CHECK(kolo_comm_transport(NULL) == NULL);
    CHECK(kolo_comm_rank(NULL) == -1 && kolo_comm_size(NULL) == -1);
    CHECK(kolo_comm_local_rank(NULL) == -1 && kolo_comm_local_size(NULL) == -1);
    for (int i = 0; i < COMMS; i++) {
        CHECK(kolo_comm_split(kolo_world(context), 0, 0, &comms[i]) == KOLO_OK);
        CHECK(sum_of_ones(comms[i], &sum) == KOLO_OK && sum == RANKS);
    }
    /* Each begins elsewhere; rank 3 leaves the last to kolo_finalize. */
    for (int i = 0; i < COMMS - (rank == 3); i++)
        CHECK(kolo_comm_free(comms[rank % 2 == 0 ? (rank + i) % COMMS : COMMS - 1 - i]) == KOLO_OK);
    CHECK(sum_of_ones(kolo_world(context), &sum) == KOLO_OK && sum == RANKS);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

/* Rank r joins in late by r * 15 ms; who is done frees at once. */
static int leave_the_slow_behind(kolo_comm *world, int root, size_t count, bool reduce,
                                 const char *algorithm)
{
    kolo_call_options options = {.size = sizeof options, .algorithm = algorithm};
    struct timespec late = {.tv_nsec = kolo_comm_rank(world) * 15000000L};
    kolo_comm *comm;
    kolo_status status;
    static int32_t in[COUNT_MAX], out[COUNT_MAX];
    CHECK(kolo_comm_split(world, 0, 0, &comm) == KOLO_OK);
    int rank = kolo_comm_rank(world);
    for (size_t i = 0; i < count; i++)
        in[i] = (int32_t)(i + 1) * (reduce ? rank + 1 : rank == root);
    nanosleep(&late, NULL);
    if (reduce)
        status = kolo_reduce(comm, in, out, count, KOLO_INT32, KOLO_SUM, root, &options);
    else
        status = kolo_broadcast(comm, in, count, KOLO_INT32, root, &options);
    CHECK(status == KOLO_OK);
    CHECK(kolo_comm_free(comm) == KOLO_OK);
    for (size_t i = 0; i < count; i++) {
        if (reduce && rank == root)
            CHECK(out[i] == (int32_t)(i + 1) * 10);
        if (!reduce)
            CHECK(in[i] == (int32_t)(i + 1));
    }
    return 0;
}

static int free_while_others_are_busy(void)
{
    const char *const algorithms[] = {"tree", "ring", NULL};
    kolo_context *context;
    CHECK(kolo_init(NULL, &context) == KOLO_OK);
    kolo_comm *world = kolo_world(context);
    for (unsigned a = 0; a < 3; a++)
        for (unsigned c = 0; c < 3; c++)
            for (int reduce = 0; reduce < 2; reduce++)
                for (int root = 0; root < RANKS; root += 3)
                    CHECK(leave_the_slow_behind(world, root, counts[c], reduce != 0,
                                                algorithms[a]) == 0);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_any_order(void **state)
{
    (void)state;
    world_run_over_both(RANKS, "KOLO_TIMEOUT=30", free_in_an_order_of_its_own);
}

static void test_the_slow_are_not_disturbed(void **state)
{
    (void)state;
    world_run_over_both(RANKS, "KOLO_TIMEOUT=30", free_while_others_are_busy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_order),
        cmocka_unit_test(test_the_slow_are_not_disturbed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
