/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers that only grow: one thread at a time adds, any thread reads. Adding is a plain load, add
 * and store; what is guarded is only that nobody sees half of it.
 */
#ifndef KOLO_BASE_COUNTER_H
#define KOLO_BASE_COUNTER_H

#include <stdatomic.h>
#include <stdint.h>

struct kolo__counter {
    _Atomic uint64_t value;
};

static inline uint64_t kolo__counter_read(const struct kolo__counter *counter)
{
    return atomic_load_explicit(&counter->value, memory_order_relaxed);
}

static inline void kolo__counter_add(struct kolo__counter *counter, uint64_t more)
{
    atomic_store_explicit(&counter->value, kolo__counter_read(counter) + more,
                          memory_order_relaxed);
}

/* Where several threads may add at once. Dearer. */
static inline void kolo__counter_add_shared(struct kolo__counter *counter, uint64_t more)
{
    atomic_fetch_add_explicit(&counter->value, more, memory_order_relaxed);
}

#endif
