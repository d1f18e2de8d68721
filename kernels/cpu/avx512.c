/* SPDX-License-Identifier: Apache-2.0 */
/* The same C as the reference, compiled for AVX-512 (what servers since Skylake have). */
#if defined(__x86_64__)
#include "kernels/cpu/variant.h"

#include <immintrin.h>
#include <string.h>
#include <tgmath.h>

/* Stands above the pragma: it runs on processors that lack what it asks for. */
static bool supported(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))),        \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl")
#endif

#define LANES 64
#define LANES_FP16_AVX512
#define STREAM_BY_64
#define VARIANT      kolo__cpu_avx512
#define VARIANT_NAME "avx512"
#include "kernels/cpu/all_dtypes.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
