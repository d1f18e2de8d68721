/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank whose timeline is looked at. Exits with 9 when a call failed that should not.
 *
 *   all         every kind of operation, with messages, a split communicator and a reducer
 *   threads     two communicators, used by two threads at the same time
 *   abort       rank 1 aborts after some operations, and everybody leaves by kolo_finalize
 *   walk_out    some operations, then the process ends without kolo_finalize
 *   kill        rank 1 kills itself after some operations
 *   late        rank 0 begins after all others
 *   steps N     N allreduces and no more
 *
 * TEST_USER: it becomes that user before it joins.
 */
#include <kolo/kolo.h>

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { COUNT_MAX = 1 << 20, TENSORS = 6 };

static kolo_context *context;
static kolo_comm *world;
static int rank, size;
static float in[4 * COUNT_MAX], out[4 * COUNT_MAX];

static void check(kolo_status status)
{
    if (status == KOLO_OK)
        return;
    fprintf(stderr, "rank %d: %s: %s\n", rank, kolo_status_name(status), kolo_error_text());
    exit(9);
}

static void sum(kolo_comm *comm, size_t count)
{
    check(kolo_allreduce(comm, in, out, count, KOLO_FP32, KOLO_SUM, NULL));
}

static void send_around(void)
{
    kolo_request *requests[2];
    for (size_t count = 1; count < 100000; count *= 300) {
        check(
            kolo_recv_start(world, out, count, KOLO_FP32, (rank + size - 1) % size, &requests[0]));
        check(kolo_send_start(world, in, count, KOLO_FP32, (rank + 1) % size, &requests[1]));
        check(kolo_wait(&requests[0], -1));
        check(kolo_wait(&requests[1], -1));
    }
}

static void start_many(void)
{
    kolo_request *requests[8];
    for (int i = 0; i < 8; i++)
        check(kolo_allreduce_start(world, in + i, out + i * 30000, 30000, KOLO_FP32, KOLO_SUM, NULL,
                                   &requests[i]));
    for (int i = 7; i >= 0; i--)
        check(kolo_wait(&requests[i], -1));
}

static void split(void)
{
    kolo_comm *half;
    check(kolo_comm_split(world, rank % 2, 0, &half));
    for (int i = 0; i < 3; i++)
        sum(half, 5000);
    check(kolo_comm_free(half));
}

/* Odd tensors have no name; one has a name that JSON does not like. */
static void train(size_t bucket_bytes)
{
    kolo_tensor tensors[TENSORS] = {0};
    kolo_reducer *reducer;
    kolo_reducer_options options = {
        .size = sizeof options, .bucket_bytes = bucket_bytes, .wire = KOLO_WIRE_BF16};
    for (size_t i = 0; i < TENSORS; i++)
        tensors[i] = (kolo_tensor){.data = in + i * 50000,
                                   .count = 50000 - i,
                                   .dtype = KOLO_FP32,
                                   .name = i == 2 ? "a \"quoted\"\nname \xff" : NULL};
    tensors[0].name = "h.0.attn.w";
    check(kolo_reducer_create(world, tensors, TENSORS, &options, &reducer));
    for (int step = 0; step < 4; step++) {
        for (size_t i = 0; i < TENSORS; i++)
            check(kolo_reducer_ready(reducer, TENSORS - 1 - i));
        check(kolo_reducer_wait(reducer, -1));
    }
    check(kolo_reducer_free(reducer));
}

static void all_operations(void)
{
    static const size_t counts[] = {1, 1000, 40000, COUNT_MAX};
    for (size_t i = 0; i < 4; i++) {
        size_t count = counts[i] / 4 + 1;
        sum(world, counts[i]);
        check(kolo_barrier(world));
        check(kolo_broadcast(world, out, count, KOLO_FP32, 1, NULL));
        check(kolo_reduce(world, in, out, count, KOLO_FP32, KOLO_MAX, 0, NULL));
        check(kolo_allgather(world, in, out, count, KOLO_FP32, NULL));
        check(kolo_reduce_scatter(world, in, out, count, KOLO_FP32, KOLO_SUM, NULL));
        check(kolo_alltoall(world, in, out, count, KOLO_FP32, NULL));
    }
    send_around();
    start_many();
    split();
    train(300000);
}

static void *sum_often(void *comm)
{
    for (int i = 0; i < 50; i++)
        check(kolo_allreduce(comm, in, out + COUNT_MAX, 200000, KOLO_FP32, KOLO_SUM, NULL));
    return NULL;
}

static void two_threads(void)
{
    kolo_comm *other;
    pthread_t thread;
    check(kolo_comm_split(world, 0, 0, &other));
    if (pthread_create(&thread, NULL, sum_often, other) != 0)
        exit(9);
    for (int i = 0; i < 50; i++)
        sum(world, 200000);
    pthread_join(thread, NULL);
    check(kolo_comm_free(other));
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "all";
    const char *user = getenv("TEST_USER");
    if (user != NULL && setuid((uid_t)atoi(user)) != 0)
        return 9;
    check(kolo_init(NULL, &context));
    world = kolo_world(context);
    rank = kolo_comm_rank(world);
    size = kolo_comm_size(world);
    if (strcmp(mode, "late") == 0 && rank == 0)
        usleep(20000);
    int sums = argc > 2 ? atoi(argv[2]) : 3;
    for (int i = 0; i < sums; i++)
        sum(world, 40000);
    if (strcmp(mode, "all") == 0)
        all_operations();
    if (strcmp(mode, "threads") == 0)
        two_threads();
    if (strcmp(mode, "walk_out") == 0)
        return 0;
    if (strcmp(mode, "kill") == 0 && rank == 1)
        raise(SIGKILL);
    if (strcmp(mode, "abort") == 0 && rank == 1)
        kolo_comm_abort(world, "for the sake of a test");
    if (strcmp(mode, "abort") == 0 || strcmp(mode, "kill") == 0)
        while (kolo_allreduce(world, in, out, 40000, KOLO_FP32, KOLO_SUM, NULL) == KOLO_OK)
            ;
    kolo_status status = kolo_finalize(context);
    return status == KOLO_OK ? 0 : 1;
}
