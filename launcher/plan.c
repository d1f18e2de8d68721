/* SPDX-License-Identifier: Apache-2.0 */
/* `kolo info --plan`: which algorithm an operation gets here, what the others would cost, and why.
 */
#include "launcher/plan.h"

#include "collectives/select.h"
#include "collectives/transport/shm_mailbox.h"

#include <stdio.h>
#include <stdlib.h>

struct candidate {
    const struct kolo__algorithm *algorithm;
    double seconds; /* negative: obstacle says why not */
    const char *obstacle;
};

static int by_cost(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if ((x->seconds < 0) != (y->seconds < 0))
        return x->seconds < 0 ? 1 : -1;
    return x->seconds < y->seconds ? -1 : x->seconds > y->seconds;
}

static void print_candidates(const struct kolo__select_input *input)
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
        if (candidates[i].seconds < 0)
            printf("  %-20s          -     %s\n", candidates[i].algorithm->name,
                   candidates[i].obstacle);
        else
            printf("  %-20s %10.2f us  %s\n", candidates[i].algorithm->name,
                   candidates[i].seconds * 1e6, i == 0 ? "chosen: the least predicted time" : "");
    }
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
    uint32_t *host_of = place_ranks(question->ranks, question->hosts);
    if (host_of == NULL)
        return KOLO_ERR_MEMORY;
    size_t element = kolo_dtype_bytes(question->dtype);
    bool mapped = question->hosts == 1 && question->ranks > 1;
    struct kolo__problem problem = {.collective = KOLO__ALLREDUCE,
                                    .size = question->ranks,
                                    .count = question->bytes / element,
                                    .window_count =
                                        kolo__shm_window_bytes(question->ranks) / element,
                                    .host_of = host_of};
    struct kolo__select_input input = {.problem = &problem,
                                       .dtype = question->dtype,
                                       .op = KOLO_SUM,
                                       .mapped = mapped,
                                       .remote = question->hosts > 1,
                                       .slot_bytes = mapped ? KOLO__SHM_SLOT_BYTES : 0,
                                       .model = &kolo__default_cost_model};
    printf("allreduce of %zu x %s (%zu bytes), sum, %u ranks on %u host%s, %s\n", problem.count,
           kolo_dtype_name(question->dtype), problem.count * element, question->ranks,
           question->hosts, question->hosts == 1 ? "" : "s",
           mapped                ? "shared memory"
           : question->hosts > 1 ? "tcp between hosts"
                                 : "alone");
    print_candidates(&input);
    printf("predicted by the cost model of collectives/select.c; KOLO_ALGORITHM overrides it\n");
    free(host_of);
    return KOLO_OK;
}
