/* SPDX-License-Identifier: Apache-2.0 */
/* See twin.h. */
#include "twin.h"

#include "kernels/cuda/combine.h"
#include "kernels/cuda/forms.h"
#include "kernels/cuda/integers.h"
#include "kernels/cuda/tables.h"
#include "kernels/cuda/total.h"
#include "kernels/cuda/walk.h"

#include <stdlib.h>

_Static_assert(sizeof(struct walk_segment) == sizeof(struct kolo__segment), "one table");
_Static_assert(sizeof(struct walk_partial) == sizeof(struct kolo__device_partial), "one partial");
_Static_assert(WALK_THREADS *WALK_TURNS == KOLO__DEVICE_TILE_VECTORS, "one tile");

typedef void thread_function(const struct walk *walk, uint32_t block, uint32_t thread,
                             struct walk_partial *partial);

#define THREADS(name, tensor, wire)                                                                \
    static void pack_##name(const struct walk *walk, uint32_t block, uint32_t thread,              \
                            struct walk_partial *partial)                                          \
    {                                                                                              \
        walk_thread((struct walk_form){WALK_PACK, tensor, wire}, walk, block, thread, partial);    \
    }                                                                                              \
    static void unpack_##name(const struct walk *walk, uint32_t block, uint32_t thread,            \
                              struct walk_partial *partial)                                        \
    {                                                                                              \
        walk_thread((struct walk_form){WALK_UNPACK, tensor, wire}, walk, block, thread, partial);  \
    }                                                                                              \
    static void measure_##name(const struct walk *walk, uint32_t block, uint32_t thread,           \
                               struct walk_partial *partial)                                       \
    {                                                                                              \
        walk_thread((struct walk_form){WALK_MEASURE, tensor, wire}, walk, block, thread, partial); \
    }
KOLO__FORMS(THREADS)

#define OF_FORM(name, tensor, wire) {pack_##name, unpack_##name, measure_##name},
static thread_function *const functions[KOLO__FORM_COUNT][3] = {KOLO__FORMS(OF_FORM)};

/* As add_threads does it: within warps first. Leaves the sum in of[0]. */
static void add_threads(struct walk_partial *of, int threads)
{
    for (int offset = 16; offset > 0; offset /= 2)
        for (int thread = 0; thread < threads; thread++)
            if (thread % 32 < offset)
                add_partial(&of[thread], of[thread + offset]);
    for (int warp = 1; warp < threads / 32; warp++)
        add_partial(&of[0], of[32 * warp]);
}

void twin_run_walk(int kind, int form, const void *parameter, uint32_t blocks)
{
    struct walk_partial of[WALK_THREADS];
    const struct walk *walk = parameter;
    for (uint32_t block = 0; block < blocks; block++) {
        for (uint32_t thread = 0; thread < WALK_THREADS; thread++)
            functions[form][kind](walk, block, thread, &of[thread]);
        if (walk->partials == 0)
            continue;
        add_threads(of, WALK_THREADS);
        ((struct walk_partial *)(uintptr_t)walk->partials)[block] = finish_partial(of[0]);
    }
}

static void run_blocks(const struct kolo__packing *packing, enum walk_kind kind,
                       const struct walk *walk)
{
    uint64_t blocks =
        (walk->vector_count + WALK_THREADS * WALK_TURNS - 1) / (WALK_THREADS * WALK_TURNS);
    twin_run_walk((int)kind,
                  kolo__form_index((int)packing->dtype, packing->narrows, (int)packing->wire), walk,
                  (uint32_t)blocks);
}

void twin_total(const struct kolo__device_partial *partials, size_t count, double clip_norm,
                struct kolo__device_total *total)
{
    struct walk_partial of[TOTAL_THREADS];
    for (uint32_t thread = 0; thread < TOTAL_THREADS; thread++)
        of[thread] = total_thread((const struct walk_partial *)partials, count, thread);
    add_threads(of, TOTAL_THREADS);
    struct totals result = finish_total(of[0], clip_norm);
    memcpy(total, &result, sizeof *total);
}

void twin_choose_scale(const void *scaling)
{
    choose_scale(scaling);
}

static void run_row(const struct kolo__device_layout *layout, const struct kolo__device_run *run,
                    enum walk_kind kind)
{
    struct kolo__row row;
    if (!kolo__row_create(layout, kind == WALK_UNPACK, &row))
        abort(); /* no memory */
    const struct walk walk = {.segments = (uintptr_t)row.segments,
                              .tiles = (uintptr_t)row.tiles,
                              .vector_count = row.vector_count,
                              .fused = (uintptr_t)run->fused,
                              .error = (uintptr_t)run->error,
                              .partials = (uintptr_t)run->partials,
                              .factor = (uintptr_t)run->factor,
                              .scale = run->scale,
                              .segment_count = row.segment_count};
    run_blocks(&layout->packing, kind, &walk);
    kolo__row_free(&row);
}

void twin_pack(const struct kolo__device_layout *layout, const struct kolo__device_run *run)
{
    run_row(layout, run, WALK_PACK);
}

void twin_unpack(const struct kolo__device_layout *layout, const struct kolo__device_run *run)
{
    run_row(layout, run, WALK_UNPACK);
}

void twin_measure(const struct kolo__packing *packing, const void *fused, size_t count,
                  struct kolo__device_partial *partials)
{
    size_t vector = kolo__device_vector(packing);
    const struct walk walk = {.vector_count = (count + vector - 1) / vector,
                              .fused = (uintptr_t)fused,
                              .partials = (uintptr_t)partials,
                              .count = count,
                              .scale = packing->scale};
    run_blocks(packing, WALK_MEASURE, &walk);
}

/* ---- reductions ------------------------------------------------------------------------------ */

#define REDUCTION(name, format)                                                                    \
    static void reduce_##name(const struct combination *c, uint32_t block, uint32_t thread)        \
    {                                                                                              \
        combine_thread(format, c, block, thread);                                                  \
    }
KOLO__FORMATS(REDUCTION)

#define OF_FORMAT(name, format) reduce_##name,
static void (*const reductions[KOLO__FORMAT_COUNT])(const struct combination *, uint32_t,
                                                    uint32_t) = {KOLO__FORMATS(OF_FORMAT)};

void twin_run_combination(int format, const void *parameter, uint32_t blocks)
{
    for (uint32_t block = 0; block < blocks; block++)
        for (uint32_t thread = 0; thread < WALK_THREADS; thread++)
            reductions[format](parameter, block, thread);
}

#define INTEGERS(name, bytes, is_signed)                                                           \
    static void reduce_##name(const struct combination *c, uint32_t block, uint32_t thread)        \
    {                                                                                              \
        combine_integers_thread(bytes, is_signed, c, block, thread);                               \
    }
KOLO__INTEGERS(INTEGERS)

#define OF_INTEGERS(name, bytes, is_signed) reduce_##name,
static void (*const of_integers[KOLO__INTEGER_COUNT])(const struct combination *, uint32_t,
                                                      uint32_t) = {KOLO__INTEGERS(OF_INTEGERS)};

void twin_run_integers(int dtype, const void *parameter, uint32_t blocks)
{
    for (uint32_t block = 0; block < blocks; block++)
        for (uint32_t thread = 0; thread < WALK_THREADS; thread++)
            of_integers[dtype](parameter, block, thread);
}

static void run_combination(enum format format, const struct combination *c)
{
    uint64_t blocks = (combine_vector_count(format, c) + WALK_THREADS - 1) / WALK_THREADS;
    twin_run_combination((int)format, c, (uint32_t)blocks);
}

void twin_reduce(const struct kolo__reduction *reduction, void *to, const void *const *sources,
                 uint32_t source_count, size_t count)
{
    static const enum format widths[] = {FORMAT_E4M3, FORMAT_FP16, FORMAT_FP32, FORMAT_FP64};
    static const enum format formats[] = {FORMAT_FP16, FORMAT_BF16, FORMAT_FP32, FORMAT_FP64};
    struct combination c = {.to = (uintptr_t)to,
                            .count = count,
                            .source_count = source_count,
                            .divisor = reduction->divisor};
    c.op = reduction->op == KOLO_PRODUCT ? COMBINE_PRODUCT
           : reduction->op == KOLO_MIN   ? COMBINE_MIN
           : reduction->op == KOLO_MAX   ? COMBINE_MAX
           : reduction->op == KOLO_AND   ? COMBINE_AND
           : reduction->op == KOLO_OR    ? COMBINE_OR
           : reduction->op == KOLO_XOR   ? COMBINE_XOR
                                         : COMBINE_SUM;
    c.scaled = reduction->scales != NULL;
    for (uint32_t i = 0; i < source_count; i++) {
        c.sources[i] = (uintptr_t)sources[i];
        c.scales[i] = c.scaled ? reduction->scales[i] : 1;
    }
    if (reduction->dtype >= KOLO_FP16) {
        run_combination(formats[reduction->dtype - KOLO_FP16], &c);
        return;
    }
    uint64_t vectors = combine_vector_count(widths[reduction->dtype % 4], &c);
    twin_run_integers((int)reduction->dtype, &c,
                      (uint32_t)((vectors + WALK_THREADS - 1) / WALK_THREADS));
}

void twin_sum_narrow(enum kolo__narrow_float wire, void *to, const void *const *sources,
                     uint32_t source_count, uint32_t divisor, size_t count)
{
    struct combination c = {.to = (uintptr_t)to,
                            .count = count,
                            .source_count = source_count,
                            .divisor = divisor,
                            .casts = 1};
    for (uint32_t i = 0; i < source_count; i++)
        c.sources[i] = (uintptr_t)sources[i];
    run_combination((enum format)wire, &c);
}
