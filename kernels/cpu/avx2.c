/* SPDX-License-Identifier: Apache-2.0 */
/* The same C as the reference, compiled for 32-byte vectors. */
#if defined(__x86_64__)
#include "kernels/cpu/variant.h"

#include <immintrin.h>
#include <string.h>
#include <tgmath.h>

/* Stands above the pragma: it runs on processors that lack what it asks for. */
static bool supported(void)
{
    return __builtin_cpu_supports("avx2");
}

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif

#define STREAM_BY_32
#define VARIANT      kolo__cpu_avx2
#define VARIANT_NAME "avx2"
#include "kernels/cpu/all_dtypes.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
