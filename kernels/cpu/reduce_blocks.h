/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: one dtype's entry, a kolo__reduce_function (integer_kernels.h and float_kernels.h
 * include it).
 *
 *     sources[0]  |---- block ----|---- block ----|--         work = sources[0]
 *     sources[1]  |---- block ----|---- block ----|--         work = work op sources[1]
 *        ...                                                     ...
 *     to          |---- block ----|---- block ----|--         to = finish(work)
 *
 * A block of `to` is written after the same block of all sources was read: so it may be any of
 * them.
 */
static void NAME(reduce)(const struct kolo__reduction *reduction, void *to,
                         const void *const *sources, uint32_t source_count, size_t count)
{
    const kolo_op op = reduction->op;
    const double *scales = op == KOLO_PREMUL_SUM ? reduction->scales : NULL;
    const bool sums = op == KOLO_SUM || op == KOLO_AVERAGE;

    /* What a ring does all the time. */
    if (sums && source_count == 2 && reduction->divisor == 1) {
        NAME(add_two)(to, sources[0], sources[1], count);
        return;
    }

    WORK work[BLOCK];
    for (size_t done = 0; done < count; done += BLOCK) {
        size_t length = count - done < BLOCK ? count - done : BLOCK;
        NAME(start)(work, (const ELEMENT *)sources[0] + done, length, scales);
        for (uint32_t i = 1; i < source_count; i++) {
            NAME(combine)
            (op, work, (const ELEMENT *)sources[i] + done, length,
             scales != NULL ? &scales[i] : NULL);
        }
        NAME(finish)(work, (ELEMENT *)to + done, length, reduction->divisor);
    }
}
