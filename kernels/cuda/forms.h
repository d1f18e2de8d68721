/* SPDX-License-Identifier: Apache-2.0 */
/* The pairs of formats that tensors have and travel in: X(name, tensor, wire), a kernel of each
 * kind for each. In the order of kolo__form_index. */
#ifndef KOLO_KERNELS_CUDA_FORMS_H
#define KOLO_KERNELS_CUDA_FORMS_H

#define KOLO__FORMS(X)                                                                             \
    X(fp16, FORMAT_FP16, FORMAT_FP16)                                                              \
    X(bf16, FORMAT_BF16, FORMAT_BF16)                                                              \
    X(fp32, FORMAT_FP32, FORMAT_FP32)                                                              \
    X(fp64, FORMAT_FP64, FORMAT_FP64)                                                              \
    X(fp32_fp16, FORMAT_FP32, FORMAT_FP16)                                                         \
    X(fp32_bf16, FORMAT_FP32, FORMAT_BF16)                                                         \
    X(fp32_e4m3, FORMAT_FP32, FORMAT_E4M3)                                                         \
    X(fp32_e5m2, FORMAT_FP32, FORMAT_E5M2)

enum { KOLO__FORM_COUNT = 8 };

/* What is reduced: X(name, format), in the order of enum format. */
#define KOLO__FORMATS(X)                                                                           \
    X(fp16, FORMAT_FP16)                                                                           \
    X(bf16, FORMAT_BF16)                                                                           \
    X(e4m3, FORMAT_E4M3)                                                                           \
    X(e5m2, FORMAT_E5M2)                                                                           \
    X(fp32, FORMAT_FP32)                                                                           \
    X(fp64, FORMAT_FP64)

enum { KOLO__FORMAT_COUNT = 6 };

/* X(name, bytes, signed), in the order of kolo_dtype. */
#define KOLO__INTEGERS(X)                                                                          \
    X(int8, 1, true)                                                                               \
    X(int16, 2, true)                                                                              \
    X(int32, 4, true)                                                                              \
    X(int64, 8, true)                                                                              \
    X(uint8, 1, false)                                                                             \
    X(uint16, 2, false)                                                                            \
    X(uint32, 4, false)                                                                            \
    X(uint64, 8, false)

enum { KOLO__INTEGER_COUNT = 8 };

/* What is exchanged among GPUs: X(word, kind, name, format), four formats of each kind in the order
 * of enum exchange_kind. */
#define KOLO__EXCHANGES_OF(X, word, kind)                                                          \
    X(word, kind, fp16, FORMAT_FP16)                                                               \
    X(word, kind, bf16, FORMAT_BF16)                                                               \
    X(word, kind, fp32, FORMAT_FP32)                                                               \
    X(word, kind, fp64, FORMAT_FP64)
#define KOLO__EXCHANGES(X)                                                                         \
    KOLO__EXCHANGES_OF(X, one_shot, EXCHANGE_ONE_SHOT)                                             \
    KOLO__EXCHANGES_OF(X, two_shot, EXCHANGE_TWO_SHOT)                                             \
    KOLO__EXCHANGES_OF(X, ring, EXCHANGE_RING)

enum { KOLO__EXCHANGE_KINDS = 3, KOLO__EXCHANGE_FORMATS = 4 };

/* dtype: a kolo_dtype; wire: a kolo__narrow_float. */
static inline int kolo__form_index(int dtype, int narrows, int wire)
{
    return narrows ? 4 + wire : dtype - 8; /* KOLO_FP16 */
}

#endif
