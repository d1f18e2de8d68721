/* SPDX-License-Identifier: Apache-2.0 */
/* See elastic_training.h. */
#include "elastic_training.h"

#include <string.h>

struct training training;

static kolo_status enter(void *self, kolo_comm *world)
{
    const kolo_tensor gradients = {.data = training.gradients,
                                   .count = TRAINING_WEIGHTS,
                                   .dtype = KOLO_FP32,
                                   .name = "gradients"};
    const kolo_reducer_options options = {.size = sizeof options, .sum = 1};
    (void)self;
    training.entered++;
    look();
    return training.reducer != NULL
               ? kolo_reducer_renew(&training.reducer, world)
               : kolo_reducer_create(world, &gradients, 1, &options, &training.reducer);
}

/* What sample `sample` of a step adds to the gradient of weight i. */
static float gives(uint64_t step, int sample, int i)
{
    return (float)((step * 7 + (uint64_t)sample * 3 + (uint64_t)i) % 11);
}

static void add_samples(uint64_t step, int first, int end)
{
    memset(training.gradients, 0, sizeof training.gradients);
    for (int s = first; s < end; s++)
        for (int i = 0; i < TRAINING_WEIGHTS; i++)
            training.gradients[i] += gives(step, s, i);
}

void training_update(void)
{
    for (int i = 0; i < TRAINING_WEIGHTS; i++)
        training.weights[i] += training.gradients[i];
    training.place += TRAINING_SAMPLES;
}

kolo_status training_reduce(uint64_t step)
{
    add_samples(step, TRAINING_SAMPLES * rank / size, TRAINING_SAMPLES * (rank + 1) / size);
    kolo_status status = kolo_reducer_ready(training.reducer, 0);
    return status == KOLO_OK ? kolo_reducer_wait(training.reducer, -1) : status;
}

int training_create(const kolo_elastic_options *options)
{
    const kolo_tensor state[] = {
        {.data = training.weights,
         .count = training.other ? TRAINING_WEIGHTS / 2 : TRAINING_WEIGHTS,
         .dtype = KOLO_FP32,
         .name = "weights"},
        {.data = &training.place, .count = 1, .dtype = KOLO_INT64, .name = "place"},
    };
    kolo_elastic_options given = *options;
    given.size = sizeof given;
    given.enter = enter;
    if (given.steps == 0)
        given.steps = TRAINING_STEPS;
    CHECK(join() == 0);
    CHECK(kolo_elastic_create(context, state, 2, &given, &training.loop) == KOLO_OK);
    return 0;
}

kolo_status training_step(uint64_t step)
{
    kolo_status status = training_reduce(step);
    if (status == KOLO_OK)
        training_update();
    return status;
}

void training_free(void)
{
    kolo_elastic_free(training.loop);
    kolo_reducer_free(training.reducer);
}

int training_state_is_right(int steps)
{
    CHECK(training.place == (int64_t)steps * TRAINING_SAMPLES);
    for (int i = 0; i < TRAINING_WEIGHTS; i += 997) {
        float right = 0;
        for (uint64_t step = 0; step < (uint64_t)steps; step++)
            for (int s = 0; s < TRAINING_SAMPLES; s++)
                right += gives(step, s, i);
        CHECK(training.weights[i] == right);
    }
    return 0;
}

int training_ends_well(void)
{
    CHECK(kolo_elastic_result(training.loop) == KOLO_OK && !kolo_elastic_left(training.loop));
    CHECK(training_state_is_right(TRAINING_STEPS) == 0);
    training_free();
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}
