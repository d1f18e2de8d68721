/* SPDX-License-Identifier: Apache-2.0 */
#include "collectives/select.h"

#include "base/assert.h"
#include "base/status.h"
#include "collectives/algorithm/algorithm.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* One number for all levels: what is known of no machine in particular. */
#define EVERYWHERE                                                                                 \
    {                                                                                              \
        .mapped = 1 / 50e9, .slot = 1 / 50e9, .reduced = 1 / 10e9                                  \
    }

const struct kolo__cost_model kolo__default_cost_model = {
    .message_local = 1.5e-6,
    .message_remote = 20e-6,
    .byte_local = 1 / 5e9,
    .byte_remote = 1 / 1.5e9,
    .fence = 0.2e-6,
    .next_fence = 0.2e-6,
    .fence_rank = 0.1e-6,
    .memory = {EVERYWHERE, EVERYWHERE, EVERYWHERE, EVERYWHERE},
};

static struct kolo__cost_terms terms_of(const struct kolo__select_input *input,
                                        const struct kolo__cost_model *model)
{
    const struct kolo__problem *problem = input->problem;
    struct kolo__cost_terms t = {.p = problem->size, .N = 1, .q = problem->size, .model = model};
    bool per_slice = problem->collective == KOLO__REDUCE_SCATTER ||
                     problem->collective == KOLO__ALLGATHER ||
                     problem->collective == KOLO__ALLTOALL;
    t.reduces = kolo__collective_reduces(problem->collective);
    t.halves = problem->collective == KOLO__ALLREDUCE || problem->collective == KOLO__REDUCE_TO_ROOT
                   ? 2
                   : 1;
    t.one_source = problem->collective == KOLO__BROADCAST;
    t.a = input->remote ? model->message_remote : model->message_local;
    t.B = input->remote ? model->byte_remote : model->byte_local;
    t.local_a = model->message_local;
    t.local_B = model->byte_local;
    t.fence = model->fence + t.p * model->fence_rank;
    t.next_fence = model->next_fence + t.p * model->fence_rank;
    t.n = (double)problem->count * (double)kolo_dtype_bytes(input->dtype) * (per_slice ? t.p : 1);
    t.G = kolo__cost_memory(model, 2 * t.n)->reduced;
    while (exp2(t.h) < t.p)
        t.h++;
    t.power_of_two = (problem->size & (problem->size - 1)) == 0;
    for (uint32_t r = 0; problem->host_of != NULL && r < problem->size; r++)
        if (problem->host_of[r] + 1 > t.N)
            t.N = problem->host_of[r] + 1;
    t.q = t.p / t.N;
    return t;
}

/* True when algorithms differ in the bits of the result. Not with integers, which wrap; not in MIN
 * and MAX; not with two ranks, as a sum and a product of two are the same in both orders (the
 * kernels have one NaN), and PREMUL_SUM rounds a scaled contribution alike wherever it is made. */
static bool order_matters(const struct kolo__select_input *input)
{
    bool floats = input->dtype == KOLO_FP16 || input->dtype == KOLO_BF16 ||
                  input->dtype == KOLO_FP32 || input->dtype == KOLO_FP64;
    bool inexact = input->op == KOLO_SUM || input->op == KOLO_AVERAGE ||
                   input->op == KOLO_PRODUCT || input->op == KOLO_PREMUL_SUM;
    return floats && inexact && input->problem->size > 2 &&
           kolo__collective_reduces(input->problem->collective);
}

static bool rounding_matters(const struct kolo__select_input *input)
{
    return (input->dtype == KOLO_FP16 || input->dtype == KOLO_BF16) && order_matters(input);
}

static bool breaks_order(const struct kolo__select_input *input,
                         const struct kolo__algorithm *algorithm)
{
    return input->deterministic && order_matters(input) && !algorithm->rounds_once;
}

static const char OTHER_ORDER[] = "it would combine in another order";

/* Why the algorithm cannot do it; NULL: it can. */
static const char *impossible(const struct kolo__select_input *input,
                              const struct kolo__algorithm *algorithm)
{
    const struct kolo__problem *problem = input->problem;
    size_t bytes = kolo_dtype_bytes(input->dtype);
    if (algorithm == &kolo__offload_mpi)
        return breaks_order(input, algorithm)
                   ? OTHER_ORDER
                   : kolo__offload_obstacle(input->offload, problem, input->dtype, input->op);
    if (!algorithm->accepts(problem))
        return "not for this collective, with so many ranks on so many hosts";
    if (algorithm->needs_mapping && !input->mapped)
        return "it needs shared memory between all ranks";
    if (algorithm->needs_host_mapping && !input->hosts_mapped)
        return "it needs shared memory between the ranks of each host";
    bool per_slice =
        problem->collective == KOLO__REDUCE_SCATTER || problem->collective == KOLO__ALLTOALL;
    if (algorithm->fills_slot &&
        problem->count > input->slot_bytes / bytes / (per_slice ? problem->size : 1))
        return "a contribution is larger than its slot";
    if (breaks_order(input, algorithm))
        return OTHER_ORDER;
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

static double cost_by(const struct kolo__select_input *input, const struct kolo__cost_model *model,
                      const struct kolo__algorithm *algorithm)
{
    KOLO__ASSERT(algorithm->seconds != NULL);
    if (kolo__select_obstacle(input, algorithm) != NULL)
        return -1;
    struct kolo__cost_terms terms = terms_of(input, model);
    return algorithm->seconds(&terms);
}

double kolo__select_cost(const struct kolo__select_input *input,
                         const struct kolo__algorithm *algorithm)
{
    return cost_by(input, input->model, algorithm);
}

bool kolo__select_same_bits(const struct kolo__select_input *input, const struct kolo__algorithm *a,
                            const struct kolo__algorithm *b)
{
    return a == b || !order_matters(input) || (a->rounds_once && b->rounds_once);
}

/* Names, separated by commas: of all algorithms, or of those that combine in the order of ranks. */
static void list_algorithms(bool in_order, char *names, size_t bytes)
{
    names[0] = '\0';
    for (size_t i = 0; kolo__algorithms[i] != NULL; i++) {
        if (in_order && !kolo__algorithms[i]->rounds_once)
            continue;
        strncat(names, names[0] != '\0' ? ", " : "", bytes - strlen(names) - 1);
        strncat(names, kolo__algorithms[i]->name, bytes - strlen(names) - 1);
    }
    if (!in_order)
        strncat(names, ", mpi", bytes - strlen(names) - 1);
}

static kolo_status select_forced(const struct kolo__select_input *input, const char *forced,
                                 const struct kolo__algorithm **algorithm)
{
    char names[256], remedy[400] = "";
    *algorithm = kolo__algorithm_find(forced);
    if (*algorithm == NULL) {
        list_algorithms(false, names, sizeof names);
        return kolo__error(KOLO_ERR_CONFIG, "there is no algorithm '%s'; there are %s", forced,
                           names);
    }
    const char *why = impossible(input, *algorithm);
    if (why == NULL)
        return KOLO_OK;
    if (why == OTHER_ORDER) {
        list_algorithms(true, names, sizeof names);
        snprintf(
            remedy, sizeof remedy,
            " than that of ranks, which KOLO_DETERMINISTIC=1 demands: force none, or one of %s",
            names);
    }
    return kolo__error(KOLO_ERR_INVALID,
                       "algorithm %s cannot do this %s (%u ranks, %zu x %s): %s%s", forced,
                       kolo__collective_name(input->problem->collective), input->problem->size,
                       input->problem->count, kolo_dtype_name(input->dtype), why, remedy);
}

/* Of those with the bits of `like` that move data as it does (NULL: of all). NULL: nobody can. */
static const struct kolo__algorithm *cheapest(const struct kolo__select_input *input,
                                              const struct kolo__cost_model *model,
                                              const struct kolo__algorithm *like)
{
    const struct kolo__algorithm *best = NULL;
    double least = 0;
    for (size_t i = 0; kolo__algorithms[i] != NULL; i++) {
        double cost = cost_by(input, model, kolo__algorithms[i]);
        if (cost < 0 || (best != NULL && cost >= least) ||
            (like != NULL && (like->needs_mapping != kolo__algorithms[i]->needs_mapping ||
                              !kolo__select_same_bits(input, like, kolo__algorithms[i]))))
            continue;
        best = kolo__algorithms[i];
        least = cost;
    }
    return best;
}

kolo_status kolo__select(const struct kolo__select_input *input, const char *forced,
                         bool prefer_only, const struct kolo__algorithm **algorithm)
{
    if (forced != NULL && forced[0] != '\0') {
        kolo_status status = select_forced(input, forced, algorithm);
        if (status != KOLO_ERR_INVALID || !prefer_only)
            return status;
    }
    const struct kolo__algorithm *like = cheapest(input, &kolo__default_cost_model, NULL);
    if (like == NULL)
        return kolo__error(KOLO_ERR_UNSUPPORTED, "no algorithm can do %s with %u ranks",
                           kolo__collective_name(input->problem->collective), input->problem->size);
    *algorithm = cheapest(input, input->model, like);
    double bytes = (double)input->problem->count * (double)kolo_dtype_bytes(input->dtype);
    if (!order_matters(input) && kolo__offload_is_faster(input->offload, bytes) &&
        impossible(input, &kolo__offload_mpi) == NULL)
        *algorithm = &kolo__offload_mpi;
    return KOLO_OK;
}
