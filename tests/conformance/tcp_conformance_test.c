/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets keep the contract, plain, with checksums and encrypted, one and several between two
 * ranks. */
#include "conformance.h"

#include "collectives/transport/tcp.h"

#include <stddef.h>

static bool encrypt, checksum;
static uint32_t streams = 1;

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
    for (uint32_t r = 0; r < size && status == KOLO_OK; r++) {
        const struct kolo__tcp_options options = {
            .rank = r,
            .size = size,
            .epoch = 1,
            .comm = 7,
            .job = "conformance",
            .token = "secret",
            .encrypt = encrypt,
            .checksum = checksum,
            .listen_fd = listeners[r],
            .endpoints = endpoints,
            .streams = streams,
            .connect_timeout_ns = 20 * (uint64_t)1000000000,
        };
        status = kolo__tcp_create(&options, &transports[r]);
    }
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
    static const struct kolo__conformance_fixture tcp = {
        .name = "tcp", .create = create, .step = step, .destroy = destroy, .threads = true};
    enum { PLAIN, CHECKSUMS, ENCRYPTED, KINDS };
    int failed = 0;
    for (; streams <= 3; streams += 2)
        for (int kind = PLAIN; kind < KINDS; kind++) {
            encrypt = kind == ENCRYPTED;
            checksum = kind == CHECKSUMS;
            failed += kolo__conformance_run(&tcp);
        }
    return failed;
}
