/* SPDX-License-Identifier: Apache-2.0 */
/* See measure.h. */
#include "bench/gpu/measure.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

enum { ROUNDS = 11 };
static const double GRAPH_US = 3000; /* what one replay should take: a launch of it takes 10 us */

void check_cuda(cudaError_t error, const char *call, const char *file, int line)
{
    if (error == cudaSuccess)
        return;
    fprintf(stderr, "%s:%d: %s: %s (%s)\n", file, line, call, cudaGetErrorName(error),
            cudaGetErrorString(error));
    exit(1);
}

int sets_beyond_cache(size_t bytes_of_one)
{
    int device, cache;
    CUDA(cudaGetDevice(&device));
    CUDA(cudaDeviceGetAttribute(&cache, cudaDevAttrL2CacheSize, device));
    size_t sets = 2 * (size_t)cache / (bytes_of_one > 0 ? bytes_of_one : 1) + 1;
    return (int)std::clamp<size_t>(sets, 2, 64);
}

/* Operations of one contender, ready to be repeated. */
struct repeated {
    cudaGraphExec_t graph; /* NULL: they are queued one by one */
    int operations;
    std::vector<double> us;
};

static bool queue_all(const contender &who, int sets, int operations, cudaStream_t stream)
{
    for (int i = 0; i < operations; i++)
        if (!who.queue(i % sets, stream))
            return false;
    return true;
}

static double milliseconds(cudaEvent_t from, cudaEvent_t to)
{
    float elapsed;
    CUDA(cudaEventSynchronize(to));
    CUDA(cudaEventElapsedTime(&elapsed, from, to));
    return elapsed;
}

struct stopwatch {
    cudaStream_t stream;
    cudaEvent_t from, to;
    stopwatch()
    {
        CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
        CUDA(cudaEventCreate(&from));
        CUDA(cudaEventCreate(&to));
    }
    ~stopwatch()
    {
        cudaEventDestroy(to);
        cudaEventDestroy(from);
        cudaStreamDestroy(stream);
    }
};

/* A whole number of turns through the sets, which take about GRAPH_US. */
static int operations_of(const contender &who, int sets, stopwatch &watch)
{
    CUDA(cudaEventRecord(watch.from, watch.stream));
    queue_all(who, sets, sets, watch.stream);
    CUDA(cudaEventRecord(watch.to, watch.stream));
    double turn_us = 1000 * milliseconds(watch.from, watch.to);
    int turns = turn_us > 0 ? (int)(GRAPH_US / turn_us) + 1 : 1;
    return sets * std::min(turns, 32);
}

/* False: the contender cannot do it at all. */
static bool prepare(const contender &who, int sets, stopwatch &watch, repeated *ready)
{
    cudaGraph_t graph = nullptr;
    ready->graph = nullptr;
    if (!queue_all(who, sets, sets, watch.stream)) { /* warms up, too */
        cudaGetLastError();
        return false;
    }
    CUDA(cudaStreamSynchronize(watch.stream));
    ready->operations = operations_of(who, sets, watch);
    CUDA(cudaStreamBeginCapture(watch.stream, cudaStreamCaptureModeRelaxed));
    bool captured = queue_all(who, sets, ready->operations, watch.stream);
    if (cudaStreamEndCapture(watch.stream, &graph) != cudaSuccess || !captured ||
        cudaGraphInstantiate(&ready->graph, graph, 0) != cudaSuccess) {
        ready->graph = nullptr;
        cudaGetLastError();
    }
    if (graph != nullptr)
        cudaGraphDestroy(graph);
    return true;
}

static void run_once(const contender &who, int sets, const repeated &ready, stopwatch &watch)
{
    if (ready.graph != nullptr)
        CUDA(cudaGraphLaunch(ready.graph, watch.stream));
    else
        queue_all(who, sets, ready.operations, watch.stream);
}

void print_heading()
{
    puts("measurement,contender,tensors,bytes,moved_bytes,us_p50,us_low,us_high,gbps,by");
}

static void print_row(const measurement &what, const contender &who, repeated &ready)
{
    std::sort(ready.us.begin(), ready.us.end());
    double median = ready.us[ready.us.size() / 2];
    printf("%s,%s,%zu,%zu,%.0f,%.3f,%.3f,%.3f,%.1f,%s\n", what.name.c_str(), who.name, what.tensors,
           what.bytes, who.moved_bytes, median, ready.us.front(), ready.us.back(),
           who.moved_bytes / median / 1000, ready.graph != nullptr ? "graph" : "stream");
    fflush(stdout);
}

void measure(const measurement &what, const std::vector<contender> &contenders)
{
    stopwatch watch;
    std::vector<repeated> ready(contenders.size());
    for (size_t i = 0; i < contenders.size(); i++)
        if (!prepare(contenders[i], what.sets, watch, &ready[i])) {
            printf("#note %s,%s: cannot be done here\n", what.name.c_str(), contenders[i].name);
            ready[i].operations = 0;
        }
    for (int round = 0; round <= ROUNDS; round++)
        for (size_t i = 0; i < contenders.size(); i++) {
            size_t turn = (i + (size_t)round) % contenders.size();
            if (ready[turn].operations == 0)
                continue;
            CUDA(cudaEventRecord(watch.from, watch.stream));
            run_once(contenders[turn], what.sets, ready[turn], watch);
            CUDA(cudaEventRecord(watch.to, watch.stream));
            double us = 1000 * milliseconds(watch.from, watch.to) / ready[turn].operations;
            if (round > 0) /* the first warms up */
                ready[turn].us.push_back(us);
        }
    for (size_t i = 0; i < contenders.size(); i++) {
        if (ready[i].operations > 0)
            print_row(what, contenders[i], ready[i]);
        if (ready[i].graph != nullptr)
            CUDA(cudaGraphExecDestroy(ready[i].graph));
    }
}
