/* SPDX-License-Identifier: Apache-2.0 */
/*
 * collective_mpi.c - time one of MPI's collectives (sums) over a list of sizes.
 *
 *   collective_mpi [-c collective] [-p in|out] [-d f32|f16|bf16] [-s sizes]
 *                  [-t seconds] [-n max_iters] [-l peer] [-x transport] [-P] [-H] [-R]
 *
 *   -c  allreduce (default), reduce_scatter, allgather, broadcast, alltoall. Bytes are
 *       the whole buffer: where each rank has a slice, the slice is bytes / ranks.
 *       In place: allreduce if asked, broadcast always, the others never.
 *   -p  in: MPI_IN_PLACE, out: separate send and receive buffers
 *   -d  f32 : MPI_FLOAT + MPI_SUM
 *       f16 : MPIX_C_FLOAT16 + MPI_SUM (MPICH >= 4.0 only, and Debian 12's
 *             4.0.2 aborts on it: assertion in typerep_yaksa_pack.c)
 *       bf16: MPI_UINT16_T + an MPI_Op_create'd operator, the usual workaround,
 *             since no MPI standard up to 4.1 has a 16-bit float type
 *   -s  comma separated bytes, suffixes k and m allowed
 *   -L  a file with a number of bytes on each line: allreduce in place of fp32, one blocking
 *       call for each line after the other, timed together, buffers rewritten before each
 *       pass; prints one line, of which bytes is the sum
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
enum kind { ALLREDUCE, REDUCE_SCATTER, ALLGATHER, BROADCAST, ALLTOALL, KINDS };

static const char *const kind_names[] = {"allreduce", "reduce_scatter", "allgather", "broadcast",
                                         "alltoall"};

/* What is timed: borrowed by call(), owned by measure(). */
struct work {
    enum kind kind;
    enum dtype dtype;
    size_t elem, count, slice; /* elements of the whole buffer, of one rank's part of it */
    int rank, ranks, inplace, rewrite;
    MPI_Datatype type;
    MPI_Op op;
    void *send, *recv;
    double target;
    long cap;
};

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
    cpu_set_t all, one;
    if (!v || sched_getaffinity(0, sizeof all, &all) != 0)
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

static float value_at(const void *p, size_t i, enum dtype d)
{
    if (d == F32)
        return ((const float *)p)[i];
    if (d == F16)
        return (float)((const _Float16 *)p)[i];
    return bf16_to_f32(((const uint16_t *)p)[i]);
}

/* What element i of this rank's result must be. */
static float expected(const struct work *w, size_t i)
{
    size_t from = w->kind == REDUCE_SCATTER ? (size_t)w->rank * w->slice : 0;
    float sum = 0;
    switch (w->kind) {
    case ALLGATHER:
        return pattern(i % w->slice, (int)(i / w->slice));
    case ALLTOALL:
        return pattern((size_t)w->rank * w->slice + i % w->slice, (int)(i / w->slice));
    case BROADCAST:
        return pattern(i, 0);
    default:
        for (int r = 0; r < w->ranks; r++)
            sum += pattern(from + i, r);
        return sum;
    }
}

static void call(const struct work *w)
{
    MPI_Comm comm = MPI_COMM_WORLD;
    int count = (int)w->count, slice = (int)w->slice;
    switch (w->kind) {
    case REDUCE_SCATTER:
        MPI_Reduce_scatter_block(w->send, w->recv, slice, w->type, w->op, comm);
        break;
    case ALLGATHER:
        MPI_Allgather(w->send, slice, w->type, w->recv, slice, w->type, comm);
        break;
    case BROADCAST:
        MPI_Bcast(w->recv, count, w->type, 0, comm);
        break;
    case ALLTOALL:
        MPI_Alltoall(w->send, slice, w->type, w->recv, slice, w->type, comm);
        break;
    default:
        MPI_Allreduce(w->inplace ? MPI_IN_PLACE : w->send, w->recv, count, w->type, w->op, comm);
    }
}

/* Every element of the result, once. */
static int check(struct work *w)
{
    size_t in = w->kind == ALLGATHER ? w->slice : w->count;
    size_t out = w->kind == REDUCE_SCATTER ? w->slice : w->count;
    int ok = 1, all_ok;
    fill(w->send, in, w->dtype, w->rank);
    call(w);
    for (size_t i = 0; ok && i < out; i++)
        ok = value_at(w->recv, i, w->dtype) == expected(w, i);
    MPI_Allreduce(&ok, &all_ok, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    return all_ok;
}

/* Repeated in-place sums must not overflow, so the timed data is a fixed point of
 * addition: -0.0, not 0.0, because some machines write streams of zeros three times
 * faster than other values. */
static void rewrite_input(const struct work *w)
{
    size_t in = w->kind == ALLGATHER ? w->slice : w->count;
    if (w->kind != BROADCAST || w->rank == 0)
        fill_negative_zero(w->send, in * w->elem, w->elem);
}

/* Warms up for about a tenth of the target, and says what one operation takes. */
static double warm_up(const struct work *w)
{
    double spent = 0;
    for (int reps = 2;; reps *= 2) {
        MPI_Barrier(MPI_COMM_WORLD);
        double t0 = MPI_Wtime();
        for (int i = 0; i < reps; i++)
            call(w);
        double dt = MPI_Wtime() - t0;
        MPI_Bcast(&dt, 1, MPI_DOUBLE, 0, MPI_COMM_WORLD);
        spent += dt;
        if (spent > 0.1 * w->target || reps >= w->cap / 4)
            return dt / reps;
    }
}

static double bus_factor(enum kind kind, int ranks)
{
    if (kind == BROADCAST)
        return 1;
    return (kind == ALLREDUCE ? 2.0 : 1.0) * (ranks - 1) / ranks;
}

static int cmp_double(const void *a, const void *b)
{
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

/* Times one size and prints its line. */
static void measure(struct work *w, size_t bytes, int huge, const char *labels, const char *types)
{
    int slices = w->kind != ALLREDUCE && w->kind != BROADCAST;
    w->slice = bytes / w->elem / (slices ? (size_t)w->ranks : 1);
    w->slice += w->slice == 0;
    w->count = w->slice * (slices ? (size_t)w->ranks : 1);
    bytes = w->count * w->elem;
    w->recv = alloc_buffer(bytes, huge);
    w->send = w->inplace ? w->recv : alloc_buffer(bytes, huge);
    int ok = check(w);

    fill_negative_zero(w->recv, bytes, w->elem);
    rewrite_input(w);
    double est = warm_up(w);
    long iters = est > 0 ? (long)(w->target / est) : w->cap;
    iters = iters > w->cap ? w->cap : iters < 5 ? 5 : iters;
    int batches = w->rewrite ? MAX_BATCHES : 25;
    if (batches > iters)
        batches = (int)iters;
    long per = w->rewrite ? 1 : iters / batches;

    double tb[MAX_BATCHES], tmax[MAX_BATCHES];
    for (int b = 0; b < batches; b++) {
        if (w->rewrite)
            rewrite_input(w);
        MPI_Barrier(MPI_COMM_WORLD);
        double t0 = MPI_Wtime();
        for (long i = 0; i < per; i++)
            call(w);
        tb[b] = (MPI_Wtime() - t0) / (double)per;
    }
    MPI_Reduce(tb, tmax, batches, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
    if (w->rank == 0) {
        qsort(tmax, (size_t)batches, sizeof *tmax, cmp_double);
        double med = tmax[batches / 2], alg = (double)bytes / med / 1e9;
        printf("%s %d %zu %.3f %.6f %.6f %s %.3f %ld %s\n", labels, w->ranks, bytes, med * 1e6, alg,
               alg * bus_factor(w->kind, w->ranks), types, tmax[0] * 1e6, per * batches,
               ok ? "ok" : "WRONG");
        fflush(stdout);
    }
    free(w->recv);
    if (!w->inplace)
        free(w->send);
}

/* False: this MPI has no such type. */
static int set_dtype(struct work *w, const char *name)
{
    if (strcmp(name, "bf16") == 0) {
        w->dtype = BF16;
        w->elem = 2;
        w->type = MPI_UINT16_T;
        MPI_Op_create(bf16_sum, 1, &w->op);
    } else if (strcmp(name, "f16") == 0) {
        w->dtype = F16;
        w->elem = 2;
#ifdef MPIX_C_FLOAT16
        w->type = MPIX_C_FLOAT16;
#else
        w->type = MPI_DATATYPE_NULL;
#endif
    }
    return w->type != MPI_DATATYPE_NULL;
}

/* ---- a list of sizes, one call each ---------------------------------------------------------- */

static void call_list(const struct work *w, const size_t *counts, size_t tensors)
{
    float *at = w->recv;
    for (size_t i = 0; i < tensors; at += counts[i++])
        MPI_Allreduce(MPI_IN_PLACE, at, (int)counts[i], MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

static double time_list(const struct work *w, const size_t *counts, size_t tensors)
{
    fill_negative_zero(w->recv, w->count * 4, 4);
    MPI_Barrier(MPI_COMM_WORLD);
    double t0 = MPI_Wtime();
    call_list(w, counts, tensors);
    return MPI_Wtime() - t0;
}

static void measure_list(struct work *w, const char *path, int huge, const char *labels)
{
    enum { TENSORS_MAX = 4096 };
    size_t counts[TENSORS_MAX], tensors = 0, bytes;
    FILE *file = fopen(path, "r");
    if (!file) {
        perror(path);
        MPI_Abort(MPI_COMM_WORLD, 1);
        return;
    }
    w->count = 0;
    while (tensors < TENSORS_MAX && fscanf(file, "%zu", &bytes) == 1)
        w->count += counts[tensors++] = bytes / 4;
    fclose(file);
    w->send = w->recv = alloc_buffer(w->count * 4, huge);

    int ok = 1, all_ok;
    fill(w->recv, w->count, F32, w->rank);
    call_list(w, counts, tensors);
    for (size_t i = 0; ok && i < w->count; i++)
        ok = ((float *)w->recv)[i] == expected(w, i);
    MPI_Allreduce(&ok, &all_ok, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);

    double est = time_list(w, counts, tensors);
    MPI_Bcast(&est, 1, MPI_DOUBLE, 0, MPI_COMM_WORLD);
    int passes = (int)(w->target / est);
    passes = passes < 3 ? 3 : passes > MAX_BATCHES ? MAX_BATCHES : passes;
    double times[MAX_BATCHES], most[MAX_BATCHES];
    for (int i = 0; i < passes; i++)
        times[i] = time_list(w, counts, tensors);
    MPI_Reduce(times, most, passes, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
    if (w->rank == 0) {
        qsort(most, (size_t)passes, sizeof *most, cmp_double);
        double med = most[passes / 2], alg = (double)w->count * 4 / med / 1e9;
        printf("%s %d %zu %.3f %.6f %.6f list f32 %.3f %d %s\n", labels, w->ranks, w->count * 4,
               med * 1e6, alg, alg * bus_factor(ALLREDUCE, w->ranks), most[0] * 1e6, passes,
               all_ok ? "ok" : "WRONG");
    }
    free(w->recv);
}

int main(int argc, char **argv)
{
    const char *list_path = NULL;
    const char *place = "in", *dname = "f32", *sizes = default_sizes;
    const char *peer = "mpi", *transport = "default";
    struct work w = {.target = 0.5, .cap = 20000, .type = MPI_FLOAT, .op = MPI_SUM, .elem = 4};
    int pin = 1, huge = 0, opt;

    while ((opt = getopt(argc, argv, "c:p:d:s:t:n:l:x:L:PHR")) != -1)
        switch (opt) {
        case 'c':
            while (w.kind < KINDS && strcmp(optarg, kind_names[w.kind]) != 0)
                w.kind++;
            if (w.kind == KINDS)
                return 2;
            break;
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
            w.target = atof(optarg);
            break;
        case 'n':
            w.cap = atol(optarg);
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
        case 'L':
            list_path = optarg;
            break;
        case 'R':
            w.rewrite = 1;
            break;
        default:
            return 2;
        }
    if (pin)
        pin_self();

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &w.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &w.ranks);
    if (!set_dtype(&w, dname)) {
        if (w.rank == 0)
            fprintf(stderr, "f16 unsupported by this MPI\n");
        MPI_Finalize();
        return 3;
    }
    w.inplace = w.kind == BROADCAST || (w.kind == ALLREDUCE && strcmp(place, "in") == 0);

    char labels[64], types[32];
    snprintf(labels, sizeof labels, "%s %s", peer, transport);
    snprintf(types, sizeof types, "%s %s", w.inplace ? "in" : "out", dname);
    if (list_path) {
        measure_list(&w, list_path, huge, labels);
        MPI_Finalize();
        return 0;
    }
    char *list = strdup(sizes), *save = NULL;
    for (char *t = strtok_r(list, ",", &save); t; t = strtok_r(NULL, ",", &save)) {
        char *end;
        size_t bytes = strtoull(t, &end, 0);
        int shift = *end == 'k' || *end == 'K' ? 10 : *end == 'm' || *end == 'M' ? 20 : 0;
        measure(&w, bytes << shift, huge, labels, types);
    }
    free(list);
    MPI_Finalize();
    return 0;
}
