/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: the loops of packing, unpacking and norms (kernels/cpu/all_dtypes.h includes it), over
 * fp32 and fp64; kernels/pack.c puts them together with casts, a block at a time. Each element is
 * computed by itself, or goes to a lane that its number fixes, and a NaN that comes out is always
 * the positive quiet one, so that all variants give the same bits.
 */
#include <float.h>

static void pack_scaled(float *restrict to, const void *restrict from, const float *restrict error,
                        float scale, size_t count)
{
    const unaligned_float *x = from;
    if (error == NULL)
        for (size_t k = 0; k < count; k++)
            to[k] = store_fp32(scale * x[k]);
    else
        for (size_t k = 0; k < count; k++)
            to[k] = store_fp32(scale * x[k] + error[k]);
}

/* What is not finite keeps no error: the next step begins anew. */
static void pack_residual(float *restrict error, const float *restrict wanted,
                          const float *restrict sent, size_t count)
{
    for (size_t k = 0; k < count; k++) {
        union {
            float value;
            uint32_t bits;
        } rest = {.value = wanted[k] - sent[k]};
        bool finite = (rest.bits & 0x7f800000u) != 0x7f800000u;
        rest.bits = finite ? rest.bits : 0;
        error[k] = rest.value;
    }
}

/* ---- norms -------------------------------------------------------------------------------- */

enum { NORM_VECTORS = KOLO__NORM_LANES * (int)sizeof(double) / LANES };

struct norm_sums {
    lanes_double vectors[NORM_VECTORS];
};

static INLINE struct norm_sums norm_load(const double *lanes)
{
    struct norm_sums sums;
    for (int v = 0; v < NORM_VECTORS; v++)
        sums.vectors[v] = ((const unaligned_lanes_double *)lanes)[v];
    return sums;
}

/* Two NaNs added give either of them, as the compiler ordered them: all become one. */
static INLINE void norm_store(double *lanes, const struct norm_sums *sums)
{
    for (int v = 0; v < NORM_VECTORS; v++)
        ((unaligned_lanes_double *)lanes)[v] = one_nan_fp64(sums->vectors[v]);
}

/* Half a vector of fp32 in a vector of fp64. The instruction stands here for GCC's sake, which
 * takes two halves and joins them. */
static INLINE lanes_double widen_half_lanes(const void *from)
{
#if defined(LANES_FP16_AVX512)
    return (lanes_double)_mm512_cvtps_pd(_mm256_loadu_ps(from));
#elif defined(LANES_FP16_F16C)
    return (lanes_double)_mm256_cvtps_pd(_mm_loadu_ps(from));
#elif defined(__x86_64__)
    return (lanes_double)_mm_cvtps_pd(_mm_castsi128_ps(_mm_loadl_epi64(from)));
#else
    typedef float half_lanes __attribute__((vector_size(LANES / 2)));
    half_lanes half;
    memcpy(&half, from, sizeof half);
    return __builtin_convertvector(half, lanes_double);
#endif
}

/* Only a lane that is not finite needs a look at the elements: NaNs and infinities stay in the
 * sums. So the look costs nothing in a step that is well. Squares of finite fp64 may overflow,
 * those of fp32 cannot. */
static bool lanes_not_finite(const double *lanes)
{
    bool found = false;
    for (int lane = 0; lane < KOLO__NORM_LANES; lane++)
        found |= !(fabs(lanes[lane]) <= DBL_MAX);
    return found;
}

static void norm_fp32(double *lanes, const void *data, size_t count, bool *not_finite)
{
    const unsigned char *from = data;
    struct norm_sums sums = norm_load(lanes);
    size_t left = count;
    for (; left >= KOLO__NORM_LANES; left -= KOLO__NORM_LANES) {
        for (int v = 0; v < NORM_VECTORS; v++) {
            lanes_double x = widen_half_lanes(from + v * LANES / 2);
            sums.vectors[v] += x * x;
        }
        from += KOLO__NORM_LANES * sizeof(float);
    }
    norm_store(lanes, &sums);
    const unaligned_float *rest = (const unaligned_float *)(const void *)from;
    for (size_t k = 0; k < left; k++) {
        double x = rest[k];
        lanes[k] = store_fp64(lanes[k] + x * x);
    }
    if (!*not_finite && lanes_not_finite(lanes)) {
        const unaligned_uint32 *bits = data;
        for (size_t k = 0; k < count; k++)
            *not_finite |= (bits[k] & 0x7f800000u) == 0x7f800000u;
    }
}

static void norm_fp64(double *lanes, const void *data, size_t count, bool *not_finite)
{
    const unsigned char *from = data;
    struct norm_sums sums = norm_load(lanes);
    size_t left = count;
    for (; left >= KOLO__NORM_LANES; left -= KOLO__NORM_LANES) {
        for (int v = 0; v < NORM_VECTORS; v++) {
            lanes_double x = load_lanes_fp64(from + v * LANES);
            sums.vectors[v] += x * x;
        }
        from += KOLO__NORM_LANES * sizeof(double);
    }
    norm_store(lanes, &sums);
    const unaligned_double *rest = (const unaligned_double *)(const void *)from;
    for (size_t k = 0; k < left; k++)
        lanes[k] = store_fp64(lanes[k] + rest[k] * rest[k]);
    if (!*not_finite && lanes_not_finite(lanes)) {
        const unaligned_uint64 *bits = data;
        const uint64_t exponent = UINT64_C(0x7ff) << 52;
        for (size_t k = 0; k < count; k++)
            *not_finite |= (bits[k] & exponent) == exponent;
    }
}

/* ---- scales ------------------------------------------------------------------------------- */

static void scale_fp32(void *data, size_t count, double factor)
{
    unaligned_float *x = data;
    float f = (float)factor;
    for (size_t k = 0; k < count; k++)
        x[k] = store_fp32(x[k] * f);
}

static void scale_fp64(void *data, size_t count, double factor)
{
    unaligned_double *x = data;
    for (size_t k = 0; k < count; k++)
        x[k] = store_fp64(x[k] * factor);
}

/* As integers, absolute values are ordered like the floats, and NaNs are the greatest. */
static uint32_t absolute_max(const void *data, size_t count)
{
    const unaligned_uint32 *bits = data;
    uint32_t most = 0;
    for (size_t k = 0; k < count; k++) {
        uint32_t magnitude = bits[k] & 0x7fffffffu;
        most = magnitude > most ? magnitude : most;
    }
    return most;
}
