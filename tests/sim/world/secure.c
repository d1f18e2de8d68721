/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base/secure.h and base/dial.h over simulated streams, in place of their own files. The handshake
 * is one message each way; there is no key, and nobody who does not know it.
 */
#include "world.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/dial.h"
#include "base/secure.h"
#include "base/socket.h"
#include "base/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct kolo__credentials {
    int unused;
};

struct kolo__secure {
    int fd;
    enum kolo__secure_side side;
    bool said, done, wants_write;
    size_t heard;
};

static const char HELLO[16] = "kolo simulation";

kolo_status kolo__credentials_create(enum kolo__purpose purpose, const char *job, const char *token,
                                     struct kolo__credentials **credentials)
{
    (void)purpose;
    (void)job;
    (void)token;
    *credentials = calloc(1, sizeof **credentials);
    return *credentials != NULL ? KOLO_OK : kolo__error(KOLO_ERR_MEMORY, "no memory");
}

void kolo__credentials_free(struct kolo__credentials *credentials)
{
    free(credentials);
}

kolo_status kolo__secure_create(const struct kolo__credentials *credentials,
                                enum kolo__secure_side side, int fd, struct kolo__secure **result)
{
    (void)credentials;
    struct kolo__secure *secure = calloc(1, sizeof *secure);
    if (secure == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory");
    secure->fd = fd;
    secure->side = side;
    *result = secure;
    return KOLO_OK;
}

void kolo__secure_free(struct kolo__secure *secure)
{
    free(secure);
}

static kolo_status ended(void)
{
    return kolo__error(KOLO_ERR_PEER_LOST, "the other side closed the connection");
}

static kolo_status say_hello(struct kolo__secure *secure)
{
    if (net_write(stream_of_file(secure->fd), HELLO, sizeof HELLO) < 0)
        return ended();
    secure->said = true;
    return KOLO_OK;
}

kolo_status kolo__secure_handshake(struct kolo__secure *secure)
{
    char heard[sizeof HELLO];
    if (secure->side == KOLO__SECURE_INITIATOR && !secure->said && say_hello(secure) != KOLO_OK)
        return KOLO_ERR_PEER_LOST;
    while (secure->heard < sizeof HELLO) {
        long got = net_read(stream_of_file(secure->fd), heard, sizeof HELLO - secure->heard);
        if (got <= 0)
            return got < 0 ? ended() : KOLO_AGAIN;
        secure->heard += (size_t)got;
    }
    if (!secure->said && say_hello(secure) != KOLO_OK)
        return KOLO_ERR_PEER_LOST;
    secure->done = true;
    return KOLO_OK;
}

bool kolo__secure_wants_write(const struct kolo__secure *secure)
{
    return secure->wants_write;
}

int kolo__secure_fd(const struct kolo__secure *secure)
{
    return secure->fd;
}

kolo_status kolo__secure_read(struct kolo__secure *secure, void *data, size_t bytes, size_t *moved)
{
    KOLO__ASSERT(secure->done && bytes > 0);
    *moved = 0;
    long got = net_read(stream_of_file(secure->fd), data, bytes);
    secure->wants_write = false;
    if (got < 0)
        return ended();
    *moved = (size_t)got;
    return got > 0 ? KOLO_OK : KOLO_AGAIN;
}

kolo_status kolo__secure_write(struct kolo__secure *secure, const void *data, size_t bytes,
                               size_t *moved)
{
    KOLO__ASSERT(secure->done && bytes > 0);
    *moved = 0;
    long sent = net_write(stream_of_file(secure->fd), data, bytes);
    secure->wants_write = sent == 0;
    if (sent < 0)
        return ended();
    *moved = (size_t)sent;
    return sent > 0 ? KOLO_OK : KOLO_AGAIN;
}

bool kolo__secure_pending(const struct kolo__secure *secure)
{
    (void)secure;
    return false;
}

bool kolo__secure_timed_out(const struct kolo__secure *secure)
{
    return net_timed_out(stream_of_file(secure->fd));
}

void kolo__secure_read_ahead(struct kolo__secure *secure)
{
    (void)secure;
}

/* For connections that carry data, of which there are none here. */

void kolo__secure_renew_key(struct kolo__secure *secure)
{
    (void)secure;
}

bool kolo__secure_leave(const struct kolo__secure *secure)
{
    (void)secure;
    return false;
}

/* ---- dialling --------------------------------------------------------------------------------
 */

struct kolo__dial {
    bool tried;
    char why[200];
};

kolo_status kolo__dial_open(const char *addresses, struct kolo__dial **dial)
{
    (void)addresses; /* there is one place: the launcher's */
    *dial = calloc(1, sizeof **dial);
    return *dial != NULL ? KOLO_OK : kolo__error(KOLO_ERR_MEMORY, "no memory");
}

/* SYN and back, if anything gets there and back. */
static kolo_status reach(struct process *own, struct process *launcher, uint64_t deadline_ns)
{
    while (net_is_cut(own, launcher) || net_is_cut(launcher, own)) {
        if (kolo__now_ns(&kolo__real_clock) >= deadline_ns)
            return KOLO_ERR_TIMEOUT;
        fiber_wait(world->now_ns + 200 * MS);
    }
    uint64_t back_ns = world->now_ns + net_delay(own, launcher) + net_delay(launcher, own);
    while (world->now_ns < back_ns)
        fiber_wait(back_ns);
    return KOLO_OK;
}

kolo_status kolo__dial_next(struct kolo__dial *dial, uint64_t deadline_ns, int *fd)
{
    struct process *own = world->current, *launcher = &world->processes[0];
    struct stream *ends[2];
    if (dial->tried)
        return kolo__error(KOLO_ERR_NETWORK, "%s", dial->why);
    dial->tried = true;
    kolo_status status = reach(own, launcher, deadline_ns);
    if (status != KOLO_OK)
        return kolo__error(status, "the launcher does not answer");
    if (!file_is_listening(launcher)) {
        snprintf(dial->why, sizeof dial->why, "Connection refused");
        return kolo__error(KOLO_ERR_NETWORK, "%s", dial->why);
    }
    net_connect(own, launcher, ends);
    *fd = file_of_stream(own, ends[0]);
    file_incoming(launcher, ends[1]);
    return KOLO_OK;
}

void kolo__dial_refuse(struct kolo__dial *dial, const char *why, bool again)
{
    (void)again;
    snprintf(dial->why, sizeof dial->why, "%s", why);
}

bool kolo__dial_all_refused(const struct kolo__dial *dial)
{
    (void)dial;
    return false;
}

const char *kolo__dial_report(const struct kolo__dial *dial, char *text, size_t bytes)
{
    snprintf(text, bytes, "%s", dial->why);
    return text;
}

void kolo__dial_close(struct kolo__dial *dial)
{
    free(dial);
}

kolo_status __wrap_kolo__listen(const char *host, int port, int *fd, struct kolo__address *bound);

kolo_status __wrap_kolo__listen(const char *host, int port, int *fd, struct kolo__address *bound)
{
    (void)host;
    (void)port;
    *fd = file_listener(world->current);
    bound->length = sizeof bound->storage;
    getsockname(*fd, (struct sockaddr *)&bound->storage, &bound->length);
    return KOLO_OK;
}
