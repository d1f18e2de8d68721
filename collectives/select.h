/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which algorithm: the cheapest by a cost model, the same on every rank because it is computed from
 * what all ranks know. Formulas: Thakur, Rabenseifner, Gropp, "Optimization of collective
 * communication operations in MPICH", 2005; Sanders, Speck, Traeff, "Two-tree algorithms", 2009.
 */
#ifndef KOLO_COLLECTIVES_SELECT_H
#define KOLO_COLLECTIVES_SELECT_H

#include "collectives/schedule.h"

/* Seconds. In the formulas, which stand beside the algorithms: a, one message; B, one byte sent; G,
 * one byte reduced; M, one byte of mapped memory loaded or stored. */
struct kolo__cost_model {
    double message_local, message_remote;
    double byte_local, byte_remote;
    double byte_reduced;
    double byte_mapped; /* loaded from or stored to mapped memory */
    double fence;       /* one ARRIVE and AWAIT */
};

extern const struct kolo__cost_model kolo__default_cost_model;

struct kolo__select_input {
    const struct kolo__problem *problem;
    kolo_dtype dtype;
    kolo_op op;
    bool mapped;        /* the communicator has a kolo__mapping */
    bool remote;        /* messages cross hosts, or go by tcp */
    size_t slot_bytes;  /* of that mapping */
    bool deterministic; /* KOLO_DETERMINISTIC: inexact reductions in the order of ranks only */
    const struct kolo__cost_model *model;
};

/* Predicted seconds, or a negative number when this algorithm cannot or should not do it: it does
 * not accept the problem, has no mapping, the slot is too small, or it would round a 16-bit sum
 * more than once. */
double kolo__select_cost(const struct kolo__select_input *input,
                         const struct kolo__algorithm *algorithm);

/* Why the algorithm cannot or should not do it, in words; NULL: it can. */
const char *kolo__select_obstacle(const struct kolo__select_input *input,
                                  const struct kolo__algorithm *algorithm);

/* forced: a name, or NULL or "": the cheapest. A forced algorithm that cannot do this problem is
 * KOLO_ERR_INVALID, one that does not exist KOLO_ERR_CONFIG. (Forcing may round more than once.)
 * prefer_only: a forced name that does not fit is ignored instead. */
kolo_status kolo__select(const struct kolo__select_input *input, const char *forced,
                         bool prefer_only, const struct kolo__algorithm **algorithm);

#endif
