/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How two ranks get connected. The higher one connects, again and again until its deadline, because
 * the lower may not have come so far; the lower accepts whoever knocks, and lets in who proves to
 * be a rank of this communicator:
 *
 *   higher <-> lower    handshake (base/secure.h)    they know the token, want data, are of one job
 *   higher  -> lower    join                         who I am: the higher rank's last word in TLS
 *   higher <-  lower    answer                       who I am: the lower rank's last word in TLS
 *
 * This for each lane. Then both leave TLS, unless they encrypt, and the next byte each way is a
 * message's. The lower rank may send one right behind its answer: it waits in the socket until the
 * higher has read the answer, for records are read one at a time.
 *
 * The few bytes of join and answer always fit into a new socket's buffer: what cannot be sent at
 * once is a failed attempt.
 */
#include "collectives/transport/tcp_transport.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

static const uint64_t stranger_patience_ns = 10000000000;
/* So much less when no more can be accepted: who knows the token needs milliseconds. */
static const uint64_t crowd_cut_ns = 9000000000;
static const uint64_t first_pause_ns = 5000000;
static const uint64_t longest_pause_ns = 250000000;
/* Until a host that does not answer at one address is tried at the next; more in each round, for it
 * may only be slow. */
static const uint64_t attempt_patience_ns = 300000000;

static void start_attempt(struct kolo__tcp *tcp, struct kolo__tcp_lane *lane);
static void fail_attempt(struct kolo__tcp *tcp, struct kolo__tcp_lane *lane);
static void give_up(struct kolo__tcp *tcp, const struct kolo__tcp_lane *lane, kolo_status status);
static kolo_status establish(struct kolo__tcp *tcp, struct kolo__tcp_lane *lane, int fd,
                             struct kolo__secure *secure);
static kolo_status introduce(struct kolo__tcp *tcp, struct kolo__tcp_lane *lane);
static kolo_status hear_answer(struct kolo__tcp *tcp, struct kolo__tcp_lane *lane);
static kolo_status welcome(struct kolo__tcp *tcp, struct kolo__tcp_stranger *stranger,
                           struct kolo__tcp_lane **lane);
static void drop_stranger(struct kolo__tcp *tcp, uint32_t index);
static void time_out(struct kolo__tcp *tcp, const struct kolo__tcp_lane *lane);

static uint64_t now_ns(void)
{
    return kolo__now_ns(&kolo__real_clock);
}

static kolo_status send_whole(struct kolo__secure *secure, const void *data, size_t bytes)
{
    size_t moved;
    kolo_status status = kolo__secure_write(secure, data, bytes, &moved);
    if (status == KOLO_AGAIN || (status == KOLO_OK && moved != bytes))
        status = kolo__error(KOLO_ERR_PEER_LOST, "the connection takes no bytes");
    return status;
}

/* KOLO_OK when all `wanted` bytes are there, KOLO_AGAIN when more must come. */
static kolo_status gather(struct kolo__secure *secure, unsigned char *data, size_t *there,
                          size_t wanted)
{
    kolo_status status = KOLO_OK;
    while (*there < wanted && status == KOLO_OK) {
        size_t moved;
        status = kolo__secure_read(secure, data + *there, wanted - *there, &moved);
        *there += moved;
    }
    if (status == KOLO_OK)
        *there = 0;
    return status;
}

/* A new connection's end of TLS. */
static kolo_status secure(const struct kolo__tcp *tcp, enum kolo__secure_side side, int fd,
                          struct kolo__secure **result)
{
    /* Now: the join must not wait until the other side has acknowledged what ends the handshake. */
    kolo__tune_data_stream(fd);
    kolo__silence_tune(fd, tcp->silence_s);
    kolo_status status = kolo__secure_create(tcp->credentials, side, fd, result);
    if (status == KOLO_OK && tcp->encrypt)
        kolo__secure_read_ahead(*result);
    return status;
}

/* A connection to a local port that nobody listens on may meet itself. */
static bool met_itself(int fd)
{
    struct kolo__address local = {.length = sizeof local.storage}, remote = local;
    return getsockname(fd, (struct sockaddr *)&local.storage, &local.length) == 0 &&
           getpeername(fd, (struct sockaddr *)&remote.storage, &remote.length) == 0 &&
           local.length == remote.length &&
           memcmp(&local.storage, &remote.storage, local.length) == 0;
}

/* ---- the connecting side ------------------------------------------------------------------ */

void kolo__tcp_want(struct kolo__tcp *tcp, uint32_t index)
{
    struct kolo__tcp_peer *peer = &tcp->peers[index];
    if (peer->wanted || peer->established)
        return;
    peer->wanted = true;
    peer->deadline_ns = now_ns() + tcp->connect_timeout_ns;
    tcp->wanted++;
    for (uint32_t i = 0; i < peer->lane_count && index < tcp->stream.transport.rank; i++) {
        peer->lanes[i].pause_ns = first_pause_ns;
        start_attempt(tcp, &peer->lanes[i]);
    }
}

/* Have all addresses had their turn? */
static bool is_round_over(const struct kolo__tcp *tcp, const struct kolo__tcp_lane *lane)
{
    return lane->attempts % tcp->peers[lane->peer].endpoint.count == 0;
}

static void start_attempt(struct kolo__tcp *tcp, struct kolo__tcp_lane *lane)
{
    uint32_t addresses = tcp->peers[lane->peer].endpoint.count;
    lane->state = KOLO__TCP_CONNECTING;
    lane->incoming_bytes = 0;
    KOLO__ASSERT(addresses > 0);
    uint64_t rounds = lane->attempts / addresses + 1;
    lane->attempt_deadline_ns =
        addresses > 1 ? now_ns() + rounds * attempt_patience_ns : UINT64_MAX;
    lane->attempts++;
    kolo_status status = kolo__connect_start(kolo__tcp_lane_address(tcp, lane),
                                             kolo__tcp_lane_source(tcp, lane), &lane->fd);
    if (status == KOLO_OK)
        status =
            kolo__tcp_watch(tcp, EPOLL_CTL_ADD, lane->fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                            KOLO__TCP_LANE, (uint32_t)(lane - tcp->lanes));
    if (status == KOLO_ERR_NETWORK)
        fail_attempt(tcp, lane);
    else if (status != KOLO_OK)
        give_up(tcp, lane, status);
}

void kolo__tcp_advance_lane(struct kolo__tcp *tcp, struct kolo__tcp_lane *lane)
{
    kolo_status status = KOLO_OK;
    while (status == KOLO_OK && lane->state != KOLO__TCP_ESTABLISHED) {
        switch (lane->state) {
        case KOLO__TCP_CONNECTING:
            status = kolo__connect_finish(lane->fd);
            if (status == KOLO_ERR_NETWORK)
                status = KOLO_ERR_PEER_LOST; /* nobody there yet */
            else if (status == KOLO_OK && met_itself(lane->fd))
                status = kolo__error(KOLO_ERR_PEER_LOST, "nobody listens");
            if (status == KOLO_OK)
                status = secure(tcp, KOLO__SECURE_INITIATOR, lane->fd, &lane->secure);
            lane->state = status == KOLO_OK ? KOLO__TCP_HANDSHAKE : KOLO__TCP_CONNECTING;
            break;
        case KOLO__TCP_HANDSHAKE:
            status = kolo__secure_handshake(lane->secure);
            if (status == KOLO_OK)
                status = introduce(tcp, lane);
            break;
        case KOLO__TCP_ANSWER:
            status = gather(lane->secure, lane->incoming, &lane->incoming_bytes,
                            KOLO__JOIN_ANSWER_BYTES);
            if (status == KOLO_OK)
                status = hear_answer(tcp, lane);
            break;
        default:
            return;
        }
    }
    /* One address may lead elsewhere: to another host's container of the same address. */
    bool elsewhere = status != KOLO_OK && status != KOLO_AGAIN && !is_round_over(tcp, lane);
    if (status == KOLO_ERR_PEER_LOST || elsewhere)
        fail_attempt(tcp, lane);
    else if (status != KOLO_OK && status != KOLO_AGAIN)
        give_up(tcp, lane, status);
}

static kolo_status introduce(struct kolo__tcp *tcp, struct kolo__tcp_lane *lane)
{
    unsigned char join[KOLO__JOIN_BYTES];
    struct kolo__join own = tcp->own;
    own.lane = (uint8_t)lane->number;
    own.lanes = (uint8_t)tcp->peers[lane->peer].lane_count;
    kolo__join_encode(&own, join);
    kolo_status status = send_whole(lane->secure, join, sizeof join);
    if (status == KOLO_OK)
        lane->state = KOLO__TCP_ANSWER;
    return status;
}

static kolo_status hear_answer(struct kolo__tcp *tcp, struct kolo__tcp_lane *lane)
{
    enum kolo__join_verdict verdict;
    struct kolo__join other;
    char text[160];
    kolo_status status = kolo__join_answer_decode(lane->incoming, &verdict, &other);
    if (status != KOLO_OK)
        return status;
    if (verdict == KOLO__JOIN_ACCEPTED && other.rank != lane->peer)
        verdict = KOLO__JOIN_BAD_RANK;
    if (verdict != KOLO__JOIN_ACCEPTED)
        return kolo__error(KOLO_ERR_WORLD, "it refused the connection: %s",
                           kolo__join_verdict_text(verdict, &tcp->own, &other, text, sizeof text));
    return establish(tcp, lane, lane->fd, lane->secure);
}

/* Not there yet, or gone again: another attempt after a pause. */
static void fail_attempt(struct kolo__tcp *tcp, struct kolo__tcp_lane *lane)
{
    snprintf(lane->failure, sizeof lane->failure, "%s", kolo_error_text());
    kolo__secure_free(lane->secure);
    lane->secure = NULL;
    if (lane->fd >= 0)
        close(lane->fd);
    lane->fd = -1;
    lane->state = KOLO__TCP_PAUSED;
    lane->retry_ns = now_ns();
    if (!is_round_over(tcp, lane))
        return;
    lane->retry_ns += lane->pause_ns;
    if (lane->pause_ns < longest_pause_ns)
        lane->pause_ns *= 2;
}

/* What another attempt would not mend. */
static void give_up(struct kolo__tcp *tcp, const struct kolo__tcp_lane *lane, kolo_status status)
{
    char name[100], address[80];
    kolo__stream_set_fault(
        &tcp->stream, status, (int)lane->peer, "%s at %s: %s",
        kolo__stream_peer_name(&tcp->stream, lane->peer, name, sizeof name),
        kolo__address_text(kolo__tcp_lane_address(tcp, lane), address, sizeof address),
        kolo_error_text());
}

/* Transfers the connection, if nothing more was said in TLS than was asked. */
static kolo_status establish(struct kolo__tcp *tcp, struct kolo__tcp_lane *lane, int fd,
                             struct kolo__secure *secure)
{
    struct kolo__tcp_peer *peer = &tcp->peers[lane->peer];
    if (!tcp->encrypt && !kolo__secure_leave(secure))
        return kolo__error(KOLO_ERR_NETWORK, "it says more than a rank does");
    if (!tcp->encrypt)
        kolo__secure_free(secure);
    lane->secure = tcp->encrypt ? secure : NULL;
    lane->state = KOLO__TCP_ESTABLISHED;
    lane->fd = fd;
    lane->readable = lane->writable = true;
    if (++peer->established_count < peer->lane_count)
        return KOLO_OK;
    /* A lower rank may get connected before it wants to. */
    tcp->wanted -= peer->wanted;
    peer->established = true;
    if (tcp->own.rank == 0 && !tcp->quiet && kolo__log_enabled(KOLO__LOG_INFO))
        kolo__tcp_log_lanes(tcp, lane->peer);
    return KOLO_OK;
}

/* ---- the accepting side ------------------------------------------------------------------- */

static void set_accepting(struct kolo__tcp *tcp, bool on)
{
    if (on != tcp->accepting && kolo__tcp_watch(tcp, EPOLL_CTL_MOD, tcp->listen_fd,
                                                on ? EPOLLIN : 0, KOLO__TCP_LISTENER, 0) == KOLO_OK)
        tcp->accepting = on;
}

/* The socket may listen on all of this host's addresses: the endpoint's are those meant. */
static bool came_by_own_address(const struct kolo__tcp *tcp, int fd)
{
    const struct kolo__endpoint *own = &tcp->peers[tcp->own.rank].endpoint;
    struct kolo__address local = {.length = sizeof local.storage};
    char text[80];
    if (getsockname(fd, (struct sockaddr *)&local.storage, &local.length) == 0)
        for (uint32_t i = 0; i < own->count; i++)
            if (kolo__address_same_host(&own->addresses[i], &local))
                return true;
    kolo__error(KOLO_ERR_NETWORK, "it came to %s, which is not for data (KOLO_NET)",
                kolo__address_text(&local, text, sizeof text));
    return false;
}

void kolo__tcp_accept(struct kolo__tcp *tcp)
{
    for (uint32_t i = 0; i < KOLO__TCP_STRANGERS; i++) {
        struct kolo__tcp_stranger *stranger = &tcp->strangers[i];
        if (stranger->fd >= 0)
            continue;
        memset(stranger, 0, sizeof *stranger);
        stranger->address.length = sizeof stranger->address.storage;
        stranger->fd = accept4(tcp->listen_fd, (struct sockaddr *)&stranger->address.storage,
                               &stranger->address.length, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (stranger->fd < 0) {
            if (errno == EMFILE || errno == ENFILE)
                kolo__stream_set_fault(&tcp->stream, KOLO_ERR_SYSTEM, -1,
                                       "cannot accept a connection: %s (raise `ulimit -n`)",
                                       strerror(errno));
            return;
        }
        tcp->stranger_count++;
        stranger->deadline_ns = now_ns() + stranger_patience_ns;
        if (!came_by_own_address(tcp, stranger->fd)) {
            drop_stranger(tcp, i);
            continue;
        }
        if (secure(tcp, KOLO__SECURE_ACCEPTOR, stranger->fd, &stranger->secure) != KOLO_OK ||
            kolo__tcp_watch(tcp, EPOLL_CTL_ADD, stranger->fd,
                            EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, KOLO__TCP_STRANGER,
                            i) != KOLO_OK)
            drop_stranger(tcp, i);
    }
    /* The rest waits in the listener's queue, where it costs nothing. */
    set_accepting(tcp, tcp->stranger_count < KOLO__TCP_STRANGERS);
}

void kolo__tcp_advance_stranger(struct kolo__tcp *tcp, uint32_t index)
{
    struct kolo__tcp_stranger *stranger = &tcp->strangers[index];
    if (stranger->fd < 0)
        return;
    struct kolo__tcp_lane *lane = NULL;
    kolo_status status = kolo__secure_handshake(stranger->secure);
    if (status == KOLO_OK)
        status = gather(stranger->secure, stranger->incoming, &stranger->incoming_bytes,
                        KOLO__JOIN_BYTES);
    if (status == KOLO_OK)
        status = welcome(tcp, stranger, &lane);
    if (status == KOLO_AGAIN)
        return;
    KOLO__ASSERT(status != KOLO_OK || lane != NULL);
    if (status == KOLO_OK)
        status = kolo__tcp_watch(tcp, EPOLL_CTL_MOD, stranger->fd,
                                 EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, KOLO__TCP_LANE,
                                 (uint32_t)(lane - tcp->lanes));
    if (status == KOLO_OK)
        status = establish(tcp, lane, stranger->fd, stranger->secure);
    if (status == KOLO_OK) {
        stranger->fd = -1;
        stranger->secure = NULL;
        tcp->stranger_count--;
        set_accepting(tcp, true);
    } else {
        drop_stranger(tcp, index);
    }
}

/* Judges the introduction of somebody who knows the token, and answers. */
static kolo_status welcome(struct kolo__tcp *tcp, struct kolo__tcp_stranger *stranger,
                           struct kolo__tcp_lane **lane)
{
    struct kolo__join other;
    unsigned char answer[KOLO__JOIN_ANSWER_BYTES];
    kolo_status status = kolo__join_decode(stranger->incoming, &other);
    if (status != KOLO_OK)
        return status;
    enum kolo__join_verdict verdict = kolo__join_judge(&tcp->own, &other);
    struct kolo__tcp_peer *peer = NULL;
    if (verdict == KOLO__JOIN_ACCEPTED) {
        if (other.rank < other.size && other.rank > tcp->own.rank)
            peer = &tcp->peers[other.rank];
        if (peer != NULL && other.lanes != peer->lane_count)
            verdict = KOLO__JOIN_OTHER_LANES;
        else if (peer == NULL || peer->lanes[other.lane].state == KOLO__TCP_ESTABLISHED)
            verdict = KOLO__JOIN_BAD_RANK;
    }
    kolo__join_answer_encode(verdict, &tcp->own, answer);
    status = send_whole(stranger->secure, answer, sizeof answer);
    if (status != KOLO_OK)
        return status;
    char text[160];
    if (verdict != KOLO__JOIN_ACCEPTED)
        return kolo__error(KOLO_ERR_WORLD, "%s",
                           kolo__join_verdict_text(verdict, &tcp->own, &other, text, sizeof text));
    *lane = &peer->lanes[other.lane];
    return KOLO_OK;
}

/* Refused, with kolo_error_text. */
static void drop_stranger(struct kolo__tcp *tcp, uint32_t index)
{
    struct kolo__tcp_stranger *stranger = &tcp->strangers[index];
    kolo__refusals_log(&tcp->refusals, "data", &stranger->address, kolo_error_text());
    kolo__secure_free(stranger->secure);
    stranger->secure = NULL;
    close(stranger->fd);
    stranger->fd = -1;
    tcp->stranger_count--;
    set_accepting(tcp, true);
}

/* ---- time --------------------------------------------------------------------------------- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Returns when to look again. */
static uint64_t check_lane(struct kolo__tcp *tcp, struct kolo__tcp_lane *lane, uint64_t now)
{
    /* A host that answered is there, and so is a peer that has to connect by itself: their process
     * may be busy with something else for as long as an operation may take. */
    if (lane->state != KOLO__TCP_CONNECTING && lane->state != KOLO__TCP_PAUSED)
        return UINT64_MAX;
    uint64_t deadline_ns = tcp->peers[lane->peer].deadline_ns;
    if (now >= deadline_ns) {
        time_out(tcp, lane);
        return UINT64_MAX;
    }
    if (lane->state == KOLO__TCP_CONNECTING && now >= lane->attempt_deadline_ns) {
        kolo__error(KOLO_ERR_NETWORK, "no answer");
        fail_attempt(tcp, lane);
    }
    if (lane->state == KOLO__TCP_PAUSED && now >= lane->retry_ns)
        start_attempt(tcp, lane);
    if (lane->state == KOLO__TCP_CONNECTING)
        return earlier(deadline_ns, lane->attempt_deadline_ns);
    return lane->state == KOLO__TCP_PAUSED ? earlier(deadline_ns, lane->retry_ns) : deadline_ns;
}

uint64_t kolo__tcp_check_deadlines(struct kolo__tcp *tcp)
{
    uint64_t next = UINT64_MAX;
    if (tcp->wanted == 0 && tcp->stranger_count == 0)
        return next;
    uint64_t now = now_ns();
    /* A peer that is wanted has posts, so it is active. */
    for (uint32_t i = 0; tcp->wanted > 0 && i < tcp->stream.active_count; i++) {
        const struct kolo__tcp_peer *peer = &tcp->peers[tcp->stream.active[i]];
        for (uint32_t l = 0; !peer->established && l < peer->lane_count; l++)
            next = earlier(next, check_lane(tcp, &peer->lanes[l], now));
    }
    uint64_t cut = tcp->stranger_count == KOLO__TCP_STRANGERS ? crowd_cut_ns : 0;
    for (uint32_t i = 0; tcp->stranger_count > 0 && i < KOLO__TCP_STRANGERS; i++) {
        if (tcp->strangers[i].fd < 0)
            continue;
        if (now + cut >= tcp->strangers[i].deadline_ns) {
            kolo__error(KOLO_ERR_TIMEOUT, "it did not say who it is");
            drop_stranger(tcp, i);
        } else {
            next = earlier(next, tcp->strangers[i].deadline_ns - cut);
        }
    }
    return next;
}

static void time_out(struct kolo__tcp *tcp, const struct kolo__tcp_lane *lane)
{
    uint32_t index = lane->peer;
    char own[100], name[100], addresses[KOLO__ENDPOINT_TEXT_BYTES];
    const char *failure = lane->failure[0] != '\0' ? lane->failure : "no answer";
    double seconds = (double)tcp->connect_timeout_ns / 1e9;
    kolo__stream_peer_name(&tcp->stream, tcp->own.rank, own, sizeof own);
    kolo__stream_peer_name(&tcp->stream, index, name, sizeof name);
    kolo__endpoint_text(&tcp->peers[index].endpoint, addresses);
    kolo__stream_set_fault(&tcp->stream, KOLO_ERR_NETWORK, (int)index,
                           "%s " KOLO__UNREACHED_TEXT " %s at %s within %g s: %s. Hosts of a job reach each "
                           "other at all TCP ports: see whether a firewall (in Kubernetes a "
                           "NetworkPolicy) is between these two",
                           own, name, addresses, seconds, failure);
}
