/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of `kolo bench`. */
#ifndef KOLO_BENCH_OPTIONS_H
#define KOLO_BENCH_OPTIONS_H

#include "bench/collective.h"

#include <stdbool.h>
#include <stddef.h>

enum bench_format { BENCH_TABLE, BENCH_CSV, BENCH_JSON };

/* Where buffers come from. */
enum bench_memory { BENCH_KOLO_ALLOC, BENCH_MALLOC, BENCH_CUDA };

struct bench_options {
    const struct bench_collective *collective;
    int ranks; /* -n; 0: not said */
    size_t min_bytes, max_bytes, factor;
    int dtype; /* a kolo_dtype, or BENCH_ALL */
    int op;    /* a kolo_op, or BENCH_ALL; BENCH_MOVE where the collective does not reduce */
    bool in_place;
    bool rewrite;
    bool check;
    enum bench_memory memory;
    bool launched;         /* started by another kolo bench: do not start others */
    const char *transport; /* NULL: not said */
    const char *algorithm; /* NULL: chosen by cost */
    long iterations;       /* timed operations per size; 0: by time */
    long warmup;           /* operations before; -1: by time */
    double seconds;        /* of timed operations per size, where the time decides */
    enum bench_format format;
};

enum { BENCH_ALL = -2 };

/* Prints what is wrong and the remedy, and exits with 64, when the arguments make no sense. */
void bench_parse_options(int argc, char **argv, struct bench_options *options);

/* The size after `bytes` in the series that min, max and factor make; 0: that was the last. */
size_t bench_next_bytes(const struct bench_options *options, size_t bytes);

/* Can this op be computed in this dtype? */
bool bench_is_defined(kolo_dtype dtype, kolo_op op);

#endif
