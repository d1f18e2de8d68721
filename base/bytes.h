/* SPDX-License-Identifier: Apache-2.0 */
/* Little-endian integers in byte buffers: the order of everything kolo puts on a wire. */
#ifndef KOLO_BASE_BYTES_H
#define KOLO_BASE_BYTES_H

#include <stdint.h>

static inline void kolo__store_u16(unsigned char *p, uint16_t v)
{
    p[0] = (unsigned char)v;
    p[1] = (unsigned char)(v >> 8);
}

static inline void kolo__store_u32(unsigned char *p, uint32_t v)
{
    kolo__store_u16(p, (uint16_t)v);
    kolo__store_u16(p + 2, (uint16_t)(v >> 16));
}

static inline void kolo__store_u64(unsigned char *p, uint64_t v)
{
    kolo__store_u32(p, (uint32_t)v);
    kolo__store_u32(p + 4, (uint32_t)(v >> 32));
}

static inline uint16_t kolo__load_u16(const unsigned char *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t kolo__load_u32(const unsigned char *p)
{
    return kolo__load_u16(p) | (uint32_t)kolo__load_u16(p + 2) << 16;
}

static inline uint64_t kolo__load_u64(const unsigned char *p)
{
    return kolo__load_u32(p) | (uint64_t)kolo__load_u32(p + 4) << 32;
}

#endif
