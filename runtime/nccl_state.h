/* SPDX-License-Identifier: Apache-2.0 */
/* What runtime/nccl.c, nccl_agree.c and nccl_call.c keep of a communicator's NCCL; nobody else
 * looks in. */
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

#endif
