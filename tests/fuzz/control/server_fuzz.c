/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole rendezvous server, over real connections, against clients that know the token and send
 * anything, and against a stranger who does not. An input is a play for them:
 *
 *     | which ranks join properly first: u8, a bit each | act | act | ...
 *     act:  | who u8 | bytes u16 little endian | what is sent |
 *
 * who modulo 8 is 0 to 2: that client sends (after the proof); 3: the stranger sends (before it);
 * 4 to 6: the launcher saw rank who - 4 end; 7: client bytes % 3 closes its connection.
 *
 * Whatever came: each message the server sends is well-formed, and it still serves newcomers.
 */
#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/secure.h"
#include "base/socket.h"
#include "runtime/frame.h"
#include "runtime/introduction.h"
#include "runtime/rendezvous_world.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RANKS = 3, STRANGER = 3, LATECOMER = 4, CLIENTS = 5, ACTS_MAX = 64 };

struct client {
    int fd;                      /* -1: not connected */
    struct kolo__secure *secure; /* NULL: has proved nothing */
    unsigned char *in;
    size_t in_bytes, in_capacity;
};

static struct kolo__rendezvous *server;
static struct kolo__credentials *credentials;
static struct client clients[CLIENTS];

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static uint64_t soon(void)
{
    return kolo__now_ns(&kolo__real_clock) + 5000000000u;
}

/* Until the server has nothing more to do. */
static void serve(void)
{
    struct pollfd ready = {.fd = kolo__rendezvous_fd(server), .events = POLLIN};
    for (int i = 0; i < 100 && poll(&ready, 1, 0) > 0; i++)
        kolo__rendezvous_step(server);
}

static void hang_up(struct client *client)
{
    /* Reset instead of an orderly end: thousands of these would wait for their last segment. */
    struct linger abrupt = {.l_onoff = 1, .l_linger = 0};
    if (client->fd < 0)
        return;
    setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &abrupt, sizeof abrupt);
    kolo__secure_free(client->secure);
    client->secure = NULL;
    close(client->fd);
    client->fd = -1;
    serve();
}

/* ---- what the server says ------------------------------------------------------------------ */

static void check_text(struct kolo__frame_reader *payload)
{
    size_t bytes;
    const unsigned char *text = kolo__get_blob(payload, &bytes);
    for (size_t i = 0; i < bytes; i++)
        KOLO__ASSERT(text[i] >= 0x20 && text[i] != 0x7f);
}

static void check_blobs(struct kolo__frame_reader *payload, uint32_t count)
{
    size_t bytes;
    for (uint32_t i = 0; i < count; i++)
        kolo__get_blob(payload, &bytes);
}

static void check_message(enum kolo__frame_type type, struct kolo__frame_reader *payload)
{
    switch (type) {
    case KOLO__FRAME_WORLD: {
        uint32_t size = kolo__get_u32(payload);
        KOLO__ASSERT(size > 0 && size <= RANKS);
        for (uint32_t r = 0; r < size; r++) {
            check_text(payload);
            kolo__get_u32(payload);
            check_blobs(payload, 1);
        }
        break;
    }
    case KOLO__FRAME_EPOCH: {
        KOLO__ASSERT(kolo__get_u32(payload) > 0);
        uint32_t rank = kolo__get_u32(payload), size = kolo__get_u32(payload);
        uint32_t before = kolo__get_u32(payload), survivors = kolo__get_u32(payload);
        KOLO__ASSERT(rank < size && size <= RANKS && survivors <= size && survivors <= before);
        for (uint32_t i = 0; i < survivors; i++)
            KOLO__ASSERT(kolo__get_u32(payload) < before);
        check_text(payload);
        break;
    }
    case KOLO__FRAME_NEWCOMERS:
        KOLO__ASSERT(kolo__get_u32(payload) <= RANKS);
        break;
    case KOLO__FRAME_REFUSED:
        KOLO__ASSERT(kolo__get_u8(payload) > KOLO_AGAIN);
        check_text(payload);
        break;
    case KOLO__FRAME_EXCHANGED:
        kolo__get_u32(payload);
        check_blobs(payload, kolo__get_u32(payload));
        break;
    case KOLO__FRAME_FAULT: {
        kolo__get_u32(payload);
        uint8_t status = kolo__get_u8(payload);
        KOLO__ASSERT(status > KOLO_AGAIN && status <= KOLO_ERR_DEVICE);
        uint32_t rank = kolo__get_u32(payload);
        KOLO__ASSERT(rank < RANKS || rank == UINT32_MAX);
        check_text(payload);
        break;
    }
    case KOLO__FRAME_ABSENT:
        KOLO__ASSERT(kolo__get_u32(payload) <= RANKS);
        check_text(payload);
        break;
    case KOLO__FRAME_JOINED:
        KOLO__ASSERT(kolo__get_u32(payload) != 0);
        kolo__get_u32(payload);
        KOLO__ASSERT(kolo__get_u32(payload) < RANKS);
        kolo__get_u64(payload);
        break;
    case KOLO__FRAME_ANNOUNCE: {
        struct kolo__announcement announcement;
        kolo__get_announcement(payload, &announcement);
        KOLO__ASSERT(announcement.signature.sequence > 0);
        break;
    }
    case KOLO__FRAME_ALL_JOINED:
        KOLO__ASSERT(kolo__get_u32(payload) != 0);
        KOLO__ASSERT(kolo__get_u32(payload) < RANKS);
        break;
    case KOLO__FRAME_BEAT:
        break;
    case KOLO__FRAME_NOTE:
        kolo__get_u32(payload);
        check_text(payload);
        break;
    default:
        KOLO__ASSERT(!"a message that no server sends");
    }
    KOLO__ASSERT(kolo__frame_done(payload));
}

/* As recv. */
static ssize_t hear(struct client *client, unsigned char *data, size_t bytes)
{
    size_t moved = 0;
    if (client->secure == NULL)
        return recv(client->fd, data, bytes, MSG_DONTWAIT);
    kolo_status status = kolo__secure_read(client->secure, data, bytes, &moved);
    KOLO__ASSERT(status != KOLO_ERR_NETWORK);
    errno = status == KOLO_AGAIN ? EAGAIN : EPIPE;
    return status == KOLO_OK ? (ssize_t)moved : -1;
}

/* Takes what has come and checks whole messages. */
static void listen_to_server(struct client *client)
{
    while (client->fd >= 0) {
        if (client->in_capacity - client->in_bytes < 4096) {
            client->in_capacity = 2 * client->in_capacity + 8192;
            client->in = realloc(client->in, client->in_capacity);
            KOLO__ASSERT(client->in != NULL);
        }
        ssize_t got =
            hear(client, client->in + client->in_bytes, client->in_capacity - client->in_bytes);
        if (got < 0 && errno == EAGAIN)
            break;
        if (got <= 0)
            hang_up(client);
        else
            client->in_bytes += (size_t)got;
    }
    size_t used = 0, length;
    enum kolo__frame_type type;
    struct kolo__frame_reader payload;
    for (; client != &clients[STRANGER] && used < client->in_bytes; used += length) {
        length = kolo__frame_parse(client->in + used, client->in_bytes - used,
                                   KOLO__FRAME_PAYLOAD_MAX, &type, &payload);
        KOLO__ASSERT(length != (size_t)-1);
        if (length == 0)
            break;
        check_message(type, &payload);
    }
    if (used > 0)
        memmove(client->in, client->in + used, client->in_bytes - used);
    client->in_bytes -= used;
}

/* ---- what the clients do ------------------------------------------------------------------- */

static void connect_client(struct client *client)
{
    client->in_bytes = 0;
    KOLO__ASSERT(kolo__connect(kolo__rendezvous_address(server), soon(), &client->fd) == KOLO_OK);
    kolo__tune_stream(client->fd); /* or what follows the proof is held back, and nobody hears it */
    serve();
}

static void prove(struct client *client)
{
    KOLO__ASSERT(kolo__secure_create(credentials, KOLO__SECURE_INITIATOR, client->fd,
                                     &client->secure) == KOLO_OK);
    kolo_status status = KOLO_AGAIN;
    for (uint64_t deadline = soon();
         status == KOLO_AGAIN && kolo__now_ns(&kolo__real_clock) < deadline;) {
        status = kolo__secure_handshake(client->secure);
        serve();
    }
    KOLO__ASSERT(status == KOLO_OK);
}

/* As send. */
static ssize_t say(struct client *client, const uint8_t *data, size_t bytes)
{
    size_t moved = 0;
    if (client->secure == NULL)
        return send(client->fd, data, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    kolo_status status = kolo__secure_write(client->secure, data, bytes, &moved);
    errno = status == KOLO_AGAIN ? EAGAIN : EPIPE;
    return status == KOLO_OK ? (ssize_t)moved : -1;
}

static void send_bytes(struct client *client, const uint8_t *data, size_t bytes)
{
    if (client->fd < 0) {
        connect_client(client);
        if (client != &clients[STRANGER])
            prove(client);
    }
    while (bytes > 0 && client->fd >= 0) {
        ssize_t sent = say(client, data, bytes);
        if (sent > 0) {
            data += sent;
            bytes -= (size_t)sent;
        } else if (errno != EAGAIN) {
            bytes = 0; /* refused meanwhile */
        }
        serve();
        listen_to_server(client);
    }
}

/* With which newcomers are compared: nothing but ends of texts. */
static const unsigned char introduction[KOLO__INTRODUCTION_TEXTS];

static void join_properly(uint32_t rank)
{
    struct kolo__frame_writer frame = {0};
    kolo__frame_begin(&frame, KOLO__FRAME_JOIN);
    kolo__put_text(&frame, "job");
    kolo__put_u32(&frame, RANKS);
    kolo__put_u32(&frame, rank);
    kolo__put_u32(&frame, 1000 + rank);
    kolo__put_text(&frame, "host");
    kolo__put_blob(&frame, introduction, sizeof introduction);
    kolo__frame_end(&frame);
    send_bytes(&clients[rank], frame.data, frame.bytes);
    kolo__frame_writer_free(&frame);
}

static void act(unsigned who, const uint8_t *data, size_t bytes)
{
    if (who < RANKS || who == STRANGER)
        send_bytes(&clients[who], data, bytes);
    else if (who < 7)
        kolo__rendezvous_rank_ended(server, who - 4, bytes == 0, "exited with code 3");
    else
        hang_up(&clients[bytes % RANKS]);
    serve();
    for (int i = 0; i < CLIENTS; i++)
        listen_to_server(&clients[i]);
}

static void check_server(void)
{
    kolo__world_judge_waits(server, kolo__now_ns(&kolo__real_clock) + 1000000000);
    for (int i = 0; i < CLIENTS; i++)
        listen_to_server(&clients[i]);
    kolo_status status;
    int rank;
    const char *fault = kolo__rendezvous_fault(server, &status, &rank);
    for (; fault != NULL && *fault != '\0'; fault++)
        KOLO__ASSERT((unsigned char)*fault >= 0x20 && *fault != 0x7f);
    connect_client(&clients[LATECOMER]);
    prove(&clients[LATECOMER]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct kolo__rendezvous_options options = {
        .host = "127.0.0.1", .job = "job", .token = "secret", .world_size = RANKS};
    options.members_restart = bytes % 2 != 0;
    options.min_ranks = bytes % 3;
    if (bytes == 0)
        return 0;
    kolo__log_configure("error", -1);
    if (credentials == NULL)
        KOLO__ASSERT(kolo__credentials_create(KOLO__PURPOSE_CONTROL, "job", "secret",
                                              &credentials) == KOLO_OK);
    KOLO__ASSERT(kolo__rendezvous_create(&options, &server) == KOLO_OK);
    for (int i = 0; i < CLIENTS; i++)
        clients[i] = (struct client){.fd = -1};
    for (uint32_t r = 0; r < RANKS; r++)
        if (data[0] >> r & 1)
            join_properly(r);
    size_t at = 1;
    for (int acts = 0; acts < ACTS_MAX && bytes - at >= 3; acts++) {
        unsigned who = data[at] & 7;
        size_t length = kolo__load_u16(data + at + 1);
        at += 3;
        if (length > bytes - at)
            length = bytes - at;
        act(who, data + at, length);
        at += who <= STRANGER ? length : 0;
    }
    check_server();
    for (int i = 0; i < CLIENTS; i++) {
        hang_up(&clients[i]);
        free(clients[i].in);
    }
    kolo__rendezvous_free(server);
    return 0;
}
