/* SPDX-License-Identifier: Apache-2.0 */
/* Started operations, messages between two ranks, split communicators, threads: with real
 * processes. */
#include "runtime/comm.h"
#include "member.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- started operations --------------------------------------------------------------------- */

enum { MANY = 40 };

static int many_started_at_once(void)
{
    static int64_t values[MANY][1000];
    kolo_request *requests[MANY];
    CHECK(join() == 0);
    for (int i = 0; i < MANY; i++) {
        for (int k = 0; k < 1000; k++)
            values[i][k] = rank + i + k;
        CHECK(kolo_allreduce_start(comm, values[i], values[i], (size_t)(i * 25), KOLO_INT64,
                                   KOLO_SUM, NULL, &requests[i]) == KOLO_OK);
    }
    for (int i = MANY - 1; i >= 0; i--) { /* waited for in any order */
        CHECK(kolo_wait(&requests[i], -1) == KOLO_OK);
        CHECK(requests[i] == NULL);
        for (int k = 0; k < i * 25; k++)
            CHECK(values[i][k] == (int64_t)size * (i + k) + size * (size - 1) / 2);
    }
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static int test_and_timed_wait(void)
{
    int32_t one = 1, sum = 0;
    kolo_request *request = NULL;
    CHECK(join() == 0);
    CHECK(kolo_test(&request) == KOLO_OK && kolo_wait(&request, 0) == KOLO_OK);
    if (rank == 0)
        usleep(300000);
    CHECK(kolo_allreduce_start(comm, &one, &sum, 1, KOLO_INT32, KOLO_SUM, NULL, &request) ==
          KOLO_OK);
    if (rank != 0) {
        CHECK(kolo_test(&request) == KOLO_AGAIN);
        CHECK(kolo_wait(&request, 20) == KOLO_AGAIN && request != NULL);
    }
    kolo_status status;
    do
        status = kolo_test(&request);
    while (status == KOLO_AGAIN);
    CHECK(status == KOLO_OK && sum == size);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

struct watch {
    struct kolo__flight_entry *entry;
    atomic_bool over;
    atomic_int beginnings;
};

/* Of waits, as whoever reads the flight recorder sees them. */
static void *count_beginnings(void *argument)
{
    struct watch *watch = argument;
    for (uint64_t last = 0; !atomic_load(&watch->over);) {
        uint64_t begin = atomic_load(&watch->entry->wait_begin_ns);
        if (begin == 0 || begin == last)
            continue;
        last = begin;
        atomic_fetch_add(&watch->beginnings, 1);
    }
    return NULL;
}

static int wait_in_looks(kolo_request **request)
{
    pthread_t thread;
    struct watch watch = {.entry = (*request)->flight};
    CHECK(pthread_create(&thread, NULL, count_beginnings, &watch) == 0);
    for (int i = 0; i < 10 || atomic_load(&watch.beginnings) == 0; i++)
        CHECK(kolo_wait(request, 10) == KOLO_AGAIN);
    atomic_store(&watch.over, true);
    pthread_join(thread, NULL);
    CHECK(atomic_load(&watch.beginnings) == 1);
    return 0;
}

/* Whoever waits by looks has waited since the first of them. */
static int many_waits_are_one(void)
{
    int32_t one = 1, sum = 0;
    kolo_comm *other;
    kolo_request *request;
    CHECK(join() == 0);
    CHECK(kolo_comm_split(comm, 0, rank, &other) == KOLO_OK);
    if (rank == 0)
        CHECK(kolo_recv(other, &one, 1, KOLO_INT32, 1) == KOLO_OK);
    CHECK(kolo_allreduce_start(comm, &one, &sum, 1, KOLO_INT32, KOLO_SUM, NULL, &request) ==
          KOLO_OK);
    if (rank == 1) {
        CHECK(wait_in_looks(&request) == 0);
        CHECK(kolo_send(other, &one, 1, KOLO_INT32, 0) == KOLO_OK);
    }
    CHECK(kolo_wait(&request, -1) == KOLO_OK && sum == size);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_started_operations(void **state)
{
    (void)state;
    world_run_over_both(3, NULL, many_started_at_once);
    world_run_over_both(3, NULL, test_and_timed_wait);
    world_run_over_both(2, NULL, many_waits_are_one);
}

/* ---- messages ------------------------------------------------------------------------------- */

/* Both send before they receive, more than any buffer holds. */
static int exchange_large(void)
{
    enum { count = 3000001 };
    static int32_t out[count], in[count];
    kolo_request *send, *recv;
    CHECK(join() == 0);
    for (int i = 0; i < count; i++)
        out[i] = i * (rank + 1);
    CHECK(kolo_send_start(comm, out, count, KOLO_INT32, 1 - rank, &send) == KOLO_OK);
    CHECK(kolo_recv_start(comm, in, count, KOLO_INT32, 1 - rank, &recv) == KOLO_OK);
    CHECK(kolo_wait(&send, -1) == KOLO_OK && kolo_wait(&recv, -1) == KOLO_OK);
    for (int i = 0; i < count; i++)
        CHECK(in[i] == i * (2 - rank));
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static int messages_keep_their_order(void)
{
    CHECK(join() == 0);
    int next = (rank + 1) % size, before = (rank + size - 1) % size;
    for (int i = 0; i < 200; i++) {
        kolo_request *send;
        int64_t out = rank * 1000 + i, in = -1, sum = 1;
        CHECK(kolo_send_start(comm, &out, (size_t)(i % 2), KOLO_INT64, next, &send) == KOLO_OK);
        CHECK(kolo_recv(comm, &in, (size_t)(i % 2), KOLO_INT64, before) == KOLO_OK);
        CHECK(kolo_wait(&send, -1) == KOLO_OK);
        CHECK(in == (i % 2 ? before * 1000 + i : -1));
        if (i % 10 == 0) {
            CHECK(kolo_allreduce(comm, &sum, &sum, 1, KOLO_INT64, KOLO_SUM, NULL) == KOLO_OK);
            CHECK(sum == size);
        }
    }
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static int message_of_another_length(void)
{
    int64_t data[4] = {0};
    CHECK(join() == 0);
    if (rank == 0) {
        kolo_send(comm, data, 3, KOLO_INT64, 1);
        CHECK(kolo_barrier(comm) == KOLO_ERR_MISMATCH);
    } else {
        CHECK(kolo_recv(comm, data, 4, KOLO_INT64, 0) == KOLO_ERR_MISMATCH);
        CHECK(strstr(kolo_error_text(), "3 x int64") && strstr(kolo_error_text(), "4 x int64"));
    }
    kolo_finalize(context);
    return 0;
}

static void test_messages(void **state)
{
    (void)state;
    world_run_over_both(2, NULL, exchange_large);
    world_run_over_both(3, NULL, messages_keep_their_order);
    world_run_over_both(2, NULL, message_of_another_length);
}

/* ---- split ---------------------------------------------------------------------------------- */

static int split_in_every_way(void)
{
    CHECK(join() == 0);
    for (int round = 0; round < 3; round++) {
        kolo_comm *parity, *reversed, *none;
        CHECK(kolo_comm_split(comm, rank % 2, 0, &parity) == KOLO_OK);
        CHECK(kolo_comm_rank(parity) == rank / 2);
        CHECK(kolo_comm_size(parity) == (size + 1 - rank % 2) / 2);
        CHECK(kolo_comm_local_size(parity) == kolo_comm_size(parity));
        int32_t value = rank, sum = 0;
        CHECK(kolo_allreduce(parity, &value, &sum, 1, KOLO_INT32, KOLO_SUM, NULL) == KOLO_OK);
        int expected = 0;
        for (int r = rank % 2; r < size; r += 2)
            expected += r;
        CHECK(sum == expected);

        CHECK(kolo_comm_split(comm, 0, -rank, &reversed) == KOLO_OK);
        CHECK(kolo_comm_rank(reversed) == size - 1 - rank);
        CHECK(kolo_broadcast(reversed, &value, 1, KOLO_INT32, 0, NULL) == KOLO_OK);
        CHECK(value == size - 1);

        CHECK(kolo_comm_split(comm, rank == 0 ? KOLO_NO_COLOR : 1, 0, &none) == KOLO_OK);
        CHECK((none == NULL) == (rank == 0));
        CHECK(none == NULL || kolo_barrier(none) == KOLO_OK);
        CHECK(kolo_comm_free(parity) == KOLO_OK);
        CHECK(kolo_comm_free(reversed) == KOLO_OK);
        CHECK(kolo_comm_free(none) == KOLO_OK);
    }
    CHECK(kolo_comm_free(comm) == KOLO_ERR_INVALID);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static kolo_comm *threads_comm[3];

static void *reduce_in_thread(void *argument)
{
    kolo_comm *mine = threads_comm[*(int *)argument];
    for (int i = 0; i < 200; i++) {
        static _Thread_local int32_t values[5000];
        for (int k = 0; k < 5000; k++)
            values[k] = i + k;
        if (kolo_allreduce(mine, values, values, 5000, KOLO_INT32, KOLO_SUM, NULL) != KOLO_OK ||
            values[17] != size * (i + 17))
            return "failed";
    }
    return NULL;
}

static int communicators_in_threads(void)
{
    pthread_t threads[3];
    static int numbers[3] = {0, 1, 2};
    CHECK(join() == 0);
    for (int i = 0; i < 3; i++)
        CHECK(kolo_comm_split(comm, 0, rank, &threads_comm[i]) == KOLO_OK);
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, reduce_in_thread, &numbers[i]) == 0);
    for (int i = 0; i < 3; i++) {
        void *failed;
        CHECK(pthread_join(threads[i], &failed) == 0);
        CHECK(failed == NULL);
    }
    CHECK(kolo_finalize(context) == KOLO_OK); /* releases the communicators too */
    return 0;
}

static void test_split(void **state)
{
    (void)state;
    world_run_over_both(5, NULL, split_in_every_way);
    world_run_over_both(3, NULL, communicators_in_threads);
}

/* ---- wrong arguments ------------------------------------------------------------------------ */

static int wrong_arguments(void)
{
    static float a[100], b[100];
    kolo_call_options nonsense = {.size = sizeof nonsense, .algorithm = "nonsense"};
    CHECK(join() == 0);
    CHECK(kolo_allreduce(NULL, a, b, 1, KOLO_FP32, KOLO_SUM, NULL) == KOLO_ERR_INVALID);
    CHECK(kolo_allreduce(comm, NULL, b, 1, KOLO_FP32, KOLO_SUM, NULL) == KOLO_ERR_INVALID);
    CHECK(kolo_allreduce(comm, a, a + 1, 50, KOLO_FP32, KOLO_SUM, NULL) == KOLO_ERR_INVALID);
    CHECK(kolo_allreduce(comm, a, b, 1, (kolo_dtype)77, KOLO_SUM, NULL) == KOLO_ERR_INVALID);
    CHECK(kolo_allreduce(comm, a, b, 1, KOLO_FP32, (kolo_op)77, NULL) == KOLO_ERR_INVALID);
    CHECK(kolo_allreduce(comm, a, b, 1, KOLO_FP32, KOLO_XOR, NULL) == KOLO_ERR_INVALID);
    CHECK(kolo_allreduce(comm, a, b, 1, KOLO_FP32, KOLO_PREMUL_SUM, NULL) == KOLO_ERR_INVALID);
    CHECK(kolo_allreduce(comm, a, b, SIZE_MAX, KOLO_FP32, KOLO_SUM, NULL) == KOLO_ERR_INVALID);
    CHECK(kolo_allreduce(comm, a, b, 1, KOLO_FP32, KOLO_SUM, &nonsense) == KOLO_ERR_INVALID);
    CHECK(kolo_alltoall(comm, a, a, 1, KOLO_FP32, NULL) == KOLO_ERR_INVALID);
    CHECK(kolo_broadcast(comm, a, 1, KOLO_FP32, size, NULL) == KOLO_ERR_INVALID);
    CHECK(kolo_send(comm, a, 1, KOLO_FP32, rank) == KOLO_ERR_INVALID);
    CHECK(kolo_comm_split(comm, -5, 0, &(kolo_comm *){NULL}) == KOLO_ERR_INVALID);
    CHECK(kolo_init(NULL, &(kolo_context *){NULL}) == KOLO_ERR_INVALID);
    CHECK(kolo_allreduce(comm, a, b, 1, KOLO_FP32, KOLO_SUM, NULL) == KOLO_OK); /* no harm done */
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_wrong_arguments_do_no_harm(void **state)
{
    (void)state;
    world_run_over_both(2, NULL, wrong_arguments);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_started_operations),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_wrong_arguments_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
