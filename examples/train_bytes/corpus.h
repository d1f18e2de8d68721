/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text: every regular file below the given paths, in sorted order, split once and for all into
 * files to train on and files held out (about one in twenty, by a hash of the path).
 *
 * The training files form one long stream, each preceded by a separator byte 0:
 *
 *     0 <file 0> 0 <file 1> 0 <file 2> ...
 *
 * A training sequence is a window of that stream at a place drawn from (seed, step, sequence), so
 * a rank opens and reads only what its own sequences need, and the batch of a step is the same
 * however many ranks share it.
 */
#ifndef TRAIN_BYTES_CORPUS_H
#define TRAIN_BYTES_CORPUS_H

#include <stddef.h>
#include <stdint.h>

/* Part of a file, mostly all of it. */
struct span {
    char *path; /* owned */
    uint64_t offset, bytes;
    uint64_t start; /* of its separator, in the training stream */
};

struct span_list {
    struct span *spans; /* owned */
    size_t count;
    uint64_t bytes; /* of all spans, without separators */
};

struct corpus {
    struct span_list training, held_out;
    size_t unreadable; /* files and directories below the given paths, left out */
    uint64_t
        fingerprint; /* of paths, sizes and split: equal on all ranks, or they see other files */
};

/* At most held_out_bytes of the held-out files are kept for evaluation, in the order of their hash,
 * of each the first part, so that many files have a say. When there are too few files to hold one
 * out, the last tenth of each is held out instead. paths ends with NULL; what it names must be
 * readable files and directories that hold some. 0, or -1 after a message. */
int corpus_open(char *const *paths, uint64_t held_out_bytes, struct corpus *corpus);
void corpus_close(struct corpus *corpus);

/* Bytes of the training stream, separators included. */
uint64_t corpus_stream_bytes(const struct corpus *corpus);

/* Whether a sequence of `context` bytes, and the byte after it, fit into the training stream. 0, or
 * -1 after a message on stderr. */
int corpus_check_length(const struct corpus *corpus, uint64_t context);

/* The bytes of training sequence `sequence` of step `step`. The training stream must be longer than
 * that. 0, or -1 after a message on stderr. */
int corpus_training_window(const struct corpus *corpus, uint64_t seed, uint64_t step,
                           uint64_t sequence, size_t bytes, uint8_t *window);

/* Reads a span that has its separator in front: position 0 is the separator, position i the byte
 * i - 1 of the span. 0, or -1 after a message on stderr. */
int corpus_read(const struct span *span, uint64_t first, size_t bytes, uint8_t *window);

/* Writes the bytes that evaluation predicts, for other compressors to try. 0 or -1. */
int corpus_export_held_out(const struct corpus *corpus, const char *path);

#endif
