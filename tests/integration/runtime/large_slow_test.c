/* SPDX-License-Identifier: Apache-2.0 */
/* More than 2^31 bytes in one call: where 32-bit arithmetic would break. */
#include "world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

static const size_t COUNT = (1u << 31) + 4099; /* int8: bytes */

static int8_t pattern(size_t i, int rank)
{
    return (int8_t)((i * 2654435761u >> 13) % 50 + (size_t)rank);
}

static int reduce_large(void)
{
    kolo_context *context;
    CHECK(kolo_init(NULL, &context) == KOLO_OK);
    kolo_comm *comm = kolo_world(context);
    int rank = kolo_comm_rank(comm), size = kolo_comm_size(comm);
    int8_t *data = malloc(COUNT);
    CHECK(data != NULL);
    for (size_t i = 0; i < COUNT; i++)
        data[i] = pattern(i, rank);
    CHECK(kolo_allreduce(comm, data, data, COUNT, KOLO_INT8, KOLO_SUM, NULL) == KOLO_OK);
    for (size_t i = 0; i < COUNT; i++) {
        int8_t sum = 0;
        for (int r = 0; r < size; r++)
            sum = (int8_t)(sum + pattern(i, r));
        CHECK(data[i] == sum);
    }
    if (rank == 0)
        CHECK(kolo_send(comm, data, COUNT, KOLO_INT8, 1) == KOLO_OK);
    else
        CHECK(kolo_recv(comm, data, COUNT, KOLO_INT8, 0) == KOLO_OK);
    CHECK(data[COUNT - 1] == (int8_t)(pattern(COUNT - 1, 0) + pattern(COUNT - 1, 1)));
    free(data);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static long available_mib(void)
{
    long kib = 0;
    char line[128];
    FILE *file = fopen("/proc/meminfo", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "MemAvailable: %ld kB", &kib) == 1)
            break;
    if (file != NULL)
        fclose(file);
    return kib / 1024;
}

static void test_over_2_gib(void **state)
{
    (void)state;
    static const char *const environments[][2] = {
        {"KOLO_TRANSPORT=shm", NULL}, {"KOLO_TRANSPORT=tcp", NULL}, {"KOLO_ALGORITHM=ring", NULL}};
    for (size_t i = 0; i < 3; i++) {
        struct world_result result = world_run(2, environments[i], reduce_large);
        world_assert_all_passed(&result, 2);
    }
}

int main(void)
{
    if (available_mib() < 10 * 1024) {
        printf("skipped: this test needs 10 GiB of free memory, %ld MiB are there\n",
               available_mib());
        return 77;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_over_2_gib)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
