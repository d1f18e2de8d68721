/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of tensors: are they sensible, and are they the same on all ranks? */
#ifndef KOLO_RUNTIME_REDUCER_TENSORS_H
#define KOLO_RUNTIME_REDUCER_TENSORS_H

#include "runtime/comm.h"

/* KOLO_ERR_INVALID names the operation, the tensor and the remedy. *ordinal: of the GPU that all of
 * them are on; -1: the host's memory, or none has data. NULL: nobody looks where they are. */
kolo_status kolo__tensors_check(const char *operation, const kolo_tensor *tensors, size_t count,
                                bool floats_only, int *ordinal);

/* A number besides that ranks must agree on: "clip_norm", 1. */
struct kolo__setting {
    const char *name;
    double value;
};

/* Collective: one small allreduce when all ranks have the same count, dtype, name and shape of
 * every tensor, and the same settings (where data lies does not count). Otherwise KOLO_ERR_MISMATCH
 * on every rank, with the same text, that shows the first differences field by field; the
 * communicator stays usable. digest (may be NULL): of all that was compared. */
kolo_status kolo__tensors_compare(kolo_comm *comm, const char *operation,
                                  const kolo_tensor *tensors, size_t count,
                                  const struct kolo__setting *settings, size_t setting_count,
                                  uint64_t *digest);
/* Instead of kolo__tensors_compare, on a rank that has found something wrong by itself, and has
 * said so in kolo_error_text: the others get that status at once, with this rank and this text,
 * instead of waiting for a rank that does not come. Returns `found`, and leaves the text; or, unless
 * that is KOLO_ERR_INVALID, what kept the others from hearing it: in a broken world what this rank
 * misses may be what another has not written, or has removed again. */
kolo_status kolo__tensors_refuse(kolo_comm *comm, const char *operation, kolo_status found);
/* On a communicator that all ranks have made for something of which this one cannot make its part
 * (status, kolo_error_text): the others learn it when they use it. */
void kolo__tensors_give_up(kolo_comm *comm, kolo_status status);

/* ---- what travels when digests differ: records of one size, so that nothing needs a parser ----
 */

enum { KOLO__TENSOR_NAME_BYTES = 64, KOLO__DIFFERENCE_BYTES = 256 };

struct kolo__tensor_record {
    uint64_t count;
    uint64_t shape[KOLO_TENSOR_DIMENSIONS_MAX];
    uint32_t dtype, dimensions;
    char name[KOLO__TENSOR_NAME_BYTES]; /* cut; "": none */
};

uint64_t kolo__tensors_digest(const kolo_tensor *tensors, size_t count,
                              const struct kolo__setting *settings, size_t setting_count);
void kolo__tensor_record(const kolo_tensor *tensor, struct kolo__tensor_record *record);
/* "768x770 fp32", or "590592 elements of fp32" */
void kolo__tensor_describe(const struct kolo__tensor_record *record, char *text, size_t bytes);
/* How `mine`, on rank `rank`, differs from rank 0's: false, and no text, when it does not. Records
 * of others may hold anything. */
bool kolo__tensor_difference(size_t index, const struct kolo__tensor_record *of_rank_0,
                             const struct kolo__tensor_record *mine, uint32_t rank,
                             char text[KOLO__DIFFERENCE_BYTES]);

#endif
