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

float adamw_clipping(double norm)
{
    return norm > LARGEST_NORM ? (float)(LARGEST_NORM / norm) : 1;
}

void adamw_update(const struct adamw *adamw, bool decays, size_t count, const float *gradients,
                  float *parameters, float *mean, float *variance)
{
    const float beta1 = (float)BETA_MEAN, beta2 = (float)BETA_VARIANCE;
    const float rate = adamw->rate, scale = adamw->scale, decay = decays ? (float)WEIGHT_DECAY : 0;
    const float unbias_mean = (float)(1 / (1 - pow(BETA_MEAN, (double)adamw->step)));
    const float unbias_variance = (float)(1 / (1 - pow(BETA_VARIANCE, (double)adamw->step)));
    for (size_t i = 0; i < count; i++) {
        float g = gradients[i] * scale;
        mean[i] = beta1 * mean[i] + (1 - beta1) * g;
        variance[i] = beta2 * variance[i] + (1 - beta2) * g * g;
        float direction = mean[i] * unbias_mean / (sqrtf(variance[i] * unbias_variance) + 1e-8F);
        parameters[i] -= rate * (direction + decay * parameters[i]);
    }
}
