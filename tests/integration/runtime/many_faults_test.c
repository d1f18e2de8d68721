/* SPDX-License-Identifier: Apache-2.0 */
/* However many communicators broke before: each new fault is heard at once, and the death of a
 * rank. */
#include "world.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { RANKS = 3, BROKEN = 70 };

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int break_many(void)
{
    kolo_context *context;
    float in[2] = {0}, out[2];
    CHECK(kolo_init(NULL, &context) == KOLO_OK);
    kolo_comm *world = kolo_world(context);
    size_t rank = (size_t)kolo_comm_rank(world);
    for (int i = 0; i < BROKEN; i++) {
        kolo_comm *comm;
        CHECK(kolo_comm_split(world, 0, 0, &comm) == KOLO_OK);
        double start = now();
        CHECK(kolo_allreduce(comm, in, out, rank == 1 ? 2 : 1, KOLO_FP32, KOLO_SUM, NULL) ==
              KOLO_ERR_MISMATCH);
        CHECK(now() - start < 5);
        CHECK(kolo_comm_free(comm) == KOLO_OK);
        CHECK(kolo_barrier(world) == KOLO_OK);
    }
    if (rank == 1)
        raise(SIGKILL);
    double start = now();
    CHECK(kolo_barrier(world) == KOLO_ERR_PEER_LOST);
    CHECK(now() - start < 5);
    CHECK(strstr(kolo_error_text(), "rank 1") != NULL);
    kolo_finalize(context);
    return 0;
}

static void test_no_fault_is_dropped(void **state)
{
    (void)state;
    static const char *const transports[][3] = {{"KOLO_TRANSPORT=shm", "KOLO_TIMEOUT=20", NULL},
                                                {"KOLO_TRANSPORT=tcp", "KOLO_TIMEOUT=20", NULL}};
    for (int t = 0; t < 2; t++) {
        struct world_result result = world_run(RANKS, transports[t], break_many);
        assert_int_equal(result.status[0], 0);
        assert_true(WIFSIGNALED(result.status[1]));
        assert_int_equal(result.status[2], 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_fault_is_dropped)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
