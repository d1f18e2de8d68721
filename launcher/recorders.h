/* SPDX-License-Identifier: Apache-2.0 */
/* The flight recorders (runtime/flight.h) of ranks on this host, and what their processes do. */
#ifndef KOLO_LAUNCHER_RECORDERS_H
#define KOLO_LAUNCHER_RECORDERS_H

#include "runtime/flight.h"

#include <stdio.h>

struct kolo__recorders {
    struct kolo__flight_rank *ranks; /* by job, then by rank */
    uint32_t count;
    struct kolo__recorders_block *blocks; /* what is mapped */
};

/* Those in this memory in which a rank has written. KOLO_ERR_MEMORY. */
kolo_status kolo__recorders_add(struct kolo__recorders *recorders, int fd);
/* One that lies elsewhere. */
kolo_status kolo__recorders_add_rank(struct kolo__recorders *recorders,
                                     const struct kolo__flight_rank *rank);
/* Those of all processes of this machine that may be looked at. */
kolo_status kolo__recorders_find(struct kolo__recorders *recorders);
/* One job, as far as is known: its name, user and size are the same. */
bool kolo__recorders_same_job(const struct kolo__flight_rank *a, const struct kolo__flight_rank *b);
void kolo__recorders_free(struct kolo__recorders *recorders);

/* One line an operation, with a line of names above. */
void kolo__recorders_write_csv(const struct kolo__flight_rank *ranks, uint32_t count, FILE *out);

#endif
