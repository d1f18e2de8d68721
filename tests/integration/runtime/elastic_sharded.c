/* SPDX-License-Identifier: Apache-2.0 */
/* See elastic_sharded.h. */
#include "elastic_sharded.h"

#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 12 };

/* The state: parameters, by tensor; momentum, by tensor; a place in the data. */
enum { PARAMETERS = 0, MOMENTUM = SHARDED_TENSORS, PLACE = 2 * SHARDED_TENSORS, STATES };

struct sharded sharded;

static const size_t counts[SHARDED_TENSORS] = {SHARDED_LARGE, SHARDED_SMALL};

static kolo_status make_reducer(kolo_comm *world)
{
    const kolo_reducer_options options = {.size = sizeof options, .sum = 1, .sharded = 1};
    const kolo_tensor tensors[SHARDED_TENSORS] = {
        {.count = SHARDED_LARGE, .dtype = KOLO_FP32, .name = "large"},
        {.count = SHARDED_SMALL, .dtype = KOLO_FP32, .name = "small"}};
    return sharded.reducer != NULL
               ? kolo_reducer_renew(&sharded.reducer, world)
               : kolo_reducer_create(world, tensors, SHARDED_TENSORS, &options, &sharded.reducer);
}

static kolo_status enter(void *self, kolo_comm *world)
{
    kolo_elastic_piece pieces[SHARDED_TENSORS];
    (void)self;
    look();
    kolo_status status = make_reducer(world);
    if (status != KOLO_OK)
        return status;
    free(sharded.momentum);
    sharded.momentum =
        calloc(kolo_reducer_state_count(sharded.reducer) + 1, sizeof *sharded.momentum);
    size_t k = 0;
    for (; k < SHARDED_TENSORS; k++) {
        kolo_reducer_shard *shard = &sharded.shards[k];
        if (kolo_reducer_piece(sharded.reducer, k, shard) != KOLO_OK)
            break;
        pieces[k] = (kolo_elastic_piece){.tensor = MOMENTUM + shard->tensor,
                                         .first = shard->first,
                                         .count = shard->count,
                                         .data = sharded.momentum + shard->state};
        if (sharded.overlaps && rank == 0 && shard->tensor == 0) /* as many, one further on */
            pieces[k].first++;
    }
    sharded.shard_count = k;
    for (size_t i = 0; i < SHARDED_TENSORS && status == KOLO_OK; i++)
        status = kolo_elastic_set_data(sharded.loop, PARAMETERS + i,
                                       kolo_reducer_parameters(sharded.reducer, i));
    return status == KOLO_OK ? kolo_elastic_set_pieces(sharded.loop, pieces, k) : status;
}

static float gives(uint64_t step, int sample, size_t i)
{
    return (float)((step * 7 + (uint64_t)sample * 3 + i) % 5);
}

kolo_status sharded_reduce(uint64_t step)
{
    for (size_t t = 0; t < SHARDED_TENSORS; t++) {
        float *gradients = kolo_reducer_view(sharded.reducer, t);
        memset(gradients, 0, counts[t] * sizeof *gradients);
        for (int s = SAMPLES * rank / size; s < SAMPLES * (rank + 1) / size; s++)
            for (size_t i = 0; i < counts[t]; i++)
                gradients[i] += gives(step, s, i);
        kolo_status status = kolo_reducer_ready(sharded.reducer, t);
        if (status != KOLO_OK)
            return status;
    }
    return kolo_reducer_wait(sharded.reducer, -1);
}

kolo_status sharded_step(uint64_t step)
{
    kolo_status status = sharded_reduce(step);
    if (status != KOLO_OK)
        return status;
    for (size_t k = 0; k < sharded.shard_count; k++) {
        const kolo_reducer_shard *shard = &sharded.shards[k];
        const float *gradients = shard->gradients;
        float *parameters = shard->parameters, *own = sharded.momentum + shard->state;
        for (size_t i = 0; i < shard->count; i++) {
            own[i] += gradients[i];
            parameters[i] += own[i];
        }
    }
    status = kolo_reducer_gather(sharded.reducer, -1);
    sharded.place += status == KOLO_OK;
    return status;
}

int sharded_create(const kolo_elastic_options *options)
{
    static float nothing[SHARDED_LARGE];
    kolo_elastic_options given = *options;
    given.size = sizeof given;
    given.enter = enter;
    given.steps = given.steps > 0 ? given.steps : SHARDED_STEPS;
    kolo_tensor state[STATES] = {
        {.name = "large"},
        {.name = "small"},
        {.name = "momentum of large"},
        {.name = "momentum of small"},
        {.data = &sharded.place, .count = 1, .dtype = sharded.retyped ? KOLO_UINT64 : KOLO_INT64}};
    for (int i = 0; i < PLACE; i++) {
        state[i].count = counts[i % SHARDED_TENSORS];
        state[i].dtype = KOLO_FP32;
        state[i].data = i < MOMENTUM ? nothing : NULL; /* enter has it */
    }
    CHECK(join() == 0);
    CHECK(kolo_elastic_create(context, state, STATES, &given, &sharded.loop) == KOLO_OK);
    return 0;
}

/* What momentum and parameter i of a tensor are after so many steps. */
static void compute(uint64_t steps, size_t i, float *momentum, float *parameter)
{
    *momentum = *parameter = 0;
    for (uint64_t step = 0; step < steps; step++) {
        for (int s = 0; s < SAMPLES; s++)
            *momentum += gives(step, s, i);
        *parameter += *momentum;
    }
}

int sharded_state_is_right(uint64_t steps)
{
    float momentum, parameter;
    CHECK(sharded.place == (int64_t)steps);
    for (size_t t = 0; t < SHARDED_TENSORS; t++) {
        const float *parameters = kolo_reducer_parameters(sharded.reducer, t);
        for (size_t i = 0; i < counts[t]; i += t == 0 ? 2999 : 1) {
            compute(steps, i, &momentum, &parameter);
            CHECK(parameters[i] == parameter);
        }
    }
    for (size_t k = 0; k < sharded.shard_count; k++) {
        const kolo_reducer_shard *shard = &sharded.shards[k];
        for (size_t i = 0; i < shard->count; i += 1 + shard->count / 50) {
            compute(steps, shard->first + i, &momentum, &parameter);
            CHECK(sharded.momentum[shard->state + i] == momentum);
        }
    }
    return 0;
}

int sharded_free(void)
{
    kolo_elastic_free(sharded.loop);
    kolo_reducer_free(sharded.reducer);
    free(sharded.momentum);
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

int sharded_ends_well(void)
{
    CHECK(kolo_elastic_result(sharded.loop) == KOLO_OK && !kolo_elastic_left(sharded.loop));
    CHECK(sharded_state_is_right(SHARDED_STEPS) == 0);
    return sharded_free();
}
