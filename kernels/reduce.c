/* SPDX-License-Identifier: Apache-2.0 */
/* Where every reduction enters: checks the arguments and picks the kernel. */
#include "kernels/kernels.h"
#include "kernels/cpu/variant.h"
#include "base/assert.h"

#include <string.h>

const struct kolo__cpu_variant *const kolo__cpu_variants[] = {
#if defined(__x86_64__)
    &kolo__cpu_avx512,
    &kolo__cpu_avx2,
#endif
    &kolo__cpu_portable,
    NULL,
};

/* Asked anew on every call: a look at one word in memory, and no state to initialise. */
static const struct kolo__cpu_variant *best_variant(void)
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
    KOLO__ASSERT(kolo__reduction_defined(reduction->dtype, reduction->op));
    KOLO__ASSERT(reduction->divisor >= 1);
    KOLO__ASSERT(source_count >= 1 && source_count <= KOLO__REDUCE_SOURCES_MAX);
    if (count == 0)
        return;
    KOLO__ASSERT(to != NULL);
    for (uint32_t i = 0; i < source_count; i++)
        KOLO__ASSERT(sources[i] != NULL);

    bool scaled = reduction->op == KOLO_PREMUL_SUM && reduction->scales != NULL;
    if (source_count == 1 && reduction->divisor == 1 && !scaled) {
        if (to != sources[0])
            memcpy(to, sources[0], count * kolo_dtype_bytes(reduction->dtype));
        return;
    }
    best_variant()->reduce[reduction->dtype](reduction, to, sources, source_count, count);
}
