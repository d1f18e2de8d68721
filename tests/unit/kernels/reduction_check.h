/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reductions against a slow reference that works on one element at a time, bit for bit.
 */
#ifndef KOLO_TESTS_UNIT_KERNELS_REDUCTION_CHECK_H
#define KOLO_TESTS_UNIT_KERNELS_REDUCTION_CHECK_H

#include "kernels/kernels.h"
#include "kernels/cpu/variant.h"

enum { SOURCES_MAX = 10, TO_MAX = 5, COUNT_MAX = 2049 };

/* The bits of element k of a source. */
typedef uint64_t element_function(kolo_dtype dtype, unsigned source, size_t k);

struct shape {
    unsigned source_count;
    size_t count;
    size_t misalignment; /* of every buffer, a different one modulo 8 for each */
    int in_place;        /* the source that is the first destination too, or -1 */
    unsigned to_count;
    bool all_in_place;         /* destination i is source i instead, where there is one */
    element_function *element; /* or NULL: random bits, numbers and edges, many NaNs */
};

/* Random, but of floats neither NaN nor infinity: an element_function. */
uint64_t random_number(kolo_dtype dtype, unsigned source, size_t k);

/* reduce: one variant's kernel, or NULL for the public entry. Fails the test where an element
 * differs, or where one beside the destination was written. */
void check_reduction(const struct kolo__reduction *reduction, const struct shape *shape,
                     kolo__reduce_function *reduce);

#endif
