/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies. memcpy is hard to beat; but from some KiB on it stores vectors, or aligns the destination
 * first, where the processor's own string instruction knows from the start that whole lines get
 * written and need not be fetched. Of 4 KiB pieces (allreduce of 4 MiB, 2 ranks) that is a seventh
 * of the time while cache lines travel slowly between cores, and nothing while they are fast.
 */
#include "kernels/cpu/variant.h"
#include "kernels/kernels.h"

#include <string.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define WATCHED 1 /* by somebody who sees memcpy and no assembly */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define WATCHED 1
#endif
#endif

#if defined(__x86_64__) && !defined(WATCHED)
#include <cpuid.h>
#include <stdatomic.h>

/* Shorter ones cost more to start than they gain; longer ones memcpy does in this way, too. */
enum { STRING_BYTES_MIN = 1024, STRING_BYTES_MAX = 32 * 1024 };

/* "Fast short rep mov". Asked once: the instruction that tells leaves a virtual machine. */
static bool has_fast_strings(void)
{
    enum { UNKNOWN, NO, YES };
    static atomic_int known;
    int answer = atomic_load_explicit(&known, memory_order_relaxed);
    if (answer == UNKNOWN) {
        unsigned a, b, c, d;
        answer = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 4 & 1) != 0 ? YES : NO;
        atomic_store_explicit(&known, answer, memory_order_relaxed);
    }
    return answer == YES;
}

static bool copy_string(void *to, const void *from, size_t bytes)
{
    if (bytes < STRING_BYTES_MIN || bytes > STRING_BYTES_MAX || !has_fast_strings())
        return false;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
    return true;
}
#else
static bool copy_string(void *to, const void *from, size_t bytes)
{
    (void)to, (void)from, (void)bytes;
    return false;
}
#endif

void kolo__copy(void *to, const void *from, size_t bytes, bool streaming)
{
    if (to == from || bytes == 0)
        return;
    if (streaming) {
        kolo__cpu_best()->stream(to, from, bytes);
        kolo__finish_streaming();
    } else if (!copy_string(to, from, bytes)) {
        memcpy(to, from, bytes);
    }
}
