/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pauses between attempts to reach somebody who may start later: they double up to 5 s, and differ
 * from process to process, so that a thousand of them do not ask in step. The last one is cut
 * short, so that an attempt is made right before the time is over.
 */
#ifndef KOLO_BASE_BACKOFF_H
#define KOLO_BASE_BACKOFF_H

#include "base/random.h"

#include <stdbool.h>

enum { KOLO__BACKOFF_LONGEST_MS = 5000, KOLO__BACKOFF_ATTEMPT_MS = 300 };

struct kolo__backoff {
    uint64_t pause_ms; /* the first one, then the next */
    struct kolo__random random;
};

/* Milliseconds of the next pause, when so many are left; -1 when they are too few for another
 * attempt, which is given KOLO__BACKOFF_ATTEMPT_MS. */
long kolo__backoff_next_ms(struct kolo__backoff *backoff, uint64_t left_ms);
/* Sleeps so long. False, at once, when there is no time for another attempt before the deadline
 * (kolo__real_clock). */
bool kolo__backoff_pause(struct kolo__backoff *backoff, uint64_t deadline_ns);

#endif
