/* SPDX-License-Identifier: Apache-2.0 */
/* Which addresses are this host's, and which of a name's others can reach. */
#ifndef KOLO_RUNTIME_LAUNCH_ADDRESSES_H
#define KOLO_RUNTIME_LAUNCH_ADDRESSES_H

#include <kolo/kolo.h>
#include <stdbool.h>

enum { KOLO__ADDRESSES_MAX = 16, KOLO__ADDRESS_TEXT_BYTES = 64 };

struct kolo__addresses {
    int count;
    bool only_loopback;
    char text[KOLO__ADDRESSES_MAX][KOLO__ADDRESS_TEXT_BYTES]; /* numeric, no brackets */
};

/* Asks the resolver. KOLO_ERR_NETWORK: it knows none (now). */
kolo_status kolo__addresses_of(const char *host, struct kolo__addresses *addresses);
/* An address of this host that others may reach: the best by KOLO_NET (base/interfaces.h). */
kolo_status kolo__addresses_own(const char *net, char text[KOLO__ADDRESS_TEXT_BYTES]);
/* 0 when a socket could listen there; EADDRINUSE, EADDRNOTAVAIL (not this host's), ... */
int kolo__addresses_try(const char *numeric, int port);

#endif
