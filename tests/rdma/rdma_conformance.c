/* SPDX-License-Identifier: Apache-2.0 */
/* RDMA keeps the contract, plain and with checksums; ranks take the two devices in turn. Run in the
 * virtual machine by conformance_test.sh. */
#include "conformance.h"
#include "rdma_world.h"
#include "tcp_ends.h"

#include <stddef.h>

static bool checksum;

static kolo_status create(uint32_t size, uint64_t seed, struct kolo__transport **transports,
                          void **world)
{
    (void)seed;
    int listeners[KOLO__CONFORMANCE_SIZE_MAX];
    struct kolo__endpoint endpoints[KOLO__CONFORMANCE_SIZE_MAX];
    kolo_status status = tcp_ends_listen(size, listeners, endpoints);
    for (uint32_t r = 0; r < size && status == KOLO_OK; r++) {
        const struct rdma_rank rank = {.rank = r, .size = size, .checksum = checksum};
        status = rdma_world_join(&rank, listeners[r], endpoints, &transports[r]);
    }
    *world = NULL;
    return status;
}

int main(void)
{
    static const struct kolo__conformance_fixture rdma = {
        .name = "rdma", .create = create, .threads = true};
    int failed = 0;
    rdma_world_begin();
    for (int with = 0; with < 2; with++) {
        checksum = with == 1;
        failed += kolo__conformance_run(&rdma);
    }
    return failed;
}
