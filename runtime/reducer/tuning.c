/* SPDX-License-Identifier: Apache-2.0 */
/* A reducer's side of tune.h: what may be tried, and what all ranks have to agree on for it. */
#include "runtime/reducer/reducer.h"

#include "base/log.h"
#include "base/status.h"
#include "runtime/cache_file.h"
#include "runtime/call.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Sizes below make more collectives than they hide. */
enum { BUCKET_BYTES_LEAST = 256 << 10 };

/* The bits of a sum must not depend on how long anything took. With two ranks, and where elements
 * are combined in the order of ranks, they do not depend on where buckets are cut. */
static bool cut_may_change(const kolo_reducer *reducer)
{
    const kolo_comm *comm = reducer->comm;
    /* Nor may those of the norm: with one dtype tensors are measured in their order, however cut.
     */
    for (uint32_t i = 1; reducer->options.statistics && i < reducer->tensor_count; i++)
        if (reducer->tensors[i].dtype != reducer->tensors[0].dtype)
            return false;
    return reducer->options.bucket_bytes == 0 && !reducer->options.sharded &&
           (comm->size == 2 || comm->plan_context.deterministic);
}

static void add_choice(struct kolo__tuning *choices, uint32_t *count, size_t bucket, size_t segment)
{
    for (uint32_t i = 0; i < *count; i++)
        if (choices[i].bucket_bytes == bucket && choices[i].segment_bytes == segment)
            return;
    if (*count < KOLO__TUNE_CHOICES_MAX)
        choices[(*count)++] = (struct kolo__tuning){bucket, segment};
}

/* Around the default; larger than everything is all the same. */
static uint32_t find_choices(const kolo_reducer *reducer, const struct kolo__tuning *standard,
                             struct kolo__tuning choices[KOLO__TUNE_CHOICES_MAX])
{
    uint32_t count = 0;
    size_t total = reducer->report.gradient_bytes;
    bool cuts = cut_may_change(reducer);
    add_choice(choices, &count, standard->bucket_bytes, 0);
    if (cuts && standard->bucket_bytes < total)
        add_choice(choices, &count, standard->bucket_bytes * 4, 0);
    /* Only messages are cut into segments. */
    if (reducer->comm->mapping == NULL) {
        size_t segment = reducer->standard_segment_bytes;
        add_choice(choices, &count, standard->bucket_bytes, segment * 4);
        add_choice(choices, &count, standard->bucket_bytes, segment / 4);
    }
    for (size_t part = 4; part <= 16 && cuts; part *= 4) {
        size_t smaller = standard->bucket_bytes / part;
        if (smaller >= BUCKET_BYTES_LEAST && smaller >= kolo__reducer_least_bucket(reducer))
            add_choice(choices, &count, smaller, 0);
    }
    return count;
}

static void make_key(const kolo_reducer *reducer, char key[KOLO__TUNE_KEY_BYTES])
{
    char processor[128];
    uint32_t hosts = 0;
    for (uint32_t r = 0; r < reducer->comm->size; r++)
        hosts = reducer->comm->host_of[r] >= hosts ? reducer->comm->host_of[r] + 1 : hosts;
    kolo__cache_processor(processor, sizeof processor);
    snprintf(key, KOLO__TUNE_KEY_BYTES,
             "plan %016" PRIx64 "; ranks %u on %u hosts%s; %s; %s; kolo %s", reducer->digest,
             reducer->comm->size, hosts, reducer->comm->crowded ? ", crowded" : "",
             kolo_comm_transport(reducer->comm), processor, kolo_version());
}

/* reducer->sizes of root. */
static kolo_status share(kolo_reducer *reducer, uint32_t root, uint64_t deadline_ns)
{
    const struct kolo__call call =
        kolo__call_broadcast("kolo_reducer (agreement on sizes)", reducer->sizes,
                             sizeof reducer->sizes / sizeof *reducer->sizes, KOLO_UINT64, root);
    return kolo__reducer_agree(reducer, &call, deadline_ns);
}

/* What an earlier run has found: reducer->sizes. */
static void load(kolo_reducer *reducer)
{
    char key[KOLO__TUNE_KEY_BYTES];
    struct kolo__tuning found = {0, 0};
    make_key(reducer, key);
    reducer->sizes[0] = kolo__tune_load(key, &found);
    reducer->sizes[1] = found.bucket_bytes;
    reducer->sizes[2] = found.segment_bytes;
}

kolo_status kolo__reducer_begin_tuning(kolo_reducer *reducer, uint64_t deadline_ns,
                                       struct kolo__tuning *tuning)
{
    struct kolo__tuning choices[KOLO__TUNE_CHOICES_MAX];
    uint32_t count = find_choices(reducer, tuning, choices);
    const uint64_t *sizes = reducer->sizes;
    if (reducer->options.bucket_bytes > 0 || kolo__reducer_is_fp8(reducer) ||
        reducer->gpu != NULL || /* the host's clock does not see how long a step takes */
        reducer->comm->size == 1 || count == 1)
        return KOLO_OK;
    if (reducer->comm->rank == 0 && reducer->agreement == NULL)
        load(reducer);
    kolo_status status = share(reducer, 0, deadline_ns);
    if (status != KOLO_OK)
        return status;
    kolo__tuner_begin(&reducer->tuner, choices, count);
    reducer->tunes = true;
    /* A file may say what this search would not try: then it is not believed. */
    for (uint32_t i = 0; i < count; i++)
        if (sizes[0] == 1 && choices[i].bucket_bytes == sizes[1] &&
            choices[i].segment_bytes == sizes[2]) {
            *tuning = choices[i];
            reducer->tunes = false;
        }
    return KOLO_OK;
}

/* Collective, when enough steps were measured. */
static kolo_status decide(kolo_reducer *reducer, uint64_t deadline_ns)
{
    double scores[KOLO__TUNE_CHOICES_MAX];
    uint32_t count = 0;
    if (reducer->agreement == NULL && !kolo__tuner_wants_decision(&reducer->tuner, scores, &count))
        return KOLO_OK;
    if (reducer->agreement == NULL)
        memcpy(reducer->scores, scores, count * sizeof *scores);
    const struct kolo__call call = kolo__call_allreduce(
        "kolo_reducer (comparison of step times)", reducer->scores, count, KOLO_FP64, KOLO_MAX);
    kolo_status status = kolo__reducer_agree(reducer, &call, deadline_ns);
    if (status == KOLO_OK && reducer->tunes) /* a kolo_join in between ends the search */
        kolo__tuner_decide(&reducer->tuner, reducer->scores);
    return status;
}

kolo_status kolo__reducer_tune(kolo_reducer *reducer, uint64_t deadline_ns)
{
    kolo_status status = decide(reducer, deadline_ns);
    if (status != KOLO_OK || !reducer->tunes)
        return status;
    const struct kolo__tuning *next = kolo__tuner_choice(&reducer->tuner);
    if (reducer->tuner.phase == KOLO__TUNE_DONE) {
        char key[KOLO__TUNE_KEY_BYTES];
        make_key(reducer, key);
        reducer->tunes = false;
        kolo__log(KOLO__LOG_INFO, "reducer: buckets of %zu bytes, %s", next->bucket_bytes,
                  reducer->tuner.best > 0 ? "found better than the default" : "the default");
        if (reducer->comm->rank == 0 && !kolo__tune_save(key, next))
            kolo__log(KOLO__LOG_INFO, "reducer: the sizes found are not saved (no cache folder "
                                      "that can be written)");
    }
    if (next->bucket_bytes != reducer->tuning.bucket_bytes ||
        next->segment_bytes != reducer->tuning.segment_bytes)
        status = kolo__reducer_cut(reducer, next);
    reducer->sequence_before = reducer->comm->sequence;
    return status;
}

/* flags[0]: some rank is not frozen; flags[1]: some rank is. */
static kolo_status ask_who_is_frozen(kolo_reducer *reducer, uint8_t flags[2])
{
    flags[0] = !reducer->frozen;
    flags[1] = reducer->frozen;
    struct kolo__call call = kolo__call_allreduce("kolo_reducer (agreement on the plan)", flags, 2,
                                                  KOLO_UINT8, KOLO_MAX);
    return kolo__call_run(reducer->comm, &call);
}

/* Ranks that had joined missed steps, perhaps the first one, and decisions: all take over what the
 * last one has. It has done every step that there was. */
kolo_status kolo__reducer_rejoined(void *owner, uint32_t last)
{
    kolo_reducer *reducer = owner;
    uint8_t frozen[2];
    kolo__driver_take_back(reducer, UINT64_MAX);
    if (reducer->agreement != NULL) { /* begun before this rank joined, and ended since */
        kolo_status ended = kolo_wait(&reducer->agreement, -1);
        if (ended != KOLO_OK)
            return ended;
    }
    reducer->sizes[0] = reducer->report.step;
    reducer->sizes[1] = reducer->tuning.bucket_bytes;
    reducer->sizes[2] = reducer->tuning.segment_bytes;
    kolo_status status = ask_who_is_frozen(reducer, frozen);
    if (status != KOLO_OK || !frozen[1])
        return status;
    status = share(reducer, last, KOLO__NO_DEADLINE);
    if (status != KOLO_OK)
        return status;
    struct kolo__tuning tuning = {.bucket_bytes = reducer->sizes[1],
                                  .segment_bytes = reducer->sizes[2]};
    reducer->report.step = reducer->sizes[0];
    reducer->tunes = false;
    bool had_plan = reducer->frozen;
    if (frozen[0])
        status = kolo__reducer_freeze_as(reducer, last, &tuning);
    if (status == KOLO_OK && had_plan &&
        (tuning.bucket_bytes != reducer->tuning.bucket_bytes ||
         tuning.segment_bytes != reducer->tuning.segment_bytes))
        status = kolo__reducer_cut(reducer, &tuning);
    reducer->sequence_before = reducer->comm->sequence;
    return status;
}
