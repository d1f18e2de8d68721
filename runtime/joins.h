/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a rank has heard of kolo_join (join.c): who has joined on which communicator, the
 * collectives that were announced to it, the communicators on which all have joined. The control
 * plane keeps it under its lock; ranks are ranks of the world.
 */
#ifndef KOLO_RUNTIME_JOINS_H
#define KOLO_RUNTIME_JOINS_H

#include "runtime/frame.h"

#include <stdatomic.h>

struct kolo__joins {
    struct kolo__joins_comm *comms;       /* on which some, not all, have joined */
    struct kolo__announcement *announced; /* as they came */
    struct kolo__joins_end *ends;         /* that kolo_join has not taken yet */
    uint32_t comm_capacity, announced_capacity, end_count, end_capacity;
    atomic_uint comm_count, announced_count; /* read without the lock: 0 is the rule */
};

/* A JOINED, ANNOUNCE or ALL_JOINED message. False: it is broken, or there is no memory. */
bool kolo__joins_take(struct kolo__joins *joins, enum kolo__frame_type type,
                      struct kolo__frame_reader *payload);
/* True when the rank has joined; sequence: of its last collective before. */
bool kolo__joins_has(const struct kolo__joins *joins, uint32_t comm, uint32_t rank,
                     uint64_t *sequence);
/* The fewest collectives after which a rank has joined; false: nobody has. */
bool kolo__joins_lowest(const struct kolo__joins *joins, uint32_t comm, uint64_t *sequence);
/* Takes the oldest announcement of this communicator. */
bool kolo__joins_next(struct kolo__joins *joins, uint32_t comm,
                      struct kolo__announcement *announcement);
/* Takes the news that all have joined. */
bool kolo__joins_end(struct kolo__joins *joins, uint32_t comm, uint32_t *last);
/* The communicator is gone. */
void kolo__joins_forget(struct kolo__joins *joins, uint32_t comm);
void kolo__joins_free(struct kolo__joins *joins);

#endif
