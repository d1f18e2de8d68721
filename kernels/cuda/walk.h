/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one thread of the packing kernels does, as C for GPUs and for the host twin (vector.h). A
 * block takes a tile of the row (tables.h), each of its warps a stretch of it, its threads the
 * stretch's vectors in turns:
 *
 *     tile       | warp 0                                  | warp 1 ...
 *                | 0 1 2 ... 31 | 0 1 2 ... 31 | 0 1 ...   | 0 1 ...             which thread
 *
 * so neighbours read neighbouring vectors. A thread loads all of its vectors before it works on the
 * first. Most stretches are whole: in one tensor, and readable where aligned vectors are read for
 * it. Those pay for nothing but their bytes. In others each vector looks for its tensor; reads stay
 * inside: where a vector, or the aligned neighbours that it is joined from, would reach over an
 * end, its elements are loaded one by one.
 */
#ifndef KOLO_KERNELS_CUDA_WALK_H
#define KOLO_KERNELS_CUDA_WALK_H

#include "kernels/cuda/vector.h"

enum { WALK_THREADS = 256, WALK_TURNS = 4, WALK_STRETCH = 32 * WALK_TURNS };

struct walk_segment { /* struct kolo__segment */
    uint64_t tensor, begin, count, first_vector;
};

struct walk_tile { /* struct kolo__tile */
    struct walk_segment segment;
    uint32_t first, last;
};

/* struct kolo__device_partial */
struct walk_partial {
    double squares;
    uint32_t absolute_max, not_finite;
};

enum walk_kind { WALK_PACK, WALK_UNPACK, WALK_MEASURE };

/* A kernel's one parameter. Addresses; 0: none. */
struct walk {
    uint64_t segments, tiles; /* of the row; measure has none */
    uint64_t vector_count;
    uint64_t fused, error, partials, factor;
    uint64_t count; /* measure: elements */
    double scale;
    uint32_t segment_count;
};

/* What one kernel is compiled for. */
struct walk_form {
    enum walk_kind kind;
    enum format tensor, wire;
};

CONVERSION int form_vector(struct walk_form form)
{
    return 16 / format_bytes(form.tensor);
}

CONVERSION enum format form_from(struct walk_form form)
{
    return form.kind == WALK_PACK ? form.tensor : form.wire;
}

/* ---- where a vector is ---------------------------------------------------------------------- */

struct walk_place {
    uint64_t from, to; /* addresses of the vector's element 0; to 0: written nowhere */
    uint64_t from_end; /* where its segment ends */
    int64_t first;     /* element of its segment; negative before the beginning */
    uint64_t count;    /* of its segment */
};

/* The last of the tile's that begins at the vector or before. */
CONVERSION struct walk_segment find_segment(const struct walk *walk, const struct walk_tile *tile,
                                            uint64_t vector)
{
    const struct walk_segment *segments = (const struct walk_segment *)(uintptr_t)walk->segments;
    uint32_t low = tile->first, high = tile->last;
    if (low == high)
        return tile->segment;
    while (low < high) {
        uint32_t middle = low + (high - low + 1) / 2;
        if (segments[middle].first_vector <= vector)
            low = middle;
        else
            high = middle - 1;
    }
    return segments[low];
}

CONVERSION struct walk_place find_place(struct walk_form form, const struct walk *walk,
                                        struct walk_segment segment, uint64_t vector)
{
    const uint64_t n = (uint64_t)form_vector(form);
    const uint64_t tensor_bytes = (uint64_t)format_bytes(form.tensor);
    const uint64_t wire_bytes = (uint64_t)format_bytes(form.wire);
    struct walk_place place;
    place.count = segment.count;
    place.first = (int64_t)((vector - segment.first_vector) * n);
    if (form.kind == WALK_PACK) {
        place.from = segment.tensor + (uint64_t)place.first * tensor_bytes;
        place.from_end = segment.tensor + segment.count * tensor_bytes;
        place.to = walk->fused == 0 ? 0 : walk->fused + vector * n * wire_bytes;
    } else {
        uint64_t head = segment.tensor / tensor_bytes % n;
        place.first -= form.kind == WALK_UNPACK ? (int64_t)head : 0;
        place.from = walk->fused + (segment.begin + (uint64_t)place.first) * wire_bytes;
        place.from_end = walk->fused + (segment.begin + segment.count) * wire_bytes;
        place.to =
            form.kind == WALK_UNPACK ? segment.tensor + (uint64_t)place.first * tensor_bytes : 0;
    }
    return place;
}

/* Bit i: element i of the vector is one of the tensor's; all bits where all are. */
CONVERSION uint32_t find_valid(struct walk_form form, const struct walk_place *place)
{
    const int n = form_vector(form);
    uint32_t valid = 0;
    if (place->first >= 0 && (uint64_t)place->first + (uint64_t)n <= place->count)
        return ~0u;
    UNROLL for (int i = 0; i < n; i++)
    {
        int64_t k = place->first + i;
        valid |= k >= 0 && (uint64_t)k < place->count ? 1u << i : 0;
    }
    return valid;
}

CONVERSION struct words load_place(struct walk_form form, const struct walk_place *place,
                                   uint32_t valid)
{
    const int n = form_vector(form), element = format_bytes(form_from(form)), bytes = n * element;
    struct words a = {{0, 0, 0, 0}};
    uint64_t skew = place->from & (uint64_t)(bytes - 1);
    uint64_t begin = place->from - (uint64_t)place->first * (uint64_t)element;
    bool inside = skew == 0 || (place->from - skew >= begin &&
                                place->from - skew + 2 * (uint64_t)bytes <= place->from_end);
    if (valid == ~0u && inside)
        return load_skewed(place->from, bytes);
    UNROLL for (int i = 0; i < n; i++)
    {
        if ((valid >> i & 1) == 0)
            continue;
        struct words one = load_aligned(place->from + (uint64_t)i * (uint64_t)element, element);
        if (element == 8)
            a.w[2 * (i & 1)] = one.w[0], a.w[2 * (i & 1) + 1] = one.w[1];
        else
            put_bits(&a, i, element, one.w[0]);
    }
    return a;
}

CONVERSION void store_place(struct walk_form form, const struct walk_place *place, struct words a,
                            uint32_t valid)
{
    const int n = form_vector(form);
    const int element = format_bytes(form.kind == WALK_PACK ? form.wire : form.tensor);
    if (form.kind == WALK_PACK || valid == ~0u) {
        store_aligned(place->to, a, n * element);
        return;
    }
    UNROLL for (int i = 0; i < n; i++)
    {
        if ((valid >> i & 1) == 0)
            continue;
        struct words one = {{0, 0, 0, 0}};
        if (element == 8)
            one.w[0] = a.w[2 * (i & 1)], one.w[1] = a.w[2 * (i & 1) + 1];
        else
            one.w[0] = get_bits(&a, i, element);
        store_aligned(place->to + (uint64_t)i * (uint64_t)element, one, element);
    }
}

/* ---- what is done to it --------------------------------------------------------------------- */

/* Of elements in the tensor's format; what is masked is 0 and adds nothing. Of all formats but fp64
 * the largest magnitude tells what is not finite (walk_thread). */
CONVERSION void add_statistics(enum format format, struct words a, struct walk_partial *partial)
{
    const int bytes = format_bytes(format), n = 16 / bytes;
    double squares[16];
    UNROLL for (int i = 0; i < n; i++)
    {
        uint32_t magnitude;
        if (format == FORMAT_FP64) {
            double x = get_double(&a, i);
            squares[i] = x * x;
            magnitude = fp32_bits((float)x) & 0x7fffffffu;
            partial->not_finite |= (a.w[2 * (i & 1) + 1] & 0x7ff00000u) == 0x7ff00000u;
        } else {
            float x = widen_bits(format, get_bits(&a, i, bytes));
            squares[i] = (double)x * (double)x;
            magnitude = fp32_bits(x) & 0x7fffffffu;
        }
        partial->absolute_max =
            magnitude > partial->absolute_max ? magnitude : partial->absolute_max;
    }
    UNROLL for (int half = n / 2; half > 0; half /= 2)
    {
        UNROLL for (int i = 0; i < half; i++) squares[i] += squares[i + half];
    }
    partial->squares += squares[0];
}

/* fp32 and its error, which lies like the fused buffer: kolo__pack. Only vectors of 4. */
CONVERSION struct words add_error(struct words a, uint64_t error, enum format wire)
{
    struct words before = load_aligned(error, 16), after = {{0, 0, 0, 0}};
    UNROLL for (int i = 0; i < 4; i++)
    {
        float wanted = one_nan(fp32_from_bits(a.w[i]) + fp32_from_bits(before.w[i]));
        float sent = widen_bits(wire, narrow_bits(wire, wanted));
        uint32_t rest = fp32_bits(wanted - sent);
        a.w[i] = fp32_bits(wanted);
        after.w[i] = (rest & 0x7f800000u) == 0x7f800000u ? 0 : rest;
    }
    store_aligned(error, after, 16);
    return a;
}

CONVERSION struct words walk_vector(struct walk_form form, const struct walk *walk, struct words a,
                                    uint32_t valid, uint64_t vector, struct walk_partial *partial)
{
    const int n = form_vector(form);
    if (form.kind != WALK_PACK)
        a = cast_vector(a, form.wire, form.tensor, n);
    a = scale_vector(a, form.tensor, walk->scale);
    if (walk->factor != 0)
        a = scale_vector(a, form.tensor, *(const double *)(uintptr_t)walk->factor);
    if (form.kind == WALK_PACK && form.tensor == FORMAT_FP32 && form.wire != FORMAT_FP32 &&
        walk->error != 0)
        a = add_error(a, walk->error + vector * 16, form.wire);
    if (form.kind != WALK_UNPACK)
        a = mask_vector(a, format_bytes(form.tensor), valid);
    if (form.kind != WALK_UNPACK && walk->partials != 0)
        add_statistics(form.tensor, a, partial);
    if (form.kind == WALK_PACK)
        a = cast_vector(a, form.tensor, form.wire, n);
    return a;
}

/* ---- stretches ------------------------------------------------------------------------------ */

/* Of a stretch that begins at the place: the same on all threads of the warp. */
CONVERSION bool is_whole(struct walk_form form, const struct walk *walk,
                         const struct walk_place *place, uint64_t begin)
{
    const int n = form_vector(form), element = format_bytes(form_from(form));
    const uint64_t bytes = (uint64_t)n * (uint64_t)element, count = WALK_STRETCH * (uint64_t)n;
    const uint64_t skew = place->from & (bytes - 1);
    if (begin + WALK_STRETCH > walk->vector_count || place->first < 0 ||
        (uint64_t)place->first + count > place->count)
        return false;
    return skew == 0 || ((uint64_t)place->first * (uint64_t)element >= skew &&
                         place->from - skew + (WALK_STRETCH + 1) * bytes <= place->from_end);
}

#if defined(__CUDA_ARCH__)
/* `skip` whole words and `bits` further on. What lies behind a lane's vector is in the next lane,
 * or, behind that of the last one, in lane 0 a turn later. */
CONVERSION void realign_words(struct words a[WALK_TURNS], struct words after, int bytes, int skip,
                              uint32_t bits, uint32_t lane)
{
    const int n = bytes / 4;
    if (skip >= n)
        return;
    UNROLL for (int turn = 0; turn < WALK_TURNS; turn++)
    {
        const struct words later = turn + 1 < WALK_TURNS ? a[(turn + 1) % WALK_TURNS] : after;
        uint32_t w[8];
        UNROLL for (int i = 0; i < n; i++) w[i] = a[turn].w[i];
        UNROLL for (int i = 0; i <= skip; i++) w[n + i] =
            __shfl_sync(~0u, lane == 0 ? later.w[i] : a[turn].w[i], (int)lane + 1);
        UNROLL for (int i = 0; i < n; i++) a[turn].w[i] =
            funnel_right(w[i + skip], w[i + skip + 1], bits);
    }
}
#endif

/* Vectors that begin `skew` bytes behind aligned ones, which a warp has loaded, this lane's first
 * from `from`. All lanes call it. */
CONVERSION void realign(struct words a[WALK_TURNS], uint64_t from, int bytes, uint32_t skew,
                        uint32_t lane)
{
#if defined(__CUDA_ARCH__)
    struct words after = {{0, 0, 0, 0}};
    if (lane == 0)
        after = load_aligned(from + (uint32_t)(WALK_STRETCH * bytes), bytes);
    switch (skew / 4) {
    case 0:
        realign_words(a, after, bytes, 0, 8 * (skew % 4), lane);
        break;
    case 1:
        realign_words(a, after, bytes, 1, 8 * (skew % 4), lane);
        break;
    case 2:
        realign_words(a, after, bytes, 2, 8 * (skew % 4), lane);
        break;
    default:
        realign_words(a, after, bytes, 3, 8 * (skew % 4), lane);
        break;
    }
#else
    (void)lane;
    for (int turn = 0; turn < WALK_TURNS; turn++)
        a[turn] = join(a[turn], load_aligned(from + (uint32_t)((turn * 32 + 1) * bytes), bytes),
                       bytes, skew);
#endif
}

CONVERSION void walk_whole(struct walk_form form, const struct walk *walk,
                           const struct walk_place *place, uint64_t begin, uint32_t lane,
                           struct walk_partial *partial)
{
    const int n = form_vector(form), bytes = n * format_bytes(form_from(form));
    const int bytes_out = n * format_bytes(form.kind == WALK_PACK ? form.wire : form.tensor);
    const uint32_t skew = (uint32_t)place->from & (uint32_t)(bytes - 1);
    const uint64_t from = place->from - skew + lane * (uint32_t)bytes;
    const uint64_t to = place->to + lane * (uint32_t)bytes_out;
    struct words loaded[WALK_TURNS];
    UNROLL for (int turn = 0; turn < WALK_TURNS; turn++) loaded[turn] =
        load_aligned(from + (uint32_t)(turn * 32 * bytes), bytes);
    if (skew != 0)
        realign(loaded, from, bytes, skew, lane);
    UNROLL for (int turn = 0; turn < WALK_TURNS; turn++)
    {
        struct words a = walk_vector(form, walk, loaded[turn], ~0u,
                                     begin + (uint32_t)(turn * 32) + lane, partial);
        if (place->to != 0)
            store_aligned(to + (uint32_t)(turn * 32 * bytes_out), a, bytes_out);
    }
}

/* Any stretch: of several tensors, with ends, with padding. Places are found twice, which leaves
 * registers for more threads on a multiprocessor. */
CONVERSION void walk_parts(struct walk_form form, const struct walk *walk,
                           const struct walk_tile *tile, uint64_t begin, uint32_t lane,
                           struct walk_partial *partial)
{
    struct words loaded[WALK_TURNS];
    UNROLL for (int turn = 0; turn < WALK_TURNS; turn++)
    {
        uint64_t vector = begin + (uint32_t)(turn * 32) + lane;
        if (vector >= walk->vector_count)
            continue;
        struct walk_place place = find_place(form, walk, find_segment(walk, tile, vector), vector);
        loaded[turn] = load_place(form, &place, find_valid(form, &place));
    }
    UNROLL for (int turn = 0; turn < WALK_TURNS; turn++)
    {
        uint64_t vector = begin + (uint32_t)(turn * 32) + lane;
        if (vector >= walk->vector_count)
            continue;
        struct walk_place place = find_place(form, walk, find_segment(walk, tile, vector), vector);
        uint32_t valid = find_valid(form, &place);
        struct words a = walk_vector(form, walk, loaded[turn], valid, vector, partial);
        if (place.to != 0)
            store_place(form, &place, a, valid);
    }
}

/* All that a thread does, but for what threads do together (add_partial, in the order there). */
CONVERSION void walk_thread(struct walk_form form, const struct walk *walk, uint32_t block,
                            uint32_t thread, struct walk_partial *partial)
{
    const uint64_t begin = (uint64_t)block * WALK_THREADS * WALK_TURNS + thread / 32 * WALK_STRETCH;
    struct walk_tile tile = {{0, 0, walk->count, 0}, 0, 0};
    *partial = (struct walk_partial){0, 0, 0};
    if (begin >= walk->vector_count)
        return;
    if (form.kind != WALK_MEASURE)
        tile = ((const struct walk_tile *)(uintptr_t)walk->tiles)[block];
    struct walk_place place = find_place(form, walk, find_segment(walk, &tile, begin), begin);
    if (is_whole(form, walk, &place, begin))
        walk_whole(form, walk, &place, begin, thread % 32, partial);
    else
        walk_parts(form, walk, &tile, begin, thread % 32, partial);
    if (form.tensor != FORMAT_FP64)
        partial->not_finite = partial->absolute_max >= 0x7f800000u;
}

/* ---- what threads do together ---------------------------------------------------------------- */

/* a = a + b. Of a warp's 32 partials: lane i takes that of lane i + 16, then 8, 4, 2, 1; then the
 * warps' in their order. */
CONVERSION void add_partial(struct walk_partial *a, struct walk_partial b)
{
    a->squares += b.squares;
    a->absolute_max = b.absolute_max > a->absolute_max ? b.absolute_max : a->absolute_max;
    a->not_finite |= b.not_finite;
}

/* Of all threads, to be told: a NaN has the same bits wherever it was added. */
CONVERSION struct walk_partial finish_partial(struct walk_partial sum)
{
    sum.squares = one_nan_double(sum.squares);
    return sum;
}

#endif
