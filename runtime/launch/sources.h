/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of launch.h: one row for each kind of launcher. */
#ifndef KOLO_RUNTIME_LAUNCH_SOURCES_H
#define KOLO_RUNTIME_LAUNCH_SOURCES_H

#include "runtime/launch/launch.h"

struct kolo__launch_source {
    const char *name;
    /* Variables. The first two make it complete; the others may be NULL. */
    const char *rank, *size, *local_rank, *local_size;
    /* A variable that only the launcher itself sets: with it, what other sources say was there
     * before this launcher began (it runs in an allocation, or once on each node). NULL: none. */
    const char *marker;
    /* One of rank and size alone is a mistake, if no other source is complete. */
    bool alone_is_error;
    /* Variables that are there say that this process is no rank. NULL: they never do. */
    bool (*is_no_rank)(char *const *environment);
    /* Identity that is more than two numbers; NULL: it is not. */
    kolo_status (*refine)(char *const *environment, struct kolo__launch *launch);
    /* Fills meeting, host, port, job. Called for more than one rank only. */
    kolo_status (*meet)(char *const *environment, struct kolo__launch *launch);
};

/* In the order of precedence. */
extern const struct kolo__launch_source kolo__launch_sources[];
extern const int kolo__launch_source_count;

/* The value of a variable; NULL when it is not there, or empty. */
const char *kolo__launch_get(char *const *environment, const char *name);

#endif
