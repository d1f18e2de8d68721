/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: one dtype's entry, a kolo__reduce_function (integer_kernels.h and float_kernels.h
 * include it).
 *
 *     sources[0]  |---- block ----|---- block ----|--         work = sources[0]
 *     sources[1]  |---- block ----|---- block ----|--         work = work op sources[1]
 *        ...                                                     ...
 *     result      |---- block ----|                           result = finish(work), in L1
 *     to[0]       |---- block ----|---- block ----|--         copied, or streamed
 *        ...
 *
 * A block of any destination is written after the same block of all sources was read: so it may be
 * any of them. One destination that is not streamed is its own result.
 */
static void NAME(reduce_block)(const struct kolo__reduction *reduction, ELEMENT *to,
                               const void *const *sources, uint32_t source_count, size_t begin,
                               size_t length)
{
    const kolo_op op = reduction->op;
    const double *scales = op == KOLO_PREMUL_SUM ? reduction->scales : NULL;
    WORK work[BLOCK];
    NAME(start)(work, (const ELEMENT *)sources[0] + begin, length, scales);
    for (uint32_t i = 1; i < source_count; i++) {
        NAME(combine)
        (op, work, (const ELEMENT *)sources[i] + begin, length, scales != NULL ? &scales[i] : NULL);
    }
    NAME(finish)(work, to, length, reduction->divisor);
}

static void NAME(reduce)(const struct kolo__reduction *reduction, void *const *to,
                         uint32_t to_count, const void *const *sources, uint32_t source_count,
                         size_t count)
{
    const kolo_op op = reduction->op;
    const struct sum sum = {.sources = sources,
                            .source_count = source_count,
                            .scales = op == KOLO_PREMUL_SUM ? reduction->scales : NULL,
                            .divisor = reduction->divisor,
                            .to = to,
                            .to_count = to_count,
                            .streaming = reduction->streaming};
    if ((op == KOLO_SUM || op == KOLO_AVERAGE || op == KOLO_PREMUL_SUM) &&
        (SUM_DIVIDES || sum.divisor == 1) && NAME(sum)(&sum, count * sizeof(ELEMENT)))
        return;

    _Alignas(64) ELEMENT result[BLOCK];
    const bool direct = to_count == 1 && !reduction->streaming;
    for (size_t done = 0; done < count; done += BLOCK) {
        size_t length = count - done < BLOCK ? count - done : BLOCK;
        ELEMENT *block = direct ? (ELEMENT *)to[0] + done : result;
        NAME(reduce_block)(reduction, block, sources, source_count, done, length);
        for (uint32_t i = 0; i < to_count && !direct; i++)
            put(reduction->streaming, (ELEMENT *)to[i] + done, result, length * sizeof(ELEMENT));
    }
}
