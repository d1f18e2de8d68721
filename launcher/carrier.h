/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One end of the stream between `kolo run` and an agent: frames in and out, without blocking, and
 * signs of life, since a link that was cut says nothing. The two ends of an ssh, or a socket.
 */
#ifndef KOLO_LAUNCHER_CARRIER_H
#define KOLO_LAUNCHER_CARRIER_H

#include "launcher/agent_protocol.h"

#include <poll.h>

struct kolo__carrier {
    int in_fd, out_fd;             /* owned; maybe one socket; -1: closed */
    struct kolo__frame_writer out; /* what is to be sent, from out_sent on */
    size_t out_sent;
    unsigned char *in;
    size_t in_bytes, in_used, in_capacity;
    uint64_t heard_ns, spoke_ns; /* when something came, or was sent, last */
    bool greeted;                /* the greeting has come */
    bool broken;
    bool ended;    /* it is broken because the other end closed it */
    char why[160]; /* it is broken */
};

enum { KOLO__CARRIER_ENTRIES = 2 };

/* Takes the descriptors and makes them non-blocking. */
void kolo__carrier_open(struct kolo__carrier *carrier, int in_fd, int out_fd);
void kolo__carrier_close(struct kolo__carrier *carrier);

void kolo__carrier_poll_fill(const struct kolo__carrier *carrier,
                             struct pollfd fds[KOLO__CARRIER_ENTRIES]);
/* Sends what can be sent, and a sign of life when it is time. */
void kolo__carrier_flush(struct kolo__carrier *carrier, uint64_t now_ns);
/* Reads what has come, as much as fits beside what was not taken yet. */
void kolo__carrier_receive(struct kolo__carrier *carrier, uint64_t now_ns);
/* The next whole frame, valid until the next call; false: there is none. Bytes that are no frame,
 * or one longer than payload_max, break the carrier. */
bool kolo__carrier_next(struct kolo__carrier *carrier, size_t payload_max,
                        enum kolo__agent_frame *type, struct kolo__frame_reader *payload);
/* Passes over everything up to the end of the greeting. False: it has not come yet. */
bool kolo__carrier_greeted(struct kolo__carrier *carrier);
bool kolo__carrier_is_sending(const struct kolo__carrier *carrier);
void kolo__carrier_break(struct kolo__carrier *carrier, const char *why);

#endif
