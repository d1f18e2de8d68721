/* SPDX-License-Identifier: Apache-2.0 */
/*
 * allreduce_mpi.c - time MPI_Allreduce(SUM) over a list of message sizes.
 *
 *   allreduce_mpi [-p in|out] [-d f32|f16|bf16] [-s sizes] [-t seconds]
 *                 [-n max_iters] [-l peer] [-x transport] [-P] [-H] [-R]
 *
 *   -p  in: MPI_IN_PLACE, out: separate send and receive buffers
 *   -d  f32 : MPI_FLOAT + MPI_SUM
 *       f16 : MPIX_C_FLOAT16 + MPI_SUM (MPICH >= 4.0 only, and Debian 12's
 *             4.0.2 aborts on it: assertion in typerep_yaksa_pack.c)
 *       bf16: MPI_UINT16_T + an MPI_Op_create'd operator, the usual workaround,
 *             since no MPI standard up to 4.1 has a 16-bit float type
 *   -s  comma separated bytes, suffixes k and m allowed
 *   -t  target seconds of timed work per size (default 0.5)
 *   -n  cap on timed operations per size (default 20000)
 *   -P  do not pin; by default rank r runs on the (r mod ncpus)-th allowed CPU
 *   -H  ask for transparent huge pages on the user buffers (madvise)
 *   -R  rewrite the whole send buffer before every timed operation, outside the
 *       timing, as a training step does; each operation is timed alone after a
 *       barrier. Without it, data that nobody touched between calls stays in
 *       whichever cache the last operation left it.
 *
 * One line per size on stdout, from rank 0:
 *   peer transport ranks bytes time_us algbw_GBps busbw_GBps \
 *        place dtype min_us iters check
 * time_us is the median over batches of the slowest rank's time per operation,
 * min_us the best batch.  GB = 1e9 bytes.
 */
#define _GNU_SOURCE
#include <mpi.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAX_BATCHES = 201 };
enum dtype { F32, F16, BF16 };

static const char *default_sizes = "4,64,1k,8k,64k,256k,1m,4m,16m,64m,256m";

/* Pin before MPI_Init, so that helper threads and first-touched pages follow.
 * The launcher tells us the local rank through the environment. */
static void pin_self(void)
{
    static const char *names[] = {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "PMI_RANK"};
    const char *v = NULL;
    for (size_t i = 0; !v && i < sizeof names / sizeof *names; i++)
        v = getenv(names[i]);
    /* In separate namespaces every local rank is 0: let the caller override. */
    if (getenv("BENCH_CPU"))
        v = getenv("BENCH_CPU");
    if (!v)
        return;

    cpu_set_t all, one;
    if (sched_getaffinity(0, sizeof all, &all) != 0)
        return;
    int want = atoi(v) % CPU_COUNT(&all);
    for (int c = 0; c < CPU_SETSIZE; c++)
        if (CPU_ISSET(c, &all) && want-- == 0) {
            CPU_ZERO(&one);
            CPU_SET(c, &one);
            sched_setaffinity(0, sizeof one, &one);
            return;
        }
}

static void *alloc_buffer(size_t bytes, int huge)
{
    void *p = NULL;
    size_t al = 2u << 20;
    size_t len = (bytes + al - 1) / al * al;
    if (posix_memalign(&p, al, len) != 0) {
        fprintf(stderr, "out of memory\n");
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
    if (huge)
        madvise(p, len, MADV_HUGEPAGE);
    memset(p, 0, len);
    return p;
}

static uint16_t f32_to_bf16(float f) /* round to nearest even */
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

static float bf16_to_f32(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static void bf16_sum(void *in, void *inout, int *n, MPI_Datatype *dt)
{
    const uint16_t *a = in;
    uint16_t *b = inout;
    (void)dt;
    for (int i = 0; i < *n; i++)
        b[i] = f32_to_bf16(bf16_to_f32(a[i]) + bf16_to_f32(b[i]));
}

/* Small integers: exact in every dtype and in every summation order. */
static float pattern(size_t i, int rank)
{
    return (float)(i % 13) + (float)rank;
}

static void fill(void *p, size_t n, enum dtype d, int rank)
{
    for (size_t i = 0; i < n; i++) {
        float f = pattern(i, rank);
        if (d == F32)
            ((float *)p)[i] = f;
        else if (d == F16)
            ((_Float16 *)p)[i] = (_Float16)f;
        else
            ((uint16_t *)p)[i] = f32_to_bf16(f);
    }
}

static void fill_negative_zero(void *p, size_t bytes, size_t elem)
{
    uint32_t word = elem == 2 ? 0x80008000u : 0x80000000u;
    uint32_t *w = p; /* buffers are whole 2 MiB blocks */
    for (size_t i = 0; i < (bytes + 3) / 4; i++)
        w[i] = word;
}

static int check(const void *p, size_t n, enum dtype d, int nranks)
{
    for (size_t i = 0; i < n; i++) {
        float got, want = 0;
        if (d == F32)
            got = ((const float *)p)[i];
        else if (d == F16)
            got = (float)((const _Float16 *)p)[i];
        else
            got = bf16_to_f32(((const uint16_t *)p)[i]);
        for (int r = 0; r < nranks; r++)
            want += pattern(i, r);
        if (got != want)
            return 0;
    }
    return 1;
}

static int cmp_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    const char *place = "in", *dname = "f32", *sizes = default_sizes;
    const char *peer = "mpi", *transport = "default";
    double target = 0.5;
    long cap = 20000;
    int pin = 1, huge = 0, rewrite = 0, opt;

    while ((opt = getopt(argc, argv, "p:d:s:t:n:l:x:PHR")) != -1)
        switch (opt) {
        case 'p':
            place = optarg;
            break;
        case 'd':
            dname = optarg;
            break;
        case 's':
            sizes = optarg;
            break;
        case 't':
            target = atof(optarg);
            break;
        case 'n':
            cap = atol(optarg);
            break;
        case 'l':
            peer = optarg;
            break;
        case 'x':
            transport = optarg;
            break;
        case 'P':
            pin = 0;
            break;
        case 'H':
            huge = 1;
            break;
        case 'R':
            rewrite = 1;
            break;
        default:
            return 2;
        }
    if (pin)
        pin_self();

    MPI_Init(&argc, &argv);
    MPI_Comm w = MPI_COMM_WORLD;
    int rank, nranks;
    MPI_Comm_rank(w, &rank);
    MPI_Comm_size(w, &nranks);

    MPI_Datatype type = MPI_FLOAT;
    MPI_Op op = MPI_SUM;
    enum dtype d = F32;
    size_t elem = 4;
    if (strcmp(dname, "bf16") == 0) {
        d = BF16;
        elem = 2;
        type = MPI_UINT16_T;
        MPI_Op_create(bf16_sum, 1, &op);
    } else if (strcmp(dname, "f16") == 0) {
        d = F16;
        elem = 2;
#ifdef MPIX_C_FLOAT16
        type = MPIX_C_FLOAT16;
#else
        type = MPI_DATATYPE_NULL;
#endif
        if (type == MPI_DATATYPE_NULL) {
            if (rank == 0)
                fprintf(stderr, "f16 unsupported by this MPI\n");
            MPI_Finalize();
            return 3;
        }
    }
    int inplace = strcmp(place, "in") == 0;

    char *list = strdup(sizes), *save = NULL;
    for (char *t = strtok_r(list, ",", &save); t; t = strtok_r(NULL, ",", &save)) {
        char *end;
        size_t bytes = strtoull(t, &end, 0);
        if (*end == 'k' || *end == 'K')
            bytes <<= 10;
        if (*end == 'm' || *end == 'M')
            bytes <<= 20;
        int n = (int)(bytes / elem);
        if (n == 0)
            n = 1;
        bytes = (size_t)n * elem;

        void *recv = alloc_buffer(bytes, huge);
        void *send = inplace ? MPI_IN_PLACE : alloc_buffer(bytes, huge);
        void *src = inplace ? recv : send;

        /* Correctness, once. */
        fill(src, (size_t)n, d, rank);
        MPI_Allreduce(send, recv, n, type, op, w);
        int ok = check(recv, (size_t)n, d, nranks), all_ok;
        MPI_Allreduce(&ok, &all_ok, 1, MPI_INT, MPI_MIN, w);

        /* Repeated in-place sums must not overflow, so the timed data is a
         * fixed point of addition: -0.0, not 0.0, because some machines write
         * streams of zeros three times faster than other values. */
        fill_negative_zero(recv, bytes, elem);
        fill_negative_zero(src, bytes, elem);

        /* Warm up for about a tenth of the target; estimate the cost. */
        double est = 0, spent = 0;
        for (int reps = 2;; reps *= 2) {
            MPI_Barrier(w);
            double t0 = MPI_Wtime();
            for (int i = 0; i < reps; i++)
                MPI_Allreduce(send, recv, n, type, op, w);
            double dt = MPI_Wtime() - t0;
            MPI_Bcast(&dt, 1, MPI_DOUBLE, 0, w);
            spent += dt;
            est = dt / reps;
            if (spent > 0.1 * target || reps >= cap / 4)
                break;
        }
        long iters = est > 0 ? (long)(target / est) : cap;
        if (iters > cap)
            iters = cap;
        if (iters < 5)
            iters = 5;
        int batches = rewrite ? MAX_BATCHES : 25;
        if (batches > iters)
            batches = (int)iters;
        long per = rewrite ? 1 : iters / batches;

        double tb[MAX_BATCHES], tmax[MAX_BATCHES];
        for (int b = 0; b < batches; b++) {
            if (rewrite)
                fill_negative_zero(src, bytes, elem);
            MPI_Barrier(w);
            double t0 = MPI_Wtime();
            for (long i = 0; i < per; i++)
                MPI_Allreduce(send, recv, n, type, op, w);
            tb[b] = (MPI_Wtime() - t0) / (double)per;
        }
        MPI_Reduce(tb, tmax, batches, MPI_DOUBLE, MPI_MAX, 0, w);

        if (rank == 0) {
            qsort(tmax, (size_t)batches, sizeof *tmax, cmp_double);
            double med = tmax[batches / 2];
            double alg = (double)bytes / med / 1e9;
            printf("%s %s %d %zu %.2f %.4f %.4f %s %s %.2f %ld %s\n", peer, transport, nranks,
                   bytes, med * 1e6, alg, alg * 2.0 * (nranks - 1) / nranks, place, dname,
                   tmax[0] * 1e6, per * batches, all_ok ? "ok" : "WRONG");
            fflush(stdout);
        }
        free(recv);
        if (!inplace)
            free(send);
    }
    free(list);
    MPI_Finalize();
    return 0;
}
