/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What perftest's ib_write_lat and ib_write_bw measure, by messages of kolo between two ranks: half
 * of the time that 8 bytes take there and back, and how fast messages go one way, some of them
 * under way at once; then the same both ways at once (ib_write_bw -b), which counts both. Prints
 * "latency MICROSECONDS", and "rate BYTES MBPS" (10^6 bytes a second) and "exchange BYTES MBPS" for
 * each size given: the median of several rounds.
 */
#include <kolo/kolo.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUNDS = 7, TRIPS = 200, WINDOW = 4, BYTES_A_ROUND = 6 << 20 };

static kolo_context *context;
static kolo_comm *world;
static int rank;

static void need(kolo_status status)
{
    if (status == KOLO_OK)
        return;
    fprintf(stderr, "rank %d: %s\n", rank, kolo_error_text());
    exit(1);
}

static double now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double values[ROUNDS])
{
    qsort(values, ROUNDS, sizeof *values, compare);
    return values[ROUNDS / 2];
}

static void there_and_back(void *memory, size_t bytes)
{
    if (rank == 0) {
        need(kolo_send(world, memory, bytes, KOLO_UINT8, 1));
        need(kolo_recv(world, memory, bytes, KOLO_UINT8, 1));
    } else {
        need(kolo_recv(world, memory, bytes, KOLO_UINT8, 0));
        need(kolo_send(world, memory, bytes, KOLO_UINT8, 0));
    }
}

static double measure_latency(void *memory)
{
    double each[ROUNDS];
    there_and_back(memory, 8);
    for (int round = 0; round < ROUNDS; round++) {
        double begin = now_us();
        for (int i = 0; i < TRIPS; i++)
            there_and_back(memory, 8);
        each[round] = (now_us() - begin) / (2 * TRIPS);
    }
    return median(each);
}

static void start(unsigned char *memory, size_t bytes, kolo_request **request)
{
    need(rank == 0 ? kolo_send_start(world, memory, bytes, KOLO_UINT8, 1, request)
                   : kolo_recv_start(world, memory, bytes, KOLO_UINT8, 0, request));
}

/* The receiver says when it has all: its word costs a latency in many messages. */
static double measure_rate(unsigned char *memory, size_t bytes)
{
    double each[ROUNDS];
    kolo_request *requests[WINDOW];
    int count = (int)(BYTES_A_ROUND / bytes) > WINDOW ? (int)(BYTES_A_ROUND / bytes) : WINDOW;
    for (int round = 0; round < ROUNDS; round++) {
        there_and_back(memory, 1);
        double begin = now_us();
        for (int i = 0; i < count + WINDOW; i++) {
            if (i >= WINDOW)
                need(kolo_wait(&requests[i % WINDOW], -1));
            if (i < count)
                start(memory + (size_t)(i % WINDOW) * bytes, bytes, &requests[i % WINDOW]);
        }
        if (rank == 1)
            need(kolo_send(world, memory, 1, KOLO_UINT8, 0));
        else
            need(kolo_recv(world, memory, 1, KOLO_UINT8, 1));
        each[round] = (double)count * (double)bytes / (now_us() - begin);
    }
    return median(each);
}

/* In the first half of memory what is sent, in the second what comes. */
static double measure_exchange(unsigned char *memory, size_t bytes, size_t half)
{
    double each[ROUNDS];
    kolo_request *sends[WINDOW], *recvs[WINDOW];
    int count = (int)(BYTES_A_ROUND / bytes) > WINDOW ? (int)(BYTES_A_ROUND / bytes) : WINDOW;
    for (int round = 0; round < ROUNDS; round++) {
        there_and_back(memory, 1);
        double begin = now_us();
        for (int i = 0; i < count + WINDOW; i++) {
            size_t at = (size_t)(i % WINDOW) * bytes;
            if (i >= WINDOW) {
                need(kolo_wait(&sends[i % WINDOW], -1));
                need(kolo_wait(&recvs[i % WINDOW], -1));
            }
            if (i < count) {
                need(kolo_recv_start(world, memory + half + at, bytes, KOLO_UINT8, 1 - rank,
                                     &recvs[i % WINDOW]));
                need(kolo_send_start(world, memory + at, bytes, KOLO_UINT8, 1 - rank,
                                     &sends[i % WINDOW]));
            }
        }
        each[round] = 2 * (double)count * (double)bytes / (now_us() - begin);
    }
    return median(each);
}

int main(int argc, char **argv)
{
    void *memory;
    size_t most = 8;
    for (int i = 1; i < argc; i++)
        most = (size_t)atol(argv[i]) > most ? (size_t)atol(argv[i]) : most;
    need(kolo_init(NULL, &context));

    world = kolo_world(context);
    rank = kolo_comm_rank(world);
    need(kolo_alloc(context, 2 * WINDOW * most, &memory));
    double latency = measure_latency(memory);
    if (rank == 0)
        printf("latency %.2f\n", latency);
    for (int i = 1; i < argc; i++) {
        double rate = measure_rate(memory, (size_t)atol(argv[i]));
        double exchange = measure_exchange(memory, (size_t)atol(argv[i]), WINDOW * most);
        if (rank == 0)
            printf("rate %s %.2f\nexchange %s %.2f\n", argv[i], rate, argv[i], exchange);
    }
    kolo_free(context, memory);
    kolo_finalize(context);
    return 0;
}
