/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of a simulation, shared by sim.c (messages), sim_mapping.c and sim_drive.c. */
#ifndef KOLO_COLLECTIVES_TRANSPORT_SIM_WORLD_H
#define KOLO_COLLECTIVES_TRANSPORT_SIM_WORLD_H

#include "base/random.h"
#include "collectives/transport/sim.h"

/* Messages that a channel can hold on the way. */
enum { KOLO__SIM_BUFFERS = 4 };

struct kolo__sim_queue {
    struct kolo__post *head, *tail;
};

/* A message whose send has completed before it was received. */
struct kolo__sim_buffer {
    struct kolo__signature signature;
    size_t bytes;
    unsigned char *data;
};

/*
 * One pair of ranks in one direction. Messages stand in this order, oldest left:
 *
 *     buffered ... | sending ...          and, already received: sent ...
 *
 * A message is buffered only while none is in `sending`, so the order of sending is kept.
 */
struct kolo__sim_channel {
    struct kolo__sim_buffer buffers[KOLO__SIM_BUFFERS]; /* ring */
    uint32_t buffered_first, buffered_count;
    struct kolo__sim_queue
        sending;                 /* posts whose data the receiver takes from the sender's memory */
    struct kolo__sim_queue sent; /* posts that complete at the sender's next progress */
    struct kolo__sim_queue receiving; /* the receiver's posts */
    uint64_t ready_ns;                /* when the oldest message gets there; 0: not drawn yet */
    bool checked;                     /* its header has been compared */
    uint64_t taken;                   /* messages received so far */
    /* The link. */
    bool cut;
    uint32_t factor;     /* of delays */
    uint64_t ended_ns;   /* when the receiver sees that the sender has gone; 0: it has not */
    uint64_t stalled_ns; /* since when the receiver has something to move, and cannot; 0: not so */
};

struct kolo__sim_rank {
    struct kolo__transport transport; /* first: the contract's view */
    struct kolo__mapping mapping;
    struct kolo__sim *sim;
    bool open;
    uint64_t learns_ns;            /* when this rank learns of the lost one */
    struct kolo__program *program; /* that it runs now */
    /* Mapped memory. */
    struct kolo__exposure exposures[2]; /* by parity */
    uint64_t digests[2];
    uint64_t arrivals;
    size_t share_used;
    unsigned char bounce[4096];
    struct kolo__sim_sight *sights; /* what this rank sees of each rank */
};

/* What one rank sees of another's flags: it lags behind. A zero *_ns: nothing new to see was
 * noticed. */
struct kolo__sim_sight {
    uint64_t arrivals, arrivals_next, arrivals_ns;
    uint64_t exposed_sequence, exposed_ns;
};

struct kolo__sim {
    struct kolo__sim_options options;
    struct kolo__random random;
    uint64_t now_ns;
    uint64_t messages; /* sent so far, by all */
    uint64_t trace;
    struct kolo__sim_rank *ranks;
    struct kolo__sim_channel *channels; /* [from * size + to] */
    struct kolo__sim_sight *sights;     /* [observer * size + observed] */
    unsigned char *buffer_memory;
    unsigned char *heap;      /* size shares */
    uint64_t *slot_positions; /* [parity * size + rank]: SLOT, then the small ones */
    bool *shares;             /* [rank * size + other] */
};

static inline struct kolo__sim_channel *kolo__sim_channel(struct kolo__sim *sim, uint32_t from,
                                                          uint32_t to)
{
    return &sim->channels[(size_t)from * sim->options.size + to];
}

/* The virtual time at which something that happens now is seen elsewhere. */
static inline uint64_t kolo__sim_later(struct kolo__sim *sim)
{
    return sim->now_ns + 1 + kolo__random_below(&sim->random, sim->options.delay_ns + 1);
}

/* The same for a message of a channel. */
static inline uint64_t kolo__sim_arrival(struct kolo__sim *sim,
                                         const struct kolo__sim_channel *channel)
{
    return sim->now_ns + 1 +
           kolo__random_below(&sim->random, sim->options.delay_ns + 1) * channel->factor;
}

/* Notes an event in the trace (FNV-1a over 64-bit words). */
static inline void kolo__sim_note(struct kolo__sim *sim, uint64_t event)
{
    sim->trace = (sim->trace ^ event) * 0x100000001b3u;
}

/* ---- sim.c ---- */

/* Something is on its way in it, or here and not taken. */
bool kolo__sim_channel_has_message(const struct kolo__sim_channel *channel);

/* ---- sim_links.c ---- */

/* True, and *fault says it, when this rank sees that the link to the peer serves no more. */
bool kolo__sim_link_failed(struct kolo__sim_rank *rank, uint32_t peer, struct kolo__fault *fault);
/* When progress has something to do, as things are; KOLO__SIM_NEVER: not before a peer has done
 * something. */
uint64_t kolo__sim_due(struct kolo__sim_rank *rank);
/* A message has been posted, or taken. */
void kolo__sim_wake_receiver(struct kolo__sim *sim, uint32_t from, uint32_t to);
void kolo__sim_wake_sender(struct kolo__sim *sim, uint32_t from, uint32_t to);
/* Peers see that it has gone, some time later. */
void kolo__sim_end_connections(struct kolo__sim *sim, uint32_t rank);

/* ---- sim_mapping.c ---- */

/* Bytes that each share needs for SLOT and windows. */
size_t kolo__sim_reserved_bytes(const struct kolo__sim_options *options);
/* Fills rank's mapping; its share and sights are there. */
void kolo__sim_mapping_init(struct kolo__sim *sim, uint32_t rank);

#endif
