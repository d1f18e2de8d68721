/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ideal.c - the allreduce (fp32 sum) that this machine allows: threads that see every rank's buffer
 * load each input once, sum, and store to each output, and do nothing else. The target of whoever
 * shares memory; timed by the rules of collective_mpi.c.
 *
 *   ideal [-n ranks] [-s sizes] [-t seconds] [-p in|out] [-R]
 *
 *   -n  threads standing in for ranks, thread r on the r-th allowed CPU (2; 2 to 16)
 *   -s  comma separated bytes, suffixes k and m allowed
 *   -t  seconds of timed work per size and variant (0.2)
 *   -p  in: results replace the inputs; out: separate buffers (in)
 *   -R  write every input anew before each operation, and time each alone after a barrier
 *
 * Every line:  limit ideal_VARIANT/PAGES threads bytes microseconds us lowest highest
 * Variants, and where they are tried:
 *   oneshot     to 32 KiB: every rank publishes its input and sums all of them. One wait
 *   direct      from 1 KiB: rank r sums slice r and stores it to all. Two waits
 *   direct_nt   from 4 MiB: the same with streaming stores
 * The limit at a size is the lowest of its lines. Pages: shm a memfd, thp transparent huge pages.
 */
#define _GNU_SOURCE
#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
    RANKS_MAX = 16,
    SAMPLES_MAX = 201,
    BATCHES = 25,
    OPERATIONS_MAX = 20000,
    INLINE_BYTES = 56,
    ONESHOT_MAX = 32 << 10,
    DIRECT_MIN = 1 << 10,
    STREAMING_MIN = 4 << 20,
    BLOCK = 2 << 20,
};

/* One writer each. Small inputs travel in the line of the flag itself: one line fewer to wait for.
 */
struct flag {
    _Alignas(128) atomic_uint epoch;
    float payload[2][INLINE_BYTES / 8]; /* by parity of the epoch: nobody waits to reuse one */
};

enum variant { ONESHOT, DIRECT, DIRECT_NT };

struct team {
    int ranks;
    bool crowded, rewrite;
    enum variant variant;
    size_t count;
    double seconds;
    float *in[RANKS_MAX], *out[RANKS_MAX], *slots[RANKS_MAX];
    struct flag flags[RANKS_MAX];
    double times[RANKS_MAX][SAMPLES_MAX];
    long samples, batch; /* set by rank 0 between two waits */
    atomic_bool wrong;
};

struct member {
    struct team *team;
    int rank;
    unsigned epoch;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void pin(int rank)
{
    static cpu_set_t all; /* the first call is before any thread */
    if (CPU_COUNT(&all) == 0)
        sched_getaffinity(0, sizeof all, &all);
    int left = rank % CPU_COUNT(&all);
    for (int cpu = 0; rank >= 0 && cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all) && left-- == 0) {
            cpu_set_t one;
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            sched_setaffinity(0, sizeof one, &one);
            return;
        }
}

/* ---- the allreduce ------------------------------------------------------------------------- */

static void await(const struct member *self, int rank)
{
    struct team *team = self->team;
    while ((int)(atomic_load_explicit(&team->flags[rank].epoch, memory_order_acquire) -
                 self->epoch) < 0)
        if (team->crowded)
            sched_yield();
        else
            _mm_pause();
}

static void publish(struct member *self)
{
    self->epoch++;
    atomic_store_explicit(&self->team->flags[self->rank].epoch, self->epoch, memory_order_release);
}

static void barrier(struct member *self)
{
    publish(self);
    for (int r = 0; r < self->team->ranks; r++)
        await(self, r);
}

static void sum_of(float *out, float *const *in, int ranks, size_t count)
{
    const float *a = in[0], *b = in[1];
    for (size_t i = 0; i < count; i++)
        out[i] = a[i] + b[i];
    for (int r = 2; r < ranks; r++)
        for (size_t i = 0; i < count; i++)
            out[i] += in[r][i];
}

static void oneshot(struct member *self)
{
    struct team *team = self->team;
    size_t parity = (self->epoch + 1) & 1, bytes = team->count * 4;
    bool small = bytes <= INLINE_BYTES / 2;
    float *in[RANKS_MAX];
    for (int r = 0; r < team->ranks; r++)
        in[r] = small ? team->flags[r].payload[parity] : team->slots[r] + parity * team->count;
    memcpy(in[self->rank], team->in[self->rank], bytes);
    publish(self);
    for (int r = 0; r < team->ranks; r++)
        await(self, r);
    sum_of(team->out[self->rank], in, team->ranks, team->count);
}

typedef float wide __attribute__((vector_size(64), aligned(64)));

static inline void store_streaming(float *to, const wide *value)
{
#ifdef __AVX512F__
    _mm512_stream_ps(to, (__m512)*value);
#else
    for (int i = 0; i < 16; i += 4)
        _mm_stream_ps(to + i, _mm_loadu_ps((const float *)value + i));
#endif
}

/* From and to are whole cache lines. */
static inline void sum_to_all(const struct team *team, int ranks, size_t from, size_t to,
                              bool streaming)
{
    for (size_t i = from; i < to; i += 16) {
        wide sum = *(const wide *)(team->in[0] + i);
        for (int r = 1; r < ranks; r++)
            sum += *(const wide *)(team->in[r] + i);
        for (int r = 0; r < ranks; r++)
            if (streaming)
                store_streaming(team->out[r] + i, &sum);
            else
                *(wide *)(team->out[r] + i) = sum;
    }
    if (streaming)
        _mm_sfence();
}

static void direct(struct member *self)
{
    struct team *team = self->team;
    size_t lines = team->count / 16, ranks = (size_t)team->ranks, rank = (size_t)self->rank;
    size_t from = lines * rank / ranks * 16, to = lines * (rank + 1) / ranks * 16;
    bool streaming = team->variant == DIRECT_NT;
    barrier(self);  /* every input is ready */
    if (ranks == 2) /* with the number known, the loops over ranks unroll */
        sum_to_all(team, 2, from, to, streaming);
    else
        sum_to_all(team, team->ranks, from, to, streaming);
    barrier(self); /* every output is written */
}

static void allreduce(struct member *self)
{
    if (self->team->variant == ONESHOT)
        oneshot(self);
    else
        direct(self);
}

/* ---- timing -------------------------------------------------------------------------------- */

static void fill(float *to, size_t count, float value)
{
    for (size_t i = 0; i < count; i++)
        to[i] = value;
}

static double time_batch(struct member *self, long operations)
{
    barrier(self);
    double start = now();
    for (long i = 0; i < operations; i++)
        allreduce(self);
    return now() - start;
}

static void check(struct member *self)
{
    struct team *team = self->team;
    float *in = team->in[self->rank], want = 0;
    for (size_t i = 0; i < team->count; i++)
        in[i] = (float)(i % 13) + (float)self->rank;
    for (int r = 0; r < team->ranks; r++)
        want += (float)r;
    time_batch(self, 1);
    for (size_t i = 0; i < team->count; i++)
        if (team->out[self->rank][i] != want + (float)(i % 13) * (float)team->ranks)
            atomic_store(&team->wrong, true);
    barrier(self);
}

static void warm_up(struct member *self)
{
    struct team *team = self->team;
    double spent = 0, one = 0;
    for (long operations = 2;; operations *= 2) {
        team->times[self->rank][0] = time_batch(self, operations);
        barrier(self);
        one = team->times[0][0] / (double)operations;
        spent += team->times[0][0];
        barrier(self);
        if (spent > 0.1 * team->seconds || operations >= OPERATIONS_MAX / 4)
            break;
    }
    if (self->rank == 0) {
        double wanted = team->seconds / one;
        long operations = wanted > OPERATIONS_MAX ? OPERATIONS_MAX : wanted < 5 ? 5 : (long)wanted;
        team->samples = team->rewrite ? SAMPLES_MAX : BATCHES;
        if (team->samples > operations)
            team->samples = operations;
        team->batch = team->rewrite ? 1 : operations / team->samples;
    }
    barrier(self);
}

static void *thread_main(void *argument)
{
    struct member *self = argument;
    struct team *team = self->team;
    pin(self->rank);
    check(self);
    fill(team->in[self->rank], team->count,
         -0.0f); /* a fixed point of sums, and not a stream of zeros */
    warm_up(self);
    for (long i = 0; i < team->samples; i++) {
        if (team->rewrite)
            fill(team->in[self->rank], team->count, -0.0f);
        team->times[self->rank][i] = time_batch(self, team->batch) / (double)team->batch;
    }
    return NULL;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(struct team *team, const char *pages)
{
    static const char *const names[] = {"oneshot", "direct", "direct_nt"};
    double *slowest = team->times[0];
    for (long i = 0; i < team->samples; i++)
        for (int r = 1; r < team->ranks; r++)
            if (team->times[r][i] > slowest[i])
                slowest[i] = team->times[r][i];
    qsort(slowest, (size_t)team->samples, sizeof *slowest, by_value);
    printf("limit ideal_%s/%s %d %zu %.3f us %.3f %.3f\n", names[team->variant], pages, team->ranks,
           team->count * 4, slowest[team->samples / 2] * 1e6, slowest[0] * 1e6,
           slowest[team->samples - 1] * 1e6);
    fflush(stdout);
}

/* ---- buffers ------------------------------------------------------------------------------- */

static float *map_or_exit(size_t bytes, bool huge)
{
    bytes = (bytes + BLOCK - 1) / BLOCK * BLOCK;
    int fd = huge ? -1 : memfd_create("ideal", 0);
    if (fd >= 0 && ftruncate(fd, (off_t)bytes) != 0)
        perror("ideal: ftruncate"), exit(1);
    /* Twice the room, so that a huge page can begin on its boundary. */
    char *at =
        huge ? mmap(NULL, bytes + BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
             : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        perror("ideal: mmap"), exit(1);
    if (fd >= 0)
        close(fd);
    if (!huge)
        return (float *)at;
    at = (char *)(((uintptr_t)at + BLOCK - 1) / BLOCK * BLOCK);
    madvise(at, bytes, MADV_HUGEPAGE);
    return (float *)at;
}

static void measure(struct team *team, enum variant variant, bool in_place, bool huge)
{
    size_t bytes = team->count * 4;
    struct member members[RANKS_MAX];
    pthread_t threads[RANKS_MAX];
    team->variant = variant;
    memset(team->flags, 0, sizeof team->flags);
    for (int r = 0; r < team->ranks; r++) {
        team->in[r] = map_or_exit(bytes, huge);
        team->out[r] = in_place ? team->in[r] : map_or_exit(bytes, huge);
        team->slots[r] = map_or_exit(2 * ONESHOT_MAX, huge);
    }
    for (int r = 0; r < team->ranks; r++) {
        members[r] = (struct member){.team = team, .rank = r};
        if (pthread_create(&threads[r], NULL, thread_main, &members[r]) != 0)
            fprintf(stderr, "ideal: no thread for rank %d\n", r), exit(1);
    }
    for (int r = 0; r < team->ranks; r++)
        pthread_join(threads[r], NULL);
    if (atomic_load(&team->wrong))
        fprintf(stderr, "ideal: wrong sum of %zu bytes\n", bytes), exit(1);
    report(team, huge ? "thp" : "shm");
    for (int r = 0; r < team->ranks; r++) { /* the rest of a huge mapping goes with the process */
        munmap(team->in[r], bytes);
        if (!in_place)
            munmap(team->out[r], bytes);
        munmap(team->slots[r], 2 * ONESHOT_MAX);
    }
}

static void measure_size(struct team *team, size_t bytes, bool in_place)
{
    team->count = bytes < 4 ? 1 : bytes / 4;
    if (bytes <= ONESHOT_MAX)
        measure(team, ONESHOT, in_place, false);
    if (bytes >= DIRECT_MIN)
        measure(team, DIRECT, in_place, false);
    if (bytes >= STREAMING_MIN) {
        measure(team, DIRECT, in_place, true);
        measure(team, DIRECT_NT, in_place, false);
        measure(team, DIRECT_NT, in_place, true);
    }
}

int main(int argc, char **argv)
{
    static struct team team = {.ranks = 2, .seconds = 0.2};
    char sizes[] = "4,64,1k,8k,64k,256k,1m,4m,16m,64m,256m", *list = sizes;
    bool in_place = true;
    for (int option; (option = getopt(argc, argv, "n:s:t:p:R")) != -1;)
        switch (option) {
        case 'n':
            team.ranks = atoi(optarg);
            break;
        case 's':
            list = optarg;
            break;
        case 't':
            team.seconds = atof(optarg);
            break;
        case 'p':
            in_place = strcmp(optarg, "out") != 0;
            break;
        case 'R':
            team.rewrite = true;
            break;
        default:
            return 2;
        }
    if (team.ranks < 2 || team.ranks > RANKS_MAX)
        return 2;
    pin(-1);
    team.crowded = team.ranks > sysconf(_SC_NPROCESSORS_ONLN);
    char *rest = NULL;
    for (char *word = strtok_r(list, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
        char *end;
        size_t bytes = strtoull(word, &end, 10);
        measure_size(&team, bytes << (*end == 'k' ? 10 : *end == 'm' ? 20 : 0), in_place);
    }
    return 0;
}
