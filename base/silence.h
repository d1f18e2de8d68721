/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host that vanished: its cable was cut, or its power. It sends neither FIN nor RST, so TCP goes
 * on trying for a quarter of an hour. Two things find it within a stated time:
 *
 *   nothing is under way    keepalive, by the kernel: the next read is ETIMEDOUT
 *   bytes are under way     keepalive is silent then; whoever waits looks now and then whether what
 *                           was sent last was answered (kolo__silence_check)
 *
 * TCP_USER_TIMEOUT would do both, but it also ends a connection whose receiver computes for longer
 * and so leaves its window closed, although its kernel answers every probe.
 */
#ifndef KOLO_BASE_SILENCE_H
#define KOLO_BASE_SILENCE_H

#include <stdbool.h>
#include <stdint.h>

/* Of one connection; begins as zeros. */
struct kolo__silence {
    uint64_t began_ns;  /* 0: what was sent last has been answered */
    uint64_t looked_ns; /* last */
    uint64_t news;      /* of all that came until then: see is_news */
};

/* How long a host may be silent: as long as any other peer (KOLO_PEER_TIMEOUT). Where that is 0, as
 * for debuggers, which stop processes but no hosts: a tenth of the longest wait of an operation
 * (KOLO_TIMEOUT), at least 5 s, at most an hour. */
long kolo__silence_seconds(long peer_timeout_s, long timeout_s);
/* Keepalive: an idle connection ends that long after its host vanished. 0: as it is. Errors are
 * ignored: they are only wishes. */
void kolo__silence_tune(int fd, long silence_s);
/* Between two looks. */
uint64_t kolo__silence_pause_ns(long silence_s);
/* Was something sent again, since it was not answered? Of a connection on which little is sent, so
 * that its window is open. */
bool kolo__silence_is_unanswered(int fd);
/* True when something is under way and nothing was heard for so long, less two pauses: it begins
 * with the first look that finds it so, and ends with the last. To be asked about every
 * kolo__silence_pause_ns while waiting; who did not look for longer begins anew. 0: never. */
bool kolo__silence_check(struct kolo__silence *silence, int fd, long silence_s, uint64_t now_ns);
/* The same without a socket: unanswered: something was sent after the last answer, which came
 * heard_ns_ago. */
bool kolo__silence_judge(struct kolo__silence *silence, bool unanswered, uint64_t heard_ns_ago,
                         long silence_s, uint64_t now_ns);
/* Is this errno of a read or write what is left of a host that does not answer? */
bool kolo__silence_is_errno(int failure);

/* For messages about a host, behind its name. */
#define KOLO__SILENCE_TEXT "does not answer any more: it is down, or the network to it is cut"

/* Of one that was never connected, before its name. */
#define KOLO__UNREACHED_TEXT "could not reach"

#endif
