/* SPDX-License-Identifier: Apache-2.0 */
/* --hosts and --hostfile: which hosts there are, how many ranks each may have, and who goes where.
 */
#ifndef KOLO_LAUNCHER_HOSTS_H
#define KOLO_LAUNCHER_HOSTS_H

#include <kolo/kolo.h>
#include <stdbool.h>
#include <stdint.h>

enum { KOLO__SLOTS_MAX = 1 << 20, KOLO__HOST_NAME_BYTES = 280 };

struct kolo__host {
    char name[KOLO__HOST_NAME_BYTES]; /* as for ssh: [user@]host, no brackets */
    long slots;                       /* 0: not said */
    bool here;                        /* this machine, as the user that we are */
};

struct kolo__hosts {
    struct kolo__host *list;
    uint32_t count;
};

/* Reads "host[:slots],[v6]:slots,...", and adds up what one host has. */
kolo_status kolo__hosts_read_list(struct kolo__hosts *hosts, const char *text);
/* Lines of "host slots=N" (Open MPI) or "host:N" (MPICH); # begins a comment. */
kolo_status kolo__hosts_read_file(struct kolo__hosts *hosts, const char *path);
/* The same lines from memory; source is what errors call it. No host at all is fine. */
kolo_status kolo__hosts_read_text(struct kolo__hosts *hosts, const char *source, const char *text);
/* Two entries are one host. */
bool kolo__host_is_same(const struct kolo__host *a, const struct kolo__host *b);
void kolo__hosts_free(struct kolo__hosts *hosts);

/* Every host knows its slots. */
bool kolo__hosts_are_counted(const struct kolo__hosts *hosts);
/* KOLO_ERR_CONFIG: the slots are no whole number in range. */
kolo_status kolo__hosts_total(const struct kolo__hosts *hosts, long *slots);

/* host_of[rank] for so many ranks, which are no more than there are slots. by_node: one to each
 * host in turn; else each host is filled before the next. */
void kolo__hosts_place(const struct kolo__hosts *hosts, uint32_t ranks, bool by_node,
                       uint32_t *host_of);

/* A name or numeric address of this machine? own_name: its host name. Asks no resolver. */
bool kolo__host_is_here(const char *name, const char *own_name);
/* The same by the pod's name (POD_NAME), which is more than its host name in a pod that a Job made.
 */
bool kolo__host_is_pod(const char *name, const char *pod);

#endif
