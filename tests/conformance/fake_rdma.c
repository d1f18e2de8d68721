/* SPDX-License-Identifier: Apache-2.0 */
#include "fake_rdma.h"

#include "fake_verbs.h"
#include "tcp_ends.h"

#include "collectives/transport/rdma.h"

#include <stdio.h>

struct fake_rdma_options fake_rdma_how;

static kolo_status join(uint32_t rank, uint32_t size, const struct fake_rdma_options *how,
                        int listen_fd, const struct kolo__endpoint *endpoints,
                        struct kolo__transport **transport)
{
    const struct kolo__tcp_options options = tcp_ends_options(rank, size, listen_fd, endpoints);
    struct kolo__rdma_gid gid = {.kind = KOLO__RDMA_GID_ROCE_V2, .raw = {[15] = (uint8_t)rank}};
    struct kolo__rdma_port ports[KOLO__RDMA_RAILS_MAX];
    struct kolo__rdma_choice choices[KOLO__RDMA_RAILS_MAX];
    for (uint32_t i = 0; i < KOLO__RDMA_RAILS_MAX; i++) {
        ports[i] = (struct kolo__rdma_port){.number = 1, .active = true, .mtu_bytes = 1024};
        snprintf(ports[i].device, sizeof ports[i].device, "fake%u", rank);
        choices[i] = (struct kolo__rdma_choice){&ports[i], &gid};
    }
    if (how->no_dma_buf != NULL)
        snprintf(ports[how->ports - 1].no_dma_buf, sizeof ports->no_dma_buf, "%s", how->no_dma_buf);
    struct kolo__rdma_setup setup = {
        .module = &fake_verbs,
        .options = {.connections = how->connections > 0 ? how->connections : 1},
        .choices = choices,
        .choice_count = how->ports > 0 && !(how->uneven && rank == 0) ? how->ports : 1,
        .heap = how->heap,
        .epoch = 1,
        .comm = 7,
        .checksum = how->checksum,
        .patience_ns = 10 * (uint64_t)1000000000,
    };
    kolo_status status = kolo__tcp_create(&options, &setup.tcp);
    return status == KOLO_OK ? kolo__rdma_create(&setup, transport) : status;
}

kolo_status fake_rdma_create(uint32_t size, uint64_t seed, struct kolo__transport **transports,
                             void **world)
{
    (void)seed;
    *world = NULL;
    int listeners[KOLO__CONFORMANCE_SIZE_MAX];
    struct kolo__endpoint endpoints[KOLO__CONFORMANCE_SIZE_MAX];
    kolo_status status = tcp_ends_listen(size, listeners, endpoints);
    for (uint32_t r = 0; r < size && status == KOLO_OK; r++)
        status = join(r, size, &fake_rdma_how, listeners[r], endpoints, &transports[r]);
    return status;
}

void pass_message(struct world *world, size_t bytes)
{
    struct message both[2];
    make_send(&both[0], bytes, bytes);
    make_recv(&both[1], bytes, bytes);
    send_message(world, 0, 1, &both[0]);
    recv_message(world, 1, 0, &both[1]);
    finish(world, both, 2);
    assert_int_equal(both[0].post.status, KOLO_OK);
    assert_int_equal(both[1].post.status, KOLO_OK);
    assert_true(holds(&both[1], bytes));
    free_messages(both, 2);
}
