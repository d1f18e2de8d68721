/* SPDX-License-Identifier: Apache-2.0 */
/* The rdma transport keeps the contract over verbs that are no device's (fake_verbs.h): plain and
 * with checksums, with small messages inline and without, with messages that cards reach, by one
 * rail and several. Over real verbs: tests/rdma. */
#include "conformance.h"
#include "fake_rdma.h"
#include "fake_verbs.h"

#include <stddef.h>
#include <stdio.h>

static int run(uint32_t inline_bytes)
{
    const struct kolo__conformance_fixture rdma = {.name = "rdma",
                                                   .create = fake_rdma_create,
                                                   .threads = true,
                                                   .heap = fake_rdma_how.heap,
                                                   .mixed = true};
    fake_verbs_set_inline(inline_bytes);
    return kolo__conformance_run(&rdma);
}

int main(void)
{
    int failed = 0;
    const struct kolo__heap_options options = {.name = "", .token = "", .members = 1};
    struct kolo__heap *heap;
    if (kolo__heap_open(&options, &heap) != KOLO_OK) {
        fprintf(stderr, "%s\n", kolo_error_text());
        return 1;
    }
    failed += run(256);
    fake_rdma_how.checksum = true;
    failed += run(0);
    fake_rdma_how = (struct fake_rdma_options){.heap = heap};
    failed += run(0);
    fake_rdma_how.ports = 3;
    fake_rdma_how.uneven = true;
    failed += run(256);
    fake_rdma_how = (struct fake_rdma_options){.heap = heap, .ports = 1, .connections = 3};
    failed += run(256);
    kolo__heap_close(heap);
    return failed;
}
