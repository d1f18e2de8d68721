/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verbs within one process, for the rdma transport where there is no device, and under sanitizers.
 * Stricter than a card where that finds mistakes: a write is carried out late, so memory that was
 * given back too early shows; and it ends the program when it breaks a promise that a card would
 * only punish by time: more writes than receive requests, or than a queue has room for.
 */
#ifndef KOLO_TESTS_CONFORMANCE_FAKE_VERBS_H
#define KOLO_TESTS_CONFORMANCE_FAKE_VERBS_H

#include "collectives/transport/rdma_module.h"

extern const struct kolo__rdma_module fake_verbs;

/* Of links opened from here on: how much they take inline, at most. */
void fake_verbs_set_inline(uint32_t bytes);

/* Work requests that all links were given since the last call of this; of them, those that tell
 * that they are done. */
struct fake_verbs_posts {
    uint64_t writes, signalled;
};
struct fake_verbs_posts fake_verbs_take_posts(void);

/* How many regions are registered now. */
int fake_verbs_regions(void);
/* Larger ones are refused, as by a limit of locked memory. SIZE_MAX at first. */
void fake_verbs_set_region_bytes(size_t most);
/* The so-manieth dma-buf from now on is refused; 0: none; -1: all, as by devices that take none. Of
 * one that is taken the region is a mapping of its own. */
void fake_verbs_refuse_dma_buf(int which);
/* Every other link is slower than the one before. */
void fake_verbs_delay_others(bool delay);
/* From now on senders do not learn that what they wrote has come. */
void fake_verbs_lose_confirmations(bool lose);

#endif
