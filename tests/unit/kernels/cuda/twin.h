/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host twin of the packing kernels: executes what a GPU would, block by block and thread by
 * thread, from the same text (kernels/cuda/walk.h) over the same tables.
 */
#ifndef KOLO_TESTS_TWIN_H
#define KOLO_TESTS_TWIN_H

#include "kernels/device.h"

void twin_pack(const struct kolo__device_layout *layout, const struct kolo__device_run *run);
void twin_unpack(const struct kolo__device_layout *layout, const struct kolo__device_run *run);
void twin_measure(const struct kolo__packing *packing, const void *fused, size_t count,
                  struct kolo__device_partial *partials);

#endif
