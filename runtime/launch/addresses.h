/* SPDX-License-Identifier: Apache-2.0 */
/* Which addresses are this host's, and which of a name's others can reach. */
#ifndef KOLO_RUNTIME_LAUNCH_ADDRESSES_H
#define KOLO_RUNTIME_LAUNCH_ADDRESSES_H

#include <kolo/kolo.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KOLO__ADDRESSES_MAX = 16, KOLO__ADDRESS_TEXT_BYTES = 64 };

struct kolo__addresses {
    int count;
    bool only_loopback;
    char text[KOLO__ADDRESSES_MAX][KOLO__ADDRESS_TEXT_BYTES]; /* numeric, no brackets */
};

/* Asks the resolver, at most until the deadline. KOLO_ERR_NETWORK, KOLO_ERR_TIMEOUT: it knows none
 * (now). */
kolo_status kolo__addresses_of(const char *host, uint64_t deadline_ns,
                               struct kolo__addresses *addresses);
/* All addresses by which others may reach this host, but those of one link: "10.0.0.1,fd00::1".
 * KOLO_NET says nothing here: names lead to addresses that it may leave out. */
kolo_status kolo__addresses_listen(char *text, size_t bytes);
/* An address of this host that others may reach: the best by KOLO_NET (base/interfaces.h). */
kolo_status kolo__addresses_own(const char *net, char text[KOLO__ADDRESS_TEXT_BYTES]);

#endif
