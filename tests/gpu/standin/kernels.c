/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels of the CUDA module on a processor, by their names, for the stand-in driver that runs
 * what is launched: from the text that nvcc compiles, thread by thread. (Whether they do what they
 * should is kernels/cuda/twin_test's.)
 */
#include "kernels.h"

#include "kernels/cuda/combine.h"
#include "kernels/cuda/forms.h"
#include "kernels/cuda/walk.h"

#include <math.h>
#include <string.h>

typedef void thread_function(const struct walk *walk, uint32_t block, uint32_t thread,
                             struct walk_partial *partial);

static void run_walk(thread_function *function, unsigned blocks, const struct walk *walk)
{
    struct walk_partial of[WALK_THREADS];
    for (unsigned block = 0; block < blocks; block++) {
        for (uint32_t thread = 0; thread < WALK_THREADS; thread++)
            function(walk, block, thread, &of[thread]);
        for (int thread = 1; thread < WALK_THREADS && walk->partials != 0; thread++)
            add_partial(&of[0], of[thread]);
        if (walk->partials != 0)
            ((struct walk_partial *)(uintptr_t)walk->partials)[block] = of[0];
    }
}

#define WALKS(name, tensor, wire)                                                                  \
    static void pack_thread_##name(const struct walk *walk, uint32_t block, uint32_t thread,       \
                                   struct walk_partial *partial)                                   \
    {                                                                                              \
        walk_thread((struct walk_form){WALK_PACK, tensor, wire}, walk, block, thread, partial);    \
    }                                                                                              \
    static void unpack_thread_##name(const struct walk *walk, uint32_t block, uint32_t thread,     \
                                     struct walk_partial *partial)                                 \
    {                                                                                              \
        walk_thread((struct walk_form){WALK_UNPACK, tensor, wire}, walk, block, thread, partial);  \
    }                                                                                              \
    static void measure_thread_##name(const struct walk *walk, uint32_t block, uint32_t thread,    \
                                      struct walk_partial *partial)                                \
    {                                                                                              \
        walk_thread((struct walk_form){WALK_MEASURE, tensor, wire}, walk, block, thread, partial); \
    }                                                                                              \
    static void pack_##name(unsigned blocks, void **parameters)                                    \
    {                                                                                              \
        run_walk(pack_thread_##name, blocks, parameters[0]);                                       \
    }                                                                                              \
    static void unpack_##name(unsigned blocks, void **parameters)                                  \
    {                                                                                              \
        run_walk(unpack_thread_##name, blocks, parameters[0]);                                     \
    }                                                                                              \
    static void measure_##name(unsigned blocks, void **parameters)                                 \
    {                                                                                              \
        run_walk(measure_thread_##name, blocks, parameters[0]);                                    \
    }
KOLO__FORMS(WALKS)

#define REDUCTION(name, format)                                                                    \
    static void reduce_##name(unsigned blocks, void **parameters)                                  \
    {                                                                                              \
        const struct combination *c = parameters[0];                                               \
        for (unsigned block = 0; block < blocks; block++)                                          \
            for (uint32_t thread = 0; thread < WALK_THREADS; thread++)                             \
                combine_thread(format, c, block, thread);                                          \
    }
KOLO__FORMATS(REDUCTION)

/* As kolo_total in pack.cu. */
struct totals {
    double squares, norm, factor;
    uint32_t absolute_max, not_finite;
};

static void total(unsigned blocks, void **parameters)
{
    const struct walk_partial *partials = *(const struct walk_partial **)parameters[0];
    uint64_t count = *(uint64_t *)parameters[1];
    double clip_norm = *(double *)parameters[2];
    struct walk_partial sum = {0, 0, 0};
    (void)blocks;
    for (uint64_t i = 0; i < count; i++)
        add_partial(&sum, partials[i]);
    struct totals result = {sum.squares, sqrt(sum.squares), 1, sum.absolute_max, sum.not_finite};
    if (clip_norm > 0 && sum.not_finite == 0 && result.norm > clip_norm)
        result.factor = clip_norm / result.norm;
    **(struct totals **)parameters[3] = result;
}

#define NAMES_OF_WALKS(name, tensor, wire)                                                         \
    {"kolo_pack_" #name, pack_##name}, {"kolo_unpack_" #name, unpack_##name},                      \
        {"kolo_measure_" #name, measure_##name},
#define NAME_OF_REDUCTION(name, format) {"kolo_reduce_" #name, reduce_##name},

static const struct kernel {
    const char *name;
    void (*run)(unsigned blocks, void **parameters);
} kernels[] = {KOLO__FORMS(NAMES_OF_WALKS) KOLO__FORMATS(NAME_OF_REDUCTION){"kolo_total", total}};

const void *standin_kernel(const char *name)
{
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++)
        if (strcmp(kernels[i].name, name) == 0)
            return &kernels[i];
    return NULL;
}

void standin_run(const void *kernel, unsigned blocks, void **parameters)
{
    ((const struct kernel *)kernel)->run(blocks, parameters);
}
