/* SPDX-License-Identifier: Apache-2.0 */
/* This rank's pieces, and copies of them on the next rank: shards.h has the picture. */
#include "runtime/elastic/shards.h"

#include "base/status.h"
#include "runtime/elastic/elastic.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char operation[] = "kolo_elastic_begin_step";

static size_t element_bytes(const kolo_elastic *loop, size_t tensor)
{
    return kolo_dtype_bytes(loop->state[tensor].dtype);
}

/* ---- pieces -----------------------------------------------------------------------------------
 */

bool kolo__elastic_is_sharded(const kolo_elastic *loop)
{
    for (size_t i = 0; i < loop->count; i++)
        if (kolo__tensor_is_sharded(&loop->state[i]))
            return true;
    return false;
}

kolo_status kolo_elastic_set_pieces(kolo_elastic *loop, const kolo_elastic_piece *pieces,
                                    size_t count)
{
    if (loop == NULL || (pieces == NULL && count > 0))
        return kolo__error(KOLO_ERR_INVALID, "kolo_elastic_set_pieces: %s is NULL",
                           loop == NULL ? "the loop" : "pieces");
    for (size_t k = 0; k < count; k++) {
        const kolo_elastic_piece *piece = &pieces[k];
        const kolo_tensor *tensor =
            piece->tensor < loop->count ? &loop->state[piece->tensor] : NULL;
        if (tensor == NULL || !kolo__tensor_is_sharded(tensor) || piece->data == NULL ||
            piece->first > tensor->count || piece->count > tensor->count - piece->first)
            return kolo__error(KOLO_ERR_INVALID,
                               "kolo_elastic_set_pieces: piece %zu (elements %zu to %zu of tensor "
                               "%zu) %s",
                               k, piece->first, piece->first + piece->count, piece->tensor,
                               tensor == NULL || !kolo__tensor_is_sharded(tensor)
                                   ? "is not of a sharded tensor, which is one without data"
                               : piece->data == NULL ? "has no data"
                                                     : "is not within it");
    }
    kolo_elastic_piece *copy = calloc(count + 1, sizeof *copy);
    if (copy == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "kolo_elastic_set_pieces: no memory for %zu", count);
    if (count > 0)
        memcpy(copy, pieces, count * sizeof *copy);
    free(loop->shards.pieces);
    loop->shards.pieces = copy;
    loop->shards.count = count;
    return KOLO_OK;
}

/* A number for each element of each tensor, as good as random (splitmix64). */
static uint64_t mark_of(size_t tensor, uint64_t element)
{
    uint64_t z = element * 0x9E3779B97F4A7C15u + (uint64_t)(tensor + 1) * 0xD1B54A32D192ED03u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* Pieces are all elements, each once, exactly if where they end and where they begin cancel, but
 * for the beginning and the end of the tensor. So the sum of mark(end) - mark(begin) is that of the
 * whole, and of other pieces it is as good as never. */
kolo_status kolo__shards_check(kolo_elastic *loop)
{
    uint64_t *marks = calloc(loop->count, sizeof *marks);
    if (marks == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "%s: no memory", operation);
    for (size_t k = 0; k < loop->shards.count; k++) {
        const kolo_elastic_piece *piece = &loop->shards.pieces[k];
        marks[piece->tensor] += mark_of(piece->tensor, piece->first + piece->count) -
                                mark_of(piece->tensor, piece->first);
    }
    kolo_status status = kolo_allreduce(loop->context->world, marks, marks, loop->count,
                                        KOLO_UINT64, KOLO_SUM, NULL);
    for (size_t i = 0; i < loop->count && status == KOLO_OK; i++) {
        const kolo_tensor *tensor = &loop->state[i];
        if (kolo__tensor_is_sharded(tensor) &&
            marks[i] != mark_of(i, tensor->count) - mark_of(i, 0))
            status = kolo__error(
                KOLO_ERR_INVALID,
                "%s: tensor %zu '%s' has no data, and the pieces of all ranks have not each of its "
                "%zu elements once: enter has to call kolo_elastic_set_pieces",
                operation, i, tensor->name != NULL ? tensor->name : "", tensor->count);
    }
    free(marks);
    return status;
}

/* ---- copies -----------------------------------------------------------------------------------
 */

static void free_copy(struct kolo__shard_copy *copy)
{
    free(copy->pieces);
    free(copy->data);
    *copy = (struct kolo__shard_copy){0};
}

void kolo__shards_free(kolo_elastic *loop)
{
    for (int i = 0; i < KOLO__SNAPSHOTS; i++) {
        free_copy(&loop->shards.snapshots[i].own);
        free_copy(&loop->shards.snapshots[i].before);
        free(loop->shards.snapshots[i].rest);
    }
    free(loop->shards.pieces);
}

/* Room for so much. */
static kolo_status make_room(struct kolo__shard_copy *copy, uint64_t count, uint64_t bytes)
{
    uint64_t *pieces = realloc(copy->pieces, (3 * count + 1) * sizeof *pieces);
    copy->pieces = pieces != NULL ? pieces : copy->pieces;
    unsigned char *data = realloc(copy->data, bytes + 1);
    copy->data = data != NULL ? data : copy->data;
    copy->count = count;
    copy->bytes = bytes;
    return pieces != NULL && data != NULL
               ? KOLO_OK
               : kolo__error(KOLO_ERR_MEMORY, "%s: no memory for a copy of %" PRIu64 " bytes",
                             operation, bytes);
}

static kolo_status copy_own(const kolo_elastic *loop, struct kolo__shard_copy *copy)
{
    const struct kolo__shards *shards = &loop->shards;
    uint64_t bytes = 0;
    for (size_t k = 0; k < shards->count; k++)
        bytes += shards->pieces[k].count * element_bytes(loop, shards->pieces[k].tensor);
    kolo_status status = make_room(copy, shards->count, bytes);
    unsigned char *at = copy->data;
    for (size_t k = 0; k < shards->count && status == KOLO_OK; k++) {
        const kolo_elastic_piece *piece = &shards->pieces[k];
        size_t part = piece->count * element_bytes(loop, piece->tensor);
        const uint64_t row[3] = {piece->tensor, piece->first, piece->count};
        memcpy(copy->pieces + 3 * k, row, sizeof row);
        memcpy(at, piece->data, part);
        at += part;
    }
    copy->owner = loop->context->rank;
    return status;
}

static kolo_status copy_rest(const kolo_elastic *loop, struct kolo__snapshot *snapshot)
{
    size_t bytes = 1;
    for (size_t i = 0; i < loop->count; i++)
        bytes += loop->state[i].data != NULL ? loop->state[i].count * element_bytes(loop, i) : 0;
    if (snapshot->rest == NULL && (snapshot->rest = malloc(bytes)) == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "%s: no memory for a copy of %zu bytes", operation,
                           bytes);
    unsigned char *at = snapshot->rest;
    for (size_t i = 0; i < loop->count; i++) {
        size_t part = loop->state[i].count * element_bytes(loop, i);
        if (loop->state[i].data == NULL || part == 0)
            continue;
        memcpy(at, loop->state[i].data, part);
        at += part;
    }
    return KOLO_OK;
}

/* To the next rank, and the same from the one before. */
static kolo_status pass(kolo_comm *world, const void *send, void *recv, size_t send_bytes,
                        size_t recv_bytes)
{
    int rank = kolo_comm_rank(world), size = kolo_comm_size(world);
    kolo_request *requests[2] = {NULL, NULL};
    kolo_status status = kolo_recv_start(world, recv, recv_bytes, KOLO_UINT8,
                                         (rank + size - 1) % size, &requests[0]);
    if (status == KOLO_OK)
        status =
            kolo_send_start(world, send, send_bytes, KOLO_UINT8, (rank + 1) % size, &requests[1]);
    for (int i = 0; i < 2; i++) {
        kolo_status ended = kolo_wait(&requests[i], -1); /* in any case: buffers are borrowed */
        status = status == KOLO_OK ? ended : status;
    }
    return status;
}

static kolo_status exchange(kolo_comm *world, struct kolo__snapshot *snapshot)
{
    struct kolo__shard_copy *own = &snapshot->own, *before = &snapshot->before;
    const uint64_t mine[2] = {own->count, own->bytes};
    uint64_t theirs[2];
    if (kolo_comm_size(world) == 1) {
        before->count = before->bytes = 0;
        before->owner = own->owner;
        return KOLO_OK;
    }
    kolo_status status = pass(world, mine, theirs, sizeof mine, sizeof theirs);
    if (status == KOLO_OK)
        status = make_room(before, theirs[0], theirs[1]);
    if (status == KOLO_OK)
        status = pass(world, own->pieces, before->pieces, 3 * own->count * sizeof(uint64_t),
                      3 * before->count * sizeof(uint64_t));
    if (status == KOLO_OK)
        status = pass(world, own->data, before->data, own->bytes, before->bytes);
    before->owner =
        (uint32_t)((kolo_comm_rank(world) + kolo_comm_size(world) - 1) % kolo_comm_size(world));
    return status;
}

kolo_status kolo__shards_copy(kolo_elastic *loop)
{
    struct kolo__snapshot *snapshots = loop->shards.snapshots, *to = &snapshots[0];
    if (snapshots[0].valid &&
        (!snapshots[1].valid || snapshots[1].epoch < snapshots[0].epoch ||
         (snapshots[1].epoch == snapshots[0].epoch && snapshots[1].step < snapshots[0].step)))
        to = &snapshots[1]; /* the older one, or none */
    to->valid = false;
    to->step = loop->step;
    to->epoch = loop->context->epoch;
    to->owners = loop->context->size;
    kolo_status status = copy_own(loop, &to->own);
    if (status == KOLO_OK)
        status = copy_rest(loop, to);
    if (status == KOLO_OK)
        status = exchange(loop->context->world, to);
    if (status != KOLO_OK)
        return status;
    to->valid = loop->shards.is_copied = true;
    loop->shards.copied = loop->step;
    return KOLO_OK;
}

bool kolo__shards_copy_is_due(const kolo_elastic *loop)
{
    uint64_t every = loop->options.copy_every > 0 ? loop->options.copy_every : 10;
    return kolo__elastic_is_sharded(loop) &&
           (!loop->shards.is_copied || loop->step - loop->shards.copied >= every);
}
