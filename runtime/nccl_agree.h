/* SPDX-License-Identifier: Apache-2.0 */
/* How ranks agree on what each has or has begun for buffers in GPUs' memory: by the host's. */
#ifndef KOLO_RUNTIME_NCCL_AGREE_H
#define KOLO_RUNTIME_NCCL_AGREE_H

#include "runtime/nccl.h"

/* What each rank tells all others, by host memory. */
struct kolo__nccl_word {
    int32_t status; /* kolo_status; KOLO_AGAIN: not yet */
    int32_t version;
    int32_t has_windows, scales;
    uint64_t bytes;
    unsigned char id[KOLO__NCCL_ID_BYTES];
    char why[KOLO__NCCL_WHY_BYTES];
};

/* Fills all with the words of the ranks. */
kolo_status kolo__nccl_tell(kolo_comm *comm, const char *operation,
                            const struct kolo__nccl_word *mine, struct kolo__nccl_word *all);
/* The first rank whose word is an error; -1: none. *pending: somebody is not ready yet. */
int kolo__nccl_find_failed(const kolo_comm *comm, const struct kolo__nccl_word *all, bool *pending);
/* Rounds until what each rank has begun, of which its NCCL communicator `begun` tells, is done on
 * all, or has failed on one: *failed is then its number, else -1. mine->status is how beginning
 * went. The result is how agreeing went. */
kolo_status kolo__nccl_settle(kolo_comm *comm, const char *operation,
                              const struct kolo__nccl_module *module, struct kolo__nccl_comm *begun,
                              uint64_t limit_ns, const char *doing, struct kolo__nccl_word *mine,
                              struct kolo__nccl_word *all, int *failed);
/* Until what this rank has begun is done; KOLO_AGAIN: not within the limit. */
kolo_status kolo__nccl_await(struct kolo__nccl *nccl, unsigned limit_ms, char *why);

#endif
