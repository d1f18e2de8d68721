/* SPDX-License-Identifier: Apache-2.0 */
/* What a trained model is good for: the loss on text it has not seen, and text of its own. */
#ifndef TRAIN_BYTES_EVALUATE_H
#define TRAIN_BYTES_EVALUATE_H

#include "corpus.h"
#include "model.h"

/* This rank's part of the loss over all held-out bytes, in nats; the ranks' parts add up to the
 * whole. 0, or -1 after a message on stderr. */
int held_out_loss(struct model *model, float *const *parameters, int context,
                  const struct span_list *held_out, int rank, int size, double *nats);

/* Prints text as the model would begin a file; control characters as dots. Temperature 0 takes the
 * likeliest byte. Plain rather than quick: every byte runs the whole window. */
void write_sample(struct model *model, float *const *parameters, int context, uint64_t seed,
                  double temperature, uint64_t bytes);

#endif
