/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the work of a collective costs, in seconds: the constants that the algorithms' formulas
 * take. Who compares them is select.h; who measures them, runtime/costs.h.
 */
#ifndef KOLO_COLLECTIVES_COST_H
#define KOLO_COLLECTIVES_COST_H

enum { KOLO__COST_LEVELS = 4 }; /* the first to third cache of a rank, and the memory behind them */

/* One byte, while all that the operation touches on one rank stays within `bytes`. */
struct kolo__memory_cost {
    double bytes;   /* of the last level: meaningless, it takes the rest */
    double mapped;  /* loaded from, or stored to, a buffer that all ranks map */
    double slot;    /* copied into, or taken from, a SLOT: by one rank for all others */
    double reduced; /* combined with another in private memory */
};

struct kolo__cost_model {
    double message_local, message_remote; /* one message: between ranks of a host, of hosts */
    double byte_local, byte_remote;       /* one byte of it */
    double fence;      /* the first ARRIVE and AWAIT of an operation, where ranks meet */
    double next_fence; /* every later one */
    double fence_rank; /* what each rank adds to either */
    struct kolo__memory_cost memory[KOLO__COST_LEVELS];
};

/* Typical of one server and of 10-25 Gbit/s Ethernet. Always the same: see select.h. */
extern const struct kolo__cost_model kolo__default_cost_model;

/* The level of a working set: what one rank touches. */
static inline const struct kolo__memory_cost *
kolo__cost_memory(const struct kolo__cost_model *model, double working_set_bytes)
{
    int level = 0;
    while (level < KOLO__COST_LEVELS - 1 && working_set_bytes > model->memory[level].bytes)
        level++;
    return &model->memory[level];
}

#endif
