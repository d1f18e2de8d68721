/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/input.h"

#include "base/status.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

kolo_status kolo__input_open(struct kolo__input *input, int fd, int *rank_fd)
{
    int ends[2];
    *input = (struct kolo__input){.terminal = -1, .pipe_fd = -1};
    *rank_fd = fd;
    if (!isatty(fd))
        return KOLO_OK;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return kolo__error_errno(errno, "cannot make a pipe");
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    input->terminal = fd;
    input->pipe_fd = ends[1];
    *rank_fd = ends[0];
    return KOLO_OK;
}

void kolo__input_close(struct kolo__input *input)
{
    if (input->pipe_fd >= 0)
        close(input->pipe_fd);
    input->terminal = input->pipe_fd = -1;
}

static bool is_foreground(const struct kolo__input *input)
{
    return tcgetpgrp(input->terminal) == getpgrp();
}

bool kolo__input_is_waiting(const struct kolo__input *input)
{
    return input->terminal >= 0 && !is_foreground(input);
}

void kolo__input_poll_fill(const struct kolo__input *input, struct pollfd *fd)
{
    *fd = (struct pollfd){.fd = -1};
    if (input->terminal < 0)
        return;
    if (input->begin < input->end)
        *fd = (struct pollfd){.fd = input->pipe_fd, .events = POLLOUT};
    else if (is_foreground(input))
        *fd = (struct pollfd){.fd = input->terminal, .events = POLLIN};
}

void kolo__input_step(struct kolo__input *input, const struct pollfd *fd)
{
    if (fd->fd < 0 || fd->revents == 0 || input->terminal < 0)
        return;
    if (fd->fd == input->terminal) {
        ssize_t bytes = read(input->terminal, input->buffer, sizeof input->buffer);
        if (bytes < 0 && (errno == EINTR || errno == EAGAIN))
            return;
        if (bytes <= 0) {
            kolo__input_close(input); /* Ctrl-D, or the terminal is gone */
            return;
        }
        input->begin = 0;
        input->end = (size_t)bytes;
        return;
    }
    ssize_t bytes = write(input->pipe_fd, input->buffer + input->begin, input->end - input->begin);
    if (bytes >= 0)
        input->begin += (size_t)bytes;
    else if (errno != EAGAIN && errno != EINTR)
        kolo__input_close(input); /* rank 0 does not read any more */
}
