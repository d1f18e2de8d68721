/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A simulated network: all ranks in one process, in virtual time, everything drawn from one seed.
 *
 * Every message gets a delay, arrives in pieces, and is either buffered on the way (the send
 * completes early) or waits for its receive; arrivals at fences and exposures become visible late.
 * The same seed gives the same run. The order in which ranks get to run is drawn too
 * (kolo__sim_drive). One thread.
 */
#ifndef KOLO_COLLECTIVES_TRANSPORT_SIM_H
#define KOLO_COLLECTIVES_TRANSPORT_SIM_H

#include "collectives/execute.h"
#include "collectives/transport/transport.h"

struct kolo__sim;

#define KOLO__SIM_NEVER UINT64_MAX

/* What befalls a rank. */
struct kolo__sim_fate {
    uint64_t lost_ns; /* it dies then, and the others see KOLO_ERR_PEER_LOST some time later;
                         KOLO__SIM_NEVER: it does not */
    uint64_t paused_ns, resumed_ns; /* it makes no steps in between */
};

/* Whoever drives ranks by itself, each as a caller that may sleep. */
struct kolo__sim_embedder {
    /* At that time the rank's progress has something to do. */
    void (*wake)(void *self, uint32_t rank, uint64_t at_ns);
    int (*wait_fd)(void *self, uint32_t rank);
    void *self;
};

struct kolo__sim_options {
    uint32_t size;
    uint64_t seed;
    uint64_t delay_ns;     /* the longest delay of a message or a flag */
    size_t piece_bytes;    /* the most that one progress moves of a message; 0: whole messages */
    size_t buffered_bytes; /* the longest message that may be buffered on the way; 0: none is */
    /* Mapped memory: each rank's share holds SLOT, windows, and what kolo__sim_alloc gives out.
     * share_bytes 0: no mapping. */
    size_t share_bytes, slot_bytes, window_bytes;
    bool cross_reads;        /* ranks read each other's private memory */
    const uint32_t *host_of; /* by rank: who shares memory with whom; NULL: all do; borrowed */
    /* Faults. */
    const struct kolo__sim_fate *fates; /* by rank; NULL: nothing befalls anybody; borrowed */
    uint64_t garbled;    /* this message (counted from 0 as headers arrive) has a header that
                            is none; KOLO__SIM_NEVER: none does */
    uint64_t silence_ns; /* so long nothing passes where something is to: KOLO_ERR_PEER_LOST; 0:
                            that is waited for without end */
    /* Then ranks sleep between progress and progress, time is set from outside, and who closes its
     * transport is missed by its peers (kolo__sim_vanish). NULL: none; borrowed. */
    const struct kolo__sim_embedder *embedder;
};

/* Everything that is taken is taken here; ends in KOLO_ERR_MEMORY at worst. */
kolo_status kolo__sim_create(const struct kolo__sim_options *options, struct kolo__sim **sim);
/* After every rank's transport was closed. NULL is allowed. */
void kolo__sim_free(struct kolo__sim *sim);

/* Rank's end. Lives until its ops->close. */
struct kolo__transport *kolo__sim_transport(struct kolo__sim *sim, uint32_t rank);
/* NULL when share_bytes was 0. */
struct kolo__mapping *kolo__sim_mapping(struct kolo__sim *sim, uint32_t rank);
/* Mapped memory of the rank's share, aligned to 64 bytes; NULL when the share is full. Released
 * with the simulation. */
void *kolo__sim_alloc(struct kolo__sim *sim, uint32_t rank, size_t bytes);

/* Lets virtual time pass, by a random step. */
void kolo__sim_step(struct kolo__sim *sim);
/* Its lost_ns is over: it makes no more steps. */
bool kolo__sim_lost(const struct kolo__sim *sim, uint32_t rank);

/* ---- links (sim_links.c) --------------------------------------------------------------------- */

/* In one direction: what is on its way is held back. */
void kolo__sim_cut(struct kolo__sim *sim, uint32_t from, uint32_t to, bool cut);
/* Messages take so many times as long from now on. */
void kolo__sim_slow(struct kolo__sim *sim, uint32_t from, uint32_t to, uint32_t factor);
/* Its process is gone, with all its memory: no close follows. Its peers see that their connections
 * to it have ended; silently: they do not. */
void kolo__sim_vanish(struct kolo__sim *sim, uint32_t rank, bool silently);
/* For embedders. */
void kolo__sim_set_time(struct kolo__sim *sim, uint64_t now_ns);

/* A number that depends on all that happened so far: equal for equal runs. */
uint64_t kolo__sim_trace(const struct kolo__sim *sim);

/* The rank's next begun program, or NULL when it has no more. */
typedef struct kolo__program *kolo__sim_next(void *self, uint32_t rank);

/* Runs the programs of every rank, one after the other, to their end, ranks in random order: one
 * rank may be in its third program while another is still in its second. The first fault of a rank
 * reaches the others through ops->fail some time later, as the control plane would do it.
 * statuses[r] and faults[r] (size entries each) say how each rank ended; a lost rank's is
 * KOLO_AGAIN. KOLO_ERR_TIMEOUT: at deadline_ns (virtual) some ranks were not done; text then has
 * the state of every one. */
kolo_status kolo__sim_drive(struct kolo__sim *sim, kolo__sim_next *next, void *self,
                            uint64_t deadline_ns, kolo_status *statuses, struct kolo__fault *faults,
                            char *text, size_t text_bytes);

#endif
