/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --discover SCRIPT: a command that prints which hosts there are, as Horovod's
 * --host-discovery-script and the discover_hosts.sh of an MPIJob do. It runs at once, and again 1 s
 * after each end; what it prints is lines of a hostfile. A run that fails, takes more than 10 s, or
 * prints something else changes nothing. None of these blocks.
 */
#ifndef KOLO_LAUNCHER_DISCOVERY_H
#define KOLO_LAUNCHER_DISCOVERY_H

#include "launcher/hosts.h"

#include <poll.h>

struct kolo__discovery;

enum kolo__discovery_news {
    KOLO__DISCOVERY_NOTHING,
    KOLO__DISCOVERY_HOSTS, /* a list */
    KOLO__DISCOVERY_FAULT, /* other than at the last run: in kolo_error_text */
};

/* script: for sh; borrowed, as named. Slots of a host that it does not say are each, if that is not
 * 0, or those of named; else they stay 0. */
kolo_status kolo__discovery_open(const char *script, long each, const struct kolo__hosts *named,
                                 struct kolo__discovery **discovery);
/* Kills it if it runs. NULL: nothing. */
void kolo__discovery_close(struct kolo__discovery *discovery);

/* One entry. NULL: nothing is polled for. */
void kolo__discovery_poll_fill(const struct kolo__discovery *discovery, struct pollfd *fd);
/* At least every second, and when a child has ended. NULL: nothing. */
void kolo__discovery_step(struct kolo__discovery *discovery, uint64_t now_ns);
/* What the last run brought, once. hosts: to be freed by the caller. */
enum kolo__discovery_news kolo__discovery_take(struct kolo__discovery *discovery,
                                               struct kolo__hosts *hosts);
/* The last run printed something that is no list: KOLO_ERR_CONFIG, in kolo_error_text; or it cannot
 * be started, or has failed. KOLO_OK: none of it, or none has ended yet. */
kolo_status kolo__discovery_fault(const struct kolo__discovery *discovery);

#endif
