/* SPDX-License-Identifier: Apache-2.0 */
/* What runtime/nccl.c, nccl_agree.c, nccl_call.c and nccl_watch.c keep of a communicator's NCCL;
 * nobody else looks in. */
#ifndef KOLO_RUNTIME_NCCL_STATE_H
#define KOLO_RUNTIME_NCCL_STATE_H

#include "kernels/device.h"
#include "runtime/nccl.h"
#include "runtime/nccl_agree.h"

#include <pthread.h>

struct kolo__nccl_watch;

struct kolo__nccl {
    const struct kolo__nccl_module *module;
    struct kolo__nccl_library library;
    int ordinal;
    bool no_windows; /* some rank was refused one */
    bool no_scaling; /* on some rank kolo's own kernels do not run */
    /* Of the GPU; NULL: it cannot be used but by NCCL. */
    const struct kolo__device_module *gpus;
    struct kolo__device *device;
    struct kolo__nccl_watch *watch; /* NULL: none */
    /* The watch may end NCCL whenever somebody else has not taken this and `watched` is set. So
     * callers hold it while they use comm, or take `watched` away for so long. */
    pthread_mutex_t lock;
    bool watched;
    struct kolo__nccl_comm *comm; /* NULL: none, see status */
    kolo_status status;           /* of opening, or why it ended; the text goes with it */
    char text[512];
};

/* ---- the end, and who watches (nccl_watch.c) ------------------------------------------------- */

/* NCCL's communicator ends now, because of this. With the lock. */
void kolo__nccl_end(kolo_comm *comm, const struct kolo__fault *fault);

/* Before the first call; nothing is looked at before `watched` is set. */
kolo_status kolo__nccl_watch_start(kolo_comm *comm, const char *operation);
/* Waits for it, at most as long as ending NCCL takes. NULL is allowed. */
void kolo__nccl_watch_stop(struct kolo__nccl *nccl);
/* The request's work is on its stream. With the lock. */
void kolo__nccl_watch_note(const kolo_request *request);
/* What was noted belongs to a communicator that is no more. */
void kolo__nccl_watch_forget(struct kolo__nccl *nccl);

#endif
