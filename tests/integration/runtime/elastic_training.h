/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Training by kolo_elastic_*, for tests. A step adds up what each sample of a batch gives,
 * whichever rank has it: whole numbers, so that the state after the last step is the same to the
 * bit, however many ranks there were on the way, unless a step was lost or done twice.
 */
#ifndef KOLO_TESTS_ELASTIC_TRAINING_H
#define KOLO_TESTS_ELASTIC_TRAINING_H

#include "elastic.h"

enum { TRAINING_STEPS = 40, TRAINING_SAMPLES = 12, TRAINING_WEIGHTS = 30000 };

extern struct training {
    float weights[TRAINING_WEIGHTS], gradients[TRAINING_WEIGHTS];
    int64_t place; /* in the data */
    kolo_reducer *reducer;
    kolo_elastic *loop;
    int entered; /* worlds */
    int other;   /* 1: this rank has another model, half as large */
} training;

/* Joins the world and makes the loop, of TRAINING_STEPS unless the options say otherwise. */
int training_create(const kolo_elastic_options *options);
kolo_status training_reduce(uint64_t step);
void training_update(void);
/* Both. */
kolo_status training_step(uint64_t step);
/* The state is what all samples of so many steps give. */
int training_state_is_right(int steps);
/* After the loop: it is over, with the state that it should have. Frees all and leaves. */
int training_ends_well(void);
void training_free(void);

#endif
