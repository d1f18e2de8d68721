/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages over TCP. While a caller spins, sockets are simply tried; events (edge-triggered epoll)
 * tell which ones to try when there are many, and are what a sleeper waits for.
 *
 * A host that vanished is noticed by who sleeps (base/silence.h), within the time that the options
 * say, or by the control plane.
 */
#include "collectives/transport/tcp.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/status.h"
#include "collectives/transport/tcp_transport.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum {
    /* Up to this many busy peers, trying their sockets is cheaper than asking for events. */
    FEW_PEERS = 2,
    /* Even then events are taken now and then: somebody may want to connect. */
    CALLS_PER_LOOK = 64,
};
static const size_t longest_call_bytes = (size_t)1 << 30;

static const struct kolo__transport_ops transport_ops;
static const struct kolo__pipe_ops socket_ops;

static kolo_status open_descriptors(struct kolo__tcp *tcp);
static void close_tcp(struct kolo__transport *transport);
static void take_events(struct kolo__tcp *tcp);

kolo_status kolo__tcp_create(const struct kolo__tcp_options *options,
                             struct kolo__transport **transport)
{
    struct kolo__tcp *tcp = calloc(1, sizeof *tcp);
    if (tcp == NULL) {
        close(options->listen_fd);
        return kolo__error(KOLO_ERR_MEMORY, "no memory for a communicator of %u ranks",
                           options->size);
    }
    tcp->listen_fd = options->listen_fd;
    tcp->epoll_fd = tcp->timer_fd = -1;
    tcp->connect_timeout_ns = options->connect_timeout_ns;
    tcp->silence_s = options->silence_s;
    tcp->stream.transport.ops = &transport_ops;
    tcp->own = (struct kolo__join){.epoch = options->epoch,
                                   .comm = options->comm,
                                   .rank = options->rank,
                                   .size = options->size};
    for (uint32_t i = 0; i < KOLO__TCP_STRANGERS; i++)
        tcp->strangers[i].fd = -1;

    size_t job_bytes = strlen(options->job);
    kolo_status status = KOLO_OK;
    if (job_bytes >= sizeof tcp->own.job) {
        status = kolo__error(KOLO_ERR_INVALID, "the job id has %zu bytes, up to %zu are allowed",
                             job_bytes, sizeof tcp->own.job - 1);
        goto close_all;
    }
    memcpy(tcp->own.job, options->job, job_bytes);
    tcp->encrypt = options->encrypt;
    tcp->quiet = options->quiet;
    tcp->peers = calloc(options->size, sizeof *tcp->peers);
    if (options->encrypt)
        tcp->record = malloc(KOLO__TCP_RECORD_BYTES);
    if (tcp->peers == NULL || (options->encrypt && tcp->record == NULL)) {
        status = kolo__error(KOLO_ERR_MEMORY, "no memory for %u connections", options->size);
        goto close_all;
    }
    for (uint32_t peer = 0; peer < options->size; peer++)
        tcp->peers[peer].endpoint = options->endpoints[peer];
    if (options->own_interfaces != NULL)
        tcp->own_interfaces = *options->own_interfaces;
    status = kolo__tcp_create_lanes(tcp, options->size, options->streams);
    if (status != KOLO_OK)
        goto close_all;
    status = kolo__credentials_create(KOLO__PURPOSE_DATA, options->job, options->token,
                                      &tcp->credentials);
    if (status == KOLO_OK)
        status = kolo__stream_init(&tcp->stream, options->rank, options->size, options->hosts,
                                   &socket_ops);
    /* TLS finds every change by itself. */
    tcp->stream.checksum = options->checksum && !options->encrypt;
    if (status == KOLO_OK)
        status = open_descriptors(tcp);
    if (status != KOLO_OK)
        goto close_all;
    *transport = &tcp->stream.transport;
    return KOLO_OK;

close_all:
    close_tcp(&tcp->stream.transport);
    return status;
}

static kolo_status open_descriptors(struct kolo__tcp *tcp)
{
    tcp->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    tcp->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (tcp->epoll_fd < 0 || tcp->timer_fd < 0)
        return kolo__error_errno(errno, "cannot make descriptors to wait for connections");
    kolo_status status =
        kolo__tcp_watch(tcp, EPOLL_CTL_ADD, tcp->listen_fd, EPOLLIN, KOLO__TCP_LISTENER, 0);
    tcp->accepting = status == KOLO_OK;
    if (status == KOLO_OK)
        status = kolo__tcp_watch(tcp, EPOLL_CTL_ADD, tcp->timer_fd, EPOLLIN, KOLO__TCP_TIMER, 0);
    return status;
}

static void close_if_open(int fd)
{
    if (fd >= 0)
        close(fd);
}

static void close_tcp(struct kolo__transport *transport)
{
    struct kolo__tcp *tcp = (struct kolo__tcp *)(void *)transport;
    kolo__stream_release(&tcp->stream);
    for (uint32_t i = 0; i < tcp->lane_count; i++) {
        kolo__secure_free(tcp->lanes[i].secure);
        close_if_open(tcp->lanes[i].fd);
    }
    for (uint32_t i = 0; i < KOLO__TCP_STRANGERS; i++) {
        kolo__secure_free(tcp->strangers[i].secure);
        close_if_open(tcp->strangers[i].fd);
    }
    close_if_open(tcp->listen_fd);
    close_if_open(tcp->timer_fd);
    close_if_open(tcp->epoll_fd);
    free(tcp->peers);
    free(tcp->lanes);
    kolo__credentials_free(tcp->credentials);
    free(tcp->record);
    free(tcp);
}

/* ---- sockets as pipes --------------------------------------------------------------------- */

/* The first bytes of the parts, `left` at most. */
static int limit_parts(const struct iovec *parts, int part_count, size_t left,
                       struct iovec limited[KOLO__PIPE_PARTS_MAX])
{
    KOLO__ASSERT(part_count <= KOLO__PIPE_PARTS_MAX);
    int count = 0;
    for (; count < part_count && left > 0; count++) {
        limited[count] = parts[count];
        if (limited[count].iov_len > left)
            limited[count].iov_len = left;
        left -= limited[count].iov_len;
    }
    return count;
}

/* Which of several networks it was, by this host's address there: a broken connection still knows
 * that one. */
static const char *own_end(const struct kolo__tcp_lane *lane, char text[80])
{
    struct kolo__address own = {.length = sizeof own.storage};
    getsockname(lane->fd, (struct sockaddr *)&own.storage, &own.length);
    return kolo__address_text(&own, text, 80);
}

static kolo_status broken(const struct kolo__tcp_lane *lane, int failure)
{
    char own[80];
    if (kolo__silence_is_errno(failure))
        return kolo__error(KOLO_ERR_PEER_LOST, "its host " KOLO__SILENCE_TEXT " (%s, from %s)",
                           strerror(failure), own_end(lane, own));
    return kolo__error(KOLO_ERR_PEER_LOST, "the connection broke: %s", strerror(failure));
}

/* What an event told before the call that finds a connection at its end. */
static kolo_status ended(const struct kolo__tcp_peer *peer, const char *how)
{
    if (peer->failure != 0)
        return broken(&peer->lanes[peer->failed_lane], peer->failure);
    return kolo__error(KOLO_ERR_PEER_LOST, "%s", how);
}

static bool few_peers(const struct kolo__stream *stream)
{
    return stream->active_count <= FEW_PEERS;
}

/* How many bytes may move by the lane whose turn it is. */
static size_t longest_move(const struct kolo__tcp_peer *peer, const struct kolo__tcp_turn *turn)
{
    return peer->lane_count == 1 ? longest_call_bytes : turn->left;
}

static void pass_turn(const struct kolo__tcp_peer *peer, struct kolo__tcp_turn *turn, size_t moved)
{
    if (peer->lane_count == 1)
        return;
    turn->left -= moved;
    if (turn->left > 0)
        return;
    turn->left = KOLO__TCP_STRIPE_BYTES;
    turn->lane = (turn->lane + 1) % peer->lane_count;
}

static kolo_status write_socket(struct kolo__stream *stream, uint32_t index,
                                const struct iovec *parts, int part_count, size_t *moved)
{
    struct kolo__tcp_peer *peer = &((struct kolo__tcp *)(void *)stream)->peers[index];
    if (!peer->established)
        return KOLO_OK;
    struct kolo__tcp_lane *lane = &peer->lanes[peer->out.lane];
    if (!lane->writable && !few_peers(stream))
        return KOLO_OK;
    /* The socket would still take bytes, which nobody would ever read. */
    if (peer->hangup)
        return ended(peer, "it closed the connection");
    struct iovec limited[KOLO__PIPE_PARTS_MAX];
    int count = limit_parts(parts, part_count, longest_move(peer, &peer->out), limited);
    if (lane->secure != NULL) {
        bool would_block = false;
        kolo_status status = kolo__tcp_write_secure((struct kolo__tcp *)(void *)stream, lane,
                                                    limited, count, moved, &would_block);
        lane->writable = !would_block;
        pass_turn(peer, &peer->out, *moved);
        return status;
    }
    struct msghdr message = {.msg_iov = limited, .msg_iovlen = (size_t)count};
    ssize_t sent;
    do
        sent = sendmsg(lane->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && errno != EAGAIN)
        return broken(lane, errno);
    lane->writable = sent >= 0;
    *moved = sent > 0 ? (size_t)sent : 0;
    pass_turn(peer, &peer->out, *moved);
    return KOLO_OK;
}

/* The lane whose turn it is has nothing; if another has failed, that is all there will be. */
static kolo_status check_lanes(const struct kolo__tcp_peer *peer)
{
    return peer->broken ? ended(peer, "a connection broke") : KOLO_OK;
}

static kolo_status read_socket(struct kolo__stream *stream, uint32_t index,
                               const struct iovec *parts, int part_count, size_t *moved)
{
    struct kolo__tcp_peer *peer = &((struct kolo__tcp *)(void *)stream)->peers[index];
    if (!peer->established)
        return KOLO_OK;
    struct kolo__tcp_lane *lane = &peer->lanes[peer->in.lane];
    if (!lane->readable && !few_peers(stream))
        return check_lanes(peer);
    struct iovec limited[KOLO__PIPE_PARTS_MAX];
    int count = limit_parts(parts, part_count, longest_move(peer, &peer->in), limited);
    if (lane->secure != NULL) {
        bool would_block = false;
        kolo_status status = kolo__tcp_read_secure(lane, limited, count, moved, &would_block);
        lane->readable = !would_block;
        pass_turn(peer, &peer->in, *moved);
        return status == KOLO_OK && *moved == 0 ? check_lanes(peer) : status;
    }
    struct msghdr message = {.msg_iov = limited, .msg_iovlen = (size_t)count};
    ssize_t received;
    do
        received = recvmsg(lane->fd, &message, MSG_DONTWAIT);
    while (received < 0 && errno == EINTR);
    if (received == 0)
        return ended(peer, "it closed the connection");
    if (received < 0 && errno != EAGAIN)
        return broken(lane, errno);
    lane->readable = received > 0;
    *moved = received > 0 ? (size_t)received : 0;
    pass_turn(peer, &peer->in, *moved);
    return received > 0 ? KOLO_OK : check_lanes(peer);
}

static const struct kolo__pipe_ops socket_ops = {
    .write = write_socket,
    .read = read_socket,
    .read_ahead_bytes = 2048,
    .short_message_bytes = 8192,
    .stop = kolo__pipe_lends_nothing,
};

static void post_send(struct kolo__transport *transport, uint32_t peer, struct kolo__post *post)
{
    if (transport->fault.status == KOLO_OK)
        kolo__tcp_want((struct kolo__tcp *)(void *)transport, peer);
    kolo__stream_post_send(transport, peer, post);
}

static void post_recv(struct kolo__transport *transport, uint32_t peer, struct kolo__post *post)
{
    if (transport->fault.status == KOLO_OK)
        kolo__tcp_want((struct kolo__tcp *)(void *)transport, peer);
    kolo__stream_post_recv(transport, peer, post);
}

/* ---- events ------------------------------------------------------------------------------- */

kolo_status kolo__tcp_watch(struct kolo__tcp *tcp, int operation, int fd, uint32_t events,
                            enum kolo__tcp_source source, uint32_t index)
{
    struct epoll_event event = {.events = events, .data.u64 = (uint64_t)source << 32 | index};
    if (epoll_ctl(tcp->epoll_fd, operation, fd, &event) != 0)
        return kolo__error_errno(errno, "cannot watch a connection");
    return KOLO_OK;
}

static void take_lane_event(struct kolo__tcp *tcp, struct kolo__tcp_lane *lane, uint32_t events)
{
    struct kolo__tcp_peer *peer = &tcp->peers[lane->peer];
    lane->readable = lane->writable = true;
    if (lane->state != KOLO__TCP_ESTABLISHED) {
        kolo__tcp_advance_lane(tcp, lane);
        return;
    }
    /* Who leaves closes one lane after the other, and what it sent before may still be on its way
     * by others: that is no failure yet. */
    peer->hangup |= (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    if ((events & EPOLLERR) == 0)
        return;
    int failure = 0;
    socklen_t bytes = sizeof failure;
    peer->broken = true;
    if (getsockopt(lane->fd, SOL_SOCKET, SO_ERROR, &failure, &bytes) == 0 && failure != 0) {
        peer->failure = failure;
        peer->failed_lane = lane->number;
    }
}

bool kolo__tcp_hangup(const struct kolo__transport *transport, uint32_t peer)
{
    return ((const struct kolo__tcp *)(const void *)transport)->peers[peer].hangup;
}

static void take_event(struct kolo__tcp *tcp, const struct epoll_event *event)
{
    uint32_t index = (uint32_t)event->data.u64;
    uint64_t expirations;
    ssize_t ignored;
    switch ((enum kolo__tcp_source)(event->data.u64 >> 32)) {
    case KOLO__TCP_LISTENER:
        kolo__tcp_accept(tcp);
        break;
    case KOLO__TCP_TIMER:
        ignored = read(tcp->timer_fd, &expirations, sizeof expirations);
        (void)ignored; /* it only has to become unreadable */
        break;
    case KOLO__TCP_STRANGER:
        kolo__tcp_advance_stranger(tcp, index);
        break;
    case KOLO__TCP_LANE:
        take_lane_event(tcp, &tcp->lanes[index], event->events);
        break;
    }
}

static void take_events(struct kolo__tcp *tcp)
{
    struct epoll_event events[32];
    int count;
    do {
        count = epoll_wait(tcp->epoll_fd, events, 32, 0);
        for (int i = 0; i < count; i++)
            take_event(tcp, &events[i]);
    } while (count == 32);
}

static bool progress(struct kolo__transport *transport)
{
    struct kolo__tcp *tcp = (struct kolo__tcp *)(void *)transport;
    bool connecting = tcp->wanted > 0 || tcp->stranger_count > 0;
    if (connecting || !few_peers(&tcp->stream) || ++tcp->calls % CALLS_PER_LOOK == 0) {
        take_events(tcp);
        kolo__tcp_check_deadlines(tcp);
    }
    return kolo__stream_progress(&tcp->stream);
}

/* ---- sleeping ----------------------------------------------------------------------------- */

static bool sockets_ready(const struct kolo__tcp *tcp)
{
    for (uint32_t i = 0; i < tcp->stream.active_count; i++) {
        uint32_t index = tcp->stream.active[i];
        const struct kolo__stream_peer *pending = &tcp->stream.peers[index];
        const struct kolo__tcp_peer *peer = &tcp->peers[index];
        if (peer->established && ((pending->recvs.first != NULL &&
                                   (peer->lanes[peer->in.lane].readable || peer->broken)) ||
                                  (pending->sends.first != NULL &&
                                   (peer->lanes[peer->out.lane].writable || peer->hangup))))
            return true;
    }
    return false;
}

static void set_silent(struct kolo__tcp *tcp, uint32_t index, const struct kolo__tcp_lane *lane)
{
    char name[100], own[80];
    kolo__stream_set_fault(&tcp->stream, KOLO_ERR_PEER_LOST, (int)index,
                           "%s: nothing was heard from its host for %ld s; it " KOLO__SILENCE_TEXT
                           " (from %s)",
                           kolo__stream_peer_name(&tcp->stream, index, name, sizeof name),
                           tcp->silence_s, own_end(lane, own));
}

/* Of peers with posts; for the others somebody else waits, or nobody. */
static void check_silence(struct kolo__tcp *tcp)
{
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    if (tcp->silence_s == 0 ||
        now_ns < tcp->silence_looked_ns + kolo__silence_pause_ns(tcp->silence_s))
        return;
    tcp->silence_looked_ns = now_ns;
    for (uint32_t i = 0; i < tcp->stream.active_count; i++) {
        uint32_t index = tcp->stream.active[i];
        struct kolo__tcp_peer *peer = &tcp->peers[index];
        const struct kolo__tcp_lane *silent = NULL;
        for (uint32_t l = 0; peer->established && l < peer->lane_count; l++)
            if (kolo__silence_check(&peer->lanes[l].silence, peer->lanes[l].fd, tcp->silence_s,
                                    now_ns))
                silent = &peer->lanes[l];
        if (silent != NULL)
            set_silent(tcp, index, silent);
    }
}

static bool arm(struct kolo__transport *transport)
{
    struct kolo__tcp *tcp = (struct kolo__tcp *)(void *)transport;
    take_events(tcp);
    uint64_t next = kolo__tcp_check_deadlines(tcp);
    check_silence(tcp);
    if (kolo__stream_has_work(&tcp->stream) || sockets_ready(tcp))
        return false;
    struct itimerspec alarm = {{0}};
    if (next != UINT64_MAX) {
        alarm.it_value.tv_sec = (time_t)(next / 1000000000);
        alarm.it_value.tv_nsec = (long)(next % 1000000000);
    }
    timerfd_settime(tcp->timer_fd, TFD_TIMER_ABSTIME, &alarm, NULL);
    return true;
}

static void disarm(struct kolo__transport *transport)
{
    (void)transport; /* events stay queued until progress or arm takes them */
}

static int wait_fd(struct kolo__transport *transport)
{
    return ((struct kolo__tcp *)(void *)transport)->epoll_fd;
}

static const struct kolo__transport_ops transport_ops = {
    .name = "tcp",
    .post_send = post_send,
    .post_recv = post_recv,
    .progress = progress,
    .arm = arm,
    .disarm = disarm,
    .wait_fd = wait_fd,
    .nap = kolo__transport_never_naps,
    .takes_gpu = kolo__transport_takes_no_gpu,
    .fail = kolo__stream_fail,
    .close = close_tcp,
};
