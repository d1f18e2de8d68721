/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Training of which all numbers are known beforehand: the average of a gradient follows from the
 * step, and so does the state after each.
 *
 *     whole      parameters, which each rank has, grow by the averages
 *     sharded    momentum, of which each rank has its pieces, grows by the averages, and
 * parameters, which are the reducer's, by the momentum
 */
#include "program.h"

#include "runtime/context.h"

#include <math.h>
#include <stdlib.h>

/* ---- what is known beforehand ----------------------------------------------------------------
 */

static double average_of(uint64_t step, size_t tensor, size_t i)
{
    return (double)((step * 31 + tensor * 7 + i * 3) % 97);
}

static double sum_of(uint64_t steps, size_t tensor, size_t i)
{
    double sum = 0;
    for (uint64_t step = 0; step < steps; step++)
        sum += average_of(step, tensor, i);
    return sum;
}

static double parameter_of(uint64_t steps, size_t tensor, size_t i)
{
    double parameter = 0;
    if (!world->plan.sharded)
        return sum_of(steps, tensor, i);
    for (uint64_t step = 1; step <= steps; step++)
        parameter += sum_of(step, tensor, i);
    return parameter;
}

static size_t count_of(size_t tensor)
{
    return 1 + (size_t)((world->seed * 131 + tensor * 89) % COUNT_MAX);
}

/* ---- what is made for a world ----------------------------------------------------------------
 */

size_t training_state(struct program *program, kolo_tensor state[STATES_MAX])
{
    bool sharded = world->plan.sharded;
    for (size_t t = 0; t < TENSORS; t++) {
        program->gradients[t] = (kolo_tensor){.count = count_of(t), .dtype = KOLO_FP32};
        state[t] = (kolo_tensor){.count = count_of(t), .dtype = sharded ? KOLO_FP32 : KOLO_FP64};
        state[t].data = sharded ? (void *)program->nothing : program->parameters[t];
        state[TENSORS + t] = (kolo_tensor){.count = count_of(t), .dtype = KOLO_FP32};
    }
    return sharded ? 2 * TENSORS : TENSORS;
}

static kolo_status make_reducer(struct program *program, kolo_comm *comm)
{
    bool sharded = world->plan.sharded;
    const kolo_reducer_options options = {.size = sizeof options,
                                          .bucket_bytes = 64 + world->seed % 7 * 200,
                                          .sharded = sharded,
                                          .fixed_order = !sharded && world->seed % 2 == 0,
                                          .allow_unused = !sharded && world->seed % 5 == 0,
                                          .no_overlap = world->seed / 2 % 2};
    return program->reducer != NULL ? kolo_reducer_renew(&program->reducer, comm)
                                    : kolo_reducer_create(comm, program->gradients, TENSORS,
                                                          &options, &program->reducer);
}

static kolo_status tell_pieces(struct program *program)
{
    kolo_elastic_piece pieces[TENSORS];
    kolo_reducer_shard shard;
    size_t k = 0;
    for (; k < TENSORS && kolo_reducer_piece(program->reducer, k, &shard) == KOLO_OK; k++)
        pieces[k] = (kolo_elastic_piece){.tensor = TENSORS + shard.tensor,
                                         .first = shard.first,
                                         .count = shard.count,
                                         .data = program->momentum + shard.state};
    for (size_t t = 0; t < TENSORS; t++)
        if (kolo_elastic_set_data(program->loop, t, kolo_reducer_parameters(program->reducer, t)) !=
            KOLO_OK)
            return KOLO_ERR_INVALID;
    return kolo_elastic_set_pieces(program->loop, pieces, k);
}

kolo_status training_enter(struct program *program, kolo_comm *comm)
{
    kolo_status status = make_reducer(program, comm);
    if (status != KOLO_OK || !world->plan.sharded)
        return status;
    free(program->momentum);
    program->momentum =
        calloc(kolo_reducer_state_count(program->reducer) + 1, sizeof *program->momentum);
    return tell_pieces(program);
}

/* ---- a step ----------------------------------------------------------------------------------
 */

kolo_status training_contribute(struct program *program, uint64_t step, size_t tensor)
{
    double away = (double)program->context->rank - (program->context->size - 1) / 2.0;
    float *gradient = kolo_reducer_view(program->reducer, tensor);
    for (size_t i = 0; i < count_of(tensor); i++)
        gradient[i] = (float)(average_of(step, tensor, i) + 2 * away);
    return kolo_reducer_ready(program->reducer, tensor);
}

static void check_average(const struct program *program, uint64_t step, size_t tensor, size_t i,
                          float average)
{
    if (fabs(average - average_of(step, tensor, i)) > 0.01)
        world_broken("process %u, step %llu: the average of element %zu of gradient %zu is %g, and "
                     "should be %g",
                     program->process->id, (unsigned long long)step, i, tensor, (double)average,
                     average_of(step, tensor, i));
}

void training_check_averages(const struct program *program, uint64_t step)
{
    kolo_reducer_shard shard;
    for (size_t t = 0; t < TENSORS && !world->plan.sharded; t++) {
        const float *average = kolo_reducer_view(program->reducer, t);
        for (size_t i = 0; i < count_of(t); i++)
            check_average(program, step, t, i, average[i]);
    }
    for (size_t k = 0; world->plan.sharded && k < TENSORS &&
                       kolo_reducer_piece(program->reducer, k, &shard) == KOLO_OK;
         k++)
        for (size_t i = 0; i < shard.count; i++)
            check_average(program, step, shard.tensor, shard.first + i,
                          ((const float *)shard.gradients)[i]);
}

kolo_status training_update(struct program *program, uint64_t step)
{
    kolo_reducer_shard shard;
    if (!world->plan.sharded) {
        for (size_t t = 0; t < TENSORS; t++)
            for (size_t i = 0; i < count_of(t); i++)
                program->parameters[t][i] += average_of(step, t, i);
        return KOLO_OK;
    }
    for (size_t k = 0; k < TENSORS && kolo_reducer_piece(program->reducer, k, &shard) == KOLO_OK;
         k++) {
        float *momentum = program->momentum + shard.state, *parameters = shard.parameters;
        for (size_t i = 0; i < shard.count; i++) {
            momentum[i] += roundf(((const float *)shard.gradients)[i]);
            parameters[i] += momentum[i];
        }
    }
    return kolo_reducer_gather(program->reducer, -1);
}

static void check_one(const struct program *program, uint64_t steps, const char *what,
                      size_t tensor, size_t i, double is, double should_be)
{
    if (is != should_be)
        world_broken("process %u: %s %zu of tensor %zu is %g after %llu steps, and should be %g",
                     program->process->id, what, i, tensor, is, (unsigned long long)steps,
                     should_be);
}

void training_check_state(const struct program *program, uint64_t steps)
{
    kolo_reducer_shard shard;
    for (size_t t = 0; t < TENSORS; t++) {
        const float *moved =
            world->plan.sharded ? kolo_reducer_parameters(program->reducer, t) : program->nothing;
        for (size_t i = 0; i < count_of(t); i += 7)
            check_one(program, steps, "parameter", t, i,
                      world->plan.sharded ? (double)moved[i] : program->parameters[t][i],
                      parameter_of(steps, t, i));
    }
    for (size_t k = 0; world->plan.sharded && k < TENSORS &&
                       kolo_reducer_piece(program->reducer, k, &shard) == KOLO_OK;
         k++)
        for (size_t i = 0; i < shard.count; i += 5)
            check_one(program, steps, "momentum", shard.tensor, shard.first + i,
                      (double)program->momentum[shard.state + i],
                      sum_of(steps, shard.tensor, shard.first + i));
}
