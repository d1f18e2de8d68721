/* SPDX-License-Identifier: Apache-2.0 */
/* AdamW, clipping and the learning rate: see optimizer.h. */
#include "optimizer.h"

#include <math.h>
#include <stdlib.h>

enum { WARM_UP_STEPS = 20 };

static const double BETA_MEAN = 0.9, BETA_VARIANCE = 0.98, WEIGHT_DECAY = 0.05;

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
    return norm > ADAMW_NORM ? (float)(ADAMW_NORM / norm) : 1;
}

struct adamw_factors adamw_factors(const struct adamw *adamw, bool decays)
{
    return (struct adamw_factors){
        .beta1 = (float)BETA_MEAN,
        .beta2 = (float)BETA_VARIANCE,
        .rate = adamw->rate,
        .scale = adamw->scale,
        .decay = decays ? (float)WEIGHT_DECAY : 0,
        .unbias_mean = (float)(1 / (1 - pow(BETA_MEAN, (double)adamw->step))),
        .unbias_variance = (float)(1 / (1 - pow(BETA_VARIANCE, (double)adamw->step))),
    };
}

void adamw_update(const struct adamw_factors *factors, size_t count, const float *gradients,
                  float *parameters, float *mean, float *variance)
{
    const struct adamw_factors f = *factors;
    for (size_t i = 0; i < count; i++) {
        float g = gradients[i] * f.scale;
        mean[i] = f.beta1 * mean[i] + (1 - f.beta1) * g;
        variance[i] = f.beta2 * variance[i] + (1 - f.beta2) * g * g;
        float direction =
            mean[i] * f.unbias_mean / (sqrtf(variance[i] * f.unbias_variance) + 1e-8F);
        parameters[i] -= f.rate * (direction + f.decay * parameters[i]);
    }
}
