/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Template: the copy past the caches of one variant. Streamed stores go to aligned lines of 64
 * bytes:
 *
 *     to    |..head..|==== line ====|==== line ====|..tail..|     head and tail by memcpy
 *
 * A line that is written whole goes to memory without being read first; that is the gain.
 */
#ifndef KOLO_KERNELS_CPU_STREAM_H
#define KOLO_KERNELS_CPU_STREAM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { LINE = 64 };

static inline void stream_line(unsigned char *to, const unsigned char *from)
{
#if defined(STREAM_BY_64)
    _mm512_stream_si512((__m512i *)(void *)to, _mm512_loadu_si512(from));
#elif defined(STREAM_BY_32)
    for (int i = 0; i < LINE; i += 32)
        _mm256_stream_si256((__m256i *)(void *)(to + i),
                            _mm256_loadu_si256((const __m256i *)(const void *)(from + i)));
#elif defined(__x86_64__)
    for (int i = 0; i < LINE; i += 16)
        _mm_stream_si128((__m128i *)(void *)(to + i),
                         _mm_loadu_si128((const __m128i *)(const void *)(from + i)));
#else
    memcpy(to, from, LINE);
#endif
}

static void stream(void *to, const void *from, size_t bytes)
{
    unsigned char *out = to;
    const unsigned char *in = from;
    size_t head = (size_t)(-(uintptr_t)out % LINE);
    if (head > bytes)
        head = bytes;
    memcpy(out, in, head);
    size_t done = head;
    for (; bytes - done >= LINE; done += LINE)
        stream_line(out + done, in + done);
    memcpy(out + done, in + done, bytes - done);
}

#endif
