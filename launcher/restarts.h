/* SPDX-License-Identifier: Apache-2.0 */
/* Which ranks that failed are started again, and when (--restarts). Asks no clock, starts nothing.
 */
#ifndef KOLO_LAUNCHER_RESTARTS_H
#define KOLO_LAUNCHER_RESTARTS_H

#include <stdbool.h>
#include <stdint.h>

struct kolo__restarts {
    long limit, used; /* in the whole job; used: planned ones too, unless they were called off;
                         those that do not count are not in it */
    uint32_t ranks, planned;
    struct kolo__restart *list; /* by rank; owned */
};

/* False: no memory. */
bool kolo__restarts_open(struct kolo__restarts *restarts, uint32_t ranks, long limit);
void kolo__restarts_close(struct kolo__restarts *restarts);

/* The rank has just failed, or (counts: false) gone for no fault of its own: it is due after 1 s,
 * and twice as long each further time, up to 30 s. False: none is left. */
bool kolo__restarts_plan(struct kolo__restarts *restarts, uint32_t rank, bool counts,
                         uint64_t now_ns);
bool kolo__restarts_is_planned(const struct kolo__restarts *restarts, uint32_t rank);
/* It cannot be yet. */
void kolo__restarts_postpone(struct kolo__restarts *restarts, uint32_t rank, uint64_t due_ns);
/* The plan is off. */
void kolo__restarts_drop(struct kolo__restarts *restarts, uint32_t rank);
/* One whose time has come, which is then not planned any more; -1: none. */
int kolo__restarts_take(struct kolo__restarts *restarts, uint64_t now_ns);
/* When the next is due; 0: none is planned. */
uint64_t kolo__restarts_next_ns(const struct kolo__restarts *restarts);

#endif
