/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Are the results right? Inputs whose results are known beforehand, and a count of the elements
 * that differ.
 *
 * A buffer is filled from a table of BENCH_PERIOD elements, repeated:
 *
 *     element    0 1 2 ...  4092 | 4093 ...
 *     value      t[0] .. t[4092] | t[0] ...
 *
 * The period is prime, so that a segment that ends up at a wrong place, off by a power of two or by
 * any slice, meets other values. Ranks have different tables. Numbers to reduce are small integers,
 * chosen for each op such that the result and every partial result are exact in every dtype and
 * independent of the order: wrong means wrong, there is no tolerance.
 */
#ifndef KOLO_BENCH_CHECK_H
#define KOLO_BENCH_CHECK_H

#include "bench/collective.h"

#include <stddef.h>
#include <stdint.h>

enum { BENCH_PERIOD = 4093 };

struct bench_table {
    size_t element_bytes;
    uint64_t bytes[BENCH_PERIOD]; /* the elements, packed; 8 bytes are the most one needs */
};

struct bench_pattern {
    kolo_dtype dtype;
    int op; /* a kolo_op, or BENCH_MOVE: any bits do */
    int ranks;
    uint64_t seed; /* different seeds give different values */
    int exact;     /* whole numbers up to it are exact in what travels; 0: in every dtype (256) */
};

/* What `source` contributes. Where a collective sends different slices to different ranks, each
 * destination has its own table; elsewhere destination is 0. */
void bench_table_input(const struct bench_pattern *pattern, int source, int destination,
                       struct bench_table *table);
/* What reducing the inputs of all ranks must give. */
void bench_table_result(const struct bench_pattern *pattern, struct bench_table *table);
/* The factor of a rank for KOLO_PREMUL_SUM. */
double bench_scale(int rank);

/* Element i of the buffer becomes element (phase + i) % BENCH_PERIOD of the table. */
void bench_fill(const struct bench_table *table, size_t phase, void *buffer, size_t count);
/* How many of the elements are not what bench_fill would have written. */
size_t bench_count_wrong(const struct bench_table *table, size_t phase, const void *buffer,
                         size_t count);

/* Fills what this rank sends in the call. */
void bench_fill_call(const struct bench_collective *collective, const struct bench_call *call,
                     uint64_t seed);
/* Overwrites what the call must overwrite, where that is no input: no stale result passes. */
void bench_spoil_call(const struct bench_collective *collective, const struct bench_call *call);
/* Wrong elements among all those that the call has to deliver to this rank. */
size_t bench_count_wrong_call(const struct bench_collective *collective,
                              const struct bench_call *call, uint64_t seed);

/* Fills a buffer with the value that bench_rewrite_call writes. */
void bench_rewrite(kolo_dtype dtype, int op, void *buffer, size_t bytes);
/* Fills what the call reads with a value that the op leaves as it is, however often it is
 * repeated in place. */
void bench_rewrite_call(const struct bench_collective *collective, const struct bench_call *call);

#endif
