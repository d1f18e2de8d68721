/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections of the rendezvous server: bytes in and out, proof of the token, strangers kept small.
 * A stranger costs its descriptor and what TLS takes to hear its first message; no shared secret is
 * computed for who does not know the token (base/secure.h), so handshakes are not rationed.
 */
#include "runtime/rendezvous_world.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/socket.h"
#include "base/status.h"
#include "base/token.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
    STRANGERS_MAX = 256,   /* connections that have not proved anything yet */
    STRANGER_SECONDS = 10, /* and how long they may take */
    OWN_SECONDS = 120,     /* and those that have, to look for their network cards and join */
    CROWD_SECONDS = 1,     /* when there are that many */
    ACCEPT_PAUSE_MS = 100, /* when there are too many, or no descriptors are left */
};

static const uint64_t MILLISECOND = 1000000;

/* ---- sending ------------------------------------------------------------------------------- */

static void watch(struct kolo__connection *connection, bool want_write)
{
    if (connection->watches_writes == want_write)
        return;
    connection->watches_writes = want_write;
    struct epoll_event event = {.events = EPOLLIN | (want_write ? EPOLLOUT : 0u),
                                .data.ptr = connection};
    epoll_ctl(connection->server->epoll_fd, EPOLL_CTL_MOD, connection->fd, &event);
}

/* Sends from *sent to end, as far as there is room. True when all is gone. */
static bool send_some(struct kolo__connection *connection, const unsigned char *data, size_t end,
                      size_t *sent)
{
    while (*sent < end) {
        size_t moved;
        kolo_status status =
            kolo__secure_write(connection->secure, data + *sent, end - *sent, &moved);
        *sent += moved;
        if (status != KOLO_OK) {
            connection->closing |= status != KOLO_AGAIN;
            return false;
        }
    }
    return true;
}

/* Own bytes up to where the shared frame stands, that frame, and the rest. */
static bool send_all(struct kolo__connection *connection)
{
    struct kolo__frame_writer *out = &connection->out;
    struct kolo__shared_frame *shared = connection->shared;
    if (shared != NULL) {
        if (!send_some(connection, out->data, connection->shared_at, &connection->out_sent) ||
            !send_some(connection, shared->bytes.data, shared->bytes.bytes,
                       &connection->shared_sent))
            return false;
        connection->shared = NULL;
        kolo__shared_frame_release(shared);
    }
    return send_some(connection, out->data, out->bytes, &connection->out_sent);
}

void kolo__connection_flush(struct kolo__connection *connection)
{
    struct kolo__frame_writer *out = &connection->out;
    bool done = send_all(connection);
    if (done)
        connection->out_sent = out->bytes = 0;
    if (out->failed)
        connection->closing = true;
    watch(connection, !done);
}

void kolo__connection_share(struct kolo__connection *connection, struct kolo__shared_frame *frame)
{
    frame->users++;
    connection->shared = frame;
    connection->shared_at = connection->out.bytes;
    connection->shared_sent = 0;
    kolo__connection_flush(connection);
}

void kolo__shared_frame_release(struct kolo__shared_frame *frame)
{
    if (frame == NULL || --frame->users > 0)
        return;
    kolo__frame_writer_free(&frame->bytes);
    free(frame);
}

void kolo__connection_refuse(struct kolo__connection *connection, kolo_status status,
                             const char *text)
{
    kolo__refusals_log(&connection->server->refusals, "rendezvous", &connection->address, text);
    if (connection->phase >= WANT_JOIN) {
        if (status == KOLO_ERR_WORLD)
            kolo__world_obstacle(connection->server, status, text);
        kolo__frame_begin(&connection->out, KOLO__FRAME_REFUSED);
        kolo__put_u8(&connection->out, (uint8_t)status);
        kolo__put_text(&connection->out, text);
        kolo__frame_end(&connection->out);
        kolo__connection_flush(connection);
    }
    connection->closing = true;
}

/* ---- connections --------------------------------------------------------------------------- */

/* For the word about who is missing. Others than kolo may come and go: not worth one. One of
 * another job may stand for who is missing: told another KOLO_JOB, or a pod of another generation.
 */
static void note_stranger(struct kolo__connection *connection, kolo_status status)
{
    char host[80];
    bool other_job = status == KOLO_ERR_WORLD && connection->server->refused[0] == '\0';
    if (strstr(kolo_error_text(), "token") == NULL && !other_job)
        return;
    kolo__address_text(&connection->address, host, sizeof host);
    snprintf(connection->server->refused, sizeof connection->server->refused, "%.*s: %.300s",
             (int)(strrchr(host, ':') - host), host, kolo_error_text());
}

static void shake_hands(struct kolo__connection *connection)
{
    kolo_status status = kolo__secure_handshake(connection->secure);
    if (status == KOLO_OK) {
        /* A beat is then read in one system call, not two. Not before: a stranger's handshake is
         * counted. */
        kolo__secure_read_ahead(connection->secure);
        connection->phase = WANT_JOIN;
        connection->deadline_ns =
            kolo__now_ns(&kolo__real_clock) + OWN_SECONDS * 1000 * MILLISECOND;
    }
    if (status > KOLO_AGAIN) {
        note_stranger(connection, status);
        kolo__connection_refuse(connection, status, kolo_error_text());
    } else {
        watch(connection, kolo__secure_wants_write(connection->secure));
    }
}

static void consume(struct kolo__connection *connection)
{
    size_t used = 0;
    while (!connection->closing) {
        enum kolo__frame_type type;
        struct kolo__frame_reader payload;
        size_t length = kolo__frame_parse(connection->in + used, connection->in_bytes - used,
                                          KOLO__FRAME_REQUEST_MAX, &type, &payload);
        if (length == 0)
            break;
        if (length == (size_t)-1) {
            kolo__connection_refuse(connection, KOLO_ERR_NETWORK, "bytes came that are no message");
            return;
        }
        kolo__world_message(connection, type, &payload);
        used += length;
    }
    memmove(connection->in, connection->in + used, connection->in_bytes - used);
    connection->in_bytes -= used;
}

/* Bounded: at most one frame of the largest size is held, and of strangers nothing. True when
 * something came. */
static bool receive(struct kolo__connection *connection)
{
    static const size_t most = KOLO__FRAME_REQUEST_MAX + KOLO__FRAME_HEAD_BYTES;
    size_t moved;
    if (connection->phase == WANT_HANDSHAKE)
        shake_hands(connection);
    if (connection->phase == WANT_HANDSHAKE || connection->closing)
        return false;
    if (connection->in == NULL)
        connection->in = malloc(most);
    if (connection->in == NULL) {
        connection->closing = true;
        return false;
    }
    kolo_status status =
        kolo__secure_read(connection->secure, connection->in + connection->in_bytes,
                          most - connection->in_bytes, &moved);
    connection->in_bytes += moved;
    if (status == KOLO_OK)
        consume(connection);
    else if (status != KOLO_AGAIN)
        connection->closing = true;
    return status == KOLO_OK && !connection->closing;
}

void kolo__connection_drain(struct kolo__connection *connection)
{
    while (receive(connection)) {
    }
}

/* A listening socket that is ready but cannot be served would wake the embedder without end. */
static void watch_listeners(struct kolo__rendezvous *server, bool accepting)
{
    struct epoll_event event = {.events = accepting ? EPOLLIN : 0u, .data.ptr = NULL};
    for (uint32_t i = 0; i < server->listen_count; i++)
        epoll_ctl(server->epoll_fd, EPOLL_CTL_MOD, server->listen_fds[i], &event);
    server->accept_again_ns =
        accepting ? 0 : kolo__now_ns(&kolo__real_clock) + ACCEPT_PAUSE_MS * MILLISECOND;
}

static bool add_stranger(struct kolo__rendezvous *server, int fd,
                         const struct kolo__address *address)
{
    struct kolo__connection *connection = calloc(1, sizeof *connection);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    if (connection == NULL ||
        kolo__secure_create(server->credentials, KOLO__SECURE_ACCEPTOR, fd, &connection->secure) !=
            KOLO_OK ||
        epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        if (connection != NULL)
            kolo__secure_free(connection->secure);
        free(connection);
        return false;
    }
    kolo__tune_stream(fd);
    kolo__silence_tune(fd, server->silence_s);
    connection->fd = fd;
    connection->server = server;
    connection->address = *address;
    connection->deadline_ns =
        kolo__now_ns(&kolo__real_clock) + STRANGER_SECONDS * 1000 * MILLISECOND;
    connection->next = server->connections;
    server->connections = connection;
    return true;
}

/* The newest stand first. False: all came just now, and may be about to prove themselves. */
static bool drop_oldest_stranger(struct kolo__rendezvous *server, uint64_t now_ns)
{
    struct kolo__connection *oldest = NULL;
    for (struct kolo__connection *c = server->connections; c != NULL; c = c->next)
        if (c->phase == WANT_HANDSHAKE && !c->closing)
            oldest = c;
    if (oldest == NULL ||
        now_ns + (STRANGER_SECONDS - CROWD_SECONDS) * 1000 * MILLISECOND < oldest->deadline_ns)
        return false;
    kolo__connection_refuse(oldest, KOLO_ERR_NETWORK, "it proved nothing while many others waited");
    return true;
}

static void accept_all(struct kolo__rendezvous *server)
{
    uint32_t strangers = 0, listener = 0;
    for (struct kolo__connection *c = server->connections; c != NULL; c = c->next)
        strangers += c->phase != MEMBER;
    /* The world itself may come all at once; beyond it, only so many: then the one that has proved
     * nothing for longest makes room, for who knows the token needs milliseconds. */
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    for (;;) {
        if (strangers >= STRANGERS_MAX + server->size) {
            if (!drop_oldest_stranger(server, now_ns))
                break;
            strangers--;
        }
        struct kolo__address address = {.length = sizeof address.storage};
        int fd = accept4(server->listen_fds[listener], (struct sockaddr *)&address.storage,
                         &address.length, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)) {
            if (++listener == server->listen_count)
                return;
            continue;
        }
        if (fd < 0)
            break;
        if (!add_stranger(server, fd, &address)) {
            close(fd);
            break;
        }
        strangers++;
    }
    watch_listeners(server, false);
}

static void free_connection(struct kolo__connection *connection)
{
    struct kolo__rendezvous *server = connection->server;
    if (connection->phase == MEMBER) {
        kolo__world_disconnected(server, connection->rank,
                                 connection->silent || kolo__secure_timed_out(connection->secure));
    } else if (connection->phase == NEWCOMER) {
        kolo__world_newcomer_gone(connection);
    }
    kolo__secure_free(connection->secure);
    /* A process that is being started may have it for a moment longer. */
    epoll_ctl(server->epoll_fd, EPOLL_CTL_DEL, connection->fd, NULL);
    close(connection->fd);
    free(connection->in);
    free(connection->held);
    kolo__frame_writer_free(&connection->out);
    kolo__shared_frame_release(connection->shared);
    free(connection);
}

/* Whether its host is there must be found out: it does not tell by itself (rendezvous_beat.c). */
static bool needs_looks(const struct kolo__connection *connection)
{
    return connection->phase == NEWCOMER ||
           (connection->phase == MEMBER &&
            connection->server->members[connection->rank].signs.timeout_ns == 0);
}

/* Hosts of members that vanished while something is on its way to them. */
static void check_silence(struct kolo__rendezvous *server, uint64_t now_ns)
{
    if (server->silence_s == 0 ||
        now_ns < server->silence_looked_ns + kolo__silence_pause_ns(server->silence_s))
        return;
    server->silence_looked_ns = now_ns;
    for (struct kolo__connection *c = server->connections; c != NULL; c = c->next)
        if (needs_looks(c) && !c->closing &&
            kolo__silence_check(&c->silence, c->fd, server->silence_s, now_ns))
            c->silent = c->closing = true;
}

/* Removes what is closing, and strangers that took too long. */
static void sweep(struct kolo__rendezvous *server, uint64_t now_ns)
{
    struct kolo__connection **link = &server->connections;
    while (*link != NULL) {
        struct kolo__connection *connection = *link;
        if (connection->phase != MEMBER && now_ns > connection->deadline_ns && !connection->closing)
            kolo__connection_refuse(connection, KOLO_ERR_TIMEOUT,
                                    "it did not introduce itself in time");
        if (connection->closing) {
            *link = connection->next;
            free_connection(connection);
        } else {
            link = &connection->next;
        }
    }
}

static uint64_t earlier_ms(uint64_t most_ms, uint64_t due_ns, uint64_t now_ns)
{
    uint64_t left_ms = due_ns > now_ns ? (due_ns - now_ns + MILLISECOND - 1) / MILLISECOND : 0;
    return left_ms < most_ms ? left_ms : most_ms;
}

/* Milliseconds until something is due by the clock; UINT64_MAX: nothing is. */
static uint64_t next_due_ms(const struct kolo__rendezvous *server, uint64_t now_ns)
{
    uint64_t most_ms = UINT64_MAX, beats_due_ns = kolo__world_beats_due_ns(server);
    if (beats_due_ns != 0)
        most_ms = earlier_ms(most_ms, beats_due_ns, now_ns);
    if (server->waits_due_ns != 0)
        most_ms = earlier_ms(most_ms, server->waits_due_ns, now_ns);
    uint64_t pause_ms = kolo__silence_pause_ns(server->silence_s) / MILLISECOND;
    /* Somebody waits for others, or is to prove itself in time. */
    bool hurried = server->word_due_ns != 0 && !server->formed && !server->fault.set;
    for (const struct kolo__connection *c = server->connections; c != NULL; c = c->next) {
        hurried |= c->phase != MEMBER;
        if (server->silence_s > 0 && needs_looks(c) && pause_ms < most_ms)
            most_ms = pause_ms;
    }
    if (hurried && most_ms > 1000)
        most_ms = 1000;
    if (server->accept_again_ns != 0 && most_ms > ACCEPT_PAUSE_MS)
        most_ms = ACCEPT_PAUSE_MS;
    if (server->renew_by_ns != 0 && most_ms > 50)
        most_ms = 50;
    for (uint32_t r = 0; r < server->size && !server->fault.set; r++)
        if (server->members[r].lost_at_ns != 0 && most_ms > 50)
            most_ms = 50;
    return most_ms;
}

static void serve(struct kolo__connection *connection, uint32_t events)
{
    struct kolo__rendezvous *server = connection->server;
    server->eventful |= connection->phase != MEMBER || (events & ~(uint32_t)EPOLLIN) != 0;
    if ((events & EPOLLOUT) && connection->phase != WANT_HANDSHAKE)
        kolo__connection_flush(connection);
    /* What is decrypted already wakes nobody. */
    while (receive(connection) && kolo__secure_pending(connection->secure)) {
    }
    server->eventful |= connection->closing;
}

/* With a thousand members most steps bring beats and nothing else: everybody is looked at only when
 * something else came, or is due. */
void kolo__rendezvous_step(struct kolo__rendezvous *server)
{
    struct epoll_event events[64];
    int count = epoll_wait(server->epoll_fd, events, 64, 0);
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr != NULL) {
            serve(events[i].data.ptr, events[i].events);
            continue;
        }
        server->eventful = true;
        accept_all(server);
    }
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    if (!server->eventful && now_ns < server->due_ns)
        return;
    check_silence(server, now_ns);
    kolo__world_judge_beats(server, now_ns);
    kolo__world_judge_waits(server, now_ns);
    sweep(server, now_ns);
    if (server->accept_again_ns != 0 && now_ns >= server->accept_again_ns)
        watch_listeners(server, true);
    kolo__world_judge_held(server, now_ns);
    kolo__world_judge_losses(server, now_ns);
    kolo__world_judge_epoch(server, now_ns);
    kolo__world_tell_absent(server, now_ns);
    uint64_t due_ms = next_due_ms(server, now_ns);
    server->due_ns = due_ms == UINT64_MAX ? UINT64_MAX : now_ns + due_ms * MILLISECOND;
    server->eventful = false;
}

int kolo__rendezvous_timeout_ms(const struct kolo__rendezvous *server)
{
    if (server->eventful)
        return 0;
    if (server->due_ns == UINT64_MAX)
        return -1;
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    return server->due_ns > now_ns
               ? (int)((server->due_ns - now_ns + MILLISECOND - 1) / MILLISECOND)
               : 0;
}

int kolo__rendezvous_fd(const struct kolo__rendezvous *server)
{
    return server->epoll_fd;
}

const char *kolo__rendezvous_address(const struct kolo__rendezvous *server)
{
    return server->address;
}

/* One port for all addresses, so that a firewall needs one hole; where another program has it on
 * one of them, that one gets another. */
static kolo_status listen_at(struct kolo__rendezvous *server,
                             const struct kolo__rendezvous_options *options, const char *host,
                             int *port)
{
    struct kolo__address bound;
    char text[80], number[24], unused[256];
    int *fd = &server->listen_fds[server->listen_count];
    bool chosen = server->listen_count > 0 && *port != 0;
    kolo_status status = kolo__listen(host, *port, fd, &bound);
    if (status != KOLO_OK && chosen)
        status = kolo__listen(host, 0, fd, &bound);
    if (status != KOLO_OK && options->failure != NULL)
        *options->failure = errno;
    if (status != KOLO_OK)
        return status;
    status = kolo__token_permits(options->token, options->insecure, &bound);
    if (status != KOLO_OK) {
        close(*fd);
        return status;
    }
    kolo__address_text(&bound, text, sizeof text);
    size_t used = strlen(server->address);
    snprintf(server->address + used, sizeof server->address - used, "%s%s", used > 0 ? "," : "",
             text);
    kolo__split_host_port(text, unused, sizeof unused, number, sizeof number);
    if (server->listen_count++ == 0)
        *port = (int)strtol(number, NULL, 10);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, *fd, &event) != 0)
        return kolo__error_errno(errno, "cannot watch the rendezvous socket");
    return KOLO_OK;
}

static kolo_status listen_everywhere(struct kolo__rendezvous *server,
                                     const struct kolo__rendezvous_options *options)
{
    int port = options->port;
    for (const char *next = options->host; next != NULL;) {
        char host[256];
        size_t length = strcspn(next, ",");
        if (server->listen_count == KOLO__LOCAL_ADDRESSES_MAX || length >= sizeof host)
            return kolo__error(KOLO_ERR_INVALID, "a rendezvous listens on at most %d addresses",
                               KOLO__LOCAL_ADDRESSES_MAX);
        snprintf(host, sizeof host, "%.*s", (int)length, next);
        kolo_status status = listen_at(server, options, host, &port);
        if (status != KOLO_OK)
            return status;
        next = next[length] == ',' ? next + length + 1 : NULL;
    }
    return KOLO_OK;
}

kolo_status kolo__rendezvous_create(const struct kolo__rendezvous_options *options,
                                    struct kolo__rendezvous **result)
{
    kolo_status status = KOLO_ERR_MEMORY;
    struct kolo__rendezvous *server = calloc(1, sizeof *server);
    if (server == NULL)
        goto out_of_memory;
    server->size = server->first_size = server->next_id = options->world_size;
    server->min_ranks = options->min_ranks;
    server->silence_s = options->silence_s;
    server->members_restart = options->members_restart;
    server->where = options->where;
    server->where_self = options->where_self;
    server->members = calloc(options->world_size, sizeof *server->members);
    snprintf(server->job, sizeof server->job, "%s", options->job);
    server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (server->members == NULL)
        goto out_of_memory;
    for (uint32_t r = 0; r < server->size; r++)
        server->members[r].id = server->members[r].place = r;
    status = kolo__credentials_create(KOLO__PURPOSE_CONTROL, options->job, options->token,
                                      &server->credentials);
    if (status == KOLO_OK && server->epoll_fd < 0)
        status = kolo__error_errno(errno, "cannot watch the rendezvous socket");
    if (status == KOLO_OK)
        status = listen_everywhere(server, options);
    if (status != KOLO_OK)
        goto fail;
    *result = server;
    return KOLO_OK;

out_of_memory:
    status = kolo__error(KOLO_ERR_MEMORY, "no memory for the rendezvous of %u ranks",
                         options->world_size);
fail:
    kolo__rendezvous_free(server);
    return status;
}

void kolo__rendezvous_free(struct kolo__rendezvous *server)
{
    if (server == NULL)
        return;
    while (server->connections != NULL) {
        struct kolo__connection *connection = server->connections;
        server->connections = connection->next;
        free_connection(connection);
    }
    kolo__world_forget_joins(server);
    kolo__world_end_epochs(server);
    for (uint32_t r = 0; server->members != NULL && r < server->size; r++) {
        free(server->members[r].blob);
        kolo__member_forget_reports(&server->members[r]);
    }
    for (uint32_t i = 0; i < server->listen_count; i++)
        close(server->listen_fds[i]);
    if (server->epoll_fd >= 0)
        close(server->epoll_fd);
    free(server->members);
    kolo__credentials_free(server->credentials);
    free(server);
}
