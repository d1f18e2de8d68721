/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One row: contenders in turns, round after round, so that whatever else the machine does hits all
 * of them. Memory of a rank, all of it `elements` floats, tensors one after the other:
 *
 *     flat    kolo_alloc    flat, and each
 *     plain   malloc        flat_malloc; the gradients that are packed
 *     views   the reducer's
 */
#include "bench/check.h"
#include "bench/reducer.h"
#include "bench/statistics.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

enum {
    TUNING_STEPS = 101, /* the reducer chooses the size of buckets within 100 */
    SLEEPS = 30,        /* of a backward pass */
    SETTLING_STEPS = 2, /* who drives a step follows from the two before it */
    OPERATIONS_MAX = 1000,
    EXACT = 8, /* whole numbers that 8-bit floats hold */
};

struct job {
    const struct bench_reducer_options *options;
    kolo_comm *comm;
    int rank, ranks;
    enum bench_mode mode;
    struct bench_parameters *parameters;
    kolo_tensor *tensors;
    size_t *offsets; /* of tensors, in elements */
    size_t elements;
    float *flat, *plain;
    kolo_reducer *reducer;
    double backward; /* s that the backward pass sleeps */
};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void sleep_until(double seconds)
{
    struct timespec time = {.tv_sec = (time_t)seconds};
    time.tv_nsec = (long)((seconds - (double)time.tv_sec) * 1e9);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) != 0) {
    }
}

/* ---- contenders ------------------------------------------------------------------------------ */

static float *flat_at(const struct job *job, size_t tensor)
{
    return job->flat + job->offsets[tensor];
}

static float *plain_at(const struct job *job, size_t tensor)
{
    return job->plain + job->offsets[tensor];
}

static float *gradient_at(const struct job *job, size_t tensor)
{
    return job->mode == BENCH_PACK ? plain_at(job, tensor)
                                   : kolo_reducer_view(job->reducer, tensor);
}

static kolo_status average(const struct job *job, float *data, size_t count)
{
    return kolo_allreduce(job->comm, data, data, count, KOLO_FP32, KOLO_AVERAGE, NULL);
}

static kolo_status time_flat(const struct job *job, double *seconds)
{
    double begin = now();
    kolo_status status = average(job, job->flat, job->elements);
    *seconds = now() - begin;
    return status;
}

static kolo_status time_flat_malloc(const struct job *job, double *seconds)
{
    double begin = now();
    kolo_status status = average(job, job->plain, job->elements);
    *seconds = now() - begin;
    return status;
}

static kolo_status time_each(const struct job *job, double *seconds)
{
    kolo_status status = KOLO_OK;
    double begin = now();
    for (size_t i = job->parameters->count; status == KOLO_OK && i-- > 0;)
        status = average(job, flat_at(job, i), job->parameters->list[i].count);
    *seconds = now() - begin;
    return status;
}

static kolo_status time_step(const struct job *job, double *seconds)
{
    kolo_status status = KOLO_OK;
    double begin = now();
    for (size_t i = job->parameters->count; status == KOLO_OK && i-- > 0;)
        status = kolo_reducer_ready(job->reducer, i);
    if (status == KOLO_OK)
        status = kolo_reducer_wait(job->reducer, -1);
    *seconds = now() - begin;
    return status;
}

/* What is left after a backward pass that sleeps before every few gradients. */
static kolo_status time_exposed(const struct job *job, double *seconds)
{
    kolo_status status = KOLO_OK;
    size_t count = job->parameters->count, slept = 0;
    double begin = now(), last = begin;
    for (size_t done = 0; status == KOLO_OK && done < count; done++) {
        if (done * SLEEPS >= slept * count)
            sleep_until(begin + job->backward * (double)++slept / SLEEPS);
        last = now(); /* whoever ready wakes may run before it returns */
        status = kolo_reducer_ready(job->reducer, count - 1 - done);
    }
    if (status == KOLO_OK)
        status = kolo_reducer_wait(job->reducer, -1);
    *seconds = now() - last;
    return status;
}

struct contender {
    float *(*at)(const struct job *job, size_t tensor);
    kolo_status (*time)(const struct job *job, double *seconds);
    bool forward; /* works from the first tensor to the last */
};

enum { FLAT, FLAT_MALLOC, STEP, EACH, EXPOSED, CONTENDERS };

static const struct contender ALL[CONTENDERS] = {
    [FLAT] = {flat_at, time_flat, true},
    [FLAT_MALLOC] = {plain_at, time_flat_malloc, true},
    [STEP] = {gradient_at, time_step, false},
    [EACH] = {flat_at, time_each, false},
    [EXPOSED] = {gradient_at, time_exposed, false},
};

/* Written in the order in which it is read, so that nobody finds more of it in a cache. */
static kolo_status sample(const struct job *job, const struct contender *contender, double *seconds)
{
    const struct bench_parameters *parameters = job->parameters;
    for (size_t i = 0; i < parameters->count; i++) {
        size_t tensor = contender->forward ? i : parameters->count - 1 - i;
        bench_rewrite(KOLO_FP32, KOLO_AVERAGE, contender->at(job, tensor),
                      parameters->list[tensor].count * sizeof(float));
    }
    kolo_status status = kolo_barrier(job->comm);
    return status == KOLO_OK ? contender->time(job, seconds) : status;
}

/* ---- results --------------------------------------------------------------------------------- */

static kolo_status check(const struct job *job, const struct contender *contender, uint64_t seed,
                         uint64_t *wrong)
{
    const struct bench_parameters *parameters = job->parameters;
    struct bench_pattern pattern = {
        .dtype = KOLO_FP32, .op = KOLO_AVERAGE, .ranks = job->ranks, .seed = seed, .exact = EXACT};
    struct bench_table table;
    double seconds;
    bench_table_input(&pattern, job->rank, 0, &table);
    for (size_t i = 0; i < parameters->count; i++)
        bench_fill(&table, job->offsets[i], contender->at(job, i), parameters->list[i].count);
    kolo_status status = contender->time(job, &seconds);
    if (status != KOLO_OK)
        return status;
    bench_table_result(&pattern, &table);
    for (size_t i = 0; i < parameters->count; i++)
        *wrong += bench_count_wrong(&table, job->offsets[i], contender->at(job, i),
                                    parameters->list[i].count);
    return KOLO_OK;
}

static kolo_status check_all(const struct job *job, uint64_t seed, uint64_t *wrong)
{
    kolo_status status = KOLO_OK;
    int contenders = job->options->overlap ? CONTENDERS : EXPOSED;
    for (int i = 0; job->options->check && status == KOLO_OK && i < contenders; i++)
        status = check(job, &ALL[i], seed + (uint64_t)i, wrong);
    return status;
}

/* ---- times ----------------------------------------------------------------------------------- */

static kolo_status slowest(const struct job *job, double *values, size_t count)
{
    return kolo_allreduce(job->comm, values, values, count, KOLO_FP64, KOLO_MAX, NULL);
}

static kolo_status warm_up(struct job *job, long *operations)
{
    const struct bench_reducer_options *options = job->options;
    long steps = options->warmup;
    if (steps < 0)
        steps = options->bucket_bytes == 0 ? TUNING_STEPS : 3;
    double seconds[CONTENDERS] = {0}, all = 0;
    kolo_status status = KOLO_OK;
    for (long i = 0; status == KOLO_OK && i < steps; i++)
        status = sample(job, &ALL[STEP], &seconds[STEP]);
    for (int turn = 0; turn < 2; turn++) /* the first call of each makes its plan */
        for (int i = 0; status == KOLO_OK && i < EXPOSED; i++)
            status = sample(job, &ALL[i], &seconds[i]);
    if (status == KOLO_OK)
        status = slowest(job, seconds, EXPOSED);
    for (int i = 0; i < EXPOSED; i++)
        all += seconds[i];
    if (options->overlap)
        all += 4 * seconds[STEP];
    *operations = options->iterations;
    if (*operations == 0) /* rewriting takes about as long as a flat allreduce, too */
        *operations =
            (long)fmin(OPERATIONS_MAX, fmax(3, options->seconds / (all * (double)options->rounds)));
    job->backward = 3 * seconds[STEP];
    return status;
}

/* Steps of one kind follow those of another: the first ones are like neither. */
static kolo_status settle(const struct job *job, int contender)
{
    kolo_status status = KOLO_OK;
    double seconds;
    bool steps = contender == STEP || contender == EXPOSED;
    for (int i = 0; steps && status == KOLO_OK && i < SETTLING_STEPS; i++)
        status = sample(job, &ALL[contender], &seconds);
    return status;
}

/* samples: those of each contender, one round after the other. */
static kolo_status take_samples(struct job *job, long operations, double *samples[CONTENDERS])
{
    kolo_status status = KOLO_OK;
    int contenders = job->options->overlap ? CONTENDERS : EXPOSED;
    for (long round = 0; round < job->options->rounds; round++)
        for (int turn = 0; turn < contenders; turn++) {
            int i = (int)(round + turn) % contenders;
            double *to = samples[i] + round * operations;
            status = status == KOLO_OK ? settle(job, i) : status;
            for (long k = 0; status == KOLO_OK && k < operations; k++)
                status = sample(job, &ALL[i], &to[k]);
            if (status == KOLO_OK)
                status = slowest(job, to, (size_t)operations);
            if (status == KOLO_OK && i == STEP && round == 0) {
                double sorted = 0;
                for (long k = 0; k < operations; k++)
                    sorted += to[k] / (double)operations;
                job->backward = 3 * sorted;
            }
        }
    return status;
}

static struct bench_ratio compare(const double *above, const double *below, long rounds,
                                  double *scratch)
{
    for (long i = 0; i < rounds; i++)
        scratch[i] = above[i] / below[i];
    bench_sort(scratch, (size_t)rounds);
    return (struct bench_ratio){bench_percentile(scratch, (size_t)rounds, 50), scratch[0],
                                scratch[rounds - 1]};
}

static kolo_status measure_times(struct job *job, struct bench_reducer_row *row)
{
    long operations, rounds = job->options->rounds;
    kolo_status status = warm_up(job, &operations);
    if (status != KOLO_OK)
        return status;
    size_t total = (size_t)rounds * (size_t)operations;
    double *memory = calloc(CONTENDERS * (total + (size_t)rounds) + (size_t)rounds, sizeof *memory);
    if (memory == NULL)
        return KOLO_ERR_MEMORY;
    double *samples[CONTENDERS], *medians[CONTENDERS], p50[CONTENDERS];
    double *scratch = memory + CONTENDERS * (total + (size_t)rounds);
    for (int i = 0; i < CONTENDERS; i++) {
        samples[i] = memory + (size_t)i * total;
        medians[i] = memory + CONTENDERS * total + (size_t)(i * rounds);
    }
    status = take_samples(job, operations, samples);
    for (int i = 0; status == KOLO_OK && i < CONTENDERS; i++) {
        for (long round = 0; round < rounds; round++) {
            double *of_round = samples[i] + round * operations;
            bench_sort(of_round, (size_t)operations);
            medians[i][round] = bench_percentile(of_round, (size_t)operations, 50);
        }
        bench_sort(samples[i], total);
        p50[i] = bench_percentile(samples[i], total, 50);
    }
    if (status == KOLO_OK) {
        row->flat = p50[FLAT];
        row->flat_malloc = p50[FLAT_MALLOC];
        row->step = p50[STEP];
        row->each = p50[EACH];
        row->step_flat = compare(medians[STEP], medians[FLAT], rounds, scratch);
        row->step_malloc = compare(medians[STEP], medians[FLAT_MALLOC], rounds, scratch);
        row->each_step = compare(medians[EACH], medians[STEP], rounds, scratch);
        row->exposed = p50[EXPOSED];
        row->hidden = 100 * (1 - p50[EXPOSED] / p50[STEP]);
    }
    free(memory);
    return status;
}

/* ---- a job ----------------------------------------------------------------------------------- */

static kolo_status begin(struct job *job, kolo_context *context, const struct bench_model *model)
{
    job->parameters = malloc(sizeof *job->parameters);
    if (job->parameters == NULL)
        return KOLO_ERR_MEMORY;
    model->list(job->parameters);
    size_t count = job->parameters->count;
    job->tensors = calloc(count, sizeof *job->tensors);
    job->offsets = calloc(count, sizeof *job->offsets);
    if (job->tensors == NULL || job->offsets == NULL)
        return KOLO_ERR_MEMORY;
    for (size_t i = 0; i < count; i++) {
        job->offsets[i] = job->elements;
        job->elements += job->parameters->list[i].count;
    }
    size_t bytes = job->elements * sizeof(float);
    void *flat = NULL;
    kolo_status status = kolo_alloc(context, bytes, &flat);
    job->flat = flat;
    job->plain = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (status == KOLO_OK && job->plain == NULL) {
        fprintf(stderr, "kolo bench: no %zu bytes of memory: choose a smaller --model\n", bytes);
        status = KOLO_ERR_MEMORY;
    }
    if (status != KOLO_OK)
        return status;
    for (size_t i = 0; i < count; i++) {
        const struct bench_parameter *parameter = &job->parameters->list[i];
        kolo_tensor *tensor = &job->tensors[i];
        *tensor = (kolo_tensor){.data = job->mode == BENCH_PACK ? plain_at(job, i) : NULL,
                                .count = parameter->count,
                                .dtype = KOLO_FP32,
                                .name = parameter->name,
                                .dimensions = parameter->dimensions};
        for (int d = 0; d < parameter->dimensions; d++)
            tensor->shape[d] = parameter->shape[d];
    }
    kolo_reducer_options options = {.size = sizeof options,
                                    .bucket_bytes = job->options->bucket_bytes,
                                    .wire = job->options->wire};
    /* The job keeps the tensors: end() frees them. NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
    return kolo_reducer_create(job->comm, job->tensors, count, &options, &job->reducer);
}

static void end(struct job *job, kolo_context *context)
{
    kolo_reducer_free(job->reducer);
    if (job->flat != NULL)
        kolo_free(context, job->flat);
    free(job->plain);
    free(job->offsets);
    free(job->tensors);
    free(job->parameters);
}

static kolo_status measure(struct job *job, struct bench_reducer_row *row)
{
    /* Before: the first step, which learns the order, and one in buckets. */
    kolo_status status = check_all(job, 10, &row->wrong);
    if (status == KOLO_OK)
        status = check_all(job, 20, &row->wrong);
    if (status == KOLO_OK)
        status = measure_times(job, row);
    if (status == KOLO_OK)
        status = check_all(job, 30, &row->wrong);
    if (status == KOLO_OK)
        status =
            kolo_allreduce(job->comm, &row->wrong, &row->wrong, 1, KOLO_UINT64, KOLO_SUM, NULL);
    kolo_reducer_report report = {.size = sizeof report};
    if (status == KOLO_OK)
        status = kolo_reducer_get_report(job->reducer, &report);
    row->buckets = report.buckets;
    row->bucket_bytes = report.bucket_bytes;
    row->collectives = report.collectives;
    return status;
}

kolo_status bench_reducer_measure(const struct bench_reducer_options *options,
                                  kolo_context *context, const struct bench_model *model,
                                  enum bench_mode mode, struct bench_reducer_row *row)
{
    struct job job = {.options = options, .comm = kolo_world(context), .mode = mode};
    job.rank = kolo_comm_rank(job.comm);
    job.ranks = kolo_comm_size(job.comm);
    kolo_status status = begin(&job, context, model);
    *row = (struct bench_reducer_row){.model = model->name,
                                      .wire = kolo_wire_name(options->wire),
                                      .transport = kolo_comm_transport(job.comm),
                                      .mode = mode,
                                      .ranks = job.ranks,
                                      .overlap = options->overlap,
                                      .checked = options->check};
    if (status == KOLO_OK) {
        row->tensors = job.parameters->count;
        row->bytes = job.elements * sizeof(float);
        status = measure(&job, row);
    }
    end(&job, context);
    return status;
}
