/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/reducer/tune.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

/* A block: steps in a row with one choice, the first of which is not counted, since plans are made
 * in it. 4 * 5 * 3 + 6 * 2 * 3 = 96 steps. */
enum {
    TRIAL_ROUNDS = 4,
    TRIAL_BLOCK = 3,
    VERIFY_ROUNDS = 6,
    VERIFY_BLOCK = 3,
};

/* What stays in place of the default is better by so much in all turns of the verification but one:
 * an outlier spoils one turn, and a machine that slows down or speeds up spoils few of them. */
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
        /* There and back: what drifts favours nobody. */
        uint32_t block = tuner->step / TRIAL_BLOCK, nth = block % tuner->count;
        *place = tuner->step % TRIAL_BLOCK;
        return block / tuner->count % 2 == 0 ? nth : tuner->count - 1 - nth;
    }
    /* A B, B A, A B, ... */
    *place = tuner->step % VERIFY_BLOCK;
    return (tuner->step / VERIFY_BLOCK + 1) / 2 % 2 == 0 ? 0 : tuner->best;
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

static double median(const struct kolo__tuner *tuner, uint32_t choice)
{
    double sorted[KOLO__TUNE_SAMPLES_MAX];
    uint32_t count = tuner->sample_count[choice];
    memcpy(sorted, tuner->samples[choice], count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, by_size);
    return (sorted[(count - 1) / 2] + sorted[count / 2]) / 2;
}

/* The shortest step of a choice's block: what disturbs a step makes it longer. */
static double block_seconds(const struct kolo__tuner *tuner, uint32_t choice, uint32_t block)
{
    const double *samples = tuner->samples[choice] + block * (VERIFY_BLOCK - 1);
    double least = samples[0];
    for (uint32_t i = 1; i < VERIFY_BLOCK - 1; i++)
        least = samples[i] < least ? samples[i] : least;
    return least;
}

/* The best one's time over the default's in the worst turn but one. Both of a turn are neighbours,
 * so that the machine is the same for them. */
static double verified_ratio(const struct kolo__tuner *tuner)
{
    double ratios[VERIFY_ROUNDS];
    for (uint32_t i = 0; i < VERIFY_ROUNDS; i++)
        ratios[i] = block_seconds(tuner, tuner->best, i) / block_seconds(tuner, 0, i);
    qsort(ratios, VERIFY_ROUNDS, sizeof *ratios, by_size);
    return ratios[VERIFY_ROUNDS - 2];
}

bool kolo__tuner_wants_decision(const struct kolo__tuner *tuner,
                                double scores[KOLO__TUNE_CHOICES_MAX], uint32_t *count)
{
    if (tuner->phase == KOLO__TUNE_TRIALS &&
        tuner->step == TRIAL_ROUNDS * TRIAL_BLOCK * tuner->count) {
        *count = tuner->count;
        for (uint32_t i = 0; i < tuner->count; i++)
            scores[i] = median(tuner, i);
        return true;
    }
    if (tuner->phase == KOLO__TUNE_VERIFICATION &&
        tuner->step == VERIFY_ROUNDS * VERIFY_BLOCK * 2) {
        *count = 1;
        scores[0] = verified_ratio(tuner);
        return true;
    }
    return false;
}

void kolo__tuner_decide(struct kolo__tuner *tuner, const double *scores)
{
    if (tuner->phase == KOLO__TUNE_VERIFICATION) {
        if (!(scores[0] < CLEARLY))
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
