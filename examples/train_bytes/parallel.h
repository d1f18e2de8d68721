/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What makes training parallel: which rank has which parameters, gradients and optimizer state, and
 * what travels between them. All of kolo's reducer is used here.
 *
 *   plain     every rank has all parameters and all of AdamW's state, and makes the same update
 *   sharded   a rank has the state of its pieces only, one element in N, and updates those; then
 *             the parameters are gathered
 *
 * Both are one code: an update goes over this rank's pieces, and in a plain run these are all
 * tensors, whole.
 */
#ifndef TRAIN_BYTES_PARALLEL_H
#define TRAIN_BYTES_PARALLEL_H

#include <kolo/kolo.h>

#include "device.h"
#include "model.h"
#include "optimizer.h"

#include <stdbool.h>

struct parallel {
    kolo_comm *world;            /* borrowed; of the present epoch */
    const struct device *device; /* borrowed; what is computed with is in its memory */
    kolo_reducer *reducer;       /* owned */
    kolo_wire wire;
    bool sharded, out_of_memory;
    size_t tensor_count;
    struct model_tensor *tensors;    /* owned, as all that follow */
    kolo_tensor *descriptions;       /* names and shapes; data: the parameters */
    float **parameters, **gradients; /* by tensor; gradients of one step */
    float *block;                    /* of parameters; sharded: they are the reducer's */
    kolo_reducer_shard *pieces;
    size_t piece_count;
    float *mean, *variance; /* of the pieces' elements, [state_count] */
    size_t state_count;
    float *scratch; /* the host's: as long as the longest tensor */
    kolo_status ready_status;
};

/* Local. KOLO_ERR_MEMORY with out_of_memory set has no text of kolo's. In any case parallel_destroy
 * has to follow. */
kolo_status parallel_create(const struct device *device, const struct model_config *model,
                            kolo_wire wire, bool sharded, struct parallel *parallel);
/* Whether training goes on when the world becomes another: the host knows when the state has
 * changed, and can reach it. */
bool parallel_goes_on(const struct parallel *parallel);
/* Collective: what belongs to a world; again when it has become another. Errors as above. */
kolo_status parallel_enter(struct parallel *parallel, kolo_comm *world);
/* What kolo_elastic_* has to keep: fills [tensor_count + 2], returns how many. None unless
 * parallel_goes_on. */
size_t parallel_state(const struct parallel *parallel, kolo_tensor *state);
/* Sharded, after parallel_enter: where these are in this world. */
kolo_status parallel_show_state(const struct parallel *parallel, kolo_elastic *loop);

/* Before kolo_finalize. Parameters stay until parallel_destroy, where there is memory for them. */
void parallel_leave(struct parallel *parallel);
void parallel_destroy(struct parallel *parallel);

/* Where each rank has all: this rank's state is that. */
void parallel_place(struct parallel *parallel, const struct training_state *whole);
/* Elsewhere. Collective: rank 0's whole state, which is NULL on all others, reaches whoever needs
 * it.
 */
kolo_status parallel_distribute(struct parallel *parallel, const struct training_state *whole);
/* Collective, the other way round: parameters, mean and variance of rank 0's whole are filled in.
 */
kolo_status parallel_collect(struct parallel *parallel, struct training_state *whole);

/* The gradients of a new step: all zero. */
void parallel_begin_step(struct parallel *parallel);
/* A model_final: the gradient may travel. */
void parallel_final(void *parallel, size_t tensor);
/* Collective: waits until the sums of all gradients are there, on a GPU until they are queued. Then
 * they are clipped, and of the report norm and finite are not told, for which the host would have
 * to wait. */
kolo_status parallel_end_step(struct parallel *parallel, kolo_reducer_report *report);
/* Of this rank's pieces. */
void parallel_update(struct parallel *parallel, const struct adamw *adamw);
/* Collective, after an update: sharded, all parameters on all ranks; plain, they are there. */
kolo_status parallel_gather(struct parallel *parallel);

#endif
