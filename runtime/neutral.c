/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/neutral.h"

#include <string.h>

enum element { ONE, LARGEST, SMALLEST };

/* As bits, in the low end. */
static const struct {
    uint64_t bits[3]; /* by enum element */
} elements[KOLO_DTYPE_COUNT] = {
    [KOLO_INT8] = {{1, 0x7f, 0x80}},
    [KOLO_INT16] = {{1, 0x7fff, 0x8000}},
    [KOLO_INT32] = {{1, 0x7fffffff, 0x80000000}},
    [KOLO_INT64] = {{1, 0x7fffffffffffffff, 0x8000000000000000}},
    [KOLO_UINT8] = {{1, UINT8_MAX, 0}},
    [KOLO_UINT16] = {{1, UINT16_MAX, 0}},
    [KOLO_UINT32] = {{1, UINT32_MAX, 0}},
    [KOLO_UINT64] = {{1, UINT64_MAX, 0}},
    /* 1, infinity, -infinity */
    [KOLO_FP16] = {{0x3c00, 0x7c00, 0xfc00}},
    [KOLO_BF16] = {{0x3f80, 0x7f80, 0xff80}},
    [KOLO_FP32] = {{0x3f800000, 0x7f800000, 0xff800000}},
    [KOLO_FP64] = {{0x3ff0000000000000, 0x7ff0000000000000, 0xfff0000000000000}},
};

static void fill(void *data, size_t count, size_t element_bytes, uint64_t bits)
{
    switch (element_bytes) {
    case 1:
        memset(data, (int)bits, count);
        break;
    case 2:
        for (size_t i = 0; i < count; i++)
            ((uint16_t *)data)[i] = (uint16_t)bits;
        break;
    case 4:
        for (size_t i = 0; i < count; i++)
            ((uint32_t *)data)[i] = (uint32_t)bits;
        break;
    default:
        for (size_t i = 0; i < count; i++)
            ((uint64_t *)data)[i] = bits;
        break;
    }
}

void kolo__fill_neutral(void *data, size_t count, kolo_dtype dtype, kolo_op op)
{
    size_t bytes = kolo_dtype_bytes(dtype);
    if (count == 0)
        return;
    switch (op) {
    case KOLO_PRODUCT:
        fill(data, count, bytes, elements[dtype].bits[ONE]);
        break;
    case KOLO_MIN:
        fill(data, count, bytes, elements[dtype].bits[LARGEST]);
        break;
    case KOLO_MAX:
        fill(data, count, bytes, elements[dtype].bits[SMALLEST]);
        break;
    case KOLO_AND:
        memset(data, 0xff, count * bytes);
        break;
    default:
        memset(data, 0, count * bytes);
        break;
    }
}
