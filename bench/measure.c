/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/measure.h"

#include "bench/check.h"
#include "bench/statistics.h"

#include <math.h>
#include <time.h>

enum {
    BATCHES = 100,          /* samples per size when operations run back to back */
    REWRITTEN = 201,        /* samples per size with rewriting */
    OPERATIONS_MIN = 5,     /* per size, where the time decides */
    OPERATIONS_MAX = 20000, /* the same */
};

/* How the operations of a row are timed. The same on every rank. */
struct plan {
    long samples;
    long operations; /* in each sample */
};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* Each value becomes the slowest rank's. */
static kolo_status slowest(const struct bench_job *job, double *values, size_t count)
{
    return kolo_allreduce(job->comm, values, values, count, KOLO_FP64, KOLO_MAX, NULL);
}

static kolo_status repeat(const struct bench_call *call, const struct bench_collective *collective,
                          long operations)
{
    for (long i = 0; i < operations; i++) {
        kolo_status status = collective->run(call);
        if (status != KOLO_OK)
            return status;
    }
    return KOLO_OK;
}

/* A call, and the same on the mirror of its buffers. */
struct mirrored {
    struct bench_call call, mirror;
    size_t bytes; /* of each buffer */
};

static kolo_status copy(const struct bench_job *job, const struct mirrored *m, bool to_device)
{
    void *own[] = {job->first, job->second}, *mirror[] = {job->first_mirror, job->second_mirror};
    kolo_status status = KOLO_OK;
    for (int i = 0; i < 2 && job->device != NULL && status == KOLO_OK; i++)
        if (own[i] != NULL)
            status = bench_device_copy(job->device, to_device ? own[i] : mirror[i],
                                       to_device ? mirror[i] : own[i], m->bytes);
    return status;
}

/* This rank's time for so many operations after a barrier. */
static kolo_status time_batch(const struct bench_job *job, const struct mirrored *m,
                              long operations, double *seconds)
{
    kolo_status status = kolo_barrier(job->comm);
    if (status != KOLO_OK)
        return status;
    double start = now();
    status = repeat(&m->call, job->options->collective, operations);
    if (status == KOLO_OK && job->device != NULL)
        status = bench_device_wait(job->device);
    *seconds = now() - start;
    return status;
}

static kolo_status check_once(const struct bench_job *job, const struct mirrored *m, uint64_t seed,
                              uint64_t *wrong)
{
    const struct bench_collective *collective = job->options->collective;
    bench_fill_call(collective, &m->mirror, seed);
    bench_spoil_call(collective, &m->mirror);
    kolo_status status = copy(job, m, true);
    if (status == KOLO_OK)
        status = collective->run(&m->call);
    if (status == KOLO_OK)
        status = copy(job, m, false);
    if (status == KOLO_OK)
        *wrong += bench_count_wrong_call(collective, &m->mirror, seed);
    return status;
}

static kolo_status rewrite(const struct bench_job *job, const struct mirrored *m)
{
    bench_rewrite_call(job->options->collective, &m->mirror);
    return copy(job, m, true);
}

/* Runs operations until a tenth of the time wanted has passed, and says what one takes. */
static kolo_status warm_up(const struct bench_job *job, const struct mirrored *m, double *estimate)
{
    const struct bench_options *options = job->options;
    if (options->warmup >= 0) {
        /* At least one, for the estimate. */
        long operations = options->warmup > 0 ? options->warmup : 1;
        kolo_status status = time_batch(job, m, operations, estimate);
        *estimate /= (double)operations;
        return status == KOLO_OK ? slowest(job, estimate, 1) : status;
    }
    double spent = 0;
    for (long operations = 2;; operations *= 2) {
        double seconds = 0;
        kolo_status status = time_batch(job, m, operations, &seconds);
        if (status == KOLO_OK)
            status = slowest(job, &seconds, 1);
        if (status != KOLO_OK)
            return status;
        spent += seconds;
        *estimate = seconds / (double)operations;
        if (spent > 0.1 * options->seconds || operations >= OPERATIONS_MAX / 4)
            return KOLO_OK;
    }
}

static struct plan make_plan(const struct bench_options *options, double estimate)
{
    long operations = options->iterations;
    if (operations == 0) {
        double wanted = ceil(options->seconds / fmax(estimate, 1e-9));
        operations = (long)fmin(fmax(wanted, OPERATIONS_MIN), OPERATIONS_MAX);
        if (options->rewrite && operations > REWRITTEN)
            operations = REWRITTEN;
    }
    long batch = options->rewrite ? 1 : (operations + BATCHES - 1) / BATCHES;
    return (struct plan){.samples = (operations + batch - 1) / batch, .operations = batch};
}

size_t bench_samples_max(const struct bench_options *options)
{
    size_t alone = options->rewrite ? (size_t)options->iterations : 0;
    return alone > REWRITTEN ? alone : REWRITTEN;
}

static kolo_status take_samples(const struct bench_job *job, const struct mirrored *m,
                                const struct plan *plan)
{
    double *samples = job->samples;
    for (long i = 0; i < plan->samples; i++) {
        kolo_status status = job->options->rewrite ? rewrite(job, m) : KOLO_OK;
        if (status == KOLO_OK)
            status = time_batch(job, m, plan->operations, &samples[i]);
        if (status != KOLO_OK)
            return status;
        samples[i] /= (double)plan->operations;
    }
    return slowest(job, samples, (size_t)plan->samples);
}

static kolo_status measure_times(const struct bench_job *job, const struct mirrored *m,
                                 struct bench_row *row)
{
    double estimate = 0;
    kolo_status status = rewrite(job, m);
    if (status == KOLO_OK)
        status = warm_up(job, m, &estimate);
    if (status != KOLO_OK)
        return status;

    struct plan plan = make_plan(job->options, estimate);
    status = take_samples(job, m, &plan);
    if (status != KOLO_OK)
        return status;
    bench_sort(job->samples, (size_t)plan.samples);
    row->p50 = bench_percentile(job->samples, (size_t)plan.samples, 50);
    row->p99 = bench_percentile(job->samples, (size_t)plan.samples, 99);
    return KOLO_OK;
}

kolo_status bench_measure(const struct bench_job *job, size_t bytes, kolo_dtype dtype, int op,
                          struct bench_row *row)
{
    const struct bench_options *options = job->options;
    const struct bench_collective *collective = options->collective;
    kolo_call_options call_options = {.size = sizeof call_options,
                                      .scale = op == KOLO_PREMUL_SUM ? bench_scale(job->rank) : 0,
                                      .algorithm = options->algorithm};
    if (job->device != NULL)
        call_options.stream = bench_device_stream(job->device);
    struct bench_call call = {
        .comm = job->comm,
        .rank = job->rank,
        .ranks = job->ranks,
        .count = bench_collective_count(collective, bytes, dtype, job->ranks),
        .dtype = dtype,
        .op = op,
        .in_place = collective->in_place == BENCH_ALWAYS_IN_PLACE || options->in_place,
        .options = &call_options,
    };
    struct mirrored m = {.call = call, .mirror = call};
    bench_collective_place(collective, job->first, job->second, &m.call);
    bench_collective_place(collective, job->first_mirror, job->second_mirror, &m.mirror);
    *row = (struct bench_row){
        .collective = collective,
        .bytes = bench_collective_bytes(collective, call.count, dtype, job->ranks),
        .count = call.count,
        .dtype = dtype,
        .op = op,
        .in_place = call.in_place,
        .checked = options->check,
    };

    m.bytes = row->bytes;
    /* Before and after: the first call makes a plan, the later ones use it again. */
    kolo_status status = KOLO_OK;
    if (options->check)
        status = check_once(job, &m, 1, &row->wrong);
    if (status == KOLO_OK)
        status = measure_times(job, &m, row);
    if (status == KOLO_OK && options->check) {
        status = check_once(job, &m, 2, &row->wrong);
        if (status == KOLO_OK)
            status =
                kolo_allreduce(job->comm, &row->wrong, &row->wrong, 1, KOLO_UINT64, KOLO_SUM, NULL);
    }
    return status;
}

double bench_algorithm_bandwidth(const struct bench_row *row)
{
    return row->p50 > 0 ? (double)row->bytes / row->p50 / 1e9 : 0;
}

double bench_bus_bandwidth(const struct bench_row *row, int ranks)
{
    return bench_algorithm_bandwidth(row) * row->collective->bus_factor(ranks);
}
