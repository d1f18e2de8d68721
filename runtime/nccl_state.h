/* SPDX-License-Identifier: Apache-2.0 */
/* What runtime/nccl.c and runtime/nccl_call.c keep of a communicator's NCCL; nobody else looks in.
 */
#ifndef KOLO_RUNTIME_NCCL_STATE_H
#define KOLO_RUNTIME_NCCL_STATE_H

#include "kernels/device.h"
#include "runtime/nccl.h"

struct kolo__nccl {
    const struct kolo__nccl_module *module;
    struct kolo__nccl_library library;
    struct kolo__nccl_comm *comm; /* NULL: none, see status */
    int ordinal;
    /* Of the GPU, for scaling; NULL: not opened, nobody has asked for an average. */
    const struct kolo__device_module *gpus;
    struct kolo__device *device;
    kolo_status status; /* of opening; the text goes with it */
    char text[512];
    uint64_t news_ns; /* when others were listened to last */
    bool no_windows;  /* some rank was refused one */
};

#endif
