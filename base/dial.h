/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connecting to whoever answers first of several addresses. A host has many, a name may have
 * several records and some of them stale, and a dead one gives no answer for minutes: so each gets
 * a short while before the next is tried beside it (as in RFC 8305), and the first connection wins.
 *
 * That somebody answers does not mean that it is the right one: the caller finds out, and asks for
 * the next connection when it was not.
 */
#ifndef KOLO_BASE_DIAL_H
#define KOLO_BASE_DIAL_H

#include <kolo/kolo.h>
#include <stdbool.h>
#include <stdint.h>

struct kolo__dial;

enum { KOLO__DIAL_MAX = 64 }; /* addresses tried, of all names together */

/* addresses: "host:port,[v6]:port,..."; names are resolved when their turn comes. KOLO_ERR_CONFIG
 * when it is no such list. */
kolo_status kolo__dial_open(const char *addresses, struct kolo__dial **dial);
/* Waits for the next connection, at most until the deadline (kolo__real_clock). Each address is
 * tried once. KOLO_ERR_NETWORK: all have failed; KOLO_ERR_TIMEOUT: some have not answered. The
 * caller owns *fd. */
kolo_status kolo__dial_next(struct kolo__dial *dial, uint64_t deadline_ns, int *fd);
/* Why the caller did not want the connection that it got last. again: another time it may. */
void kolo__dial_refuse(struct kolo__dial *dial, const char *why, bool again);
/* True when every address answered, and the caller wants none of them at any time. Of a name that
 * has one address of each family, one of the two needs to. */
bool kolo__dial_all_refused(const struct kolo__dial *dial);
/* "10.0.0.1:5000: Connection refused; node7:5000: cannot be resolved: ..." into text, ports of one
 * host that failed alike once. Returns text. */
const char *kolo__dial_report(const struct kolo__dial *dial, char *text, size_t bytes);
/* dial may be NULL. */
void kolo__dial_close(struct kolo__dial *dial);

#endif
