/* SPDX-License-Identifier: Apache-2.0 */
/* What runtime/staging.c and staging_open.c keep of a communicator's slots. */
#ifndef KOLO_RUNTIME_STAGING_STATE_H
#define KOLO_RUNTIME_STAGING_STATE_H

#include "kernels/device.h"
#include "runtime/staging.h"

enum {
    KOLO__STAGING_SLOTS = 2,
    /* Of a chunk, all slices together. Copies of it run at the bus's full speed, and what travels
     * still lies in a cache. */
    KOLO__STAGING_BYTES = 4 << 20,
};

struct kolo__staging_slot {
    unsigned char *given, *result;      /* pinned; result is not used where a chunk is in place */
    kolo__device_event filled, drained; /* recorded on the streams `in` and `out` */
};

struct kolo__staging {
    const struct kolo__device_module *gpus;
    struct kolo__device *device;
    int ordinal;
    kolo__device_stream in, out; /* from the GPU; to the GPU */
    kolo__device_event begun;
    struct kolo__staging_slot slots[KOLO__STAGING_SLOTS];
    kolo_status status; /* of opening, the same on all ranks; the text goes with it */
    char text[400];
    /* The collective under way, of which there is one at a time. */
    size_t chunk;
    bool running; /* the chunk is in the network; else its slot is being filled */
};

/* The chunk's result takes the place of what was given. */
bool kolo__staging_in_place(enum kolo__collective collective);

#endif
