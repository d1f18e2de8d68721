/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/launch/server.h"

#include "base/clock.h"
#include "base/status.h"
#include "base/thread.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { LOOK_AGAIN_MS = 50 };

struct kolo__server {
    struct kolo__rendezvous *rendezvous; /* the thread's, from start to end */
    pthread_t thread;
    int wake_fd;
    atomic_ullong end_by_ns; /* 0: not asked to end */
};

static void *serve(void *self)
{
    struct kolo__server *server = self;
    for (;;) {
        uint64_t end_by_ns = atomic_load(&server->end_by_ns);
        int timeout = kolo__rendezvous_timeout_ms(server->rendezvous);
        if (end_by_ns != 0 && (kolo__rendezvous_is_over(server->rendezvous) ||
                               kolo__now_ns(&kolo__real_clock) >= end_by_ns))
            return NULL;
        if (end_by_ns != 0 && (timeout < 0 || timeout > LOOK_AGAIN_MS))
            timeout = LOOK_AGAIN_MS;
        struct pollfd ready[] = {
            {.fd = kolo__rendezvous_fd(server->rendezvous), .events = POLLIN},
            /* Readable from then on: it wakes this thread once. */
            {.fd = end_by_ns != 0 ? -1 : server->wake_fd, .events = POLLIN},
        };
        poll(ready, 2, timeout);
        kolo__rendezvous_step(server->rendezvous);
    }
}

kolo_status kolo__server_start(struct kolo__rendezvous *rendezvous, struct kolo__server **result)
{
    kolo_status status;
    struct kolo__server *server = calloc(1, sizeof *server);
    if (server == NULL) {
        status = kolo__error(KOLO_ERR_MEMORY, "no memory for the rendezvous");
        goto free_rendezvous;
    }
    server->rendezvous = rendezvous;
    server->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (server->wake_fd < 0) {
        status = kolo__error_errno(errno, "cannot make an eventfd");
        goto free_server;
    }
    int failure = kolo__thread_start(&server->thread, NULL, serve, server);
    if (failure != 0) {
        status = kolo__error_errno(failure, "cannot start the rendezvous' thread");
        goto close_wake;
    }
    *result = server;
    return KOLO_OK;

close_wake:
    close(server->wake_fd);
free_server:
    free(server);
free_rendezvous:
    kolo__rendezvous_free(rendezvous);
    return status;
}

const char *kolo__server_address(const struct kolo__server *server)
{
    return kolo__rendezvous_address(server->rendezvous);
}

void kolo__server_end(struct kolo__server *server, uint64_t deadline_ns)
{
    if (server == NULL)
        return;
    uint64_t one = 1;
    atomic_store(&server->end_by_ns, deadline_ns);
    ssize_t written = write(server->wake_fd, &one, sizeof one);
    (void)written; /* a counter of 1 is never full */
    pthread_join(server->thread, NULL);
    kolo__rendezvous_free(server->rendezvous);
    close(server->wake_fd);
    free(server);
}
