/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A decoder-only transformer over bytes: 256 tokens, no tokenizer. Pre-norm (RMS), causal
 * multi-head attention with rotary positions, GELU MLP of four times the width, no biases, an
 * output head of its own. It works on one sequence at a time; a batch is a loop around it.
 *
 * Its parameters are a list of tensors, numbered in the order in which forward comes to them, so
 * that backward ends with their gradients in reverse. Where they are in memory is the caller's
 * choice: parameters and gradients are one pointer for each tensor, into memory of the device that
 * computes (device.h), as are input, target and losses.
 */
#ifndef TRAIN_BYTES_MODEL_H
#define TRAIN_BYTES_MODEL_H

#include "device.h"

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

/* NULL when memory is short. The device is borrowed. */
struct model *model_create(const struct model_config *config, const struct device *device);
void model_destroy(struct model *model);

enum { MODEL_NAME_BYTES = 48 };

struct model_tensor {
    char name[MODEL_NAME_BYTES];
    int dimensions; /* 2: a matrix, [shape[0]][shape[1]]; 1: a gain */
    size_t shape[2];
    size_t count;
    size_t first; /* where it begins when all of them lie one after the other */
};

size_t model_tensor_count(const struct model_config *config);
struct model_tensor model_tensor_at(const struct model_config *config, size_t index);
/* Of all tensors together. */
size_t model_parameter_count(const struct model_config *config);
/* All tensors, one after the other, in the host's memory; the same for the same config and seed. */
void model_initialize(const struct model_config *config, uint64_t seed, float *parameters);

/* Predicts target[t] from input[0..t], for 0 <= t < length <= context. Returns the loss of each
 * position in nats; borrowed until the next call. */
const float *model_forward(struct model *model, float *const *parameters, const uint8_t *input,
                           const uint8_t *target, int length);

/* Called for each tensor, from the last to the first. */
typedef void model_final(void *self, size_t tensor);

/* After model_forward, once: adds scale * d(sum of the losses) / d(parameters) to gradients. Where
 * nothing will be added to a tensor's gradient any more, calls final; NULL: nobody wants to know.
 */
void model_backward(struct model *model, float *const *parameters, float scale,
                    float *const *gradients, model_final *final, void *self);

/* The losses of predicting window[t + 1] from window[0..t], 0 <= t < length, and afterwards the
 * logits of one position, [MODEL_TOKENS]: all in the host's memory. Waits; borrowed until the next
 * call. */
const float *model_losses(struct model *model, float *const *parameters, const uint8_t *window,
                          int length);
const float *model_logits(const struct model *model, int position);

#endif
