/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plans: what a collective call needs and does not change from call to call. Found by the call's
 * arguments; made at the first such call; kept until too many are there (the least recently used
 * goes).
 */
#ifndef KOLO_RUNTIME_PLAN_H
#define KOLO_RUNTIME_PLAN_H

#include "base/counter.h"
#include "collectives/execute.h"
#include "collectives/select.h"

enum {
    KOLO__PLANS_MAX = 512,
    KOLO__PLAN_BYTES_MAX =
        1
        << 28, /* of private memory over all plans of a communicator, unless one alone needs more */
};

/* Whose plan it is. */
enum kolo__plan_kind {
    KOLO__PLAN_OF_CALL,
    KOLO__PLAN_STAGED, /* of a call whose buffers go through the host in chunks: runtime/staging.h
                        */
    KOLO__PLAN_OF_CHUNK,
};

struct kolo__plan_key {
    enum kolo__plan_kind kind;
    enum kolo__collective collective;
    kolo_dtype dtype;
    kolo_op op;
    uint32_t root;
    size_t count;
    bool in_place;
    const struct kolo__algorithm *forced; /* by this call; NULL: none */
};

/* What is counted of a plan's runs for metrics (runtime/metrics.h): one number, for the rest
 * follows from it. */
struct kolo__tally {
    struct kolo__counter runs; /* that ended well */
    bool is_long;              /* each is timed however it goes */
    size_t bytes;              /* of a run: count times dtype */
    size_t sent, received;     /* through other ranks' memory: written there, read there */
    struct kolo__sheet *sheet; /* NULL: nobody asks */
    struct kolo__tally *next;  /* of that sheet */
    enum kolo__collective collective;
};

struct kolo__plan {
    struct kolo__plan_key key;
    const struct kolo__algorithm *algorithm;
    uint8_t algorithm_index;
    struct kolo__program *program; /* NULL: an offload's (collectives/offload/offload.h) */
    /* Staged, once it is used: the plan of all chunks but the last, and that of the last if it is
     * shorter (a user of each); how many chunks there are behind the first. Each takes a sequence
     * number, for to other ranks they are operations. */
    struct kolo__plan *chunks[2];
    size_t more_chunks;
    uint32_t users;      /* requests that hold it: it cannot go */
    bool memory_checked; /* of a call with it: a processor can read the buffers */
    struct kolo__plan *next_in_bucket;
    struct kolo__plan *newer, *older;
    struct kolo__tally tally;
};

struct kolo__plan_cache {
    struct kolo__plan *buckets[256];
    struct kolo__plan *newest, *oldest;
    size_t count, bytes;
};

/* What plans of a communicator have in common. */
struct kolo__plan_context {
    uint32_t rank, size;
    const uint32_t *host_of;
    bool mapped;       /* all ranks share memory */
    bool hosts_mapped; /* on every host all do; the same on all ranks */
    bool remote;
    struct kolo__heap *heap; /* whose memory network cards reach; NULL: none */
    const char *preferred;   /* KOLO_ALGORITHM; "": none */
    size_t segment_bytes;
    bool deterministic; /* KOLO_DETERMINISTIC */
    const struct kolo__cost_model *model;
    const struct kolo__offload *offload;
    struct kolo__sheet *sheet; /* for the tallies of plans made from now on; NULL: none */
};

/* The plan for the key, made if need be. The caller adds itself to users. */
kolo_status kolo__plan_get(struct kolo__plan_cache *cache, const struct kolo__plan_context *context,
                           const struct kolo__plan_key *key, struct kolo__plan **plan);
/* Frees all plans; none may have users. */
void kolo__plan_cache_clear(struct kolo__plan_cache *cache);

#endif
