/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes and names of element types and reductions: the one place that knows these words. */
#include "kernels/kernels.h"

#include <string.h>

static const struct {
    const char *name;
    size_t bytes;
} dtypes[KOLO_DTYPE_COUNT] = {
    [KOLO_INT8] = {"int8", 1},     [KOLO_INT16] = {"int16", 2},   [KOLO_INT32] = {"int32", 4},
    [KOLO_INT64] = {"int64", 8},   [KOLO_UINT8] = {"uint8", 1},   [KOLO_UINT16] = {"uint16", 2},
    [KOLO_UINT32] = {"uint32", 4}, [KOLO_UINT64] = {"uint64", 8}, [KOLO_FP16] = {"fp16", 2},
    [KOLO_BF16] = {"bf16", 2},     [KOLO_FP32] = {"fp32", 4},     [KOLO_FP64] = {"fp64", 8},
};

static const char *const ops[KOLO_OP_COUNT] = {
    [KOLO_SUM] = "sum", [KOLO_AVERAGE] = "average", [KOLO_PRODUCT] = "product",
    [KOLO_MIN] = "min", [KOLO_MAX] = "max",         [KOLO_PREMUL_SUM] = "premul_sum",
    [KOLO_AND] = "and", [KOLO_OR] = "or",           [KOLO_XOR] = "xor",
};

/* The enumerations come from users: the cast makes a negative value too large. */
static bool is_dtype(kolo_dtype dtype)
{
    return (unsigned)dtype < KOLO_DTYPE_COUNT;
}

static bool is_op(kolo_op op)
{
    return (unsigned)op < KOLO_OP_COUNT;
}

size_t kolo_dtype_bytes(kolo_dtype dtype)
{
    return is_dtype(dtype) ? dtypes[dtype].bytes : 0;
}

const char *kolo_dtype_name(kolo_dtype dtype)
{
    return is_dtype(dtype) ? dtypes[dtype].name : NULL;
}

const char *kolo_op_name(kolo_op op)
{
    return is_op(op) ? ops[op] : NULL;
}

bool kolo__dtype_parse(const char *text, kolo_dtype *dtype)
{
    for (unsigned i = 0; i < KOLO_DTYPE_COUNT; i++) {
        if (strcmp(text, dtypes[i].name) == 0) {
            *dtype = (kolo_dtype)i;
            return true;
        }
    }
    return false;
}

bool kolo__op_parse(const char *text, kolo_op *op)
{
    for (unsigned i = 0; i < KOLO_OP_COUNT; i++) {
        if (strcmp(text, ops[i]) == 0) {
            *op = (kolo_op)i;
            return true;
        }
    }
    return false;
}

bool kolo__reduction_defined(kolo_dtype dtype, kolo_op op)
{
    if (!is_dtype(dtype) || !is_op(op))
        return false;
    bool is_float = dtype >= KOLO_FP16;
    switch (op) {
    case KOLO_AND:
    case KOLO_OR:
    case KOLO_XOR:
        return !is_float;
    case KOLO_PREMUL_SUM:
        return is_float;
    default:
        return true;
    }
}
