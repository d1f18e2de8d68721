/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/reducer/tune.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

/* A block: steps in a row with one choice, the first of which is not counted, since plans are made
 * in it. 3 * 5 * 4 + 6 * 2 * 3 = 96 steps. */
enum {
    TRIAL_ROUNDS = 3,
    TRIAL_BLOCK = 4,
    VERIFY_ROUNDS = 6,
    VERIFY_BLOCK = 3,
};

/* Better by less is not worth another plan. */
static const double CLEARLY = 0.98;

void kolo__tuner_begin(struct kolo__tuner *tuner, const struct kolo__tuning *choices,
                       uint32_t count)
{
    KOLO__ASSERT(count >= 1 && count <= KOLO__TUNE_CHOICES_MAX);
    *tuner = (struct kolo__tuner){.count = count,
                                  .phase = count > 1 ? KOLO__TUNE_TRIALS : KOLO__TUNE_DONE};
    memcpy(tuner->choices, choices, count * sizeof *choices);
}

/* The choice whose turn it is, and the step's place in its block. */
static uint32_t turn(const struct kolo__tuner *tuner, uint32_t *place)
{
    if (tuner->phase == KOLO__TUNE_TRIALS) {
        *place = tuner->step % TRIAL_BLOCK;
        return tuner->step / TRIAL_BLOCK % tuner->count;
    }
    *place = tuner->step % VERIFY_BLOCK;
    return tuner->step / VERIFY_BLOCK % 2 == 0 ? 0 : tuner->best;
}

const struct kolo__tuning *kolo__tuner_choice(const struct kolo__tuner *tuner)
{
    uint32_t place;
    if (tuner->phase == KOLO__TUNE_DONE)
        return &tuner->choices[tuner->best];
    return &tuner->choices[turn(tuner, &place)];
}

void kolo__tuner_record(struct kolo__tuner *tuner, double seconds)
{
    uint32_t place;
    if (tuner->phase == KOLO__TUNE_DONE)
        return;
    uint32_t choice = turn(tuner, &place);
    if (place > 0 && tuner->sample_count[choice] < KOLO__TUNE_SAMPLES_MAX)
        tuner->samples[choice][tuner->sample_count[choice]++] = seconds;
    tuner->step++;
}

static int by_size(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* The quantile, in quarters, by nearest rank. */
static double quarter(const struct kolo__tuner *tuner, uint32_t choice, uint32_t quarters)
{
    double sorted[KOLO__TUNE_SAMPLES_MAX];
    uint32_t count = tuner->sample_count[choice];
    memcpy(sorted, tuner->samples[choice], count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, by_size);
    return sorted[(count - 1) * quarters / 4];
}

bool kolo__tuner_wants_decision(const struct kolo__tuner *tuner,
                                double scores[KOLO__TUNE_CHOICES_MAX], uint32_t *count)
{
    if (tuner->phase == KOLO__TUNE_TRIALS &&
        tuner->step == TRIAL_ROUNDS * TRIAL_BLOCK * tuner->count) {
        *count = tuner->count;
        for (uint32_t i = 0; i < tuner->count; i++)
            scores[i] = quarter(tuner, i, 2);
        return true;
    }
    if (tuner->phase == KOLO__TUNE_VERIFICATION &&
        tuner->step == VERIFY_ROUNDS * VERIFY_BLOCK * 2) {
        *count = 3;
        scores[0] = quarter(tuner, 0, 2);
        scores[1] = quarter(tuner, tuner->best, 2);
        scores[2] = quarter(tuner, tuner->best, 3);
        return true;
    }
    return false;
}

void kolo__tuner_decide(struct kolo__tuner *tuner, const double *scores)
{
    if (tuner->phase == KOLO__TUNE_VERIFICATION) {
        if (!(scores[1] < CLEARLY * scores[0] && scores[2] < scores[0]))
            tuner->best = 0;
        tuner->phase = KOLO__TUNE_DONE;
        return;
    }
    tuner->best = 0;
    for (uint32_t i = 1; i < tuner->count; i++)
        if (scores[i] < scores[tuner->best])
            tuner->best = i;
    tuner->phase = tuner->best == 0 ? KOLO__TUNE_DONE : KOLO__TUNE_VERIFICATION;
    tuner->step = 0;
    memset(tuner->sample_count, 0, sizeof tuner->sample_count);
}
