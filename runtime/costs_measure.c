/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Measures by doing: real operations with forced algorithms, in rounds; the least time of all
 * rounds counts, as neighbours only ever add. All ranks do the same operations; rank 0 takes the
 * time, and says after each round whether there is another.
 *
 * From the time of an operation and the constants known before it, the formula in the algorithm's
 * file gives the next constant:
 *
 *     one shot, 64 bytes                 fence
 *     direct, 64 bytes                   next fence
 *     one shot, direct, by level         slot, mapped
 *     a local reduction, by level        reduced
 *     messages, by recursive doubling    a message
 *     messages, pairwise, 64 KiB         a byte of it
 *
 * Buffers are the communicator's windows, so nothing is allocated; contents are whole numbers, as
 * sums of floats might meet something slow. They are not written anew between operations: who only
 * compares algorithms loses nothing by that, which was tried.
 */
#include "runtime/costs.h"

#include "base/assert.h"
#include "base/clock.h"
#include "kernels/kernels.h"
#include "runtime/comm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROUNDS_MIN = 4, /* of which the first does not count for much */
    ROUNDS_MAX = 12,
    BUDGET_NS = 6000000, /* no further round after that */
    SMALL_BYTES = 64,    /* more than what fits beside a flag */
    SLOT_PROBE_BYTES = 4096,
    LEVEL2_BYTES = 128 * 1024,
    MESSAGE_BYTES = 64 * 1024,
    PROBES_MAX = 16,
    REPETITIONS_MIN = 8, /* ranks may be one operation apart when the time is taken */
};

static const double ROUND_SECONDS = 1e-3;

/* What is done again and again. algorithm NULL: a reduction by rank 0 alone, for its reduced rate.
 */
struct probe {
    const char *algorithm;
    size_t bytes;
    uint32_t repetitions;
    double seconds; /* the least of one repetition */
};

struct measurement {
    kolo_comm *comm;
    void *input, *output; /* a window each */
    size_t window_bytes;
    uint32_t probe_count;
    struct probe probes[PROBES_MAX];
};

/* ---- caches --------------------------------------------------------------------------------- */

/* A line of a file under /sys that describes cache `index` of the first processor. */
static bool read_cache(int index, const char *name, char *line, int bytes)
{
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/%s", index, name);
    FILE *file = fopen(path, "re");
    bool read = file != NULL && fgets(line, bytes, file) != NULL;
    if (file != NULL)
        fclose(file);
    return read;
}

/* The system's description, not the processor's own: a virtual machine has its part of a cache. */
void kolo__costs_levels(uint32_t ranks, double bytes[KOLO__COST_LEVELS])
{
    static const double typical[KOLO__COST_LEVELS] = {32 << 10, 1 << 20, 32 << 20, 0};
    char level[16], type[32], size[32];
    memcpy(bytes, typical, sizeof typical);
    for (int index = 0; index < 8; index++) {
        if (!read_cache(index, "level", level, sizeof level) ||
            !read_cache(index, "type", type, sizeof type) ||
            !read_cache(index, "size", size, sizeof size) || type[0] == 'I')
            continue;
        int number = atoi(level), kilobytes = atoi(size); /* "32K" */
        if (number >= 1 && number < KOLO__COST_LEVELS && kilobytes > 0)
            bytes[number - 1] = 1024.0 * kilobytes;
    }
    bytes[KOLO__COST_LEVELS - 2] /= ranks > 0 ? ranks : 1;
    for (int i = 1; i < KOLO__COST_LEVELS - 1; i++)
        bytes[i] = fmax(bytes[i], bytes[i - 1]);
}

/* ---- what is run ---------------------------------------------------------------------------- */

static kolo_status run_once(struct measurement *m, const char *algorithm, size_t bytes)
{
    const kolo_call_options options = {.size = sizeof options, .algorithm = algorithm};
    return kolo_allreduce(m->comm, m->input, m->output, bytes / 4, KOLO_INT32, KOLO_SUM, &options);
}

/* Rank 0 alone: nobody waits for the others in the middle. */
static void reduce_once(struct measurement *m, size_t bytes)
{
    const struct kolo__reduction reduction = {.dtype = KOLO_INT32, .op = KOLO_SUM, .divisor = 1};
    const void *sources[] = {m->input, m->output};
    if (m->comm->rank == 0)
        kolo__reduce(&reduction, m->output, sources, 2, bytes / 4);
}

static kolo_status run_probe(struct measurement *m, struct probe *probe, uint32_t divisor)
{
    uint32_t repetitions = (probe->repetitions + divisor - 1) / divisor;
    uint32_t least = probe->repetitions < REPETITIONS_MIN ? probe->repetitions : REPETITIONS_MIN;
    if (repetitions < least)
        repetitions = least;
    kolo_status status = run_once(m, "shm_one_shot", SMALL_BYTES); /* begin together */
    uint64_t begin = kolo__now_ns(&kolo__real_clock);
    for (uint32_t i = 0; status == KOLO_OK && i < repetitions; i++) {
        if (probe->algorithm != NULL)
            status = run_once(m, probe->algorithm, probe->bytes);
        else
            reduce_once(m, probe->bytes);
    }
    double seconds = (double)(kolo__now_ns(&kolo__real_clock) - begin) / 1e9 / repetitions;
    if (probe->seconds == 0 || seconds < probe->seconds)
        probe->seconds = seconds;
    return status;
}

/* Rank 0's answer after a round: by what to divide the repetitions, so that a round takes about a
 * millisecond; 0: enough. */
static uint8_t plan_round(const struct measurement *m, int rounds_done, uint64_t elapsed_ns)
{
    double seconds = 0;
    if (rounds_done >= ROUNDS_MAX || (rounds_done >= ROUNDS_MIN && elapsed_ns > BUDGET_NS))
        return 0;
    for (uint32_t i = 0; i < m->probe_count; i++)
        seconds += m->probes[i].seconds * m->probes[i].repetitions;
    return (uint8_t)fmin(ceil(seconds / ROUND_SECONDS), UINT8_MAX);
}

/* The first round is short: it makes plans, and touches memory for the first time. */
static kolo_status run_rounds(struct measurement *m)
{
    const kolo_call_options options = {.size = sizeof options, .algorithm = "shm_one_shot"};
    uint64_t begin = kolo__now_ns(&kolo__real_clock);
    uint8_t divisor = UINT8_MAX;
    kolo_status status = KOLO_OK;
    for (int round = 1; status == KOLO_OK && divisor > 0; round++) {
        for (uint32_t i = 0; status == KOLO_OK && i < m->probe_count; i++)
            status = run_probe(m, &m->probes[i], divisor);
        divisor = plan_round(m, round, kolo__now_ns(&kolo__real_clock) - begin);
        if (status == KOLO_OK)
            status = kolo_broadcast(m->comm, &divisor, 1, KOLO_UINT8, 0, &options);
    }
    return status;
}

/* ---- what follows from the times ------------------------------------------------------------ */

static bool is_probe(const struct probe *probe, const char *algorithm, size_t bytes)
{
    bool same = algorithm == NULL || probe->algorithm == NULL
                    ? algorithm == probe->algorithm
                    : strcmp(algorithm, probe->algorithm) == 0;
    return same && probe->bytes == bytes;
}

/* The time of one repetition. Asked for the first time, it is not known yet: 0. */
static double probe(struct measurement *m, const char *algorithm, size_t bytes,
                    uint32_t repetitions)
{
    for (uint32_t i = 0; i < m->probe_count; i++)
        if (is_probe(&m->probes[i], algorithm, bytes))
            return m->probes[i].seconds;
    KOLO__ASSERT(m->probe_count < PROBES_MAX);
    m->probes[m->probe_count++] =
        (struct probe){.algorithm = algorithm, .bytes = bytes, .repetitions = repetitions};
    return 0;
}

/* 0: not to be seen behind what is fixed. */
static double rate(double seconds, double fixed, double bytes)
{
    return seconds > fixed && bytes > 0 ? (seconds - fixed) / bytes : 0;
}

/* What no probe reached, or saw, costs what its neighbour costs: the level above it, or the one
 * below. */
static void fill_gaps(double rates[KOLO__COST_LEVELS])
{
    for (int level = KOLO__COST_LEVELS - 2; level >= 0; level--)
        if (rates[level] == 0)
            rates[level] = rates[level + 1];
    for (int level = 1; level < KOLO__COST_LEVELS; level++)
        if (rates[level] == 0)
            rates[level] = rates[level - 1];
}

/* What is beyond the caches cannot be measured in so short a time: the constants that kolo comes
 * with are taken, if they are slower than the last cache. */
static void put_memory(struct kolo__cost_model *model, double mapped[KOLO__COST_LEVELS],
                       double slot[KOLO__COST_LEVELS], double reduced[KOLO__COST_LEVELS])
{
    const int beyond = KOLO__COST_LEVELS - 1;
    fill_gaps(mapped);
    fill_gaps(slot);
    fill_gaps(reduced);
    mapped[beyond] = fmax(mapped[beyond], kolo__default_cost_model.memory[beyond].mapped);
    slot[beyond] = fmax(slot[beyond], kolo__default_cost_model.memory[beyond].slot);
    for (int level = 0; level < KOLO__COST_LEVELS; level++) {
        model->memory[level].mapped = mapped[level];
        model->memory[level].slot = slot[level];
        model->memory[level].reduced = reduced[level];
    }
}

static int level_of(const struct kolo__cost_model *model, double working_set)
{
    return (int)(kolo__cost_memory(model, working_set) - model->memory);
}

/* Of one shot in the first cache: where algorithms change places. Its time is no straight line (the
 * first kilobytes cost most), so the line is laid through the end that decides. Of direct: most of
 * the first cache, so that its few bytes are seen behind its fences. */
static size_t slot_probe(const struct kolo__cost_model *model, double ranks)
{
    double most = model->memory[0].bytes / (ranks + 2);
    return most < SLOT_PROBE_BYTES ? (size_t)most & ~(size_t)63 : SLOT_PROBE_BYTES;
}

static size_t mapped_probe(const struct kolo__cost_model *model)
{
    return (size_t)(0.75 * model->memory[0].bytes / 2) & ~(size_t)63;
}

/* As shm_one_shot.c and shm_direct.c have it. */
static void solve_memory(struct measurement *m, struct kolo__cost_model *model)
{
    double mapped[KOLO__COST_LEVELS] = {0}, slot[KOLO__COST_LEVELS] = {0},
           reduced[KOLO__COST_LEVELS] = {0}, p = m->comm->size;
    const size_t by_slot[] = {slot_probe(model, p), m->comm->mapping->slot_bytes};
    const size_t by_mapping[] = {mapped_probe(model), LEVEL2_BYTES, m->window_bytes};
    for (size_t i = 0; i < sizeof by_slot / sizeof *by_slot; i++) {
        double bytes = (double)by_slot[i];
        double seconds = probe(m, "shm_one_shot", by_slot[i], i == 0 ? 32 : 16);
        slot[level_of(model, (p + 2) * bytes)] = rate(seconds, model->fence, (p + 3) * bytes);
    }
    for (size_t i = 0; i < sizeof by_mapping / sizeof *by_mapping; i++) {
        static const uint32_t repetitions[] = {32, 8, 2};
        double bytes = (double)by_mapping[i];
        int level = level_of(model, 2 * bytes);
        double seconds = probe(m, "shm_direct", by_mapping[i], repetitions[i]);
        mapped[level] = rate(seconds, model->fence + model->next_fence, 2 * bytes);
        reduced[level] = rate(probe(m, NULL, by_mapping[i], repetitions[i]), 0, bytes);
    }
    put_memory(model, mapped, slot, reduced);
}

/* As recursive_doubling.c and pairwise.c have it. */
static void solve_messages(struct measurement *m, struct kolo__cost_model *model)
{
    double p = m->comm->size, n = MESSAGE_BYTES, nearest = ceil(log2(p));
    double steps = exp2(nearest) == p ? nearest : nearest + 1;
    model->message_local = probe(m, "recursive_doubling", SMALL_BYTES, 16) / steps;
    double half =
        (probe(m, "pairwise", MESSAGE_BYTES, 4) - n * kolo__cost_memory(model, 2 * n)->reduced) / 2;
    model->byte_local = rate(half, (1 + 0.4 * (p - 2)) * model->message_local, (p - 1) / p * n);
}

/* Called twice: before the rounds it names the probes, after them it finds their times. */
static void solve(struct measurement *m, struct kolo__cost_model *model)
{
    double levels[KOLO__COST_LEVELS];
    kolo__costs_levels(m->comm->size, levels);
    for (int level = 0; level < KOLO__COST_LEVELS; level++)
        model->memory[level].bytes = levels[level];
    model->fence_rank = 0;
    model->fence = probe(m, "shm_one_shot", SMALL_BYTES, 32);
    model->next_fence = fmax(0, probe(m, "shm_direct", SMALL_BYTES, 32) - model->fence);
    solve_memory(m, model);
    solve_messages(m, model);
}

kolo_status kolo__costs_measure(kolo_comm *comm, struct kolo__cost_model *model)
{
    struct kolo__mapping *mapping = comm->mapping;
    struct measurement m = {.comm = comm, .window_bytes = mapping->window_bytes};
    struct kolo__cost_model measured = kolo__default_cost_model;
    unsigned char *windows = mapping->ops->address(mapping, mapping->windows, 2 * m.window_bytes);
    memset(windows, 1, 2 * m.window_bytes);
    m.input = windows;
    m.output = windows + m.window_bytes;
    solve(&m, &measured);
    kolo_status status = run_rounds(&m);
    if (status != KOLO_OK || comm->rank != 0)
        return status;
    solve(&m, &measured);
    *model = measured;
    return KOLO_OK;
}
