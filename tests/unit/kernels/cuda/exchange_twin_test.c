/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The allreduces among GPUs by their host twin, with threads as ranks that share memory: 2 to 8
 * ranks, every kind and format, buffers that are not aligned, one call after the other of all kinds
 * and sizes in the same regions, against kernels/reduce.c bit for bit. Under ThreadSanitizer it
 * proves that flags order all that ranks read and write, in slots that are used anew. And what a
 * rank that is missing leads to.
 */
#include "exchange_twin.h"

#include "base/random.h"
#include "kernels/cuda/exchange.h"
#include "kernels/kernels.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT_MAX = 5000, SLOT_BYTES = 40000 + 16, CALLS = 24, POISON = 0xa5 };

/* What all ranks do alike in one call. */
struct call {
    int kind;
    kolo_dtype dtype;
    kolo_op op;
    size_t count;
    uint32_t blocks, divisor;
    bool in_place;
};

struct rank {
    pthread_t thread;
    uint32_t rank, rank_count;
    void **regions;
    const struct call *calls;
    uint32_t stop;
    unsigned char *from[CALLS], *to[CALLS]; /* with a skew of `rank` elements */
};

static struct exchange exchange_of(struct rank *mine, const struct call *call, void *from, void *to)
{
    static const uint32_t ops[KOLO_OP_COUNT] = {
        [KOLO_PRODUCT] = COMBINE_PRODUCT, [KOLO_MIN] = COMBINE_MIN, [KOLO_MAX] = COMBINE_MAX};
    struct exchange x = {.from = (uintptr_t)from,
                         .to = (uintptr_t)to,
                         .count = call->count,
                         .slot_bytes = SLOT_BYTES / 16 * 16,
                         .stop = (uintptr_t)&mine->stop,
                         .rank = mine->rank,
                         .rank_count = mine->rank_count,
                         .op = ops[call->op],
                         .divisor = call->divisor,
                         .spins = 50000000};
    x.last_step = exchange_steps((enum exchange_kind)call->kind, mine->rank_count) - 1;
    for (uint32_t i = 0; i < mine->rank_count; i++)
        x.regions[i] = (uintptr_t)mine->regions[i];
    return x;
}

static void *run_rank(void *argument)
{
    struct rank *mine = argument;
    for (int c = 0; c < CALLS && mine->stop == 0; c++) {
        const struct call *call = &mine->calls[c];
        struct exchange x = exchange_of(mine, call, mine->from[c], mine->to[c]);
        twin_exchange(call->kind, (int)(call->dtype - KOLO_FP16), &x, call->blocks);
    }
    return NULL;
}

/* Every element of a call, of rank 0's or in the order that the ring has for its slice. */
static void expect(const struct call *call, struct rank *ranks, unsigned char *const *inputs,
                   unsigned char *expected)
{
    const size_t element = kolo_dtype_bytes(call->dtype), n = 16 / element;
    const uint32_t rank_count = ranks[0].rank_count;
    struct kolo__reduction reduction = {
        .dtype = call->dtype, .op = call->op, .divisor = call->divisor};
    const void *sources[EXCHANGE_RANKS];
    if (call->kind != EXCHANGE_RING) {
        for (uint32_t i = 0; i < rank_count; i++)
            sources[i] = inputs[i];
        kolo__reduce(&reduction, expected, sources, rank_count, call->count);
        return;
    }
    size_t vectors = (call->count + n - 1) / n, each = (vectors + rank_count - 1) / rank_count;
    for (size_t slice = 0; slice < rank_count; slice++) {
        size_t begin = slice * each * n, end = begin + each * n;
        end = end < call->count ? end : call->count;
        if (begin >= end)
            continue;
        unsigned char *sum = expected + begin * element;
        memcpy(sum, inputs[slice] + begin * element, (end - begin) * element);
        for (uint32_t hop = 1; hop < rank_count; hop++) {
            sources[0] = sum;
            sources[1] = inputs[(slice + hop) % rank_count] + begin * element;
            reduction.divisor = hop == rank_count - 1 ? call->divisor : 1;
            kolo__reduce(&reduction, sum, sources, 2, end - begin);
        }
    }
}

static void fill(struct kolo__random *random, kolo_dtype dtype, unsigned char *to, size_t count)
{
    const size_t bytes = kolo_dtype_bytes(dtype);
    for (size_t k = 0; k < count; k++) {
        float f = ((float)kolo__random_below(random, 1u << 20) - 0x1p19f) * 0x1p-16f;
        double d = f;
        uint16_t half = dtype == KOLO_FP16 ? kolo__fp16_from_fp32(f) : kolo__bf16_from_fp32(f);
        uint64_t any = kolo__random_u64(random);
        const void *from = kolo__random_below(random, 50) == 0 ? &any
                           : dtype == KOLO_FP64                ? (void *)&d
                           : dtype == KOLO_FP32                ? (void *)&f
                                                               : (void *)&half;
        memcpy(to + k * bytes, from, bytes);
    }
}

static struct call draw_call(struct kolo__random *random)
{
    static const kolo_op ops[] = {KOLO_SUM, KOLO_SUM, KOLO_PRODUCT, KOLO_MIN, KOLO_MAX};
    return (struct call){.kind = (int)kolo__random_below(random, 3),
                         .dtype = (kolo_dtype)(KOLO_FP16 + kolo__random_below(random, 4)),
                         .op = ops[kolo__random_below(random, 5)],
                         .count = kolo__random_below(random, 3) == 0
                                      ? 1 + kolo__random_below(random, 40)
                                      : 1 + kolo__random_below(random, COUNT_MAX),
                         .blocks = 1 + (uint32_t)kolo__random_below(random, 4),
                         .divisor = 1 + (uint32_t)kolo__random_below(random, 3),
                         .in_place = kolo__random_below(random, 3) == 0};
}

static void *zeroed_region(void)
{
    void *region = aligned_alloc(64, (EXCHANGE_HEADER + 2 * SLOT_BYTES + 63) / 64 * 64);
    memset(region, POISON, EXCHANGE_HEADER + 2 * SLOT_BYTES);
    memset(region, 0, EXCHANGE_HEADER);
    return region;
}

static void exchanges(uint32_t rank_count, struct kolo__random *random)
{
    struct call calls[CALLS];
    struct rank ranks[EXCHANGE_RANKS] = {{0}};
    void *regions[EXCHANGE_RANKS];
    unsigned char *expected[CALLS], *memory[EXCHANGE_RANKS][CALLS][2];
    for (uint32_t r = 0; r < rank_count; r++) {
        regions[r] = zeroed_region();
        ranks[r] =
            (struct rank){.rank = r, .rank_count = rank_count, .regions = regions, .calls = calls};
    }
    for (int c = 0; c < CALLS; c++) {
        calls[c] = draw_call(random);
        const size_t element = kolo_dtype_bytes(calls[c].dtype);
        const size_t bytes = calls[c].count * element;
        unsigned char *inputs[EXCHANGE_RANKS];
        for (uint32_t r = 0; r < rank_count; r++) {
            for (int which = 0; which < 2; which++) {
                memory[r][c][which] = malloc(bytes + EXCHANGE_RANKS * element);
                memset(memory[r][c][which], POISON, bytes + EXCHANGE_RANKS * element);
            }
            inputs[r] = ranks[r].from[c] = memory[r][c][0] + r * element;
            fill(random, calls[c].dtype, inputs[r], calls[c].count);
            ranks[r].to[c] =
                calls[c].in_place ? inputs[r] : memory[r][c][1] + (r + c) % 3 * element;
        }
        expected[c] = malloc(bytes);
        expect(&calls[c], ranks, inputs, expected[c]);
    }
    for (uint32_t r = 0; r < rank_count; r++)
        assert_int_equal(pthread_create(&ranks[r].thread, NULL, run_rank, &ranks[r]), 0);
    for (uint32_t r = 0; r < rank_count; r++)
        pthread_join(ranks[r].thread, NULL);
    for (uint32_t r = 0; r < rank_count; r++) {
        assert_int_equal(ranks[r].stop, 0);
        for (int c = 0; c < CALLS; c++) {
            const size_t element = kolo_dtype_bytes(calls[c].dtype);
            const size_t bytes = calls[c].count * element;
            assert_memory_equal(ranks[r].to[c], expected[c], bytes);
            assert_int_equal(ranks[r].to[c][bytes], POISON);
            free(memory[r][c][0]);
            free(memory[r][c][1]);
        }
        free(regions[r]);
    }
    for (int c = 0; c < CALLS; c++)
        free(expected[c]);
}

static void test_exchanges(void **state)
{
    struct kolo__random random = *(struct kolo__random *)*state;
    for (uint32_t rank_count = 2; rank_count <= EXCHANGE_RANKS; rank_count++)
        exchanges(rank_count, &random);
}

/* Rank 1 never comes: rank 0 names it, and leaves its output alone. */
static void test_missing_rank(void **state)
{
    (void)state;
    void *regions[2] = {zeroed_region(), zeroed_region()};
    for (int kind = EXCHANGE_ONE_SHOT; kind <= EXCHANGE_RING; kind++) {
        float from[8] = {1, 2, 3, 4, 5, 6, 7, 8}, to[8] = {0};
        struct rank mine = {.rank_count = 2, .regions = regions};
        const struct call call = {kind, KOLO_FP32, KOLO_SUM, 8, 1, 1, false};
        struct exchange x = exchange_of(&mine, &call, from, to);
        x.spins = 1000;
        twin_exchange(kind, 2, &x, 1);
        assert_int_equal(mine.stop, 2);
        assert_true(to[0] == 0);
    }
    free(regions[0]);
    free(regions[1]);
}

/* The owner of the word ends a kernel that waits. */
static void test_stop(void **state)
{
    (void)state;
    void *regions[2] = {zeroed_region(), zeroed_region()};
    float from[8] = {0}, to[8] = {0};
    struct rank mine = {.rank_count = 2, .regions = regions, .stop = 77};
    const struct call call = {EXCHANGE_ONE_SHOT, KOLO_FP32, KOLO_SUM, 8, 1, 1, false};
    struct exchange x = exchange_of(&mine, &call, from, to);
    x.spins = UINT32_MAX; /* hours */
    twin_exchange(EXCHANGE_ONE_SHOT, 2, &x, 1);
    assert_int_equal(mine.stop, 77);
    free(regions[0]);
    free(regions[1]);
}

int main(void)
{
    struct kolo__random random = {11};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_exchanges, &random),
        cmocka_unit_test(test_missing_rank),
        cmocka_unit_test(test_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
