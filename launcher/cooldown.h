/* SPDX-License-Identifier: Apache-2.0 */
/* Of one host: whether ranks may be started there again. A host that keeps killing its ranks (a
 * broken disk or device, too little memory) would use up all restarts. */
#ifndef KOLO_LAUNCHER_COOLDOWN_H
#define KOLO_LAUNCHER_COOLDOWN_H

#include <stdbool.h>
#include <stdint.h>

struct kolo__cooldown {
    uint64_t failed_ns; /* a rank failed there, and none since then; 0: none */
    uint64_t until_ns;  /* 0: it never was in one */
    uint64_t pause_s;   /* the last one's length */
    uint64_t away_s;    /* the same of the last time that it could not be reached; 0: it could */
};

/* A rank failed there. True where a second within a minute did: nothing is started there for
 * pause_s from now on, which is 30 s, then 60 s, and so on up to 10 minutes. */
bool kolo__cooldown_note(struct kolo__cooldown *cooldown, uint64_t now_ns);

/* It cannot be reached, or was lost: it is tried again after 5 s, and twice as long each further
 * time, up to 10 minutes; but not before until_ns. Returns the seconds until then. */
uint64_t kolo__cooldown_away(struct kolo__cooldown *cooldown, uint64_t now_ns);

#endif
