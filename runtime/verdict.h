/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why does nobody move? Ranks that wait for more than a second tell the rendezvous which operations
 * they did last and what they wait for. Two of them that did different things under the same number
 * are a mismatch; so are ranks that wait for each other in a circle. This catches what message
 * headers cannot: both sides sending, or each waiting for the other.
 *
 * A circle is judged from reports of different moments, and yet never wrongly. Who waits without
 * limit calls nothing else on its communicator before its wait ends, and its report says how much
 * it had called: if that is not what the other waits for, then it must leave its wait first. In a
 * circle everybody would have to be second. So a report need not be withdrawn: once a rank has gone
 * on, it has got what the next one's report must then count as called.
 */
#ifndef KOLO_RUNTIME_VERDICT_H
#define KOLO_RUNTIME_VERDICT_H

#include "collectives/transport/transport.h"

enum { KOLO__VERDICT_RECENT = 16, KOLO__VERDICT_SENT_MAX = 4096 };

/* Who must call something before this rank's wait can end. */
enum kolo__verdict_needs {
    KOLO__NEEDS_NOBODY, /* nobody for sure, or the wait has a limit of its own */
    KOLO__NEEDS_ONE,
    KOLO__NEEDS_ALL, /* of the communicator */
};

/* How many messages (kolo_send, kolo_send_start) a rank has begun to send to a peer. */
struct kolo__verdict_sent {
    uint32_t to; /* rank of the world */
    uint64_t messages;
};

/* What one rank says of one communicator. */
struct kolo__verdict_report {
    uint32_t comm;
    uint32_t count;
    struct kolo__signature recent[KOLO__VERDICT_RECENT]; /* the last collectives, oldest first */
    enum kolo__verdict_needs needs;
    uint32_t from;                    /* NEEDS_ONE: rank of the world */
    struct kolo__signature waited_in; /* a collective, or a message that it wants to receive */
    uint32_t sent_count;              /* peers that are not named were sent nothing */
    struct kolo__verdict_sent *sent;
};

/* A rank of the world and its report. */
struct kolo__verdict_side {
    uint32_t rank;
    const char *host;
    const struct kolo__verdict_report *report;
};

/* True when the reports of two ranks contradict each other; text then shows both sides. */
bool kolo__verdict_mismatch(const struct kolo__verdict_side *a, const struct kolo__verdict_side *b,
                            char *text, size_t bytes);

/* True when sides[first] waits for itself, through others. All sides are of one communicator. text
 * then shows the circle. */
bool kolo__verdict_circle(const struct kolo__verdict_side *sides, uint32_t count, uint32_t first,
                          char *text, size_t bytes);

#endif
