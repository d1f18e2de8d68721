/* SPDX-License-Identifier: Apache-2.0 */
/* Seeded random numbers (splitmix64): the same seed gives the same numbers everywhere. Not for
 * secrets. */
#ifndef KOLO_BASE_RANDOM_H
#define KOLO_BASE_RANDOM_H

#include <stdint.h>

struct kolo__random {
    uint64_t state;
};

/* Constants: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014. */
static inline uint64_t kolo__random_u64(struct kolo__random *random)
{
    uint64_t z = random->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Uniform in [0, bound), bound > 0 (the bias is below bound / 2^64). */
static inline uint64_t kolo__random_below(struct kolo__random *random, uint64_t bound)
{
    return (uint64_t)(((unsigned __int128)kolo__random_u64(random) * bound) >> 64);
}

#endif
