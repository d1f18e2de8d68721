/* SPDX-License-Identifier: Apache-2.0 */
/* `kolo info --plan`: which algorithm an operation gets here, what the others would cost, and why.
 */
#include "launcher/plan.h"

#include "collectives/select.h"
#include "collectives/transport/shm_mailbox.h"
#include "runtime/cpus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct candidate {
    const struct kolo__algorithm *algorithm;
    double seconds; /* negative: obstacle says why not */
    const char *obstacle;
};

/* The constants for ranks that `kolo run` starts here, bound if they can be; says where they are
 * from. A job's own: `kolo run -n N -- kolo info --plan BYTES`. */
static const struct kolo__cost_model *find_constants(const struct kolo__plan_question *question,
                                                     struct kolo__cost_model *model, char *source,
                                                     size_t bytes)
{
    char key[KOLO__COSTS_KEY_BYTES], path[PATH_MAX];
    if (question->hosts > 1 || question->ranks < 2 || question->tcp) {
        snprintf(source, bytes, "defaults; they are measured only where all ranks share memory");
        return &kolo__default_cost_model;
    }
    if (question->costs != NULL && question->costs->source != KOLO__COSTS_DEFAULT) {
        bool measured = question->costs->source == KOLO__COSTS_MEASURED;
        snprintf(source, bytes, "%s%s%s", measured ? "measured now" : "cache file ",
                 measured && question->costs->path[0] != '\0' ? ", kept in " : "",
                 question->costs->path);
        return &question->costs->model;
    }
    bool many = question->ranks > (uint32_t)kolo__usable_cpus();
    for (int layout = many ? KOLO__LAYOUT_OVERSUBSCRIBED : KOLO__LAYOUT_BOUND;
         layout <= (many ? KOLO__LAYOUT_OVERSUBSCRIBED : KOLO__LAYOUT_FREE); layout++) {
        kolo__costs_key(question->ranks, (enum kolo__costs_layout)layout, key);
        if (kolo__costs_path(key, path) && kolo__costs_load(path, key, model)) {
            snprintf(source, bytes, "cache file %s", path);
            return model;
        }
    }
    snprintf(source, bytes,
             "defaults: nothing was measured here for %u ranks yet; "
             "kolo run -n %u -- kolo info --plan %zu does that",
             question->ranks, question->ranks, question->bytes);
    return &kolo__default_cost_model;
}

static int by_cost(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if ((x->seconds < 0) != (y->seconds < 0))
        return x->seconds < 0 ? 1 : -1;
    return x->seconds < y->seconds ? -1 : x->seconds > y->seconds;
}

/* Why this one is chosen, or why it is not although it is predicted to be faster. */
static const char *verdict(const struct kolo__select_input *input,
                           const struct candidate *candidate, const struct candidate *cheapest,
                           const struct kolo__algorithm *chosen, const char *preferred)
{
    if (strcmp(chosen->name, preferred) == 0)
        return candidate->algorithm == chosen ? "  chosen: KOLO_ALGORITHM says so" : "";
    if (candidate->algorithm == chosen)
        return candidate == cheapest
                   ? "  chosen: the least predicted time"
                   : "  chosen: the least of those that the fixed constants leave";
    if (candidate->seconds < kolo__select_cost(input, chosen))
        return "  measured constants do not decide between this and the chosen one";
    return "";
}

static void print_candidates(const struct kolo__select_input *input,
                             const struct kolo__algorithm *chosen, const char *preferred)
{
    struct candidate candidates[32];
    size_t count = 0;
    for (; kolo__algorithms[count] != NULL && count < 32; count++)
        candidates[count] = (struct candidate){
            .algorithm = kolo__algorithms[count],
            .seconds = kolo__select_cost(input, kolo__algorithms[count]),
            .obstacle = kolo__select_obstacle(input, kolo__algorithms[count]),
        };
    qsort(candidates, count, sizeof *candidates, by_cost);
    for (size_t i = 0; i < count; i++) {
        if (candidates[i].seconds < 0) {
            printf("  %-20s          -     %s\n", candidates[i].algorithm->name,
                   candidates[i].obstacle);
        } else {
            printf("  %-20s %10.2f us%s\n", candidates[i].algorithm->name,
                   candidates[i].seconds * 1e6,
                   verdict(input, &candidates[i], candidates, chosen, preferred));
        }
    }
    const char *no_mpi = kolo__select_obstacle(input, &kolo__offload_mpi);
    printf("  %-20s          -     %s\n", kolo__offload_mpi.name,
           chosen == &kolo__offload_mpi
               ? "chosen: KOLO_ALGORITHM says so, or it was measured to be faster"
           : no_mpi != NULL ? no_mpi
                            : "KOLO_ALGORITHM=mpi takes it");
}

/* Ranks lie on hosts in blocks, as launchers place them. */
static uint32_t *place_ranks(uint32_t ranks, uint32_t hosts)
{
    uint32_t *host_of = calloc(ranks, sizeof *host_of);
    for (uint32_t rank = 0; host_of != NULL && rank < ranks; rank++)
        host_of[rank] = (uint32_t)((uint64_t)rank * hosts / ranks);
    return host_of;
}

kolo_status kolo__print_plan(const struct kolo__plan_question *question)
{
    struct kolo__cost_model model;
    char source[PATH_MAX + 200];
    uint32_t *host_of = place_ranks(question->ranks, question->hosts);
    if (host_of == NULL)
        return KOLO_ERR_MEMORY;
    size_t element = kolo_dtype_bytes(question->dtype);
    bool mapped = question->hosts == 1 && question->ranks > 1 && !question->tcp;
    bool remote = question->hosts > 1 || (question->ranks > 1 && question->tcp);
    struct kolo__problem problem = {
        .collective = KOLO__ALLREDUCE,
        .size = question->ranks,
        .count = question->bytes / element,
        .window_count = kolo__shm_window_bytes(question->ranks, question->hosts > 1) / element,
        .host_of = host_of};
    struct kolo__select_input input = {.problem = &problem,
                                       .dtype = question->dtype,
                                       .op = KOLO_SUM,
                                       .mapped = mapped,
                                       .hosts_mapped = !question->tcp,
                                       .remote = remote,
                                       .slot_bytes = mapped ? KOLO__SHM_SLOT_BYTES : 0,
                                       .deterministic = question->deterministic,
                                       .offload = question->offload,
                                       .model =
                                           find_constants(question, &model, source, sizeof source)};
    const struct kolo__algorithm *chosen = NULL;
    kolo_status status = kolo__select(&input, question->preferred, true, &chosen);
    printf("allreduce of %zu x %s (%zu bytes), sum, %u ranks on %u host%s, %s\n", problem.count,
           kolo_dtype_name(question->dtype), problem.count * element, question->ranks,
           question->hosts, question->hosts == 1 ? "" : "s",
           mapped                ? "shared memory"
           : question->hosts > 1 ? "tcp between hosts"
           : remote              ? "tcp"
                                 : "alone");
    if (status == KOLO_OK)
        print_candidates(&input, chosen, question->preferred);
    if (status == KOLO_OK && question->preferred[0] != '\0' &&
        strcmp(question->preferred, chosen->name) != 0)
        printf("KOLO_ALGORITHM=%s cannot do this, and is left aside\n", question->preferred);
    printf("predicted by the cost model of collectives/select.c; KOLO_ALGORITHM overrides it\n"
           "constants: %s\n",
           source);
    free(host_of);
    return status;
}
