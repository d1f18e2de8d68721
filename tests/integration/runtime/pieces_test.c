/* SPDX-License-Identifier: Apache-2.0 */
/* An allreduce of a buffer in pieces, in real processes: the bits of a contiguous one. */
#include "member.h"
#include "runtime/call.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

enum { PIECES = 300 };

static struct kolo__piece pieces[PIECES];
static size_t count;

static size_t length_of(unsigned k)
{
    return (k + 1 < PIECES ? pieces[k + 1].first : count) - pieces[k].first;
}

/* Ranks cut differently, and at other places in every round. Each third piece is one element. */
static int cut(unsigned round)
{
    size_t width = count / PIECES;
    for (unsigned k = 0; k < PIECES; k++) {
        size_t within = (k * 7919 + round * 104729 + (unsigned)rank * 31) % width;
        within = k % 3 == 0 ? 0 : k % 3 == 2 ? width - 1 : within;
        pieces[k].first = k * width + within;
    }
    for (unsigned k = 0; k < PIECES; k++) {
        size_t bytes = length_of(k) * sizeof(float);
        pieces[k].data = malloc(bytes);
        CHECK(pieces[k].data != NULL);
    }
    return 0;
}

static int compare(kolo_op op, double scale, const float *values, float *expected)
{
    const kolo_call_options options = {
        .size = sizeof options, .scale = scale, .algorithm = "shm_direct"};
    kolo_request *request;
    memcpy(expected, values, count * sizeof *expected);
    CHECK(kolo_allreduce(comm, expected, expected, count, KOLO_FP32, op, &options) == KOLO_OK);
    for (unsigned k = 0; k < PIECES; k++)
        memcpy(pieces[k].data, values + pieces[k].first, length_of(k) * sizeof(float));
    CHECK(kolo__allreduce_pieces_start(comm, "test", pieces, PIECES, count, KOLO_FP32, op, scale,
                                       &request) == KOLO_OK);
    CHECK(kolo_wait(&request, -1) == KOLO_OK);
    for (unsigned k = 0; k < PIECES; k++)
        CHECK(memcmp(pieces[k].data, expected + pieces[k].first, length_of(k) * sizeof(float)) ==
              0);
    return 0;
}

static int same_bits(void)
{
    enum { COUNT = 1000003 };
    static float values[COUNT], expected[COUNT];
    CHECK(join() == 0);
    count = COUNT;
    for (size_t i = 0; i < count; i++)
        values[i] = (float)((i * 2654435761u + (unsigned)rank * 40503u) % 1000003) / 9973 - 50;
    for (unsigned round = 0; round < 3; round++) {
        CHECK(cut(round) == 0);
        CHECK(compare(KOLO_SUM, 0, values, expected) == 0);
        CHECK(compare(KOLO_AVERAGE, 0, values, expected) == 0);
        CHECK(compare(KOLO_PREMUL_SUM, 0.3 + rank, values, expected) == 0);
        for (unsigned k = 0; k < PIECES; k++)
            free(pieces[k].data);
    }
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

/* Who has a contiguous buffer meets who has not. */
static int meets_contiguous(void)
{
    const kolo_call_options options = {.size = sizeof options, .algorithm = "shm_direct"};
    enum { COUNT = 200000 };
    void *memory;
    CHECK(join() == 0);
    CHECK(kolo_alloc(context, COUNT * sizeof(int32_t), &memory) == KOLO_OK);
    int32_t *values = memory;
    struct kolo__piece two[2] = {{0, memory}, {COUNT / 3, memory}};
    two[1].data += COUNT / 3 * sizeof(int32_t);
    for (int i = 0; i < COUNT; i++)
        values[i] = i + rank;
    kolo_request *request;
    if (rank == 0)
        CHECK(kolo_allreduce_start(comm, values, values, COUNT, KOLO_INT32, KOLO_SUM, &options,
                                   &request) == KOLO_OK);
    else
        CHECK(kolo__allreduce_pieces_start(comm, "test", two, 2, COUNT, KOLO_INT32, KOLO_SUM, 0,
                                           &request) == KOLO_OK);
    CHECK(kolo_wait(&request, -1) == KOLO_OK);
    for (int i = 0; i < COUNT; i++)
        CHECK(values[i] == size * i + size * (size - 1) / 2);
    kolo_free(context, memory);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static int refused_without_shared_memory(void)
{
    float value = 1;
    const struct kolo__piece piece = {.first = 0, .data = (unsigned char *)&value};
    kolo_request *request;
    CHECK(join() == 0);
    CHECK(kolo__allreduce_pieces_start(comm, "test", &piece, 1, 1, KOLO_FP32, KOLO_SUM, 0,
                                       &request) == KOLO_ERR_UNSUPPORTED);
    CHECK(request == NULL);
    CHECK(strstr(kolo_error_text(), "test: a buffer in pieces needs ranks that share memory") !=
          NULL);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void run(const char *transport, int ranks, int (*rank_main)(void))
{
    const char *const environment[] = {transport, "KOLO_TIMEOUT=30", "KOLO_ALGORITHM=", NULL};
    struct world_result result = world_run(ranks, environment, rank_main);
    world_assert_all_passed(&result, ranks);
}

static void test_same_bits(void **state)
{
    (void)state;
    run("KOLO_TRANSPORT=shm", 2, same_bits);
    run("KOLO_TRANSPORT=shm", 3, same_bits);
}

static void test_meets_contiguous(void **state)
{
    (void)state;
    run("KOLO_TRANSPORT=shm", 3, meets_contiguous);
}

static void test_refused(void **state)
{
    (void)state;
    run("KOLO_TRANSPORT=tcp", 2, refused_without_shared_memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_meets_contiguous),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
