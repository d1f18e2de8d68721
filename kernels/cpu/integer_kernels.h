/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: the kernels of one integer dtype (kernels/cpu/all_dtypes.h includes it).
 *
 * NAME(word)  word with the dtype's name behind it
 * VALUE       the element as users see it
 * WORK        the unsigned type of that width: sums and products wrap without undefined behaviour
 * ELEMENT     WORK in users' memory
 * QUOTIENT    the type to divide in
 */

/* 1u * keeps small types from being promoted to int, where a product of two uint16_t can overflow.
 */
static inline WORK NAME(wrapped_product)(WORK a, WORK b)
{
    return (WORK)(1u * a * b);
}

static void NAME(start)(WORK *restrict work, const ELEMENT *source, size_t count,
                        const double *scale)
{
    (void)scale; /* PREMUL_SUM is for floats */
    for (size_t k = 0; k < count; k++)
        work[k] = source[k];
}

static void NAME(combine)(kolo_op op, WORK *restrict work, const ELEMENT *source, size_t count,
                          const double *scale)
{
    (void)scale;
    switch (op) {
    case KOLO_SUM:
    case KOLO_AVERAGE:
        for (size_t k = 0; k < count; k++)
            work[k] = (WORK)(work[k] + source[k]);
        break;
    case KOLO_PRODUCT:
        for (size_t k = 0; k < count; k++)
            work[k] = NAME(wrapped_product)(work[k], source[k]);
        break;
    case KOLO_MIN:
        for (size_t k = 0; k < count; k++)
            work[k] = (VALUE)source[k] < (VALUE)work[k] ? source[k] : work[k];
        break;
    case KOLO_MAX:
        for (size_t k = 0; k < count; k++)
            work[k] = (VALUE)source[k] > (VALUE)work[k] ? source[k] : work[k];
        break;
    case KOLO_AND:
        for (size_t k = 0; k < count; k++)
            work[k] &= source[k];
        break;
    case KOLO_OR:
        for (size_t k = 0; k < count; k++)
            work[k] |= source[k];
        break;
    case KOLO_XOR:
        for (size_t k = 0; k < count; k++)
            work[k] ^= source[k];
        break;
    default:
        kolo__assert_failed("op is defined for integers", __FILE__, __LINE__);
    }
}

static void NAME(finish)(const WORK *restrict work, ELEMENT *to, size_t count, uint32_t divisor)
{
    if (divisor == 1) {
        for (size_t k = 0; k < count; k++)
            to[k] = work[k];
    } else {
        for (size_t k = 0; k < count; k++)
            to[k] = (WORK)(VALUE)((QUOTIENT)(VALUE)work[k] / (QUOTIENT)divisor);
    }
}

/* Sums that are divided take the long way: no processor has a vector division of integers. */
#define READ(from)              (*(const VECTOR_IN_MEMORY *)(from))
#define ANY_NAN(a, b, c, d)     false
#define ONE_NAN(a)              (a)
#define ROUND(a)                ((lanes_uint64)(a))
#define BYTES_AHEAD             0
#define ROUNDED                 lanes_uint64
#define WRITE(to, a, streaming) store_lanes(to, a, streaming)
#define ADD(a, b)               ((a) + (b))
#define SCALE(a, factor)        ((void)(factor), (a))
#define DIVIDE(a, by)           ((void)(by), (a))
#define SUM_DIVIDES             false
#include "kernels/cpu/sum.h"
#include "kernels/cpu/reduce_blocks.h"

#undef NAME
#undef VALUE
#undef WORK
#undef ELEMENT
#undef QUOTIENT
#undef VECTOR
#undef READ
#undef ANY_NAN
#undef ONE_NAN
#undef ROUND
#undef BYTES_AHEAD
#undef ROUNDED
#undef WRITE
#undef ADD
#undef SCALE
#undef DIVIDE
#undef VECTOR_IN_MEMORY
#undef SUM_DIVIDES
