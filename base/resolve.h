/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names to addresses, with a deadline. getaddrinfo has none: with a server that does not answer it
 * takes 5 s for each try, server and search domain. So it runs on a thread, which is left alone
 * when it is late, and frees what it holds when it comes back.
 *
 * (The resolver's own limits, res_ninit, are not those of getaddrinfo; its asynchronous form,
 * getaddrinfo_a, has the same thread but cannot be let go of.)
 */
#ifndef KOLO_BASE_RESOLVE_H
#define KOLO_BASE_RESOLVE_H

#include "base/socket.h"

#include <stdint.h>

enum { KOLO__RESOLVED_MAX = 16 };

struct kolo__resolved {
    int count; /* at least 1 */
    struct kolo__address list[KOLO__RESOLVED_MAX];
};

/* All addresses of a host, of either family, with that port. Numeric ones ask nobody.
 * KOLO_ERR_NETWORK: it has none, now; KOLO_ERR_TIMEOUT: no answer by the deadline
 * (kolo__real_clock). The text begins "cannot resolve 'HOST'". */
kolo_status kolo__resolve(const char *host, const char *port, uint64_t deadline_ns,
                          struct kolo__resolved *resolved);

#endif
