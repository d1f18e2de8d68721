/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/agent_streams.h"

#include "base/status.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIPE_READS = 3 }; /* that empty a pipe of 64 KiB, and find it empty */

kolo_status kolo__agent_streams_open(struct kolo__agent_streams *streams, uint32_t ranks,
                                     bool with_input, int *rank_fd)
{
    int ends[2];
    *streams = (struct kolo__agent_streams){.ranks = ranks, .input_fd = -1};
    *rank_fd = -1;
    streams->fds = malloc(2 * ranks * sizeof *streams->fds);
    streams->buffer = malloc(KOLO__AGENT_CHUNK);
    streams->input = malloc(KOLO__AGENT_WINDOW);
    if (streams->fds == NULL || streams->buffer == NULL || streams->input == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for the output of %u ranks", ranks);
    for (uint32_t i = 0; i < 2 * ranks; i++)
        streams->fds[i] = -1;
    if (!with_input)
        return KOLO_OK;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return kolo__error_errno(errno, "cannot make a pipe");
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    streams->input_fd = ends[1];
    *rank_fd = ends[0];
    return KOLO_OK;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void kolo__agent_streams_close(struct kolo__agent_streams *streams)
{
    for (uint32_t i = 0; streams->fds != NULL && i < 2 * streams->ranks; i++)
        close_fd(&streams->fds[i]);
    if (streams->fds != NULL)
        close_fd(&streams->input_fd);
    free(streams->fds);
    free(streams->buffer);
    free(streams->input);
    *streams = (struct kolo__agent_streams){.input_fd = -1};
}

void kolo__agent_streams_discard(struct kolo__agent_streams *streams)
{
    streams->discarding = true;
    if (streams->fds != NULL)
        close_fd(&streams->input_fd);
}

/* ---- the loop's part ----------------------------------------------------------------------- */

static bool may_read(const struct kolo__agent_streams *streams)
{
    return streams->discarding || streams->on_the_way < KOLO__AGENT_WINDOW;
}

uint32_t kolo__agent_streams_poll_count(const struct kolo__agent_streams *streams)
{
    return streams->fds != NULL ? 2 * streams->ranks + 1 : 0;
}

void kolo__agent_streams_poll_fill(const struct kolo__agent_streams *streams, struct pollfd *fds)
{
    if (streams->fds == NULL)
        return;
    for (uint32_t i = 0; i < 2 * streams->ranks; i++)
        fds[i] = (struct pollfd){.fd = may_read(streams) ? streams->fds[i] : -1, .events = POLLIN};
    bool writing = streams->input_begin < streams->input_end;
    fds[2 * streams->ranks] =
        (struct pollfd){.fd = writing ? streams->input_fd : -1, .events = POLLOUT};
}

/* One read. False: nothing is there. */
static bool relay(struct kolo__agent_streams *streams, uint32_t index,
                  struct kolo__frame_writer *out)
{
    ssize_t bytes = read(streams->fds[index], streams->buffer, KOLO__AGENT_CHUNK);
    if (bytes == 0 || (bytes < 0 && errno != EAGAIN && errno != EINTR))
        close_fd(&streams->fds[index]);
    if (bytes <= 0)
        return false;
    if (streams->discarding)
        return true;
    streams->on_the_way += (size_t)bytes;
    kolo__agent_begin(out, KOLO__AGENT_OUTPUT);
    kolo__put_u32(out, index / 2);
    kolo__put_u8(out, (uint8_t)(index % 2));
    kolo__put_blob(out, streams->buffer, (size_t)bytes);
    kolo__frame_end(out);
    return true;
}

/* At most what a pipe holds: its writer may have left others who write. */
static void replace(struct kolo__agent_streams *streams, uint32_t index, int fd,
                    struct kolo__frame_writer *out)
{
    for (uint32_t left = PIPE_READS; streams->fds[index] >= 0 && left > 0; left--)
        relay(streams, index, out);
    close_fd(&streams->fds[index]);
    streams->fds[index] = fd;
}

void kolo__agent_streams_add(struct kolo__agent_streams *streams, uint32_t rank, int out_fd,
                             int err_fd, struct kolo__frame_writer *out)
{
    replace(streams, 2 * rank, out_fd, out);
    replace(streams, 2 * rank + 1, err_fd, out);
}

static void write_input(struct kolo__agent_streams *streams)
{
    while (streams->input_fd >= 0 && streams->input_begin < streams->input_end) {
        ssize_t bytes = write(streams->input_fd, streams->input + streams->input_begin,
                              streams->input_end - streams->input_begin);
        if (bytes > 0) {
            streams->input_begin += (size_t)bytes;
            streams->input_taken += (size_t)bytes;
        } else if (errno == EAGAIN) {
            return;
        } else if (errno != EINTR) {
            close_fd(&streams->input_fd);
            streams->input_refused = true;
        }
    }
    if (streams->input_ended && streams->input_begin == streams->input_end)
        close_fd(&streams->input_fd);
}

/* TAKEN with 0: no more is wanted. */
void kolo__agent_streams_tell(struct kolo__agent_streams *streams, struct kolo__frame_writer *out)
{
    if (streams->input_taken == 0 && !streams->input_refused)
        return;
    kolo__agent_begin(out, KOLO__AGENT_TAKEN);
    kolo__put_u32(out, streams->input_refused ? 0 : (uint32_t)streams->input_taken);
    kolo__frame_end(out);
    streams->input_taken = 0;
    streams->input_refused = false;
}

void kolo__agent_streams_step(struct kolo__agent_streams *streams, const struct pollfd *fds,
                              struct kolo__frame_writer *out)
{
    if (streams->fds == NULL)
        return;
    for (uint32_t i = 0; i < 2 * streams->ranks; i++)
        if (fds[i].fd >= 0 && fds[i].revents != 0 && streams->fds[i] >= 0 && may_read(streams))
            relay(streams, i, out);
    if (fds[2 * streams->ranks].revents != 0)
        write_input(streams);
}

bool kolo__agent_streams_drain(struct kolo__agent_streams *streams, struct kolo__frame_writer *out)
{
    for (uint32_t i = 0; streams->fds != NULL && i < 2 * streams->ranks; i++) {
        while (streams->fds[i] >= 0 && may_read(streams) && relay(streams, i, out))
            continue;
        if (!may_read(streams))
            return false;
        close_fd(&streams->fds[i]);
    }
    return true;
}

/* ---- from kolo run ------------------------------------------------------------------------- */

bool kolo__agent_streams_input(struct kolo__agent_streams *streams, const unsigned char *data,
                               size_t bytes)
{
    if (streams->fds == NULL || streams->input_ended)
        return false;
    if (streams->input_begin > 0) {
        memmove(streams->input, streams->input + streams->input_begin,
                streams->input_end - streams->input_begin);
        streams->input_end -= streams->input_begin;
        streams->input_begin = 0;
    }
    if (bytes > KOLO__AGENT_WINDOW - streams->input_end)
        return false;
    if (streams->input_fd < 0)
        return true; /* rank 0 does not read any more; that was told */
    if (bytes == 0)
        streams->input_ended = true;
    else
        memcpy(streams->input + streams->input_end, data, bytes);
    streams->input_end += bytes;
    write_input(streams);
    return true;
}

void kolo__agent_streams_taken(struct kolo__agent_streams *streams, uint32_t bytes)
{
    streams->on_the_way -= bytes < streams->on_the_way ? bytes : streams->on_the_way;
}
