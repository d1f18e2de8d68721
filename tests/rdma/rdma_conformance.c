/* SPDX-License-Identifier: Apache-2.0 */
/* RDMA keeps the contract, plain and with checksums; ranks take the two devices in turn. Run in the
 * virtual machine by conformance_slow_test.sh. */
#include "conformance.h"

#include "base/socket.h"
#include "collectives/transport/rdma.h"
#include "collectives/transport/rdma_load.h"
#include "collectives/transport/tcp.h"

#include <stdio.h>
#include <string.h>

static const struct kolo__rdma_module *module;
static struct kolo__rdma_survey survey;
static bool checksum;

static kolo_status create_rdma(struct kolo__transport *tcp, uint32_t rank,
                               struct kolo__transport **transport)
{
    struct kolo__rdma_choice choice;
    struct kolo__rdma_options options;
    char *none[] = {NULL};
    kolo_status status = kolo__rdma_options_read(none, &options);
    options.devices = rank % 2 == 0 ? "=rxe0" : "=rxe1";
    options.timeout = 14; /* an emulated machine loses nothing for long */
    if (status == KOLO_OK)
        status = kolo__rdma_choose(&survey, &options, NULL, &choice);
    if (status != KOLO_OK) {
        tcp->ops->close(tcp);
        return status;
    }
    const struct kolo__rdma_setup setup = {
        .module = module,
        .options = options,
        .choice = &choice,
        .tcp = tcp,
        .epoch = 1,
        .comm = 7,
        .checksum = checksum,
        .patience_ns = 10 * (uint64_t)1000000000,
    };
    return kolo__rdma_create(&setup, transport);
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
    for (uint32_t r = 0; r < size && status == KOLO_OK; r++) {
        const struct kolo__tcp_options options = {
            .rank = r,
            .size = size,
            .epoch = 1,
            .comm = 7,
            .job = "conformance",
            .token = "secret",
            .listen_fd = listeners[r],
            .endpoints = endpoints,
            .streams = 1,
            .connect_timeout_ns = 20 * (uint64_t)1000000000,
        };
        struct kolo__transport *tcp;
        status = kolo__tcp_create(&options, &tcp);
        if (status == KOLO_OK)
            status = create_rdma(tcp, r, &transports[r]);
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
    static const struct kolo__conformance_fixture rdma = {
        .name = "rdma", .create = create, .step = step, .destroy = destroy, .threads = true};
    char why[200] = "";
    int failed = 0;
    if (kolo__rdma_load(&module) != KOLO_OK || !module->survey(&survey, why, sizeof why)) {
        fprintf(stderr, "no RDMA: %s%s\n", kolo_error_text(), why);
        return 1;
    }
    for (int with = 0; with < 2; with++) {
        checksum = with == 1;
        failed += kolo__conformance_run(&rdma);
    }
    return failed;
}
