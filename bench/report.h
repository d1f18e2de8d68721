/* SPDX-License-Identifier: Apache-2.0 */
/* What rank 0 prints: a table for people, CSV or JSON for programs. The latter two are stable. */
#ifndef KOLO_BENCH_REPORT_H
#define KOLO_BENCH_REPORT_H

#include "bench/measure.h"

#include <stdio.h>

/* How it was measured: the same for all rows. */
struct bench_setting {
    const struct bench_collective *collective;
    enum bench_format format;
    const char *transport; /* none (one rank), shm, tcp, rdma, shm+tcp, shm+rdma (several hosts) */
    int ranks, hosts;
    bool rewrite, check;
    enum bench_memory memory;
    /* CPUs that the ranks may run on: the fewest and the most, of so many that a host has. */
    int cpus_min, cpus_max, cpus;
};

void bench_report_begin(const struct bench_setting *setting, FILE *out);
void bench_report_row(const struct bench_setting *setting, const struct bench_row *row, bool first,
                      FILE *out);
/* complete: false when an error cut the run short. */
void bench_report_end(const struct bench_setting *setting, uint64_t wrong, bool complete,
                      FILE *out);

#endif
