/* SPDX-License-Identifier: Apache-2.0 */
/* Who holds which pages of one share of the heap: private bookkeeping of the share's owner. */
#ifndef KOLO_COLLECTIVES_TRANSPORT_HEAP_SHARE_H
#define KOLO_COLLECTIVES_TRANSPORT_HEAP_SHARE_H

#include <kolo/kolo.h>
#include <stdbool.h>

enum { KOLO__HEAP_PAGE_BYTES = 4096 };

/* Neighbouring ranges in the order of their positions; no two free ones are neighbours. */
struct kolo__heap_range {
    uint64_t position, bytes;
    bool free;
    bool (*unused)(const void *memory); /* a free that is put off; else NULL */
    bool is_private;                    /* in use, and no longer shared */
    struct kolo__heap_range *previous, *next;
};

struct kolo__heap_share {
    struct kolo__heap_range *first;
};

kolo_status kolo__heap_share_init(struct kolo__heap_share *share, uint64_t position,
                                  uint64_t bytes);
void kolo__heap_share_release(struct kolo__heap_share *share);
/* First fit. bytes and alignment: multiples of the page. KOLO_ERR_MEMORY when nothing fits. */
kolo_status kolo__heap_share_take(struct kolo__heap_share *share, uint64_t bytes,
                                  uint64_t alignment, uint64_t *position);
/* The range in use that begins at position; NULL when there is none. */
struct kolo__heap_range *kolo__heap_share_find(const struct kolo__heap_share *share,
                                               uint64_t position);
/* The range in use that position lies in; NULL when there is none. */
struct kolo__heap_range *kolo__heap_share_around(const struct kolo__heap_share *share,
                                                 uint64_t position);
/* Gives a range in use back, joined with free neighbours. */
void kolo__heap_share_give(struct kolo__heap_range *range);
/* Bytes of the largest free range. */
uint64_t kolo__heap_share_largest(const struct kolo__heap_share *share);

#endif
