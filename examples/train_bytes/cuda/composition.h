/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layers of layers.h out of kernels (kernels.h) and matrix products. Included once by whoever
 * has defined how these are done: device.cu on a GPU, the test of both on a processor.
 *
 *   ELEMENTS(name, count, ...)   runs name_element for so many, with these members of its work
 *   ROWS(name, count, ...)       the three phases of so many rows
 *   products(...)                below
 */
#ifndef TRAIN_BYTES_CUDA_COMPOSITION_H
#define TRAIN_BYTES_CUDA_COMPOSITION_H

/* Row-major c = alpha * op(a) * op(b) + beta * c of [rows][inner] and [inner][columns], `batch` of
 * them, from one to the next so many floats further. */
struct matrix {
    const float *data;
    bool transposed;
    int leading; /* floats from row to row, as it lies */
    int64_t next;
};
static void products(int batch, int rows, int columns, int inner, float alpha, struct matrix a,
                     struct matrix b, float beta, float *c, int leading, int64_t next);

static void product(int rows, int columns, int inner, struct matrix a, struct matrix b, float beta,
                    float *c)
{
    products(1, rows, columns, inner, 1, a, b, beta, c, columns, 0);
}

static struct matrix plain(const float *data, int leading)
{
    struct matrix matrix = {data, false, leading, 0};
    return matrix;
}

static struct matrix transposed(const float *data, int leading)
{
    struct matrix matrix = {data, true, leading, 0};
    return matrix;
}

static struct matrix each(struct matrix matrix, int64_t next)
{
    matrix.next = next;
    return matrix;
}

static void on_device_embedding_forward(int rows, int width, const float *table,
                                        const uint8_t *tokens, float *y)
{
    ELEMENTS(embed, (size_t)rows * (size_t)width, table, tokens, y, width);
}

static void on_device_embedding_backward(int rows, int width, const uint8_t *tokens,
                                         const float *dy, float *dtable)
{
    ELEMENTS(embed_back, (size_t)width, tokens, dy, dtable, rows, width);
}

static void on_device_linear_forward(int rows, int in, int out, const float *x, const float *w,
                                     float *y)
{
    product(rows, out, in, plain(x, in), transposed(w, in), 0, y);
}

static void on_device_linear_forward_add(int rows, int in, int out, const float *x, const float *w,
                                         float *y)
{
    product(rows, out, in, plain(x, in), transposed(w, in), 1, y);
}

static void on_device_linear_backward(int rows, int in, int out, const float *x, const float *w,
                                      const float *dy, float *dx, float *dw)
{
    product(rows, in, out, plain(dy, out), plain(w, in), 0, dx);
    product(out, in, rows, transposed(dy, out), plain(x, in), 1, dw);
}

static void on_device_rms_norm_forward(int rows, int width, const float *x, const float *gain,
                                       float *y, float *inverse_rms)
{
    ROWS(rms, (size_t)rows, x, gain, y, inverse_rms, width);
}

static void on_device_rms_norm_backward(int rows, int width, const float *x, const float *gain,
                                        const float *inverse_rms, const float *dy, float *dx,
                                        float *dgain)
{
    ROWS(rms_back, (size_t)rows, x, gain, inverse_rms, dy, dx, width);
    ELEMENTS(gains_back, (size_t)width, x, dy, inverse_rms, dgain, rows, width);
}

static void on_device_rotary_turn(int length, int width, int heads, const float *cosine,
                                  const float *sine, int direction, float *qkv)
{
    size_t pairs = (size_t)length * 2 * (size_t)heads * (size_t)(width / heads / 2);
    ELEMENTS(rotate, pairs, cosine, sine, qkv, width, heads, direction);
}

static void on_device_attention_forward(int length, int width, int heads, const float *qkv,
                                        float *probability, float *y)
{
    int depth = width / heads, stride = 3 * width;
    int64_t square = (int64_t)length * length;
    const float *q = qkv, *k = q + width, *v = k + width;
    products(heads, length, length, depth, 1.0F / sqrtf((float)depth),
             each(plain(q, stride), depth), each(transposed(k, stride), depth), 0, probability,
             length, square);
    ROWS(softmax, (size_t)heads * (size_t)length, probability, length);
    products(heads, length, depth, length, 1, each(plain(probability, length), square),
             each(plain(v, stride), depth), 0, y, width, depth);
}

static void on_device_attention_backward(int length, int width, int heads, const float *qkv,
                                         const float *probability, const float *dy, float *scratch,
                                         float *dqkv)
{
    int depth = width / heads, stride = 3 * width;
    int64_t square = (int64_t)length * length;
    float scale = 1.0F / sqrtf((float)depth);
    const float *q = qkv, *k = q + width, *v = k + width;
    float *dq = dqkv, *dk = dq + width, *dv = dk + width;
    products(heads, length, depth, length, 1, each(transposed(probability, length), square),
             each(plain(dy, width), depth), 0, dv, stride, depth);
    products(heads, length, length, depth, 1, each(plain(dy, width), depth),
             each(transposed(v, stride), depth), 0, scratch, length, square);
    ROWS(softmax_back, (size_t)heads * (size_t)length, probability, scratch, length);
    products(heads, length, depth, length, scale, each(plain(scratch, length), square),
             each(plain(k, stride), depth), 0, dq, stride, depth);
    products(heads, length, depth, length, scale, each(transposed(scratch, length), square),
             each(plain(q, stride), depth), 0, dk, stride, depth);
}

static void on_device_gelu_forward(int count, const float *x, float *y)
{
    ELEMENTS(gelu, (size_t)count, x, y);
}

static void on_device_gelu_backward(int count, const float *x, float *dy)
{
    ELEMENTS(gelu_back, (size_t)count, x, dy);
}

static void on_device_cross_entropy_forward(int rows, int classes, const float *logits,
                                            const uint8_t *target, float *loss)
{
    ROWS(entropy, (size_t)rows, logits, target, loss, classes);
}

static void on_device_cross_entropy_backward(int rows, int classes, float scale,
                                             const uint8_t *target, float *logits)
{
    ROWS(entropy_back, (size_t)rows, logits, target, scale, classes);
}

static void on_device_add_losses(int count, const float *loss, double scale, double *sum)
{
    ELEMENTS(add_loss, 1, loss, scale, sum, count);
}

static void on_device_adamw_update(const struct adamw_factors *f, size_t count,
                                   const float *gradients, float *parameters, float *mean,
                                   float *variance)
{
    ELEMENTS(adam, count, gradients, parameters, mean, variance, *f);
}

/* Of struct device, in its order. */
#define ON_DEVICE_LAYERS                                                                           \
    on_device_embedding_forward, on_device_embedding_backward, on_device_linear_forward,           \
        on_device_linear_forward_add, on_device_linear_backward, on_device_rms_norm_forward,       \
        on_device_rms_norm_backward, on_device_rotary_turn, on_device_attention_forward,           \
        on_device_attention_backward, on_device_gelu_forward, on_device_gelu_backward,             \
        on_device_cross_entropy_forward, on_device_cross_entropy_backward, on_device_add_losses,   \
        on_device_adamw_update

#endif
