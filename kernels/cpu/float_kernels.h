/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: the kernels of one floating-point dtype (kernels/cpu/all_dtypes.h includes it).
 *
 * NAME(word)   word with the dtype's name behind it
 * WORK         the type of the accumulator, float or double
 * ELEMENT      the element in users' memory
 * LOAD(x)      ELEMENT -> WORK, exact
 * STORE(x)     WORK -> ELEMENT, the one rounding; every NaN becomes the same NaN
 */

/* b is taken when it is less, when it is the -0 of two zeros, or when it is NaN; a NaN in a stays,
 * since every comparison with it is false. Bitwise operators: no branches in the vector loop. */
static inline WORK NAME(minimum)(WORK a, WORK b)
{
    int negative = copysign((WORK)1, b) < 0;
    return ((b < a) | ((b == a) & negative) | (b != b)) ? b : a;
}

static inline WORK NAME(maximum)(WORK a, WORK b)
{
    int positive = copysign((WORK)1, b) > 0;
    return ((b > a) | ((b == a) & positive) | (b != b)) ? b : a;
}

static void NAME(start)(WORK *restrict work, const ELEMENT *source, size_t count,
                        const double *scale)
{
    if (scale == NULL) {
        for (size_t k = 0; k < count; k++)
            work[k] = LOAD(source[k]);
    } else {
        const WORK factor = (WORK)*scale;
        for (size_t k = 0; k < count; k++)
            work[k] = factor * LOAD(source[k]);
    }
}

static void NAME(add_scaled)(WORK *restrict work, const ELEMENT *source, size_t count, double scale)
{
    const WORK factor = (WORK)scale;
    for (size_t k = 0; k < count; k++) {
        WORK contribution = factor * LOAD(source[k]);
        work[k] += contribution;
    }
}

/* scale: of this source, or NULL. */
static void NAME(combine)(kolo_op op, WORK *restrict work, const ELEMENT *source, size_t count,
                          const double *scale)
{
    if (scale != NULL) {
        NAME(add_scaled)(work, source, count, *scale);
        return;
    }
    switch (op) {
    case KOLO_SUM:
    case KOLO_AVERAGE:
    case KOLO_PREMUL_SUM:
        for (size_t k = 0; k < count; k++)
            work[k] += LOAD(source[k]);
        break;
    case KOLO_PRODUCT:
        for (size_t k = 0; k < count; k++)
            work[k] *= LOAD(source[k]);
        break;
    case KOLO_MIN:
        for (size_t k = 0; k < count; k++)
            work[k] = NAME(minimum)(work[k], LOAD(source[k]));
        break;
    case KOLO_MAX:
        for (size_t k = 0; k < count; k++)
            work[k] = NAME(maximum)(work[k], LOAD(source[k]));
        break;
    default:
        kolo__assert_failed("op is defined for floats", __FILE__, __LINE__);
    }
}

static void NAME(finish)(const WORK *restrict work, ELEMENT *to, size_t count, uint32_t divisor)
{
    if (divisor == 1) {
        for (size_t k = 0; k < count; k++)
            to[k] = STORE(work[k]);
    } else {
        for (size_t k = 0; k < count; k++)
            to[k] = STORE(work[k] / (WORK)divisor);
    }
}

#define SUM_DIVIDES true
#include "kernels/cpu/sum.h"
#include "kernels/cpu/reduce_blocks.h"

#undef NAME
#undef WORK
#undef ELEMENT
#undef LOAD
#undef STORE
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
#undef SUM_DIVIDES
