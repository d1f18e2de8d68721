/* SPDX-License-Identifier: Apache-2.0 */
/* AdamW, clipping and the learning rate: see optimizer.h. */
#include "optimizer.h"

#include <math.h>
#include <stdlib.h>

enum { WARM_UP_STEPS = 20 };

static const double BETA_MEAN = 0.9, BETA_VARIANCE = 0.98, WEIGHT_DECAY = 0.05, LARGEST_NORM = 1;

int training_state_create(size_t count, struct training_state *state)
{
    *state = (struct training_state){.count = count};
    state->parameters = calloc(3 * count, sizeof(float));
    if (!state->parameters)
        return -1;
    state->mean = state->parameters + count;
    state->variance = state->mean + count;
    return 0;
}

void training_state_destroy(struct training_state *state)
{
    free(state->parameters);
    *state = (struct training_state){0};
}

float learning_rate(double peak, uint64_t step, double progress)
{
    double warm_up = fmin(1, (double)(step + 1) / WARM_UP_STEPS);
    double cosine = 0.5 * (1 + cos(3.141592653589793 * fmin(1, progress)));
    return (float)(peak * warm_up * (0.1 + 0.9 * cosine));
}

/* Not a BLAS call: its order of adding may differ from one processor to the next, and then ranks on
 * unlike machines would clip by unlike factors and drift apart. Lanes keep it quick. */
static double norm(size_t count, const float *values)
{
    double lanes[8] = {0}, sum = 0;
    for (size_t i = 0; i + 8 <= count; i += 8)
        for (size_t lane = 0; lane < 8; lane++)
            lanes[lane] += (double)values[i + lane] * values[i + lane];
    for (size_t i = count / 8 * 8; i < count; i++)
        sum += (double)values[i] * values[i];
    for (size_t lane = 0; lane < 8; lane++)
        sum += lanes[lane];
    return sqrt(sum);
}

static void update(size_t count, float rate, float decay, double step, const float *gradients,
                   float scale, float *parameters, float *mean, float *variance)
{
    const float beta1 = (float)BETA_MEAN, beta2 = (float)BETA_VARIANCE;
    const float unbias_mean = (float)(1 / (1 - pow(BETA_MEAN, step)));
    const float unbias_variance = (float)(1 / (1 - pow(BETA_VARIANCE, step)));
    for (size_t i = 0; i < count; i++) {
        float g = gradients[i] * scale;
        mean[i] = beta1 * mean[i] + (1 - beta1) * g;
        variance[i] = beta2 * variance[i] + (1 - beta2) * g * g;
        float direction = mean[i] * unbias_mean / (sqrtf(variance[i] * unbias_variance) + 1e-8F);
        parameters[i] -= rate * (direction + decay * parameters[i]);
    }
}

double adamw_step(struct training_state *state, const float *gradients, size_t matrix_count,
                  float rate)
{
    double length = norm(state->count, gradients);
    float scale = length > LARGEST_NORM ? (float)(LARGEST_NORM / length) : 1;
    double step = (double)++state->step;
    update(matrix_count, rate, (float)WEIGHT_DECAY, step, gradients, scale, state->parameters,
           state->mean, state->variance);
    update(state->count - matrix_count, rate, 0, step, gradients + matrix_count, scale,
           state->parameters + matrix_count, state->mean + matrix_count,
           state->variance + matrix_count);
    return length;
}
