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

void twin_total(const struct kolo__device_partial *partials, size_t count, double clip_norm,
                struct kolo__device_total *total);

void twin_reduce(const struct kolo__reduction *reduction, void *to, const void *const *sources,
                 uint32_t source_count, size_t count);
void twin_sum_narrow(enum kolo__narrow_float wire, void *to, const void *const *sources,
                     uint32_t source_count, uint32_t divisor, size_t count);

/* The kernels alone, by the launch's parameter: kind is enum walk_kind, form as in
 * kolo__form_index, format enum format. */
void twin_run_walk(int kind, int form, const void *walk, uint32_t blocks);
void twin_run_combination(int format, const void *combination, uint32_t blocks);
void twin_choose_scale(const void *scaling);
void twin_run_integers(int dtype, const void *combination, uint32_t blocks);

#endif
