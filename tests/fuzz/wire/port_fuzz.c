/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank's data port, over real connections, against strangers. An input is a play for them:
 *
 *     | encrypted u8 | act | act | ...
 *     act:  | who u8 | bytes u16 little endian | what is sent |
 *
 * who modulo 4 is 0 or 1: that stranger sends, knowing nothing; 2: one that knows the token sends,
 * inside TLS; 3: stranger bytes % 3 hangs up.
 *
 * Whatever came: the rank has no fault, and its peer is let in and understood.
 */
#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/secure.h"
#include "collectives/transport/join.h"
#include "collectives/transport/tcp.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

enum { STRANGERS = 3, INITIATED = 2, ACTS_MAX = 32 };

struct stranger {
    int fd; /* -1: not connected */
    struct kolo__secure *secure;
    unsigned char join[KOLO__JOIN_BYTES]; /* what INITIATED has said so far */
    size_t join_bytes;
};

static struct kolo__transport *ranks[2];
static struct kolo__address addresses[2];
static struct kolo__endpoint endpoints[2];
static struct kolo__credentials *credentials;
static struct stranger strangers[STRANGERS];
static const struct kolo__signature signature = {.sequence = 1, .collective = KOLO__BARRIER};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void drive_rank_0(void)
{
    struct pollfd ready = {.fd = ranks[0]->ops->wait_fd(ranks[0]), .events = POLLIN};
    for (int i = 0; i < 20 && poll(&ready, 1, 0) > 0; i++) {
        ranks[0]->ops->arm(ranks[0]);
        ranks[0]->ops->disarm(ranks[0]);
    }
}

static void create(uint32_t rank, bool encrypt, int listen_fd)
{
    const struct kolo__tcp_options options = {.rank = rank,
                                              .size = 2,
                                              .epoch = 1,
                                              .comm = 2,
                                              .job = "job",
                                              .token = "secret",
                                              .encrypt = encrypt,
                                              .listen_fd = listen_fd,
                                              .endpoints = endpoints,
                                              .connect_timeout_ns = 20000000000u};
    KOLO__ASSERT(kolo__tcp_create(&options, &ranks[rank]) == KOLO_OK);
}

static void hang_up(struct stranger *stranger)
{
    struct linger abrupt = {.l_onoff = 1, .l_linger = 0};
    if (stranger->fd < 0)
        return;
    kolo__secure_free(stranger->secure);
    setsockopt(stranger->fd, SOL_SOCKET, SO_LINGER, &abrupt, sizeof abrupt);
    close(stranger->fd);
    *stranger = (struct stranger){.fd = -1};
    drive_rank_0();
}

static void come(struct stranger *stranger)
{
    kolo_status status = KOLO_AGAIN;
    KOLO__ASSERT(kolo__connect_start(&addresses[0], NULL, &stranger->fd) == KOLO_OK);
    struct pollfd ready = {.fd = stranger->fd, .events = POLLOUT};
    KOLO__ASSERT(poll(&ready, 1, 5000) == 1);
    kolo__tune_stream(stranger->fd); /* or what follows the proof is held back, and not heard */
    drive_rank_0();
    if (stranger != &strangers[INITIATED])
        return;
    KOLO__ASSERT(kolo__secure_create(credentials, KOLO__SECURE_INITIATOR, stranger->fd,
                                     &stranger->secure) == KOLO_OK);
    for (int i = 0; i < 1000 && status == KOLO_AGAIN; i++) {
        status = kolo__secure_handshake(stranger->secure);
        drive_rank_0();
    }
    KOLO__ASSERT(status == KOLO_OK);
}

/* Would that be rank 1 itself? Then it would be let in, and rightly. */
static bool is_rank_1(struct stranger *stranger, const uint8_t *data, size_t bytes)
{
    struct kolo__join join;
    size_t room = sizeof stranger->join - stranger->join_bytes;
    size_t kept = bytes < room ? bytes : room;
    memcpy(stranger->join + stranger->join_bytes, data, kept);
    stranger->join_bytes += kept;
    return stranger->join_bytes == sizeof stranger->join &&
           kolo__join_decode(stranger->join, &join) == KOLO_OK && join.rank == 1;
}

static void say(struct stranger *stranger, const uint8_t *data, size_t bytes)
{
    size_t moved;
    if (stranger->fd < 0)
        come(stranger);
    if (bytes == 0)
        return;
    if (stranger != &strangers[INITIATED])
        (void)!send(stranger->fd, data, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    else if (!is_rank_1(stranger, data, bytes))
        kolo__secure_write(stranger->secure, data, bytes, &moved);
    drive_rank_0();
}

static void check_ranks(void)
{
    unsigned char out[3] = "ab", in[3] = "";
    uint64_t deadline_ns = kolo__now_ns(&kolo__real_clock) + 5000000000u;
    struct kolo__post sent = {.data = out, .bytes = 3, .signature = &signature};
    struct kolo__post received = {.data = in, .bytes = 3, .signature = &signature};
    ranks[1]->ops->post_send(ranks[1], 0, &sent);
    ranks[0]->ops->post_recv(ranks[0], 1, &received);
    while (!received.complete && kolo__now_ns(&kolo__real_clock) < deadline_ns)
        for (int r = 0; r < 2; r++)
            ranks[r]->ops->progress(ranks[r]);
    KOLO__ASSERT(received.complete && received.status == KOLO_OK && memcmp(in, "ab", 3) == 0);
    KOLO__ASSERT(ranks[0]->fault.status == KOLO_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    int listeners[2];
    if (bytes == 0)
        return 0;
    kolo__log_configure("error", -1);
    if (credentials == NULL)
        KOLO__ASSERT(kolo__credentials_create(KOLO__PURPOSE_DATA, "job", "secret", &credentials) ==
                     KOLO_OK);
    for (uint32_t r = 0; r < 2; r++)
        KOLO__ASSERT(kolo__listen("127.0.0.1", 0, &listeners[r], &addresses[r]) == KOLO_OK);
    for (uint32_t r = 0; r < 2; r++)
        endpoints[r] = (struct kolo__endpoint){.count = 1, .addresses = {addresses[r]}};
    for (uint32_t r = 0; r < 2; r++)
        create(r, data[0] & 1, listeners[r]);
    for (int i = 0; i < STRANGERS; i++)
        strangers[i] = (struct stranger){.fd = -1};
    size_t at = 1;
    for (int acts = 0; acts < ACTS_MAX && bytes - at >= 3; acts++) {
        unsigned who = data[at] & 3;
        size_t length = kolo__load_u16(data + at + 1);
        at += 3;
        if (length > bytes - at)
            length = bytes - at;
        if (who < STRANGERS)
            say(&strangers[who], data + at, length);
        else
            hang_up(&strangers[length % STRANGERS]);
        at += who < STRANGERS ? length : 0;
    }
    check_ranks();
    for (int i = 0; i < STRANGERS; i++)
        hang_up(&strangers[i]);
    for (int r = 1; r >= 0; r--)
        ranks[r]->ops->close(ranks[r]);
    return 0;
}
