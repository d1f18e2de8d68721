/* SPDX-License-Identifier: Apache-2.0 */
/*
 * socket_ring - what plain sockets carry in a ring: the limit of allreduce over TCP. (sockets.c:
 * two processes only, with TLS beside.)
 *
 * Each of n processes has two sockets, one to the next process and one from the one before, as in
 * a ring; with two processes that is one each way. Each moves as many bytes as the ring does in an
 * allreduce of the size, 2 (n - 1) / n of it, out of one buffer and into another, in calls of at
 * most CHUNK bytes, and reduces nothing. Which chunk is best depends on caches, so all are tried;
 * the time of a size is that of the best one.
 *
 *   socket_ring [-n RANKS] [-s SIZES] [-t SECONDS] [-R] [-C CONGESTION] [-N HOST,HOST]
 *
 *   -s   bytes, comma separated
 *   -t   per size and chunk
 *   -R   write the buffer that is sent anew before each time (bench/peers/run.sh: REWRITE=1)
 *   -C   congestion control; without: the system's
 *   -N   two hosts, each the half of the ranks, as ADDRESS@FILE of a network namespace
 *        (10.0.0.1@/proc/123/ns/net); without: loopback. A socket stays in the namespace in which
 *        it was made, so only making them goes there
 *
 * Output, one line per size:  limit socket_ring RANKS BYTES MICROSECONDS CHUNK
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_RANKS = 16, MOST_TIMES = 2000, CHUNKS = 4 };
static const size_t chunks[CHUNKS] = {128 << 10, 256 << 10, 1 << 20, 1 << 30};

/* Of all processes, in memory that they share. */
static struct {
    _Alignas(64) atomic_long arrived;
    _Alignas(64) double seconds[MOST_RANKS]; /* of the last turn */
    _Alignas(64) atomic_long failed;
} * shared;

static int ranks = 2, rank, rewrite, crowded, next_fd, before_fd;
static double limit_s = 0.1;
static const char *congestion;
static struct host {
    struct in_addr address;
    int space_fd; /* -1: where this program runs */
} hosts[2] = {{{0}, -1}, {{0}, -1}};

static void fail(const char *what)
{
    perror(what);
    if (shared != NULL)
        atomic_store(&shared->failed, 1);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* The others fail, or come: no process waits for one that is gone. */
static void barrier(void)
{
    static long turns;
    atomic_fetch_add(&shared->arrived, 1);
    turns++;
    while (atomic_load(&shared->arrived) < turns * ranks) {
        if (atomic_load(&shared->failed) != 0)
            exit(1);
        if (crowded)
            sched_yield();
    }
}

static void parse_hosts(char *text)
{
    for (int h = 0; h < 2; h++) {
        char *address = strsep(&text, "@"), *file = strsep(&text, ",");
        if (file == NULL || inet_pton(AF_INET, address, &hosts[h].address) != 1 ||
            (hosts[h].space_fd = open(file, O_RDONLY | O_CLOEXEC)) < 0)
            fail("-N: say ADDRESS@FILE,ADDRESS@FILE");
    }
}

static const struct host *host_of(int r)
{
    return &hosts[r * 2 / ranks];
}

static int make_socket(const struct host *host)
{
    if (host->space_fd >= 0 && setns(host->space_fd, CLONE_NEWNET) != 0)
        fail("cannot enter a network namespace");
    return socket(AF_INET, SOCK_STREAM, 0);
}

/* A connection from rank r to the next. */
static void connect_pair(int r, int pair[2])
{
    const struct host *to = host_of((r + 1) % ranks);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = to->address};
    socklen_t length = sizeof address;
    int on = 1, listener = make_socket(to);
    pair[0] = make_socket(host_of(r));
    if (congestion != NULL) /* an accepted connection has its listener's */
        for (int i = 0; i < 2; i++)
            if (setsockopt(i == 0 ? listener : pair[0], IPPROTO_TCP, TCP_CONGESTION, congestion,
                           (socklen_t)strlen(congestion)) != 0)
                fail(congestion);
    if (bind(listener, (struct sockaddr *)&address, length) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) != 0 ||
        connect(pair[0], (struct sockaddr *)&address, length) != 0)
        fail("cannot connect");
    pair[1] = accept(listener, NULL, NULL);
    for (int i = 0; i < 2; i++)
        setsockopt(pair[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    close(listener);
}

static void pin(void)
{
    cpu_set_t all, one;
    sched_getaffinity(0, sizeof all, &all);
    int left = rank % CPU_COUNT(&all);
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all) && left-- == 0)
            CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof one, &one);
}

static void fill(float *values, size_t bytes)
{
    for (size_t i = 0; i < bytes / sizeof *values; i++)
        values[i] = -0.0f; /* zeros are quicker on some machines */
}

static double move(const char *from, char *to, size_t bytes, size_t chunk)
{
    double begin = now();
    for (size_t sent = 0, received = 0; sent < bytes || received < bytes;) {
        size_t out = bytes - sent < chunk ? bytes - sent : chunk;
        size_t in = bytes - received < chunk ? bytes - received : chunk;
        ssize_t moved = 0, came = 0;
        if (out > 0 && (moved = send(next_fd, from + sent, out, MSG_DONTWAIT | MSG_NOSIGNAL)) > 0)
            sent += (size_t)moved;
        if (in > 0 && (came = recv(before_fd, to + received, in, MSG_DONTWAIT)) > 0)
            received += (size_t)came;
        else if (in > 0 && came == 0)
            fail("a connection was closed");
        if (crowded && moved <= 0 && came <= 0)
            sched_yield();
    }
    return now() - begin;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median over operations of the slowest process's time. All take part in as many. */
static double measure(char *from, char *to, size_t bytes, size_t chunk)
{
    static double times[MOST_TIMES];
    double spent = 0;
    int count = 0;
    for (int turn = -2; count == 0 || (spent < limit_s && count < MOST_TIMES); turn++) {
        if (rewrite || turn == -2)
            fill((float *)(void *)from, bytes);
        barrier();
        shared->seconds[rank] = move(from, to, bytes, chunk);
        barrier();
        double slowest = 0;
        for (int r = 0; r < ranks; r++)
            if (shared->seconds[r] > slowest)
                slowest = shared->seconds[r];
        barrier();
        if (turn < 0)
            continue;
        times[count++] = slowest;
        spent += slowest;
    }
    qsort(times, (size_t)count, sizeof *times, ascending);
    return times[count / 2];
}

static void run(const char *sizes)
{
    pin();
    for (const char *s = sizes; s != NULL && *s != '\0';) {
        char *end;
        size_t size = strtoull(s, &end, 10);
        size_t bytes = size * 2 * (size_t)(ranks - 1) / (size_t)ranks;
        char *from = malloc(bytes + 1), *to = malloc(bytes + 1);
        double best = 0;
        size_t best_chunk = 0;
        if (size == 0 || from == NULL || to == NULL)
            fail(s);
        fill((float *)(void *)to, bytes);
        for (int c = 0; c < CHUNKS; c++) {
            double seconds = measure(from, to, bytes, chunks[c]);
            if (best_chunk == 0 || seconds < best)
                best = seconds, best_chunk = chunks[c];
            if (bytes <= chunks[c])
                break; /* larger ones are the same */
        }
        if (rank == 0)
            printf("limit socket_ring %d %zu %.3f %zu\n", ranks, size, best * 1e6, best_chunk);
        fflush(stdout);
        free(from);
        free(to);
        s = *end == ',' ? end + 1 : NULL;
    }
}

int main(int argc, char **argv)
{
    const char *sizes = "65536,1048576,16777216,67108864";
    int pairs[MOST_RANKS][2], option, worst = 0, status;
    for (int h = 0; h < 2; h++)
        hosts[h].address.s_addr = htonl(INADDR_LOOPBACK);
    while ((option = getopt(argc, argv, "n:s:t:RC:N:")) != -1) {
        switch (option) {
        case 'n':
            ranks = atoi(optarg);
            break;
        case 's':
            sizes = optarg;
            break;
        case 't':
            limit_s = atof(optarg);
            break;
        case 'R':
            rewrite = 1;
            break;
        case 'C':
            congestion = optarg;
            break;
        case 'N':
            parse_hosts(optarg);
            break;
        default:
            return 64;
        }
    }
    if (ranks < 2 || ranks > MOST_RANKS)
        return 64;
    crowded = ranks > sysconf(_SC_NPROCESSORS_ONLN);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 1;
    for (int r = 0; r < ranks; r++)
        connect_pair(r, pairs[r]); /* from r to the next */
    for (rank = 0; rank < ranks; rank++) {
        if (fork() != 0)
            continue;
        next_fd = pairs[rank][0];
        before_fd = pairs[(rank + ranks - 1) % ranks][1];
        run(sizes);
        return 0;
    }
    for (int r = 0; r < ranks; r++)
        if (wait(&status) > 0 && status != 0)
            worst = 1;
    return worst;
}
