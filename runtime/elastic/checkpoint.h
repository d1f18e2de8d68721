/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints of a loop's state, in a folder: step-120.kolo, step-140.kolo, ...
 *
 *     file     | head | records | sum of both | tensor 0 | tensor 1 | ...      each begins at a
 * multiple of 64 head     | magic 8 | version 4 | tensors 4 | step 8 | bytes of head, records and
 * sum 8 | record   | dtype 4 | name's bytes 4 | count 8 | CRC-32C of the data 4 | 0 4 | name,
 * filled up to 8 |
 *
 * Numbers are little-endian, data is as it lies in the memory of a little-endian machine. A file
 * appears under its name whole or not at all: it is written under another one, brought to the disk
 * and renamed. Where the disk was not as good as its word, sums tell, and the file before is taken.
 */
#ifndef KOLO_RUNTIME_ELASTIC_CHECKPOINT_H
#define KOLO_RUNTIME_ELASTIC_CHECKPOINT_H

#include <kolo/kolo.h>

#include <stdbool.h>

/* ---- checkpoint_format.c ----------------------------------------------------------------------
 */

enum {
    KOLO__CHECKPOINT_HEAD_BYTES = 32,
    KOLO__CHECKPOINT_WHY_BYTES = 256,
    /* Head, records and sum: more is nonsense. */
    KOLO__CHECKPOINT_LIST_BYTES_MAX = 64 << 20,
};

/* Bytes of head, records and sum, and of the whole file. */
size_t kolo__checkpoint_list_bytes(const kolo_tensor *state, size_t count);
size_t kolo__checkpoint_file_bytes(const kolo_tensor *state, size_t count);
/* Where the data of tensor `index` begins. */
size_t kolo__checkpoint_data_at(const kolo_tensor *state, size_t count, size_t index);
/* Fills the head of a file whose data is there. */
void kolo__checkpoint_seal(unsigned char *file, const kolo_tensor *state, size_t count,
                           uint64_t step);

enum kolo__checkpoint_verdict {
    KOLO__CHECKPOINT_GOOD,
    KOLO__CHECKPOINT_DAMAGED, /* torn, flipped, or no checkpoint at all */
    KOLO__CHECKPOINT_OTHER,   /* whole, but of another state, or version */
    KOLO__CHECKPOINT_LOST,    /* it was good, and could not be read again: the state is spoilt */
};

/* The bytes of head, records and sum that a file claims to have, from its head. False: it is none,
 * and why says so. */
bool kolo__checkpoint_head(const unsigned char head[KOLO__CHECKPOINT_HEAD_BYTES], size_t *bytes,
                           char why[KOLO__CHECKPOINT_WHY_BYTES]);
/* Whether head, records and sum are those of a checkpoint of this state; its step, and the sum of
 * each tensor's data. sums: [count]. */
enum kolo__checkpoint_verdict kolo__checkpoint_read_list(const unsigned char *list, size_t bytes,
                                                         const kolo_tensor *state, size_t count,
                                                         uint64_t *step, uint32_t *sums,
                                                         char why[KOLO__CHECKPOINT_WHY_BYTES]);

/* ---- checkpoint_file.c ------------------------------------------------------------------------
 */

/* Makes the folder if there is none, and finds out whether it can be written. */
kolo_status kolo__checkpoint_prepare(const char *folder);
/* The last good one fills the state; *found: there is one, *step its step. A damaged file is
 * skipped, with a line in the log. KOLO_ERR_CONFIG: the last good one is of another state. */
kolo_status kolo__checkpoint_load(const char *folder, const kolo_tensor *state, size_t count,
                                  bool *found, uint64_t *step);
/* Writes a sealed file, and removes all but the last `keep`. */
kolo_status kolo__checkpoint_save(const char *folder, uint64_t step, const unsigned char *file,
                                  size_t bytes, int keep);

/* ---- checkpoint_writer.c ----------------------------------------------------------------------
 */

/* A thread that writes copies of the state while training goes on. */
struct kolo__checkpoint_writer;

kolo_status kolo__checkpoint_writer_create(const char *folder, int keep, const kolo_tensor *state,
                                           size_t count, struct kolo__checkpoint_writer **writer);
/* Copies the state and returns; false, and nothing is done, when the last one is still being
 * written. */
bool kolo__checkpoint_writer_offer(struct kolo__checkpoint_writer *writer, uint64_t step);
/* Until nothing is being written: what became of the last one. */
kolo_status kolo__checkpoint_writer_wait(struct kolo__checkpoint_writer *writer);
/* Waits. NULL is allowed. */
void kolo__checkpoint_writer_free(struct kolo__checkpoint_writer *writer);

#endif
