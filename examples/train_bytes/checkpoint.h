/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints: everything a run needs to go on as if it had never stopped.
 *
 *   magic | version | what the run was started with | step | seconds | count |
 *   parameters[count] | mean[count] | variance[count] | checksum of all before
 *
 * A checkpoint appears under its name complete or not at all: it is written beside it, brought to
 * the disk and renamed. A file that is torn, foreign or of another run is refused and left as it
 * is.
 */
#ifndef TRAIN_BYTES_CHECKPOINT_H
#define TRAIN_BYTES_CHECKPOINT_H

#include "model.h"
#include "optimizer.h"

/* What must be the same for a resumed run to follow the same curve. No padding: it is hashed and
 * written as it lies in memory. */
struct run_identity {
    uint64_t layers, width, heads, context;
    uint64_t batch, seed;
    double learning_rate;
    uint64_t corpus; /* its fingerprint */
};

enum checkpoint_result { CHECKPOINT_OK, CHECKPOINT_ABSENT, CHECKPOINT_REFUSED };

/* Whether a checkpoint could be written there, before hours are spent on one. Changes nothing. 0,
 * or -1 after a message on stderr. */
int checkpoint_probe(const char *path);

/* 0, or -1 after a message on stderr. */
int checkpoint_save(const char *path, const struct run_identity *identity,
                    const struct training_state *state);

/* Fills state, which has been created with the right count. Refused: after a message on stderr that
 * says what is wrong with the file and what to do; state may be half-filled then. */
enum checkpoint_result checkpoint_load(const char *path, const struct run_identity *identity,
                                       struct training_state *state);

/* FNV-1a, 64 bits; start with CHECKSUM_START and feed it in parts. */
#define CHECKSUM_START 0xCBF29CE484222325U
uint64_t checksum(uint64_t hash, const void *data, size_t bytes);

#endif
