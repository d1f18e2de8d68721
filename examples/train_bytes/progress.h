/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What rank 0 shows of the training: one line that is written over on a terminal, a plain line
 * every second or every so many steps elsewhere, and a row of CSV for each step. Several ranks of
 * `kolo run` write into pipes, and so have no terminal.
 */
#ifndef TRAIN_BYTES_PROGRESS_H
#define TRAIN_BYTES_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct step_report {
    uint64_t step; /* done, from 1 */
    double loss;   /* nats per byte */
    double tokens; /* of all ranks */
    double seconds;
    double
        communication; /* share of the step's time, mean over ranks; waiting for others included */
};

struct progress {
    FILE *csv; /* owned; NULL: none */
    bool terminal;
    uint64_t every;                                /* steps; 0: every second */
    double tokens, seconds, communication_seconds; /* since the last line */
    uint64_t shown;                                /* the step of the last line */
};

/* csv may be NULL. An existing CSV keeps its rows up to first_step, so that a resumed run goes on
 * with one curve. every: steps between lines, 0: a line each second. 0, or -1 after a message on
 * stderr. */
int progress_open(const char *csv, uint64_t first_step, uint64_t every, struct progress *progress);
void progress_step(struct progress *progress, const struct step_report *report);
/* Shows the last step if that has not been done, and ends the line. 0, or -1 after a message if
 * the CSV could not be written. */
int progress_close(struct progress *progress, const struct step_report *last);

#endif
