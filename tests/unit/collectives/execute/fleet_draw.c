/* SPDX-License-Identifier: Apache-2.0 */
/* What a fleet does, drawn from a seed, and in words. */
#include "fleet.h"

#include "base/random.h"
#include "kernels/kernels.h"

#include <stdio.h>

bool fleet_draw(const struct kolo__algorithm *algorithm, enum kolo__collective collective,
                uint32_t size, uint64_t seed, struct fleet_options *options)
{
    static const size_t counts[] = {0, 1, 2, 3, 7, 16, 17, 100, 257, 1000};
    static const size_t segments[] = {1, 3, 16, 64, 100000};
    static const kolo_dtype dtypes[] = {KOLO_INT8, KOLO_INT32, KOLO_UINT64, KOLO_FP16,
                                        KOLO_BF16, KOLO_FP32,  KOLO_FP64};
    static uint32_t hosts[FLEET_SIZE_MAX];
    struct kolo__random random = {.state = seed};
    bool reduces = kolo__collective_reduces(collective);
    *options = (struct fleet_options){.algorithm = algorithm};
    options->dtype = dtypes[kolo__random_below(&random, sizeof(dtypes) / sizeof(dtypes[0]))];
    do
        options->op = (kolo_op)kolo__random_below(&random, KOLO_OP_COUNT);
    while (!kolo__reduction_defined(options->dtype, options->op));
    size_t element = kolo_dtype_bytes(options->dtype);
    options->rough = reduces && options->dtype == KOLO_FP32 && kolo__random_below(&random, 4) == 0;
    options->segment_bytes = element * segments[kolo__random_below(&random, 5)];
    options->depth = 1 + (uint32_t)kolo__random_below(&random, 4);
    options->in_heap = kolo__random_below(&random, 2) == 0;
    options->repeat = 3;
    for (uint32_t r = 0; r < FLEET_SIZE_MAX; r++)
        hosts[r] = r / 2; /* pairs: what two-level algorithms are for */
    /* Or three and one each, or in turn on three hosts. */
    for (uint32_t r = 0; algorithm->needs_host_mapping && seed % 3 > 0 && r < FLEET_SIZE_MAX; r++)
        hosts[r] = seed % 3 == 2 ? r % 3 : r < 3 ? 0 : r;
    options->problem = (struct kolo__problem){
        .collective = collective,
        .size = size,
        .root = collective == KOLO__BROADCAST || collective == KOLO__REDUCE_TO_ROOT
                    ? (uint32_t)kolo__random_below(&random, size)
                    : 0,
        .count = collective == KOLO__BARRIER ? 0 : counts[kolo__random_below(&random, 10)],
        .in_place = collective != KOLO__ALLTOALL && collective != KOLO__BARRIER &&
                    kolo__random_below(&random, 2) == 0,
        .prescale = reduces && options->op == KOLO_PREMUL_SUM,
        .window_count = (algorithm->needs_host_mapping ? 2 : 1) * size +
                        (size_t)kolo__random_below(&random, 300),
        .chunk_count = seed % 4,
        .burst_count = seed % 5 * 3,
        .host_of = hosts};
    options->sim =
        (struct kolo__sim_options){.seed = seed,
                                   .delay_ns = 100 + kolo__random_below(&random, 1000),
                                   .piece_bytes = kolo__random_below(&random, 2) == 0 ? 0 : 1000,
                                   .buffered_bytes = kolo__random_below(&random, 3) * 500,
                                   .garbled = KOLO__SIM_NEVER,
                                   .cross_reads = kolo__random_below(&random, 2) == 0};
    if (kolo__random_below(&random, 2) == 0)
        options->out_of_heap = (uint32_t)kolo__random_below(&random, 1u << size);
    return algorithm->accepts(&options->problem);
}

const char *fleet_describe(const struct fleet_options *options, char *text, size_t bytes)
{
    const struct kolo__problem *problem = &options->problem;
    snprintf(text, bytes,
             "%s %s, %u ranks, %zu x %s %s%s%s (but 0x%x), pieces 0x%x up to %zu%s, root %u, "
             "segments of %zu, depth %u, "
             "window %zu, chunks of %zu, bursts of %zu, "
             "%sseed %llu",
             options->algorithm->name, kolo__collective_name(problem->collective), problem->size,
             problem->count, kolo_dtype_name(options->dtype), kolo_op_name(options->op),
             problem->in_place ? ", in place" : "", options->in_heap ? ", in heap" : "",
             options->in_heap ? options->out_of_heap : 0, options->in_pieces,
             options->longest_piece, options->rough ? ", rough" : "", problem->root,
             options->segment_bytes, options->depth, problem->window_count, problem->chunk_count,
             problem->burst_count, options->sim.cross_reads ? "cross reads, " : "",
             (unsigned long long)options->sim.seed);
    return text;
}
