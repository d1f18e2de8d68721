/* SPDX-License-Identifier: Apache-2.0 */
/* Ranges of elements: pieces of tensors, wherever they lie. */
#ifndef KOLO_RUNTIME_ELASTIC_RANGES_H
#define KOLO_RUNTIME_ELASTIC_RANGES_H

#include <stdbool.h>
#include <stdint.h>

/* Where two ranges meet: [*from, *from + *length). False: nowhere. */
static inline bool kolo__ranges_meet(uint64_t first, uint64_t count, uint64_t other_first,
                                     uint64_t other_count, uint64_t *from, uint64_t *length)
{
    uint64_t end = first + count, other_end = other_first + other_count;
    *from = first > other_first ? first : other_first;
    end = end < other_end ? end : other_end;
    *length = end > *from ? end - *from : 0;
    return *length > 0;
}

#endif
