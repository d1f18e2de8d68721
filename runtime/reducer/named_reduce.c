/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a batch of the any-order mode: what all ranks had is reduced. See named.h. */
#include "runtime/reducer/named.h"

#include "base/assert.h"
#include "runtime/call.h"

#include <string.h>

/* Larger ones are reduced where they are: in a call of their own, which costs less than what fusing
 * costs. Over messages that is two copies. */
enum { LARGE_MAPPED_BYTES = 256 << 10, LARGE_BYTES = 64 << 10 };

/* Smaller buckets take whatever algorithm is the cheapest; and their copies stay in cache. */
enum { SCATTERED_BYTES = 64 << 10 };

kolo_status kolo__named_allreduce(struct kolo_named *named, void *data, size_t count,
                                  kolo_dtype dtype, kolo_op op, const kolo_call_options *options)
{
    const struct kolo__call call = {.name = "kolo_named_wait",
                                    .collective = KOLO__ALLREDUCE,
                                    .send = data,
                                    .recv = data,
                                    .count = count,
                                    .send_slices = 1,
                                    .recv_slices = 1,
                                    .may_be_in_place = true,
                                    .dtype = dtype,
                                    .op = op,
                                    .options = options};
    return kolo__call_start(named->comm, &call, &named->request);
}

static size_t bytes_of(const kolo_tensor *tensor)
{
    return tensor->count * kolo_dtype_bytes(tensor->dtype);
}

/* 0: large. */
static unsigned phase_of(const struct kolo_named *named, const kolo_tensor *tensor)
{
    size_t bytes = bytes_of(tensor);
    bool scatters = named->comm->mapping != NULL && named->ordinal < 0;
    size_t limit = scatters ? LARGE_MAPPED_BYTES : LARGE_BYTES;
    bool large = bytes >= limit || bytes > named->bucket_bytes;
    return large ? 0 : 1 + (unsigned)tensor->dtype;
}

/* The first place at `index` or behind that all ranks had. */
static size_t next_agreed(const struct kolo_named *named, size_t index)
{
    while (index < named->names) {
        uint64_t word = named->agreed[1 + index / 64] >> index % 64;
        if (word != 0) {
            index += (size_t)__builtin_ctzll(word);
            break;
        }
        index = (index | 63) + 1;
    }
    return index < named->names ? index : named->names;
}

/* The first that belongs to the phase as well; *index is its place. NULL: none. */
static struct kolo__name *next_of(const struct kolo_named *named, unsigned phase, size_t *index)
{
    for (size_t i = next_agreed(named, *index); i < named->names; i = next_agreed(named, i + 1)) {
        struct kolo__name *entry = &named->known.entries[i];
        if (phase_of(named, &entry->tensor) == phase) {
            *index = i;
            return entry;
        }
    }
    *index = named->names;
    return NULL;
}

static void done_with(struct kolo_named *named, struct kolo__name *entry, size_t index)
{
    KOLO__ASSERT(entry->pending);
    entry->pending = false;
    named->pending[index / 64] &= ~(UINT64_C(1) << index % 64);
    named->pending_count--;
}

/* Small tensors from the cursor on, as many as fit, become pieces; returns their bytes. */
static size_t collect(struct kolo_named *named, size_t element, bool *aligned)
{
    struct kolo__named_cursor *cursor = &named->cursor;
    struct kolo__name *entry;
    size_t bytes = 0;
    named->bucket = *cursor;
    named->piece_count = 0;
    *aligned = true;
    while ((entry = next_of(named, cursor->phase, &cursor->index)) != NULL) {
        size_t more = bytes_of(&entry->tensor);
        if (bytes + more > named->bucket_bytes)
            break;
        if (more > 0)
            named->pieces[named->piece_count++] =
                (struct kolo__piece){.first = bytes / element, .data = entry->tensor.data};
        *aligned &= (uintptr_t)entry->tensor.data % element == 0;
        bytes += more;
        cursor->index++;
    }
    return bytes;
}

static kolo_status copy_pieces(struct kolo_named *named, size_t element, size_t bytes, bool pack)
{
    kolo_status status = KOLO_OK;
    for (uint32_t k = 0; k < named->piece_count && status == KOLO_OK; k++) {
        const struct kolo__piece *piece = &named->pieces[k];
        size_t at = piece->first * element;
        size_t end = k + 1 < named->piece_count ? piece[1].first * element : bytes;
        unsigned char *staged = named->staging.memory + at;
        status = kolo__scratch_copy(&named->staging, pack ? staged : piece->data,
                                    pack ? piece->data : staged, end - at, named->call.stream);
    }
    return status;
}

/* In shared memory tensors are reduced where they are: its windows pack them. Otherwise, they are
 * packed into staging; which also this rank alone may do. */
static kolo_status begin_bucket(struct kolo_named *named)
{
    const kolo_dtype dtype = (kolo_dtype)(named->cursor.phase - 1);
    size_t element = kolo_dtype_bytes(dtype);
    bool aligned;
    size_t bytes = collect(named, element, &aligned);
    bool scattered = named->comm->mapping != NULL && named->ordinal < 0 && bytes >= SCATTERED_BYTES;
    kolo_status status = KOLO_OK;
    named->staged_bytes = scattered && aligned ? 0 : bytes;
    if (named->staged_bytes > 0)
        status = copy_pieces(named, element, bytes, true);
    if (bytes == 0 || status != KOLO_OK)
        return status;
    if (!scattered)
        return kolo__named_allreduce(named, named->staging.memory, bytes / element, dtype,
                                     named->op, &named->call);
    named->whole = (struct kolo__piece){.data = named->staging.memory};
    return kolo__allreduce_pieces_start(named->comm, "kolo_named_wait",
                                        aligned ? named->pieces : &named->whole,
                                        aligned ? named->piece_count : 1, bytes / element, dtype,
                                        named->op, named->call.scale, &named->request);
}

/* What is between `bucket` and the cursor is reduced. */
static kolo_status end_bucket(struct kolo_named *named)
{
    size_t index = named->bucket.index;
    struct kolo__name *entry;
    kolo_status status = KOLO_OK;
    if (named->bucket.phase > 0 && named->staged_bytes > 0)
        status = copy_pieces(named, kolo_dtype_bytes((kolo_dtype)(named->bucket.phase - 1)),
                             named->staged_bytes, false);
    while ((entry = next_of(named, named->bucket.phase, &index)) != NULL &&
           index < named->cursor.index)
        done_with(named, entry, index++);
    named->bucket = named->cursor;
    named->moved_ns = kolo__named_now();
    return status;
}

/* The next collective of the phase; KOLO_AGAIN: there is none. */
static kolo_status begin_next(struct kolo_named *named)
{
    struct kolo__named_cursor *cursor = &named->cursor;
    struct kolo__name *entry = NULL;
    if ((named->phases >> cursor->phase & 1) != 0)
        entry = next_of(named, cursor->phase, &cursor->index);
    if (entry == NULL)
        return KOLO_AGAIN;
    if (cursor->phase > 0)
        return begin_bucket(named);
    named->bucket = *cursor;
    cursor->index++;
    return kolo__named_allreduce(named, entry->tensor.data, entry->tensor.count,
                                 entry->tensor.dtype, named->op, &named->call);
}

void kolo__named_begin_reduce(struct kolo_named *named)
{
    named->stage = KOLO__NAMED_REDUCE;
    named->cursor = named->bucket = (struct kolo__named_cursor){0};
    named->phases = 0;
    for (size_t i = 0; (i = next_agreed(named, i)) < named->names; i++)
        named->phases |= 1u << phase_of(named, &named->known.entries[i].tensor);
    named->in_vain = kolo__named_agreed(named) || named->news ? 0 : named->in_vain + 1;
}

kolo_status kolo__named_reduce(struct kolo_named *named)
{
    kolo_status status = KOLO_OK;
    if (named->cursor.index > named->bucket.index)
        status = end_bucket(named);
    while (status == KOLO_OK && named->phases >> named->cursor.phase != 0) {
        status = begin_next(named);
        if (status != KOLO_AGAIN && (status != KOLO_OK || named->request != NULL))
            return status;
        if (status == KOLO_OK) { /* nothing but empty tensors */
            status = end_bucket(named);
            continue;
        }
        status = KOLO_OK;
        named->cursor = (struct kolo__named_cursor){.phase = named->cursor.phase + 1};
        named->bucket = named->cursor;
    }
    if (status != KOLO_OK)
        return status;
    named->stage = KOLO__NAMED_BETWEEN;
    named->batches++;
    return KOLO_OK;
}
