/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `kolo bench reducer`: what a step of all gradients of a model costs, beside one allreduce of as
 * many bytes (what it could cost) and a blocking call for each gradient (what a plain loop costs).
 */
#ifndef KOLO_BENCH_REDUCER_H
#define KOLO_BENCH_REDUCER_H

#include "bench/models.h"
#include "bench/options.h"

#include <kolo/kolo.h>
#include <stdint.h>
#include <stdio.h>

enum bench_mode { BENCH_VIEWS, BENCH_PACK, BENCH_MODES };

struct bench_reducer_options {
    int ranks; /* -n; 0: not said */
    int model; /* of bench_models, or BENCH_ALL */
    int mode;  /* a bench_mode, or BENCH_ALL */
    kolo_wire wire;
    bool overlap;
    bool check;
    bool sizes;            /* print the bytes of each gradient and measure nothing */
    size_t bucket_bytes;   /* 0: tuned */
    const char *transport; /* NULL: not said */
    long rounds;
    long iterations; /* timed operations of each contender in a round; 0: by time */
    long warmup;     /* steps before; -1: as many as tuning takes, or few */
    double seconds;  /* of timed operations, where the time decides */
    enum bench_format format;
};

/* A ratio of the medians of each round: the median over rounds, the lowest and the highest. */
struct bench_ratio {
    double median, low, high;
};

struct bench_reducer_row {
    const char *model, *wire, *transport;
    enum bench_mode mode;
    int ranks;
    size_t tensors, bytes, bucket_bytes;
    uint64_t buckets, collectives;
    double flat, flat_malloc, step, each; /* s, medians over all rounds */
    struct bench_ratio step_flat, step_malloc, each_step;
    bool overlap;
    double exposed; /* s; from the last gradient that got ready to the end of the step */
    double hidden;  /* % of the step without a backward pass */
    bool checked;
    uint64_t wrong; /* elements, over all ranks */
};

/* As bench_parse_options. argv[0] is "reducer". */
void bench_parse_reducer_options(int argc, char **argv, struct bench_reducer_options *options);

const char *bench_mode_name(enum bench_mode mode);

/* A bench_run; options: struct bench_reducer_options. */
int bench_reducer_run(const void *options, kolo_context *context);

/* Collective: measures one row. */
kolo_status bench_reducer_measure(const struct bench_reducer_options *options,
                                  kolo_context *context, const struct bench_model *model,
                                  enum bench_mode mode, struct bench_reducer_row *row);

void bench_reducer_report(enum bench_format format, const struct bench_reducer_row *row, bool first,
                          FILE *out);

#endif
