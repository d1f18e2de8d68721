/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random numbers that are a function of where they are used: (seed, step, index) and nothing else.
 * So every rank can draw any other rank's numbers, a resumed run draws the same ones, and how many
 * ranks share the work changes nothing.
 */
#ifndef TRAIN_BYTES_RANDOM_H
#define TRAIN_BYTES_RANDOM_H

#include <stdint.h>

/* The finalizer of SplitMix64 (Steele, Lea, Flood, 2014): every input bit reaches every output bit.
 */
static inline uint64_t random_mix(uint64_t x)
{
    x += 0x9E3779B97F4A7C15U;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
    return x ^ (x >> 31);
}

static inline uint64_t random_at(uint64_t seed, uint64_t step, uint64_t index)
{
    return random_mix(random_mix(random_mix(seed) + step) + index);
}

/* Uniform in [0, 1). */
static inline double random_unit(uint64_t seed, uint64_t step, uint64_t index)
{
    return (double)(random_at(seed, step, index) >> 11) * 0x1p-53;
}

#endif
