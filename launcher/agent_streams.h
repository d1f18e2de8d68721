/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the ranks of an agent write, and what rank 0 reads. Bytes go as they are; `kolo run` makes
 * lines of them. It says what it has written (TAKEN), and no more than a window may be on the way:
 * then the ranks wait, and endings and signals are never stuck behind output.
 */
#ifndef KOLO_LAUNCHER_AGENT_STREAMS_H
#define KOLO_LAUNCHER_AGENT_STREAMS_H

#include "launcher/agent_protocol.h"

#include <poll.h>

struct kolo__agent_streams {
    uint32_t ranks;
    int *fds; /* owned: stdout and stderr of each rank; -1: closed */
    char *buffer;
    size_t on_the_way; /* bytes that were not TAKEN */
    bool discarding;   /* nobody wants them any more */
    int input_fd;      /* writing end of rank 0's stdin; -1: none, or closed */
    bool input_ended;  /* no more comes */
    unsigned char *input;
    size_t input_begin, input_end, input_taken; /* input_taken: to be told */
    bool input_refused;                         /* rank 0 does not read: to be told */
};

/* *rank_fd: what rank 0 reads, for the caller to close; -1 without input. */
kolo_status kolo__agent_streams_open(struct kolo__agent_streams *streams, uint32_t ranks,
                                     bool with_input, int *rank_fd);
void kolo__agent_streams_close(struct kolo__agent_streams *streams);
/* Takes the descriptors. What an earlier process of the rank has left in its own is sent first. */
void kolo__agent_streams_add(struct kolo__agent_streams *streams, uint32_t rank, int out_fd,
                             int err_fd, struct kolo__frame_writer *out);

uint32_t kolo__agent_streams_poll_count(const struct kolo__agent_streams *streams);
void kolo__agent_streams_poll_fill(const struct kolo__agent_streams *streams, struct pollfd *fds);
/* Frames to be sent go to out. */
void kolo__agent_streams_step(struct kolo__agent_streams *streams, const struct pollfd *fds,
                              struct kolo__frame_writer *out);
/* How much of the input was taken. */
void kolo__agent_streams_tell(struct kolo__agent_streams *streams, struct kolo__frame_writer *out);
/* No writer lives any more. True when everything was read. */
bool kolo__agent_streams_drain(struct kolo__agent_streams *streams, struct kolo__frame_writer *out);
void kolo__agent_streams_discard(struct kolo__agent_streams *streams);

/* Bytes for rank 0; none: the end. False: more than the window allows. */
bool kolo__agent_streams_input(struct kolo__agent_streams *streams, const unsigned char *data,
                               size_t bytes);
void kolo__agent_streams_taken(struct kolo__agent_streams *streams, uint32_t bytes);

#endif
