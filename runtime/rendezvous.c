/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/rendezvous.h"

#include "base/auth.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/socket.h"
#include "base/status.h"
#include "runtime/frame.h"
#include "runtime/verdict.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
    STRANGERS_MAX = 64,    /* connections that have not proved anything yet */
    STRANGER_SECONDS = 10, /* and how long they may take */
    LOSS_GRACE_MS = 300,   /* a closed connection waits this long for a better reason */
};

static const uint64_t MILLISECOND = 1000000;

enum phase { WANT_HELLO, WANT_PROOF, WANT_JOIN, MEMBER };

struct connection {
    struct connection *next;
    struct kolo__rendezvous *server;
    int fd;
    enum phase phase;
    bool closing;         /* freed at the end of the step, once everything is sent or cannot be */
    uint64_t deadline_ns; /* of strangers */
    struct kolo__auth auth;
    unsigned char *in;
    size_t in_bytes, in_capacity;
    struct kolo__frame_writer out;
    size_t out_sent;
    uint32_t rank; /* of members */
};

struct member {
    struct connection *connection; /* NULL: not joined, or gone */
    bool joined, left, ended;
    uint64_t
        lost_at_ns; /* 0, or when the loss of this rank is spread unless a better reason comes */
    char lost_why[480];
    int blamed_by; /* who noticed, -1: the server itself */
    uint32_t pid;
    char host[64];
    unsigned char *blob; /* from JOIN, then of the exchange under way */
    size_t blob_bytes;
    bool exchanging;
    uint32_t exchange_tag;
    struct kolo__verdict_report report;
};

struct kolo__rendezvous {
    int listen_fd, epoll_fd;
    char address[80], job[128], *token;
    uint32_t size, joined;
    bool formed;
    struct member *members;
    struct connection *connections;
    struct {
        bool set;
        kolo_status status;
        int rank;
        char text[640];
    } fault;
};

/* ---- sending ------------------------------------------------------------------------------- */

static void watch(struct connection *connection, bool want_write)
{
    struct epoll_event event = {.events = EPOLLIN | (want_write ? EPOLLOUT : 0u),
                                .data.ptr = connection};
    epoll_ctl(connection->server->epoll_fd, EPOLL_CTL_MOD, connection->fd, &event);
}

static void flush(struct connection *connection)
{
    struct kolo__frame_writer *out = &connection->out;
    while (connection->out_sent < out->bytes) {
        ssize_t sent = send(connection->fd, out->data + connection->out_sent,
                            out->bytes - connection->out_sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0) {
            if (errno != EAGAIN)
                connection->closing = true;
            break;
        }
        connection->out_sent += (size_t)sent;
    }
    if (connection->out_sent == out->bytes)
        connection->out_sent = out->bytes = 0;
    if (out->failed)
        connection->closing = true;
    watch(connection, out->bytes > 0);
}

static void refuse(struct connection *connection, kolo_status status, const char *text)
{
    kolo__log(KOLO__LOG_WARN, "rendezvous: refused a connection: %s", text);
    if (connection->phase >= WANT_JOIN) {
        kolo__frame_begin(&connection->out, KOLO__FRAME_REFUSED);
        kolo__put_u8(&connection->out, (uint8_t)status);
        kolo__put_text(&connection->out, text);
        kolo__frame_end(&connection->out);
        flush(connection);
    }
    connection->closing = true;
}

static void send_fault(struct kolo__rendezvous *server, struct connection *to, uint32_t comm,
                       kolo_status status, int rank, const char *text)
{
    (void)server;
    kolo__frame_begin(&to->out, KOLO__FRAME_FAULT);
    kolo__put_u32(&to->out, comm);
    kolo__put_u8(&to->out, (uint8_t)status);
    kolo__put_u32(&to->out, (uint32_t)rank);
    kolo__put_text(&to->out, text);
    kolo__frame_end(&to->out);
    flush(to);
}

/* Tells every member. comm 0: the whole world; only the first such fault counts. */
static void spread(struct kolo__rendezvous *server, uint32_t comm, kolo_status status, int rank,
                   const char *text)
{
    if (server->fault.set)
        return;
    server->fault.set = comm == 0;
    if (comm == 0) {
        server->fault.status = status;
        server->fault.rank = rank;
        snprintf(server->fault.text, sizeof server->fault.text, "%s", text);
    }
    for (uint32_t r = 0; r < server->size; r++)
        if (server->members[r].connection != NULL)
            send_fault(server, server->members[r].connection, comm, status, rank, text);
}

/* ---- losses -------------------------------------------------------------------------------- */

static bool somebody_needs(const struct kolo__rendezvous *server, uint32_t rank)
{
    for (uint32_t r = 0; r < server->size; r++)
        if (r != rank && server->members[r].connection != NULL && !server->members[r].left)
            return true;
    return false;
}

static void suspect(struct kolo__rendezvous *server, uint32_t rank, int blamed_by, const char *why)
{
    struct member *member = &server->members[rank];
    if (member->left || member->lost_at_ns != 0 || server->fault.set)
        return;
    member->lost_at_ns = kolo__now_ns(&kolo__real_clock) + LOSS_GRACE_MS * MILLISECOND;
    member->blamed_by = blamed_by;
    snprintf(member->lost_why, sizeof member->lost_why, "%s", why);
}

static void declare_lost(struct kolo__rendezvous *server, uint32_t rank, const char *why)
{
    struct member *member = &server->members[rank];
    char text[640];
    if (member->joined)
        snprintf(text, sizeof text, "rank %u (host %s, pid %u) %s", rank, member->host, member->pid,
                 why);
    else
        snprintf(text, sizeof text, "rank %u %s before it joined (kolo_init)", rank, why);
    spread(server, 0, KOLO_ERR_PEER_LOST, (int)rank, text);
}

void kolo__rendezvous_rank_ended(struct kolo__rendezvous *server, uint32_t rank, bool clean,
                                 const char *why)
{
    struct member *member = &server->members[rank];
    char text[480];
    member->ended = true;
    if (member->left)
        return;
    snprintf(text, sizeof text, "%s%s", why,
             clean && member->joined ? " without kolo_finalize" : "");
    if (somebody_needs(server, rank))
        declare_lost(server, rank, text);
    else
        suspect(server, rank, -1, text); /* others may be on their way */
}

const char *kolo__rendezvous_fault(const struct kolo__rendezvous *server, kolo_status *status,
                                   int *rank)
{
    if (!server->fault.set)
        return NULL;
    *status = server->fault.status;
    *rank = server->fault.rank;
    return server->fault.text;
}

/* Spreads the losses whose grace is over. */
static void judge_losses(struct kolo__rendezvous *server, uint64_t now_ns)
{
    for (uint32_t r = 0; r < server->size; r++) {
        struct member *member = &server->members[r];
        if (member->lost_at_ns == 0 || now_ns < member->lost_at_ns || !somebody_needs(server, r))
            continue;
        if (member->blamed_by >= 0 && member->connection != NULL) {
            /* Its process lives: the fault is the network's between the two. */
            spread(server, 0, KOLO_ERR_NETWORK, (int)r, member->lost_why);
        } else {
            declare_lost(server, r, member->lost_why);
        }
    }
}

/* ---- forming the world --------------------------------------------------------------------- */

static void keep_blob(struct member *member, const unsigned char *data, size_t bytes)
{
    free(member->blob);
    member->blob = malloc(bytes + 1);
    member->blob_bytes = member->blob != NULL ? bytes : 0;
    if (member->blob != NULL && bytes > 0)
        memcpy(member->blob, data, bytes);
}

static void announce_world(struct kolo__rendezvous *server)
{
    server->formed = true;
    for (uint32_t to = 0; to < server->size; to++) {
        struct connection *connection = server->members[to].connection;
        if (connection == NULL)
            continue;
        kolo__frame_begin(&connection->out, KOLO__FRAME_WORLD);
        kolo__put_u32(&connection->out, server->size);
        for (uint32_t r = 0; r < server->size; r++) {
            kolo__put_text(&connection->out, server->members[r].host);
            kolo__put_u32(&connection->out, server->members[r].pid);
            kolo__put_blob(&connection->out, server->members[r].blob,
                           server->members[r].blob_bytes);
        }
        kolo__frame_end(&connection->out);
        flush(connection);
    }
}

static void on_join(struct connection *connection, struct kolo__frame_reader *payload)
{
    struct kolo__rendezvous *server = connection->server;
    char job[128], host[64], text[512];
    size_t blob_bytes;
    kolo__get_text(payload, job, sizeof job);
    uint32_t size = kolo__get_u32(payload);
    uint32_t rank = kolo__get_u32(payload);
    uint32_t pid = kolo__get_u32(payload);
    kolo__get_text(payload, host, sizeof host);
    const unsigned char *blob = kolo__get_blob(payload, &blob_bytes);
    if (!kolo__frame_done(payload)) {
        refuse(connection, KOLO_ERR_NETWORK, "a JOIN message is broken");
        return;
    }
    if (strcmp(job, server->job) != 0) {
        snprintf(text, sizeof text, "this rendezvous belongs to job '%s', not to '%s'", server->job,
                 job);
        refuse(connection, KOLO_ERR_WORLD, text);
        return;
    }
    if (size != server->size || rank >= server->size) {
        snprintf(text, sizeof text,
                 "rank %u of a world of %u (host %s) does not fit the world of %u ranks that was "
                 "launched: check KOLO_RANK and KOLO_WORLD_SIZE",
                 rank, size, host, server->size);
        refuse(connection, KOLO_ERR_WORLD, text);
        return;
    }
    struct member *member = &server->members[rank];
    if (member->joined) {
        snprintf(text, sizeof text,
                 "rank %u joined already (host %s, pid %u): every process needs its own KOLO_RANK, "
                 "and calls kolo_init once",
                 rank, member->host, member->pid);
        refuse(connection, KOLO_ERR_WORLD, text);
        return;
    }
    member->connection = connection;
    member->joined = true;
    member->pid = pid;
    memcpy(member->host, host, sizeof host);
    keep_blob(member, blob, blob_bytes);
    connection->phase = MEMBER;
    connection->rank = rank;
    if (server->fault.set)
        send_fault(server, connection, 0, server->fault.status, server->fault.rank,
                   server->fault.text);
    if (++server->joined == server->size)
        announce_world(server);
}

static void on_exchange(struct connection *connection, struct kolo__frame_reader *payload)
{
    struct kolo__rendezvous *server = connection->server;
    struct member *member = &server->members[connection->rank];
    size_t bytes;
    uint32_t tag = kolo__get_u32(payload);
    const unsigned char *blob = kolo__get_blob(payload, &bytes);
    if (!kolo__frame_done(payload) || member->exchanging || !server->formed) {
        refuse(connection, KOLO_ERR_NETWORK, "an EXCHANGE message is broken or out of turn");
        return;
    }
    keep_blob(member, blob, bytes);
    member->exchanging = true;
    member->exchange_tag = tag;
    for (uint32_t r = 0; r < server->size; r++)
        if (!server->members[r].exchanging)
            return;
    for (uint32_t r = 0; r < server->size; r++)
        if (server->members[r].exchange_tag != tag) {
            spread(server, 0, KOLO_ERR_MISMATCH, (int)r, "ranks are in different set-up steps");
            return;
        }
    for (uint32_t to = 0; to < server->size; to++) {
        struct connection *other = server->members[to].connection;
        server->members[to].exchanging = false;
        if (other == NULL)
            continue;
        kolo__frame_begin(&other->out, KOLO__FRAME_EXCHANGED);
        kolo__put_u32(&other->out, tag);
        kolo__put_u32(&other->out, server->size);
        for (uint32_t r = 0; r < server->size; r++)
            kolo__put_blob(&other->out, server->members[r].blob, server->members[r].blob_bytes);
        kolo__frame_end(&other->out);
        flush(other);
    }
}

/* ---- faults and stuck ranks ---------------------------------------------------------------- */

static void on_fault(struct connection *connection, struct kolo__frame_reader *payload)
{
    struct kolo__rendezvous *server = connection->server;
    char text[480];
    uint32_t comm = kolo__get_u32(payload);
    uint8_t status = kolo__get_u8(payload);
    uint32_t peer = kolo__get_u32(payload);
    kolo__get_text(payload, text, sizeof text);
    if (!kolo__frame_done(payload) || status <= KOLO_AGAIN || status > KOLO_ERR_ABORTED) {
        refuse(connection, KOLO_ERR_NETWORK, "a FAULT message is broken");
        return;
    }
    bool about_a_rank = peer < server->size && peer != connection->rank;
    if (about_a_rank && (status == KOLO_ERR_PEER_LOST || status == KOLO_ERR_NETWORK))
        suspect(server, peer, (int)connection->rank, text);
    else
        spread(server, comm, (kolo_status)status, (int)connection->rank, text);
}

static void on_stuck(struct connection *connection, struct kolo__frame_reader *payload)
{
    struct kolo__rendezvous *server = connection->server;
    struct kolo__verdict_report *report = &server->members[connection->rank].report;
    struct kolo__verdict_report fresh = {0};
    fresh.count = kolo__get_u32(payload);
    if (fresh.count > KOLO__VERDICT_RECENT) {
        refuse(connection, KOLO_ERR_NETWORK, "a STUCK message is broken");
        return;
    }
    for (uint32_t i = 0; i < fresh.count; i++)
        kolo__get_signature(payload, &fresh.recent[i]);
    if (!kolo__frame_done(payload)) {
        refuse(connection, KOLO_ERR_NETWORK, "a STUCK message is broken");
        return;
    }
    *report = fresh;
    for (uint32_t r = 0; r < server->size; r++) {
        char text[480];
        if (r != connection->rank &&
            kolo__verdict_mismatch(connection->rank, server->members[connection->rank].host, report,
                                   r, server->members[r].host, &server->members[r].report, text,
                                   sizeof text)) {
            spread(server, fresh.recent[0].comm, KOLO_ERR_MISMATCH, (int)connection->rank, text);
            return;
        }
    }
}

static void on_absent(struct connection *connection)
{
    struct kolo__rendezvous *server = connection->server;
    char text[400] = "";
    size_t used = 0;
    uint32_t missing = 0;
    for (uint32_t r = 0; r < server->size; r++) {
        if (server->members[r].joined)
            continue;
        if (missing++ < 16)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%u",
                                     missing > 1 ? ", " : "", r);
    }
    if (missing > 16)
        snprintf(text + used, sizeof text - used, " and %u more", missing - 16);
    kolo__frame_begin(&connection->out, KOLO__FRAME_ABSENT);
    kolo__put_u32(&connection->out, missing);
    kolo__put_text(&connection->out, text);
    kolo__frame_end(&connection->out);
    flush(connection);
}

/* ---- connections --------------------------------------------------------------------------- */

static void on_frame(struct connection *connection, enum kolo__frame_type type,
                     struct kolo__frame_reader *payload)
{
    struct kolo__rendezvous *server = connection->server;
    if ((type == KOLO__FRAME_JOIN) != (connection->phase == WANT_JOIN)) {
        refuse(connection, KOLO_ERR_NETWORK, "a message came out of turn");
        return;
    }
    switch (type) {
    case KOLO__FRAME_JOIN:
        on_join(connection, payload);
        break;
    case KOLO__FRAME_EXCHANGE:
        on_exchange(connection, payload);
        break;
    case KOLO__FRAME_BYE:
        server->members[connection->rank].left = true;
        break;
    case KOLO__FRAME_FAULT:
        on_fault(connection, payload);
        break;
    case KOLO__FRAME_STUCK:
        on_stuck(connection, payload);
        break;
    case KOLO__FRAME_ABSENT:
        on_absent(connection);
        break;
    default:
        refuse(connection, KOLO_ERR_NETWORK, "a message of an unknown type came");
    }
}

static void on_proof(struct connection *connection)
{
    if (kolo__auth_check_proof(&connection->auth, connection->in) != KOLO_OK) {
        refuse(connection, KOLO_ERR_NETWORK, kolo_error_text());
        return;
    }
    connection->phase = WANT_JOIN;
}

static void on_hello(struct connection *connection)
{
    unsigned char reply[KOLO__AUTH_REPLY_BYTES];
    if (kolo__auth_reply(&connection->auth, connection->in, reply) != KOLO_OK) {
        refuse(connection, KOLO_ERR_NETWORK, kolo_error_text());
        return;
    }
    /* 72 bytes always fit a fresh socket's buffer. */
    if (send(connection->fd, reply, sizeof reply, MSG_NOSIGNAL | MSG_DONTWAIT) != sizeof reply)
        connection->closing = true;
    connection->phase = WANT_PROOF;
}

static void consume(struct connection *connection)
{
    size_t used = 0;
    while (!connection->closing) {
        unsigned char *data = connection->in + used;
        size_t bytes = connection->in_bytes - used, length = 0;
        if (connection->phase == WANT_HELLO || connection->phase == WANT_PROOF) {
            length =
                connection->phase == WANT_HELLO ? KOLO__AUTH_HELLO_BYTES : KOLO__AUTH_PROOF_BYTES;
            if (bytes < length)
                break;
            memmove(connection->in, data, bytes);
            connection->in_bytes = bytes;
            used = 0;
            if (connection->phase == WANT_HELLO)
                on_hello(connection);
            else
                on_proof(connection);
        } else {
            enum kolo__frame_type type;
            struct kolo__frame_reader payload;
            length = kolo__frame_parse(data, bytes, KOLO__FRAME_REQUEST_MAX, &type, &payload);
            if (length == 0)
                break;
            if (length == (size_t)-1) {
                refuse(connection, KOLO_ERR_NETWORK, "bytes came that are no message");
                return;
            }
            on_frame(connection, type, &payload);
        }
        used += length;
    }
    memmove(connection->in, connection->in + used, connection->in_bytes - used);
    connection->in_bytes -= used;
}

/* Bounded: at most one frame of the largest size is held. */
static void receive(struct connection *connection)
{
    size_t most = connection->phase == MEMBER || connection->phase == WANT_JOIN
                      ? KOLO__FRAME_REQUEST_MAX + KOLO__FRAME_HEAD_BYTES
                      : 256;
    if (connection->in_capacity < most) {
        unsigned char *in = realloc(connection->in, most);
        if (in == NULL) {
            connection->closing = true;
            return;
        }
        connection->in = in;
        connection->in_capacity = most;
    }
    ssize_t got = recv(connection->fd, connection->in + connection->in_bytes,
                       connection->in_capacity - connection->in_bytes, MSG_DONTWAIT);
    if (got > 0) {
        connection->in_bytes += (size_t)got;
        consume(connection);
    } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
        connection->closing = true;
    }
}

static void accept_all(struct kolo__rendezvous *server)
{
    uint32_t strangers = 0;
    for (struct connection *c = server->connections; c != NULL; c = c->next)
        strangers += c->phase != MEMBER;
    /* The world itself may come all at once; beyond it, only so many. */
    while (strangers < STRANGERS_MAX + server->size) {
        int fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            return;
        struct connection *connection = calloc(1, sizeof *connection);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
        if (connection == NULL || epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
            free(connection);
            close(fd);
            return;
        }
        kolo__tune_stream(fd);
        connection->fd = fd;
        connection->server = server;
        connection->deadline_ns =
            kolo__now_ns(&kolo__real_clock) + STRANGER_SECONDS * 1000 * MILLISECOND;
        kolo__auth_init(&connection->auth, KOLO__AUTH_CONTROL, server->token);
        connection->next = server->connections;
        server->connections = connection;
        strangers++;
    }
}

static void free_connection(struct connection *connection)
{
    struct kolo__rendezvous *server = connection->server;
    if (connection->phase == MEMBER) {
        struct member *member = &server->members[connection->rank];
        member->connection = NULL;
        suspect(server, connection->rank, -1,
                "closed its connection to the rendezvous without kolo_finalize");
    }
    close(connection->fd);
    free(connection->in);
    kolo__frame_writer_free(&connection->out);
    free(connection);
}

/* Removes what is closing, and strangers that took too long. */
static void sweep(struct kolo__rendezvous *server, uint64_t now_ns)
{
    struct connection **link = &server->connections;
    while (*link != NULL) {
        struct connection *connection = *link;
        if (connection->phase != MEMBER && now_ns > connection->deadline_ns && !connection->closing)
            refuse(connection, KOLO_ERR_TIMEOUT, "it did not introduce itself in time");
        if (connection->closing) {
            *link = connection->next;
            free_connection(connection);
        } else {
            link = &connection->next;
        }
    }
}

void kolo__rendezvous_step(struct kolo__rendezvous *server)
{
    struct epoll_event events[64];
    int count = epoll_wait(server->epoll_fd, events, 64, 0);
    for (int i = 0; i < count; i++) {
        struct connection *connection = events[i].data.ptr;
        if (connection == NULL) {
            accept_all(server);
            continue;
        }
        if (events[i].events & EPOLLOUT)
            flush(connection);
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            receive(connection);
    }
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    sweep(server, now_ns);
    judge_losses(server, now_ns);
}

int kolo__rendezvous_timeout_ms(const struct kolo__rendezvous *server)
{
    for (uint32_t r = 0; r < server->size; r++)
        if (server->members[r].lost_at_ns != 0 && !server->fault.set)
            return 50;
    for (const struct connection *c = server->connections; c != NULL; c = c->next)
        if (c->phase != MEMBER)
            return 1000;
    return -1;
}

int kolo__rendezvous_fd(const struct kolo__rendezvous *server)
{
    return server->epoll_fd;
}

const char *kolo__rendezvous_address(const struct kolo__rendezvous *server)
{
    return server->address;
}

kolo_status kolo__rendezvous_create(const struct kolo__rendezvous_options *options,
                                    struct kolo__rendezvous **result)
{
    struct kolo__address bound;
    kolo_status status = KOLO_ERR_MEMORY;
    struct kolo__rendezvous *server = calloc(1, sizeof *server);
    if (server == NULL)
        goto out_of_memory;
    server->listen_fd = server->epoll_fd = -1;
    server->size = options->world_size;
    server->members = calloc(options->world_size, sizeof *server->members);
    server->token = strdup(options->token);
    snprintf(server->job, sizeof server->job, "%s", options->job);
    if (server->members == NULL || server->token == NULL)
        goto out_of_memory;
    status = kolo__listen(options->host, options->port, &server->listen_fd, &bound);
    if (status != KOLO_OK)
        goto fail;
    kolo__address_text(&bound, server->address, sizeof server->address);
    server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (server->epoll_fd < 0 ||
        epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, server->listen_fd, &event) != 0) {
        status = kolo__error_errno(errno, "cannot watch the rendezvous socket");
        goto fail;
    }
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
        struct connection *connection = server->connections;
        server->connections = connection->next;
        free_connection(connection);
    }
    for (uint32_t r = 0; server->members != NULL && r < server->size; r++)
        free(server->members[r].blob);
    if (server->listen_fd >= 0)
        close(server->listen_fd);
    if (server->epoll_fd >= 0)
        close(server->epoll_fd);
    free(server->members);
    free(server->token);
    free(server);
}
