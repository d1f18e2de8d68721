/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets keep the contract, plain, with checksums and encrypted, one and several between two
 * ranks. */
#include "conformance.h"
#include "tcp_ends.h"

#include <stddef.h>

static bool encrypt, checksum;
static uint32_t streams = 1;

static kolo_status create(uint32_t size, uint64_t seed, struct kolo__transport **transports,
                          void **world)
{
    (void)seed;
    int listeners[KOLO__CONFORMANCE_SIZE_MAX];
    struct kolo__endpoint endpoints[KOLO__CONFORMANCE_SIZE_MAX];
    kolo_status status = tcp_ends_listen(size, listeners, endpoints);
    for (uint32_t r = 0; r < size && status == KOLO_OK; r++) {
        struct kolo__tcp_options options = tcp_ends_options(r, size, listeners[r], endpoints);
        options.encrypt = encrypt;
        options.checksum = checksum;
        options.streams = streams;
        status = kolo__tcp_create(&options, &transports[r]);
    }
    *world = NULL;
    return status;
}

int main(void)
{
    static const struct kolo__conformance_fixture tcp = {
        .name = "tcp", .create = create, .threads = true};
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
