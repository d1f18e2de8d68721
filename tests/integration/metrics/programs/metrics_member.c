/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank whose numbers are known: metrics_test.py knows what it does, looks when it says that it
 * has come so far, and lets it go on.
 *
 *   metrics_member mapped    allreduces only
 *   metrics_member all       everything, then steps of a reducer, then a communicator that is
 * aborted
 */
#include <kolo/kolo.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { SMALL = 100, LARGE = 3, LARGE_COUNT = 1 << 18, STEPS = 4, PATIENCE_S = 60 };

static int rank;

static void need(kolo_status status, const char *what)
{
    if (status == KOLO_OK)
        return;
    fprintf(stderr, "rank %d: %s: %s\n", rank, what, kolo_error_text());
    exit(1);
}

static void nap_ms(long ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

/* Says so, by a file, and waits for the file that answers. */
static void pause_at(const char *place)
{
    char path[64];
    struct stat what;
    snprintf(path, sizeof path, "%s.%d", place, rank);
    FILE *file = fopen(path, "w");
    if (file == NULL || fclose(file) != 0)
        exit(1);
    snprintf(path, sizeof path, "%s.go", place);
    for (int i = 0; i < PATIENCE_S * 100 && stat(path, &what) != 0; i++)
        nap_ms(10);
}

static void allreduces(kolo_comm *world)
{
    static float numbers[LARGE_COUNT], sums[LARGE_COUNT];
    for (int i = 0; i < SMALL; i++)
        need(kolo_allreduce(world, numbers, sums, 2, KOLO_FP32, KOLO_SUM, NULL), "small");
    for (int i = 0; i < LARGE; i++)
        need(kolo_allreduce(world, numbers, sums, LARGE_COUNT, KOLO_FP32, KOLO_SUM, NULL), "large");
}

/* Rank 0 waits for rank 1. */
static void be_late(kolo_comm *world)
{
    if (rank == 1)
        nap_ms(1000);
    need(kolo_barrier(world), "barrier");
}

static void messages(kolo_comm *world)
{
    char bytes[1000] = "";
    need(kolo_broadcast(world, bytes, sizeof bytes, KOLO_INT8, 0, NULL), "broadcast");
    for (int i = 0; i < 7; i++)
        need(rank == 0 ? kolo_send(world, bytes, sizeof bytes, KOLO_INT8, 1)
                       : kolo_recv(world, bytes, sizeof bytes, KOLO_INT8, 0),
             "message");
}

static void steps(kolo_comm *world)
{
    static float gradient[1000];
    kolo_tensor tensor = {.data = gradient, .count = 1000, .dtype = KOLO_FP32};
    kolo_reducer *reducer;
    need(kolo_reducer_create(world, &tensor, 1, NULL, &reducer), "reducer");
    for (int i = 0; i < STEPS; i++) {
        need(kolo_reducer_ready(reducer, 0), "ready");
        need(kolo_reducer_wait(reducer, -1), "step");
    }
    need(kolo_reducer_free(reducer), "reducer's end");
}

/* Each leaves its numbers behind. */
static void communicators(kolo_comm *world)
{
    for (int i = 0; i < 3; i++) {
        kolo_comm *comm;
        need(kolo_comm_split(world, 0, rank, &comm), "split");
        for (int k = 0; k < 5; k++)
            need(kolo_barrier(comm), "barrier");
        need(kolo_comm_free(comm), "free");
    }
}

static void abort_one(kolo_comm *world)
{
    kolo_comm *comm;
    need(kolo_comm_split(world, 0, rank, &comm), "split");
    if (rank == 1)
        need(kolo_comm_abort(comm, "to be counted"), "abort");
    kolo_status status = KOLO_OK;
    while (status == KOLO_OK)
        status = kolo_barrier(comm);
    if (status != KOLO_ERR_ABORTED)
        need(status, "barrier");
    need(kolo_comm_free(comm), "free");
}

int main(int count, char **arguments)
{
    kolo_context *context;
    need(kolo_init(NULL, &context), "kolo_init");
    kolo_comm *world = kolo_world(context);
    rank = kolo_comm_rank(world);
    allreduces(world);
    if (count > 1 && strcmp(arguments[1], "all") == 0) {
        messages(world);
        communicators(world);
        be_late(world);
        pause_at("done");
        steps(world);
        abort_one(world);
        pause_at("aborted");
    } else {
        pause_at("done");
    }
    need(kolo_finalize(context), "kolo_finalize");
    return 0;
}
