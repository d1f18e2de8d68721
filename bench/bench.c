/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/bench.h"

#include "bench/check.h"
#include "bench/kernels.h"
#include "bench/reducer.h"
#include "bench/report.h"
#include "bench/world.h"

#include <inttypes.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- where it is measured -------------------------------------------------------------------- */

/* CPUs that this process may run on; 0: unknown. */
static int allowed_cpus(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
}

static kolo_status make_setting(const struct bench_options *options, kolo_comm *comm,
                                struct bench_setting *setting)
{
    int cpus = allowed_cpus();
    *setting = (struct bench_setting){
        .collective = options->collective,
        .format = options->format,
        .ranks = kolo_comm_size(comm),
        .rewrite = options->rewrite,
        .memory = options->memory,
        .check = options->check,
    };
    int32_t largest[] = {cpus, -cpus, (int32_t)sysconf(_SC_NPROCESSORS_ONLN)};
    int32_t hosts = kolo_comm_local_rank(comm) == 0;
    kolo_status status = kolo_allreduce(comm, largest, largest, 3, KOLO_INT32, KOLO_MAX, NULL);
    if (status == KOLO_OK)
        status = kolo_allreduce(comm, &hosts, &hosts, 1, KOLO_INT32, KOLO_SUM, NULL);
    setting->cpus_max = largest[0];
    setting->cpus_min = -largest[1];
    setting->cpus = largest[2];
    setting->hosts = hosts;
    setting->transport = kolo_comm_transport(comm);
    return status;
}

/* ---- memory ---------------------------------------------------------------------------------- */

static kolo_status allocate(const struct bench_job *job, kolo_context *context, size_t bytes,
                            void **memory, void **mirror)
{
    *memory = NULL;
    if (job->options->memory == BENCH_KOLO_ALLOC) {
        kolo_status status = kolo_alloc(context, bytes, memory);
        *mirror = *memory;
        return status;
    }
    *mirror = malloc(bytes);
    if (*mirror == NULL) {
        fprintf(stderr, "kolo bench: no %zu bytes of memory: choose a smaller --max\n", bytes);
        return KOLO_ERR_MEMORY;
    }
    if (job->options->memory == BENCH_CUDA)
        return bench_device_allocate(job->device, bytes, memory);
    *memory = *mirror;
    return KOLO_OK;
}

static void release(const struct bench_job *job, kolo_context *context, void *memory, void *mirror)
{
    if (job->device != NULL)
        bench_device_free(job->device, memory);
    if (job->options->memory != BENCH_KOLO_ALLOC)
        free(mirror);
    else if (memory != NULL)
        kolo_free(context, memory);
}

static kolo_status allocate_job(kolo_context *context, struct bench_job *job)
{
    const struct bench_options *options = job->options;
    /* Sizes are rounded up to one element per slice. */
    size_t smallest = (size_t)job->ranks * sizeof(uint64_t);
    size_t bytes = options->max_bytes > smallest ? options->max_bytes : smallest;
    job->samples = calloc(bench_samples_max(options), sizeof *job->samples);
    if (job->samples == NULL)
        return KOLO_ERR_MEMORY;
    kolo_status status = KOLO_OK;
    if (options->memory == BENCH_CUDA)
        status = bench_device_open(kolo_comm_local_rank(job->comm), &job->device);
    if (status == KOLO_OK)
        status = allocate(job, context, bytes, &job->first, &job->first_mirror);
    if (status == KOLO_OK && !options->in_place &&
        options->collective->in_place != BENCH_ALWAYS_IN_PLACE)
        status = allocate(job, context, bytes, &job->second, &job->second_mirror);
    if (status != KOLO_OK)
        return status;
    /* Touched here, so that no operation pays for the first touch. */
    memset(job->first_mirror, 0, bytes);
    if (job->second != NULL)
        memset(job->second_mirror, 0, bytes);
    return KOLO_OK;
}

static void release_job(kolo_context *context, struct bench_job *job)
{
    release(job, context, job->first, job->first_mirror);
    release(job, context, job->second, job->second_mirror);
    bench_device_close(job->device);
    free(job->samples);
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* The rows of one dtype and op: every size once, also when several are rounded up to it. */
static kolo_status measure_sizes(const struct bench_job *job, const struct bench_setting *setting,
                                 kolo_dtype dtype, int op, size_t *rows, uint64_t *wrong)
{
    const struct bench_options *options = job->options;
    size_t last = SIZE_MAX;
    for (size_t bytes = options->min_bytes; bytes != 0; bytes = bench_next_bytes(options, bytes)) {
        size_t count = bench_collective_count(options->collective, bytes, dtype, job->ranks);
        if (count == last)
            continue;
        last = count;
        struct bench_row row;
        kolo_status status = bench_measure(job, bytes, dtype, op, &row);
        if (status != KOLO_OK)
            return status;
        if (job->rank == 0)
            bench_report_row(setting, &row, *rows == 0, stdout);
        *wrong += row.wrong;
        ++*rows;
    }
    return KOLO_OK;
}

static kolo_status measure_all(const struct bench_job *job, const struct bench_setting *setting,
                               size_t *rows, uint64_t *wrong)
{
    const struct bench_options *options = job->options;
    int first_dtype = options->dtype == BENCH_ALL ? 0 : options->dtype;
    int last_dtype = options->dtype == BENCH_ALL ? KOLO_DTYPE_COUNT - 1 : options->dtype;
    int first_op = options->op == BENCH_ALL ? 0 : options->op;
    int last_op = options->op == BENCH_ALL ? KOLO_OP_COUNT - 1 : options->op;
    for (int dtype = first_dtype; dtype <= last_dtype; dtype++)
        for (int op = first_op; op <= last_op; op++) {
            if (op != BENCH_MOVE && !bench_is_defined((kolo_dtype)dtype, (kolo_op)op))
                continue;
            kolo_status status = measure_sizes(job, setting, (kolo_dtype)dtype, op, rows, wrong);
            if (status != KOLO_OK)
                return status;
        }
    return KOLO_OK;
}

static int run_job(const struct bench_options *options, kolo_context *context)
{
    struct bench_job job = {.options = options, .comm = kolo_world(context)};
    job.rank = kolo_comm_rank(job.comm);
    job.ranks = kolo_comm_size(job.comm);
    struct bench_setting setting;
    size_t rows = 0;
    uint64_t wrong = 0;
    kolo_status status = make_setting(options, job.comm, &setting);
    if (status == KOLO_OK)
        status = allocate_job(context, &job);
    if (status == KOLO_OK) {
        if (job.rank == 0)
            bench_report_begin(&setting, stdout);
        status = measure_all(&job, &setting, &rows, &wrong);
        if (job.rank == 0)
            bench_report_end(&setting, wrong, status == KOLO_OK, stdout);
    }
    int code = status == KOLO_OK ? 0 : bench_report_error(options->collective->name, status);
    release_job(context, &job);
    if (status == KOLO_OK && wrong > 0) {
        if (job.rank == 0)
            fprintf(stderr, "kolo bench: %" PRIu64 " wrong elements\n", wrong);
        code = BENCH_EXIT_WRONG;
    }
    return code;
}

static int run(const void *options, kolo_context *context)
{
    return run_job(options, context);
}

int kolo_bench_main(int argc, char **argv)
{
    /* A process that became `kolo run` says --launched before what it was given. */
    int command = argc > 1 && strcmp(argv[1], "--launched") == 0 ? 2 : 1;
    if (command < argc && strcmp(argv[command], "kernels") == 0)
        return bench_kernels_main(argc - command, argv + command);
    struct bench_world world = {.argc = argc, .argv = argv};
    if (command < argc && strcmp(argv[command], "reducer") == 0) {
        struct bench_reducer_options options;
        bench_parse_reducer_options(argc - command, argv + command, &options);
        world.ranks = options.ranks;
        world.launched = command == 2;
        world.transport = options.transport;
        return bench_in_world(&world, bench_reducer_run, &options);
    }
    struct bench_options options;
    bench_parse_options(argc, argv, &options);
    world.ranks = options.ranks;
    world.launched = options.launched;
    world.transport = options.transport;
    return bench_in_world(&world, run, &options);
}
