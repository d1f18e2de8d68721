/* SPDX-License-Identifier: Apache-2.0 */
/* Packing in blocks that stay in the first-level cache: one pass over memory, whatever is done. */
#include "kernels/pack.h"

#include "base/assert.h"
#include "kernels/cpu/variant.h"

#include <string.h>

/* Elements: 4 KiB of fp32. Two blocks of them, a tensor's, an error's and what travels are 18 KiB:
 * they stay in L1 where twice as many do not, and half as many cost norms a tenth. Blocks on the
 * stack are aligned to lines: unaligned, packing took half as long again. */
enum { BLOCK = 1024 };

static bool is_float(kolo_dtype dtype)
{
    return dtype == KOLO_FP16 || dtype == KOLO_BF16 || dtype == KOLO_FP32 || dtype == KOLO_FP64;
}

static enum kolo__narrow_float narrow_of(kolo_dtype dtype)
{
    return dtype == KOLO_FP16 ? KOLO__NARROW_FP16 : KOLO__NARROW_BF16;
}

static size_t narrow_bytes(enum kolo__narrow_float format)
{
    return format == KOLO__NARROW_E4M3 || format == KOLO__NARROW_E5M2 ? 1 : 2;
}

static size_t block_of(size_t left)
{
    return left < BLOCK ? left : BLOCK;
}

static void pack_narrow(const struct kolo__packing *packing, unsigned char *to,
                        const unsigned char *from, float *error, size_t count)
{
    const struct kolo__cpu_variant *variant = kolo__cpu_best();
    size_t bytes = narrow_bytes(packing->wire);
    _Alignas(64) float wanted[BLOCK], sent[BLOCK];
    for (size_t k = 0, n; k < count; k += n) {
        n = block_of(count - k);
        if (packing->scale == 1 && error == NULL) {
            variant->narrow[packing->wire](to + k * bytes, from + k * sizeof(float), n);
            continue;
        }
        variant->pack_scaled(wanted, from + k * sizeof(float), error != NULL ? error + k : NULL,
                             (float)packing->scale, n);
        variant->narrow[packing->wire](to + k * bytes, wanted, n);
        if (error == NULL)
            continue;
        variant->widen[packing->wire](sent, to + k * bytes, n);
        variant->pack_residual(error + k, wanted, sent, n);
    }
}

void kolo__pack(const struct kolo__packing *packing, void *to, const void *from, float *error,
                size_t count)
{
    KOLO__ASSERT(is_float(packing->dtype));
    KOLO__ASSERT(!packing->narrows || packing->dtype == KOLO_FP32);
    KOLO__ASSERT(error == NULL || packing->narrows);
    if (packing->narrows) {
        pack_narrow(packing, to, from, error, count);
        return;
    }
    size_t bytes = kolo_dtype_bytes(packing->dtype);
    for (size_t k = 0, n; k < count; k += n) {
        n = packing->scale == 1 ? count - k : block_of(count - k);
        kolo__copy((unsigned char *)to + k * bytes, (const unsigned char *)from + k * bytes,
                   n * bytes, false);
        kolo__scale(packing->dtype, (unsigned char *)to + k * bytes, n, packing->scale);
    }
}

void kolo__unpack(const struct kolo__packing *packing, void *to, const void *from,
                  struct kolo__norm *norm, size_t first, size_t count)
{
    const struct kolo__cpu_variant *variant = kolo__cpu_best();
    size_t bytes = kolo_dtype_bytes(packing->dtype);
    size_t from_bytes = packing->narrows ? narrow_bytes(packing->wire) : bytes;
    bool one_pass = packing->scale == 1 && norm == NULL;
    KOLO__ASSERT(is_float(packing->dtype));
    KOLO__ASSERT(!packing->narrows || packing->dtype == KOLO_FP32);
    for (size_t k = 0, n; k < count; k += n) {
        unsigned char *target = (unsigned char *)to + k * bytes;
        const unsigned char *source = (const unsigned char *)from + k * from_bytes;
        n = one_pass ? count - k : block_of(count - k);
        if (packing->narrows)
            variant->widen[packing->wire](target, source, n);
        else
            kolo__copy(target, source, n * bytes, false);
        kolo__scale(packing->dtype, target, n, packing->scale);
        if (norm != NULL)
            kolo__norm_add(norm, packing->dtype, target, first + k, n);
    }
}

/* Whole lanes of fp32 or fp64 from lane 0 on; BLOCK is a multiple of their number. */
static void add_aligned(struct kolo__norm *norm, kolo_dtype dtype, const unsigned char *data,
                        size_t count)
{
    const struct kolo__cpu_variant *variant = kolo__cpu_best();
    _Alignas(64) float wide[BLOCK];
    if (dtype == KOLO_FP32) {
        variant->norm_fp32(norm->lanes, data, count, &norm->not_finite);
    } else if (dtype == KOLO_FP64) {
        variant->norm_fp64(norm->lanes, data, count, &norm->not_finite);
    } else {
        for (size_t k = 0, n; k < count; k += n) {
            n = block_of(count - k);
            variant->widen[narrow_of(dtype)](wide, data + 2 * k, n);
            variant->norm_fp32(norm->lanes, wide, n, &norm->not_finite);
        }
    }
}

void kolo__norm_add(struct kolo__norm *norm, kolo_dtype dtype, const void *data, size_t first,
                    size_t count)
{
    const unsigned char *at = data;
    size_t bytes = kolo_dtype_bytes(dtype), lane = first % KOLO__NORM_LANES;
    KOLO__ASSERT(is_float(dtype));
    /* Up to the next first lane: with zeros before, which add nothing. */
    if (lane > 0) {
        unsigned char lanes[KOLO__NORM_LANES * sizeof(double)] = {0};
        size_t n = KOLO__NORM_LANES - lane < count ? KOLO__NORM_LANES - lane : count;
        memcpy(lanes + lane * bytes, at, n * bytes);
        add_aligned(norm, dtype, lanes, lane + n);
        at += n * bytes;
        count -= n;
    }
    add_aligned(norm, dtype, at, count);
}

double kolo__norm_total(const struct kolo__norm *norm)
{
    double total = 0;
    for (int lane = 0; lane < KOLO__NORM_LANES; lane++)
        total += norm->lanes[lane];
    return total;
}

void kolo__scale(kolo_dtype dtype, void *data, size_t count, double factor)
{
    const struct kolo__cpu_variant *variant = kolo__cpu_best();
    _Alignas(64) float wide[BLOCK];
    KOLO__ASSERT(is_float(dtype));
    if (factor == 1)
        return;
    if (dtype == KOLO_FP32) {
        variant->scale_fp32(data, count, factor);
    } else if (dtype == KOLO_FP64) {
        variant->scale_fp64(data, count, factor);
    } else {
        for (size_t k = 0, n; k < count; k += n) {
            unsigned char *at = (unsigned char *)data + 2 * k;
            n = block_of(count - k);
            variant->widen[narrow_of(dtype)](wide, at, n);
            variant->scale_fp32(wide, n, factor);
            variant->narrow[narrow_of(dtype)](at, wide, n);
        }
    }
}

float kolo__absolute_max(const void *data, size_t count)
{
    union {
        uint32_t bits;
        float value;
    } most = {.bits = kolo__cpu_best()->absolute_max(data, count)};
    return most.value;
}

void kolo__sum_narrow(enum kolo__narrow_float wire, void *to, const void *const *sources,
                      uint32_t source_count, uint32_t divisor, size_t count)
{
    const struct kolo__cpu_variant *variant = kolo__cpu_best();
    const struct kolo__reduction add = {.dtype = KOLO_FP32, .op = KOLO_SUM, .divisor = 1};
    const struct kolo__reduction last = {.dtype = KOLO_FP32, .op = KOLO_SUM, .divisor = divisor};
    size_t bytes = narrow_bytes(wire);
    _Alignas(64) float sum[BLOCK], next[BLOCK];
    KOLO__ASSERT(source_count >= 1 && divisor >= 1);
    for (size_t k = 0, n; k < count; k += n) {
        n = block_of(count - k);
        variant->widen[wire](sum, (const unsigned char *)sources[0] + k * bytes, n);
        for (uint32_t i = 1; i < source_count; i++) {
            const void *both[2] = {sum, next};
            variant->widen[wire](next, (const unsigned char *)sources[i] + k * bytes, n);
            kolo__reduce(i + 1 < source_count ? &add : &last, sum, both, 2, n);
        }
        if (source_count == 1 && divisor > 1) {
            const void *one[1] = {sum};
            kolo__reduce(&last, sum, one, 1, n);
        }
        variant->narrow[wire]((unsigned char *)to + k * bytes, sum, n);
    }
}
