/* SPDX-License-Identifier: Apache-2.0 */
#include "rdma_world.h"

#include "tcp_ends.h"

#include "collectives/transport/rdma_load.h"

#include <stdio.h>
#include <stdlib.h>

static const struct kolo__rdma_module *module;
static struct kolo__rdma_survey survey;

void rdma_world_begin(void)
{
    char why[200] = "";
    if (kolo__rdma_load(&module) == KOLO_OK && module->survey(&survey, why, sizeof why))
        return;
    fprintf(stderr, "no RDMA: %s%s\n", kolo_error_text(), why);
    exit(1);
}

static kolo_status create_rdma(struct kolo__transport *tcp, const struct rdma_rank *rank,
                               struct kolo__transport **transport)
{
    struct kolo__rdma_choice choices[2];
    uint32_t count = 0, one;
    const struct kolo__rdma_place place = {.node = -1};
    struct kolo__rdma_options options;
    char *none[] = {NULL};
    kolo_status status = kolo__rdma_options_read(none, &options);
    options.timeout = 17;    /* 0.5 s: what a busy emulated machine may be late */
    options.retry_count = 6; /* 7 is for ever to Soft-RoCE */
    for (uint32_t i = 0; i < (rank->both ? 2 : 1) && status == KOLO_OK; i++, count++) {
        options.devices = (rank->rank + i) % 2 == 0 ? "=rxe0" : "=rxe1";
        status = kolo__rdma_choose(&survey, &options, &place, 1, &choices[i], &one);
    }
    if (status != KOLO_OK) {
        tcp->ops->close(tcp);
        return status;
    }
    const struct kolo__rdma_setup setup = {
        .module = module,
        .options = options,
        .choices = choices,
        .choice_count = count,
        .heap = rank->heap,
        .tcp = tcp,
        .epoch = 1,
        .comm = 7,
        .checksum = rank->checksum,
        .patience_ns = RDMA_WORLD_PATIENCE_S * (uint64_t)1000000000,
    };
    return kolo__rdma_create(&setup, transport);
}

kolo_status rdma_world_join(const struct rdma_rank *rank, int listen_fd,
                            const struct kolo__endpoint *endpoints,
                            struct kolo__transport **transport)
{
    const struct kolo__tcp_options options =
        tcp_ends_options(rank->rank, rank->size, listen_fd, endpoints);
    struct kolo__transport *tcp;
    kolo_status status = kolo__tcp_create(&options, &tcp);
    return status == KOLO_OK ? create_rdma(tcp, rank, transport) : status;
}
