/* SPDX-License-Identifier: Apache-2.0 */
/* Where the constants of a world come from: a file, a measurement, or the table that kolo comes
 * with. */
#include "runtime/costs.h"

#include "runtime/comm.h"

#include <string.h>

/* The sequence numbers of what is done before kolo_init returns: no operation of the program ever
 * has one of them, so that no record left in shared memory is taken for one of its. */
#define FIRST_SEQUENCE (UINT64_C(1) << 62)

/* What rank 0 tells. */
struct news {
    uint32_t source; /* enum kolo__costs_source */
    struct kolo__cost_model model;
};

static kolo_status spread(kolo_comm *world, struct news *news)
{
    const kolo_call_options options = {.size = sizeof options, .algorithm = "shm_one_shot"};
    return kolo_broadcast(world, news, sizeof *news, KOLO_UINT8, 0, &options);
}

/* Rank 0: through the text, so that what was measured now is what others will read. */
static void keep(struct kolo__costs *costs, const char *key, struct kolo__cost_model *model)
{
    char text[KOLO__COSTS_TEXT_BYTES];
    size_t bytes = kolo__costs_text(key, model, text);
    kolo__costs_parse(text, bytes, key, model);
    if (costs->path[0] != '\0' && !kolo__costs_save(costs->path, key, model))
        costs->path[0] = '\0';
}

static kolo_status find(kolo_comm *world, struct kolo__costs *costs)
{
    char key[KOLO__COSTS_KEY_BYTES] = "";
    struct news news;
    memset(&news, 0, sizeof news);
    if (world->rank == 0) {
        kolo__costs_key(world->size, kolo__costs_layout(world->size, world->crowded), key);
        bool found =
            kolo__costs_path(key, costs->path) && kolo__costs_load(costs->path, key, &news.model);
        /* Who renews a world waits to go on: what is not known of so many ranks stays unknown. */
        news.source = found                       ? KOLO__COSTS_FILE
                      : world->context->epoch > 0 ? KOLO__COSTS_DEFAULT
                                                  : KOLO__COSTS_MEASURED;
    }
    kolo_status status = spread(world, &news);
    if (status == KOLO_OK && news.source == KOLO__COSTS_MEASURED) {
        status = kolo__costs_measure(world, &news.model);
        if (status == KOLO_OK && world->rank == 0)
            keep(costs, key, &news.model);
        if (status == KOLO_OK)
            status = spread(world, &news);
    }
    if (status != KOLO_OK || news.source == KOLO__COSTS_DEFAULT)
        return status;
    costs->model = news.model;
    costs->source = news.source == KOLO__COSTS_FILE ? KOLO__COSTS_FILE : KOLO__COSTS_MEASURED;
    costs->ranks = world->size;
    return KOLO_OK;
}

kolo_status kolo__costs_find(kolo_context *context)
{
    kolo_comm *world = context->world;
    context->costs.model = kolo__default_cost_model;
    context->costs.ranks = 0;
    if (world->mapping == NULL)
        return KOLO_OK;
    world->sequence = FIRST_SEQUENCE;
    kolo_status status = find(world, &context->costs);
    /* A rank that has ended this may break the world before the last one has: all operations will
     * say so, and kolo_init need not. */
    if (status != KOLO_OK)
        return world->fault.status != KOLO_OK ? KOLO_OK : status;
    /* As if nothing had happened. */
    kolo__plan_cache_clear(&world->plans);
    world->sequence = 0;
    world->recent_count = 0;
    memset(world->recent, 0, sizeof world->recent);
    world->plan_context.model = kolo__costs_for(&context->costs, true, world->size);
    return KOLO_OK;
}

const struct kolo__cost_model *kolo__costs_for(const struct kolo__costs *costs, bool mapped,
                                               uint32_t ranks)
{
    return mapped && costs->ranks == ranks ? &costs->model : &kolo__default_cost_model;
}
