/* SPDX-License-Identifier: Apache-2.0 */
#include "tcp_ends.h"

#include "base/socket.h"

kolo_status tcp_ends_listen(uint32_t size, int *listeners, struct kolo__endpoint *endpoints)
{
    kolo_status status = KOLO_OK;
    for (uint32_t r = 0; r < size && status == KOLO_OK; r++) {
        endpoints[r] = (struct kolo__endpoint){.count = 1};
        status = kolo__listen("127.0.0.1", 0, &listeners[r], &endpoints[r].addresses[0]);
    }
    return status;
}

struct kolo__tcp_options tcp_ends_options(uint32_t rank, uint32_t size, int listen_fd,
                                          const struct kolo__endpoint *endpoints)
{
    return (struct kolo__tcp_options){.rank = rank,
                                      .size = size,
                                      .epoch = 1,
                                      .comm = 7,
                                      .job = "conformance",
                                      .token = "secret",
                                      .listen_fd = listen_fd,
                                      .endpoints = endpoints,
                                      .streams = 1,
                                      .connect_timeout_ns = 20 * (uint64_t)1000000000};
}
