/* SPDX-License-Identifier: Apache-2.0 */
/* Buffers in a GPU's memory, for `kolo bench --alloc cuda`: by the CUDA driver, which is opened at
 * run time, so that the program is as it was on machines without one. */
#ifndef KOLO_BENCH_DEVICE_H
#define KOLO_BENCH_DEVICE_H

#include <kolo/kolo.h>
#include <stddef.h>

struct bench_device;

/* The local_rank-th GPU of this machine, with a stream of its own. KOLO_ERR_UNSUPPORTED,
 * KOLO_ERR_DEVICE or KOLO_ERR_MEMORY after a line on stderr, as for all that follow. */
kolo_status bench_device_open(int local_rank, struct bench_device **device);
/* NULL is allowed. What it gave goes with the process. */
void bench_device_close(struct bench_device *device);
void *bench_device_stream(const struct bench_device *device);
kolo_status bench_device_allocate(const struct bench_device *device, size_t bytes, void **memory);
void bench_device_free(const struct bench_device *device, void *memory);
/* Between any two places; waits. */
kolo_status bench_device_copy(const struct bench_device *device, void *to, const void *from,
                              size_t bytes);
/* Until all that is on the stream is done. */
kolo_status bench_device_wait(const struct bench_device *device);

#endif
