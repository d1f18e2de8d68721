/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NCCL on GPUs, by the public calls: alone with one rank, or one rank a GPU under `kolo run -n N`.
 * Every collective that goes to NCCL against what it has to be, on a stream; as a CUDA graph; in
 * registered memory; on what kolo_comm_split makes; one type that goes through the host; reducers,
 * also of what three models have; with several ranks few bytes by kolo's own kernels; and the end
 * by kolo_comm_abort. Skipped where there is no GPU or no NCCL.
 */
#include "bench/models.h"
#include "cases.h"
#include "kernels/device.h"
#include "runtime/exchange.h"
#include "runtime/nccl.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

enum { SKIPPED = 77, COUNT = 100003, REPLAYS = 3, EXCHANGED_BYTES = 8192 };

static const struct kolo__device_module *gpus;
static struct kolo__device *device;
static kolo__device_stream stream;
static int ordinal, rank, size;
static float *from, *to; /* in the GPU's memory: size * COUNT each */
static float *host;

/* Small whole numbers: sums are exact in any order. */
static float element(int of_rank, size_t i)
{
    return (float)((i * 7 + (size_t)of_rank * 3) % 31);
}

static float sum_at(size_t i)
{
    float sum = 0;
    for (int r = 0; r < size; r++)
        sum += element(r, i);
    return sum;
}

static void wait_for_stream(void)
{
    kolo__device_event event;
    kolo_status status = KOLO_AGAIN;
    CHECK(gpus->event_create(device, &event) == KOLO_OK);
    CHECK(gpus->event_record(device, event, stream) == KOLO_OK);
    while (status == KOLO_AGAIN) {
        status = gpus->event_query(device, event);
        usleep(100);
    }
    CHECK(status == KOLO_OK);
    gpus->event_destroy(device, event);
}

/* Fresh contributions, and a result that nobody has written yet. */
static void fill(void)
{
    size_t bytes = (size_t)size * COUNT * sizeof *host;
    for (size_t i = 0; i < (size_t)size * COUNT; i++)
        host[i] = element(rank, i);
    CHECK(gpus->copy(device, from, host, bytes, stream) == KOLO_OK);
    wait_for_stream();
    memset(host, 0xff, bytes);
    CHECK(gpus->copy(device, to, host, bytes, stream) == KOLO_OK);
    wait_for_stream();
}

static void read_back(const float *memory)
{
    CHECK(gpus->copy(device, host, memory, (size_t)size * COUNT * sizeof *host, stream) == KOLO_OK);
    wait_for_stream();
}

/* ---- collectives ---------------------------------------------------------------------------- */

static void allreduces(kolo_comm *world, const kolo_call_options *options)
{
    fill();
    CHECK(kolo_allreduce(world, from, to, COUNT, KOLO_FP32, KOLO_SUM, options) == KOLO_OK);
    read_back(to);
    for (size_t i = 0; i < COUNT; i++)
        CHECK(host[i] == sum_at(i));
    fill();
    CHECK(kolo_allreduce(world, from, from, COUNT, KOLO_FP32, KOLO_MAX, options) == KOLO_OK);
    read_back(from);
    for (size_t i = 0; i < COUNT; i++) {
        float most = 0;
        for (int r = 0; r < size; r++)
            most = element(r, i) > most ? element(r, i) : most;
        CHECK(host[i] == most);
    }
    fill();
    CHECK(kolo_allreduce(world, from, to, COUNT, KOLO_FP32, KOLO_AVERAGE, options) == KOLO_OK);
    read_back(to);
    for (size_t i = 0; i < COUNT; i++) {
        float difference = host[i] - sum_at(i) / (float)size;
        CHECK(difference < 1e-5F && difference > -1e-5F);
    }
    read_back(from);
    CHECK(host[1] == element(rank, 1));
}

static void moves(kolo_comm *world, const kolo_call_options *options)
{
    fill();
    CHECK(kolo_allgather(world, from, to, COUNT, KOLO_FP32, options) == KOLO_OK);
    read_back(to);
    for (size_t i = 0; i < (size_t)size * COUNT; i++)
        CHECK(host[i] == element((int)(i / COUNT), i % COUNT));
    fill();
    CHECK(kolo_reduce_scatter(world, from, to, COUNT, KOLO_FP32, KOLO_SUM, options) == KOLO_OK);
    read_back(to);
    for (size_t i = 0; i < COUNT; i++)
        CHECK(host[i] == sum_at((size_t)rank * COUNT + i));
    fill();
    CHECK(kolo_alltoall(world, from, to, COUNT, KOLO_FP32, options) == KOLO_OK);
    read_back(to);
    for (size_t i = 0; i < (size_t)size * COUNT; i++)
        CHECK(host[i] == element((int)(i / COUNT), (size_t)rank * COUNT + i % COUNT));
}

/* ---- graphs --------------------------------------------------------------------------------- */

/* Of the driver, whose header belongs to the CUDA module. */
static void *find_in_driver(const char *name)
{
    return dlsym(dlopen("libcuda.so.1", RTLD_NOW), name);
}

static int call_driver(const char *name, void *a, void *b, void *c)
{
    int (*function)(void *, void *, void *);
    void *found = find_in_driver(name);
    CHECK(found != NULL);
    memcpy(&function, &found, sizeof function);
    return function(a, b, c);
}

/* Thread-local capture: NCCL's own threads may do what a capture forbids this one. */
static void replays(kolo_comm *world, size_t count, const kolo_call_options *options)
{
    void *graph, *executable, *context;
    if (find_in_driver("cuGraphLaunch") == NULL) /* a stand-in */
        return;
    CHECK(call_driver("cuDevicePrimaryCtxRetain", &context, (void *)(intptr_t)ordinal, NULL) == 0);
    CHECK(call_driver("cuCtxSetCurrent", context, NULL, NULL) == 0);
    fill();
    CHECK(call_driver("cuStreamBeginCapture_v2", stream, (void *)1, NULL) == 0);
    CHECK(kolo_allreduce(world, from, to, count, KOLO_FP32, KOLO_SUM, options) == KOLO_OK);
    CHECK(call_driver("cuStreamEndCapture", stream, &graph, NULL) == 0);
    CHECK(call_driver("cuGraphInstantiateWithFlags", &executable, graph, NULL) == 0);
    for (int i = 0; i < REPLAYS; i++) {
        fill();
        CHECK(call_driver("cuGraphLaunch", executable, stream, NULL) == 0);
        wait_for_stream();
        read_back(to);
        for (size_t k = 0; k < count; k++)
            CHECK(host[k] == sum_at(k));
    }
    call_driver("cuGraphExecDestroy", executable, NULL, NULL);
    call_driver("cuGraphDestroy", graph, NULL, NULL);
}

/* ---- kolo's own kernels --------------------------------------------------------------------- */

/* A row of calls, one behind the other, then a graph of one. What is behind the count stays. */
static void exchanges(kolo_comm *world, const kolo_call_options *options)
{
    const size_t few = EXCHANGED_BYTES / sizeof(float), count = few - 3;
    if (size == 1)
        return;
    fill();
    for (int i = 0; i < 100; i++)
        CHECK(kolo_allreduce(world, from, to, count, KOLO_FP32, KOLO_SUM, options) == KOLO_OK);
    read_back(to);
    for (size_t i = 0; i < few; i++)
        CHECK(i < count ? host[i] == sum_at(i) : host[i] != host[i]);
    replays(world, count, options);
    printf("rank %d: few bytes go by %s\n", rank,
           kolo__exchange_open(world, "test", ordinal) == KOLO_OK ? "kolo's kernels" : "NCCL");
}

/* ---- parts ---------------------------------------------------------------------------------- */

static void splits(kolo_comm *world, const kolo_call_options *options)
{
    kolo_comm *part;
    CHECK(kolo_comm_split(world, 0, rank, &part) == KOLO_OK);
    printf("rank %d: NCCL's communicator was %s\n", rank,
           part->nccl != NULL ? "split" : "begun anew");
    allreduces(part, options);
    moves(part, options);
    CHECK(kolo_comm_free(part) == KOLO_OK);
}

/* ---- registered memory ---------------------------------------------------------------------- */

static void takes_registered_memory(kolo_comm *world, const kolo_call_options *options)
{
    struct kolo__nccl_buffer buffer;
    CHECK(kolo__nccl_buffer_open(world, "test", COUNT * sizeof(float), &buffer) == KOLO_OK);
    printf("rank %d: memory is %s\n", rank,
           buffer.window != NULL ? "registered" : "not registered");
    fill();
    CHECK(gpus->copy(device, buffer.memory, from, COUNT * sizeof(float), stream) == KOLO_OK);
    CHECK(kolo_allreduce(world, buffer.memory, buffer.memory, COUNT, KOLO_FP32, KOLO_SUM,
                         options) == KOLO_OK);
    CHECK(gpus->copy(device, to, buffer.memory, COUNT * sizeof(float), stream) == KOLO_OK);
    read_back(to);
    for (size_t i = 0; i < COUNT; i++)
        CHECK(host[i] == sum_at(i));
    kolo__nccl_buffer_close(world, &buffer);
}

/* ---- through the host ----------------------------------------------------------------------- */

/* A type that NCCL lacks, in two chunks and a short one. */
static void goes_by_the_host(kolo_comm *world, const kolo_call_options *options)
{
    enum { WORDS = 5000001 };
    void *memory;
    int16_t *words = malloc(WORDS * sizeof *words);
    CHECK(words != NULL && gpus->alloc(device, WORDS * sizeof *words, &memory) == KOLO_OK);
    for (size_t i = 0; i < WORDS; i++)
        words[i] = (int16_t)element(rank, i);
    CHECK(gpus->copy(device, memory, words, WORDS * sizeof *words, stream) == KOLO_OK);
    CHECK(kolo_allreduce(world, memory, memory, WORDS, KOLO_INT16, KOLO_SUM, options) == KOLO_OK);
    memset(words, 0xff, WORDS * sizeof *words);
    CHECK(gpus->copy(device, words, memory, WORDS * sizeof *words, stream) == KOLO_OK);
    wait_for_stream();
    for (size_t i = 0; i < WORDS; i++)
        CHECK(words[i] == (int16_t)sum_at(i));
    gpus->free(device, memory);
    free(words);
}

/* ---- a reducer ------------------------------------------------------------------------------ */

/* Sums of three gradients in buckets of two kinds, step after step with nothing in between. */
static void reduces_gradients(kolo_comm *world)
{
    enum { TENSORS = 3, STEPS = 5 };
    const size_t counts[TENSORS] = {1000, 17, COUNT - 1017};
    const kolo_reducer_options options = {.size = sizeof options,
                                          .stream = stream,
                                          .bucket_bytes = 100000,
                                          .sum = 1,
                                          .statistics = 1};
    kolo_tensor tensors[TENSORS];
    kolo_reducer *reducer;
    kolo_reducer_report report = {.size = sizeof report};
    size_t begin = 0;
    for (int i = 0; i < TENSORS; i++, begin += counts[i - 1])
        tensors[i] = (kolo_tensor){.data = to + begin, .count = counts[i], .dtype = KOLO_FP32};
    CHECK(kolo_reducer_create(world, tensors, TENSORS, &options, &reducer) == KOLO_OK);
    fill();
    for (int s = 0; s < STEPS; s++) {
        CHECK(gpus->copy(device, to, from, COUNT * sizeof(float), stream) == KOLO_OK);
        for (size_t i = TENSORS; i-- > 0;)
            CHECK(kolo_reducer_ready(reducer, i) == KOLO_OK);
        CHECK(kolo_reducer_wait(reducer, -1) == KOLO_OK);
    }
    double squares = 0;
    read_back(to);
    for (size_t i = 0; i < COUNT; i++) {
        CHECK(host[i] == sum_at(i));
        squares += (double)sum_at(i) * sum_at(i);
    }
    CHECK(kolo_reducer_get_report(reducer, &report) == KOLO_OK && report.finite);
    CHECK(report.norm * report.norm > squares * 0.999999 &&
          report.norm * report.norm < squares * 1.000001);
    CHECK(kolo_reducer_free(reducer) == KOLO_OK);
}

/* Two steps: one in which nobody knows buckets yet, one that overlaps. Sums of up to 8 ranks are
 * exact as bf16, too. */
static void reduces_model(kolo_comm *world, const struct bench_model *model, kolo_wire wire)
{
    static struct bench_parameters parameters;
    /* A stand-in's GPU is slow. */
    const size_t parts = find_in_driver("cuGraphLaunch") == NULL ? 1000 : 1;
    const kolo_reducer_options options = {
        .size = sizeof options, .stream = stream, .sum = 1, .wire = wire};
    kolo_tensor tensors[BENCH_TENSORS_MAX];
    kolo_reducer *reducer;
    size_t count = 0;
    void *memory;
    model->list(&parameters);
    for (size_t i = 0; i < parameters.count; i++)
        count += (parameters.list[i].count + parts - 1) / parts;
    CHECK(count > 0);
    float *gradients = malloc(count * sizeof *gradients);
    CHECK(gradients != NULL && gpus->alloc(device, count * sizeof *gradients, &memory) == KOLO_OK);
    float *data = memory;
    for (size_t i = 0; i < parameters.count; i++) {
        size_t elements = (parameters.list[i].count + parts - 1) / parts;
        tensors[i] = (kolo_tensor){.data = data, .count = elements, .dtype = KOLO_FP32};
        data += elements;
    }
    CHECK(kolo_reducer_create(world, tensors, parameters.count, &options, &reducer) == KOLO_OK);
    for (int step = 0; step < 2; step++) {
        for (size_t i = 0; i < count; i++)
            gradients[i] = element(rank, i + (size_t)step);
        CHECK(gpus->copy(device, memory, gradients, count * sizeof *gradients, stream) == KOLO_OK);
        for (size_t i = parameters.count; i-- > 0;)
            CHECK(kolo_reducer_ready(reducer, i) == KOLO_OK);
        CHECK(kolo_reducer_wait(reducer, -1) == KOLO_OK);
        memset(gradients, 0xff, count * sizeof *gradients);
        CHECK(gpus->copy(device, gradients, memory, count * sizeof *gradients, stream) == KOLO_OK);
        wait_for_stream();
        for (size_t i = 0; i < count; i++)
            CHECK(gradients[i] == sum_at(i + (size_t)step));
    }
    CHECK(kolo_reducer_free(reducer) == KOLO_OK);
    gpus->free(device, memory);
    free(gradients);
}

static int skip(const char *why)
{
    printf("skipped: %s\n", why);
    return SKIPPED;
}

int main(void)
{
    static struct kolo__device_survey survey;
    kolo_context *context;
    const struct kolo__nccl_module *nccl;
    const char *local = getenv("KOLO_LOCAL_RANK"), *path = getenv("KOLO_NCCL");
    alarm(200);
    if (kolo__device_load(&gpus) != KOLO_OK || gpus->survey(&survey) != KOLO_OK)
        return skip(kolo_error_text());
    if (kolo__nccl_load(path != NULL ? path : "", &nccl, NULL) != KOLO_OK)
        return skip(kolo_error_text());
    setenv("KOLO_GPU_EXCHANGE", "8192", 0);
    ordinal = local != NULL ? atoi(local) % survey.count : 0;
    CHECK(kolo_init(NULL, &context) == KOLO_OK);
    kolo_comm *world = kolo_world(context);
    rank = (int)world->rank;
    size = (int)world->size;
    size_t bytes = (size_t)size * COUNT * sizeof *host;
    host = malloc(bytes);
    CHECK(host != NULL && gpus->open(ordinal, &device) == KOLO_OK);
    CHECK(gpus->stream_create(device, &stream) == KOLO_OK);
    void *memory[2];
    CHECK(gpus->alloc(device, bytes, &memory[0]) == KOLO_OK);
    CHECK(gpus->alloc(device, bytes, &memory[1]) == KOLO_OK);
    from = memory[0];
    to = memory[1];
    const kolo_call_options options = {.size = sizeof options, .stream = stream};
    allreduces(world, &options);
    moves(world, &options);
    replays(world, COUNT, &options);
    exchanges(world, &options);
    splits(world, &options);
    takes_registered_memory(world, &options);
    goes_by_the_host(world, &options);
    reduces_gradients(world);
    for (int i = 0; i < BENCH_MODELS; i++) {
        reduces_model(world, &bench_models[i], KOLO_WIRE_SAME);
        reduces_model(world, &bench_models[i], KOLO_WIRE_BF16);
    }
    CHECK(kolo_comm_abort(world, "the test is over") == KOLO_OK);
    CHECK(kolo_allreduce(world, from, to, COUNT, KOLO_FP32, KOLO_SUM, &options) ==
          KOLO_ERR_ABORTED);
    kolo_finalize(context);
    printf("rank %d of %d on %s: passed\n", rank, size, survey.devices[ordinal].name);
    return 0;
}
