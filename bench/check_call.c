/* SPDX-License-Identifier: Apache-2.0 */
/* What each collective reads and must deliver, in terms of the tables of check.c. */
#include "bench/check.h"

#include <string.h>

static struct bench_pattern pattern_of(const struct bench_call *call, uint64_t seed)
{
    return (struct bench_pattern){
        .dtype = call->dtype, .op = call->op, .ranks = call->ranks, .seed = seed};
}

static size_t buffer_count(const struct bench_call *call, bool slices)
{
    return slices ? call->count * (size_t)call->ranks : call->count;
}

static char *slice(const struct bench_call *call, void *buffer, int rank)
{
    return (char *)buffer + (size_t)rank * call->count * kolo_dtype_bytes(call->dtype);
}

/* Of a broadcast, the others' buffers are outputs. */
static bool sends(const struct bench_collective *collective, const struct bench_call *call)
{
    return collective->in_place != BENCH_ALWAYS_IN_PLACE || call->rank == BENCH_ROOT;
}

/* Of a reduce, only the root gets a result. */
static bool delivers(const struct bench_collective *collective, const struct bench_call *call)
{
    return !collective->to_root || call->rank == BENCH_ROOT;
}

void bench_fill_call(const struct bench_collective *collective, const struct bench_call *call,
                     uint64_t seed)
{
    if (!collective->moves_data || !sends(collective, call))
        return;
    struct bench_pattern pattern = pattern_of(call, seed);
    struct bench_table table;
    bool personal = collective->send_slices && !collective->reduces;
    if (!personal) {
        bench_table_input(&pattern, call->rank, 0, &table);
        bench_fill(&table, 0, call->send, buffer_count(call, collective->send_slices));
        return;
    }
    for (int rank = 0; rank < call->ranks; rank++) {
        bench_table_input(&pattern, call->rank, rank, &table);
        bench_fill(&table, 0, slice(call, call->send, rank), call->count);
    }
}

void bench_spoil_call(const struct bench_collective *collective, const struct bench_call *call)
{
    if (!collective->moves_data)
        return;
    size_t width = kolo_dtype_bytes(call->dtype);
    if (!call->in_place || !sends(collective, call)) {
        memset(call->recv, 0xa5, buffer_count(call, collective->recv_slices) * width);
    } else if (collective->recv_slices) { /* all but this rank's slice, which is the input */
        for (int rank = 0; rank < call->ranks; rank++)
            if (rank != call->rank)
                memset(slice(call, call->recv, rank), 0xa5, call->count * width);
    }
}

size_t bench_count_wrong_call(const struct bench_collective *collective,
                              const struct bench_call *call, uint64_t seed)
{
    if (!collective->moves_data || !delivers(collective, call))
        return 0;
    struct bench_pattern pattern = pattern_of(call, seed);
    struct bench_table table;
    if (collective->reduces) {
        bench_table_result(&pattern, &table);
        size_t phase = collective->send_slices ? (size_t)call->rank * call->count : 0;
        return bench_count_wrong(&table, phase, call->recv, call->count);
    }
    if (collective->recv_slices) {
        size_t wrong = 0;
        for (int rank = 0; rank < call->ranks; rank++) {
            bench_table_input(&pattern, rank, collective->send_slices ? call->rank : 0, &table);
            wrong += bench_count_wrong(&table, 0, slice(call, call->recv, rank), call->count);
        }
        return wrong;
    }
    int source = collective->in_place == BENCH_ALWAYS_IN_PLACE
                     ? BENCH_ROOT
                     : (call->rank + call->ranks - 1) % call->ranks;
    bench_table_input(&pattern, source, 0, &table);
    return bench_count_wrong(&table, 0, call->recv, call->count);
}

/* Floats: -0.0 stays -0.0 under every op but products, which keep 1, where other values would grow
 * until they overflow. Not 0.0: some machines write streams of zeros faster than anything else.
 * Integers: any value, they wrap. */
static uint64_t neutral_bits(kolo_dtype dtype, int op)
{
    static const uint64_t MINUS_ZERO[] = {[KOLO_FP16] = 0x8000,
                                          [KOLO_BF16] = 0x8000,
                                          [KOLO_FP32] = 0x80000000,
                                          [KOLO_FP64] = 0x8000000000000000};
    static const uint64_t ONE[] = {[KOLO_FP16] = 0x3c00,
                                   [KOLO_BF16] = 0x3f80,
                                   [KOLO_FP32] = 0x3f800000,
                                   [KOLO_FP64] = 0x3ff0000000000000};
    if (dtype < KOLO_FP16)
        return 1;
    return op == KOLO_PRODUCT ? ONE[dtype] : MINUS_ZERO[dtype];
}

/* One block element by element, then copies of it: ranks that share a processor wait for each
 * other's rewriting, so it must not take longer than the peers'. */
void bench_rewrite(kolo_dtype dtype, int op, void *buffer, size_t bytes)
{
    enum { BLOCK_BYTES = 1024 };
    uint64_t bits = neutral_bits(dtype, op);
    size_t width = kolo_dtype_bytes(dtype);
    char *to = buffer;
    size_t first = bytes < BLOCK_BYTES ? bytes : BLOCK_BYTES;
    for (size_t at = 0; at < first; at += width)
        memcpy(to + at, &bits, width);
    for (size_t at = first; at < bytes; at += BLOCK_BYTES)
        memcpy(to + at, to, bytes - at < BLOCK_BYTES ? bytes - at : BLOCK_BYTES);
}

void bench_rewrite_call(const struct bench_collective *collective, const struct bench_call *call)
{
    if (!collective->moves_data || !sends(collective, call))
        return;
    size_t width = kolo_dtype_bytes(call->dtype);
    size_t bytes = buffer_count(call, collective->send_slices) * width;
    bench_rewrite(call->dtype, call->op, (void *)(uintptr_t)call->send, bytes);
}
