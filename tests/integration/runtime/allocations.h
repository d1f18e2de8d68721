/* SPDX-License-Identifier: Apache-2.0 */
/* How often a process has asked for memory: this program's own malloc counts. */
#ifndef KOLO_TESTS_ALLOCATIONS_H
#define KOLO_TESTS_ALLOCATIONS_H

#include <stdbool.h>

/* Of all threads: malloc, calloc and realloc. */
unsigned long allocations_so_far(void);

/* False under a sanitizer, which has its own malloc: then there are always 0. */
bool allocations_are_counted(void);

#endif
