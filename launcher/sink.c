/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/sink.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void kolo__sink_init(struct kolo__sink *sink, int fd)
{
    struct stat status;
    *sink = (struct kolo__sink){.fd = fd, .unfinished = KOLO__NO_SOURCE};
    sink->plain_file = fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

void kolo__sink_close(struct kolo__sink *sink)
{
    free(sink->data);
    sink->data = NULL;
}

static void fail(struct kolo__sink *sink, int reason)
{
    sink->failure = reason;
    sink->begin = sink->end = 0;
}

static void append(struct kolo__sink *sink, const char *data, size_t bytes)
{
    if (sink->failure != 0 || bytes == 0)
        return;
    if (sink->begin > 0 && sink->end + bytes > sink->capacity) {
        memmove(sink->data, sink->data + sink->begin, sink->end - sink->begin);
        sink->end -= sink->begin;
        sink->begin = 0;
    }
    if (sink->end + bytes > sink->capacity) {
        size_t larger = sink->capacity == 0 ? 4096 : sink->capacity;
        while (larger < sink->end + bytes)
            larger *= 2;
        char *moved = realloc(sink->data, larger);
        if (moved == NULL) {
            fail(sink, ENOMEM);
            return;
        }
        sink->data = moved;
        sink->capacity = larger;
    }
    memcpy(sink->data + sink->end, data, bytes);
    sink->end += bytes;
}

void kolo__sink_put(struct kolo__sink *sink, int source, const char *prefix, const char *head,
                    size_t head_bytes, const char *tail, size_t tail_bytes)
{
    if (head_bytes + tail_bytes == 0)
        return;
    char first = head_bytes > 0 ? head[0] : tail[0];
    char last = tail_bytes > 0 ? tail[tail_bytes - 1] : head[head_bytes - 1];
    bool continues = sink->unfinished == source;
    /* The newline of "\r\n" belongs to the line before it, even when it comes late. */
    bool new_line = !continues || (sink->overwritable && first != '\n');
    if (!continues && sink->unfinished != KOLO__NO_SOURCE)
        append(sink, "\n", 1);
    if (new_line)
        append(sink, prefix, strlen(prefix));
    append(sink, head, head_bytes);
    append(sink, tail, tail_bytes);
    sink->unfinished = last == '\n' ? KOLO__NO_SOURCE : source;
    sink->overwritable = last == '\r';
}

void kolo__sink_end_line(struct kolo__sink *sink, int source)
{
    if (sink->unfinished == source)
        kolo__sink_put(sink, source, "", "\n", 1, NULL, 0);
}

/* How much to write at once. A pipe, terminal or socket that says it is ready takes PIPE_BUF bytes
 * without blocking, and keeps them together; lines that fit stay whole even when other programs
 * write there too. */
static size_t portion(const struct kolo__sink *sink)
{
    size_t waiting = sink->end - sink->begin;
    if (sink->plain_file || waiting <= PIPE_BUF)
        return waiting;
    const char *begin = sink->data + sink->begin;
    const char *newline = memrchr(begin, '\n', PIPE_BUF);
    return newline != NULL ? (size_t)(newline - begin) + 1 : PIPE_BUF;
}

static bool is_ready(const struct kolo__sink *sink)
{
    struct pollfd poll_fd = {.fd = sink->fd, .events = POLLOUT};
    return sink->plain_file || poll(&poll_fd, 1, 0) > 0;
}

void kolo__sink_flush(struct kolo__sink *sink)
{
    while (sink->begin < sink->end && is_ready(sink)) {
        ssize_t written = write(sink->fd, sink->data + sink->begin, portion(sink));
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0 && errno == EAGAIN)
            return; /* somebody made it non-blocking */
        if (written < 0) {
            fail(sink, errno);
            return;
        }
        sink->begin += (size_t)written;
    }
    if (sink->begin == sink->end)
        sink->begin = sink->end = 0;
}
