/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layers of a transformer, each forward and backward, for one sequence at a time. Nothing here
 * knows about parameters' places, training or kolo: arrays in, arrays out.
 *
 * All matrices are row-major float32. For a value x of the forward pass, dx is the derivative of
 * the loss with respect to x. Weights' derivatives are added to what is there already, so that
 * sequences accumulate; other derivatives are overwritten unless a comment says "adds".
 */
#ifndef TRAIN_BYTES_LAYERS_H
#define TRAIN_BYTES_LAYERS_H

#include <stdint.h>

/* y[rows][width]: of table[][width] the rows that the tokens name. Backward adds to dtable. */
void embedding_forward(int rows, int width, const float *table, const uint8_t *tokens, float *y);
void embedding_backward(int rows, int width, const uint8_t *tokens, const float *dy, float *dtable);

/* y[rows][out] = x[rows][in] * w[out][in]^T */
void linear_forward(int rows, int in, int out, const float *x, const float *w, float *y);
/* y += x * w^T: a residual branch that ends in its stream. */
void linear_forward_add(int rows, int in, int out, const float *x, const float *w, float *y);
void linear_backward(int rows, int in, int out, const float *x, const float *w, const float *dy,
                     float *dx, float *dw);

/* y = gain * x / rms(x) per row; inverse_rms[rows] is kept for the way back. (Zhang and Sennrich,
 * "Root Mean Square Layer Normalization", 2019.) */
void rms_norm_forward(int rows, int width, const float *x, const float *gain, float *y,
                      float *inverse_rms);
/* Adds to dx: the residual stream's own derivative is there already. */
void rms_norm_backward(int rows, int width, const float *x, const float *gain,
                       const float *inverse_rms, const float *dy, float *dx, float *dgain);

/* Rotary positions (Su et al., "RoFormer", 2021): in each head, the pair (i, i + head_width/2) of
 * row t turns by the angle t * 10000^(-2i/head_width). Turns the queries and keys of qkv in place;
 * direction -1 turns back, which is also the derivative. cosine and sine: [length][head_width/2].
 */
void rotary_table(int length, int head_width, float *cosine, float *sine);
void rotary_turn(int length, int width, int heads, const float *cosine, const float *sine,
                 int direction, float *qkv);

/* Causal attention over qkv[length][3*width], a row being queries, keys, values, each split into
 * heads. probability[heads][length][length] is kept for the way back. y[length][width]. */
void attention_forward(int length, int width, int heads, const float *qkv, float *probability,
                       float *y);
/* scratch: [heads][length][length], of which a processor uses the first. */
void attention_backward(int length, int width, int heads, const float *qkv,
                        const float *probability, const float *dy, float *scratch, float *dqkv);

/* GELU by tanh: y = x * sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3). */
void gelu_forward(int count, const float *x, float *y);
/* In place: dy becomes dx. */
void gelu_backward(int count, const float *x, float *dy);

/* Cross entropy of softmax(logits[rows][classes]) against target[rows], in nats, per row. */
void cross_entropy_forward(int rows, int classes, const float *logits, const uint8_t *target,
                           float *loss);
/* In place: logits become scale * d(sum of losses)/d(logits). */
void cross_entropy_backward(int rows, int classes, float scale, const uint8_t *target,
                            float *logits);
/* Adds scale times the sum of count losses, in their order. */
void add_losses(int count, const float *loss, double scale, double *sum);

#endif
