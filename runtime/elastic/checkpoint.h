/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints of a loop's state, in a folder: step-120.kolo, step-140.kolo, ... A state that each
 * rank has whole is in one file. Of one of which ranks have parts, each rank writes its part, and
 * the file of the step's name, the MANIFEST, comes last: it has the sums of all parts, and without
 * it, or with another part than it means, there is no such checkpoint.
 *
 *     whole       | list | tensor 0 | tensor 1 | ...     step-120.kolo
 *     manifest    | list |                               step-120.kolo
 *     part        | list | piece 0 | piece 1 | ...       step-120.part-1-of-4.kolo
 *
 *     list        | head | records | parts | sum of all before 4 | 0 4 |
 *     head        | magic 8 | version 4 | records 4 | step 8 | bytes of the list 8 |
 *     record      | dtype 4 | name's bytes 4 | count 8 | CRC-32C of the data 4 | 0 4 | name, filled
 *                 up to 8 |                               of a tensor; without data no CRC
 *     parts       | sum of its list 4 | 0 4 | bytes of the file 8 |      a manifest's, of each
 *     record      | tensor 4 | dtype 4 | first 8 | count 8 | CRC-32C 4 | 0 4 |   a part's, of a
 *                 piece: elements [first, first + count) of a tensor
 *
 * Data begins at multiples of 64, and lies as in the memory of a little-endian machine, which
 * numbers are too. A file appears under its name whole or not at all: it is written under another
 * one, brought to the disk and renamed. Where the disk was not as good as its word, sums tell, and
 * the checkpoint before is taken.
 */
#ifndef KOLO_RUNTIME_ELASTIC_CHECKPOINT_H
#define KOLO_RUNTIME_ELASTIC_CHECKPOINT_H

#include <kolo/kolo.h>

#include <limits.h>
#include <stdbool.h>

/* ---- checkpoint_format.c ----------------------------------------------------------------------
 */

enum {
    KOLO__CHECKPOINT_HEAD_BYTES = 32,
    KOLO__CHECKPOINT_WHY_BYTES = 256,
    /* Of a list: more is nonsense. */
    KOLO__CHECKPOINT_LIST_BYTES_MAX = 64 << 20,
};

/* What a manifest knows of a part. */
struct kolo__checkpoint_part {
    uint32_t sum;   /* of its list */
    uint64_t bytes; /* of the file */
};

/* Bytes of the list, and of the whole file. */
size_t kolo__checkpoint_list_bytes(const kolo_tensor *state, size_t count);
size_t kolo__checkpoint_file_bytes(const kolo_tensor *state, size_t count);
/* Where the data of tensor `index` begins. */
size_t kolo__checkpoint_data_at(const kolo_tensor *state, size_t count, size_t index);
/* Fills a file, but for its sums. */
void kolo__checkpoint_lay_out(unsigned char *file, const kolo_tensor *state, size_t count,
                              uint64_t step);

/* The same of a part: pieces of tensors of the state. */
size_t kolo__part_file_bytes(const kolo_tensor *state, const kolo_elastic_piece *pieces,
                             size_t count);
void kolo__part_lay_out(unsigned char *file, const kolo_tensor *state,
                        const kolo_elastic_piece *pieces, size_t count, uint64_t step);

size_t kolo__manifest_bytes(const kolo_tensor *state, size_t count, uint32_t parts);
void kolo__manifest_lay_out(unsigned char *file, const kolo_tensor *state, size_t count,
                            uint64_t step, const struct kolo__checkpoint_part *parts,
                            uint32_t part_count);

/* Fills in the sums of any of the three; returns that of its list. */
uint32_t kolo__checkpoint_seal(unsigned char *file);

/* ---- checkpoint_list.c: lists, as a disk gives them back --------------------------------------
 */

enum kolo__checkpoint_verdict {
    KOLO__CHECKPOINT_GOOD,
    KOLO__CHECKPOINT_DAMAGED, /* torn, flipped, or no checkpoint at all */
    KOLO__CHECKPOINT_OTHER,   /* whole, but of another state, or version */
    KOLO__CHECKPOINT_LOST,    /* it was good, and could not be read again: the state is spoilt */
};

/* Elements of a tensor that lie in a file. */
struct kolo__checkpoint_piece {
    uint64_t tensor, first, count;
    uint64_t at; /* in the file */
    uint32_t sum;
};

/* The bytes of the list that a file claims to have, from its head. False: it is none, and why says
 * so. */
bool kolo__checkpoint_head(const unsigned char head[KOLO__CHECKPOINT_HEAD_BYTES], size_t *bytes,
                           char why[KOLO__CHECKPOINT_WHY_BYTES]);
/* Whether a list is that of a checkpoint of this state; its step. pieces: [count], one of each
 * tensor, if *parts is 0; otherwise nothing, and the file is a manifest of so many. */
enum kolo__checkpoint_verdict kolo__checkpoint_read_list(const unsigned char *list, size_t bytes,
                                                         const kolo_tensor *state, size_t count,
                                                         uint64_t *step, uint32_t *parts,
                                                         struct kolo__checkpoint_piece *pieces,
                                                         char why[KOLO__CHECKPOINT_WHY_BYTES]);
/* Of a manifest's list that was read so. */
struct kolo__checkpoint_part kolo__checkpoint_part_at(const unsigned char *list, size_t bytes,
                                                      uint32_t parts, uint32_t index);
/* Whether a list is that of a part of a checkpoint of this state. pieces: those of the file, whose
 * number is in the head. *file_bytes: how long the file is. */
enum kolo__checkpoint_verdict kolo__part_read_list(const unsigned char *list, size_t bytes,
                                                   const kolo_tensor *state, size_t count,
                                                   struct kolo__checkpoint_piece *pieces,
                                                   uint64_t *file_bytes,
                                                   char why[KOLO__CHECKPOINT_WHY_BYTES]);
/* What stands in a list, read or not. */
uint32_t kolo__checkpoint_records(const unsigned char head[KOLO__CHECKPOINT_HEAD_BYTES]);
uint32_t kolo__checkpoint_list_sum(const unsigned char *list, size_t bytes);

/* ---- checkpoint_folder.c ----------------------------------------------------------------------
 */

/* Makes the folder if there is none, and finds out whether it can be written. */
kolo_status kolo__checkpoint_prepare(const char *folder);
/* The path of a step's checkpoint; parts > 0: of one of its parts. */
kolo_status kolo__checkpoint_path(const char *folder, uint64_t step, uint32_t part, uint32_t parts,
                                  char path[PATH_MAX]);
/* The steps that the folder has checkpoints of, good or not, the last one first; to be freed. */
kolo_status kolo__checkpoint_steps(const char *folder, uint64_t **steps, size_t *count);
/* Writes a sealed file, durably. */
kolo_status kolo__checkpoint_save(const char *folder, const char *path, const unsigned char *file,
                                  size_t bytes);
/* Removes what is older than the last `keep` checkpoints up to that of `step`, of which those of
 * doubtful steps are none: a damaged one takes no good one's place. */
void kolo__checkpoint_remove_old(const char *folder, uint64_t step, int keep,
                                 const uint64_t *doubtful, size_t doubtful_count);

/* ---- checkpoint_read.c ------------------------------------------------------------------------
 */

/* An open checkpoint: its file, or a manifest's parts. */
struct kolo__checkpoint;

/* *checkpoint is to be closed if it is GOOD, which says nothing yet of its data. LOST does not come
 * from here. */
enum kolo__checkpoint_verdict kolo__checkpoint_open(const char *folder, uint64_t step,
                                                    const kolo_tensor *state, size_t count,
                                                    struct kolo__checkpoint **checkpoint,
                                                    char why[KOLO__CHECKPOINT_WHY_BYTES]);
/* Whether data is good: of files `first`, first + stride, ... so that ranks share the work. */
enum kolo__checkpoint_verdict kolo__checkpoint_verify(struct kolo__checkpoint *checkpoint,
                                                      uint32_t first, uint32_t stride,
                                                      char why[KOLO__CHECKPOINT_WHY_BYTES]);
/* Elements [first, first + count) of a tensor. False: they cannot be read, or are not there. */
bool kolo__checkpoint_fill(const struct kolo__checkpoint *checkpoint, size_t tensor, size_t first,
                           size_t count, void *data);
/* NULL is allowed. */
void kolo__checkpoint_close(struct kolo__checkpoint *checkpoint);

/* The last good one fills the state; *found: there is one, *step its step. A damaged one is
 * skipped, with a line in the log. KOLO_ERR_CONFIG: the last good one is of another state. */
kolo_status kolo__checkpoint_load(const char *folder, const kolo_tensor *state, size_t count,
                                  bool *found, uint64_t *step);
/* What a checkpoint that is not good means: KOLO_OK, and a line in the log: the one before is to be
 * tried. */
kolo_status kolo__checkpoint_judge(const char *folder, uint64_t step,
                                   enum kolo__checkpoint_verdict verdict, const char *why);

/* ---- checkpoint_writer.c ----------------------------------------------------------------------
 */

/* A thread that seals files and writes them while training goes on. */
struct kolo__checkpoint_writer;

/* keep: good checkpoints that are not removed. since: the step of the one that was taken up, or
 * written last, or 0; what the folder has of later steps is not known to be good. */
kolo_status kolo__checkpoint_writer_create(const char *folder, int keep, uint64_t since,
                                           struct kolo__checkpoint_writer **writer);
bool kolo__checkpoint_writer_is_busy(struct kolo__checkpoint_writer *writer);
/* Unless it is busy: memory for a file, to be filled and then offered. NULL, with an error: there
 * is none. */
unsigned char *kolo__checkpoint_writer_file(struct kolo__checkpoint_writer *writer, size_t bytes);
/* Begins to write the file that lies there; parts as for kolo__checkpoint_path. */
void kolo__checkpoint_writer_offer(struct kolo__checkpoint_writer *writer, uint64_t step,
                                   uint32_t part, uint32_t parts);
/* Until nothing is being written: what became of the last one; what it is to a manifest (may be
 * NULL). */
kolo_status kolo__checkpoint_writer_wait(struct kolo__checkpoint_writer *writer,
                                         struct kolo__checkpoint_part *written);
/* Waits. NULL is allowed. */
void kolo__checkpoint_writer_free(struct kolo__checkpoint_writer *writer);

#endif
