/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of a rank's end of the control plane, shared by its parts and by nobody else:
 *
 *   control.c        frames in and out, faults, kolo_join
 *   control_world.c  how a rank comes into the world
 *   control_renew.c  how it comes from one epoch into the next
 *   control_note.c   who holds this rank up
 *   heartbeat.c      signs of life
 */
#ifndef KOLO_RUNTIME_CONTROL_FRAMES_H
#define KOLO_RUNTIME_CONTROL_FRAMES_H

#include "base/secure.h"
#include "base/silence.h"
#include "runtime/control.h"
#include "runtime/joins.h"

#include <pthread.h>
#include <stdatomic.h>

struct kolo__known_fault {
    uint32_t comm; /* 0: all */
    struct kolo__fault fault;
};

struct kolo__control {
    struct kolo__control_options options;
    char job[128];
    int fd;
    struct kolo__credentials *credentials;
    struct kolo__control_member *members;
    unsigned char *world; /* the WORLD frame, which members' blobs point into */
    const char *doing;    /* for texts: "kolo_init", "kolo_renew" */

    pthread_mutex_t lock; /* of everything below */
    struct kolo__secure *secure;
    unsigned char *in;
    size_t in_bytes, in_capacity;
    struct kolo__frame_writer unsent; /* frames, the first of which may have begun to go out */
    struct kolo__known_fault *faults; /* the first of each communicator, as they came */
    unsigned fault_capacity;
    atomic_uint fault_count; /* read without the lock: 0 is the rule */
    struct kolo__joins joins;
    struct kolo__epoch epoch;
    bool expects_epoch;    /* it is on its way into one */
    bool awaiting;         /* a thread waits for an answer, and takes all that comes */
    bool renewing;         /* what comes is of the epoch that this rank has left, until EPOCH */
    atomic_uint newcomers; /* read without the lock */
    struct {
        uint64_t at_ns;     /* 0: none in this epoch */
        uint64_t said_ns;   /* the wait at which it was logged last */
        atomic_bool unsaid; /* read without the lock */
        char text[KOLO__NOTE_TEXT_BYTES];
    } note; /* who holds this rank up */
    struct {
        kolo_status status; /* KOLO_OK: none */
        char text[600];
    } refusal;                  /* of this rank, by which the server ended the connection */
    bool closed;                /* the server is gone */
    bool come_again;            /* REFUSED, but the next world may be this rank's */
    char at[80], passed_by[80]; /* where the server is; who did so, for one round, "": nobody */
    struct kolo__silence silence;
    atomic_ullong sent; /* frames */
};

/* All with the lock held. */

/* Ends the frame and releases its memory. */
kolo_status kolo__control_send_frame(struct kolo__control *control,
                                     struct kolo__frame_writer *frame);
kolo_status kolo__control_send_frame_by(struct kolo__control *control,
                                        struct kolo__frame_writer *frame, uint64_t deadline_ns);
void kolo__control_send_fault(struct kolo__control *control, uint32_t comm,
                              const struct kolo__fault *fault);

/* Blocks until a frame of the wanted type is there, at most until the deadline: then
 * KOLO_ERR_TIMEOUT, of which the caller writes the text. The payload points into the control's
 * buffer, of which the caller drops `length` when it has read it. */
kolo_status kolo__control_await_frame(struct kolo__control *control, enum kolo__frame_type wanted,
                                      uint64_t deadline_ns, const char *doing,
                                      struct kolo__frame_reader *payload, size_t *length);
void kolo__control_drop_frame(struct kolo__control *control, size_t length);
/* Reads what has come, and handles what needs no answer. */
void kolo__control_take_all(struct kolo__control *control);
/* The WORLD frame, as the control's table of ranks. */
kolo_status kolo__control_read_world(struct kolo__control *control,
                                     struct kolo__frame_reader *payload, size_t length);
/* The first fault of any kind, as an error of the caller. */
kolo_status kolo__control_fault_error(struct kolo__control *control, const char *doing);
/* An EPOCH frame. */
void kolo__control_take_epoch(struct kolo__control *control, struct kolo__frame_reader *payload);
/* A NOTE frame. */
void kolo__control_take_note(struct kolo__control *control, struct kolo__frame_reader *payload);
/* The server is not to be heard any more. */
void kolo__control_hang_up(struct kolo__control *control);

/* Without the lock, for who reads the log may be slow: logs it, if that is due. */
void kolo__control_say_note(struct kolo__control *control);

/* Without the lock: the server has said nothing for so long, as everybody is told from now on. */
void kolo__control_lose_server(struct kolo__control *control, uint64_t silent_ns);

#endif
