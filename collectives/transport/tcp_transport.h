/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of the tcp transport, shared by the files that make it up:
 *
 *   tcp.c          the transport: sockets as pipes, events, sleeping
 *   tcp_connect.c  how connections come to be: connecting, accepting, both handshakes, deadlines
 */
#ifndef KOLO_COLLECTIVES_TRANSPORT_TCP_TRANSPORT_H
#define KOLO_COLLECTIVES_TRANSPORT_TCP_TRANSPORT_H

#include "base/auth.h"
#include "collectives/transport/join.h"
#include "collectives/transport/stream.h"
#include "collectives/transport/tcp.h"

enum {
    KOLO__TCP_STRANGERS = 64, /* accepted and not known yet, at most */
    /* What an acceptor waits for second: proof and join. */
    KOLO__TCP_INTRODUCTION_BYTES = KOLO__AUTH_PROOF_BYTES + KOLO__JOIN_BYTES,
};

/* A connection as its higher rank sees it; the lower knows IDLE, EXPECTED and ESTABLISHED. */
enum kolo__tcp_state {
    KOLO__TCP_IDLE,       /* nothing was posted yet */
    KOLO__TCP_EXPECTED,   /* the other side connects */
    KOLO__TCP_PAUSED,     /* the last attempt failed; the next comes at retry_ns */
    KOLO__TCP_CONNECTING, /* connect() is under way */
    KOLO__TCP_REPLY,      /* hello sent, reply expected */
    KOLO__TCP_ANSWER,     /* proof and join sent, answer expected */
    KOLO__TCP_ESTABLISHED,
};

struct kolo__tcp_peer {
    struct kolo__endpoint endpoint;
    uint32_t attempts; /* so far; each takes the next of the addresses */
    enum kolo__tcp_state state;
    int fd;                  /* -1: none */
    bool readable, writable; /* as far as known; events are edge-triggered */
    bool hangup;             /* the peer has closed its end */
    uint64_t deadline_ns;    /* to be established */
    uint64_t retry_ns, pause_ns;
    uint64_t
        attempt_deadline_ns; /* then the next address is tried; UINT64_MAX: it is the only one */
    struct kolo__auth auth;
    unsigned char incoming[KOLO__AUTH_REPLY_BYTES];
    size_t incoming_bytes;
    char failure[120]; /* of the last attempt */
};

struct kolo__tcp_stranger {
    int fd; /* -1: free */
    bool replied;
    uint64_t deadline_ns;
    struct kolo__address address;
    struct kolo__auth auth;
    unsigned char incoming[KOLO__TCP_INTRODUCTION_BYTES];
    size_t incoming_bytes;
};

/* In epoll_event.data: what, and which of them in the lower half. */
enum kolo__tcp_source {
    KOLO__TCP_LISTENER,
    KOLO__TCP_TIMER,
    KOLO__TCP_PEER,
    KOLO__TCP_STRANGER,
};

struct kolo__tcp {
    struct kolo__stream stream; /* first: see stream.h */
    struct kolo__join own;
    char *token;
    uint64_t connect_timeout_ns;
    struct kolo__tcp_peer *peers;
    uint32_t wanted; /* peers with a post and no connection */
    struct kolo__tcp_stranger strangers[KOLO__TCP_STRANGERS];
    uint32_t stranger_count;
    bool accepting;      /* the listener's events are on */
    bool refusal_logged; /* one line is enough */
    int listen_fd, epoll_fd, timer_fd;
    uint32_t calls; /* of progress */
};

kolo_status kolo__tcp_watch(struct kolo__tcp *tcp, int operation, int fd, uint32_t events,
                            enum kolo__tcp_source source, uint32_t index);

/* A post was made for a peer: sees to it that there will be a connection. */
void kolo__tcp_want(struct kolo__tcp *tcp, uint32_t peer);
void kolo__tcp_accept(struct kolo__tcp *tcp);
/* After an event, of a peer that is not established or of a stranger. */
void kolo__tcp_advance_peer(struct kolo__tcp *tcp, uint32_t peer);
void kolo__tcp_advance_stranger(struct kolo__tcp *tcp, uint32_t index);
/* Retries and gives up what is due. Returns the time of the next such thing, UINT64_MAX: none. */
uint64_t kolo__tcp_check_deadlines(struct kolo__tcp *tcp);

#endif
