/* SPDX-License-Identifier: Apache-2.0 */
/* Time is passed in, so that a simulation can own it. */
#ifndef KOLO_BASE_CLOCK_H
#define KOLO_BASE_CLOCK_H

#include <stdint.h>

struct kolo__clock {
    uint64_t (*now_ns)(void *self); /* monotonic */
    void *self;
};

/* CLOCK_MONOTONIC. */
extern const struct kolo__clock kolo__real_clock;

static inline uint64_t kolo__now_ns(const struct kolo__clock *clock)
{
    return clock->now_ns(clock->self);
}

#endif
