/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The processor's own counter: a third of what clock_gettime takes, and reading it does not wait
 * for loads under way. What it counts is nanoseconds only afterwards, by two readings beside the
 * clock, so it is for what is looked at later: timelines. An instruction or two around a reading
 * may be on the wrong side of it: some ten nanoseconds.
 */
#ifndef KOLO_BASE_TICKS_H
#define KOLO_BASE_TICKS_H

#include <stdbool.h>
#include <stdint.h>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

/* Whether it runs at one rate and alike on all processors. The kernel keeps its own time by it
 * where it does, and knows better than a flag of the processor. */
bool kolo__ticks_are_trusted(void);

/* 0 on an architecture without one, where ticks are not trusted either. */
static inline uint64_t kolo__ticks(void)
{
#if defined(__x86_64__)
    return __rdtsc();
#elif defined(__aarch64__)
    uint64_t ticks;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#else
    return 0;
#endif
}

/* The same moment by both. */
struct kolo__ticks_reading {
    uint64_t ticks, ns; /* kolo__real_clock */
};

struct kolo__ticks_reading kolo__ticks_read(void);

/* By the straight line through two readings, also before and behind them. */
uint64_t kolo__ticks_to_ns(const struct kolo__ticks_reading readings[2], uint64_t ticks);

#endif
