/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AdamW (Loshchilov and Hutter, 2019) with clipping by the global norm, and its learning rate. It
 * works on any part of the parameters: on whole tensors, or on a rank's pieces of them. The same
 * gradients and the same norm give the same parameters, on whichever rank.
 */
#ifndef TRAIN_BYTES_OPTIMIZER_H
#define TRAIN_BYTES_OPTIMIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What training changes; what a checkpoint holds. The arrays are parts of one block, [3 * count].
 */
struct training_state {
    uint64_t step;  /* steps done */
    double seconds; /* spent on them, on rank 0, over all runs */
    size_t count;   /* of parameters */
    float *parameters;
    float *mean;     /* of the gradients */
    float *variance; /* of the gradients, uncentred */
};

/* 0, or -1 when memory is short. Everything is zero. */
int training_state_create(size_t count, struct training_state *state);
void training_state_destroy(struct training_state *state);

/* Linear warm-up in steps, then a cosine from peak to a tenth of it as progress goes from 0 to 1.
 */
float learning_rate(double peak, uint64_t step, double progress);

/* What a step is the same in for all parameters. */
struct adamw {
    uint64_t step; /* from 1 */
    float rate;
    float scale; /* of the gradients: see adamw_clipping */
};

/* Gradients whose global norm is above this are scaled down to it: by so much. */
#define ADAMW_NORM 1.0
float adamw_clipping(double norm);

/* What an update multiplies by. */
struct adamw_factors {
    float beta1, beta2, rate, scale, decay, unbias_mean, unbias_variance;
};
struct adamw_factors adamw_factors(const struct adamw *adamw, bool decays);

/* One update of count parameters. */
void adamw_update(const struct adamw_factors *factors, size_t count, const float *gradients,
                  float *parameters, float *mean, float *variance);

#endif
