/* SPDX-License-Identifier: Apache-2.0 */
#include "collectives/select.h"

#include "base/status.h"

#include <math.h>
#include <string.h>

/* Typical of one server and of 10-25 Gbit/s Ethernet; measured values replace them where known. */
const struct kolo__cost_model kolo__default_cost_model = {
    .message_local = 1.5e-6,
    .message_remote = 20e-6,
    .byte_local = 1 / 5e9,
    .byte_remote = 1 / 1.5e9,
    .byte_reduced = 1 / 10e9,
    .fence = 1e-6,
};

/* What the formulas speak of. */
struct terms {
    double a, B, G; /* of the slowest link used */
    double local_a, local_B;
    double fence;
    double n; /* bytes of the whole vector */
    double p;
    double h; /* ceil(lg p) */
    bool power_of_two;
    double q, N; /* ranks per host, hosts */
    enum kolo__collective collective;
};

static bool moves_twice(const struct terms *t)
{
    return t->collective == KOLO__ALLREDUCE || t->collective == KOLO__REDUCE_TO_ROOT;
}

static double ring(const struct terms *t)
{
    double share = (t->p - 1) / t->p * t->n, halves = moves_twice(t) ? 2 : 1;
    bool reduces = kolo__collective_reduces(t->collective);
    return halves * ((t->p - 1) * t->a + share * t->B) + (reduces ? share * t->G : 0);
}

static double recursive_doubling(const struct terms *t)
{
    double steps = t->power_of_two ? t->h : t->h + 1;
    return steps * (t->a + t->n * t->B) + t->h * t->n * t->G;
}

static double halving_doubling(const struct terms *t)
{
    double share = (t->p - 1) / t->p * t->n;
    double fold = t->power_of_two ? 0 : 2 * (t->a + t->n * t->B) + t->n * t->G;
    return 2 * t->h * t->a + 2 * share * t->B + share * t->G + fold;
}

static double double_binary_tree(const struct terms *t)
{
    return 2 * t->h * t->a + 2 * t->n * t->B + 4 * sqrt(t->h * t->n * t->a * t->B) + t->n * t->G;
}

static double tree(const struct terms *t)
{
    bool reduces = kolo__collective_reduces(t->collective);
    return t->h * (t->a + t->n * t->B) + (reduces ? t->h * t->n * t->G : 0);
}

static double two_level(const struct terms *t)
{
    return 2 * (t->q - 1) * t->local_a + 2 * (t->q - 1) / t->q * t->n * t->local_B +
           2 * (t->N - 1) * t->a + 2 * (t->N - 1) / t->N * t->n / t->q * t->B + t->n * t->G;
}

/* All messages are under way together, so only a part of each start-up is on the path. */
static double pairwise(const struct terms *t)
{
    double share = (t->p - 1) / t->p * t->n, halves = moves_twice(t) ? 2 : 1;
    bool reduces = kolo__collective_reduces(t->collective);
    return halves * ((1 + 0.4 * (t->p - 2)) * t->a + share * t->B) + (reduces ? t->n * t->G : 0);
}

static double shm_one_shot(const struct terms *t)
{
    return t->fence + 0.1e-6 * t->p + t->n * t->p * t->G;
}

static double shm_direct(const struct terms *t)
{
    return 2 * t->fence + 0.2e-6 * t->p + 3 * t->n * t->G;
}

static const struct {
    const char *name;
    bool rounds_once; /* 16-bit sums */
    double (*seconds)(const struct terms *terms);
} costs[] = {
    {"ring", false, ring},
    {"recursive_doubling", false, recursive_doubling},
    {"halving_doubling", false, halving_doubling},
    {"double_binary_tree", false, double_binary_tree},
    {"tree", false, tree},
    {"two_level", false, two_level},
    {"pairwise", true, pairwise},
    {"shm_one_shot", true, shm_one_shot},
    {"shm_direct", true, shm_direct},
};

static struct terms terms_of(const struct kolo__select_input *input)
{
    const struct kolo__problem *problem = input->problem;
    const struct kolo__cost_model *model = input->model;
    struct terms t = {.p = problem->size, .N = 1, .q = problem->size};
    bool per_slice = problem->collective == KOLO__REDUCE_SCATTER ||
                     problem->collective == KOLO__ALLGATHER ||
                     problem->collective == KOLO__ALLTOALL;
    t.collective = problem->collective;
    t.a = input->remote ? model->message_remote : model->message_local;
    t.B = input->remote ? model->byte_remote : model->byte_local;
    t.G = model->byte_reduced;
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

static bool possible(const struct kolo__select_input *input,
                     const struct kolo__algorithm *algorithm)
{
    const struct kolo__problem *problem = input->problem;
    size_t bytes = kolo_dtype_bytes(input->dtype);
    if (!algorithm->accepts(problem) || (algorithm->needs_mapping && !input->mapped))
        return false;
    /* SLOT holds this rank's contribution, all slices of it. */
    bool slots = strcmp(algorithm->name, "shm_one_shot") == 0;
    bool per_slice =
        problem->collective == KOLO__REDUCE_SCATTER || problem->collective == KOLO__ALLTOALL;
    return !slots || problem->count <= input->slot_bytes / bytes / (per_slice ? problem->size : 1);
}

double kolo__select_cost(const struct kolo__select_input *input,
                         const struct kolo__algorithm *algorithm)
{
    if (!possible(input, algorithm))
        return -1;
    struct terms terms = terms_of(input);
    for (size_t i = 0; i < sizeof costs / sizeof *costs; i++)
        if (strcmp(costs[i].name, algorithm->name) == 0)
            return costs[i].rounds_once || !rounding_matters(input) ? costs[i].seconds(&terms) : -1;
    return -1;
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
    if (!possible(input, *algorithm))
        return kolo__error(KOLO_ERR_INVALID,
                           "algorithm %s cannot do this %s (%u ranks, %zu x %s%s)", forced,
                           kolo__collective_name(input->problem->collective), input->problem->size,
                           input->problem->count, kolo_dtype_name(input->dtype),
                           (*algorithm)->needs_mapping && !input->mapped
                               ? "; it needs shared memory between all ranks"
                               : "");
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
