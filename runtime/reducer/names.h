/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The names of the any-order mode (named.h): a table that is the same on all ranks, because all
 * merge the same announcements in the same order; and what is said about names that some rank
 * lacks.
 *
 *     entries   0: 'h.3.attn.w'  1: 'loss'  2: ...      an entry's place is its bit in the batches
 *     slots     hash -> place + 1                       open addressing, at most half full
 *
 * No rank forgets a name.
 */
#ifndef KOLO_RUNTIME_REDUCER_NAMES_H
#define KOLO_RUNTIME_REDUCER_NAMES_H

#include "runtime/frame.h"

enum {
    KOLO__NAME_BYTES_MAX = 1023,
    KOLO__NAMES_MAX = 1 << 20,
    KOLO__NAMES_TEXT_BYTES = 400,
};

struct kolo__name {
    kolo_tensor tensor; /* name: owned by the table. data: this rank's, while pending */
    uint64_t hash;
    uint32_t announced_by; /* the first rank that did */
    /* Of this rank alone: */
    bool pending;      /* submitted, and not reduced yet */
    bool told;         /* that it has been waited for so long */
    uint64_t since_ns; /* when it was submitted */
};

struct kolo__names {
    struct kolo__name *entries;
    uint32_t *slots; /* 0: free */
    size_t count, capacity, slot_count;
};

void kolo__names_free(struct kolo__names *names);
/* NULL: there is no such name. */
struct kolo__name *kolo__names_find(const struct kolo__names *names, const char *name);
/* A copy of the tensor, with nothing pending. The name is not there yet. KOLO_ERR_MEMORY;
 * KOLO_ERR_INVALID: there are too many names. *added is valid until the next one. */
kolo_status kolo__names_add(struct kolo__names *names, const kolo_tensor *tensor,
                            uint32_t announced_by, struct kolo__name **added);
/* Same count, dtype and shape. */
bool kolo__names_agree(const kolo_tensor *a, const kolo_tensor *b);

/* ---- announcements: count u32, then of each: name, rank that announced it u32, elements u64,
 * dtype u8, dimensions u8, shape u64 each ------------------------------------------------------ */

void kolo__names_write(const struct kolo__names *names, struct kolo__frame_writer *writer);
/* Adds what is not there. What is there with another count, dtype or shape is counted in
 * *differences, and the first one described in `text`. KOLO_ERR_NETWORK: the bytes are no
 * announcement; the table may have got some of it. */
kolo_status kolo__names_merge(struct kolo__names *names, const unsigned char *data, size_t bytes,
                              size_t *differences, char text[KOLO__NAMES_TEXT_BYTES]);

/* ---- who lacks what ---------------------------------------------------------------------------
 */

static inline bool kolo__bit(const uint64_t *words, size_t bit)
{
    return (words[bit / 64] >> bit % 64 & 1) != 0;
}

/* "'x' has not come from ranks 1, 2; 'y' ...": of names that some ranks lack and others have; at
 * most those of the first `count`. lacks: `words` words of each rank, a bit for each name. here:
 * only those that are pending on this rank since before_ns. Returns how many there are. */
size_t kolo__names_missing(const struct kolo__names *names, size_t count, const uint64_t *lacks,
                           size_t words, uint32_t ranks, bool here, uint64_t before_ns, char *text,
                           size_t bytes);
/* "'x', 'y' and 3 more": what is pending on this rank, in the table and in `fresh`. */
void kolo__names_pending(const struct kolo__names *names, const struct kolo__names *fresh,
                         char *text, size_t bytes);

#endif
