/* SPDX-License-Identifier: Apache-2.0 */
/* The state whose checkpoints the target here reads. */
#ifndef KOLO_TESTS_FUZZ_ELASTIC_STATE_H
#define KOLO_TESTS_FUZZ_ELASTIC_STATE_H

#include "runtime/elastic/checkpoint.h"

static float weights[5];
static int64_t place;
static const kolo_tensor state[] = {
    {.data = weights, .count = 5, .dtype = KOLO_FP32, .name = "weights"},
    {.data = &place, .count = 1, .dtype = KOLO_INT64},
};
enum { STATE_COUNT = 2, LIST_BYTES = 32 + 24 + 8 + 24 + 8 };

#endif
