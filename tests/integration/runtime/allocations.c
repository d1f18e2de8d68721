/* SPDX-License-Identifier: Apache-2.0 */
/* See allocations.h. */
#include "allocations.h"

#include <stdatomic.h>
#include <stdlib.h>

static atomic_ulong allocations;

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(__clang__)
/* glibc's own, under their other names. */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);

void *malloc(size_t bytes)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_calloc(count, bytes);
}

void *realloc(void *memory, size_t bytes)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_realloc(memory, bytes);
}

bool allocations_are_counted(void)
{
    return true;
}
#else
bool allocations_are_counted(void)
{
    return false;
}
#endif

unsigned long allocations_so_far(void)
{
    return atomic_load(&allocations);
}
