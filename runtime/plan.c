/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/plan.h"

#include "base/status.h"
#include "collectives/transport/shm.h"
#include "collectives/transport/tcp.h"
#include "runtime/metrics.h"

#include <stdlib.h>
#include <string.h>

enum {
    SEGMENTS_IN_FLIGHT = 4,
    /* Some of them, and the socket buffers of as much, stay in a cache of some megabytes. Less, and
     * messages get so short that calls of the kernel cost more than caches save. Not of the length
     * of segments, which a tuner changes, so that a long vector has no more steps for it. */
    CHUNK_BYTES = 8 * KOLO__TCP_BURST_BYTES,
};

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash ^= value;
    hash *= 0x9e3779b97f4a7c15u;
    return hash ^ (hash >> 29);
}

static size_t bucket_of(const struct kolo__plan_key *key)
{
    uint64_t hash = mix(0, key->count);
    hash = mix(hash, (uint64_t)key->collective << 24 | (uint64_t)key->dtype << 16 |
                         (uint64_t)key->op << 8 | key->in_place);
    hash = mix(hash, (uint64_t)key->kind << 32 | key->root);
    hash = mix(hash, (uint64_t)(uintptr_t)key->forced);
    return hash % 256;
}

static bool same_key(const struct kolo__plan_key *a, const struct kolo__plan_key *b)
{
    return a->kind == b->kind && a->collective == b->collective && a->dtype == b->dtype &&
           a->op == b->op && a->root == b->root && a->count == b->count &&
           a->in_place == b->in_place && a->forced == b->forced;
}

static void unlink_age(struct kolo__plan_cache *cache, struct kolo__plan *plan)
{
    if (plan->newer != NULL)
        plan->newer->older = plan->older;
    else
        cache->newest = plan->older;
    if (plan->older != NULL)
        plan->older->newer = plan->newer;
    else
        cache->oldest = plan->newer;
}

static void make_newest(struct kolo__plan_cache *cache, struct kolo__plan *plan)
{
    plan->newer = NULL;
    plan->older = cache->newest;
    if (cache->newest != NULL)
        cache->newest->newer = plan;
    else
        cache->oldest = plan;
    cache->newest = plan;
}

static size_t bytes_of(const struct kolo__plan *plan)
{
    return plan->program != NULL ? kolo__program_bytes(plan->program) : 0;
}

static void free_plan(struct kolo__plan *plan)
{
    kolo__tally_end(&plan->tally);
    if (plan->program != NULL)
        kolo__program_free(plan->program);
    free(plan);
}

static void remove_plan(struct kolo__plan_cache *cache, struct kolo__plan *plan)
{
    struct kolo__plan **link = &cache->buckets[bucket_of(&plan->key)];
    while (*link != plan)
        link = &(*link)->next_in_bucket;
    *link = plan->next_in_bucket;
    unlink_age(cache, plan);
    for (int i = 0; i < 2; i++)
        if (plan->chunks[i] != NULL)
            plan->chunks[i]->users--;
    cache->count--;
    cache->bytes -= bytes_of(plan);
    free_plan(plan);
}

/* Lets the oldest unused plans go while there are too many. */
static void shrink(struct kolo__plan_cache *cache)
{
    struct kolo__plan *plan = cache->oldest;
    while (plan != NULL && plan != cache->newest &&
           (cache->count > KOLO__PLANS_MAX || cache->bytes > KOLO__PLAN_BYTES_MAX)) {
        struct kolo__plan *newer = plan->newer;
        if (plan->users == 0)
            remove_plan(cache, plan);
        plan = newer;
    }
}

/* As the schedule has it; runs in which all buffers are mapped may push what others else read. */
static void find_mapped_bytes(const struct kolo__schedule *s, size_t element,
                              struct kolo__plan *plan)
{
    for (uint32_t i = 0; s->mapped && i < s->step_count; i++) {
        const struct kolo__step *step = &s->steps[i];
        if (kolo__step_is_fence(step) || kolo__step_is_message(step) ||
            (step->flags & KOLO__MAPPED_ONLY) != 0)
            continue;
        for (uint32_t k = 0; k < kolo__step_reads(step); k++)
            if (kolo__step_read(s, step, k)->rank != s->problem.rank)
                plan->tally.received += step->count * element;
        for (uint32_t k = 0; k < kolo__step_writes(step); k++)
            if (kolo__step_written(s, step, k)->rank != s->problem.rank)
                plan->tally.sent += step->count * element;
    }
}

static kolo_status make(const struct kolo__plan_context *context, const struct kolo__plan_key *key,
                        struct kolo__plan *plan)
{
    size_t element = kolo_dtype_bytes(key->dtype);
    bool mapped = context->mapped || context->hosts_mapped;
    struct kolo__problem problem = {
        .collective = key->collective,
        .rank = context->rank,
        .size = context->size,
        .root = key->root,
        .count = key->count,
        .in_place = key->in_place,
        .prescale = kolo__collective_reduces(key->collective) && key->op == KOLO_PREMUL_SUM,
        .window_count =
            mapped ? kolo__shm_window_bytes(context->size, !context->mapped) / element : 1,
        .chunk_count = context->remote ? CHUNK_BYTES / element : 0,
        .burst_count = context->remote ? KOLO__TCP_BURST_BYTES / element : 0,
        .host_of = context->host_of,
    };
    struct kolo__select_input input = {
        .problem = &problem,
        .dtype = key->dtype,
        .op = key->op,
        .mapped = context->mapped,
        .hosts_mapped = context->hosts_mapped,
        .remote = context->remote,
        .slot_bytes = mapped ? KOLO__SHM_SLOT_BYTES : 0,
        .deterministic = context->deterministic,
        .model = context->model,
        .offload = context->offload,
    };
    struct kolo__schedule schedule;
    const char *preferred = context->preferred;
    if (key->kind == KOLO__PLAN_STAGED) {
        plan->algorithm = &kolo__offload_staged;
        plan->algorithm_index = KOLO__OFFLOAD_STAGED_INDEX;
        return KOLO_OK;
    }
    if (key->kind == KOLO__PLAN_OF_CHUNK) { /* a chunk's run is driven here, not by MPI */
        input.offload = NULL;
        if (strcmp(preferred, kolo__offload_mpi.name) == 0)
            preferred = "";
    }
    if (key->forced == &kolo__offload_nccl || key->forced == &kolo__offload_exchange) {
        plan->algorithm = key->forced;
        plan->algorithm_index = key->forced == &kolo__offload_nccl ? KOLO__OFFLOAD_NCCL_INDEX
                                                                   : KOLO__OFFLOAD_EXCHANGE_INDEX;
        return KOLO_OK;
    }
    kolo_status status = kolo__select(&input, key->forced != NULL ? key->forced->name : preferred,
                                      key->forced == NULL, &plan->algorithm);
    if (status != KOLO_OK)
        return status;
    if (plan->algorithm == &kolo__offload_mpi) {
        plan->algorithm_index = KOLO__OFFLOAD_MPI_INDEX;
        return KOLO_OK;
    }
    while (kolo__algorithms[plan->algorithm_index] != plan->algorithm)
        plan->algorithm_index++;
    status = plan->algorithm->build(&problem, &schedule);
    if (status != KOLO_OK)
        return kolo__error(status, "no memory for the schedule of %s over %u ranks",
                           plan->algorithm->name, context->size);
    find_mapped_bytes(&schedule, element, plan);
    struct kolo__program_options options = {
        .dtype = key->dtype,
        .op = key->op,
        .segment_bytes = context->segment_bytes,
        .depth = SEGMENTS_IN_FLIGHT,
        .cache_bytes = (size_t)context->model->memory[KOLO__COST_LEVELS - 2].bytes,
        .heap = context->heap,
    };
    return kolo__program_create(&schedule, &options, &plan->program);
}

kolo_status kolo__plan_get(struct kolo__plan_cache *cache, const struct kolo__plan_context *context,
                           const struct kolo__plan_key *key, struct kolo__plan **result)
{
    size_t bucket = bucket_of(key);
    struct kolo__plan *plan = cache->buckets[bucket];
    while (plan != NULL && !same_key(&plan->key, key))
        plan = plan->next_in_bucket;
    if (plan != NULL) {
        if (plan != cache->newest) {
            unlink_age(cache, plan);
            make_newest(cache, plan);
        }
        *result = plan;
        return KOLO_OK;
    }

    plan = calloc(1, sizeof *plan);
    if (plan == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for a plan");
    plan->key = *key;
    kolo_status status = make(context, key, plan);
    if (status != KOLO_OK) {
        free(plan);
        return status;
    }
    plan->tally.collective = key->collective;
    plan->tally.bytes = key->count * kolo_dtype_bytes(key->dtype);
    if (context->sheet != NULL)
        kolo__tally_begin(&plan->tally, context->sheet);
    plan->next_in_bucket = cache->buckets[bucket];
    cache->buckets[bucket] = plan;
    make_newest(cache, plan);
    cache->count++;
    cache->bytes += bytes_of(plan);
    shrink(cache);
    *result = plan;
    return KOLO_OK;
}

void kolo__plan_cache_clear(struct kolo__plan_cache *cache)
{
    for (struct kolo__plan *plan = cache->newest; plan != NULL;) {
        struct kolo__plan *older = plan->older;
        free_plan(plan);
        plan = older;
    }
    memset(cache, 0, sizeof *cache);
}
