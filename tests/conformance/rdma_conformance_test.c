/* SPDX-License-Identifier: Apache-2.0 */
/* The rdma transport keeps the contract over verbs that are no device's (fake_verbs.h), plain and
 * with checksums, with small messages inline and without. Over real verbs: tests/rdma. */
#include "conformance.h"
#include "fake_rdma.h"
#include "fake_verbs.h"

#include <stddef.h>

static bool checksum;

static kolo_status create(uint32_t size, uint64_t seed, struct kolo__transport **transports,
                          void **world)
{
    (void)seed;
    *world = NULL;
    return fake_rdma_create(size, checksum, transports);
}

int main(void)
{
    static const struct kolo__conformance_fixture rdma = {
        .name = "rdma", .create = create, .threads = true};
    int failed = 0;
    for (int kind = 0; kind < 4; kind++) {
        checksum = kind % 2 == 1;
        fake_verbs_set_inline(kind < 2 ? 256 : 0);
        failed += kolo__conformance_run(&rdma);
    }
    return failed;
}
