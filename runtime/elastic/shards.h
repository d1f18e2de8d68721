/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State of which each rank has a part alone (ZeRO). It would go with its rank; so every so many
 * steps each rank keeps a copy of all its state in memory, and of the parts of the rank before it:
 *
 *     rank        0            1            2            3
 *     copies    own, of 3    own, of 0    own, of 1    own, of 2
 *
 * When ranks are lost, all go back to the last copies that cover all parts, and each takes from
 * whoever has them the parts that are its own in the new world. Two sets of copies are kept, for a
 * fault may come while the newer one is being made.
 */
#ifndef KOLO_RUNTIME_ELASTIC_SHARDS_H
#define KOLO_RUNTIME_ELASTIC_SHARDS_H

#include <kolo/kolo.h>

#include <stdbool.h>

/* The parts of one rank, one after the other. */
struct kolo__shard_copy {
    uint32_t owner;   /* its rank in the world of then */
    uint64_t count;   /* of pieces */
    uint64_t *pieces; /* owned: tensor, first, count of each */
    uint64_t bytes;
    unsigned char *data; /* owned */
};

struct kolo__snapshot {
    bool valid;
    uint64_t step;
    uint32_t epoch, owners;              /* of the world of then, and its size */
    struct kolo__shard_copy own, before; /* before: owner's copy is own's where there is one rank */
    unsigned char *rest;                 /* owned: tensors that all ranks have */
};

enum { KOLO__SNAPSHOTS = 2 };

struct kolo__shards {
    kolo_elastic_piece *pieces; /* owned; this rank's in this world */
    size_t count;
    struct kolo__snapshot snapshots[KOLO__SNAPSHOTS];
    uint64_t copied; /* the step of the newest, in this epoch */
    bool is_copied;  /* there is one */
};

/* Its data lies in pieces. */
static inline bool kolo__tensor_is_sharded(const kolo_tensor *tensor)
{
    return tensor->data == NULL && tensor->count > 0;
}

bool kolo__elastic_is_sharded(const kolo_elastic *loop);
void kolo__shards_free(kolo_elastic *loop);

/* After enter. Collective: KOLO_ERR_INVALID unless pieces of all ranks together are all elements,
 * each once. */
kolo_status kolo__shards_check(kolo_elastic *loop);
/* Collective, at a boundary: makes copies. */
kolo_status kolo__shards_copy(kolo_elastic *loop);
/* At a boundary, alike on all ranks: it is time to. */
bool kolo__shards_copy_is_due(const kolo_elastic *loop);
/* Collective, after enter: back to the last copies that cover all, if there are any. */
kolo_status kolo__shards_go_back(kolo_elastic *loop);

#endif
