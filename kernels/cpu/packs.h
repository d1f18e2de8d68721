/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: the loops of packing, unpacking and norms (kernels/cpu/all_dtypes.h includes it), over
 * fp32 and fp64; kernels/pack.c puts them together with casts, a block at a time. Each element is
 * computed by itself, or goes to a lane that its number fixes, so that all variants give the same
 * bits.
 */

static void pack_scaled(float *restrict to, const void *restrict from, const float *restrict error,
                        float scale, size_t count)
{
    const unaligned_float *x = from;
    if (error == NULL)
        for (size_t k = 0; k < count; k++)
            to[k] = scale * x[k];
    else
        for (size_t k = 0; k < count; k++)
            to[k] = scale * x[k] + error[k];
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

static void norm_fp32(double *restrict lanes, const void *restrict data, size_t count,
                      bool *not_finite)
{
    const unaligned_float *x = data;
    const unaligned_uint32 *bits = data;
    double sums[KOLO__NORM_LANES];
    uint32_t found = 0;
    size_t k = 0;
    memcpy(sums, lanes, sizeof sums);
    for (; count - k >= KOLO__NORM_LANES; k += KOLO__NORM_LANES)
        for (int lane = 0; lane < KOLO__NORM_LANES; lane++) {
            double value = x[k + (size_t)lane];
            sums[lane] += value * value;
            found |= (uint32_t)((bits[k + (size_t)lane] & 0x7f800000u) == 0x7f800000u);
        }
    for (int lane = 0; k < count; k++, lane++) {
        double value = x[k];
        sums[lane] += value * value;
        found |= (uint32_t)((bits[k] & 0x7f800000u) == 0x7f800000u);
    }
    memcpy(lanes, sums, sizeof sums);
    *not_finite |= found != 0;
}

static void norm_fp64(double *restrict lanes, const void *restrict data, size_t count,
                      bool *not_finite)
{
    const unaligned_double *x = data;
    const unaligned_uint64 *bits = data;
    const uint64_t exponent = UINT64_C(0x7ff) << 52;
    double sums[KOLO__NORM_LANES];
    uint64_t found = 0;
    size_t k = 0;
    memcpy(sums, lanes, sizeof sums);
    for (; count - k >= KOLO__NORM_LANES; k += KOLO__NORM_LANES)
        for (int lane = 0; lane < KOLO__NORM_LANES; lane++) {
            sums[lane] += x[k + (size_t)lane] * x[k + (size_t)lane];
            found |= (uint64_t)((bits[k + (size_t)lane] & exponent) == exponent);
        }
    for (int lane = 0; k < count; k++, lane++) {
        sums[lane] += x[k] * x[k];
        found |= (uint64_t)((bits[k] & exponent) == exponent);
    }
    memcpy(lanes, sums, sizeof sums);
    *not_finite |= found != 0;
}

static void scale_fp32(void *data, size_t count, double factor)
{
    unaligned_float *x = data;
    float f = (float)factor;
    for (size_t k = 0; k < count; k++)
        x[k] *= f;
}

static void scale_fp64(void *data, size_t count, double factor)
{
    unaligned_double *x = data;
    for (size_t k = 0; k < count; k++)
        x[k] *= factor;
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
