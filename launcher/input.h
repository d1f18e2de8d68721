/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rank 0's standard input when ours is a terminal. Ranks live in process groups of their own, and
 * the terminal stops a background group that reads from it: so the launcher, which is in the
 * foreground, reads for rank 0. Anything but a terminal is handed to rank 0 as it is.
 */
#ifndef KOLO_LAUNCHER_INPUT_H
#define KOLO_LAUNCHER_INPUT_H

#include <kolo/kolo.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>

struct kolo__input {
    int terminal; /* -1: nothing to relay (any more) */
    int pipe_fd;  /* writing end, non-blocking */
    size_t begin, end;
    char buffer[4096];
};

/* *rank_fd: what rank 0 is to read, fd itself or the reading end of a pipe; the caller closes it
 * after rank 0 was started, if it is not fd. */
kolo_status kolo__input_open(struct kolo__input *input, int fd, int *rank_fd);
void kolo__input_close(struct kolo__input *input);

/* True when the loop must look again after a while: nothing tells when we come to the foreground.
 */
bool kolo__input_is_waiting(const struct kolo__input *input);
void kolo__input_poll_fill(const struct kolo__input *input, struct pollfd *fd);
void kolo__input_step(struct kolo__input *input, const struct pollfd *fd);

#endif
