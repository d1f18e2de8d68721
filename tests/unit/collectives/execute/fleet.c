/* SPDX-License-Identifier: Apache-2.0 */
/* Building, driving and checking fleets. */
#include "fleet.h"

#include "base/random.h"
#include "kernels/kernels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { GUARD = 64, GUARD_BYTE = 0xe7 };

static const uint64_t deadline_ns = 400 * 1000 * 1000;

/* ---- contents -------------------------------------------------------------------------------- */

static void store(unsigned char *at, kolo_dtype dtype, double value)
{
    switch (dtype) {
    case KOLO_FP16: {
        uint16_t bits = kolo__fp16_from_fp32((float)value);
        memcpy(at, &bits, sizeof(bits));
        break;
    }
    case KOLO_BF16: {
        uint16_t bits = kolo__bf16_from_fp32((float)value);
        memcpy(at, &bits, sizeof(bits));
        break;
    }
    case KOLO_FP32: {
        float number = (float)value;
        memcpy(at, &number, sizeof(number));
        break;
    }
    case KOLO_FP64:
        memcpy(at, &value, sizeof(value));
        break;
    default: { /* little endian, so the low bytes are the integer of any width */
        int64_t number = (int64_t)value;
        memcpy(at, &number, kolo_dtype_bytes(dtype));
        break;
    }
    }
}

/* Element i that rank contributes to a run. Small whole numbers: no order of combining them rounds.
 * Every run has others, so what is left from the last one is not right by chance. */
static double value_of(const struct fleet_options *options, uint32_t rank, uint32_t run, size_t i)
{
    if (options->rough) {
        struct kolo__random random = {.state = (rank * 64 + run) * 1000003 + i};
        return (double)kolo__random_below(&random, 1u << 20) / 9973 - 50;
    }
    if (options->op == KOLO_PRODUCT)
        return (rank + i + run) % 3 == 0 ? 2 : 1;
    return (double)((rank * 5 + i * 3 + i / 7 + run * (1 + i % 5)) % 7) - 1;
}

/* NaNs that differ in sign: the sum keeps the bits of one of them, the same on every rank. */
static void store_nan(unsigned char *at, uint32_t rank)
{
    uint32_t bits = 0x7fc00000u | rank << 31 | rank;
    memcpy(at, &bits, sizeof(bits));
}

static double scale_of(uint32_t rank)
{
    static const double scales[] = {0.5, 2, 1, 4};
    return scales[rank % 4];
}

static unsigned char *original_of(const struct fleet_rank *rank, uint32_t run)
{
    return rank->originals + run * rank->input_bytes;
}

/* What OUTPUT of `rank` must be after a run. */
static void reference(const struct fleet *fleet, uint32_t rank, uint32_t run,
                      unsigned char *expected)
{
    const struct fleet_options *options = &fleet->options;
    const struct kolo__problem *problem = &options->problem;
    size_t bytes = kolo_dtype_bytes(options->dtype);
    size_t part = problem->count * bytes;
    const void *sources[FLEET_SIZE_MAX];
    double scales[FLEET_SIZE_MAX];
    struct kolo__reduction reduction = {.dtype = options->dtype,
                                        .op = options->op,
                                        .divisor = options->op == KOLO_AVERAGE ? problem->size : 1};
    for (uint32_t r = 0; r < problem->size; r++) {
        const unsigned char *input = original_of(&fleet->ranks[r], run);
        sources[r] = input + (problem->collective == KOLO__REDUCE_SCATTER ? rank * part : 0);
        scales[r] = scale_of(r);
        if (problem->collective == KOLO__ALLGATHER)
            memcpy(expected + r * part, input, part);
        if (problem->collective == KOLO__ALLTOALL)
            memcpy(expected + r * part, input + rank * part, part);
        if (problem->collective == KOLO__BROADCAST && r == problem->root)
            memcpy(expected, input, part);
    }
    if (options->op == KOLO_PREMUL_SUM)
        reduction.scales = scales;
    if (kolo__collective_reduces(problem->collective))
        kolo__reduce(&reduction, expected, sources, problem->size, problem->count);
}

/* ---- building -------------------------------------------------------------------------------- */

static uint8_t algorithm_index(const struct kolo__algorithm *algorithm)
{
    for (uint8_t i = 0; kolo__algorithms[i] != NULL; i++)
        if (kolo__algorithms[i] == algorithm)
            return i;
    fail_msg("unknown algorithm");
    return 0;
}

static bool is_odd(const struct fleet *fleet, uint32_t rank)
{
    return fleet->options.odd_algorithm != NULL && fleet->options.odd_rank == rank;
}

static const struct kolo__algorithm *algorithm_of(const struct fleet *fleet, uint32_t rank)
{
    return is_odd(fleet, rank) ? fleet->options.odd_algorithm : fleet->options.algorithm;
}

static void build(struct fleet *fleet, uint32_t rank, struct kolo__schedule *schedule)
{
    struct kolo__problem problem = fleet->options.problem;
    problem.rank = rank;
    if (is_odd(fleet, rank))
        problem.count = fleet->options.odd_count;
    assert_int_equal(algorithm_of(fleet, rank)->build(&problem, schedule), KOLO_OK);
}

static bool is_mapped(const struct fleet_options *options)
{
    return options->algorithm->needs_mapping || options->algorithm->needs_host_mapping;
}

static bool lies_in_heap(const struct fleet *fleet, uint32_t rank)
{
    return fleet->options.in_heap && is_mapped(&fleet->options) &&
           (fleet->options.out_of_heap >> rank & 1) == 0;
}

static void *take(struct fleet *fleet, uint32_t rank, size_t bytes)
{
    void *memory =
        lies_in_heap(fleet, rank) ? kolo__sim_alloc(fleet->sim, rank, bytes) : malloc(bytes);
    assert_non_null(memory);
    fleet->ranks[rank].memory = memory;
    return memory;
}

/* | guard | output | guard | input | guard |, or the smaller inside the larger when in place. */
static void make_buffers(struct fleet *fleet, uint32_t r, const struct kolo__schedule *schedule)
{
    const struct fleet_options *options = &fleet->options;
    struct fleet_rank *rank = &fleet->ranks[r];
    size_t element = kolo_dtype_bytes(options->dtype);
    rank->input_bytes = schedule->input_count * element;
    rank->output_bytes = schedule->output_count * element;
    size_t total = 3 * GUARD + rank->input_bytes + rank->output_bytes;
    unsigned char *memory = take(fleet, r, total);
    memset(memory, GUARD_BYTE, total);
    rank->output = memory + GUARD;
    rank->input = rank->output + rank->output_bytes + GUARD;
    if (schedule->problem.in_place) {
        ptrdiff_t shift = (ptrdiff_t)(schedule->input_in_output * element);
        rank->output = memory + GUARD + (shift < 0 ? -shift : 0);
        rank->input = rank->output + shift;
    }
    rank->originals = malloc(options->repeat * rank->input_bytes + 1);
    assert_non_null(rank->originals);
    for (uint32_t run = 0; run < options->repeat; run++) {
        for (size_t i = 0; i < schedule->input_count; i++) {
            unsigned char *at = original_of(rank, run) + i * element;
            if (options->rough && i % 11 == 3)
                store_nan(at, r);
            else
                store(at, options->dtype, value_of(options, r, run, i));
        }
    }
}

void fleet_open(struct fleet *fleet, const struct fleet_options *options)
{
    struct kolo__schedule schedules[FLEET_SIZE_MAX];
    size_t element = kolo_dtype_bytes(options->dtype);
    uint32_t size = options->problem.size;
    memset(fleet, 0, sizeof(*fleet));
    fleet->options = *options;
    struct kolo__sim_options sim = options->sim;
    sim.size = size;
    for (uint32_t r = 0; r < size; r++) {
        build(fleet, r, &schedules[r]);
        size_t slot = schedules[r].slot_count * element;
        sim.slot_bytes = slot > sim.slot_bytes ? slot : sim.slot_bytes;
    }
    if (options->algorithm->needs_host_mapping)
        sim.host_of = options->problem.host_of;
    if (is_mapped(options)) {
        sim.window_bytes = options->problem.window_count * element;
        size_t buffers = 4 * GUARD + 2 * (size + 1) * options->problem.count * element;
        sim.share_bytes = (2 * (sim.slot_bytes + 2 * sim.window_bytes) + buffers + 1024) / 64 * 64;
    }
    assert_int_equal(kolo__sim_create(&sim, &fleet->sim), KOLO_OK);
    const struct kolo__program_options program = {.dtype = options->dtype,
                                                  .op = options->op,
                                                  .segment_bytes = options->segment_bytes,
                                                  .depth = options->depth,
                                                  .cache_bytes = options->depth % 2};
    for (uint32_t r = 0; r < size; r++) {
        make_buffers(fleet, r, &schedules[r]);
        fleet_cut(fleet, r);
        assert_int_equal(kolo__program_create(&schedules[r], &program, &fleet->ranks[r].program),
                         KOLO_OK);
        assert_null(schedules[r].steps);
    }
}

/* ---- checking ---------------------------------------------------------------------------------
 */

/* Rounding differs with the order of additions: compare with a tolerance, and among ranks exactly.
 */
static bool roughly_equal(const unsigned char *a, const unsigned char *b, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += sizeof(float)) {
        float x, y;
        memcpy(&x, a + i, sizeof(x));
        memcpy(&y, b + i, sizeof(y));
        float error = x > y ? x - y : y - x;
        float magnitude = y > 0 ? y : -y;
        bool both_nan = x != x && y != y;
        if (!both_nan && !(error <= 1e-3f + 1e-3f * magnitude))
            return false;
    }
    return true;
}

static bool guarded(const struct fleet_rank *rank, bool in_place)
{
    const unsigned char *low = rank->output, *high = rank->output + rank->output_bytes;
    if (in_place && rank->input_bytes > 0) {
        low = rank->input < low ? rank->input : low;
        high = rank->input + rank->input_bytes > high ? rank->input + rank->input_bytes : high;
    }
    for (size_t i = 1; i <= GUARD; i++)
        if (low[-(ptrdiff_t)i] != GUARD_BYTE || high[i - 1] != GUARD_BYTE)
            return false;
    return true;
}

/* What a rank has right after one of its runs. */
static void check_run(struct fleet *fleet, uint32_t r, uint32_t run)
{
    const struct kolo__problem *problem = &fleet->options.problem;
    struct fleet_rank *rank = &fleet->ranks[r];
    char what[400];
    fleet_describe(&fleet->options, what, sizeof(what));
    if (rank->piece_count > 0 && !fleet_gather(rank, kolo_dtype_bytes(fleet->options.dtype)))
        fail_msg("%s: rank %u wrote outside its pieces", what, r);
    unsigned char *expected = malloc(rank->output_bytes + 1);
    assert_non_null(expected);
    if (rank->output_bytes > 0) {
        reference(fleet, r, run, expected);
        bool right = fleet->options.rough
                         ? roughly_equal(rank->output, expected, rank->output_bytes)
                         : memcmp(rank->output, expected, rank->output_bytes) == 0;
        if (!right)
            fail_msg("%s: rank %u has a wrong result in run %u", what, r, run);
    }
    free(expected);
    if (!guarded(rank, problem->in_place))
        fail_msg("%s: rank %u wrote outside its buffers", what, r);
    if (!problem->in_place && rank->input_bytes > 0 &&
        memcmp(rank->input, original_of(rank, run), rank->input_bytes) != 0)
        fail_msg("%s: rank %u wrote to its input", what, r);
}

/* ---- running --------------------------------------------------------------------------------- */

static struct kolo__program *next_program(void *self, uint32_t r)
{
    struct fleet *fleet = self;
    struct fleet_rank *rank = &fleet->ranks[r];
    const struct fleet_options *options = &fleet->options;
    if (rank->runs > 0 && options->odd_algorithm == NULL)
        check_run(fleet, r, rank->runs - 1);
    if (rank->runs == options->repeat)
        return NULL;
    if (rank->input_bytes > 0)
        memcpy(rank->input, original_of(rank, rank->runs), rank->input_bytes);
    rank->runs++;
    bool in_pieces = rank->piece_count > 0;
    if (in_pieces)
        fleet_scatter(rank, kolo_dtype_bytes(options->dtype));
    struct kolo__run_arguments arguments = {
        .input = in_pieces ? NULL : rank->input,
        .output = in_pieces ? NULL : rank->output,
        .pieces = rank->pieces,
        .piece_count = rank->piece_count,
        .scale = scale_of(r),
        .signature = {.epoch = 1,
                      .comm = 1,
                      .sequence = rank->runs,
                      .collective = (uint8_t)options->problem.collective,
                      .dtype = (uint8_t)options->dtype,
                      .op = (uint8_t)options->op,
                      .algorithm = algorithm_index(algorithm_of(fleet, r)),
                      .root = options->problem.root,
                      .count = is_odd(fleet, r) ? options->odd_count : options->problem.count},
        .transport = kolo__sim_transport(fleet->sim, r),
        .mapping = kolo__sim_mapping(fleet->sim, r)};
    kolo__run_begin(rank->program, &arguments);
    return rank->program;
}

kolo_status fleet_drive(struct fleet *fleet)
{
    kolo_status status =
        kolo__sim_drive(fleet->sim, next_program, fleet, deadline_ns, fleet->statuses,
                        fleet->faults, fleet->text, sizeof(fleet->text));
    fleet->trace = kolo__sim_trace(fleet->sim);
    return status;
}

void fleet_check(struct fleet *fleet)
{
    const struct fleet_rank *ranks = fleet->ranks;
    char what[400];
    fleet_describe(&fleet->options, what, sizeof(what));
    for (uint32_t r = 0; r < fleet->options.problem.size; r++) {
        if (fleet->statuses[r] != KOLO_OK)
            fail_msg("%s: rank %u ended with %s: %s", what, r, kolo_status_name(fleet->statuses[r]),
                     fleet->faults[r].text);
        assert_int_equal(ranks[r].runs, fleet->options.repeat);
        if (fleet->options.problem.collective == KOLO__ALLREDUCE && ranks[r].output_bytes > 0 &&
            memcmp(ranks[r].output, ranks[0].output, ranks[0].output_bytes) != 0)
            fail_msg("%s: ranks 0 and %u differ", what, r);
    }
}

void fleet_close(struct fleet *fleet)
{
    for (uint32_t r = 0; r < fleet->options.problem.size; r++) {
        struct kolo__transport *transport = kolo__sim_transport(fleet->sim, r);
        transport->ops->close(transport);
        kolo__program_free(fleet->ranks[r].program);
        free(fleet->ranks[r].originals);
        free(fleet->ranks[r].pieces);
        free(fleet->ranks[r].scattered);
        if (!lies_in_heap(fleet, r))
            free(fleet->ranks[r].memory);
    }
    kolo__sim_free(fleet->sim);
}
