/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reducers of gradients in a GPU's memory: the same buckets and units, but all that happens to
 * elements is queued, and the host asks for nothing. reducer->gpu is NULL where gradients are the
 * host's.
 *
 *     caller's stream   backward... | ready: event of its bucket | ...            | what comes
 *                                              |                                 after ended
 *     own stream                        pack -> allreduce -> unpack (or measure) | ended
 *
 *     to be clipped     ... measure, for each unit; at the end of the step: total -> unpack all,
 *                       by the clip factor, which stays in the GPU's memory
 *
 * So kolo_reducer_wait ends when a step is queued, and the caller's stream waits for it. Fused
 * buffers of all units are kept, one behind the other. Views that travel as they are need none:
 * they are scaled where they lie.
 *
 *   gpu.c         beginning and end
 *   gpu_plan.c    memory and plans
 *   gpu_step.c    a step
 *   gpu_fp8.c     units that travel as 8-bit floats
 *   gpu_unused.c  tensors that a rank did not use
 */
#ifndef KOLO_RUNTIME_REDUCER_GPU_H
#define KOLO_RUNTIME_REDUCER_GPU_H

#include "runtime/reducer/reducer.h"

/* ordinal: of the tensors' GPU; -1: the host's memory, or views, whose GPU is that of
 * options.stream, if there is one: it is filled in. */
kolo_status kolo__gpu_check(kolo_reducer *reducer, uint32_t ranks, int *ordinal);
kolo_status kolo__gpu_open(kolo_reducer *reducer, int ordinal);
/* Before the communicator goes. Waits for what is queued, KOLO_TIMEOUT at most, and leaves what the
 * GPU is not done with. */
void kolo__gpu_close(kolo_reducer *reducer);
/* Collective: the reducer's arena, and where it is sharded its parameters; zeroed. */
kolo_status kolo__gpu_make_views(kolo_reducer *reducer);

/* Collective: plans and memory of the units, once there are any; and what is to be done before
 * others are cut. */
kolo_status kolo__gpu_cut(kolo_reducer *reducer);
kolo_status kolo__gpu_uncut(kolo_reducer *reducer);
/* Between steps: gradients that get ready from now on are told by bucket, if buckets are known. */
void kolo__gpu_begin_step(kolo_reducer *reducer);

/* KOLO_ERR_UNSUPPORTED, and nothing has happened: the caller's stream is being captured. */
kolo_status kolo__gpu_check_capture(const kolo_reducer *reducer, const char *function);
/* All that the caller's stream has by now is needed for the tensor. Any thread. */
kolo_status kolo__gpu_ready(kolo_reducer *reducer, size_t tensor);
/* It is not, and the tensor is zeros in this step. May make room for what it is now. */
kolo_status kolo__gpu_take_for_unused(kolo_reducer *reducer, size_t tensor);
/* The driver's, as in unit.c; all of it only queues. */
kolo_status kolo__gpu_start(kolo_reducer *reducer, struct kolo__unit *unit);
kolo_status kolo__gpu_fp8_next(kolo_reducer *reducer, struct kolo__unit *unit);
kolo_status kolo__gpu_finish(kolo_reducer *reducer, const struct kolo__unit *unit);
/* Sharded: each rank tells the others what it measured. */
kolo_status kolo__gpu_start_norm(kolo_reducer *reducer, struct kolo__unit *unit);
kolo_status kolo__gpu_end_step(kolo_reducer *reducer);
/* Statistics of the last step: waits for it. */
kolo_status kolo__gpu_report(const kolo_reducer *reducer, kolo_reducer_report *report);
/* The stream that the user computes on. */
void *kolo__gpu_stream(const kolo_reducer *reducer);

#endif
