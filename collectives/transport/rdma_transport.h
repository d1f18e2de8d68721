/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of the rdma transport, shared by the files that make it up:
 *
 *   rdma.c           the transport: progress, sleeping, faults
 *   rdma_ring.c      rings as pipes
 *   rdma_long.c      long messages: from and into the callers' memory
 *   rdma_rail.c      what is written, credits, completions
 *   rdma_connect.c   how two ranks connect
 *   rdma_memory.c    blocks of kolo_alloc that the devices know
 *   rdma_gpus.c      memory of GPUs that the devices know
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
 * A message that needs more than one write is a *long* one (without checksums: they stand between
 * its bytes). Its header goes into the ring as others do. Then it waits for the receiver's *offer*,
 * a small write that says where the receiver wants it:
 *
 *   straight   both ends have it in memory of kolo_alloc, or of a GPU that the cards reach: the
 *              sender's card reads it there, and writes it there, in pieces that the rails take in
 *              turn. Nobody copies.
 *   lent       only the sender has: pieces go into the ring from the caller's memory
 *   staged     neither, or only the receiver has: pieces go as those of short messages do
 *
 * The offer also says which message is expected (a digest of its signature), so that what does not
 * fit, which the header tells the receiver, is never written straight. Straight and lent messages
 * are done for their sender when its card says that they have come.
 *
 *      the ring, as the receiver reads it      | header | header, payload | header | ...
 *                                                       ^                          ^
 *                                       straight payload comes in here      and another
 *
 * The receiver returns credit by an empty write the other way, whose immediate says how many bytes
 * it has read, and how many writes it has taken (each uses up a receive request), since the last.
 * It is no plain write into the sender's memory, because that would wake no sleeper.
 *
 *      immediate   0 | bytes that came into the ring: 30
 *                  1 | 0 | offer that a straight piece was for: 3
 *                  2 | writes taken: 7 | bytes read: 23
 *                  3 | an offer was made
 *
 * Credit is returned for a quarter of the ring or of the writes, so a sender that lacks either gets
 * some as soon as what it wrote was read: a piece is less than what is left then. And there are
 * never more than 2 * 4 credits which the sender has not seen, nor more offers than there is room
 * for, because a message that was offered to comes only after its sender has seen that. Neither end
 * ever sends what the other has no receive request for.
 *
 * A *rail* is one connection: between a pair of ports, of which two ranks may have several.
 * Everything goes by the first but what is written straight; each rail has credit of its own for
 * its writes.
 *
 * A short message of n bytes, header included, costs one write, two where the ring ends within it
 * (kolo__rdma_writes_of_message). A long one costs its header, an offer the other way, and as many
 * writes as its payload has pieces: of KOLO__RDMA_STRAIGHT_BYTES each straight, else of the ring's.
 * Credits come on top, one at most for each quarter of the ring and each quarter of the writes.
 */
#ifndef KOLO_COLLECTIVES_TRANSPORT_RDMA_TRANSPORT_H
#define KOLO_COLLECTIVES_TRANSPORT_RDMA_TRANSPORT_H

#include "collectives/transport/rdma.h"
#include "collectives/transport/rdma_gpus.h"
#include "collectives/transport/rdma_memory.h"
#include "collectives/transport/stream.h"

enum {
    KOLO__RDMA_RING_BYTES = 1 << 20, /* power of two, less than 2^23 */
    KOLO__RDMA_PIECE_BYTES = 1 << 17,
    KOLO__RDMA_STRAIGHT_BYTES = 1 << 18,
    KOLO__RDMA_WRITES_MAX = 64, /* that the receiver has not taken; less than 2^7 */
    KOLO__RDMA_CREDIT_BYTES = KOLO__RDMA_RING_BYTES / 4,
    KOLO__RDMA_CREDIT_WRITES = KOLO__RDMA_WRITES_MAX / 4,
    KOLO__RDMA_OFFERS_MAX = 8, /* power of two */
    KOLO__RDMA_OFFER_BYTES = 64,
    /* Writes, credits and offers that this rank may not have seen, and the one that asks for the
     * end. */
    KOLO__RDMA_RECEIVES = KOLO__RDMA_WRITES_MAX + 8 + KOLO__RDMA_OFFERS_MAX + 1,
    /* Every so manieth work request tells that it is done, and so are those before it. */
    KOLO__RDMA_SIGNAL_EVERY = 16,
    KOLO__RDMA_SENDS = 128,     /* power of two */
    KOLO__RDMA_SENDS_KEPT = 32, /* of them for credits and offers */
    KOLO__RDMA_INLINE_BYTES = 256,
    KOLO__RDMA_HELLO_BYTES = 256,
    /* Of a pair of ranks: what the receiver's side of a connection takes. Ring, stage, offers that
     * came, offers made. */
    KOLO__RDMA_OFFERS_AT = 2 * KOLO__RDMA_RING_BYTES,
    KOLO__RDMA_OWN_OFFERS_AT =
        KOLO__RDMA_OFFERS_AT + KOLO__RDMA_OFFERS_MAX * KOLO__RDMA_OFFER_BYTES,
    KOLO__RDMA_MEMORY_BYTES = KOLO__RDMA_OFFERS_AT + 4096,
};

enum kolo__rdma_state {
    KOLO__RDMA_IDLE,
    KOLO__RDMA_HELLO,  /* both tell how their end is reached */
    KOLO__RDMA_READY,  /* the own end is connected; both tell so, for nothing may come before */
    KOLO__RDMA_TRYING, /* the other rails than the first */
    KOLO__RDMA_ESTABLISHED,
};

struct kolo__rdma_rail {
    struct kolo__rdma_link *link;
    uint32_t inline_bytes, first_packet;
    unsigned char their_gid[KOLO__RDMA_GID_BYTES];
    /* Out. */
    uint64_t posted, done;         /* work requests; of them, as far as is known here */
    uint64_t signalled, confirmed; /* of them, that tell; that have told */
    struct kolo__rdma_signal {
        uint64_t posted; /* when it was the last */
        uint32_t lent;   /* the last of this rail for a lent message: its place in
                            kolo__rdma_peer.lent; UINT32_MAX: of none */
    } signals[KOLO__RDMA_SENDS];
    uint32_t writes_under_way; /* that the peer has not taken, as far as is known here */
    /* In: credit to return. */
    uint32_t writes_owed;
};

enum kolo__rdma_way { KOLO__RDMA_STAGED, KOLO__RDMA_LENT, KOLO__RDMA_STRAIGHT };

struct kolo__rdma_peer {
    enum kolo__rdma_state state;
    struct kolo__rdma_region *region; /* of memory */
    unsigned char *memory;            /* of the layout above */
    uint32_t own_key;
    struct kolo__rdma_rail *rails; /* kolo__rdma.rails of them; NULL: idle */
    uint32_t rail_count;           /* in use: the peer may have fewer */
    /* Over the TCP connection. */
    struct kolo__post hello_out, hello_in, ready_out, ready_in;
    unsigned char own_hello[KOLO__RDMA_HELLO_BYTES], their_hello[KOLO__RDMA_HELLO_BYTES];
    /* Out. */
    uint64_t their_ring, their_offers;
    uint32_t their_key;
    uint64_t out_head, out_tail;
    bool blocked; /* the next piece cannot go before something else completes */
    uint32_t offers_came, offers_taken;
    struct kolo__rdma_sending {
        bool begun; /* the payload of the first send: what follows holds for it */
        enum kolo__rdma_way way;
        struct kolo__rdma_block own;
        uint32_t offer;   /* straight */
        uint64_t address; /* straight: of the whole payload */
        uint32_t keys[KOLO__RDMA_RAILS_MAX];
    } sending;
    /* Lent messages: how many signals each still waits for, in the stream's order. */
    uint32_t lent[KOLO__RDMA_OFFERS_MAX], lent_first, lent_end;
    /* In. */
    uint64_t in_head, in_tail;
    uint32_t bytes_owed;          /* credit to return */
    uint64_t recvs;               /* posted so far */
    struct kolo__post *unoffered; /* the first long recv that no offer was made for, or NULL */
    uint64_t unoffered_number;    /* of its message */
    struct kolo__rdma_offer {
        uint64_t number;                     /* of the message */
        unsigned char *data;                 /* NULL: not in memory that the devices know */
        size_t bytes, taken;                 /* of the message; that the stream has been told of */
        uint64_t position;                   /* in the ring, where the payload belongs */
        uint32_t came[KOLO__RDMA_RAILS_MAX]; /* pieces */
        bool straight;                       /* the first piece has come */
    } offers[KOLO__RDMA_OFFERS_MAX];
    uint32_t offers_first, offers_end;
    /* The link is broken: who still has something for this peer learns it. */
    kolo_status failure;
    char failure_text[300];
};

/* A port that this rank uses. */
struct kolo__rdma_own {
    struct kolo__rdma_port port;
    struct kolo__rdma_gid gid;
    bool has_gid;
    struct kolo__rdma_device *device;
    uint64_t down_since_ns; /* 0: the port is up */
};

struct kolo__rdma {
    struct kolo__stream stream; /* first: see stream.h */
    const struct kolo__rdma_module *module;
    struct kolo__rdma_options options;
    struct kolo__rdma_own own[KOLO__RDMA_RAILS_MAX]; /* rail r goes by own[r % own_count] */
    uint32_t own_count, rails;
    struct kolo__rdma_memory *memory; /* NULL: nothing of kolo_alloc goes straight */
    struct kolo__rdma_gpus *gpus;     /* NULL: nothing of GPUs does */
    struct kolo__transport *tcp;
    struct kolo__signature hello_signature, ready_signature;
    struct kolo__rdma_peer *peers;
    uint32_t connecting; /* peers */
    uint32_t lent;       /* messages, of all peers */
    uint64_t patience_ns;
    uint32_t calls; /* of progress */
    int epoll_fd;
    struct kolo__rdma_counts counts;
};

static inline size_t kolo__rdma_least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- rdma_ring.c ---- */

extern const struct kolo__pipe_ops kolo__rdma_ring_ops;

/* The writes that so many bytes are cut into when the ring has got to position. */
uint64_t kolo__rdma_writes_of(uint64_t position, uint64_t bytes);
/* Those of a message of so many bytes behind its header, without checksums; *position moves on. */
uint64_t kolo__rdma_writes_of_message(uint64_t *position, uint64_t payload, bool straight);
/* A pending post can go on. */
bool kolo__rdma_rings_ready(const struct kolo__rdma *rdma);

/* Bytes that go into the ring, following each other. */
struct kolo__rdma_cursor {
    const struct iovec *parts;
    int count, part;
    size_t done; /* of that part */
};

/* Of so many bytes, how many one write takes now: a whole piece, or 0. */
size_t kolo__rdma_next_piece(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer, size_t left);
/* Writes them. block: they are read where they are, in it, until the card says so; lent then as in
 * kolo__rdma_post. NULL: they are the caller's again when this returns. */
kolo_status kolo__rdma_write_piece(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer,
                                   struct kolo__rdma_cursor *cursor, size_t bytes,
                                   const struct kolo__rdma_block *block, uint32_t lent);

/* ---- rdma_long.c ---- */

/* The cards reach the post's data. */
bool kolo__rdma_reaches(struct kolo__rdma *rdma, const struct kolo__post *post,
                        struct kolo__rdma_block *block);
bool kolo__rdma_is_long(const struct kolo__stream *stream, const struct kolo__post *post);
/* The first send is a long one: as much of it as can go. parts: header and payload that are left.
 */
kolo_status kolo__rdma_write_long(struct kolo__rdma *rdma, uint32_t peer, const struct iovec *parts,
                                  size_t *moved);
/* A recv was posted. */
void kolo__rdma_note_recv(struct kolo__rdma *rdma, uint32_t peer, struct kolo__post *post);
/* Makes the offers that can be made now. */
void kolo__rdma_make_offers(struct kolo__rdma *rdma, uint32_t peer);
/* A straight piece came by this rail. False: for no offer. */
bool kolo__rdma_take_straight(struct kolo__rdma_peer *peer, uint32_t rail, uint32_t offer);
/* The oldest straight message that was not read whole; NULL: what comes next is in the ring. */
struct kolo__rdma_offer *kolo__rdma_next_straight(struct kolo__rdma_peer *peer);
/* Of it, what came and was not read. */
size_t kolo__rdma_straight_bytes(const struct kolo__rdma_peer *peer,
                                 const struct kolo__rdma_offer *offer);

/* ---- rdma_rail.c ---- */

void kolo__rdma_break(struct kolo__rdma_peer *peer, kolo_status status, const char *why);
kolo_status kolo__rdma_failure(const struct kolo__rdma_peer *peer);
/* Of a peer that has left: KOLO_ERR_PEER_LOST. */
kolo_status kolo__rdma_ended(const struct kolo__rdma *rdma, uint32_t index);
/* It has closed the connection, and so had all that was written. That its card answers no more is
 * no fault of its own then. */
bool kolo__rdma_has_left(const struct kolo__rdma *rdma, uint32_t index);
/* Work requests that may still be under way. */
uint64_t kolo__rdma_under_way(const struct kolo__rdma_rail *rail);
bool kolo__rdma_may_write(const struct kolo__rdma_rail *rail);
/* Key and address are set by the caller. lent: this is the last work request of the rail for the
 * lent message in this place of kolo__rdma_peer.lent; UINT32_MAX: of none. */
kolo_status kolo__rdma_post(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer,
                            struct kolo__rdma_rail *rail, struct kolo__rdma_write *write,
                            uint32_t lent);
void kolo__rdma_return_credit(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer, uint32_t rail);
/* Takes what the cards have done. True: something. */
bool kolo__rdma_take_completions(struct kolo__rdma *rdma);
/* Lent messages of peers that have closed their connection are done, for they close when they have
 * all that was written: their cards may have said so in vain. Those of broken links are a fault. */
void kolo__rdma_look_after_lent(struct kolo__rdma *rdma);
/* Waits until what was written has come, or nobody answers. */
void kolo__rdma_drain(struct kolo__rdma *rdma);
/* For struct kolo__pipe_ops. */
void kolo__rdma_stop(struct kolo__stream *stream);

/* Immediates. */
enum {
    KOLO__RDMA_KIND_BITS = 30,
    KOLO__RDMA_BYTES_BITS = 23, /* of a credit */
};
enum kolo__rdma_said {
    KOLO__RDMA_SAID_RING,
    KOLO__RDMA_SAID_STRAIGHT,
    KOLO__RDMA_SAID_CREDIT,
    KOLO__RDMA_SAID_OFFER,
};
static inline uint32_t kolo__rdma_immediate(enum kolo__rdma_said said, uint32_t what)
{
    return (uint32_t)said << KOLO__RDMA_KIND_BITS | what;
}

/* ---- rdma_connect.c ---- */

/* A post was made for a peer: sees to it that there will be a connection. */
void kolo__rdma_want(struct kolo__rdma *rdma, uint32_t peer);
/* Takes what has come over TCP. True: something did. */
bool kolo__rdma_advance(struct kolo__rdma *rdma);
/* Gives back what a peer's connection has taken. */
void kolo__rdma_disconnect(struct kolo__rdma *rdma, struct kolo__rdma_peer *peer);

/* ---- rdma.c ---- */

/* Takes what the devices tell of themselves. */
void kolo__rdma_take_trouble(struct kolo__rdma *rdma);
/* "rxe0 port 1, GID ...", of this end; returns text. */
const char *kolo__rdma_own_text(const struct kolo__rdma_own *own,
                                char text[KOLO__RDMA_CHOICE_TEXT_BYTES]);
/* "from rxe0 port 1, GID ... to GID ...", of a rail; returns text. */
enum { KOLO__RDMA_ENDS_TEXT_BYTES = KOLO__RDMA_CHOICE_TEXT_BYTES + 64 };
const char *kolo__rdma_ends_text(const struct kolo__rdma *rdma, const struct kolo__rdma_peer *peer,
                                 uint32_t rail, char text[KOLO__RDMA_ENDS_TEXT_BYTES]);

#endif
