/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The total of all partials, by one block: what a norm waits for, so its threads have several loads
 * under way. The order of sums follows from the count alone: thread t adds partials t, t + 1024,
 * ...; then threads are added as those of a tile are (walk.h). And what follows from totals.
 */
#ifndef KOLO_KERNELS_CUDA_TOTAL_H
#define KOLO_KERNELS_CUDA_TOTAL_H

#include "kernels/cuda/walk.h"

enum { TOTAL_THREADS = 1024, TOTAL_AHEAD = 8 };

struct totals { /* struct kolo__device_total */
    double squares, norm, factor;
    uint32_t absolute_max, not_finite;
};

CONVERSION struct walk_partial total_thread(const struct walk_partial *partials, uint64_t count,
                                            uint32_t thread)
{
    struct walk_partial mine = {0, 0, 0};
    for (uint64_t first = thread; first < count; first += TOTAL_THREADS * TOTAL_AHEAD) {
        struct walk_partial ahead[TOTAL_AHEAD];
        UNROLL for (int k = 0; k < TOTAL_AHEAD; k++)
        {
            uint64_t i = first + (uint64_t)k * TOTAL_THREADS;
            ahead[k].squares = i < count ? partials[i].squares : 0;
            ahead[k].absolute_max = i < count ? partials[i].absolute_max : 0;
            ahead[k].not_finite = i < count ? partials[i].not_finite : 0;
        }
        UNROLL for (int k = 0; k < TOTAL_AHEAD; k++) add_partial(&mine, ahead[k]);
    }
    return mine;
}

CONVERSION struct totals finish_total(struct walk_partial sum, double clip_norm)
{
    sum = finish_partial(sum);
    struct totals result = {sum.squares, one_nan_double(sqrt(sum.squares)), 1, sum.absolute_max,
                            sum.not_finite};
    bool finite = sum.not_finite == 0 && result.norm <= 1.7976931348623157e308;
    if (clip_norm > 0 && finite && result.norm > clip_norm)
        result.factor = clip_norm / result.norm;
    return result;
}

/* ---- scales of 8-bit units ------------------------------------------------------------------- */

struct scales { /* struct kolo__device_scale */
    double wire, pack, unpack, error;
};

/* A kernel's parameter: struct kolo__device_scaling. Addresses; 0: none. */
struct scaling {
    uint64_t absolute_max, clip, result;
    double largest, scale, sum;
};

/* 2^floor(log2 x), the exponent from -101 to 99; x is normal. */
CONVERSION double power_below(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int exponent = (int)(bits >> 52 & 0x7ffu) - 1023;
    exponent = exponent > 99 ? 99 : exponent < -101 ? -101 : exponent;
    bits = (uint64_t)(exponent + 1023) << 52;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Of one thread. The rule is runtime/reducer/fp8.c's, the same bits. */
CONVERSION void choose_scale(const struct scaling *s)
{
    struct scales *result = (struct scales *)(uintptr_t)s->result;
    if (s->absolute_max != 0) {
        uint32_t most = *(const uint32_t *)(uintptr_t)s->absolute_max;
        bool usable = most > 0 && most < 0x7f800000u;
        double wire = usable ? power_below(s->largest / (1.125 * (double)fp32_from_bits(most))) : 1;
        result->error = result->wire > 0 ? wire / result->wire : 1;
        result->wire = wire;
        result->pack = s->scale * wire;
    }
    double clip = s->clip != 0 ? *(const double *)(uintptr_t)s->clip : 1;
    result->unpack = s->sum / result->wire * clip;
}

#endif
