/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layers of layers.h. BLAS does the matrix products; the loops between them are plain C that
 * a compiler turns into vector code, given two hints: "omp simd reduction" allows it to reorder a
 * sum, and exponential() is an exp without a call.
 */
#include "layers.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

/* c = alpha * op(a) * op(b) + beta * c, row-major, with the leading dimensions spelled out because
 * a head's queries are a column block of a wider matrix. */
static void product(CBLAS_TRANSPOSE op_a, CBLAS_TRANSPOSE op_b, int rows, int columns, int inner,
                    float alpha, const float *a, int lda, const float *b, int ldb, float beta,
                    float *c, int ldc)
{
    cblas_sgemm(CblasRowMajor, op_a, op_b, rows, columns, inner, alpha, a, lda, b, ldb, beta, c,
                ldc);
}

void embedding_forward(int rows, int width, const float *table, const uint8_t *tokens, float *y)
{
    for (int row = 0; row < rows; row++)
        memcpy(y + (size_t)row * (size_t)width, table + tokens[row] * (size_t)width,
               (size_t)width * sizeof(float));
}

void embedding_backward(int rows, int width, const uint8_t *tokens, const float *dy, float *dtable)
{
    for (int row = 0; row < rows; row++, dy += width) {
        float *sums = dtable + tokens[row] * (size_t)width;
        for (int i = 0; i < width; i++)
            sums[i] += dy[i];
    }
}

void linear_forward(int rows, int in, int out, const float *x, const float *w, float *y)
{
    product(CblasNoTrans, CblasTrans, rows, out, in, 1, x, in, w, in, 0, y, out);
}

void linear_forward_add(int rows, int in, int out, const float *x, const float *w, float *y)
{
    product(CblasNoTrans, CblasTrans, rows, out, in, 1, x, in, w, in, 1, y, out);
}

void linear_backward(int rows, int in, int out, const float *x, const float *w, const float *dy,
                     float *dx, float *dw)
{
    product(CblasNoTrans, CblasNoTrans, rows, in, out, 1, dy, out, w, in, 0, dx, in);
    product(CblasTrans, CblasNoTrans, out, in, rows, 1, dy, out, x, in, 1, dw, in);
}

void rms_norm_forward(int rows, int width, const float *x, const float *gain, float *y,
                      float *inverse_rms)
{
    for (int row = 0; row < rows; row++, x += width, y += width) {
        float squares = 0;
#pragma omp simd reduction(+ : squares)
        for (int i = 0; i < width; i++)
            squares += x[i] * x[i];
        float inverse = 1.0F / sqrtf(squares / (float)width + 1e-6F);
        inverse_rms[row] = inverse;
        for (int i = 0; i < width; i++)
            y[i] = gain[i] * x[i] * inverse;
    }
}

/* With s = inverse_rms and g_i = gain_i dy_i:  dx_i = s g_i - s^3 x_i sum_j(g_j x_j) / width. */
void rms_norm_backward(int rows, int width, const float *x, const float *gain,
                       const float *inverse_rms, const float *dy, float *dx, float *dgain)
{
    for (int row = 0; row < rows; row++, x += width, dy += width, dx += width) {
        float inverse = inverse_rms[row], projection = 0;
#pragma omp simd reduction(+ : projection)
        for (int i = 0; i < width; i++)
            projection += gain[i] * dy[i] * x[i];
        float along = projection * inverse * inverse * inverse / (float)width;
        for (int i = 0; i < width; i++) {
            dx[i] += gain[i] * dy[i] * inverse - x[i] * along;
            dgain[i] += dy[i] * x[i] * inverse;
        }
    }
}

void rotary_table(int length, int head_width, float *cosine, float *sine)
{
    int half = head_width / 2;
    for (int t = 0; t < length; t++) {
        for (int i = 0; i < half; i++) {
            double angle = t * pow(10000.0, -(double)i / half);
            cosine[t * half + i] = (float)cos(angle);
            sine[t * half + i] = (float)sin(angle);
        }
    }
}

void rotary_turn(int length, int width, int heads, const float *cosine, const float *sine,
                 int direction, float *qkv)
{
    int half = width / heads / 2;
    for (int t = 0; t < length; t++, qkv += 3 * width, cosine += half, sine += half) {
        for (int head = 0; head < 2 * heads; head++) { /* of the queries, then of the keys */
            float *low = qkv + head * 2 * half, *high = low + half;
            for (int i = 0; i < half; i++) {
                float a = low[i], b = high[i], s = (float)direction * sine[i];
                low[i] = a * cosine[i] - b * s;
                high[i] = a * s + b * cosine[i];
            }
        }
    }
}

/* e^x to about 2 units in the last place: e^x = 2^k e^r with |r| <= ln(2)/2. Branch-free, so that
 * loops around it vectorise, which a call of expf would prevent. */
static inline float exponential(float x)
{
    const float to_integer = 12582912.0F; /* 1.5 * 2^23: adding it rounds to a whole number */
    x = x < -87.0F ? -87.0F : x;
    x = x > 88.0F ? 88.0F : x;
    float k = x * 1.44269504F + to_integer - to_integer;
    float r = x - k * 0.693359375F + k * 2.12194440e-4F; /* ln(2) in two parts */
    float p = 1.0F / 720;
    p = p * r + 1.0F / 120;
    p = p * r + 1.0F / 24;
    p = p * r + 1.0F / 6;
    p = p * r + 1.0F / 2;
    p = p * r + 1;
    p = p * r + 1;
    int32_t bits = ((int32_t)k + 127) * (1 << 23);
    float power;
    memcpy(&power, &bits, sizeof(power));
    return p * power;
}

/* In lanes, because compilers keep to the order of a plain maximum: it decides where NaN goes. */
static float largest_of(int count, const float *x)
{
    float lanes[8];
    for (int lane = 0; lane < 8; lane++)
        lanes[lane] = x[0];
    for (int i = 0; i + 8 <= count; i += 8)
        for (int lane = 0; lane < 8; lane++)
            lanes[lane] = x[i + lane] > lanes[lane] ? x[i + lane] : lanes[lane];
    for (int i = count / 8 * 8; i < count; i++)
        lanes[0] = x[i] > lanes[0] ? x[i] : lanes[0];
    for (int lane = 1; lane < 8; lane++)
        lanes[0] = lanes[lane] > lanes[0] ? lanes[lane] : lanes[0];
    return lanes[0];
}

/* In place. */
static void softmax(int count, float *row)
{
    float largest = largest_of(count, row), sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < count; i++) {
        row[i] = exponential(row[i] - largest);
        sum += row[i];
    }
    float inverse = 1.0F / sum;
    for (int i = 0; i < count; i++)
        row[i] *= inverse;
}

void attention_forward(int length, int width, int heads, const float *qkv, float *probability,
                       float *y)
{
    int depth = width / heads, stride = 3 * width;
    float scale = 1.0F / sqrtf((float)depth);
    for (int head = 0; head < heads; head++) {
        const float *q = qkv + head * depth, *k = q + width, *v = k + width;
        float *p = probability + (size_t)head * length * length;
        product(CblasNoTrans, CblasTrans, length, length, depth, scale, q, stride, k, stride, 0, p,
                length);
        for (int t = 0; t < length; t++) { /* row t sees positions 0..t */
            float *row = p + (size_t)t * length;
            softmax(t + 1, row);
            memset(row + t + 1, 0, (size_t)(length - t - 1) * sizeof(*row));
        }
        product(CblasNoTrans, CblasNoTrans, length, depth, length, 1, p, length, v, stride, 0,
                y + head * depth, width);
    }
}

void attention_backward(int length, int width, int heads, const float *qkv,
                        const float *probability, const float *dy, float *scratch, float *dqkv)
{
    int depth = width / heads, stride = 3 * width;
    float scale = 1.0F / sqrtf((float)depth);
    for (int head = 0; head < heads; head++) {
        const float *q = qkv + head * depth, *k = q + width, *v = k + width;
        const float *p = probability + (size_t)head * length * length;
        const float *dy_head = dy + head * depth;
        float *dq = dqkv + head * depth, *dk = dq + width, *dv = dk + width;

        product(CblasTrans, CblasNoTrans, length, depth, length, 1, p, length, dy_head, width, 0,
                dv, stride);
        product(CblasNoTrans, CblasTrans, length, length, depth, 1, dy_head, width, v, stride, 0,
                scratch, length);
        for (int t = 0; t < length; t++) { /* through the softmax: ds = p (dp - sum(p dp)) */
            const float *p_row = p + (size_t)t * length;
            float *row = scratch + (size_t)t * length, inner = 0;
#pragma omp simd reduction(+ : inner)
            for (int i = 0; i <= t; i++)
                inner += p_row[i] * row[i];
            for (int i = 0; i < length; i++) /* p_row is 0 beyond t */
                row[i] = p_row[i] * (row[i] - inner);
        }
        product(CblasNoTrans, CblasNoTrans, length, depth, length, scale, scratch, length, k,
                stride, 0, dq, stride);
        product(CblasTrans, CblasNoTrans, length, depth, length, scale, scratch, length, q, stride,
                0, dk, stride);
    }
}

/* The factor sigmoid(2u) of the GELU. */
static inline float gelu_gate(float x)
{
    return 1.0F / (1.0F + exponential(-1.59576912F * (x + 0.044715F * x * x * x)));
}

void gelu_forward(int count, const float *x, float *y)
{
    for (int i = 0; i < count; i++)
        y[i] = x[i] * gelu_gate(x[i]);
}

void gelu_backward(int count, const float *x, float *dy)
{
    for (int i = 0; i < count; i++) {
        float gate = gelu_gate(x[i]);
        float slope = 1.59576912F * (1.0F + 3 * 0.044715F * x[i] * x[i]);
        dy[i] *= gate + x[i] * gate * (1 - gate) * slope;
    }
}

void cross_entropy_forward(int rows, int classes, const float *logits, const uint8_t *target,
                           float *loss)
{
    for (int row = 0; row < rows; row++, logits += classes) {
        float largest = largest_of(classes, logits), sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int i = 0; i < classes; i++)
            sum += exponential(logits[i] - largest);
        loss[row] = largest + logf(sum) - logits[target[row]];
    }
}

void cross_entropy_backward(int rows, int classes, float scale, const uint8_t *target,
                            float *logits)
{
    for (int row = 0; row < rows; row++, logits += classes) {
        softmax(classes, logits);
        logits[target[row]] -= 1;
        for (int i = 0; i < classes; i++)
            logits[i] *= scale;
    }
}

void add_losses(int count, const float *loss, double scale, double *sum)
{
    for (int t = 0; t < count; t++)
        *sum += loss[t] * scale;
}
