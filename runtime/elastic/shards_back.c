/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Back to the last copies that cover all parts. Which these are each rank finds by itself, from
 * what all tell. Then block after block of the sharded tensors is put together: every element is
 * given by one rank, its owner of then or else the one behind, and zero on all others, so OR makes
 * it whole.
 */
#include "runtime/elastic/shards.h"

#include "base/status.h"
#include "runtime/elastic/elastic.h"
#include "runtime/elastic/ranges.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char operation[] = "kolo_elastic_begin_step";

enum { BLOCK_BYTES = 1 << 20 };

/* What each rank tells of each of its snapshots; and how many steps its state, if it has one, is
 * after. */
enum {
    FACT_VALID,
    FACT_STEP,
    FACT_EPOCH,
    FACT_OWNERS,
    FACT_OWN,
    FACT_BEFORE,
    FACT_DONE,
    FACT_COUNT
};

/* ---- which --------------------------------------------------------------------------------------
 */

static kolo_status gather_facts(const kolo_elastic *loop, uint64_t *facts)
{
    uint64_t mine[KOLO__SNAPSHOTS][FACT_COUNT];
    for (int i = 0; i < KOLO__SNAPSHOTS; i++) {
        const struct kolo__snapshot *snapshot = &loop->shards.snapshots[i];
        mine[i][FACT_VALID] = snapshot->valid;
        mine[i][FACT_STEP] = snapshot->step;
        mine[i][FACT_EPOCH] = snapshot->epoch;
        mine[i][FACT_OWNERS] = snapshot->owners;
        mine[i][FACT_OWN] = snapshot->own.owner;
        mine[i][FACT_BEFORE] = snapshot->before.owner;
        mine[i][FACT_DONE] = loop->has_state ? loop->step : 0;
    }
    return kolo_allgather(loop->context->world, mine, facts, KOLO__SNAPSHOTS * FACT_COUNT,
                          KOLO_UINT64, NULL);
}

static bool is_same(const uint64_t *a, const uint64_t *b)
{
    return b[FACT_VALID] != 0 && a[FACT_STEP] == b[FACT_STEP] && a[FACT_EPOCH] == b[FACT_EPOCH];
}

/* Who of the world of then is neither here nor has its copy here; -1: nobody. */
static int64_t find_uncovered(const uint64_t *facts, uint32_t count, const uint64_t *wanted)
{
    for (uint64_t owner = 0; owner < wanted[FACT_OWNERS]; owner++) {
        bool covered = false;
        for (uint32_t i = 0; i < count && !covered; i++) {
            const uint64_t *fact = facts + (size_t)i * FACT_COUNT;
            covered =
                is_same(wanted, fact) && (fact[FACT_OWN] == owner || fact[FACT_BEFORE] == owner);
        }
        if (!covered)
            return (int64_t)owner;
    }
    return -1;
}

/* The furthest one that is whole; NULL: none. *uncovered: who is missing in one of after the first
 * step; in one of before that nothing is lost. */
static const uint64_t *find_whole(const uint64_t *facts, uint32_t count, int64_t *uncovered)
{
    const uint64_t *best = NULL;
    *uncovered = -1;
    for (uint32_t i = 0; i < count; i++) {
        const uint64_t *fact = facts + (size_t)i * FACT_COUNT;
        if (fact[FACT_VALID] == 0 || (best != NULL && (fact[FACT_EPOCH] < best[FACT_EPOCH] ||
                                                       (fact[FACT_EPOCH] == best[FACT_EPOCH] &&
                                                        fact[FACT_STEP] <= best[FACT_STEP]))))
            continue;
        int64_t missing = find_uncovered(facts, count, fact);
        if (missing < 0)
            best = fact;
        else if (fact[FACT_STEP] > 0)
            *uncovered = missing;
    }
    return best;
}

/* ---- blocks -------------------------------------------------------------------------------------
 */

struct block {
    uint64_t tensor, first, count;
    size_t element; /* its bytes */
    unsigned char *data;
};

static void give(const kolo_elastic *loop, const struct kolo__shard_copy *copy,
                 const struct block *block)
{
    const unsigned char *at = copy->data;
    for (uint64_t k = 0; k < copy->count; k++) {
        const uint64_t *piece = copy->pieces + 3 * k;
        uint64_t from, length;
        if (piece[0] == block->tensor &&
            kolo__ranges_meet(piece[1], piece[2], block->first, block->count, &from, &length))
            memcpy(block->data + (from - block->first) * block->element,
                   at + (from - piece[1]) * block->element, length * block->element);
        at += piece[2] * kolo_dtype_bytes(loop->state[piece[0]].dtype);
    }
}

static void take(const kolo_elastic *loop, const struct block *block)
{
    for (size_t k = 0; k < loop->shards.count; k++) {
        const kolo_elastic_piece *piece = &loop->shards.pieces[k];
        uint64_t from, length;
        if (piece->tensor == block->tensor &&
            kolo__ranges_meet(piece->first, piece->count, block->first, block->count, &from,
                              &length))
            memcpy((unsigned char *)piece->data + (from - piece->first) * block->element,
                   block->data + (from - block->first) * block->element, length * block->element);
    }
}

/* from: this rank's snapshot; NULL: it has none. gives_before: nobody has that but as a copy. */
static kolo_status redistribute(kolo_elastic *loop, const struct kolo__snapshot *from,
                                bool gives_before)
{
    unsigned char *data = malloc(BLOCK_BYTES);
    kolo_status status =
        data != NULL ? KOLO_OK : kolo__error(KOLO_ERR_MEMORY, "%s: no memory", operation);
    for (size_t i = 0; i < loop->count && status == KOLO_OK; i++) {
        const kolo_tensor *tensor = &loop->state[i];
        size_t element = kolo_dtype_bytes(tensor->dtype), step = BLOCK_BYTES / element;
        if (!kolo__tensor_is_sharded(tensor))
            continue;
        for (size_t first = 0; first < tensor->count && status == KOLO_OK; first += step) {
            size_t left = tensor->count - first;
            struct block block = {i, first, left < step ? left : step, element, data};
            memset(data, 0, BLOCK_BYTES);
            if (from != NULL)
                give(loop, &from->own, &block);
            if (from != NULL && gives_before)
                give(loop, &from->before, &block);
            status = kolo_allreduce(loop->context->world, data, data,
                                    (block.count * element + 7) / 8, KOLO_UINT64, KOLO_OR, NULL);
            if (status == KOLO_OK)
                take(loop, &block);
        }
    }
    free(data);
    return status;
}

/* ---- the whole
 * ------------------------------------------------------------------------------------ */

static void put_back_rest(kolo_elastic *loop, const struct kolo__snapshot *from)
{
    const unsigned char *at = from->rest;
    for (size_t i = 0; i < loop->count; i++) {
        size_t part = loop->state[i].count * kolo_dtype_bytes(loop->state[i].dtype);
        if (loop->state[i].data == NULL || part == 0)
            continue;
        memcpy(loop->state[i].data, at, part);
        at += part;
    }
}

/* The rank whose pieces these are is there, and has them still. */
static bool is_owner_there(const uint64_t *facts, uint32_t count, const uint64_t *wanted,
                           uint64_t owner)
{
    for (uint32_t i = 0; i < count; i++)
        if (is_same(wanted, facts + (size_t)i * FACT_COUNT) &&
            facts[(size_t)i * FACT_COUNT + FACT_OWN] == owner)
            return true;
    return false;
}

static kolo_status go_back_to(kolo_elastic *loop, const uint64_t *wanted, const uint64_t *facts,
                              uint32_t count)
{
    struct kolo__snapshot *from = NULL;
    loop->has_state = false;
    loop->touched = true;
    for (int i = 0; i < KOLO__SNAPSHOTS; i++) {
        struct kolo__snapshot *snapshot = &loop->shards.snapshots[i];
        if (snapshot->valid && snapshot->step == wanted[FACT_STEP] &&
            snapshot->epoch == wanted[FACT_EPOCH])
            from = snapshot;
        else
            snapshot->valid = false; /* or the next copy would replace the good one */
    }
    kolo_status status = redistribute(
        loop, from, from != NULL && !is_owner_there(facts, count, wanted, from->before.owner));
    if (status != KOLO_OK || from == NULL)
        return status;
    put_back_rest(loop, from);
    loop->step = from->step;
    loop->stopped = false;
    loop->has_state = true;
    return KOLO_OK;
}

/* Nothing is left but what was copied before the first step, and of that not all parts: they are
 * what enter has made. The rest may have come further, or only some of it, in the step that broke.
 */
static void begin_again(kolo_elastic *loop)
{
    struct kolo__snapshot *snapshots = loop->shards.snapshots;
    const struct kolo__snapshot *from = snapshots[0].valid   ? &snapshots[0]
                                        : snapshots[1].valid ? &snapshots[1]
                                                             : NULL;
    loop->has_state = from != NULL;
    loop->touched = true;
    loop->stopped = false;
    loop->step = 0;
    if (from != NULL)
        put_back_rest(loop, from);
}

static bool has_begun(const uint64_t *facts, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (facts[(size_t)i * FACT_COUNT + FACT_VALID] != 0)
            return true;
    return false;
}

/* Newcomers are left, who got their state from ranks that were lost before the next copies. */
static bool is_past_copies(const uint64_t *facts, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (facts[(size_t)i * FACT_COUNT + FACT_DONE] > 0)
            return true;
    return false;
}

static void forget(kolo_elastic *loop)
{
    loop->has_state = false;
    loop->touched = true;
    for (int i = 0; i < KOLO__SNAPSHOTS; i++)
        loop->shards.snapshots[i].valid = false;
}

/* What is left is worth nothing; the last checkpoint has all parts. uncovered: as of find_whole. */
static kolo_status lose(kolo_elastic *loop, int64_t uncovered)
{
    forget(loop);
    if (loop->folder != NULL)
        return KOLO_OK;
    if (uncovered >= 0)
        return kolo__error(KOLO_ERR_WORLD,
                           "%s: part of the state is lost: rank %" PRId64
                           " of the world before is gone, and so is the one behind it, which had "
                           "its copy; start the job again",
                           operation, uncovered);
    return kolo__error(KOLO_ERR_WORLD,
                       "%s: part of the state is lost: ranks that had copies of it are gone, "
                       "before those that are left had made their own; start the job again",
                       operation);
}

kolo_status kolo__shards_go_back(kolo_elastic *loop)
{
    uint32_t count = loop->context->size * KOLO__SNAPSHOTS;
    int64_t uncovered;
    uint64_t *facts = calloc((size_t)count * FACT_COUNT, sizeof *facts);
    loop->shards.is_copied = false;
    kolo_status status = facts != NULL ? gather_facts(loop, facts)
                                       : kolo__error(KOLO_ERR_MEMORY, "%s: no memory", operation);
    const uint64_t *wanted = status == KOLO_OK ? find_whole(facts, count, &uncovered) : NULL;
    if (status == KOLO_OK && wanted != NULL)
        status = go_back_to(loop, wanted, facts, count);
    else if (status == KOLO_OK && uncovered < 0 && has_begun(facts, count))
        begin_again(loop);
    else if (status == KOLO_OK && (uncovered >= 0 || is_past_copies(facts, count)))
        status = lose(loop, uncovered);
    free(facts);
    return status;
}
