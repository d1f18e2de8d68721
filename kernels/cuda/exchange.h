/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Allreduce among the GPUs of one host that map each other's memory, by kernels alone: what one
 * thread does, as C for GPUs and for the host twin (vector.h). Every rank has a region that all
 * others map:
 *
 *     | epoch, finished | flags[block][rank] ... | slot 0 ............ | slot 1 ............ |
 *
 * An allreduce is a row of steps. In each, a block does its share of the work, then tells those who
 * need it (a release, to a flag in their region) and waits for those whose share it needs (an
 * acquire, of a flag in its own):
 *
 *     one-shot   0 copy the input into the slot      1 combine the slots of all ranks
 *     two-shot   0 copy the input into the slot      1 combine one slice of all slots, in place
 *                2 copy the slices of all others
 *     ring       0 copy the own slice into the slot
 *                1 ... n-1    slice rank - step: what the one before has of it, and the input
 *                n ... 2n-2   copy the complete slice that the one before has
 *
 * Block b of a rank needs block b of others alone, since slices are dealt to blocks alike
 * everywhere. Flags hold the epoch, which grows with each allreduce, and the step: they are never
 * reset, and one that is ahead counts as reached.
 *
 * Epochs use the slots in turns. Who writes a slot anew has finished the epoch before, so all
 * others had begun that, so they had finished the one before it, the last that used this slot. In
 * the ring, a slice is written over at step n + k, when the one behind has read it at its step k +
 * 1: the waits lead all the way round. (ThreadSanitizer checks both, on the twin.)
 *
 * Waits are bounded: a block that gives up leaves 1 + the missing rank in the stop word and ends,
 * as do all blocks that find the word set; whoever owns the word can end a kernel by it. Afterwards
 * the regions are of no use.
 *
 * Ranks combine in the order of ranks (in the ring: from the slice's own rank on, rounded at each),
 * so all ranks get the same bits.
 */
#ifndef KOLO_KERNELS_CUDA_EXCHANGE_H
#define KOLO_KERNELS_CUDA_EXCHANGE_H

#include "kernels/cuda/combine.h"

enum {
    EXCHANGE_RANKS = 8,
    EXCHANGE_THREADS = 512,
    EXCHANGE_BLOCKS = 64, /* of a rank, at the most */
    EXCHANGE_TURNS = 4,   /* vectors that a thread has under way */
    EXCHANGE_FLAGS = 4096,
    EXCHANGE_HEADER = EXCHANGE_FLAGS + EXCHANGE_BLOCKS * EXCHANGE_RANKS * 4
};
enum exchange_kind { EXCHANGE_ONE_SHOT, EXCHANGE_TWO_SHOT, EXCHANGE_RING };

/* One rank's. Addresses are as this rank maps them. */
struct exchange {
    uint64_t regions[EXCHANGE_RANKS];
    uint64_t from, to, count; /* to may be from */
    uint64_t slot_bytes;
    uint64_t stop; /* of the word */
    uint32_t rank, rank_count;
    uint32_t op, divisor; /* enum combine_op */
    uint32_t spins;       /* looks at a flag before giving up */
    uint32_t first_step,
        last_step; /* all of them; or one alone, when somebody else waits between */
    uint32_t reserved;
};

/* A kernel's one parameter: ranks of one launch, which share its blocks evenly. 1,096 bytes. */
struct exchange_launch {
    struct exchange ranks[EXCHANGE_RANKS];
    uint64_t rank_count;
};

CONVERSION uint32_t exchange_steps(enum exchange_kind kind, uint32_t rank_count)
{
    return kind == EXCHANGE_ONE_SHOT ? 2 : kind == EXCHANGE_TWO_SHOT ? 3 : 2 * rank_count - 1;
}

/* ---- flags ------------------------------------------------------------------------------------
 */

CONVERSION uint32_t load_acquire(uint64_t address)
{
#if defined(__CUDA_ARCH__)
    uint32_t value;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
    return value;
#else
    return __atomic_load_n((const uint32_t *)(uintptr_t)address, __ATOMIC_ACQUIRE);
#endif
}

CONVERSION void store_release(uint64_t address, uint32_t value)
{
#if defined(__CUDA_ARCH__)
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(address), "r"(value) : "memory");
#else
    __atomic_store_n((uint32_t *)(uintptr_t)address, value, __ATOMIC_RELEASE);
#endif
}

CONVERSION uint64_t flag_of(const struct exchange *x, uint32_t owner, uint32_t block, uint32_t from)
{
    return x->regions[owner] + EXCHANGE_FLAGS + 4 * (block * EXCHANGE_RANKS + from);
}

/* A step that is done. 15 steps at the most: 8 ranks in a ring. */
CONVERSION uint32_t mark_of(uint32_t epoch, uint32_t step)
{
    return epoch << 4 | (step + 1);
}

CONVERSION bool exchange_needs(enum exchange_kind kind, const struct exchange *x, uint32_t peer)
{
    if (peer >= x->rank_count || peer == x->rank)
        return false;
    return kind != EXCHANGE_RING || peer == (x->rank + x->rank_count - 1) % x->rank_count;
}

CONVERSION bool exchange_serves(enum exchange_kind kind, const struct exchange *x, uint32_t peer)
{
    if (peer >= x->rank_count || peer == x->rank)
        return false;
    return kind != EXCHANGE_RING || peer == (x->rank + 1) % x->rank_count;
}

/* By the block's thread of that number, after all its threads have done the step. */
CONVERSION void exchange_tell(enum exchange_kind kind, const struct exchange *x, uint32_t epoch,
                              uint32_t step, uint32_t block, uint32_t peer)
{
    if (exchange_serves(kind, x, peer))
        store_release(flag_of(x, peer, block, x->rank), mark_of(epoch, step));
}

/* By the block's thread of that number, before the step that needs it. False: it gave up. */
CONVERSION bool exchange_wait(enum exchange_kind kind, const struct exchange *x, uint32_t epoch,
                              uint32_t step, uint32_t block, uint32_t peer)
{
    if (!exchange_needs(kind, x, peer))
        return true;
    uint64_t flag = flag_of(x, x->rank, block, peer);
    for (uint32_t spin = 0; spin < x->spins; spin++) {
        if ((int32_t)(load_acquire(flag) - mark_of(epoch, step)) >= 0)
            return true;
        if (spin % 64 == 63 && load_acquire(x->stop) != 0)
            return false;
#if !defined(__CUDA_ARCH__) && defined(EXCHANGE_PAUSE)
        EXCHANGE_PAUSE();
#endif
    }
    store_release(x->stop, 1 + peer);
    return false;
}

/* ---- vectors ----------------------------------------------------------------------------------
 */

/* Slices, in vectors; the last ones may be short or empty. */
struct slices {
    uint64_t all, each;
};

CONVERSION struct slices slices_of(enum format format, const struct exchange *x)
{
    const uint64_t n = 16 / (uint64_t)format_bytes(format);
    struct slices slices;
    slices.all = (x->count + n - 1) / n;
    slices.each = (slices.all + x->rank_count - 1) / x->rank_count;
    return slices;
}

/* A vector of the input: zeros beyond its end. */
CONVERSION struct words load_input(enum format format, const struct exchange *x, uint64_t vector)
{
    const struct walk_form form = {WALK_PACK, format, format};
    const uint64_t n = 16 / (uint64_t)format_bytes(format);
    struct walk_place place;
    place.first = (int64_t)(vector * n);
    place.count = x->count;
    place.from = x->from + vector * 16;
    place.from_end = x->from + x->count * (uint64_t)format_bytes(format);
    place.to = 0;
    return load_place(form, &place, find_valid(form, &place));
}

CONVERSION void store_output(enum format format, const struct exchange *x, uint64_t vector,
                             struct words a)
{
    const struct walk_form form = {WALK_UNPACK, format, format};
    const uint64_t n = 16 / (uint64_t)format_bytes(format);
    struct walk_place place;
    place.first = (int64_t)(vector * n);
    place.count = x->count;
    place.from = 0;
    place.from_end = 0;
    place.to = x->to + vector * 16;
    uint32_t valid = find_valid(form, &place);
    /* Element by element where the output is not aligned. */
    if (valid == ~0u && place.to % 16 != 0)
        valid = (1u << n) - 1;
    store_place(form, &place, a, valid);
}

/* op over a[0 .. count), of at most `most`, then the division. */
CONVERSION struct words fold(enum format format, const struct exchange *x, const struct words *a,
                             int most, uint32_t count, uint32_t divisor)
{
    const int bytes = format_bytes(format);
    struct words out = {{0, 0, 0, 0}};
    UNROLL for (int k = 0; k < 16 / bytes; k++)
    {
        if (format == FORMAT_FP64) {
            double sum = get_double(&a[0], k);
            UNROLL for (int i = 1; i < most; i++) if ((uint32_t)i < count) sum =
                combine_two(x->op, sum, get_double(&a[i], k));
            put_double(&out, k, one_nan_double(divisor == 1 ? sum : sum / (double)divisor));
        } else {
            float sum = widen_bits(format, get_bits(&a[0], k, bytes));
            UNROLL for (int i = 1; i < most; i++) if ((uint32_t)i < count) sum =
                combine_two_floats(x->op, sum, widen_bits(format, get_bits(&a[i], k, bytes)));
            sum = divisor == 1 ? sum : sum / (float)divisor;
            put_bits(&out, k, bytes, narrow_bits(format, one_nan(sum)));
        }
    }
    return out;
}

/* ---- steps ------------------------------------------------------------------------------------
 */

enum source { FROM_INPUT, FROM_PEER };

CONVERSION struct words zeros(void)
{
    struct words a = {{0, 0, 0, 0}};
    return a;
}

/* Vectors of a slice, those of this thread, several under way: from the input or a peer's slot, to
 * the own slot, the output, or both. */
CONVERSION void copy_slice(enum format format, const struct exchange *x, enum source source,
                           uint64_t from_slot, uint64_t to_slot, bool to_output, uint64_t begin,
                           uint64_t end, uint64_t first, uint64_t stride)
{
    for (uint64_t v = begin + first; v < end; v += EXCHANGE_TURNS * stride) {
        struct words a[EXCHANGE_TURNS];
        UNROLL for (int t = 0; t < EXCHANGE_TURNS; t++)
        {
            uint64_t at = v + (uint64_t)t * stride;
            a[t] = at >= end              ? zeros()
                   : source == FROM_INPUT ? load_input(format, x, at)
                                          : load_aligned(from_slot + at * 16, 16);
        }
        UNROLL for (int t = 0; t < EXCHANGE_TURNS; t++)
        {
            uint64_t at = v + (uint64_t)t * stride;
            if (at < end && to_slot != 0)
                store_aligned(to_slot + at * 16, a[t], 16);
            if (at < end && to_output)
                store_output(format, x, at, a[t]);
        }
    }
}

/* Of all ranks' slots. */
CONVERSION void combine_slice(enum format format, const struct exchange *x, uint64_t offset,
                              bool to_slot, uint64_t begin, uint64_t end, uint64_t first,
                              uint64_t stride)
{
    for (uint64_t v = begin + first; v < end; v += stride) {
        struct words a[EXCHANGE_RANKS];
        UNROLL for (int i = 0; i < EXCHANGE_RANKS; i++) a[i] =
            (uint32_t)i < x->rank_count ? load_aligned(x->regions[i] + offset + v * 16, 16)
                                        : zeros();
        struct words sum = fold(format, x, a, EXCHANGE_RANKS, x->rank_count, x->divisor);
        if (to_slot)
            store_aligned(x->regions[x->rank] + offset + v * 16, sum, 16);
        store_output(format, x, v, sum);
    }
}

/* The slot of the rank before, and the input. */
CONVERSION void add_slice(enum format format, const struct exchange *x, uint64_t from_slot,
                          uint64_t to_slot, bool complete, uint64_t begin, uint64_t end,
                          uint64_t first, uint64_t stride)
{
    for (uint64_t v = begin + first; v < end; v += EXCHANGE_TURNS * stride) {
        struct words a[EXCHANGE_TURNS][2];
        UNROLL for (int t = 0; t < EXCHANGE_TURNS; t++)
        {
            uint64_t at = v + (uint64_t)t * stride;
            a[t][0] = at < end ? load_aligned(from_slot + at * 16, 16) : zeros();
            a[t][1] = at < end ? load_input(format, x, at) : zeros();
        }
        UNROLL for (int t = 0; t < EXCHANGE_TURNS; t++)
        {
            uint64_t at = v + (uint64_t)t * stride;
            if (at >= end)
                continue;
            struct words sum = fold(format, x, a[t], 2, 2, complete ? x->divisor : 1);
            store_aligned(to_slot + at * 16, sum, 16);
            if (complete)
                store_output(format, x, at, sum);
        }
    }
}

/* One thread's share of a step; blocks: of this rank. */
CONVERSION void exchange_work(enum exchange_kind kind, enum format format, const struct exchange *x,
                              uint32_t epoch, uint32_t step, uint32_t block, uint32_t blocks,
                              uint32_t thread)
{
    const uint64_t first = (uint64_t)block * EXCHANGE_THREADS + thread;
    const uint64_t stride = (uint64_t)blocks * EXCHANGE_THREADS;
    const uint64_t offset = EXCHANGE_HEADER + (epoch & 1) * x->slot_bytes;
    const uint64_t own = x->regions[x->rank] + offset;
    const uint32_t n = x->rank_count;
    const struct slices slices = slices_of(format, x);
    if (kind == EXCHANGE_ONE_SHOT) {
        if (step == 0)
            copy_slice(format, x, FROM_INPUT, 0, own, false, 0, slices.all, first, stride);
        else
            combine_slice(format, x, offset, false, 0, slices.all, first, stride);
        return;
    }
    /* Which slice: of the ring, the step's; of two-shot, in step 1 the own, else all or all others.
     */
    const uint32_t ring = (x->rank + 2 * n - (step < n ? step : step - n)) % n;
    for (uint32_t i = 0; i < n; i++) {
        if (kind == EXCHANGE_RING ? i != ring
            : step == 1           ? i != x->rank
                                  : step == 2 && i == x->rank)
            continue;
        uint64_t begin = i * slices.each, end = begin + slices.each;
        end = end < slices.all ? end : slices.all;
        if (step == 0) {
            copy_slice(format, x, FROM_INPUT, 0, own, false, begin, end, first, stride);
        } else if (kind == EXCHANGE_TWO_SHOT && step == 1) {
            combine_slice(format, x, offset, true, begin, end, first, stride);
        } else if (kind == EXCHANGE_TWO_SHOT) {
            copy_slice(format, x, FROM_PEER, x->regions[i] + offset, 0, true, begin, end, first,
                       stride);
        } else {
            uint64_t before = x->regions[(x->rank + n - 1) % n] + offset;
            if (step < n)
                add_slice(format, x, before, own, step == n - 1, begin, end, first, stride);
            else /* nobody reads the slot after the last step */
                copy_slice(format, x, FROM_PEER, before, step == 2 * n - 2 ? 0 : own, true, begin,
                           end, first, stride);
        }
    }
}

/* The epoch that begins, for every block alike: the region's word counts finished ones. */
CONVERSION uint32_t exchange_epoch(const struct exchange *x)
{
    return *(const uint32_t *)(uintptr_t)x->regions[x->rank] + 1;
}

/* By one thread of each block, after its last step. The last block to come ends the epoch. */
CONVERSION void exchange_finish(enum exchange_kind kind, const struct exchange *x, uint32_t epoch,
                                uint32_t blocks)
{
    uint32_t *words = (uint32_t *)(uintptr_t)x->regions[x->rank];
    if (x->last_step + 1 != exchange_steps(kind, x->rank_count))
        return;
#if defined(__CUDA_ARCH__)
    uint32_t before = atomicAdd(&words[1], 1u);
#else
    uint32_t before = words[1]++;
#endif
    if (before + 1 == blocks) {
        words[1] = 0;
        words[0] = epoch;
    }
}

#endif
