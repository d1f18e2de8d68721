/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/statistics.h"

#include <math.h>
#include <stdlib.h>

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

void bench_sort(double *values, size_t count)
{
    qsort(values, count, sizeof *values, compare);
}

double bench_percentile(const double *sorted, size_t count, double percent)
{
    size_t rank = (size_t)ceil(percent * (double)count / 100);
    if (rank < 1)
        rank = 1;
    return sorted[rank - 1];
}
