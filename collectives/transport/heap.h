/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The heap that all ranks of one host map: one memfd, one share for each rank, passed over an
 * abstract Unix socket. Nothing of it has a name in any file system, so nothing can be left behind.
 *
 *   | header | share of member 0 | share of member 1 | ... |
 *
 * A member allocates in its own share only and frees only what it allocated; everybody reads and
 * writes everywhere. Pages are reserved (fallocate) before an allocation returns, so a full memory
 * is KOLO_ERR_MEMORY and never SIGBUS; a freed block gives its pages back (hole punched). Blocks of
 * 2 MiB and more, or a little less than a multiple of it, begin at a multiple of that, and lie in
 * huge pages where the kernel has them.
 */
#ifndef KOLO_COLLECTIVES_TRANSPORT_HEAP_H
#define KOLO_COLLECTIVES_TRANSPORT_HEAP_H

#include <kolo/kolo.h>
#include <stdbool.h>

struct kolo__heap;

struct kolo__heap_options {
    const char *name;  /* unique to job, generation and host group; up to 80 bytes, the same on all
                          members */
    const char *token; /* proves membership on the Unix socket; "" : none */
    uint32_t member;   /* 0 .. members-1; member 0 creates the memfd and serves it */
    uint32_t members;
    size_t
        share_bytes; /* virtual size of a share; 0: from the machine's memory. Member 0's decides */
    uint64_t deadline_ns; /* kolo__real_clock */
    /* Asked now and then while members are awaited: true: no more is worth waiting for. NULL: until
     * the deadline. */
    bool (*is_vain)(void *self);
    void *self;
};

struct kolo__heap_extent {
    unsigned char *memory;
    size_t bytes;
};

/* Collective over the members; blocks until all have mapped it. On failure every member fails by
 * the deadline. */
kolo_status kolo__heap_open(const struct kolo__heap_options *options, struct kolo__heap **heap);
void kolo__heap_close(struct kolo__heap *heap);
/* What this member has allocated stays where it is, and becomes memory of this process alone, of
 * which no other member, late as it may be, can change a byte. From then on the heap is for
 * kolo__heap_free only. On failure some may be so already, and it may be called again. */
kolo_status kolo__heap_detach(struct kolo__heap *heap);
/* Nothing is allocated in this member's share. */
bool kolo__heap_is_empty(struct kolo__heap *heap);

/* Thread-safe. alignment: a power of two up to 2 MiB. Memory is zero. From 1 MiB on it waits for
 * members that reserve at the same time; KOLO_ERR_TIMEOUT when one of them does not come to an end.
 */
kolo_status kolo__heap_alloc(struct kolo__heap *heap, size_t bytes, size_t alignment,
                             void **memory);
/* memory may be NULL. */
void kolo__heap_free(struct kolo__heap *heap, void *memory);
/* For memory that peers may still touch, such as a mailbox after its transport was closed: it stays
 * as it is until unused(memory) is true, which kolo__heap_alloc asks; at the latest until close. */
void kolo__heap_free_later(struct kolo__heap *heap, void *memory,
                           bool (*unused)(const void *memory));

/* The allocation of this rank that holds [pointer, +bytes). False: none. Thread-safe. */
bool kolo__heap_find(struct kolo__heap *heap, const void *pointer, size_t bytes,
                     struct kolo__heap_extent *extent);

/* Who has told a device of blocks hears of each that is freed, before its pages go. In the thread
 * that frees, under the heap's lock. */
struct kolo__heap_watcher {
    void (*freed)(struct kolo__heap_watcher *watcher, const struct kolo__heap_extent *extent);
    struct kolo__heap_watcher *next; /* the heap's */
};
/* Borrows watcher until kolo__heap_unwatch; then freed runs no more. */
void kolo__heap_watch(struct kolo__heap *heap, struct kolo__heap_watcher *watcher);
void kolo__heap_unwatch(struct kolo__heap *heap, struct kolo__heap_watcher *watcher);

/* UINT64_MAX when [pointer, +bytes) is not wholly in the heap. */
uint64_t kolo__heap_position(const struct kolo__heap *heap, const void *pointer, size_t bytes);
/* NULL when [position, +bytes) is outside. */
unsigned char *kolo__heap_address(const struct kolo__heap *heap, uint64_t position, size_t bytes);

#endif
