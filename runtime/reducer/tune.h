/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The search for the best size of buckets and segments, by the duration of whole training steps. At
 * most KOLO__TUNE_STEPS_MAX of them:
 *
 *   trials        every choice in turn, a few steps at a time, round after round, so that a machine
 *                 that changes meanwhile changes for all of them; medians are compared
 *   verification  the best one and the default take turns once more; the default stays unless the
 *                 other is clearly better in nearly all of them
 *
 * Which choice a step uses follows from the number of steps and the decisions alone. These are made
 * with scores that all ranks have combined, so all ranks go the same way without a word in between.
 * No clock, no allocation.
 *
 * Bits must not depend on time: bucket sizes are only tuned where a sum has the same bits however
 * the elements are cut (runtime/reducer/tuning.c).
 */
#ifndef KOLO_RUNTIME_REDUCER_TUNE_H
#define KOLO_RUNTIME_REDUCER_TUNE_H

#include <kolo/kolo.h>
#include <stdbool.h>

struct kolo__tuning {
    size_t bucket_bytes;
    size_t segment_bytes; /* 0: the communicator's own */
};

enum { KOLO__TUNE_STEPS_MAX = 100, KOLO__TUNE_CHOICES_MAX = 5, KOLO__TUNE_SAMPLES_MAX = 16 };

enum kolo__tune_phase { KOLO__TUNE_TRIALS, KOLO__TUNE_VERIFICATION, KOLO__TUNE_DONE };

struct kolo__tuner {
    struct kolo__tuning choices[KOLO__TUNE_CHOICES_MAX]; /* the first is the default */
    uint32_t count;
    enum kolo__tune_phase phase;
    uint32_t step; /* of this phase */
    uint32_t best; /* of the trials; then what stays */
    double samples[KOLO__TUNE_CHOICES_MAX][KOLO__TUNE_SAMPLES_MAX];
    uint32_t sample_count[KOLO__TUNE_CHOICES_MAX];
};

/* choices[0] is the default. With one choice there is nothing to find out. */
void kolo__tuner_begin(struct kolo__tuner *tuner, const struct kolo__tuning *choices,
                       uint32_t count);
/* What the next step uses. */
const struct kolo__tuning *kolo__tuner_choice(const struct kolo__tuner *tuner);
/* How long the step took that used it. */
void kolo__tuner_record(struct kolo__tuner *tuner, double seconds);
/* True when ranks have to compare: each makes scores[0 .. *count) the largest of all ranks', and
 * calls kolo__tuner_decide with them. */
bool kolo__tuner_wants_decision(const struct kolo__tuner *tuner,
                                double scores[KOLO__TUNE_CHOICES_MAX], uint32_t *count);
void kolo__tuner_decide(struct kolo__tuner *tuner, const double *scores);

/* ---- the file (tune_file.c) ------------------------------------------------------------------ */

enum { KOLO__TUNE_TEXT_BYTES = 1024, KOLO__TUNE_KEY_BYTES = 400, KOLO__TUNE_FILES_MAX = 100 };

size_t kolo__tune_text(const char *key, const struct kolo__tuning *tuning,
                       char text[KOLO__TUNE_TEXT_BYTES]);
/* False: these bytes are no such file, or of another key. */
bool kolo__tune_parse(const char *text, size_t bytes, const char *key, struct kolo__tuning *tuning);
/* A file of this key that was damaged is ignored, with a line in the log. */
bool kolo__tune_load(const char *key, struct kolo__tuning *tuning);
/* False: there is no folder that can be written. Writers at the same time do no harm: one wins. */
bool kolo__tune_save(const char *key, const struct kolo__tuning *tuning);

#endif
