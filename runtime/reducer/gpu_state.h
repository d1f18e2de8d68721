/* SPDX-License-Identifier: Apache-2.0 */
/* What gpu.c, gpu_plan.c, gpu_step.c, gpu_fp8.c and gpu_unused.c keep of a reducer's GPU; nobody
 * else looks in. */
#ifndef KOLO_RUNTIME_REDUCER_GPU_STATE_H
#define KOLO_RUNTIME_REDUCER_GPU_STATE_H

#include "kernels/device.h"
#include "runtime/nccl.h"
#include "runtime/reducer/gpu.h"

/* Of NCCL's where there is NCCL, for its symmetric kernels; elsewhere any. */
struct kolo__gpu_memory {
    struct kolo__nccl_buffer buffer;
    bool of_nccl;
};

/* What the GPU finds out about an 8-bit unit, in its memory. */
struct kolo__gpu_finding {
    struct kolo__device_total largest; /* absolute_max: of all ranks, once they have said theirs */
    struct kolo__device_scale scale;
};

/* Of the reducer's unit with the same index; nothing but for those of gradients, of which each
 * bucket has one. */
struct kolo__gpu_unit {
    struct kolo__packing packing;
    bool in_place; /* views that travel as they are: `fused` is the bucket itself */
    unsigned char *fused;
    size_t packed;       /* elements that are packed; 8-bit: as many slices as ranks */
    size_t slice;        /* 8-bit: elements of one; behind `packed` is as much again, for what is
                            received */
    size_t first, count; /* of fused: what becomes this rank's results */
    struct kolo__device_plan *pack;    /* all of it */
    struct kolo__device_plan *unpack;  /* of those; may be pack */
    struct kolo__device_plan *rescale; /* of `error` in place, where 8-bit; or NULL */
    float *error;                      /* laid out like fused; or NULL: no feedback */
    struct kolo__gpu_finding *finding; /* 8-bit; or NULL */
    struct kolo__device_partial *partials;
};

struct kolo__reducer_gpu {
    const struct kolo__device_module *module;
    struct kolo__device *device;
    int ordinal;
    kolo__device_stream caller, own; /* caller: the user's */
    kolo__device_event ended;
    /* By bucket, recorded again by each of its gradients. The first one is for all while nobody
     * knows buckets, in a first step. */
    kolo__device_event *ready;
    uint32_t ready_count;
    bool by_bucket;
    struct kolo__gpu_memory fused, views, parameters; /* the latter two are the reducer's arena and
                                                         parameters, if there are any */
    struct kolo__gpu_unit *units;
    uint32_t unit_count;
    float *errors;
    struct kolo__gpu_finding *findings;
    struct kolo__device_partial *scratch; /* of one 8-bit unit's largest value */
    /* Of all ranks, sharded: each has its part; else this one's. */
    struct kolo__device_partial *partials;
    size_t partial_count;                          /* of a part */
    struct kolo__device_total *total, *host_total; /* host_total: pinned */
};

/* What goes wrong on one GPU the other ranks would wait for. */
kolo_status kolo__gpu_checked(const kolo_reducer *reducer, kolo_status status);
/* The same from any thread, and where the caller may do nothing more. */
kolo_status kolo__gpu_told(const kolo_reducer *reducer, kolo_status status);

static inline struct kolo__gpu_unit *kolo__gpu_unit(const kolo_reducer *reducer,
                                                    const struct kolo__unit *unit)
{
    return &reducer->gpu->units[unit - reducer->units];
}

/* KOLO_OK: nothing of the reducer runs on the GPU any more. An error: it still does after
 * KOLO_TIMEOUT, or some seconds where the communicator is broken. Its memory must be left then:
 * giving that back would wait without end (cuMemFree), or take it from under kernels (ncclMemFree,
 * which waits for nothing). */
kolo_status kolo__gpu_settle(const kolo_reducer *reducer);
/* For so many buckets. */
kolo_status kolo__gpu_make_events(struct kolo__reducer_gpu *gpu, uint32_t count);

/* ---- gpu_plan.c ----------------------------------------------------------------------------- */

void kolo__gpu_free_memory(kolo_reducer *reducer, struct kolo__gpu_memory *memory);
/* What kolo__gpu_cut made, once the GPU is settled. */
void kolo__gpu_free_units(kolo_reducer *reducer);

/* ---- gpu_step.c ----------------------------------------------------------------------------- */

/* What ready gradients of the bucket are told by. */
kolo__device_event kolo__gpu_ready_event(const struct kolo__reducer_gpu *gpu, uint32_t bucket);
/* Starts the call on the reducer's own stream. */
kolo_status kolo__gpu_call(kolo_reducer *reducer, struct kolo__call call, kolo_request **request);
/* Packs with feedback; factor as in struct kolo__device_run. */
kolo_status kolo__gpu_pack(kolo_reducer *reducer, const struct kolo__unit *unit, double scale,
                           const double *factor);

/* ---- gpu_fp8.c ------------------------------------------------------------------------------ */

kolo_status kolo__gpu_fp8_start(kolo_reducer *reducer, struct kolo__unit *unit);

/* ---- gpu_unused.c --------------------------------------------------------------------------- */

/* Of tensors of the bucket that this rank did not use: data becomes zeros, and what it was is kept
 * until kolo__gpu_restore_unused. */
kolo_status kolo__gpu_shelter_data(kolo_reducer *reducer, uint32_t bucket);
/* The same with what feedback kept of them, around packing. */
kolo_status kolo__gpu_shelter_errors(kolo_reducer *reducer, const struct kolo__unit *unit);
kolo_status kolo__gpu_return_errors(kolo_reducer *reducer, const struct kolo__unit *unit);
/* At the end of a step: what nobody used is as it was. */
kolo_status kolo__gpu_restore_unused(kolo_reducer *reducer);

#endif
