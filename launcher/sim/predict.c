/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/sim/predict.h"

#include "base/assert.h"
#include "base/status.h"
#include "collectives/flows.h"
#include "collectives/transport/shm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PHASES_MAX = 64 }; /* 2 lg 2^31 + 2 */

struct phase {
    struct kolo__load *load;
    double messages;                 /* of the longest chain */
    double latency, slowest_latency; /* of the messages: their sum, the longest */
    uint32_t flows;
};

/* Collects the flows of all ranks. */
struct collector {
    struct kolo__flow_sink sink;
    const struct kolo__prediction_question *question;
    uint32_t rank;
    double element_bytes;
    struct phase phases[PHASES_MAX];
    uint32_t count;
    bool out_of_memory;
};

static struct phase *phase_of(struct collector *collector, uint32_t number)
{
    KOLO__ASSERT(number < PHASES_MAX);
    struct phase *phase = &collector->phases[number];
    if (phase->load == NULL) {
        phase->load = kolo__load_create(collector->question->network, collector->question->ranks);
        collector->out_of_memory |= phase->load == NULL;
    }
    if (number >= collector->count)
        collector->count = number + 1;
    return phase;
}

static void on_send(struct kolo__flow_sink *sink, uint32_t number, uint32_t peer, double elements)
{
    struct collector *collector = (struct collector *)sink;
    struct phase *phase = phase_of(collector, number);
    if (phase->load == NULL)
        return;
    double latency = kolo__network_latency(collector->question->network, collector->rank, peer);
    kolo__load_add(phase->load, collector->rank, peer, elements * collector->element_bytes);
    phase->latency += latency;
    phase->slowest_latency = latency > phase->slowest_latency ? latency : phase->slowest_latency;
    phase->flows++;
}

static void on_chain(struct kolo__flow_sink *sink, uint32_t number, double messages)
{
    struct phase *phase = phase_of((struct collector *)sink, number);
    phase->messages = messages > phase->messages ? messages : phase->messages;
}

/* A single message of a phase waits for nobody; a longer chain goes over all kinds of links. */
static double chain_seconds(const struct phase *phase)
{
    double latency = phase->messages > 1 ? phase->latency / phase->flows : phase->slowest_latency;
    return phase->flows == 0 ? 0 : phase->messages * latency;
}

static kolo_status add_network(const struct kolo__prediction_question *question,
                               struct kolo__prediction *prediction)
{
    struct collector collector = {.sink = {.send = on_send, .chain = on_chain},
                                  .question = question,
                                  .element_bytes = (double)kolo_dtype_bytes(question->dtype)};
    struct kolo__flow_problem problem = {.size = question->ranks,
                                         .per_host = question->network->per_host,
                                         .count =
                                             (double)question->bytes / collector.element_bytes};
    double slowest = 0;
    for (uint32_t rank = 0; rank < question->ranks; rank++) {
        collector.rank = problem.rank = rank;
        prediction->algorithm->flows(&problem, &collector.sink);
    }
    for (uint32_t i = 0; i < collector.count && !collector.out_of_memory; i++) {
        char where[sizeof prediction->slowest];
        double seconds = kolo__load_seconds(collector.phases[i].load, where, sizeof where);
        prediction->links_s += seconds;
        prediction->messages_s += chain_seconds(&collector.phases[i]);
        if (seconds > slowest)
            memcpy(prediction->slowest, where, sizeof where);
        slowest = seconds > slowest ? seconds : slowest;
    }
    for (uint32_t i = 0; i < collector.count; i++)
        kolo__load_free(collector.phases[i].load);
    return collector.out_of_memory ? KOLO_ERR_MEMORY : KOLO_OK;
}

static kolo_status predict_one(const struct kolo__prediction_question *question,
                               const struct kolo__select_input *input,
                               struct kolo__prediction *prediction)
{
    prediction->obstacle = kolo__select_obstacle(input, prediction->algorithm);
    if (prediction->obstacle != NULL)
        return KOLO_OK;
    /* The formulas without messages are what is left: reductions, and memory that is shared. */
    struct kolo__cost_model memory = *question->model;
    memory.message_local = memory.message_remote = memory.byte_local = memory.byte_remote = 0;
    struct kolo__select_input local = *input;
    local.model = &memory;
    prediction->memory_s = kolo__select_cost(&local, prediction->algorithm);
    kolo_status status = add_network(question, prediction);
    prediction->seconds = prediction->messages_s + prediction->links_s + prediction->memory_s;
    if (prediction->messages_s >= prediction->links_s &&
        prediction->messages_s >= prediction->memory_s)
        snprintf(prediction->slowest, sizeof prediction->slowest, "messages");
    else if (prediction->memory_s > prediction->links_s)
        snprintf(prediction->slowest, sizeof prediction->slowest, "memory");
    return status;
}

static int by_seconds(const void *a, const void *b)
{
    const struct kolo__prediction *x = a, *y = b;
    if ((x->obstacle != NULL) != (y->obstacle != NULL))
        return x->obstacle != NULL ? 1 : -1;
    return x->seconds < y->seconds ? -1 : x->seconds > y->seconds;
}

kolo_status kolo__predict(const struct kolo__prediction_question *question,
                          struct kolo__prediction predictions[KOLO__PREDICTIONS_MAX], size_t *count)
{
    const struct kolo__algorithm *chosen = NULL;
    size_t element = kolo_dtype_bytes(question->dtype);
    uint32_t per_host = question->network->per_host;
    uint32_t *host_of = malloc(question->ranks * sizeof *host_of);
    if (host_of == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for %u ranks", question->ranks);
    for (uint32_t rank = 0; rank < question->ranks; rank++)
        host_of[rank] = rank / per_host;
    struct kolo__problem problem = {.collective = KOLO__ALLREDUCE,
                                    .size = question->ranks,
                                    .count = question->bytes / element,
                                    .window_count =
                                        kolo__shm_window_bytes(per_host, true) / element,
                                    .host_of = host_of};
    struct kolo__select_input input = {.problem = &problem,
                                       .dtype = question->dtype,
                                       .op = KOLO_SUM,
                                       .hosts_mapped = per_host > 1,
                                       .remote = true,
                                       .model = question->model};
    kolo_status status = kolo__select(&input, NULL, false, &chosen);
    *count = 0;
    for (size_t i = 0; status == KOLO_OK && kolo__algorithms[i] != NULL; i++) {
        if (kolo__algorithms[i]->flows == NULL)
            continue;
        KOLO__ASSERT(*count < KOLO__PREDICTIONS_MAX);
        struct kolo__prediction *prediction = &predictions[(*count)++];
        *prediction = (struct kolo__prediction){.algorithm = kolo__algorithms[i],
                                                .chosen = kolo__algorithms[i] == chosen};
        status = predict_one(question, &input, prediction);
    }
    qsort(predictions, *count, sizeof *predictions, by_seconds);
    free(host_of);
    return status;
}
