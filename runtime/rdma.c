/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/rdma.h"

#include "runtime/rdma_near.h"

#include "base/log.h"
#include "base/status.h"
#include "collectives/transport/rdma_load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A peer's card that does not answer is given up before the operation is. */
enum { PATIENCE_MOST_S = 60 };

uint32_t kolo__rdma_turn(const kolo_context *context)
{
    return context->launch.local_rank >= 0 ? (uint32_t)context->launch.local_rank : context->rank;
}

uint32_t kolo__rdma_ranks(const kolo_context *context)
{
    return context->launch.local_size > 0 ? (uint32_t)context->launch.local_size : 0;
}

static kolo_status choose_port(const struct kolo__interfaces *own, uint32_t turn, uint32_t ranks,
                               bool unasked, struct kolo__rdma_port_in_use *use)
{
    char why[200];
    kolo_status status = kolo__rdma_load(&use->module);
    if (status == KOLO_OK && !use->module->survey(&use->survey, why, sizeof why))
        status = kolo__error(KOLO_ERR_SYSTEM, "%s", why);
    if (status == KOLO_OK)
        status = kolo__rdma_options_read(environ, &use->options);
    if (status != KOLO_OK)
        return status;
    use->options.unasked = unasked;
    const struct kolo__rdma_place place = {
        .own = own, .node = kolo__rdma_look_around(&use->survey), .turn = turn, .ranks = ranks};
    return kolo__rdma_choose(&use->survey, &use->options, &place, KOLO__RDMA_RAILS_MAX,
                             use->choices, &use->choice_count);
}

kolo_status kolo__rdma_find_port(const struct kolo__interfaces *own, uint32_t turn, uint32_t ranks,
                                 bool unasked, struct kolo__rdma_port_in_use **use)
{
    *use = calloc(1, sizeof **use);
    if (*use == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for the list of RDMA devices");
    kolo_status status = choose_port(own, turn, ranks, unasked, *use);
    if (status != KOLO_OK) {
        free(*use);
        *use = NULL;
    }
    return status;
}

kolo_status kolo__context_demand_rdma(kolo_context *context)
{
    char why[400];
    if (!kolo__config_wants_rdma(&context->config))
        return KOLO_OK;
    if (context->config.encrypt == 1)
        return kolo__error(KOLO_ERR_CONFIG,
                           "KOLO_TRANSPORT=%s does not go with KOLO_ENCRYPT=1: what network cards "
                           "write is plain. Use KOLO_TRANSPORT=auto, or no encryption",
                           context->config.transport);
    kolo_status status = kolo__rdma_find_port(&context->interfaces, kolo__rdma_turn(context),
                                              kolo__rdma_ranks(context), false, &context->rdma);
    if (status != KOLO_OK) {
        snprintf(why, sizeof why, "%s", kolo_error_text());
        return kolo__error(status, "KOLO_TRANSPORT=%s: %s", context->config.transport, why);
    }
    kolo__rdma_say_ports(context->rdma);
    return KOLO_OK;
}

void kolo__rdma_say_ports(const struct kolo__rdma_port_in_use *use)
{
    char text[KOLO__RDMA_CHOICE_TEXT_BYTES];
    for (uint32_t i = 0; i < use->choice_count; i++)
        kolo__log(KOLO__LOG_INFO, "RDMA: %s", kolo__rdma_choice_text(&use->choices[i], text));
}

void kolo__context_close_rdma(kolo_context *context)
{
    free(context->rdma);
    context->rdma = NULL;
}

kolo_status kolo__rdma_take_over(const kolo_comm *comm, struct kolo__transport **transport)
{
    const kolo_context *context = comm->context;
    const struct kolo__rdma_port_in_use *use = context->rdma;
    if (use == NULL)
        return KOLO_OK;
    /* Made now, if nobody has: who takes memory of it later means it for this. */
    struct kolo__heap *heap = NULL;
    if (kolo__context_heap(comm->context, &heap) != KOLO_OK)
        kolo__log(KOLO__LOG_WARN, "RDMA: messages are copied: %s", kolo_error_text());
    uint64_t half_s = ((uint64_t)context->config.timeout + 1) / 2;
    const struct kolo__rdma_setup setup = {
        .module = use->module,
        .options = use->options,
        .choices = use->choices,
        .choice_count = use->choice_count,
        .heap = heap,
        .tcp = *transport,
        .epoch = comm->epoch,
        .comm = comm->id,
        .checksum = context->config.checksum == 1,
        .hosts = comm->hosts,
        .patience_ns = (half_s < PATIENCE_MOST_S ? half_s : PATIENCE_MOST_S) * 1000000000u,
    };
    *transport = NULL;
    return kolo__rdma_create(&setup, transport);
}
