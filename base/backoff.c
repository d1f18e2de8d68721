/* SPDX-License-Identifier: Apache-2.0 */
#include "base/backoff.h"

#include "base/clock.h"

#include <time.h>

static const uint64_t MILLISECOND = 1000000;

long kolo__backoff_next_ms(struct kolo__backoff *backoff, uint64_t left_ms)
{
    uint64_t half_ms = backoff->pause_ms / 2;
    uint64_t pause_ms = half_ms + kolo__random_below(&backoff->random, half_ms + 1);
    if (left_ms <= KOLO__BACKOFF_ATTEMPT_MS)
        return -1;
    if (pause_ms + KOLO__BACKOFF_ATTEMPT_MS > left_ms)
        pause_ms = left_ms - KOLO__BACKOFF_ATTEMPT_MS;
    backoff->pause_ms = backoff->pause_ms < KOLO__BACKOFF_LONGEST_MS / 2 ? backoff->pause_ms * 2
                                                                         : KOLO__BACKOFF_LONGEST_MS;
    return (long)pause_ms;
}

bool kolo__backoff_pause(struct kolo__backoff *backoff, uint64_t deadline_ns)
{
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    long pause_ms = kolo__backoff_next_ms(
        backoff, deadline_ns > now_ns ? (deadline_ns - now_ns) / MILLISECOND : 0);
    if (pause_ms < 0)
        return false;
    nanosleep(&(struct timespec){.tv_sec = pause_ms / 1000,
                                 .tv_nsec = pause_ms % 1000 * (long)MILLISECOND},
              NULL);
    return true;
}
