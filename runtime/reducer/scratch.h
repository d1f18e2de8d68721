/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that small tensors are packed into, where they are themselves: the host's, or a GPU's. */
#ifndef KOLO_RUNTIME_REDUCER_SCRATCH_H
#define KOLO_RUNTIME_REDUCER_SCRATCH_H

#include "kernels/device.h"
#include "runtime/comm.h"

struct kolo__scratch {
    unsigned char *memory;
    const struct kolo__device_module *gpus; /* a GPU's */
    struct kolo__device *device;            /* NULL: the host's */
};

/* ordinal: of the GPU; -1: the host's memory, of the heap that ranks share. */
kolo_status kolo__scratch_make(kolo_context *context, int ordinal, size_t bytes,
                               struct kolo__scratch *scratch);
/* Zeroed is allowed. Waits for what a GPU copies. */
void kolo__scratch_free(kolo_context *context, struct kolo__scratch *scratch);
/* Queues on the stream where it is a GPU's. */
kolo_status kolo__scratch_copy(const struct kolo__scratch *scratch, void *to, const void *from,
                               size_t bytes, void *stream);

#endif
