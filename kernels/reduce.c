/* SPDX-License-Identifier: Apache-2.0 */
/* Where every reduction, copy and cast enters: checks the arguments and picks the kernel. */
#include "kernels/kernels.h"
#include "kernels/cpu/variant.h"
#include "base/assert.h"

#include <string.h>

const struct kolo__cpu_variant *const kolo__cpu_variants[] = {
#if defined(__x86_64__)
    &kolo__cpu_avx512,
    &kolo__cpu_avx2,
#elif defined(__aarch64__)
    &kolo__cpu_neon,
#endif
    &kolo__cpu_portable,
    NULL,
};

/* Asked anew on every call: a look at one word in memory, and no state to initialise. */
const struct kolo__cpu_variant *kolo__cpu_best(void)
{
    for (size_t i = 0; kolo__cpu_variants[i] != NULL; i++) {
        if (kolo__cpu_variants[i]->supported())
            return kolo__cpu_variants[i];
    }
    return &kolo__cpu_portable;
}

void kolo__reduce(const struct kolo__reduction *reduction, void *to, const void *const *sources,
                  uint32_t source_count, size_t count)
{
    kolo__reduce_to_many(reduction, &to, 1, sources, source_count, count);
}

void kolo__reduce_to_many(const struct kolo__reduction *reduction, void *const *to,
                          uint32_t to_count, const void *const *sources, uint32_t source_count,
                          size_t count)
{
    KOLO__ASSERT(kolo__reduction_defined(reduction->dtype, reduction->op));
    KOLO__ASSERT(reduction->divisor >= 1);
    KOLO__ASSERT(source_count >= 1 && source_count <= KOLO__REDUCE_SOURCES_MAX);
    KOLO__ASSERT(to_count >= 1 && to_count <= KOLO__REDUCE_DESTINATIONS_MAX);
    if (count == 0)
        return;
    for (uint32_t i = 0; i < to_count; i++)
        KOLO__ASSERT(to[i] != NULL);
    for (uint32_t i = 0; i < source_count; i++)
        KOLO__ASSERT(sources[i] != NULL);

    bool scaled = reduction->op == KOLO_PREMUL_SUM && reduction->scales != NULL;
    if (source_count == 1 && reduction->divisor == 1 && !scaled) {
        for (uint32_t i = 0; i < to_count; i++)
            kolo__copy(to[i], sources[0], count * kolo_dtype_bytes(reduction->dtype),
                       reduction->streaming);
        return;
    }
    kolo__cpu_best()->reduce[reduction->dtype](reduction, to, to_count, sources, source_count,
                                               count);
    if (reduction->streaming)
        kolo__finish_streaming();
}

void kolo__widen(enum kolo__narrow_float format, void *to_fp32, const void *from, size_t count)
{
    KOLO__ASSERT((unsigned)format < KOLO__NARROW_COUNT);
    kolo__cpu_best()->widen[format](to_fp32, from, count);
}

void kolo__narrow(enum kolo__narrow_float format, void *to, const void *from_fp32, size_t count)
{
    KOLO__ASSERT((unsigned)format < KOLO__NARROW_COUNT);
    kolo__cpu_best()->narrow[format](to, from_fp32, count);
}
