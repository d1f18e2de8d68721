/* SPDX-License-Identifier: Apache-2.0 */
#include "collectives/select.h"

#include "base/assert.h"
#include "base/status.h"
#include "collectives/algorithm/algorithm.h"

#include <math.h>
#include <string.h>

/* Typical of one server and of 10-25 Gbit/s Ethernet; measured values replace them where known. */
const struct kolo__cost_model kolo__default_cost_model = {
    .message_local = 1.5e-6,
    .message_remote = 20e-6,
    .byte_local = 1 / 5e9,
    .byte_remote = 1 / 1.5e9,
    .byte_reduced = 1 / 10e9,
    .byte_mapped = 1 / 50e9,
    .fence = 0.2e-6,
};

static struct kolo__cost_terms terms_of(const struct kolo__select_input *input)
{
    const struct kolo__problem *problem = input->problem;
    const struct kolo__cost_model *model = input->model;
    struct kolo__cost_terms t = {.p = problem->size, .N = 1, .q = problem->size};
    bool per_slice = problem->collective == KOLO__REDUCE_SCATTER ||
                     problem->collective == KOLO__ALLGATHER ||
                     problem->collective == KOLO__ALLTOALL;
    t.reduces = kolo__collective_reduces(problem->collective);
    t.halves = problem->collective == KOLO__ALLREDUCE || problem->collective == KOLO__REDUCE_TO_ROOT
                   ? 2
                   : 1;
    t.a = input->remote ? model->message_remote : model->message_local;
    t.B = input->remote ? model->byte_remote : model->byte_local;
    t.G = model->byte_reduced;
    t.M = model->byte_mapped;
    t.local_a = model->message_local;
    t.local_B = model->byte_local;
    t.fence = model->fence;
    t.n = (double)problem->count * (double)kolo_dtype_bytes(input->dtype) * (per_slice ? t.p : 1);
    while (exp2(t.h) < t.p)
        t.h++;
    t.power_of_two = (problem->size & (problem->size - 1)) == 0;
    for (uint32_t r = 0; problem->host_of != NULL && r < problem->size; r++)
        if (problem->host_of[r] + 1 > t.N)
            t.N = problem->host_of[r] + 1;
    t.q = t.p / t.N;
    return t;
}

static bool rounding_matters(const struct kolo__select_input *input)
{
    bool half = input->dtype == KOLO_FP16 || input->dtype == KOLO_BF16;
    bool inexact = input->op == KOLO_SUM || input->op == KOLO_AVERAGE ||
                   input->op == KOLO_PRODUCT || input->op == KOLO_PREMUL_SUM;
    /* PREMUL_SUM rounds the scaled contribution already, wherever a copy of it is made. */
    return half && inexact && input->problem->size > 2 &&
           kolo__collective_reduces(input->problem->collective);
}

/* Why the algorithm cannot do it; NULL: it can. */
static const char *impossible(const struct kolo__select_input *input,
                              const struct kolo__algorithm *algorithm)
{
    const struct kolo__problem *problem = input->problem;
    size_t bytes = kolo_dtype_bytes(input->dtype);
    if (!algorithm->accepts(problem))
        return "not for this collective, with so many ranks on so many hosts";
    if (algorithm->needs_mapping && !input->mapped)
        return "it needs shared memory between all ranks";
    bool per_slice =
        problem->collective == KOLO__REDUCE_SCATTER || problem->collective == KOLO__ALLTOALL;
    if (algorithm->fills_slot &&
        problem->count > input->slot_bytes / bytes / (per_slice ? problem->size : 1))
        return "a contribution is larger than its slot";
    return NULL;
}

const char *kolo__select_obstacle(const struct kolo__select_input *input,
                                  const struct kolo__algorithm *algorithm)
{
    const char *why = impossible(input, algorithm);
    if (why == NULL && rounding_matters(input) && !algorithm->rounds_once)
        why = "it would round a 16-bit sum at every step";
    return why;
}

double kolo__select_cost(const struct kolo__select_input *input,
                         const struct kolo__algorithm *algorithm)
{
    KOLO__ASSERT(algorithm->seconds != NULL);
    if (kolo__select_obstacle(input, algorithm) != NULL)
        return -1;
    struct kolo__cost_terms terms = terms_of(input);
    return algorithm->seconds(&terms);
}

static kolo_status select_forced(const struct kolo__select_input *input, const char *forced,
                                 const struct kolo__algorithm **algorithm)
{
    *algorithm = kolo__algorithm_find(forced);
    if (*algorithm == NULL) {
        char names[256] = "";
        for (size_t i = 0; kolo__algorithms[i] != NULL; i++) {
            strncat(names, i > 0 ? ", " : "", sizeof names - strlen(names) - 1);
            strncat(names, kolo__algorithms[i]->name, sizeof names - strlen(names) - 1);
        }
        return kolo__error(KOLO_ERR_CONFIG, "there is no algorithm '%s'; there are %s", forced,
                           names);
    }
    const char *why = impossible(input, *algorithm);
    if (why != NULL)
        return kolo__error(KOLO_ERR_INVALID,
                           "algorithm %s cannot do this %s (%u ranks, %zu x %s): %s", forced,
                           kolo__collective_name(input->problem->collective), input->problem->size,
                           input->problem->count, kolo_dtype_name(input->dtype), why);
    return KOLO_OK;
}

kolo_status kolo__select(const struct kolo__select_input *input, const char *forced,
                         bool prefer_only, const struct kolo__algorithm **algorithm)
{
    if (forced != NULL && forced[0] != '\0') {
        kolo_status status = select_forced(input, forced, algorithm);
        if (status != KOLO_ERR_INVALID || !prefer_only)
            return status;
    }
    const struct kolo__algorithm *best = NULL;
    double least = 0;
    for (size_t i = 0; kolo__algorithms[i] != NULL; i++) {
        double cost = kolo__select_cost(input, kolo__algorithms[i]);
        if (cost >= 0 && (best == NULL || cost < least)) {
            best = kolo__algorithms[i];
            least = cost;
        }
    }
    if (best == NULL)
        return kolo__error(KOLO_ERR_UNSUPPORTED, "no algorithm can do %s with %u ranks",
                           kolo__collective_name(input->problem->collective), input->problem->size);
    *algorithm = best;
    return KOLO_OK;
}
