/* SPDX-License-Identifier: Apache-2.0 */
/* RDMA keeps the contract: plain and with checksums, copied and straight, by one device and both.
 * Ranks take the two devices in turn. Run in the virtual machine by conformance_test.sh. */
#include "conformance.h"
#include "rdma_world.h"
#include "tcp_ends.h"

#include <stddef.h>
#include <stdio.h>

static struct rdma_rank how;

static kolo_status create(uint32_t size, uint64_t seed, struct kolo__transport **transports,
                          void **world)
{
    (void)seed;
    int listeners[KOLO__CONFORMANCE_SIZE_MAX];
    struct kolo__endpoint endpoints[KOLO__CONFORMANCE_SIZE_MAX];
    kolo_status status = tcp_ends_listen(size, listeners, endpoints);
    for (uint32_t r = 0; r < size && status == KOLO_OK; r++) {
        struct rdma_rank rank = how;
        rank.rank = r;
        rank.size = size;
        status = rdma_world_join(&rank, listeners[r], endpoints, &transports[r]);
    }
    *world = NULL;
    return status;
}

static int run(void)
{
    const struct kolo__conformance_fixture rdma = {
        .name = "rdma", .create = create, .threads = true, .heap = how.heap, .mixed = true};
    return kolo__conformance_run(&rdma);
}

int main(void)
{
    const struct kolo__heap_options options = {.name = "", .token = "", .members = 1};
    struct kolo__heap *heap;
    int failed = 0;
    rdma_world_begin();
    if (kolo__heap_open(&options, &heap) != KOLO_OK) {
        fprintf(stderr, "%s\n", kolo_error_text());
        return 1;
    }
    how.checksum = true;
    failed += run();
    how = (struct rdma_rank){.heap = heap};
    failed += run();
    how.both = true;
    failed += run();
    kolo__heap_close(heap);
    return failed;
}
