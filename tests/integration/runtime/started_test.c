/* SPDX-License-Identifier: Apache-2.0 */
/* Every _start form, with real processes: many of all kinds in flight on one communicator, finished
 * by kolo_wait and kolo_test in an order of each rank's own. */
#include "base/random.h"
#include "member.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { RANKS_MAX = 4, ROUNDS = 4, COUNT_MAX = 20000 };

enum kind {
    ALLREDUCE,
    REDUCE_SCATTER,
    ALLGATHER,
    BROADCAST,
    REDUCE,
    ALLTOALL,
    BARRIER,
    SEND,
    RECV,
    KINDS
};

/* One operation in flight, with buffers of its own. */
struct started {
    enum kind kind;
    int number, root;
    size_t count;
    kolo_request *request;
    int64_t in[RANKS_MAX * COUNT_MAX], out[RANKS_MAX * COUNT_MAX];
};

static struct started all[ROUNDS * KINDS];

/* ---- all kinds in flight -------------------------------------------------------------------- */

/* Not linear in the rank, so that a sum of other ranks is another sum. A message carries the number
 * of its round, as its two ends are two operations. */
static int64_t value(const struct started *s, int of, size_t i)
{
    int number = s->kind >= SEND ? s->number / KINDS : s->number;
    return (int64_t)of * of * 1000003 + number * 7919 + (int64_t)i * (of + 1);
}

static int64_t sum(const struct started *s, size_t i)
{
    int64_t result = 0;
    for (int r = 0; r < size; r++)
        result += value(s, r, i);
    return result;
}

static void fill(struct started *s)
{
    for (size_t i = 0; i < (size_t)size * s->count; i++)
        s->in[i] = value(s, rank, i);
    memset(s->out, 0xff, sizeof s->out);
    if (s->kind == BROADCAST && rank == s->root)
        memcpy(s->out, s->in, s->count * sizeof *s->out);
}

static kolo_status start(struct started *s)
{
    kolo_request **request = &s->request;
    int next = (rank + 1) % size, previous = (rank + size - 1) % size;
    size_t n = s->count;
    switch (s->kind) {
    case ALLREDUCE:
        return kolo_allreduce_start(comm, s->in, s->out, n, KOLO_INT64, KOLO_SUM, NULL, request);
    case REDUCE_SCATTER:
        return kolo_reduce_scatter_start(comm, s->in, s->out, n, KOLO_INT64, KOLO_SUM, NULL,
                                         request);
    case ALLGATHER:
        return kolo_allgather_start(comm, s->in, s->out, n, KOLO_INT64, NULL, request);
    case BROADCAST:
        return kolo_broadcast_start(comm, s->out, n, KOLO_INT64, s->root, NULL, request);
    case REDUCE:
        return kolo_reduce_start(comm, s->in, rank == s->root ? s->out : NULL, n, KOLO_INT64,
                                 KOLO_SUM, s->root, NULL, request);
    case ALLTOALL:
        return kolo_alltoall_start(comm, s->in, s->out, n, KOLO_INT64, NULL, request);
    case SEND:
        return kolo_send_start(comm, s->in, n, KOLO_INT64, next, request);
    case RECV:
        return kolo_recv_start(comm, s->out, n, KOLO_INT64, previous, request);
    default:
        return kolo_barrier_start(comm, request);
    }
}

/* What OUTPUT must hold at i; -1 where nothing may be written. */
static int64_t expected(const struct started *s, size_t i)
{
    size_t n = s->count, slices = s->kind == ALLGATHER || s->kind == ALLTOALL ? (size_t)size : 1;
    bool written = s->kind != SEND && s->kind != BARRIER && (s->kind != REDUCE || rank == s->root);
    if (!written || i >= slices * n)
        return -1;
    switch (s->kind) {
    case REDUCE_SCATTER:
        return sum(s, (size_t)rank * n + i);
    case ALLGATHER:
        return value(s, (int)(i / n), i % n);
    case BROADCAST:
        return value(s, s->root, i);
    case ALLTOALL:
        return value(s, (int)(i / n), (size_t)rank * n + i % n);
    case RECV:
        return value(s, (rank + size - 1) % size, i);
    default:
        return sum(s, i);
    }
}

static int check(const struct started *s)
{
    for (size_t i = 0; i < sizeof s->out / sizeof *s->out; i++)
        if (s->out[i] != expected(s, i)) {
            fprintf(stderr, "operation %d of kind %d, %zu elements: element %zu is %lld\n",
                    s->number, s->kind, s->count, i, (long long)s->out[i]);
            return 1;
        }
    for (size_t i = 0; i < (size_t)size * s->count; i++)
        CHECK(s->in[i] == value(s, rank, i));
    return 0;
}

static kolo_status finish(struct started *s, unsigned how)
{
    kolo_status status = KOLO_AGAIN;
    if (how == 0)
        return kolo_wait(&s->request, -1);
    while (status == KOLO_AGAIN && s->request != NULL)
        status = how == 1 ? kolo_test(&s->request) : kolo_wait(&s->request, 1);
    return status;
}

static int every_kind_in_flight(void)
{
    static const size_t counts[ROUNDS] = {17, 0, COUNT_MAX, 1000};
    size_t order[ROUNDS * KINDS];
    CHECK(join() == 0);
    struct kolo__random random = {(uint64_t)rank};
    for (int i = 0; i < ROUNDS * KINDS; i++) {
        all[i].kind = (enum kind)(i % KINDS);
        all[i].number = i;
        all[i].root = i % size;
        all[i].count = all[i].kind == BARRIER ? 0 : counts[i / KINDS];
        fill(&all[i]);
        CHECK(start(&all[i]) == KOLO_OK && all[i].request != NULL);
        order[i] = (size_t)i;
    }
    for (size_t left = ROUNDS * KINDS; left > 0; left--) {
        size_t drawn = kolo__random_below(&random, left);
        struct started *s = &all[order[drawn]];
        order[drawn] = order[left - 1];
        CHECK(finish(s, (unsigned)kolo__random_below(&random, 3)) == KOLO_OK);
        CHECK(s->request == NULL && check(s) == 0);
    }
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_every_kind_in_flight(void **state)
{
    (void)state;
    world_run_over_both(2, NULL, every_kind_in_flight);
    world_run_over_both(3, NULL, every_kind_in_flight);
    world_run_over_both(4, NULL, every_kind_in_flight);
}

/* ---- not before its time -------------------------------------------------------------------- */

/* Rank 0 comes late: what needs it is not finished, what does not is. */
static int nobody_passes_a_started_barrier(void)
{
    int64_t out = 5, in = 0;
    kolo_request *barrier, *message = NULL;
    CHECK(join() == 0);
    if (rank == 0)
        usleep(200000);
    if (rank == 1)
        CHECK(kolo_send_start(comm, &out, 1, KOLO_INT64, 2, &message) == KOLO_OK);
    if (rank == 2)
        CHECK(kolo_recv_start(comm, &in, 1, KOLO_INT64, 1, &message) == KOLO_OK);
    CHECK(kolo_barrier_start(comm, &barrier) == KOLO_OK);
    if (rank > 0) {
        CHECK(kolo_test(&barrier) == KOLO_AGAIN && kolo_wait(&barrier, 20) == KOLO_AGAIN);
        CHECK(kolo_wait(&message, -1) == KOLO_OK && message == NULL);
        CHECK(rank != 2 || in == 5);
        CHECK(kolo_test(&barrier) == KOLO_AGAIN && barrier != NULL);
    }
    CHECK(kolo_wait(&barrier, -1) == KOLO_OK && barrier == NULL);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_nobody_passes_a_started_barrier(void **state)
{
    (void)state;
    world_run_over_both(3, NULL, nobody_passes_a_started_barrier);
}

/* ---- wrong arguments ------------------------------------------------------------------------ */

/* Starts nothing, and says so where a caller looks: status, request, text. */
#define REFUSED(call, words)                                                                       \
    do {                                                                                           \
        request = (kolo_request *)(void *)&request;                                                \
        CHECK((call) == KOLO_ERR_INVALID && request == NULL);                                      \
        CHECK(strstr(kolo_error_text(), (words)) != NULL);                                         \
    } while (0)
#define NO_REQUEST(call, name)                                                                     \
    do {                                                                                           \
        CHECK((call) == KOLO_ERR_INVALID);                                                         \
        CHECK(strstr(kolo_error_text(), name "_start: request is NULL") != NULL);                  \
    } while (0)

static int wrong_arguments(void)
{
    static float a[8], b[8];
    const kolo_dtype fp32 = KOLO_FP32;
    const kolo_op add = KOLO_SUM;
    kolo_call_options none = {.size = sizeof none, .algorithm = "none"};
    kolo_request *request;
    const int peer = 1 - world_rank();
    CHECK(join() == 0);

    REFUSED(kolo_allreduce_start(comm, a, b, 1, fp32, add, &none, &request), "'none'");
    REFUSED(kolo_reduce_scatter_start(comm, a, b, 1, fp32, add, &none, &request), "'none'");
    REFUSED(kolo_allgather_start(comm, a, b, 1, fp32, &none, &request), "'none'");
    REFUSED(kolo_broadcast_start(comm, a, 1, fp32, 0, &none, &request), "'none'");
    REFUSED(kolo_reduce_start(comm, a, b, 1, fp32, add, 0, &none, &request), "'none'");
    REFUSED(kolo_alltoall_start(comm, a, b, 1, fp32, &none, &request), "'none'");
    REFUSED(kolo_barrier_start(NULL, &request), "kolo_barrier");
    REFUSED(kolo_send_start(comm, a, 1, fp32, rank, &request), "not another rank");
    REFUSED(kolo_recv_start(comm, a, 1, fp32, size, &request), "not another rank");

    NO_REQUEST(kolo_allreduce_start(comm, a, b, 1, fp32, add, NULL, NULL), "kolo_allreduce");
    NO_REQUEST(kolo_reduce_scatter_start(comm, a, b, 1, fp32, add, NULL, NULL),
               "kolo_reduce_scatter");
    NO_REQUEST(kolo_allgather_start(comm, a, b, 1, fp32, NULL, NULL), "kolo_allgather");
    NO_REQUEST(kolo_broadcast_start(comm, a, 1, fp32, 0, NULL, NULL), "kolo_broadcast");
    NO_REQUEST(kolo_reduce_start(comm, a, b, 1, fp32, add, 0, NULL, NULL), "kolo_reduce");
    NO_REQUEST(kolo_alltoall_start(comm, a, b, 1, fp32, NULL, NULL), "kolo_alltoall");
    NO_REQUEST(kolo_barrier_start(comm, NULL), "kolo_barrier");
    NO_REQUEST(kolo_send_start(comm, a, 1, fp32, peer, NULL), "kolo_send");
    NO_REQUEST(kolo_recv_start(comm, a, 1, fp32, peer, NULL), "kolo_recv");

    CHECK(kolo_barrier(comm) == KOLO_OK); /* no harm done */
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_wrong_arguments_start_nothing(void **state)
{
    (void)state;
    world_run_over_both(2, NULL, wrong_arguments);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind_in_flight),
        cmocka_unit_test(test_nobody_passes_a_started_barrier),
        cmocka_unit_test(test_wrong_arguments_start_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
