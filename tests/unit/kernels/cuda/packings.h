/* SPDX-License-Identifier: Apache-2.0 */
/* What the packing kernels can do: tried on the host's twin and on a GPU (tests/gpu). */
#ifndef KOLO_TESTS_PACKINGS_H
#define KOLO_TESTS_PACKINGS_H

#include "kernels/pack.h"

static const struct kolo__packing packings[] = {
    {KOLO_FP16, false, 0, 1},
    {KOLO_BF16, false, 0, 1},
    {KOLO_FP32, false, 0, 1},
    {KOLO_FP64, false, 0, 1},
    {KOLO_FP32, true, KOLO__NARROW_FP16, 1},
    {KOLO_FP32, true, KOLO__NARROW_BF16, 1},
    {KOLO_FP32, true, KOLO__NARROW_E4M3, 1},
    {KOLO_FP32, true, KOLO__NARROW_E5M2, 1},
};
enum { PACKINGS = sizeof packings / sizeof *packings, POISON = 0xa5 };

#endif
