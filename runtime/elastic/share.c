/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All ranks get the state of those furthest on. It travels in blocks, each broadcast from one of
 * those who have it, in turn, so that no rank sends all of it:
 *
 *     state    | tensor 0 .................. | tensor 1 | tensor 2 ...........|
 *     blocks   | 0       | 1       | 2       | 3        | 4       | 5         |
 *     from     | rank 0  | rank 2  | rank 3  | rank 0   | rank 2  | rank 3    |    rank 1 is behind
 *
 * Those who have it take part, and get the bits that they have. Whoever is behind has no state from
 * the first block to the last, so a transfer that breaks is begun anew, from whoever has it still.
 */
#include "runtime/elastic/elastic.h"

#include "base/status.h"
#include "runtime/comm.h"
#include "runtime/reducer/tensors.h"

#include <stdlib.h>

enum { BLOCK_BYTES = 4 << 20 };

/* What each rank tells all. */
enum { FACT_HAS_STATE, FACT_STEP, FACT_STOPPED, FACT_LEAST, FACT_SAVED, FACT_COUNT };

/* ---- who has what ---------------------------------------------------------------------------- */

static kolo_status gather_facts(kolo_elastic *loop, uint64_t *facts)
{
    const uint64_t mine[FACT_COUNT] = {loop->has_state, loop->step, loop->stopped, loop->least,
                                       loop->saved};
    return kolo_allgather(loop->context->world, mine, facts, FACT_COUNT, KOLO_UINT64, NULL);
}

/* Lists those furthest on, and makes `loop` know what they know. 0: nobody has a state. */
static uint32_t find_holders(kolo_elastic *loop, const uint64_t *facts, int *holders)
{
    uint32_t size = loop->context->size, count = 0;
    uint64_t furthest = 0;
    for (uint32_t r = 0; r < size; r++) {
        const uint64_t *fact = facts + (size_t)r * FACT_COUNT;
        if (fact[FACT_LEAST] > loop->least)
            loop->least = fact[FACT_LEAST];
        if (fact[FACT_SAVED] > loop->saved)
            loop->saved = fact[FACT_SAVED];
        if (!fact[FACT_HAS_STATE] || (count > 0 && fact[FACT_STEP] < furthest))
            continue;
        if (count == 0 || fact[FACT_STEP] > furthest)
            count = 0;
        furthest = fact[FACT_STEP];
        holders[count++] = (int)r;
    }
    return count;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

static size_t block_elements(const kolo_tensor *tensor)
{
    return BLOCK_BYTES / kolo_dtype_bytes(tensor->dtype);
}

/* Broadcasts the blocks whose turn is holder `turn` of `turns`. */
static kolo_status send_turn(kolo_elastic *loop, kolo_tensor *blocks, uint32_t turn, uint32_t turns,
                             int root)
{
    size_t at = 0, count = 0;
    for (size_t i = 0; i < loop->count; i++) {
        const kolo_tensor *tensor = &loop->state[i];
        size_t elements = block_elements(tensor);
        for (size_t first = 0; first < tensor->count && tensor->data != NULL;
             first += elements, at++) {
            size_t left = tensor->count - first;
            if (at % turns == turn)
                blocks[count++] = (kolo_tensor){.data = (char *)tensor->data +
                                                        first * kolo_dtype_bytes(tensor->dtype),
                                                .count = left < elements ? left : elements,
                                                .dtype = tensor->dtype,
                                                .name = tensor->name};
        }
    }
    return kolo_broadcast_tensors(loop->context->world, blocks, count, root);
}

static size_t count_blocks(const kolo_elastic *loop)
{
    size_t count = 0;
    for (size_t i = 0; i < loop->count; i++) {
        size_t elements = block_elements(&loop->state[i]);
        count += (loop->state[i].count + elements - 1) / elements;
    }
    return count;
}

static kolo_status send_all(kolo_elastic *loop, const int *holders, uint32_t count)
{
    kolo_tensor *blocks = calloc(count_blocks(loop) + 1, sizeof *blocks);
    if (blocks == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "kolo_elastic_begin_step: no memory to list the state");
    kolo_status status = KOLO_OK;
    for (uint32_t turn = 0; turn < count && status == KOLO_OK; turn++)
        status = send_turn(loop, blocks, turn, count, holders[turn]);
    free(blocks);
    return status;
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* Ranks with another program or model would otherwise differ in some block, or in none. */
static kolo_status compare_lists(kolo_elastic *loop)
{
    return kolo__tensors_compare(loop->context->world, "kolo_elastic_begin_step", loop->state,
                                 loop->count, NULL, 0, NULL);
}

/* Nobody has a state: rank 0 makes one, or tells all why it cannot. */
static kolo_status begin_state(kolo_elastic *loop)
{
    if (kolo__parts_are_saved(loop)) /* all do, and fail alike */
        return kolo__elastic_restore(loop);
    kolo_status status = loop->context->rank == 0 ? kolo__elastic_restore(loop) : KOLO_OK;
    return status == KOLO_OK
               ? compare_lists(loop)
               : kolo__tensors_refuse(loop->context->world, "kolo_elastic_begin_step", status);
}

static kolo_status take(kolo_elastic *loop, const uint64_t *facts, const int *holders,
                        uint32_t count)
{
    const uint64_t *theirs = facts + (size_t)holders[0] * FACT_COUNT;
    bool behind = !loop->has_state || loop->step < theirs[FACT_STEP];
    if (count == loop->context->size)
        return KOLO_OK;
    if (behind) {
        loop->has_state = false;
        loop->touched = true;
    }
    kolo_status status = send_all(loop, holders, count);
    if (status != KOLO_OK)
        return status;
    loop->step = theirs[FACT_STEP];
    loop->stopped = theirs[FACT_STOPPED] != 0;
    loop->has_state = true;
    return KOLO_OK;
}

kolo_status kolo__elastic_share(kolo_elastic *loop)
{
    uint32_t size = loop->context->size, count = 0;
    uint64_t *facts = calloc((size_t)size * FACT_COUNT, sizeof *facts);
    int *holders = calloc(size, sizeof *holders);
    kolo_status status = facts != NULL && holders != NULL
                             ? KOLO_OK
                             : kolo__error(KOLO_ERR_MEMORY, "kolo_elastic_begin_step: no memory");
    if (status == KOLO_OK && kolo__elastic_is_sharded(loop)) {
        status = kolo__shards_check(loop);
        if (status == KOLO_OK)
            status = kolo__shards_go_back(loop);
    }
    for (int i = 0; i < 2 && count == 0 && status == KOLO_OK; i++) {
        if (i == 1)
            status = begin_state(loop);
        if (status == KOLO_OK)
            status = gather_facts(loop, facts);
        if (status == KOLO_OK)
            count = find_holders(loop, facts, holders);
    }
    if (status == KOLO_OK && count == 0)
        status = kolo__error(KOLO_ERR_WORLD,
                             "kolo_elastic_begin_step: nobody that is left has the whole state: it "
                             "went with the ranks that are gone; start the job again");
    if (status == KOLO_OK)
        status = take(loop, facts, holders, count);
    free(facts);
    free(holders);
    return status;
}
