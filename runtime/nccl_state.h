/* SPDX-License-Identifier: Apache-2.0 */
/* What runtime/nccl.c, nccl_agree.c, nccl_parts.c and nccl_call.c keep of a communicator's NCCL;
 * nobody else looks in. */
#ifndef KOLO_RUNTIME_NCCL_STATE_H
#define KOLO_RUNTIME_NCCL_STATE_H

#include "runtime/nccl.h"
#include "runtime/nccl_agree.h"
#include "runtime/watch.h"

struct kolo__nccl {
    const struct kolo__nccl_module *module;
    struct kolo__nccl_library library;
    int ordinal;
    bool no_windows; /* some rank was refused one */
    bool no_scaling; /* on some rank kolo's own kernels do not run */
    /* Of the GPU; NULL: it cannot be used but by NCCL. */
    const struct kolo__device_module *gpus;
    struct kolo__device *device;
    struct kolo__watch watch;     /* its lock is that of comm */
    struct kolo__nccl_comm *comm; /* NULL: none, see status */
    kolo_status status;           /* of opening, or why it ended; the text goes with it */
    char text[512];
};

uint64_t kolo__nccl_limit_ns(const kolo_comm *comm); /* KOLO_TIMEOUT */
/* As struct kolo__watch's `on` says; only while there is something to watch. */
void kolo__nccl_set_watched(struct kolo__nccl *nccl, bool watched);
/* Takes the NCCL communicator for oneself, until it is watched again; an error: it was ended. */
kolo_status kolo__nccl_take(kolo_comm *comm, const char *operation);
/* Collective, after something failed on some rank: who failed has an NCCL communicator with an
 * error, and who did not may wait in his for that rank. All end theirs, and begin another one. all:
 * room for words. */
kolo_status kolo__nccl_open_again(kolo_comm *comm, const char *operation,
                                  struct kolo__nccl_word *all);
/* NCCL's communicator ends now, because of this. With the lock, or nobody is at work. */
void kolo__nccl_end(kolo_comm *comm, const struct kolo__fault *fault);
/* What is watched, for kolo__watch_init. */
extern const struct kolo__watched kolo__nccl_watched;

#endif
