/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AdamW (Loshchilov and Hutter, 2019) with clipping by the global norm, and its learning rate.
 * Every rank runs it on the same averaged gradients, in the same order, and so keeps the same
 * parameters.
 */
#ifndef TRAIN_BYTES_OPTIMIZER_H
#define TRAIN_BYTES_OPTIMIZER_H

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

/* One update, with weight decay on the first matrix_count parameters; then step is one more.
 * Gradients whose norm is above 1 count as scaled down to 1. Returns the norm before that. */
double adamw_step(struct training_state *state, const float *gradients, size_t matrix_count,
                  float rate);

#endif
