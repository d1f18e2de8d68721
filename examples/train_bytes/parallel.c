/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters, gradients and state of N ranks: see parallel.h. */
#include "parallel.h"

#include <stdlib.h>
#include <string.h>

/* ---- begin and end -------------------------------------------------------------------------- */

static kolo_status out_of_memory(struct parallel *parallel)
{
    parallel->out_of_memory = true;
    return KOLO_ERR_MEMORY;
}

static kolo_status list_tensors(struct parallel *parallel, const struct model_config *model)
{
    size_t count = model_tensor_count(model), longest = 1;
    parallel->tensor_count = count;
    parallel->tensors = calloc(count, sizeof(*parallel->tensors));
    parallel->descriptions = calloc(count, sizeof(*parallel->descriptions));
    parallel->parameters = calloc(count, sizeof(*parallel->parameters));
    parallel->gradients = calloc(count, sizeof(*parallel->gradients));
    if (!parallel->tensors || !parallel->descriptions || !parallel->parameters ||
        !parallel->gradients)
        return out_of_memory(parallel);
    for (size_t i = 0; i < count; i++) {
        struct model_tensor *tensor = &parallel->tensors[i];
        *tensor = model_tensor_at(model, i);
        parallel->descriptions[i] = (kolo_tensor){.count = tensor->count,
                                                  .dtype = KOLO_FP32,
                                                  .name = tensor->name,
                                                  .dimensions = tensor->dimensions,
                                                  .shape = {tensor->shape[0], tensor->shape[1]}};
        longest = tensor->count > longest ? tensor->count : longest;
    }
    parallel->scratch = malloc(longest * sizeof(float));
    return parallel->scratch ? KOLO_OK : out_of_memory(parallel);
}

/* Without data, gradients are views: backward writes them where they travel. Sums, because
 * gradients are of the mean over the whole batch already; the norm for clipping, which costs no
 * pass over the gradients of its own; but on a GPU, which clips by itself before the host knows it.
 */
static kolo_status create_reducer(struct parallel *parallel)
{
    kolo_reducer_options options = {.size = sizeof(options),
                                    .sum = 1,
                                    .wire = parallel->wire,
                                    .error_feedback = parallel->wire != KOLO_WIRE_SAME,
                                    .statistics = parallel->device->stream == NULL,
                                    .clip_norm = parallel->device->stream ? ADAMW_NORM : 0,
                                    .sharded = parallel->sharded,
                                    .stream = parallel->device->stream};
    size_t count = parallel->tensor_count;
    for (size_t i = 0; i < count; i++)
        parallel->descriptions[i].data = NULL;
    kolo_status status = kolo_reducer_create(parallel->world, parallel->descriptions, count,
                                             &options, &parallel->reducer);
    for (size_t i = 0; i < count; i++)
        parallel->descriptions[i].data = parallel->parameters[i];
    return status;
}

/* A piece is at most one of each tensor. */
static size_t list_pieces(struct parallel *parallel)
{
    size_t state_count = 0;
    if (parallel->sharded) {
        while (parallel->piece_count < parallel->tensor_count &&
               kolo_reducer_piece(parallel->reducer, parallel->piece_count,
                                  &parallel->pieces[parallel->piece_count]) == KOLO_OK)
            parallel->piece_count++;
        return kolo_reducer_state_count(parallel->reducer);
    }
    for (size_t i = 0; i < parallel->tensor_count; i++) {
        size_t count = parallel->tensors[i].count;
        parallel->pieces[i] = (kolo_reducer_shard){
            .tensor = i, .count = count, .dtype = KOLO_FP32, .state = state_count};
        state_count += count;
    }
    parallel->piece_count = parallel->tensor_count;
    return state_count;
}

/* All parameters, one tensor behind the other, as the state of the optimizer is counted. */
static size_t parameter_count(const struct parallel *parallel)
{
    const struct model_tensor *last = &parallel->tensors[parallel->tensor_count - 1];
    return last->first + last->count;
}

static kolo_status place_parameters(struct parallel *parallel)
{
    if (!parallel->sharded) {
        parallel->block = parallel->device->allocate(parameter_count(parallel) * sizeof(float));
        if (!parallel->block)
            return out_of_memory(parallel);
    }
    for (size_t i = 0; i < parallel->tensor_count; i++) {
        parallel->parameters[i] = parallel->sharded ? kolo_reducer_parameters(parallel->reducer, i)
                                                    : parallel->block + parallel->tensors[i].first;
        parallel->descriptions[i].data = parallel->parameters[i];
    }
    return KOLO_OK;
}

/* Parameters, pieces and their state: sharded, for each reducer anew. */
static kolo_status place_state(struct parallel *parallel)
{
    kolo_status status = place_parameters(parallel);
    if (status != KOLO_OK)
        return status;
    free(parallel->pieces);
    parallel->device->release(parallel->mean);
    parallel->device->release(parallel->variance);
    parallel->mean = parallel->variance = NULL;
    parallel->piece_count = 0;
    parallel->pieces = calloc(parallel->tensor_count, sizeof(*parallel->pieces));
    if (!parallel->pieces)
        return out_of_memory(parallel);
    parallel->state_count = list_pieces(parallel);
    size_t count = parallel->state_count + 1; /* a rank may have no piece at all */
    parallel->mean = parallel->device->allocate(count * sizeof(float));
    parallel->variance = parallel->device->allocate(count * sizeof(float));
    return parallel->mean && parallel->variance ? KOLO_OK : out_of_memory(parallel);
}

kolo_status parallel_create(const struct device *device, const struct model_config *model,
                            kolo_wire wire, bool sharded, struct parallel *parallel)
{
    *parallel = (struct parallel){.device = device, .sharded = sharded, .wire = wire};
    kolo_status status = list_tensors(parallel, model);
    return status == KOLO_OK && !parallel->sharded ? place_state(parallel) : status;
}

bool parallel_goes_on(const struct parallel *parallel)
{
    return !parallel->device->stream;
}

kolo_status parallel_enter(struct parallel *parallel, kolo_comm *world)
{
    parallel->world = world;
    kolo_status status = parallel->reducer ? kolo_reducer_renew(&parallel->reducer, world)
                                           : create_reducer(parallel);
    return status == KOLO_OK && parallel->sharded ? place_state(parallel) : status;
}

size_t parallel_state(const struct parallel *parallel, kolo_tensor *state)
{
    size_t count = parallel->tensor_count, elements = parameter_count(parallel);
    if (!parallel_goes_on(parallel))
        return 0;
    memcpy(state, parallel->descriptions, count * sizeof(*state));
    for (size_t i = 0; i < count && parallel->sharded; i++)
        state[i].data = parallel->scratch; /* until parallel_show_state */
    state[count++] = (kolo_tensor){
        .data = parallel->mean, .count = elements, .dtype = KOLO_FP32, .name = "mean"};
    state[count++] = (kolo_tensor){
        .data = parallel->variance, .count = elements, .dtype = KOLO_FP32, .name = "variance"};
    return count;
}

kolo_status parallel_show_state(const struct parallel *parallel, kolo_elastic *loop)
{
    size_t tensors = parallel->tensor_count, count = 0;
    kolo_elastic_piece *pieces = calloc(2 * parallel->piece_count + 1, sizeof(*pieces));
    kolo_status status = pieces ? KOLO_OK : KOLO_ERR_MEMORY;
    for (size_t i = 0; i < tensors && status == KOLO_OK; i++)
        status = kolo_elastic_set_data(loop, i, parallel->parameters[i]);
    for (size_t k = 0; k < parallel->piece_count && status == KOLO_OK; k++) {
        const kolo_reducer_shard *piece = &parallel->pieces[k];
        size_t first = parallel->tensors[piece->tensor].first + piece->first;
        pieces[count++] =
            (kolo_elastic_piece){tensors, first, piece->count, parallel->mean + piece->state};
        pieces[count++] = (kolo_elastic_piece){tensors + 1, first, piece->count,
                                               parallel->variance + piece->state};
    }
    if (status == KOLO_OK)
        status = kolo_elastic_set_pieces(loop, pieces, count);
    free(pieces);
    return status;
}

void parallel_leave(struct parallel *parallel)
{
    if (parallel->reducer && parallel->sharded && parallel->parameters[0]) {
        parallel->block = parallel->device->allocate(parameter_count(parallel) * sizeof(float));
        for (size_t i = 0; i < parallel->tensor_count && parallel->block; i++) {
            float *kept = parallel->block + parallel->tensors[i].first;
            parallel->device->copy(kept, parallel->parameters[i],
                                   parallel->tensors[i].count * sizeof(float));
            parallel->parameters[i] = kept;
        }
    }
    kolo_reducer_free(parallel->reducer);
    parallel->reducer = NULL;
}

void parallel_destroy(struct parallel *parallel)
{
    free(parallel->tensors);
    free(parallel->descriptions);
    free(parallel->parameters);
    free(parallel->gradients);
    free(parallel->pieces);
    free(parallel->scratch);
    if (!parallel->device) /* nothing was created */
        return;
    parallel->device->release(parallel->block);
    parallel->device->release(parallel->mean);
    parallel->device->release(parallel->variance);
}

/* ---- a whole state, for checkpoints --------------------------------------------------------- */

/* Copies this rank's elements of a tensor between its state and the whole tensor. */
static void copy_pieces(const struct parallel *parallel, size_t tensor, float *state, float *whole,
                        bool to_whole)
{
    for (size_t k = 0; k < parallel->piece_count; k++) {
        const kolo_reducer_shard *piece = &parallel->pieces[k];
        float *own = state + piece->state, *part = whole + piece->first;
        if (piece->tensor != tensor)
            continue;
        if (to_whole)
            parallel->device->get(part, own, piece->count * sizeof(float));
        else
            parallel->device->put(own, part, piece->count * sizeof(float));
    }
}

static kolo_status distribute_state(struct parallel *parallel, const float *whole, float *state)
{
    kolo_status status = KOLO_OK;
    for (size_t i = 0; i < parallel->tensor_count && status == KOLO_OK; i++) {
        const struct model_tensor *tensor = &parallel->tensors[i];
        if (whole)
            memcpy(parallel->scratch, whole + tensor->first, tensor->count * sizeof(float));
        status =
            kolo_broadcast(parallel->world, parallel->scratch, tensor->count, KOLO_FP32, 0, NULL);
        copy_pieces(parallel, i, state, parallel->scratch, false);
    }
    return status;
}

void parallel_place(struct parallel *parallel, const struct training_state *whole)
{
    memcpy(parallel->block, whole->parameters, whole->count * sizeof(float));
    memcpy(parallel->mean, whole->mean, whole->count * sizeof(float));
    memcpy(parallel->variance, whole->variance, whole->count * sizeof(float));
}

kolo_status parallel_distribute(struct parallel *parallel, const struct training_state *whole)
{
    for (size_t i = 0; i < parallel->tensor_count && whole; i++)
        parallel->device->put(parallel->parameters[i],
                              whole->parameters + parallel->tensors[i].first,
                              parallel->tensors[i].count * sizeof(float));
    kolo_status status =
        kolo_broadcast_tensors(parallel->world, parallel->descriptions, parallel->tensor_count, 0);
    if (status == KOLO_OK)
        status = distribute_state(parallel, whole ? whole->mean : NULL, parallel->mean);
    if (status == KOLO_OK)
        status = distribute_state(parallel, whole ? whole->variance : NULL, parallel->variance);
    return status;
}

/* Every element is some rank's, and zero bits on all others: OR puts them together unchanged. */
static kolo_status collect_state(struct parallel *parallel, float *state, float *whole)
{
    kolo_status status = KOLO_OK;
    for (size_t i = 0; i < parallel->tensor_count && status == KOLO_OK; i++) {
        const struct model_tensor *tensor = &parallel->tensors[i];
        memset(parallel->scratch, 0, tensor->count * sizeof(float));
        copy_pieces(parallel, i, state, parallel->scratch, true);
        if (parallel->sharded)
            status = kolo_reduce(parallel->world, parallel->scratch, parallel->scratch,
                                 tensor->count, KOLO_UINT32, KOLO_OR, 0, NULL);
        if (whole)
            memcpy(whole + tensor->first, parallel->scratch, tensor->count * sizeof(float));
    }
    return status;
}

kolo_status parallel_collect(struct parallel *parallel, struct training_state *whole)
{
    for (size_t i = 0; i < parallel->tensor_count && whole; i++)
        parallel->device->get(whole->parameters + parallel->tensors[i].first,
                              parallel->parameters[i], parallel->tensors[i].count * sizeof(float));
    kolo_status status = collect_state(parallel, parallel->mean, whole ? whole->mean : NULL);
    if (status == KOLO_OK)
        status = collect_state(parallel, parallel->variance, whole ? whole->variance : NULL);
    return status;
}

/* ---- a step --------------------------------------------------------------------------------- */

void parallel_begin_step(struct parallel *parallel)
{
    parallel->ready_status = KOLO_OK;
    for (size_t i = 0; i < parallel->tensor_count;
         i++) { /* views move once, after the first step */
        parallel->gradients[i] = kolo_reducer_view(parallel->reducer, i);
        parallel->device->zero(parallel->gradients[i], parallel->tensors[i].count * sizeof(float));
    }
}

void parallel_final(void *self, size_t tensor)
{
    struct parallel *parallel = self;
    kolo_status status = kolo_reducer_ready(parallel->reducer, tensor);
    if (parallel->ready_status == KOLO_OK)
        parallel->ready_status = status;
}

kolo_status parallel_end_step(struct parallel *parallel, kolo_reducer_report *report)
{
    kolo_status status = parallel->ready_status;
    if (status == KOLO_OK)
        status = kolo_reducer_wait(parallel->reducer, -1);
    if (status != KOLO_OK)
        return status;
    *report = (kolo_reducer_report){.size = sizeof(*report), .finite = 1};
    if (parallel->device->stream)
        return KOLO_OK;
    return kolo_reducer_get_report(parallel->reducer, report);
}

void parallel_update(struct parallel *parallel, const struct adamw *adamw)
{
    for (size_t k = 0; k < parallel->piece_count; k++) {
        const kolo_reducer_shard *piece = &parallel->pieces[k];
        bool decays = parallel->tensors[piece->tensor].dimensions == 2;
        const float *gradients =
            kolo_reducer_view(parallel->reducer, piece->tensor); /* where the sums are now */
        const struct adamw_factors factors = adamw_factors(adamw, decays);
        parallel->device->adamw_update(&factors, piece->count, gradients + piece->first,
                                       parallel->parameters[piece->tensor] + piece->first,
                                       parallel->mean + piece->state,
                                       parallel->variance + piece->state);
    }
}

kolo_status parallel_gather(struct parallel *parallel)
{
    return parallel->sharded ? kolo_reducer_gather(parallel->reducer, -1) : KOLO_OK;
}
