/* SPDX-License-Identifier: Apache-2.0 */
/* The same C as the reference, compiled for 32-byte vectors. */
#if defined(__x86_64__)
#include "kernels/cpu/variant.h"

#include <cpuid.h>
#include <immintrin.h>
#include <string.h>
#include <tgmath.h>

/* CPUID itself: not every compiler in use knows the word f16c. */
static bool asked_f16c(void)
{
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

/* Stands above the pragma: it runs on processors that lack what it asks for. The answer is kept,
 * since CPUID costs microseconds in a virtual machine; threads that ask at once find the same. */
static bool supported(void)
{
    static _Atomic signed char kept; /* 0: not asked */
    if (kept == 0)
        kept = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && asked_f16c() ? 1
                                                                                               : -1;
    return kept > 0;
}

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif

#define LANES 32
#define LANES_FP16_F16C
#define STREAM_BY_32
#define VARIANT      kolo__cpu_avx2
#define VARIANT_NAME "avx2"
#include "kernels/cpu/all_dtypes.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
