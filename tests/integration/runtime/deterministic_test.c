/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KOLO_DETERMINISTIC=1: the bits of an inexact reduction are those of the contributions combined in
 * the order of ranks, whatever the transport, the segments, the algorithm, and however the vector
 * was cut into calls. Values are such that every other order shows. With two ranks there is no
 * other order, so every algorithm has these bits; NaN, infinities and zeros of both signs are among
 * the values.
 */
#include "collectives/schedule.h"
#include "kernels/kernels.h"
#include "member.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { COUNT = 3001, PIECE = 700, RANKS_MAX = 5, BYTES = COUNT * 8 * RANKS_MAX };

static const kolo_dtype dtypes[] = {KOLO_FP32, KOLO_FP16, KOLO_BF16, KOLO_FP64};
static const kolo_op ops[] = {KOLO_SUM, KOLO_AVERAGE, KOLO_PRODUCT, KOLO_PREMUL_SUM};

/* Large ones that nearly cancel, and small ones that survive only in some orders. */
static double value_of(kolo_dtype dtype, kolo_op op, int r, size_t i)
{
    double large = dtype == KOLO_FP64   ? 1e17
                   : dtype == KOLO_FP16 ? 30000
                   : dtype == KOLO_BF16 ? 1e9
                                        : 1e8;
    static const double special[] = {NAN, -0.0, INFINITY, -NAN, 0.0, -INFINITY};
    if (i % 11 == 0)
        return special[(i / 11 + (size_t)r * (1 + i % 5)) % 6];
    if (op == KOLO_PRODUCT)
        return 1 + (double)((i * 31 + (size_t)r * 17) % 64) / 64;
    switch ((i + (size_t)r * (1 + i % 3)) % 5) {
    case 0:
        return large;
    case 1:
        return -large;
    case 2:
        return 1;
    case 3:
        return 1.0 / 3;
    default:
        return (double)(i % 17) + 0.1;
    }
}

static double scale_of(int r)
{
    return 1.0 / (r + 3);
}

/* Values are written in fp64, rounded by the conversion of the language. */
static void put(void *buffer, kolo_dtype dtype, size_t i, double value)
{
    char *at = (char *)buffer + i * kolo_dtype_bytes(dtype);
    float single = (float)value;
    uint16_t half =
        dtype == KOLO_FP16 ? kolo__fp16_from_fp32(single) : kolo__bf16_from_fp32(single);
    if (dtype == KOLO_FP64)
        memcpy(at, &value, 8);
    else if (dtype == KOLO_FP32)
        memcpy(at, &single, 4);
    else
        memcpy(at, &half, 2);
}

/* ---- the reference: one element at a time, in the order of ranks ----------------------------- */

static double get(const void *buffer, kolo_dtype dtype)
{
    double value;
    float single;
    uint16_t half;
    if (dtype == KOLO_FP64)
        return memcpy(&value, buffer, 8), value;
    if (dtype == KOLO_FP32)
        return memcpy(&single, buffer, 4), single;
    memcpy(&half, buffer, 2);
    return dtype == KOLO_FP16 ? kolo__fp16_to_fp32(half) : kolo__bf16_to_fp32(half);
}

/* fp32 for all but fp64, as kernels.h says. The products and quotients of two floats, taken in fp64
 * and rounded to fp32, are those of fp32, and so are their sums. */
static double narrow(kolo_dtype dtype, double value)
{
    return dtype == KOLO_FP64 ? value : (double)(float)value;
}

static void put_reference(void *buffer, kolo_dtype dtype, kolo_op op, size_t to, size_t i)
{
    double result = 0;
    for (int r = 0; r < size; r++) {
        char element[8];
        put(element, dtype, 0, value_of(dtype, op, r, i));
        double value = get(element, dtype);
        if (op == KOLO_PREMUL_SUM) {
            put(element, dtype, 0, narrow(dtype, value * narrow(dtype, scale_of(r))));
            value = get(element, dtype);
        }
        if (r == 0)
            result = value;
        else
            result = narrow(dtype, op == KOLO_PRODUCT ? result * value : result + value);
    }
    if (op == KOLO_AVERAGE)
        result = narrow(dtype, result / size);
    if (isnan(result))
        result = NAN; /* the kernels have only this one */
    put(buffer, dtype, to, result);
}

/* ---- what a rank does ------------------------------------------------------------------------ */

struct buffers {
    char *send, *recv, *expected;
};

static int complain(const char *what, const char *algorithm, kolo_dtype dtype, kolo_op op)
{
    fprintf(stderr, "rank %d of %d: %s of %s, %s, by %s: other bits, or %s\n", rank, size, what,
            kolo_dtype_name(dtype), kolo_op_name(op), algorithm, kolo_error_text());
    return 1;
}

/* It cannot do this collective at all. */
static bool cannot(const char *algorithm, enum kolo__collective collective)
{
    struct kolo__problem problem = {
        .collective = collective, .size = (uint32_t)size, .count = COUNT};
    return algorithm[0] != '\0' && !kolo__algorithm_find(algorithm)->accepts(&problem);
}

static int check_allreduce(const struct buffers *b, const char *algorithm, kolo_dtype dtype,
                           kolo_op op)
{
    size_t bytes = kolo_dtype_bytes(dtype);
    kolo_call_options options = {
        .size = sizeof options, .scale = scale_of(rank), .algorithm = algorithm};
    if (kolo_allreduce(comm, b->send, b->recv, COUNT, dtype, op, &options) != KOLO_OK ||
        memcmp(b->recv, b->expected, COUNT * bytes) != 0)
        return complain("allreduce", algorithm, dtype, op);
    memset(b->recv, 0, COUNT * bytes);
    for (size_t first = 0, count; first < COUNT; first += count) {
        count = COUNT - first < PIECE ? COUNT - first : PIECE;
        if (kolo_allreduce(comm, b->send + first * bytes, b->recv + first * bytes, count, dtype, op,
                           &options) != KOLO_OK)
            return complain("allreduce in pieces", algorithm, dtype, op);
    }
    if (memcmp(b->recv, b->expected, COUNT * bytes) != 0)
        return complain("allreduce in pieces", algorithm, dtype, op);
    return 0;
}

static int check(const struct buffers *b, const char *algorithm, kolo_dtype dtype, kolo_op op)
{
    size_t bytes = kolo_dtype_bytes(dtype);
    kolo_call_options options = {
        .size = sizeof options, .scale = scale_of(rank), .algorithm = algorithm};
    for (size_t i = 0; i < COUNT * (size_t)size; i++)
        put(b->send, dtype, i, value_of(dtype, op, rank, i));

    for (size_t i = 0; i < COUNT; i++)
        put_reference(b->expected, dtype, op, i, i);
    if (!cannot(algorithm, KOLO__ALLREDUCE) && check_allreduce(b, algorithm, dtype, op) != 0)
        return 1;
    if (!cannot(algorithm, KOLO__REDUCE_TO_ROOT) &&
        (kolo_reduce(comm, b->send, b->recv, COUNT, dtype, op, 1, &options) != KOLO_OK ||
         (rank == 1 && memcmp(b->recv, b->expected, COUNT * bytes) != 0)))
        return complain("reduce", algorithm, dtype, op);

    /* A slot holds all slices of a contribution, so these are short enough for one. */
    size_t count = algorithm[0] != '\0' ? 32768 / 8 / (size_t)size : COUNT;
    for (size_t i = 0; i < count; i++)
        put_reference(b->expected, dtype, op, i, (size_t)rank * count + i);
    if (!cannot(algorithm, KOLO__REDUCE_SCATTER) &&
        (kolo_reduce_scatter(comm, b->send, b->recv, count, dtype, op, &options) != KOLO_OK ||
         memcmp(b->recv, b->expected, count * bytes) != 0))
        return complain("reduce_scatter", algorithm, dtype, op);
    return 0;
}

/* Those that have these bits; "": whichever is chosen. All others are refused. */
static int all_algorithms(const struct buffers *b, kolo_dtype dtype, kolo_op op)
{
    bool mapped = strcmp(kolo_comm_transport(comm), "shm") == 0;
    CHECK(check(b, "", dtype, op) == 0);
    for (size_t a = 0; kolo__algorithms[a] != NULL; a++) {
        const struct kolo__algorithm *algorithm = kolo__algorithms[a];
        kolo_call_options options = {.size = sizeof options, .algorithm = algorithm->name};
        if (!algorithm->rounds_once && size > 2)
            CHECK(kolo_allreduce(comm, b->send, b->recv, COUNT, dtype, op, &options) ==
                  KOLO_ERR_INVALID);
        else if (mapped || !algorithm->needs_mapping)
            CHECK(check(b, algorithm->name, dtype, op) == 0);
    }
    return 0;
}

/* Every second rank is another user's, which counts as another host: tcp joins it to the others.
 * Who may not do that stays, and checks the one host again. */
static void become_another_host(void)
{
    if (getenv("MIXED") == NULL || world_rank() % 2 == 0)
        return;
    if ((geteuid() == 0 ? setuid(65534) : unshare(CLONE_NEWUSER)) != 0)
        fprintf(stderr, "rank %d: cannot be another user\n", world_rank());
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a change of user forgets it */
}

static int rank_main(void)
{
    void *heap[2];
    become_another_host();
    CHECK(join() == 0);
    static char send[BYTES], recv[BYTES], expected[BYTES];
    size_t bytes = COUNT * 8 * (size_t)size;
    struct buffers b = {send, recv, expected}, mapped = b;
    CHECK(bytes <= BYTES);
    CHECK(kolo_alloc(context, bytes, &heap[0]) == KOLO_OK);
    CHECK(kolo_alloc(context, bytes, &heap[1]) == KOLO_OK);
    mapped.send = heap[0];
    mapped.recv = heap[1];
    for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++)
        for (size_t o = 0; o < sizeof ops / sizeof *ops; o++) {
            CHECK(all_algorithms(&b, dtypes[d], ops[o]) == 0);
            CHECK(all_algorithms(&mapped, dtypes[d], ops[o]) == 0);
        }
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void run_with(int ranks, const char *transport, const char *segment_bytes,
                     const char *preferred)
{
    const char *environment[] = {"KOLO_DETERMINISTIC=1", transport, segment_bytes, preferred, NULL};
    struct world_result result = world_run(ranks, environment, rank_main);
    world_assert_all_passed(&result, ranks);
}

static void shared_memory_has_the_bits_of_the_order_of_ranks(void **state)
{
    (void)state;
    for (int ranks = 3; ranks <= RANKS_MAX; ranks++)
        run_with(ranks, "KOLO_TRANSPORT=shm", "KOLO_SEGMENT_BYTES=0", "KOLO_ALGORITHM=");
    run_with(3, "KOLO_TRANSPORT=shm", "KOLO_SEGMENT_BYTES=1000", "KOLO_ALGORITHM=");
}

/* A ring is a wish that does not fit. */
static void tcp_has_the_bits_of_the_order_of_ranks(void **state)
{
    (void)state;
    for (int ranks = 3; ranks <= RANKS_MAX; ranks++)
        run_with(ranks, "KOLO_TRANSPORT=tcp", "KOLO_SEGMENT_BYTES=0", "KOLO_ALGORITHM=ring");
    run_with(4, "KOLO_TRANSPORT=tcp", "KOLO_SEGMENT_BYTES=600", "KOLO_ALGORITHM=");
}

static void hosts_have_the_bits_of_the_order_of_ranks(void **state)
{
    (void)state;
    run_with(5, "MIXED=1", "KOLO_SEGMENT_BYTES=0", "KOLO_ALGORITHM=two_level");
    run_with(4, "MIXED=1", "KOLO_SEGMENT_BYTES=1000", "KOLO_ALGORITHM=two_level");
}

static void two_ranks_have_only_one_order(void **state)
{
    (void)state;
    run_with(2, "KOLO_TRANSPORT=shm", "KOLO_SEGMENT_BYTES=0", "KOLO_ALGORITHM=");
    run_with(2, "KOLO_TRANSPORT=tcp", "KOLO_SEGMENT_BYTES=1000", "KOLO_ALGORITHM=");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_memory_has_the_bits_of_the_order_of_ranks),
        cmocka_unit_test(tcp_has_the_bits_of_the_order_of_ranks),
        cmocka_unit_test(hosts_have_the_bits_of_the_order_of_ranks),
        cmocka_unit_test(two_ranks_have_only_one_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
