/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which algorithm: the cheapest by a cost model, the same on every rank because it is computed from
 * what all ranks know. Formulas: Thakur, Rabenseifner, Gropp, "Optimization of collective
 * communication operations in MPICH", 2005; Sanders, Speck, Traeff, "Two-tree algorithms", 2009.
 *
 * Measured constants differ from run to run, and a result must not. So there are two stages:
 *
 *   1. kolo__default_cost_model, which never changes, says which algorithm would be the cheapest.
 *      That fixes the bits of the result.
 *   2. The model of the input, measured or not, says which is the cheapest of those that give these
 *      bits (kolo__select_same_bits).
 *
 * Where the order of contributions does not show (integers, MIN and MAX, two ranks, collectives
 * that only move data) all algorithms give the same bits, and the second stage has all of them. Of
 * the sums of floats it has those that combine in the order of ranks (kolo__algorithm.rounds_once);
 * each of the others has an order of its own and stands alone.
 *
 * MPI (offload/offload.h) is in neither: where the order does not show it is taken if it was
 * measured to be faster than what the two stages choose, elsewhere only if it is forced.
 */
#ifndef KOLO_COLLECTIVES_SELECT_H
#define KOLO_COLLECTIVES_SELECT_H

#include "collectives/cost.h"
#include "collectives/offload/offload.h"
#include "collectives/schedule.h"

struct kolo__select_input {
    const struct kolo__problem *problem;
    kolo_dtype dtype;
    kolo_op op;
    bool mapped;        /* all ranks of the communicator have a kolo__mapping */
    bool hosts_mapped;  /* on every host, those of several ranks have one */
    bool remote;        /* messages cross hosts, or go by tcp */
    size_t slot_bytes;  /* of that mapping */
    bool deterministic; /* KOLO_DETERMINISTIC: inexact reductions in the order of ranks only */
    const struct kolo__cost_model *model; /* of the second stage */
    const struct kolo__offload *offload;  /* NULL: mpirun has not started this world */
};

/* Predicted seconds by input->model, or a negative number when this algorithm cannot or should not
 * do it: it does not accept the problem, has no mapping, the slot is too small, or it would round a
 * 16-bit sum more than once. */
double kolo__select_cost(const struct kolo__select_input *input,
                         const struct kolo__algorithm *algorithm);

/* Why the algorithm cannot or should not do it, in words; NULL: it can. */
const char *kolo__select_obstacle(const struct kolo__select_input *input,
                                  const struct kolo__algorithm *algorithm);

/* True when both give the same bits for this problem, whatever the contributions are. */
bool kolo__select_same_bits(const struct kolo__select_input *input, const struct kolo__algorithm *a,
                            const struct kolo__algorithm *b);

/* Measured constants do not decide either between algorithms that share memory and those that send
 * messages: an error in one of them would, as these were measured by different operations.
 *
 * forced: a name, or NULL or "": the cheapest, in two stages. A forced algorithm that cannot do
 * this problem is KOLO_ERR_INVALID, one that does not exist KOLO_ERR_CONFIG. (Forcing may round
 * more than once.) prefer_only: a forced name that does not fit is ignored instead. */
kolo_status kolo__select(const struct kolo__select_input *input, const char *forced,
                         bool prefer_only, const struct kolo__algorithm **algorithm);

#endif
