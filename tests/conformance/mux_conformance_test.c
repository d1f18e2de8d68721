/* SPDX-License-Identifier: Apache-2.0 */
/* Two hosts, even and odd ranks: shm within a host, tcp between them, and one transport of both. */
#include "conformance.h"
#include "tcp_ends.h"

#include "base/clock.h"
#include "collectives/transport/mux.h"
#include "collectives/transport/shm.h"
#include "collectives/transport/tcp.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct hosts {
    struct kolo__heap *heaps[2];
    char name[64];
};

static kolo_status create_rank(const struct hosts *hosts, uint32_t rank, uint32_t size,
                               const uint64_t *positions, int listen_fd,
                               const struct kolo__endpoint *endpoints,
                               struct kolo__transport **transport)
{
    uint64_t mailboxes[KOLO__CONFORMANCE_SIZE_MAX];
    uint8_t route[KOLO__CONFORMANCE_SIZE_MAX];
    struct kolo__transport *children[2];
    for (uint32_t peer = 0; peer < size; peer++) {
        bool local = peer % 2 == rank % 2;
        mailboxes[peer] = local ? positions[peer] : UINT64_MAX;
        route[peer] = local ? 0 : 1;
    }
    const struct kolo__shm_options shm = {.rank = rank,
                                          .size = size,
                                          .across = true,
                                          .heap = hosts->heaps[rank % 2],
                                          .mailboxes = mailboxes,
                                          .doorbell = hosts->name};
    const struct kolo__tcp_options tcp = tcp_ends_options(rank, size, listen_fd, endpoints);
    struct kolo__mapping *mapping;
    kolo_status status = kolo__shm_create(&shm, &children[0], &mapping);
    if (status == KOLO_OK)
        status = kolo__tcp_create(&tcp, &children[1]);
    /* With ranks on both hosts there is no memory that all of them map. */
    bool all = true;
    for (uint32_t peer = 0; status == KOLO_OK && peer < size; peer++)
        all = all && mapping->shares[peer];
    if (status == KOLO_OK && all != (size == 1))
        status = KOLO_ERR_INVALID;
    if (status == KOLO_OK)
        status = kolo__mux_create(rank, size, children, 2, route, transport);
    return status;
}

static kolo_status create(uint32_t size, uint64_t seed, struct kolo__transport **transports,
                          void **result)
{
    static int count;
    (void)seed;
    struct hosts *hosts = calloc(1, sizeof *hosts);
    if (hosts == NULL)
        return KOLO_ERR_MEMORY;
    *result = hosts;
    snprintf(hosts->name, sizeof hosts->name, "kolo-mux-%d-%d", (int)getpid(), count++);
    const struct kolo__heap_options heap = {.members = 1,
                                            .share_bytes = 32 << 20,
                                            .deadline_ns = kolo__now_ns(&kolo__real_clock) +
                                                           10 * (uint64_t)1000000000};
    kolo_status status = kolo__heap_open(&heap, &hosts->heaps[0]);
    if (status == KOLO_OK)
        status = kolo__heap_open(&heap, &hosts->heaps[1]);

    uint64_t positions[KOLO__CONFORMANCE_SIZE_MAX];
    struct kolo__endpoint endpoints[KOLO__CONFORMANCE_SIZE_MAX];
    int listeners[KOLO__CONFORMANCE_SIZE_MAX];
    if (status == KOLO_OK)
        status = tcp_ends_listen(size, listeners, endpoints);
    for (uint32_t r = 0; r < size && status == KOLO_OK; r++)
        status = kolo__shm_mailbox_create(hosts->heaps[r % 2], size, true, &positions[r]);
    for (uint32_t r = 0; r < size && status == KOLO_OK; r++)
        status = create_rank(hosts, r, size, positions, listeners[r], endpoints, &transports[r]);
    return status;
}

static void destroy(void *argument)
{
    struct hosts *hosts = argument;
    kolo__heap_close(hosts->heaps[0]);
    kolo__heap_close(hosts->heaps[1]);
    free(hosts);
}

int main(void)
{
    static const struct kolo__conformance_fixture mux = {
        .name = "mux", .create = create, .destroy = destroy, .threads = true};
    return kolo__conformance_run(&mux);
}
