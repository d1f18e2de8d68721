/* SPDX-License-Identifier: Apache-2.0 */
#include "base/resolve.h"

#include "base/clock.h"
#include "base/status.h"
#include "base/thread.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const uint64_t SECOND = 1000000000;

struct lookup {
    pthread_mutex_t lock;
    pthread_cond_t done;
    int users; /* whoever asks, and the thread: the last one frees it */
    bool finished;
    int failure, reason; /* as getaddrinfo gives them, and errno */
    struct kolo__resolved found;
    char host[256], port[24];
};

static void ask(const char *host, const char *port, int flags, struct lookup *lookup)
{
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags};
    struct addrinfo *list;
    lookup->found.count = 0;
    lookup->failure = getaddrinfo(host, port, &hints, &list);
    lookup->reason = errno;
    if (lookup->failure != 0)
        return;
    for (const struct addrinfo *entry = list;
         entry != NULL && lookup->found.count < KOLO__RESOLVED_MAX; entry = entry->ai_next) {
        struct kolo__address *address = &lookup->found.list[lookup->found.count++];
        address->length = entry->ai_addrlen;
        memcpy(&address->storage, entry->ai_addr, entry->ai_addrlen);
    }
    freeaddrinfo(list);
}

static void let_go(struct lookup *lookup)
{
    pthread_mutex_lock(&lookup->lock);
    bool last = --lookup->users == 0;
    pthread_mutex_unlock(&lookup->lock);
    if (!last)
        return;
    pthread_cond_destroy(&lookup->done);
    pthread_mutex_destroy(&lookup->lock);
    free(lookup);
}

static void *run(void *self)
{
    struct lookup *lookup = self, answer;
    ask(lookup->host, lookup->port, 0, &answer);
    pthread_mutex_lock(&lookup->lock);
    lookup->failure = answer.failure;
    lookup->reason = answer.reason;
    lookup->found = answer.found;
    lookup->finished = true;
    pthread_cond_signal(&lookup->done);
    pthread_mutex_unlock(&lookup->lock);
    let_go(lookup);
    return NULL;
}

static struct lookup *begin(const char *host, const char *port)
{
    struct lookup *lookup = calloc(1, sizeof *lookup);
    pthread_attr_t attributes;
    pthread_t thread;
    if (lookup == NULL)
        return NULL;
    lookup->users = 2;
    pthread_mutex_init(&lookup->lock, NULL);
    pthread_cond_init(&lookup->done, NULL);
    snprintf(lookup->host, sizeof lookup->host, "%s", host);
    snprintf(lookup->port, sizeof lookup->port, "%s", port);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    int failure = kolo__thread_start(&thread, &attributes, run, lookup);
    pthread_attr_destroy(&attributes);
    if (failure == 0)
        return lookup;
    lookup->users = 1;
    let_go(lookup);
    return NULL;
}

/* False when the deadline comes first. */
static bool await(struct lookup *lookup, uint64_t deadline_ns, struct lookup *answer)
{
    int failure = 0;
    struct timespec until = {.tv_sec = (time_t)(deadline_ns / SECOND),
                             .tv_nsec = (long)(deadline_ns % SECOND)};
    pthread_mutex_lock(&lookup->lock);
    while (!lookup->finished && failure == 0)
        failure = pthread_cond_clockwait(&lookup->done, &lookup->lock, CLOCK_MONOTONIC, &until);
    bool finished = lookup->finished;
    if (finished) {
        answer->failure = lookup->failure;
        answer->reason = lookup->reason;
        answer->found = lookup->found;
    }
    pthread_mutex_unlock(&lookup->lock);
    return finished;
}

kolo_status kolo__resolve(const char *host, const char *port, uint64_t deadline_ns,
                          struct kolo__resolved *resolved)
{
    struct lookup answer;
    ask(host, port, AI_NUMERICHOST, &answer);
    if (answer.failure != 0) {
        struct lookup *lookup = begin(host, port);
        if (lookup == NULL) {
            ask(host, port, 0, &answer); /* without a thread it may be late */
        } else {
            bool finished = await(lookup, deadline_ns, &answer);
            let_go(lookup);
            if (!finished)
                return kolo__error(KOLO_ERR_TIMEOUT,
                                   "cannot resolve '%.100s': no DNS server has answered yet", host);
        }
    }
    if (answer.failure != 0)
        return kolo__error(KOLO_ERR_NETWORK, "cannot resolve '%.100s': %s", host,
                           answer.failure == EAI_SYSTEM ? strerror(answer.reason)
                                                        : gai_strerror(answer.failure));
    *resolved = answer.found;
    return KOLO_OK;
}
