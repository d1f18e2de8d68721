/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strangers that a listening socket refused, in the log: each host and kind of reason once, as a
 * warning, however often it comes; and no more than some, whoever comes. What stands behind a
 * reason's colon may be what the stranger said, and belongs to no kind: who says something else
 * each time is one stranger.
 */
#ifndef KOLO_BASE_REFUSALS_H
#define KOLO_BASE_REFUSALS_H

#include "base/socket.h"

enum { KOLO__REFUSALS_MAX = 16 };

struct kolo__refusals {
    uint64_t kinds[KOLO__REFUSALS_MAX]; /* of host, and reason up to its colon */
    unsigned count;
};

/* where: "rendezvous", or what else was connected to. All that has been said is said again to who
 * looks at debug messages. */
void kolo__refusals_log(struct kolo__refusals *refusals, const char *where,
                        const struct kolo__address *from, const char *reason);

#endif
