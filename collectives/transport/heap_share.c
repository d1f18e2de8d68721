/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A list of ranges that covers the share. Programs hold dozens of blocks, not millions, and take
 * them at set-up, so a walk along the list is all the speed it needs.
 */
#include "collectives/transport/heap_share.h"

#include "base/status.h"

#include <stdlib.h>

static struct kolo__heap_range *split(struct kolo__heap_range *range, uint64_t bytes);
static void join_next(struct kolo__heap_range *range);

kolo_status kolo__heap_share_init(struct kolo__heap_share *share, uint64_t position, uint64_t bytes)
{
    share->first = calloc(1, sizeof *share->first);
    if (share->first == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for the heap's list of blocks");
    share->first->position = position;
    share->first->bytes = bytes;
    share->first->free = true;
    return KOLO_OK;
}

void kolo__heap_share_release(struct kolo__heap_share *share)
{
    struct kolo__heap_range *range = share->first;
    while (range != NULL) {
        struct kolo__heap_range *next = range->next;
        free(range);
        range = next;
    }
    share->first = NULL;
}

kolo_status kolo__heap_share_take(struct kolo__heap_share *share, uint64_t bytes,
                                  uint64_t alignment, uint64_t *position)
{
    struct kolo__heap_range *range = share->first;
    uint64_t before = 0; /* from the range's beginning to the aligned position in it */
    for (; range != NULL; range = range->next) {
        before = -range->position & (alignment - 1);
        if (range->free && range->bytes >= before && range->bytes - before >= bytes)
            break;
    }
    if (range == NULL)
        return KOLO_ERR_MEMORY;
    if (before > 0 && (range = split(range, before)) == NULL)
        return KOLO_ERR_MEMORY;
    if (range->bytes > bytes && split(range, bytes) == NULL) {
        if (before > 0)
            join_next(range->previous);
        return KOLO_ERR_MEMORY;
    }
    range->free = false;
    *position = range->position;
    return KOLO_OK;
}

struct kolo__heap_range *kolo__heap_share_find(const struct kolo__heap_share *share,
                                               uint64_t position)
{
    for (struct kolo__heap_range *range = share->first; range != NULL; range = range->next)
        if (range->position == position)
            return range->free ? NULL : range;
    return NULL;
}

struct kolo__heap_range *kolo__heap_share_around(const struct kolo__heap_share *share,
                                                 uint64_t position)
{
    for (struct kolo__heap_range *range = share->first; range != NULL; range = range->next)
        if (position >= range->position && position - range->position < range->bytes)
            return range->free ? NULL : range;
    return NULL;
}

void kolo__heap_share_give(struct kolo__heap_range *range)
{
    range->free = true;
    range->unused = NULL;
    if (range->next != NULL && range->next->free)
        join_next(range);
    if (range->previous != NULL && range->previous->free)
        join_next(range->previous);
}

uint64_t kolo__heap_share_largest(const struct kolo__heap_share *share)
{
    uint64_t largest = 0;
    for (const struct kolo__heap_range *range = share->first; range != NULL; range = range->next)
        if (range->free && range->bytes > largest)
            largest = range->bytes;
    return largest;
}

/* Cuts a range after `bytes` and returns the rest, NULL without memory. */
static struct kolo__heap_range *split(struct kolo__heap_range *range, uint64_t bytes)
{
    struct kolo__heap_range *rest = calloc(1, sizeof *rest);
    if (rest == NULL)
        return NULL;
    rest->position = range->position + bytes;
    rest->bytes = range->bytes - bytes;
    rest->free = range->free;
    rest->previous = range;
    rest->next = range->next;
    if (rest->next != NULL)
        rest->next->previous = rest;
    range->bytes = bytes;
    range->next = rest;
    return rest;
}

static void join_next(struct kolo__heap_range *range)
{
    struct kolo__heap_range *next = range->next;
    range->bytes += next->bytes;
    range->next = next->next;
    if (next->next != NULL)
        next->next->previous = range;
    free(next);
}
