/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of the rdma transport, shared by the files that make it up:
 *
 *   rdma.c           the transport: progress, sleeping, faults
 *   rdma_ring.c      rings as pipes: writes, credits, completions
 *   rdma_connect.c   how two ranks connect
 *
 * Each direction between two ranks is a ring in the receiver's registered memory, and a stage of
 * the same length in the sender's. A byte has the same place in both:
 *
 *      sender's stage                                receiver's ring
 *      | free | under way or unread | free |  ---->  | free | came, unread | not yet | free |
 *             head                  tail                    head           tail
 *
 * One work request carries up to a piece of following bytes, header of a message and payload alike:
 * RDMA WRITE WITH IMMEDIATE, whose immediate says how many bytes came. So many as the card takes
 * inline go from where they are; others are copied into the stage first, because a message is done
 * for its sender when it has gone, not when it has come.
 *
 * The receiver returns credit by an empty write the other way, whose immediate says how many bytes
 * it has read, and how many writes it has taken (each uses up a receive request), since the last.
 * It is no plain write into the sender's memory, because that would wake no sleeper.
 *
 *      immediate   0 | bytes that came: 31
 *                  1 | writes taken: 7 | bytes read: 24
 *
 * Credit is returned for a quarter of the ring or of the writes, so a sender that lacks either gets
 * some as soon as what it wrote was read: a piece is less than what is left then. And there are
 * never more than 2 * 4 credits which the sender has not seen. Neither end ever sends what the
 * other has no receive request for.
 *
 * A message of n bytes, header included, costs ceil(n / KOLO__RDMA_PIECE_BYTES) writes, more only
 * where the ring ends within it: it is cut there (kolo__rdma_writes_of). Credits come on top, one
 * at most for each quarter of the ring and each quarter of the writes.
 */
#ifndef KOLO_COLLECTIVES_TRANSPORT_RDMA_TRANSPORT_H
#define KOLO_COLLECTIVES_TRANSPORT_RDMA_TRANSPORT_H

#include "collectives/transport/rdma.h"
#include "collectives/transport/stream.h"

enum {
    KOLO__RDMA_RING_BYTES = 1 << 20, /* power of two, less than 2^24 */
    KOLO__RDMA_PIECE_BYTES = 1 << 17,
    KOLO__RDMA_WRITES_MAX = 64, /* that the receiver has not taken; less than 2^7 */
    KOLO__RDMA_CREDIT_BYTES = KOLO__RDMA_RING_BYTES / 4,
    KOLO__RDMA_CREDIT_WRITES = KOLO__RDMA_WRITES_MAX / 4,
    /* Writes, credits that this rank may not have seen, and the one that asks for the end. */
    KOLO__RDMA_RECEIVES = KOLO__RDMA_WRITES_MAX + 8 + 1,
    /* Every so manieth work request tells that it is done, and so are those before it. */
    KOLO__RDMA_SIGNAL_EVERY = 16,
    KOLO__RDMA_SENDS = 128,
    KOLO__RDMA_SENDS_KEPT = 32, /* of them for credits */
    KOLO__RDMA_INLINE_BYTES = 256,
    KOLO__RDMA_HELLO_BYTES = 64,
};

enum kolo__rdma_state {
    KOLO__RDMA_IDLE,
    KOLO__RDMA_HELLO, /* both tell how their end is reached */
    KOLO__RDMA_READY, /* the own end is connected; both tell so, for nothing may come before */
    KOLO__RDMA_ESTABLISHED,
};

struct kolo__rdma_peer {
    enum kolo__rdma_state state;
    struct kolo__rdma_link *link;
    struct kolo__rdma_region *region; /* of memory */
    unsigned char *memory;            /* ring, then stage */
    uint32_t own_key, inline_bytes, first_packet;
    /* Over the TCP connection. */
    struct kolo__post hello_out, hello_in, ready_out, ready_in;
    unsigned char own_hello[KOLO__RDMA_HELLO_BYTES], their_hello[KOLO__RDMA_HELLO_BYTES];
    unsigned char their_gid[KOLO__RDMA_GID_BYTES];
    uint32_t their_lid;
    /* Out. */
    uint64_t their_ring;
    uint32_t their_key;
    uint64_t out_head, out_tail;
    bool blocked;                  /* the next piece has no room before more credit comes */
    uint32_t writes_under_way;     /* that the peer has not taken, as far as is known here */
    uint64_t posted;               /* work requests */
    uint64_t signalled, confirmed; /* of them, that tell; that have told */
    /* In. */
    uint64_t in_head, in_tail;
    uint32_t bytes_owed, writes_owed; /* credit to return */
    /* The link is broken: who still has something for this peer learns it. */
    kolo_status failure;
    char failure_text[300];
};

struct kolo__rdma {
    struct kolo__stream stream; /* first: see stream.h */
    const struct kolo__rdma_module *module;
    struct kolo__rdma_options options;
    struct kolo__rdma_port port;
    struct kolo__rdma_gid gid;
    bool has_gid;
    struct kolo__transport *tcp;
    struct kolo__signature hello_signature, ready_signature;
    struct kolo__rdma_device *device;
    struct kolo__rdma_peer *peers;
    uint32_t connecting;                 /* peers */
    uint64_t patience_ns, down_since_ns; /* 0: the port is up */
    uint32_t calls;                      /* of progress */
    int epoll_fd;
    struct kolo__rdma_counts counts;
};

extern const struct kolo__pipe_ops kolo__rdma_ring_ops;

/* A post was made for a peer: sees to it that there will be a connection. */
void kolo__rdma_want(struct kolo__rdma *rdma, uint32_t peer);
/* Takes what has come over TCP. True: something did. */
bool kolo__rdma_advance(struct kolo__rdma *rdma);
/* Gives back what a peer's connection has taken. */
void kolo__rdma_disconnect(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer);

/* The writes that a message of so many bytes, header included, is cut into when the ring has got to
 * position. */
uint64_t kolo__rdma_writes_of(uint64_t position, uint64_t bytes);

/* Takes what the device tells of itself. */
void kolo__rdma_take_trouble(struct kolo__rdma *rdma);
/* Takes what the card has done. True: something. */
bool kolo__rdma_take_completions(struct kolo__rdma *rdma);
/* A pending post can go on. */
bool kolo__rdma_rings_ready(const struct kolo__rdma *rdma);
/* Waits until what was written has come, or nobody answers. */
void kolo__rdma_drain(struct kolo__rdma *rdma);

/* "rxe0 port 1, GID ...", of this end; returns text. */
const char *kolo__rdma_own_text(const struct kolo__rdma *rdma,
                                char text[KOLO__RDMA_CHOICE_TEXT_BYTES]);

#endif
