/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every collective, dtype and op, in and out of place, from kolo_alloc and from malloc, over every
 * transport, with real processes: compared with a reference computed from what each rank put in.
 * Small whole numbers are exact in every dtype and order, so results must be equal, not close.
 */
#include "collectives/transport/shm.h"
#include "kernels/kernels.h"
#include "member.h"
#include "runtime/comm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

/* What rank r holds at element i: 1 or 2, so that a product of 7 ranks fits int8 (2^7 > 127 wraps
 * alike everywhere). */
static int value_of(int r, size_t i)
{
    return 1 + (int)((i * 7 + (size_t)r * 3 + i / 5) % 2);
}

static void put(void *buffer, kolo_dtype dtype, size_t i, double value)
{
    char *at = (char *)buffer + i * kolo_dtype_bytes(dtype);
    int64_t whole = (int64_t)value;
    float single = (float)value;
    uint16_t half =
        dtype == KOLO_FP16 ? kolo__fp16_from_fp32(single) : kolo__bf16_from_fp32(single);
    switch (dtype) {
    case KOLO_FP64:
        memcpy(at, &value, 8);
        break;
    case KOLO_FP32:
        memcpy(at, &single, 4);
        break;
    case KOLO_FP16:
    case KOLO_BF16:
        memcpy(at, &half, 2);
        break;
    default: /* little endian: the low bytes are the wrapped number */
        memcpy(at, &whole, kolo_dtype_bytes(dtype));
    }
}

static double combined(kolo_op op, size_t i)
{
    int first = value_of(0, i), sum = 0, product = 1, least = first, most = first;
    int and_ = first, or_ = 0, xor_ = 0;
    for (int r = 0; r < size; r++) {
        int v = value_of(r, i);
        sum += op == KOLO_PREMUL_SUM ? v * (r + 1) : v;
        product *= v;
        least = v < least ? v : least;
        most = v > most ? v : most;
        and_ &= v;
        or_ |= v;
        xor_ ^= v;
    }
    switch (op) {
    case KOLO_SUM:
    case KOLO_PREMUL_SUM:
    case KOLO_AVERAGE:
        return sum;
    case KOLO_PRODUCT:
        return product;
    case KOLO_MIN:
        return least;
    case KOLO_MAX:
        return most;
    case KOLO_AND:
        return and_;
    case KOLO_OR:
        return or_;
    default:
        return xor_;
    }
}

/* The exact result as a number; an average is divided in the dtype's own arithmetic. */
static void put_result(void *buffer, kolo_dtype dtype, kolo_op op, size_t i, size_t element)
{
    double value = combined(op, element);
    if (op == KOLO_AVERAGE && dtype == KOLO_FP64)
        value /= size;
    else if (op == KOLO_AVERAGE && dtype >= KOLO_FP16)
        value = (float)value / (float)size;
    else if (op == KOLO_AVERAGE)
        value = trunc(value / size); /* exact: small integers */
    put(buffer, dtype, i, value);
}

struct buffers {
    bool from_heap;
    char *send, *recv, *expected;
};

static void *take(bool from_heap, size_t bytes)
{
    void *memory = NULL;
    if (!from_heap)
        return malloc(bytes + 1);
    return kolo_alloc(context, bytes + 1, &memory) == KOLO_OK ? memory : NULL;
}

static void give(bool from_heap, void *memory)
{
    if (from_heap)
        kolo_free(context, memory);
    else
        free(memory);
}

static void fill(void *buffer, kolo_dtype dtype, size_t count, int r, size_t first)
{
    for (size_t i = 0; i < count; i++)
        put(buffer, dtype, i, value_of(r, first + i));
}

static int check_reductions(const struct buffers *b, kolo_dtype dtype, kolo_op op, size_t count,
                            bool in_place)
{
    size_t bytes = kolo_dtype_bytes(dtype), n = (size_t)size;
    kolo_call_options options = {.size = sizeof options, .scale = rank + 1};
    char *recv = in_place ? b->send : b->recv;

    fill(b->send, dtype, count, rank, 0);
    for (size_t i = 0; i < count; i++)
        put_result(b->expected, dtype, op, i, i);
    CHECK(kolo_allreduce(comm, b->send, recv, count, dtype, op, &options) == KOLO_OK);
    CHECK(memcmp(recv, b->expected, count * bytes) == 0);

    int root = (int)(count % n);
    fill(b->send, dtype, count, rank, 0);
    CHECK(kolo_reduce(comm, b->send, rank == root ? recv : NULL, count, dtype, op, root,
                      &options) == KOLO_OK);
    CHECK(rank != root || memcmp(recv, b->expected, count * bytes) == 0);

    fill(b->send, dtype, n * count, rank, 0);
    recv = in_place ? b->send + (size_t)rank * count * bytes : b->recv;
    for (size_t i = 0; i < count; i++)
        put_result(b->expected, dtype, op, i, (size_t)rank * count + i);
    CHECK(kolo_reduce_scatter(comm, b->send, recv, count, dtype, op, &options) == KOLO_OK);
    CHECK(memcmp(recv, b->expected, count * bytes) == 0);
    return 0;
}

static int check_moves(const struct buffers *b, kolo_dtype dtype, size_t count, bool in_place)
{
    size_t bytes = kolo_dtype_bytes(dtype), n = (size_t)size;
    char *send = in_place ? b->recv + (size_t)rank * count * bytes : b->send;

    fill(send, dtype, count, rank, 0);
    for (int r = 0; r < size; r++)
        fill(b->expected + (size_t)r * count * bytes, dtype, count, r, 0);
    CHECK(kolo_allgather(comm, send, b->recv, count, dtype, NULL) == KOLO_OK);
    CHECK(memcmp(b->recv, b->expected, n * count * bytes) == 0);

    int root = (int)((count + 1) % n);
    fill(b->send, dtype, count, rank, 0);
    fill(b->expected, dtype, count, root, 0);
    CHECK(kolo_broadcast(comm, b->send, count, dtype, root, NULL) == KOLO_OK);
    CHECK(memcmp(b->send, b->expected, count * bytes) == 0);

    fill(b->send, dtype, n * count, rank, 0);
    for (int r = 0; r < size; r++)
        fill(b->expected + (size_t)r * count * bytes, dtype, count, r, (size_t)rank * count);
    CHECK(kolo_alltoall(comm, b->send, b->recv, count, dtype, NULL) == KOLO_OK);
    CHECK(memcmp(b->recv, b->expected, n * count * bytes) == 0);
    CHECK(kolo_barrier(comm) == KOLO_OK);
    return 0;
}

static int check_count(size_t count, kolo_dtype dtype, bool from_heap)
{
    size_t bytes = kolo_dtype_bytes(dtype) * count * (size_t)size;
    struct buffers b = {from_heap, take(from_heap, bytes), take(from_heap, bytes),
                        malloc(bytes + 1)};
    int failed = 0;
    if (b.send == NULL || b.recv == NULL || b.expected == NULL)
        abort();
    for (int in_place = 0; in_place < 2 && !failed; in_place++) {
        for (kolo_op op = 0; op < KOLO_OP_COUNT && !failed; op++)
            if (kolo__reduction_defined(dtype, op))
                failed = check_reductions(&b, dtype, op, count, in_place);
        failed = failed || check_moves(&b, dtype, count, in_place);
    }
    if (failed)
        fprintf(stderr, "with %zu x %s, %s\n", count, kolo_dtype_name(dtype),
                from_heap ? "kolo_alloc" : "malloc");
    give(from_heap, b.send);
    give(from_heap, b.recv);
    free(b.expected);
    return failed;
}

static int check_all(void)
{
    static const size_t counts[] = {0, 1, 7, 64, 1000, 20011};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
        for (kolo_dtype dtype = 0; dtype < KOLO_DTYPE_COUNT; dtype++) {
            /* the large counts in a few dtypes only: they are there for the segments */
            if (counts[c] > 1000 && dtype != KOLO_FP32 && dtype != KOLO_BF16 && dtype != KOLO_INT8)
                continue;
            CHECK(check_count(counts[c], dtype, false) == 0);
            CHECK(check_count(counts[c], dtype, true) == 0);
        }
    return 0;
}

static int all_collectives(void)
{
    CHECK(join() == 0);
    CHECK(check_all() == 0);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

/* Buffers from malloc are read where they are, whether that is faster here or not. */
static int all_by_reading(void)
{
    kolo__shm_cross_reads = KOLO__CROSS_READS_WHERE_PERMITTED;
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0); /* Yama: not only ancestors */
    CHECK(join() == 0);
    CHECK(check_all() == 0);
    CHECK(!comm->mapping->wants_cross_reads || comm->mapping->cross_read_bytes > 1000000);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

/* sizes end with 0. */
static void run_with(const int *sizes, const char *const *environment, int (*rank_main)(void))
{
    for (; *sizes > 0; sizes++) {
        struct world_result result = world_run(*sizes, environment, rank_main);
        world_assert_all_passed(&result, *sizes);
    }
}

static const int many_sizes[] = {1, 2, 3, 4, 7, 0}, few_sizes[] = {3, 4, 0};

static void test_shared_memory(void **state)
{
    (void)state;
    run_with(many_sizes, (const char *const[]){"KOLO_TRANSPORT=shm", NULL}, all_collectives);
}

static void test_tcp(void **state)
{
    (void)state;
    run_with(many_sizes, (const char *const[]){"KOLO_TRANSPORT=tcp", NULL}, all_collectives);
}

static void test_messages_through_shared_memory(void **state)
{
    (void)state;
    run_with(few_sizes, (const char *const[]){"KOLO_ALGORITHM=pairwise", NULL}, all_collectives);
}

static void test_tiny_segments(void **state)
{
    (void)state;
    run_with(few_sizes,
             (const char *const[]){"KOLO_ALGORITHM=ring", "KOLO_SEGMENT_BYTES=4000", NULL},
             all_collectives);
}

static void test_reading_peers_memory(void **state)
{
    (void)state;
    run_with(few_sizes, (const char *const[]){"KOLO_ALGORITHM=shm_direct", NULL}, all_by_reading);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shared_memory),
        cmocka_unit_test(test_tcp),
        cmocka_unit_test(test_messages_through_shared_memory),
        cmocka_unit_test(test_tiny_segments),
        cmocka_unit_test(test_reading_peers_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
