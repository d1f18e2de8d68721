/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contract between the executor and whatever moves bytes.
 *
 * A transport belongs to one communicator and is used by one thread at a time. It moves messages
 * between this rank and its peers, and nothing else: it knows no collectives, reduces nothing,
 * makes no decision.
 *
 *   1. post_send and post_recv never block and never fail for lack of space: the post is queued
 *      inside (intrusively: no allocation).
 *   2. Per peer and direction, messages are delivered in the order posted; the k-th recv posted
 *      for a peer takes the k-th message sent by it.
 *   3. Every accepted post completes exactly once: with KOLO_OK, or with the transport's first
 *      fault, also after that fault, and at the latest in close. Completion is
 *      post->complete == true, seen by whoever looks; nobody is called back.
 *   4. post_*, progress and close complete posts: nothing changes between the caller's calls.
 *   5. The transport borrows post and data until completion, and touches neither afterwards.
 *   6. progress never blocks and never sleeps; it moves what can be moved now.
 *   7. The first fault sticks (status, text in `fault`): every later post completes with it.
 *      One dead peer is a fault of the whole transport.
 *   8. Each message carries a header (docs/PROTOCOL.md). A message whose header is not the expected
 *      one is KOLO_ERR_MISMATCH with both sides in the text; bytes that are no header are
 *      KOLO_ERR_NETWORK. Both without touching the receiver's buffer.
 */
#ifndef KOLO_COLLECTIVES_TRANSPORT_H
#define KOLO_COLLECTIVES_TRANSPORT_H

#include "base/counter.h"
#include "collectives/schedule.h"

/* Who says what: compared by the receiver, field by field. Equal on both sides of a message. */
struct kolo__signature {
    uint32_t epoch; /* generation of the world */
    uint32_t comm;  /* communicator id, the same on all its ranks */
    uint64_t
        sequence; /* of operations on this communicator, from 1; a message's: per pair and way */
    uint8_t collective; /* enum kolo__collective */
    uint8_t dtype;
    uint8_t op;        /* kolo_op; 0 for collectives that do not reduce */
    uint8_t algorithm; /* index into kolo__algorithms, 0xff for point to point */
    uint32_t root;
    uint64_t count; /* the caller's count */
};

/* "allreduce #812 (1048576 x fp32, sum, ring)": for errors; returns text. */
const char *kolo__signature_text(const struct kolo__signature *signature, char *text, size_t bytes);
bool kolo__signature_equal(const struct kolo__signature *a, const struct kolo__signature *b);
/* A hash of all fields: where 64 bits of them have to do. */
uint64_t kolo__signature_digest(const struct kolo__signature *signature);

struct kolo__post {
    /* Set by the caller. For a send, data is only read. */
    unsigned char *data;
    size_t bytes;                            /* the message's length; equal on both sides */
    const struct kolo__signature *signature; /* borrowed until completion */
    /* Data is in a GPU's memory, which the processor cannot touch: only after takes_gpu. A message
     * that does not come straight wants memory of the host instead, and waits until the caller,
     * between two calls, has given as much. */
    bool on_gpu;
    unsigned char *instead;
    /* Set by the transport. */
    size_t bytes_done;  /* a recv: data[0, bytes_done) is already valid */
    bool wants_instead; /* a recv's bytes come, or have come, there */
    bool complete;
    kolo_status status;
    /* Owned by the transport until completion. */
    struct kolo__post *next;
};

/* Remedies stand at the end of texts, so none may be cut. The longest says who has not come and who
 * was refused (runtime/rendezvous_absent.c); kolo_error_text has room for "kolo_init: " before it.
 */
enum { KOLO__FAULT_TEXT_BYTES = 960 };

struct kolo__fault {
    kolo_status status; /* KOLO_OK: none */
    int peer;           /* communicator rank at fault, -1 if none in particular */
    char text[KOLO__FAULT_TEXT_BYTES];
};

struct kolo__transport;

struct kolo__transport_ops {
    const char *name;
    void (*post_send)(struct kolo__transport *transport, uint32_t peer, struct kolo__post *post);
    void (*post_recv)(struct kolo__transport *transport, uint32_t peer, struct kolo__post *post);
    /* True when something moved (a reason to look again before waiting). */
    bool (*progress)(struct kolo__transport *transport);
    /* Before sleeping: asks peers for a wake-up through wait_fd. False: there is work now, do not
     * sleep. */
    bool (*arm)(struct kolo__transport *transport);
    /* After sleeping. */
    void (*disarm)(struct kolo__transport *transport);
    /* Readable (poll) whenever progress may have something to do after arm. -1: never sleeps (sim).
     */
    int (*wait_fd)(struct kolo__transport *transport);
    /* Sleeps where peers can wake it at less cost than through wait_fd: until something may have
     * moved, or most_ns have passed. False: this transport has no such place; nobody slept. */
    bool (*nap)(struct kolo__transport *transport, uint64_t most_ns);
    /* Network cards reach the post's data, in a GPU's memory: it may be posted for this peer. May
     * block: it is registered then. False: the caller takes it through memory of the host. */
    bool (*takes_gpu)(struct kolo__transport *transport, uint32_t peer,
                      const struct kolo__post *post);
    /* Fails everything with this fault, from outside (a rank was reported dead). */
    void (*fail)(struct kolo__transport *transport, const struct kolo__fault *fault);
    /* Completes every pending post with the fault (or KOLO_ERR_ABORTED), releases everything. */
    void (*close)(struct kolo__transport *transport);
};

/* For transports that have no nap. */
static inline bool kolo__transport_never_naps(struct kolo__transport *transport, uint64_t most_ns)
{
    (void)transport;
    (void)most_ns;
    return false;
}

/* For transports that the processor moves bytes for. */
static inline bool kolo__transport_takes_no_gpu(struct kolo__transport *transport, uint32_t peer,
                                                const struct kolo__post *post)
{
    (void)transport;
    (void)peer;
    (void)post;
    return false;
}

/* What went over a transport, headers included; written by who uses it. */
struct kolo__traffic {
    struct kolo__counter sent_bytes, received_bytes;
};

/* First member of every transport. */
struct kolo__transport {
    const struct kolo__transport_ops *ops; /* no NULL slots */
    uint32_t rank, size;                   /* in the communicator */
    struct kolo__fault fault;
    struct kolo__traffic *traffic; /* borrowed; NULL: nobody counts. Of those that move bytes */
    /* The last bytes that moved went out, so a peer waits for them. Of byte streams, else false. */
    bool sent_last;
};

/* ---- mapped memory: for algorithms that reach into peers' buffers --------------------------- */

/* A communicator has it among all its ranks, or among those of each host: `shares` says with whom.
 * A peer below is one of these. */

/* What a rank publishes at the first ARRIVE of a mapped operation. An address is a position in the
 * heap that all ranks map. Records alternate between two places with the mapped runs, like SLOT:
 * whoever still reads the last run's is not disturbed. */
struct kolo__exposure {
    struct kolo__signature signature;
    uint64_t in_position, out_position; /* heap positions of EXPOSED_IN[0], EXPOSED_OUT[0] */
    bool in_windows, out_windows;       /* there are windows, not the caller's buffers */
    bool out_unmapped;      /* OUTPUT lies outside the heap, whether or not windows stand in */
    bool in_private;        /* in_position is an address in that rank's process: cross_read */
    bool wants_cross_reads; /* of this rank's mapping */
};

struct kolo__mapping;

/* Non-blocking halves of split barriers over flags in the shared heap; one writer per flag. */
struct kolo__mapping_ops {
    /* Release: publishes this rank's exposure for the run of this parity; announce follows. May be
     * called once everybody has finished reading the one before the last: after a run all ranks
     * have begun it, so have ended the run before. */
    void (*expose)(struct kolo__mapping *mapping, unsigned parity,
                   const struct kolo__exposure *exposure, uint64_t digest);
    /* Acquire: true when the peer has exposed for the operation with this sequence; its digest. */
    bool (*peer_exposed)(struct kolo__mapping *mapping, uint32_t peer, unsigned parity,
                         uint64_t sequence, uint64_t *digest);
    /* What it exposed, once peer_exposed says so. */
    const struct kolo__exposure *(*peer_exposure)(struct kolo__mapping *mapping, uint32_t peer,
                                                  unsigned parity);
    /* Release: counts this rank's arrivals, over the life of the mapping; announce follows. */
    void (*arrive)(struct kolo__mapping *mapping);
    /* Wakes those who may sleep and wait for what expose or arrive has published. Costs a full
     * memory barrier: a look at the peers before it makes good use of the time. */
    void (*announce)(struct kolo__mapping *mapping);
    /* Acquire: true when the peer has arrived at least as often as this rank. */
    bool (*peer_arrived)(struct kolo__mapping *mapping, uint32_t peer);
    /* True when the peer was last seen on the processor that this rank runs on: who spins for it
     * keeps it from running. Only a hint. */
    bool (*shares_processor)(struct kolo__mapping *mapping, uint32_t peer);
    /* The address of a heap position, in this process. NULL when [position, +bytes) is outside. */
    unsigned char *(*address)(struct kolo__mapping *mapping, uint64_t position, size_t bytes);
    /* The heap position of a pointer, UINT64_MAX when [pointer, +bytes) is not in the heap. */
    uint64_t (*position)(struct kolo__mapping *mapping, const void *pointer, size_t bytes);
    /* Copies out of a peer's private memory, where both want_cross_reads. All bytes, or a fault
     * that names the peer. */
    kolo_status (*cross_read)(struct kolo__mapping *mapping, uint32_t peer, uint64_t address,
                              void *to, size_t bytes, struct kolo__fault *fault);
};

struct kolo__mapping {
    const struct kolo__mapping_ops *ops;
    const bool *shares; /* by rank of the communicator, this one included */
    /* Positions of this communicator's areas in the heap, of this rank and of its peers. */
    const uint64_t *slot_position[2]; /* [parity][rank]: SLOT, slot_bytes each */
    /* The same, beside the flag that tells of the exposure, so that one cache line brings both. */
    const uint64_t *small_position[2]; /* small_bytes each */
    uint64_t windows;                  /* this rank's, twice window_bytes (see schedule.h) */
    size_t slot_bytes, small_bytes, window_bytes;
    /* Cross reads: INPUT that is not in the heap is not copied into windows; peers read it where it
     * is, into their bounce buffer. Each rank says in its records whether it wants that; after the
     * first run in which they are read all know, and do it if everybody does. */
    bool wants_cross_reads;
    bool cross_reads; /* set by the executor, the same on every rank */
    unsigned char *bounce;
    size_t bounce_bytes;
    uint64_t cross_read_bytes; /* so far, for tests */
    /* Mapped runs begun so far: 0 at creation, then counted by the executor, the same on every
     * rank. Its parity chooses the SLOT area. (The operations' sequence would not do: between two
     * mapped operations of one parity there may be one that does not make ranks wait for each
     * other.) */
    uint64_t runs;
    /* How often to look again for a peer at a fence before going back to the caller, whose round
     * takes longer than a small operation. */
    uint32_t spins;
    /* Ranks share processors: who waits looks again only for peers that have other ones. Set by the
     * transport where it sees that, and by the caller who knows of other limits. */
    bool crowded;
};

#endif
