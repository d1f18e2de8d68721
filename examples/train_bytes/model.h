/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A decoder-only transformer over bytes: 256 tokens, no tokenizer. Pre-norm (RMS), causal
 * multi-head attention with rotary positions, GELU MLP of four times the width, no biases, an
 * output head of its own. It works on one sequence at a time; a batch is a loop around it.
 *
 * Parameters and gradients are flat arrays of the same layout, which is what an allreduce, an
 * optimizer and a checkpoint want. The matrices come first, then the gains (see model.c).
 */
#ifndef TRAIN_BYTES_MODEL_H
#define TRAIN_BYTES_MODEL_H

#include <stddef.h>
#include <stdint.h>

enum { MODEL_TOKENS = 256 };

struct model_config {
    int layers;
    int width; /* a multiple of 2 * heads */
    int heads;
    int context; /* the longest sequence */
};

/* Owns the activations of one sequence between forward and backward. */
struct model;

/* NULL when memory is short. */
struct model *model_create(const struct model_config *config);
void model_destroy(struct model *model);

size_t model_parameter_count(const struct model_config *config);
/* How many of the first parameters are matrices: these take weight decay, gains do not. */
size_t model_matrix_count(const struct model_config *config);
/* The same parameters for the same config and seed. */
void model_initialize(const struct model_config *config, uint64_t seed, float *parameters);

/* Predicts target[t] from input[0..t], for 0 <= t < length <= context. Returns the loss of each
 * position in nats; borrowed until the next call. */
const float *model_forward(struct model *model, const float *parameters, const uint8_t *input,
                           const uint8_t *target, int length);

/* After model_forward, once: adds scale * d(sum of the losses) / d(parameters) to gradients. */
void model_backward(struct model *model, const float *parameters, float scale, float *gradients);

/* After model_forward, before model_backward: the logits of one position, [MODEL_TOKENS]. */
const float *model_logits(const struct model *model, int position);

#endif
