/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank's end of the control plane: joins the world, exchanges set-up data, carries faults both
 * ways. Thread-safe after join: threads that wait on different communicators all look at it.
 */
#ifndef KOLO_RUNTIME_CONTROL_H
#define KOLO_RUNTIME_CONTROL_H

#include "runtime/frame.h"
#include "runtime/verdict.h"

struct kolo__control;

struct kolo__control_options {
    const char *rendezvous; /* "host:port,[v6]:port,...": all are tried */
    unsigned ports;         /* it is at one of so many, from that port on; 0 and 1: there */
    bool at_rank_0;         /* rank 0's process is the server */
    bool in_pods;           /* and the rendezvous is a name of its pod */
    const char *job, *token;
    uint32_t rank, size; /* size KOLO__SIZE_UNKNOWN: a newcomer; rank is its place (rendezvous.h) */
    uint64_t deadline_ns; /* kolo__real_clock: to connect and join */
    int timeout_s;        /* the same, for messages */
    long silence_s;       /* base/silence.h: of the server's host; 0: by the kernel's limits */
};

/* What each rank told the others when it joined. */
struct kolo__control_member {
    char host[64];
    uint32_t pid;
    const unsigned char *blob; /* owned by the control, until close */
    size_t blob_bytes;
};

/* Connects (again and again until the deadline, refusals excepted) and authenticates. The local
 * address of the connection is the one by which this host reaches the others. */
kolo_status kolo__control_connect(const struct kolo__control_options *options,
                                  struct kolo__control **control);
int kolo__control_fd(const struct kolo__control *control);

/* Collective over the world: blocks until every rank has joined. With a size of 0 this process
 * takes no part: the blob is a text that says why, for those who will miss it, and what comes back
 * is an error. */
kolo_status kolo__control_join(struct kolo__control *control, const void *blob, size_t bytes);
const struct kolo__control_member *kolo__control_member(const struct kolo__control *control,
                                                        uint32_t rank);

/* What the rendezvous said of this epoch; all 0 in the one that the job began with. */
struct kolo__epoch {
    uint32_t number, rank, size;
    uint32_t previous_size, survivors;
    uint32_t *previous; /* by survivor: its rank in the epoch before */
    char gone[KOLO__GONE_TEXT_BYTES];
};

/* Valid until the next renewal. */
const struct kolo__epoch *kolo__control_epoch(const struct kolo__control *control);
/* Leaves this epoch and waits for the next: collective over those who go on. Faults and joins of
 * this one are forgotten. patience_ms: for the others to come. After an error that is none of the
 * epoch's (KOLO_ERR_WORLD, KOLO_ERR_PEER_LOST, KOLO_ERR_TIMEOUT) there is no world any more. */
kolo_status kolo__control_renew(struct kolo__control *control, uint32_t patience_ms,
                                const void *blob, size_t bytes);
/* Newcomers that wait. Costs next to nothing; kolo__control_poll hears of them. */
uint32_t kolo__control_newcomers(const struct kolo__control *control);

/* Collective over the world, before the first communicator works: gives every rank's blob to every
 * rank. visit is called once a rank, with memory valid during the call. */
kolo_status kolo__control_exchange(struct kolo__control *control, uint32_t tag, const void *blob,
                                   size_t bytes, uint64_t deadline_ns,
                                   void (*visit)(void *self, uint32_t rank,
                                                 const unsigned char *blob, size_t bytes),
                                   void *self);

/* Reads what has come, without blocking. Cheap enough for a waiting loop, not for every turn of it.
 */
void kolo__control_poll(struct kolo__control *control);
/* The same for who was woken because there is something to read: while another thread has the
 * connection, perhaps until there is room for what it sends, that wakes again and again. */
void kolo__control_poll_woken(struct kolo__control *control);
/* The first fault of this communicator or of the world: false when there is none. fault->peer is a
 * rank of the world. */
bool kolo__control_fault(struct kolo__control *control, uint32_t comm, struct kolo__fault *fault);
/* The communicator is gone: so are its faults. */
void kolo__control_forget(struct kolo__control *control, uint32_t comm);

/* Tells the others. fault->peer: world rank at fault or -1. comm 0: the whole world. */
void kolo__control_report(struct kolo__control *control, uint32_t comm,
                          const struct kolo__fault *fault);
void kolo__control_stuck(struct kolo__control *control, const struct kolo__verdict_report *report);

/* Who holds up this rank, as the rendezvous said last, if it has said so since then. It says it
 * again and again while ranks wait for longer than KOLO_PEER_TIMEOUT. */
bool kolo__control_note(struct kolo__control *control, uint64_t since_ns,
                        char text[KOLO__NOTE_TEXT_BYTES]);

/* ---- kolo_join (join.c) ---------------------------------------------------------------------- */

/* True while somebody has joined on some communicator. Costs next to nothing. */
bool kolo__control_joins(const struct kolo__control *control);
/* See joins.h; ranks are ranks of the world. */
bool kolo__control_has_joined(struct kolo__control *control, uint32_t comm, uint32_t rank,
                              uint64_t *sequence);
bool kolo__control_lowest_joined(struct kolo__control *control, uint32_t comm, uint64_t *sequence);
bool kolo__control_next_announced(struct kolo__control *control, uint32_t comm,
                                  struct kolo__announcement *announcement);
bool kolo__control_all_joined(struct kolo__control *control, uint32_t comm, uint32_t *last);
/* Tells the members. guardian: comm when it has none. */
void kolo__control_tell_joined(struct kolo__control *control, uint32_t comm, uint32_t guardian,
                               uint64_t sequence, const uint32_t *world_ranks, uint32_t size);
void kolo__control_announce(struct kolo__control *control,
                            const struct kolo__announcement *announcement);
/* It began collectives up to this one that it cannot announce any more. */
void kolo__control_forgotten(struct kolo__control *control, uint32_t comm, uint64_t sequence);

/* Messages that this rank has sent so far. */
uint64_t kolo__control_sent(const struct kolo__control *control);
/* Leaves in good order; what happens to the connection afterwards means nothing. */
void kolo__control_bye(struct kolo__control *control);
/* control may be NULL. */
void kolo__control_close(struct kolo__control *control);

#endif
