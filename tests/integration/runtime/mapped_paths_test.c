/* SPDX-License-Identifier: Apache-2.0 */
/* How mapped operations travel, seen in the mailboxes: a small contribution beside its flag, and no
 * more fences than buffers need. */
#include "collectives/transport/shm_transport.h"
#include "member.h"
#include "runtime/comm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

enum { RANKS = 3, LARGE_BYTES = 8 << 20 };

static struct kolo__shm *shm(void)
{
    return kolo__shm_of(comm->mapping);
}

/* Whether this rank's last records hold these bytes beside the flag. */
static bool beside_a_flag(const void *values, size_t bytes)
{
    const struct kolo__shm_record *records = shm()->mailbox->records;
    return memcmp(records[0].small, values, bytes) == 0 ||
           memcmp(records[1].small, values, bytes) == 0;
}

static int small_ones_travel_beside_the_flag(void)
{
    float values[16], sums[16];
    CHECK(join() == 0);
    for (int i = 0; i < 16; i++)
        values[i] = (float)(100 * rank + i + 1);
    CHECK(kolo_allreduce(comm, values, sums, 12, KOLO_FP32, KOLO_SUM, NULL) == KOLO_OK);
    CHECK(beside_a_flag(values, 48));
    for (int i = 0; i < 16; i++)
        values[i] += 1000;
    CHECK(kolo_allreduce(comm, values, sums, 13, KOLO_FP32, KOLO_SUM, NULL) == KOLO_OK);
    CHECK(!beside_a_flag(values, 48));
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

/* Arrivals of one allreduce: the first fence is the record itself. */
static int arrivals_of_one(void *buffer, uint64_t *arrivals)
{
    CHECK(buffer != NULL);
    memset(buffer, 0, LARGE_BYTES);
    uint64_t before = shm()->arrivals;
    CHECK(kolo_allreduce(comm, buffer, buffer, LARGE_BYTES / 4, KOLO_FP32, KOLO_SUM, NULL) ==
          KOLO_OK);
    *arrivals = shm()->arrivals - before;
    return 0;
}

static int mapped_buffers_need_two_fences(void)
{
    uint64_t arrivals;
    void *mapped;
    CHECK(join() == 0);
    CHECK(kolo_alloc(context, LARGE_BYTES, &mapped) == KOLO_OK);
    CHECK(arrivals_of_one(mapped, &arrivals) == 0);
    CHECK(arrivals == 1);
    kolo_free(context, mapped);
    void *private = malloc(LARGE_BYTES);
    CHECK(arrivals_of_one(private, &arrivals) == 0);
    CHECK(arrivals == LARGE_BYTES / kolo__shm_window_bytes(RANKS, false)); /* one a window */
    free(private);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void run(int (*rank_main)(void))
{
    static const char *const environment[] = {"KOLO_TRANSPORT=shm", "KOLO_TIMEOUT=30",
                                              "KOLO_ALGORITHM=", NULL};
    struct world_result result = world_run(RANKS, environment, rank_main);
    world_assert_all_passed(&result, RANKS);
}

static void test_small(void **state)
{
    (void)state;
    run(small_ones_travel_beside_the_flag);
}

static void test_fences(void **state)
{
    (void)state;
    run(mapped_buffers_need_two_fences);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),
        cmocka_unit_test(test_fences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
