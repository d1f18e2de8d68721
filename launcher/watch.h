/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `kolo run` sees of ranks that live: of one that is silent, what its process does, which the
 * rendezvous then names as the reason; and while ranks wait for long, who holds them up, as the
 * rendezvous has found, for which nobody is ended before KOLO_TIMEOUT.
 */
#ifndef KOLO_LAUNCHER_WATCH_H
#define KOLO_LAUNCHER_WATCH_H

#include "launcher/supervise.h"

struct kolo__watch {
    uint64_t looked_ns, asked_ns; /* 0: not yet; nobody was asked, or the answer is used */
    uint64_t said_ns;             /* the wait of which was told last; 0: none */
    bool early;                   /* something woke who looks before it was time again */
};

/* One look, if it is time for one. Writes a line into text, to be said; "": nothing to say. */
void kolo__watch_step(struct kolo__watch *watch, const struct kolo__supervised *job,
                      uint64_t now_ns, char *text, size_t bytes);
/* Milliseconds until the next look; -1: what wakes the rendezvous is often enough. */
int kolo__watch_timeout_ms(const struct kolo__watch *watch);

#endif
