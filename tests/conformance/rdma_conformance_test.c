/* SPDX-License-Identifier: Apache-2.0 */
/* The rdma transport keeps the contract over verbs that are no device's (fake_verbs.h), plain and
 * with checksums, with small messages inline and without. Over real verbs: tests/rdma. */
#include "conformance.h"
#include "fake_verbs.h"

#include "base/socket.h"
#include "collectives/transport/rdma.h"
#include "collectives/transport/tcp.h"

#include <stddef.h>
#include <stdio.h>

static bool checksum;

static kolo_status join(uint32_t rank, uint32_t size, int listen_fd,
                        const struct kolo__endpoint *endpoints, struct kolo__transport **transport)
{
    const struct kolo__tcp_options options = {
        .rank = rank,
        .size = size,
        .epoch = 1,
        .comm = 7,
        .job = "conformance",
        .token = "secret",
        .listen_fd = listen_fd,
        .endpoints = endpoints,
        .streams = 1,
        .connect_timeout_ns = 20 * (uint64_t)1000000000,
    };
    struct kolo__rdma_gid gid = {.kind = KOLO__RDMA_GID_ROCE_V2, .raw = {[15] = (uint8_t)rank}};
    struct kolo__rdma_port port = {.number = 1, .active = true, .mtu_bytes = 1024};
    snprintf(port.device, sizeof port.device, "fake%u", rank);
    const struct kolo__rdma_choice choice = {&port, &gid};
    struct kolo__rdma_setup setup = {
        .module = &fake_verbs,
        .choice = &choice,
        .epoch = 1,
        .comm = 7,
        .checksum = checksum,
        .patience_ns = 10 * (uint64_t)1000000000,
    };
    kolo_status status = kolo__tcp_create(&options, &setup.tcp);
    return status == KOLO_OK ? kolo__rdma_create(&setup, transport) : status;
}

static kolo_status create(uint32_t size, uint64_t seed, struct kolo__transport **transports,
                          void **world)
{
    (void)seed;
    int listeners[KOLO__CONFORMANCE_SIZE_MAX];
    struct kolo__endpoint endpoints[KOLO__CONFORMANCE_SIZE_MAX] = {{.count = 0}};
    kolo_status status = KOLO_OK;
    for (uint32_t r = 0; r < size && status == KOLO_OK; r++) {
        status = kolo__listen("127.0.0.1", 0, &listeners[r], &endpoints[r].addresses[0]);
        endpoints[r].count = 1;
    }
    for (uint32_t r = 0; r < size && status == KOLO_OK; r++)
        status = join(r, size, listeners[r], endpoints, &transports[r]);
    *world = NULL;
    return status;
}

static void step(void *world)
{
    (void)world;
}

static void destroy(void *world)
{
    (void)world;
}

int main(void)
{
    static const struct kolo__conformance_fixture rdma = {
        .name = "rdma", .create = create, .step = step, .destroy = destroy, .threads = true};
    int failed = 0;
    for (int kind = 0; kind < 4; kind++) {
        checksum = kind % 2 == 1;
        fake_verbs_set_inline(kind < 2 ? 256 : 0);
        failed += kolo__conformance_run(&rdma);
    }
    return failed;
}
