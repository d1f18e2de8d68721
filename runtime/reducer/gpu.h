/* SPDX-License-Identifier: Apache-2.0 */
/* Reducers of gradients in a GPU's memory: what they do instead (gpu.c). reducer->gpu is NULL where
 * gradients are the host's. */
#ifndef KOLO_RUNTIME_REDUCER_GPU_H
#define KOLO_RUNTIME_REDUCER_GPU_H

#include "runtime/reducer/reducer.h"

/* ordinal: of the tensors' GPU; -1: the host's memory. KOLO_ERR_UNSUPPORTED: an option that is not
 * for GPUs. */
kolo_status kolo__gpu_check(const kolo_reducer_options *options, int ordinal);
kolo_status kolo__gpu_open(kolo_reducer *reducer, int ordinal);
/* Before the communicator goes. Waits for what is queued, some seconds at most. */
void kolo__gpu_close(kolo_reducer *reducer);

/* Collective: plans and memory of the units, once there are any; and what is to be done before
 * others are cut. */
kolo_status kolo__gpu_cut(kolo_reducer *reducer);
void kolo__gpu_uncut(kolo_reducer *reducer);
/* Between steps: gradients that get ready from now on are told by bucket, if buckets are known. */
void kolo__gpu_begin_step(kolo_reducer *reducer);

/* All that the caller's stream has by now is needed for the tensor. Any thread. */
kolo_status kolo__gpu_ready(kolo_reducer *reducer, size_t tensor);
/* The driver's, as in unit.c; all of it only queues. */
kolo_status kolo__gpu_start(kolo_reducer *reducer, struct kolo__unit *unit);
kolo_status kolo__gpu_finish(kolo_reducer *reducer, const struct kolo__unit *unit);
kolo_status kolo__gpu_end_step(kolo_reducer *reducer);
/* Statistics of the last step: waits for it. */
kolo_status kolo__gpu_report(const kolo_reducer *reducer, kolo_reducer_report *report);

#endif
