/* SPDX-License-Identifier: Apache-2.0 */
/* One batch of the any-order mode: who has what, and the reduction of what all have. See named.h.
 */
#include "runtime/reducer/named.h"

#include "base/assert.h"
#include "base/status.h"
#include "runtime/call.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char OPERATION[] = "kolo_named_wait";

/* Of all ranks' announcements of one batch. */
static const uint64_t ANNOUNCEMENTS_BYTES_MAX = UINT64_C(1) << 32;

/* Bits of the first word: each is what all ranks have to say. */
static const uint64_t NO_NEW_NAMES = 1, NO_WISH_FOR_LACKS = 2, NO_LIMIT = 4;

static kolo_status no_memory(const char *what, size_t bytes)
{
    return kolo__error(KOLO_ERR_MEMORY, "%s: no %zu bytes for %s", OPERATION, bytes, what);
}

static kolo_status gather(struct kolo_named *named, const void *send, void *recv, size_t bytes)
{
    const struct kolo__call call =
        kolo__call_allgather(named->comm, OPERATION, send, recv, bytes, KOLO_UINT8);
    return kolo__call_start(named->comm, &call, &named->request);
}

/* ---- agree ------------------------------------------------------------------------------------
 */

static size_t words_for(size_t names)
{
    return 1 + (names + 63) / 64;
}

static bool grow(uint64_t **words, size_t before, size_t after)
{
    uint64_t *grown = realloc(*words, after * sizeof *grown);
    if (grown == NULL)
        return false;
    memset(grown + before, 0, (after - before) * sizeof *grown);
    *words = grown;
    return true;
}

bool kolo__named_make_room(struct kolo_named *named, size_t count)
{
    size_t needed = words_for(count), capacity = 2 * needed;
    if (needed <= named->capacity)
        return true;
    struct kolo__piece *pieces = realloc(named->pieces, capacity * 64 * sizeof *pieces);
    if (pieces == NULL)
        return false;
    named->pieces = pieces;
    if (!grow(&named->agreed, named->capacity, capacity) ||
        !grow(&named->pending, named->capacity, capacity))
        return false;
    named->capacity = capacity;
    return true;
}

kolo_status kolo__named_begin(struct kolo_named *named, bool unlimited, bool wants_lacks)
{
    named->names = named->known.count;
    named->words = words_for(named->names);
    named->wants_lacks = wants_lacks;
    named->began_ns = kolo__named_now();
    uint64_t flags = ~UINT64_C(0);
    if (named->fresh.count > 0)
        flags &= ~NO_NEW_NAMES;
    if (wants_lacks)
        flags &= ~NO_WISH_FOR_LACKS;
    if (!unlimited)
        flags &= ~NO_LIMIT;
    named->news = false;
    named->agreed[0] = flags;
    memcpy(named->agreed + 1, named->pending, (named->words - 1) * sizeof *named->pending);
    named->stage = KOLO__NAMED_AGREE;
    return kolo__named_allreduce(named, named->agreed, named->words, KOLO_UINT64, KOLO_AND, NULL);
}

bool kolo__named_agreed(const struct kolo_named *named)
{
    uint64_t any = 0;
    for (size_t w = 1; w < named->words; w++)
        any |= named->agreed[w];
    return any != 0;
}

/* All ranks are in waits without a limit, which nobody leaves to submit something. */
static bool will_never_change(const struct kolo_named *named)
{
    uint64_t flags = named->agreed[0];
    return (flags & NO_LIMIT) != 0 && (flags & NO_NEW_NAMES) != 0 && !kolo__named_agreed(named);
}

/* ---- lacks ------------------------------------------------------------------------------------
 */

/* Complements again: a rank that has joined sends zeros, and lacks nothing. */
static kolo_status begin_lacks(struct kolo_named *named)
{
    size_t words = named->words - 1, bytes = words * sizeof *named->lacks;
    named->stage = KOLO__NAMED_LACKS;
    if (words == 0)
        return KOLO_OK;
    named->lacks = malloc(named->comm->size * bytes);
    if (named->lacks == NULL)
        return no_memory("a list of what ranks lack", named->comm->size * bytes);
    uint64_t *own = named->lacks + named->comm->rank * words;
    for (size_t w = 0; w < words; w++)
        own[w] = ~named->pending[w];
    return gather(named, own, named->lacks, bytes);
}

static kolo_status end_lacks(struct kolo_named *named)
{
    char text[KOLO__NAMES_TEXT_BYTES];
    kolo_status status = KOLO_OK;
    if (named->lacks != NULL && named->wants_lacks)
        status = kolo__named_tell(named);
    if (status == KOLO_OK && will_never_change(named)) {
        if (named->lacks != NULL)
            kolo__names_missing(&named->known, named->names, named->lacks, named->words - 1,
                                named->comm->size, false, 0, text, sizeof text);
        status = kolo__error(KOLO_ERR_MISMATCH,
                             "%s: every rank waits for tensors that others have not submitted, and "
                             "nobody can submit any more: %s",
                             OPERATION, named->lacks != NULL ? text : "no name is known");
    }
    free(named->lacks);
    named->lacks = NULL;
    return status;
}

/* ---- names ------------------------------------------------------------------------------------
 */

static kolo_status begin_sizes(struct kolo_named *named)
{
    named->stage = KOLO__NAMED_SIZES;
    named->announcement.bytes = 0;
    kolo__names_write(&named->fresh, &named->announcement);
    if (named->announcement.failed)
        return no_memory("new names", named->announcement.bytes);
    named->sizes[named->comm->rank] = named->announcement.bytes;
    return gather(named, named->sizes + named->comm->rank, named->sizes, sizeof *named->sizes);
}

static kolo_status begin_names(struct kolo_named *named)
{
    uint64_t ranks = named->comm->size, largest = 0;
    for (uint64_t r = 0; r < ranks; r++)
        largest = named->sizes[r] > largest ? named->sizes[r] : largest;
    KOLO__ASSERT(largest > 0); /* this rank's is */
    if (largest * ranks > ANNOUNCEMENTS_BYTES_MAX || largest > ANNOUNCEMENTS_BYTES_MAX)
        return kolo__error(KOLO_ERR_NETWORK, "%s: some rank has %llu bytes of new names", OPERATION,
                           (unsigned long long)largest);
    named->stage = KOLO__NAMED_NAMES;
    named->largest = largest;
    named->announcements = calloc(ranks, largest);
    if (named->announcements == NULL)
        return no_memory("new names", ranks * largest);
    unsigned char *own = named->announcements + named->comm->rank * largest;
    memcpy(own, named->announcement.data, named->announcement.bytes);
    return gather(named, own, named->announcements, largest);
}

kolo_status kolo__named_settle(struct kolo_named *named)
{
    struct kolo__names rest = {0};
    kolo_status status = KOLO_OK;
    for (size_t i = 0; i < named->fresh.count && status == KOLO_OK; i++) {
        const struct kolo__name *fresh = &named->fresh.entries[i];
        struct kolo__name *known = kolo__names_find(&named->known, fresh->tensor.name), *kept;
        if (known == NULL || !kolo__names_agree(&known->tensor, &fresh->tensor)) {
            /* Submitted since the announcement. */
            status = kolo__names_add(&rest, &fresh->tensor, named->comm->rank, &kept);
            if (status != KOLO_OK)
                break;
            kept->tensor.data = fresh->tensor.data;
            kept->pending = true;
            kept->since_ns = fresh->since_ns;
            continue;
        }
        size_t place = (size_t)(known - named->known.entries);
        known->tensor.data = fresh->tensor.data;
        known->pending = true;
        known->told = false;
        known->since_ns = fresh->since_ns;
        named->pending[place / 64] |= UINT64_C(1) << place % 64;
    }
    kolo__names_free(&named->fresh);
    named->fresh = rest;
    return status;
}

static kolo_status end_names(struct kolo_named *named)
{
    size_t differences = 0;
    char text[KOLO__NAMES_TEXT_BYTES];
    kolo_status status = KOLO_OK;
    for (uint32_t r = 0; r < named->comm->size && status == KOLO_OK; r++)
        if (named->sizes[r] > 0)
            status = kolo__names_merge(&named->known, named->announcements + r * named->largest,
                                       named->sizes[r], &differences, text);
    free(named->announcements);
    named->announcements = NULL;
    if (status != KOLO_OK)
        return status;
    if (differences > 1)
        return kolo__error(KOLO_ERR_MISMATCH, "%s: %s; and %zu more differences", OPERATION, text,
                           differences - 1);
    if (differences == 1)
        return kolo__error(KOLO_ERR_MISMATCH, "%s: %s", OPERATION, text);
    if (!kolo__named_make_room(named, named->known.count))
        return no_memory("the bits of names", words_for(named->known.count) * sizeof(uint64_t));
    named->news = true;
    return kolo__named_settle(named);
}

/* ---- from stage to stage ----------------------------------------------------------------------
 */

/* Each of these may begin a request, and then waits for it; or not, and is called again. */
kolo_status kolo__named_advance(struct kolo_named *named)
{
    kolo_status status = KOLO_OK;
    switch (named->stage) {
    case KOLO__NAMED_BETWEEN:
        return KOLO_OK;
    case KOLO__NAMED_AGREE:
        if ((named->agreed[0] & NO_WISH_FOR_LACKS) == 0 || will_never_change(named))
            return begin_lacks(named);
        break;
    case KOLO__NAMED_LACKS:
        status = end_lacks(named);
        break;
    case KOLO__NAMED_SIZES:
        return begin_names(named);
    case KOLO__NAMED_NAMES:
        status = end_names(named);
        break;
    case KOLO__NAMED_REDUCE:
        return kolo__named_reduce(named);
    }
    if (status != KOLO_OK)
        return status;
    if (named->stage != KOLO__NAMED_NAMES && (named->agreed[0] & NO_NEW_NAMES) == 0)
        return begin_sizes(named);
    kolo__named_begin_reduce(named);
    return KOLO_OK;
}
