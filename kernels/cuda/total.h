/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The total of all partials, by one block: what a norm waits for, so its threads have several loads
 * under way. The order of sums follows from the count alone: thread t adds partials t, t + 1024,
 * ...; then threads are added as those of a tile are (walk.h).
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
    struct totals result = {sum.squares, sqrt(sum.squares), 1, sum.absolute_max, sum.not_finite};
    bool finite = sum.not_finite == 0 && result.norm <= 1.7976931348623157e308;
    if (clip_norm > 0 && finite && result.norm > clip_norm)
        result.factor = clip_norm / result.norm;
    return result;
}

#endif
