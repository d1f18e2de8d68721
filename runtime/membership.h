/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who belongs to which epoch of a world: the state machine behind kolo_renew. It does no I/O and
 * reads no clock: who embeds it (the rendezvous server, a simulator, a model checker) tells it what
 * happened, and carries out what it decides.
 *
 *     ACTIVE ---- comes (kolo_renew) ---> COME ------- FORM ----> ACTIVE, of the next epoch
 *        |                                                           ^
 *        | has not come when the time is over: EXPEL                 |
 *        v                                                           |
 *      (gone) <--- lost, or left, at any time ---  WAITING --------- +
 *                                                     ^------------ arrives
 *
 * An epoch is formed as soon as some have come, none is ACTIVE any more, and there are enough with
 * the newcomers; or once the time is over that the embedder gives, from the moment at which the
 * first has come. Nothing is said in between, so any subset may be lost at any time: who is lost
 * before FORM is not in the epoch, who is lost after it is missing when its ranks set up their
 * connections, and makes them come for the one after.
 */
#ifndef KOLO_RUNTIME_MEMBERSHIP_H
#define KOLO_RUNTIME_MEMBERSHIP_H

#include <stdbool.h>
#include <stdint.h>

enum kolo__membership_state {
    KOLO__MEMBER_ACTIVE,  /* a rank of this epoch */
    KOLO__MEMBER_COME,    /* it has come for the next one */
    KOLO__MEMBER_WAITING, /* a newcomer */
};

struct kolo__membership_entry {
    uint32_t id; /* the embedder's, never used twice */
    enum kolo__membership_state state;
};

struct kolo__membership {
    uint32_t epoch;
    uint32_t least; /* ranks that an epoch must have */
    /* First the ranks of this epoch that are left, in the order of ranks; then newcomers as they
     * came. */
    struct kolo__membership_entry *entries;
    uint32_t count, capacity;
};

enum kolo__membership_decision {
    KOLO__MEMBERSHIP_NOTHING,
    KOLO__MEMBERSHIP_EXPEL, /* *id did not come in time: it is gone from here on */
    /* All entries are ACTIVE now, in the next epoch; the place of each is its rank. */
    KOLO__MEMBERSHIP_FORM,
    KOLO__MEMBERSHIP_END, /* too few are left: all entries are to be told so, and are lost */
};

/* Epoch 0: `size` ranks with ids 0, 1, ... False: no memory. */
bool kolo__membership_begin(struct kolo__membership *membership, uint32_t size, uint32_t least);
void kolo__membership_end(struct kolo__membership *membership);

/* A newcomer. False: no memory. */
bool kolo__membership_arrive(struct kolo__membership *membership, uint32_t id);
/* A rank has left this epoch and wants to be in the next one. False: it is no rank of this epoch,
 * or has come before. */
bool kolo__membership_come(struct kolo__membership *membership, uint32_t id, uint32_t epoch);
/* It is lost, or has left in good order. Nothing happens to who is gone already. */
void kolo__membership_remove(struct kolo__membership *membership, uint32_t id);

/* Some have come, and others have not: the time runs. */
bool kolo__membership_is_forming(const struct kolo__membership *membership);
/* Its place among the entries; count: it is gone, or never was. */
uint32_t kolo__membership_find(const struct kolo__membership *membership, uint32_t id);
bool kolo__membership_has(const struct kolo__membership *membership, uint32_t id,
                          enum kolo__membership_state state);
/* How many are in this state. */
uint32_t kolo__membership_count(const struct kolo__membership *membership,
                                enum kolo__membership_state state);
/* What is to be done now; to be asked again until it is NOTHING. time_is_over: since the first that
 * has come. The state has changed accordingly when this returns. */
enum kolo__membership_decision kolo__membership_decide(struct kolo__membership *membership,
                                                       bool time_is_over, uint32_t *id);

#endif
