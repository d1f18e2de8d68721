/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One row of the result: a collective at one size, dtype and op, checked and timed.
 *
 * A time is the slowest rank's, per operation. Without rewriting, operations run back to back in
 * batches, each begun by a barrier, and a time is a batch's divided by its operations. With
 * rewriting, as a training step does it, every operation is timed alone after a barrier, and what
 * it reads is written anew before that, outside the timing; otherwise data that nobody touched
 * between calls stays in whichever cache the last operation left it.
 */
#ifndef KOLO_BENCH_MEASURE_H
#define KOLO_BENCH_MEASURE_H

#include "bench/device.h"
#include "bench/options.h"

#include <kolo/kolo.h>
#include <stdint.h>

/* What all rows share. */
struct bench_job {
    const struct bench_options *options;
    kolo_comm *comm;
    int rank, ranks;
    /* Owned by whoever made the job: buffers for the largest size, and times. */
    void *first, *second;
    struct bench_device *device; /* whose they are, or NULL: the host's */
    /* On the host, what is filled and checked: the same buffers, unless they are a device's. */
    void *first_mirror, *second_mirror;
    double *samples; /* bench_samples_max of them */
};

struct bench_row {
    const struct bench_collective *collective;
    size_t bytes, count;
    kolo_dtype dtype;
    int op;
    bool in_place;
    double p50, p99; /* s */
    bool checked;
    uint64_t wrong; /* elements, over all ranks */
};

size_t bench_samples_max(const struct bench_options *options);

/* Collective: every rank calls it with the same arguments, and gets the same row. */
kolo_status bench_measure(const struct bench_job *job, size_t bytes, kolo_dtype dtype, int op,
                          struct bench_row *row);

/* 1e9 bytes per second. */
double bench_algorithm_bandwidth(const struct bench_row *row);
double bench_bus_bandwidth(const struct bench_row *row, int ranks);

#endif
