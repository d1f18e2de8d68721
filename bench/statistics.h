/* SPDX-License-Identifier: Apache-2.0 */
/* Order statistics of measured times. */
#ifndef KOLO_BENCH_STATISTICS_H
#define KOLO_BENCH_STATISTICS_H

#include <stddef.h>

/* Ascending. */
void bench_sort(double *values, size_t count);

/* The smallest of the sorted values that at least `percent` % of them do not exceed (the
 * nearest-rank method: always one of the values, nothing is interpolated). count >= 1, 0 < percent
 * <= 100. */
double bench_percentile(const double *sorted, size_t count, double percent);

#endif
