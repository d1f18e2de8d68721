/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoints of state of which ranks have parts. Each rank writes its own pieces, and its share of
 * what all have, while training goes on:
 *
 *     boundary   rank 0 wishes one, nobody writes still   each copies its part, and offers it
 *     ...        steps                                    threads write
 *     boundary   all have written                         all tell rank 0 the sums of their parts,
 *                                                         whose thread writes the manifest
 *
 * Whatever ends in between leaves parts without a manifest, which are no checkpoint. All ranks take
 * the same decisions, for they see the same sums of wishes.
 */
#include "runtime/elastic/elastic.h"

#include "base/log.h"
#include "base/status.h"
#include "runtime/comm.h"

#include <inttypes.h>
#include <stdlib.h>

static const char operation[] = "kolo_elastic_begin_step";

bool kolo__parts_are_saved(const kolo_elastic *loop)
{
    return loop->folder != NULL && kolo__elastic_is_sharded(loop);
}

/* ---- one part ---------------------------------------------------------------------------------
 */

/* This rank's pieces, and of each other tensor as much as of any rank. Returns how many. */
static size_t list_part(const kolo_elastic *loop, kolo_elastic_piece *pieces)
{
    size_t count = 0;
    uint64_t rank = loop->context->rank, size = loop->context->size;
    for (size_t k = 0; k < loop->shards.count; k++)
        pieces[count++] = loop->shards.pieces[k];
    for (size_t i = 0; i < loop->count; i++) {
        const kolo_tensor *tensor = &loop->state[i];
        size_t first = (size_t)(tensor->count * rank / size);
        size_t end = (size_t)(tensor->count * (rank + 1) / size);
        if (tensor->data != NULL && end > first)
            pieces[count++] = (kolo_elastic_piece){.tensor = i,
                                                   .first = first,
                                                   .count = end - first,
                                                   .data = (char *)tensor->data +
                                                           first * kolo_dtype_bytes(tensor->dtype)};
    }
    return count;
}

static kolo_status offer_part(kolo_elastic *loop)
{
    size_t most = loop->shards.count + loop->count;
    kolo_elastic_piece *pieces = calloc(most + 1, sizeof *pieces);
    kolo_status status = pieces != NULL ? kolo__elastic_make_writer(loop)
                                        : kolo__error(KOLO_ERR_MEMORY, "%s: no memory", operation);
    size_t count = status == KOLO_OK ? list_part(loop, pieces) : 0;
    unsigned char *file = status == KOLO_OK
                              ? kolo__checkpoint_writer_file(
                                    loop->writer, kolo__part_file_bytes(loop->state, pieces, count))
                              : NULL;
    if (file != NULL) {
        kolo__part_lay_out(file, loop->state, pieces, count, loop->step);
        kolo__checkpoint_writer_offer(loop->writer, loop->step, loop->context->rank,
                                      loop->context->size);
    } else if (status == KOLO_OK) {
        status = KOLO_ERR_MEMORY;
    }
    free(pieces);
    return status;
}

/* ---- the manifest -----------------------------------------------------------------------------
 */

/* Rank 0. parts: of all ranks. */
static kolo_status offer_manifest(kolo_elastic *loop, uint64_t step,
                                  const struct kolo__checkpoint_part *parts)
{
    uint32_t size = loop->context->size;
    unsigned char *file = kolo__checkpoint_writer_file(
        loop->writer, kolo__manifest_bytes(loop->state, loop->count, size));
    if (file == NULL)
        return KOLO_ERR_MEMORY;
    kolo__manifest_lay_out(file, loop->state, loop->count, step, parts, size);
    kolo__checkpoint_writer_offer(loop->writer, step, 0, 0);
    return KOLO_OK;
}

/* Collective: all parts are written, or not (own: what became of this rank's); then rank 0 begins
 * the manifest. *begun, on rank 0: an error when a part, or memory, is missing. */
static kolo_status finish(kolo_elastic *loop, uint64_t step, kolo_status own,
                          const struct kolo__checkpoint_part *written, kolo_status *begun)
{
    enum { FAILED, SUM, BYTES, FACTS };
    uint32_t size = loop->context->size;
    const uint64_t mine[FACTS] = {own != KOLO_OK, written->sum, written->bytes};
    uint64_t *facts = calloc((size_t)size * FACTS, sizeof *facts);
    struct kolo__checkpoint_part *parts = calloc(size, sizeof *parts);
    int64_t missing = -1;
    *begun = KOLO_OK;
    kolo_status status =
        facts != NULL && parts != NULL
            ? kolo_allgather(loop->context->world, mine, facts, FACTS, KOLO_UINT64, NULL)
            : kolo__error(KOLO_ERR_MEMORY, "%s: no memory", operation);
    for (uint32_t r = 0; r < size && status == KOLO_OK; r++) {
        parts[r] = (struct kolo__checkpoint_part){.sum = (uint32_t)facts[r * FACTS + SUM],
                                                  .bytes = facts[r * FACTS + BYTES]};
        if (facts[r * FACTS + FAILED] != 0 && missing < 0)
            missing = r;
    }
    if (status == KOLO_OK && loop->context->rank == 0)
        *begun = missing < 0
                     ? offer_manifest(loop, step, parts)
                     : kolo__error(KOLO_ERR_SYSTEM,
                                   "there is no checkpoint of step %" PRIu64 " in %s: rank %" PRId64
                                   " could not write its part, and its log says why",
                                   step, loop->folder, missing);
    free(facts);
    free(parts);
    return status;
}

/* ---- at boundaries ----------------------------------------------------------------------------
 */

void kolo__parts_wish(const kolo_elastic *loop, uint32_t *wishes)
{
    wishes[KOLO__WISH_WRITING] = kolo__parts_are_saved(loop) && loop->writer != NULL &&
                                 kolo__checkpoint_writer_is_busy(loop->writer);
}

kolo_status kolo__parts_meet(kolo_elastic *loop, const uint32_t *wishes, bool changes)
{
    if (!kolo__parts_are_saved(loop) || wishes[KOLO__WISH_WRITING] > 0)
        return KOLO_OK;
    if (loop->parts.pending) {
        struct kolo__checkpoint_part written = {0};
        kolo_status own = loop->parts.offered;
        if (own == KOLO_OK)
            own = kolo__checkpoint_writer_wait(loop->writer, &written); /* which is idle */
        kolo_status begun, status = finish(loop, loop->parts.step, own, &written, &begun);
        if (status != KOLO_OK)
            return status;
        if (begun != KOLO_OK) /* training goes on without */
            kolo__log(KOLO__LOG_WARN, "%s", kolo_error_text());
        loop->saved = loop->parts.step; /* or it would be tried at each boundary */
        loop->parts.pending = false;
    } else if (wishes[KOLO__WISH_SAVE] > 0 && !changes) {
        loop->parts.offered = offer_part(loop);
        if (loop->parts.offered != KOLO_OK)
            kolo__log(KOLO__LOG_WARN, "%s", kolo_error_text());
        loop->parts.step = loop->step;
        loop->parts.pending = true;
    }
    return KOLO_OK;
}

/* Rank 0 has written the manifest, or could not: nobody goes before, for they may have to save all
 * once more, without it. */
static kolo_status await_manifest(kolo_elastic *loop)
{
    uint32_t word = 0;
    return kolo_broadcast(loop->context->world, &word, 1, KOLO_UINT32, 0, NULL);
}

kolo_status kolo__parts_save_last(kolo_elastic *loop)
{
    struct kolo__checkpoint_part written = {0};
    bool leader = loop->context->rank == 0;
    kolo_status own = KOLO_OK, begun = KOLO_OK, status = KOLO_OK;
    if (loop->writer != NULL) /* a manifest may be under way: what became of it the log says */
        (void)kolo__checkpoint_writer_wait(loop->writer, NULL);
    loop->parts.pending = false;
    if (loop->saved != loop->step) {
        own = offer_part(loop);
        if (own == KOLO_OK)
            own = kolo__checkpoint_writer_wait(loop->writer, &written);
        status = finish(loop, loop->step, own, &written, &begun);
        if (status == KOLO_OK && begun == KOLO_OK && leader)
            begun = kolo__checkpoint_writer_wait(loop->writer, NULL);
        if (status == KOLO_OK && begun == KOLO_OK && leader)
            loop->saved = loop->step;
    }
    if (status == KOLO_OK)
        status = await_manifest(loop);
    if (status == KOLO_OK)
        status = own != KOLO_OK ? own : begun;
    loop->saved = status == KOLO_OK ? loop->step : loop->saved;
    return status;
}

bool kolo__parts_are_there(const kolo_elastic *loop)
{
    char why[KOLO__CHECKPOINT_WHY_BYTES];
    struct kolo__checkpoint *checkpoint;
    if (kolo__checkpoint_open(loop->folder, loop->step, loop->state, loop->count, &checkpoint,
                              why) != KOLO__CHECKPOINT_GOOD)
        return false;
    kolo__checkpoint_close(checkpoint);
    return true;
}
