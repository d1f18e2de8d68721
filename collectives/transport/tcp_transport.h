/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of the tcp transport, shared by the files that make it up:
 *
 *   tcp.c          the transport: sockets as pipes, events, sleeping
 *   tcp_lanes.c    several connections between two ranks: how many, by which addresses
 *   tcp_connect.c  how connections come to be: connecting, accepting, deadlines
 *   tcp_secure.c   connections that stay encrypted, as pipes
 */
#ifndef KOLO_COLLECTIVES_TRANSPORT_TCP_TRANSPORT_H
#define KOLO_COLLECTIVES_TRANSPORT_TCP_TRANSPORT_H

#include "base/interfaces.h"
#include "base/refusals.h"
#include "base/secure.h"
#include "base/silence.h"
#include "collectives/transport/join.h"
#include "collectives/transport/stream.h"
#include "collectives/transport/tcp.h"

enum {
    KOLO__TCP_STRANGERS = 64,       /* accepted and not known yet, at most */
    KOLO__TCP_RECORD_BYTES = 16384, /* the longest record of TLS */
    /* Each direction's bytes go to the lanes in turn, so many to each: enough for a call to be
     * worth while, and not much more than the send buffer of a new connection takes. Whoever has to
     * wait until a stripe fits uses one lane at a time. */
    KOLO__TCP_STRIPE_BYTES = 65536,
};

/* A connection as its higher rank sees it; the lower knows IDLE and ESTABLISHED. */
enum kolo__tcp_state {
    KOLO__TCP_IDLE,
    KOLO__TCP_PAUSED,     /* the last attempt failed; the next comes at retry_ns */
    KOLO__TCP_CONNECTING, /* connect() is under way */
    KOLO__TCP_HANDSHAKE,  /* both ends prove the token */
    KOLO__TCP_ANSWER,     /* join sent, answer expected */
    KOLO__TCP_ESTABLISHED,
};

/* One connection of those between two ranks, which are numbered alike on both. */
struct kolo__tcp_lane {
    uint32_t peer, number;
    uint32_t attempts; /* so far; each takes the next of the peer's addresses */
    enum kolo__tcp_state state;
    int fd;                  /* -1: none */
    bool readable, writable; /* as far as known; events are edge-triggered */
    struct kolo__silence silence;
    uint64_t retry_ns, pause_ns;
    uint64_t
        attempt_deadline_ns; /* then the next address is tried; UINT64_MAX: it is the only one */
    struct kolo__secure *secure; /* NULL: not yet, or the connection is plain by now */
    unsigned char incoming[KOLO__JOIN_ANSWER_BYTES];
    size_t incoming_bytes;
    char failure[120]; /* of the last attempt */
};

/* Where the next byte of a direction goes, or comes from. */
struct kolo__tcp_turn {
    uint32_t lane;
    size_t left; /* of its stripe */
};

/* All lanes, or none, carry data: they are in use when the last is established. */
struct kolo__tcp_peer {
    struct kolo__endpoint endpoint;
    struct kolo__tcp_lane *lanes;
    uint32_t lane_count, established_count;
    bool wanted;          /* something was posted */
    bool established;     /* all lanes are */
    bool hangup;          /* the peer has closed its end of a lane */
    bool broken;          /* a lane has failed, perhaps another than those whose turn it is */
    int failure;          /* errno of the lane that failed, where an event took it; or 0 */
    uint32_t failed_lane; /* that one */
    uint64_t deadline_ns; /* to be established */
    struct kolo__tcp_turn out, in;
};

struct kolo__tcp_stranger {
    int fd; /* -1: free */
    uint64_t deadline_ns;
    struct kolo__address address;
    struct kolo__secure *secure;
    unsigned char incoming[KOLO__JOIN_BYTES];
    size_t incoming_bytes;
};

/* In epoll_event.data: what, and which of them in the lower half. */
enum kolo__tcp_source {
    KOLO__TCP_LISTENER,
    KOLO__TCP_TIMER,
    KOLO__TCP_LANE,
    KOLO__TCP_STRANGER,
};

struct kolo__tcp {
    struct kolo__stream stream; /* first: see stream.h */
    struct kolo__join own;
    struct kolo__credentials *credentials;
    bool encrypt, quiet;
    unsigned char *record; /* to put one together; NULL: nothing is encrypted */
    uint64_t connect_timeout_ns;
    long silence_s; /* 0: no looks at all */
    uint64_t silence_looked_ns;
    struct kolo__tcp_peer *peers;
    struct kolo__tcp_lane *lanes; /* of all peers */
    uint32_t lane_count;
    struct kolo__interfaces own_interfaces;
    uint32_t wanted; /* peers with a post and no connection */
    struct kolo__tcp_stranger strangers[KOLO__TCP_STRANGERS];
    uint32_t stranger_count;
    bool accepting; /* the listener's events are on */
    struct kolo__refusals refusals;
    int listen_fd, epoll_fd, timer_fd;
    uint32_t calls; /* of progress */
};

kolo_status kolo__tcp_watch(struct kolo__tcp *tcp, int operation, int fd, uint32_t events,
                            enum kolo__tcp_source source, uint32_t index);

/* A post was made for a peer: sees to it that there will be a connection. */
void kolo__tcp_want(struct kolo__tcp *tcp, uint32_t peer);
void kolo__tcp_accept(struct kolo__tcp *tcp);
/* After an event, of a lane that is not established or of a stranger. */
void kolo__tcp_advance_lane(struct kolo__tcp *tcp, struct kolo__tcp_lane *lane);
void kolo__tcp_advance_stranger(struct kolo__tcp *tcp, uint32_t index);

/* As the slots of struct kolo__pipe_ops, of an established lane that stays encrypted.
 * *would_block: everything that can move now has moved. */
kolo_status kolo__tcp_write_secure(struct kolo__tcp *tcp, struct kolo__tcp_lane *lane,
                                   const struct iovec *parts, int part_count, size_t *moved,
                                   bool *would_block);
kolo_status kolo__tcp_read_secure(struct kolo__tcp_lane *lane, const struct iovec *parts,
                                  int part_count, size_t *moved, bool *would_block);
/* Retries and gives up what is due. Returns the time of the next such thing, UINT64_MAX: none. */
uint64_t kolo__tcp_check_deadlines(struct kolo__tcp *tcp);

/* Makes the lanes of all peers. */
kolo_status kolo__tcp_create_lanes(struct kolo__tcp *tcp, uint32_t size, uint32_t streams);
/* Where the lane's last attempt goes, and from where (NULL: from anywhere). */
const struct kolo__address *kolo__tcp_lane_address(const struct kolo__tcp *tcp,
                                                   const struct kolo__tcp_lane *lane);
const struct kolo__address *kolo__tcp_lane_source(const struct kolo__tcp *tcp,
                                                  const struct kolo__tcp_lane *lane);
/* Says (KOLO__LOG_INFO) by which addresses a peer is connected. */
void kolo__tcp_log_lanes(const struct kolo__tcp *tcp, uint32_t peer);

#endif
