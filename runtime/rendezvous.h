/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server of the control plane: forms the world, spreads the first fault, compares notes of
 * ranks that wait too long. It is small and off the data path. It owns no thread: whoever embeds it
 * (`kolo run`) polls its descriptor and calls step.
 *
 * Every connection proves that it knows the token (base/secure.h) before a byte of it is believed.
 */
#ifndef KOLO_RUNTIME_RENDEZVOUS_H
#define KOLO_RUNTIME_RENDEZVOUS_H

#include <kolo/kolo.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kolo__rendezvous;

/* Where a rank was to run, for messages: "host2"; "" : not known. */
typedef void kolo__rendezvous_where(void *self, uint32_t rank, char *text, size_t bytes);

struct kolo__rendezvous_options {
    const char *host;  /* numeric addresses to listen on: "127.0.0.1", "10.0.0.1,fd00::1" */
    int port;          /* of all of them; 0: any */
    const char *job;   /* job id; copied */
    const char *token; /* copied */
    bool insecure;     /* may listen beyond loopback without a token */
    uint32_t world_size;
    uint32_t min_ranks;            /* that an epoch after the first must have; 0: 1 */
    kolo__rendezvous_where *where; /* NULL: not known */
    void *where_self;
    bool members_restart; /* pods: who goes before the world has formed may come again */
    long silence_s;       /* base/silence.h: of a rank's host; 0: by the kernel's limits */
    int *failure;         /* out: errno, if listening is what failed; NULL: not asked for */
};

kolo_status kolo__rendezvous_create(const struct kolo__rendezvous_options *options,
                                    struct kolo__rendezvous **rendezvous);
void kolo__rendezvous_free(struct kolo__rendezvous *rendezvous);

/* "127.0.0.1:43817", "10.0.0.1:5000,[fd00::1]:5000": what goes into KOLO_RENDEZVOUS. Valid until
 * free. */
const char *kolo__rendezvous_address(const struct kolo__rendezvous *rendezvous);

/* An epoll descriptor: readable when step has something to do. */
int kolo__rendezvous_fd(const struct kolo__rendezvous *rendezvous);
/* Never blocks. Call when the descriptor is readable, and at least every
 * kolo__rendezvous_timeout_ms milliseconds. */
void kolo__rendezvous_step(struct kolo__rendezvous *rendezvous);
/* Milliseconds until step wants to be called again; -1: only when the descriptor is readable. */
int kolo__rendezvous_timeout_ms(const struct kolo__rendezvous *rendezvous);

/* From here on `place` is the number by which the embedder knows a process: its rank in the first
 * epoch, or what it was told (KOLO_RANK) as a newcomer. Ranks change with each epoch, places do
 * not.
 */

/* The embedder saw the process of a place end. why: "was killed by signal 9 (SIGKILL)", "exited
 * with code 3". A rank that has not said goodbye (kolo_finalize) is thereby lost, and the others
 * are told this reason. A rank that never joined is reported too when the others wait for it.
 * clean: exit code 0 (still a loss if others wait for it). */
void kolo__rendezvous_rank_ended(struct kolo__rendezvous *rendezvous, uint32_t place, bool clean,
                                 const char *why);

/* True when this rank has said nothing for seven tenths of its KOLO_PEER_TIMEOUT: the embedder then
 * says what its process does (as in /proc: T, S, ...; 0: not known), as soon as it knows. What it
 * says is forgotten when the rank is heard again. */
bool kolo__rendezvous_is_quiet(const struct kolo__rendezvous *rendezvous, uint32_t place);
/* Is one of the places below? One walk over all ranks, however many they are. */
bool kolo__rendezvous_any_is_quiet(const struct kolo__rendezvous *rendezvous, uint32_t places);
void kolo__rendezvous_note_state(struct kolo__rendezvous *rendezvous, uint32_t place, char state);
/* While ranks wait for almost as long as KOLO_PEER_TIMEOUT, or longer: who holds them up, one line,
 * which those ranks are told too. NULL: nobody does, or it is not known. */
const char *kolo__rendezvous_held_up(const struct kolo__rendezvous *rendezvous, uint64_t now_ns,
                                     uint64_t *longest_ns);

/* The first fault that was spread in this epoch: NULL while there is none. *place: whose fault (-1:
 * nobody in particular). */
const char *kolo__rendezvous_fault(const struct kolo__rendezvous *rendezvous, kolo_status *status,
                                   int *place);
/* The first with which a rank has broken the world's communicator in this epoch: KOLO_ERR_ABORTED
 * (kolo_comm_abort) or _MISMATCH; or what all have found together (KOLO__NO_COMM; *at_ns is 0). It
 * is no fault of the world, but what ranks end of. */
const char *kolo__rendezvous_word(const struct kolo__rendezvous *rendezvous, kolo_status *status,
                                  int *place, uint64_t *at_ns);
/* How many times the world was renewed, and how many ranks it has now. */
uint32_t kolo__rendezvous_epoch(const struct kolo__rendezvous *rendezvous);
uint32_t kolo__rendezvous_size(const struct kolo__rendezvous *rendezvous);

/* When it began, as far as is known: when it was spread, or when a rank was heard last that was
 * lost in silence (kolo__real_clock). 0: there is none. */
uint64_t kolo__rendezvous_fault_ns(const struct kolo__rendezvous *rendezvous);

/* The first thing that kept the world from forming: a rank refused, or a fault before the last
 * set-up step. KOLO_OK, and no text, when the world has formed or nothing stands against it. */
kolo_status kolo__rendezvous_obstacle(const struct kolo__rendezvous *rendezvous, const char **text);
/* Why the world goes on without the process of this place, which was lost or expelled, and has not
 * been seen to end; NULL: that is not so. */
const char *kolo__rendezvous_expelled(const struct kolo__rendezvous *rendezvous, uint32_t place);
/* All ranks of the first epoch have joined. */
bool kolo__rendezvous_has_formed(const struct kolo__rendezvous *rendezvous);
/* The process of this place is a rank of the present epoch, or was one when it left. */
bool kolo__rendezvous_is_member(const struct kolo__rendezvous *rendezvous, uint32_t place);
/* No rank that has joined is still here. */
bool kolo__rendezvous_is_over(const struct kolo__rendezvous *rendezvous);
/* Did a process of this place ever join (kolo_init)? */
bool kolo__rendezvous_joined(const struct kolo__rendezvous *rendezvous, uint32_t place);

#endif
