/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signs of life, from a thread of its own: a rank that computes for minutes is alive, and one whose
 * process is stopped is not, though its kernel goes on answering for it. Each three fifths of
 * KOLO_PEER_TIMEOUT the rank says what it is in (a BEAT message), and the rendezvous answers. Who
 * hears nothing of the other for KOLO_PEER_TIMEOUT calls it lost (rendezvous_beat.c is the other
 * end).
 *
 *   rank     |--beat-->|--beat-->|   stopped, or cut off
 *   server   |<--------|<--------|- - - - - ?- - - - - - - |
 *                               seven tenths of the time:   the time: lost, with all that is known
 *                               a beat of its own, which the
 *                               other host's kernel answers,
 *                               or not
 *
 * Time in which this process did not run itself (Ctrl-Z, a debugger, a suspended laptop, too many
 * others) does not count against the other end.
 */
#ifndef KOLO_RUNTIME_HEARTBEAT_H
#define KOLO_RUNTIME_HEARTBEAT_H

#include "runtime/control.h"
#include "runtime/flight.h"

struct kolo__heartbeat;

/* Both are borrowed until the end; flight is only read. Once the world has formed: what comes from
 * the server afterwards is nobody's answer. KOLO_ERR_MEMORY, KOLO_ERR_SYSTEM. */
kolo_status kolo__heartbeat_start(struct kolo__control *control, const struct kolo__flight *flight,
                                  long timeout_s, struct kolo__heartbeat **heartbeat);
/* heartbeat may be NULL. */
void kolo__heartbeat_end(struct kolo__heartbeat *heartbeat);

/* One beat, and a look at how long the server has been silent, of which what passed before since_ns
 * does not count. Returns when to look again at the latest, UINT64_MAX when the server is lost. For
 * the thread, and for tests that have none. */
uint64_t kolo__heartbeat_once(struct kolo__control *control, const struct kolo__flight *flight,
                              uint64_t timeout_ns, uint64_t since_ns);

/* Between two beats. One that is late by two thirds of it is no loss yet; more of them would cost a
 * server of 1,024 ranks a hundredth of its processor. */
static inline uint64_t kolo__heartbeat_pause_ns(uint64_t timeout_ns)
{
    return timeout_ns * 3 / 5;
}

/* Who has not been heard for so long, and does not acknowledge, is cut off. Whoever hears nothing
 * any more gives up, and ends, when his time is over since the last but one of his beats was
 * answered: beats are up to 5/4 of a pause apart, so a quarter of the timeout after the last. */
static inline uint64_t kolo__heartbeat_cut_off_ns(uint64_t timeout_ns)
{
    return timeout_ns / 5;
}

/* Of whom nothing is heard for so long it is asked whether he is there. */
static inline uint64_t kolo__heartbeat_quiet_ns(uint64_t timeout_ns)
{
    return timeout_ns * 7 / 10;
}

/* A wait that others hear of: a little less than the timeout, within which who waits is told who
 * holds it up (rendezvous_wait.c). */
static inline uint64_t kolo__heartbeat_long_ns(uint64_t timeout_ns)
{
    return timeout_ns * 9 / 10;
}

#endif
