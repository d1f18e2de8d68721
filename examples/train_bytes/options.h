/* SPDX-License-Identifier: Apache-2.0 */
/* What a user may choose on the command line of train_bytes. */
#ifndef TRAIN_BYTES_OPTIONS_H
#define TRAIN_BYTES_OPTIONS_H

#include <kolo/kolo.h>

#include "model.h"

#include <stdbool.h>
#include <stdint.h>

struct options {
    char **paths; /* ends with NULL */
    struct model_config model;
    uint64_t batch;      /* sequences a step, over all ranks */
    uint64_t steps;      /* 0: no limit */
    double seconds;      /* 0: no limit */
    uint64_t accumulate; /* parts of a step's batch on each rank */
    kolo_wire wire;
    bool shard_optimizer;
    double learning_rate;
    uint64_t seed;
    uint64_t held_out_bytes;
    const char *device;     /* "cpu" or "cuda" */
    int threads;            /* 0: chosen by train_bytes */
    uint64_t log_every;     /* 0: by time */
    const char *csv;        /* NULL: none */
    const char *checkpoint; /* NULL: none */
    uint64_t checkpoint_every;
    bool resume;
    uint64_t sample_bytes;
    double temperature;
    const char *export_held_out; /* NULL: train */
};

/* Ends the program with 64 (EX_USAGE) and a message when the command line is wrong. */
void options_parse(int argc, char **argv, struct options *options);

#endif
