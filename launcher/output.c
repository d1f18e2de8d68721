/* SPDX-License-Identifier: Apache-2.0 */
#include "launcher/output.h"

#include "base/status.h"
#include "launcher/sink.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    PIECE_MAX = 64 << 10, /* a line so long is not kept back any longer */
    READ_BYTES = 64 << 10,
    PIPE_READS = 2,       /* that empty a pipe, and find it empty */
    LAUNCHER_SOURCE = -2, /* beside the streams, as a source of a sink */
};

struct stream {
    int fd; /* -1: closed, or fed */
    bool fed;
    struct kolo__sink *sink;
    char *kept; /* owned: the beginning of a line whose end has not come */
    size_t bytes, capacity;
    bool open_line; /* its last piece went out without a newline */
};

struct kolo__output {
    struct kolo__sink sinks[2];
    bool shared;                     /* both are sinks[0] */
    struct kolo__output_style style; /* but for the folder */
    struct kolo__sink *copies;       /* by rank; NULL: none */
    bool finishing;
    uint32_t ranks;
    struct stream *streams; /* stdout and stderr of rank 0, then of rank 1, ... */
    char *buffer;           /* READ_BYTES */
};

static bool is_same_file(int a, int b)
{
    struct stat left, right;
    return fstat(a, &left) == 0 && fstat(b, &right) == 0 && left.st_dev == right.st_dev &&
           left.st_ino == right.st_ino;
}

/* FOLDER/rank.N of each rank. The folder, and those above it, are made. */
static kolo_status open_copies(struct kolo__output *output, const char *folder)
{
    char path[4096];
    output->copies = calloc(output->ranks, sizeof *output->copies);
    if (output->copies == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for the output of %u ranks", output->ranks);
    for (uint32_t r = 0; r < output->ranks; r++)
        kolo__sink_init(&output->copies[r], -1);
    for (const char *c = folder; *c != '\0'; c++)
        if (c != folder && (c[0] == '/' || c[1] == '\0')) {
            snprintf(path, sizeof path, "%.*s", (int)(c - folder) + (c[0] != '/'), folder);
            if (mkdir(path, 0777) != 0 && errno != EEXIST)
                return kolo__error_errno(errno, "--output-filename: cannot make %s", path);
        }
    for (uint32_t r = 0; r < output->ranks; r++) {
        snprintf(path, sizeof path, "%s/rank.%u", folder, output->style.first_rank + r);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (fd < 0)
            return kolo__error_errno(errno, "--output-filename: cannot write %s", path);
        kolo__sink_init(&output->copies[r], fd);
    }
    return KOLO_OK;
}

static void close_copies(struct kolo__output *output)
{
    for (uint32_t r = 0; output->copies != NULL && r < output->ranks; r++) {
        int fd = output->copies[r].fd;
        kolo__sink_flush(&output->copies[r]);
        kolo__sink_close(&output->copies[r]);
        if (fd >= 0)
            close(fd);
    }
    free(output->copies);
}

kolo_status kolo__output_create(uint32_t ranks, const struct kolo__output_style *style, int out_fd,
                                int err_fd, struct kolo__output **result)
{
    struct kolo__output *output = calloc(1, sizeof *output);
    if (output == NULL)
        goto fail;
    output->streams = calloc((size_t)ranks * 2, sizeof *output->streams);
    output->buffer = malloc(READ_BYTES);
    if (output->streams == NULL || output->buffer == NULL)
        goto fail;
    output->ranks = ranks;
    output->style = *style;
    output->shared = is_same_file(out_fd, err_fd);
    kolo__sink_init(&output->sinks[0], out_fd);
    kolo__sink_init(&output->sinks[1], err_fd);
    for (uint32_t i = 0; i < 2 * ranks; i++) {
        output->streams[i].fd = -1;
        output->streams[i].sink = &output->sinks[output->shared ? 0 : i % 2];
    }
    if (style->folder != NULL) {
        kolo_status status = open_copies(output, style->folder);
        if (status != KOLO_OK) {
            kolo__output_free(output);
            return status;
        }
    }
    *result = output;
    return KOLO_OK;

fail:
    kolo__output_free(output);
    return kolo__error(KOLO_ERR_MEMORY, "no memory for the output of %u ranks", ranks);
}

void kolo__output_free(struct kolo__output *output)
{
    if (output == NULL)
        return;
    for (uint32_t i = 0; output->streams != NULL && i < 2 * output->ranks; i++) {
        if (output->streams[i].fd >= 0)
            close(output->streams[i].fd);
        free(output->streams[i].kept);
    }
    close_copies(output);
    kolo__sink_close(&output->sinks[0]);
    kolo__sink_close(&output->sinks[1]);
    free(output->streams);
    free(output->buffer);
    free(output);
}

void kolo__output_say(struct kolo__output *output, const char *line)
{
    struct kolo__sink *sink = &output->sinks[output->shared ? 0 : 1];
    kolo__sink_put(sink, LAUNCHER_SOURCE, "", line, strlen(line), "\n", 1);
    kolo__sink_flush(sink);
}

/* ---- from bytes to lines ------------------------------------------------------------------- */

static void write_prefix(const struct kolo__output *output, int source, char *text, size_t bytes)
{
    size_t used = 0;
    uint32_t rank = output->style.first_rank + (uint32_t)source / 2;
    text[0] = '\0';
    if (output->style.timestamp) {
        struct timespec now;
        struct tm parts;
        clock_gettime(CLOCK_REALTIME, &now);
        gmtime_r(&now.tv_sec, &parts);
        used = strftime(text, bytes, "%Y-%m-%dT%H:%M:%S", &parts);
        used += (size_t)snprintf(text + used, bytes - used, ".%03ldZ ", now.tv_nsec / 1000000);
    }
    if (output->style.tag)
        snprintf(text + used, bytes - used, "[%u]<%s>: ", rank,
                 source % 2 == 0 ? "stdout" : "stderr");
    else if (output->style.prefix)
        snprintf(text + used, bytes - used, "[%u] ", rank);
}

static void put(struct kolo__output *output, struct stream *stream, const char *tail,
                size_t tail_bytes)
{
    char prefix[64];
    int source = (int)(stream - output->streams);
    bool only_newline = stream->bytes == 0 && tail_bytes == 1 && tail[0] == '\n';
    if (only_newline && stream->open_line && stream->sink->unfinished != source) {
        /* Somebody spoke in between: the line has got its newline already. */
        stream->open_line = false;
        return;
    }
    write_prefix(output, source, prefix, sizeof prefix);
    if (output->copies != NULL)
        kolo__sink_put(&output->copies[source / 2], source, "", stream->kept, stream->bytes, tail,
                       tail_bytes);
    kolo__sink_put(stream->sink, source, prefix, stream->kept, stream->bytes, tail, tail_bytes);
    stream->open_line = stream->sink->unfinished == source;
    stream->bytes = 0;
}

/* Where the data can be cut without splitting a UTF-8 character at its end. */
static size_t whole_characters(const char *data, size_t bytes)
{
    size_t cut = bytes, longest = bytes < 4 ? bytes : 4;
    for (size_t back = 1; back <= longest; back++) {
        unsigned char c = (unsigned char)data[bytes - back];
        if ((c & 0xC0) == 0x80)
            continue;
        size_t length = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC0 ? 2 : 1;
        if (length > back)
            cut = bytes - back;
        break;
    }
    return cut;
}

/* Keeps the beginning of a line; when it gets too long, lets go of what there is. */
static void keep(struct kolo__output *output, struct stream *stream, const char *data, size_t bytes)
{
    if (stream->bytes + bytes >= PIECE_MAX) {
        size_t cut = whole_characters(data, bytes);
        put(output, stream, data, cut);
        data += cut;
        bytes -= cut;
    }
    if (bytes == 0)
        return;
    if (stream->bytes + bytes > stream->capacity) {
        size_t larger = stream->capacity == 0 ? 256 : stream->capacity;
        while (larger < stream->bytes + bytes)
            larger *= 2;
        char *moved = realloc(stream->kept, larger);
        if (moved == NULL) {
            put(output, stream, data, bytes); /* better in pieces than not at all */
            return;
        }
        stream->kept = moved;
        stream->capacity = larger;
    }
    memcpy(stream->kept + stream->bytes, data, bytes);
    stream->bytes += bytes;
}

/* The length of the first line with its end, "\n", "\r" or "\r\n"; 0 when the end is not there. */
static size_t line_length(const char *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (data[i] == '\n')
            return i + 1;
        if (data[i] == '\r')
            return i + 1 < bytes && data[i + 1] == '\n' ? i + 2 : i + 1;
    }
    return 0;
}

static void split(struct kolo__output *output, struct stream *stream, const char *data,
                  size_t bytes)
{
    while (bytes > 0) {
        size_t length = line_length(data, bytes);
        if (length == 0) {
            keep(output, stream, data, bytes);
            return;
        }
        put(output, stream, data, length);
        data += length;
        bytes -= length;
    }
}

static void end_stream(struct kolo__output *output, struct stream *stream)
{
    if (stream->fd >= 0)
        close(stream->fd);
    stream->fd = -1;
    stream->fed = false;
    if (stream->bytes > 0)
        put(output, stream, NULL, 0);
    if (output->style.prefix)
        kolo__sink_end_line(stream->sink, (int)(stream - output->streams));
    free(stream->kept);
    stream->kept = NULL;
    stream->capacity = 0;
}

/* ---- from agents --------------------------------------------------------------------------- */

void kolo__output_expect(struct kolo__output *output, uint32_t rank)
{
    output->streams[2 * rank].fed = output->streams[2 * rank + 1].fed = true;
}

void kolo__output_feed(struct kolo__output *output, uint32_t rank, int stream, const char *data,
                       size_t bytes)
{
    if (output->streams[2 * rank + (uint32_t)stream].fed)
        split(output, &output->streams[2 * rank + (uint32_t)stream], data, bytes);
}

void kolo__output_end(struct kolo__output *output, uint32_t rank)
{
    for (uint32_t i = 2 * rank; i < 2 * rank + 2; i++)
        if (output->streams[i].fed)
            end_stream(output, &output->streams[i]);
}

static bool is_full(const struct kolo__sink *sink)
{
    return sink->end - sink->begin >= KOLO__SINK_FULL;
}

bool kolo__output_is_full(const struct kolo__output *output)
{
    return is_full(&output->sinks[0]) || is_full(&output->sinks[1]);
}

/* ---- the loop's part ----------------------------------------------------------------------- */

static bool may_read(const struct stream *stream)
{
    return stream->fd >= 0 && !is_full(stream->sink);
}

uint32_t kolo__output_poll_count(const struct kolo__output *output)
{
    return 2 + 2 * output->ranks;
}

/* Entries with a negative descriptor are passed over by poll. */
void kolo__output_poll_fill(const struct kolo__output *output, struct pollfd *fds)
{
    for (uint32_t i = 0; i < 2; i++) {
        const struct kolo__sink *sink = &output->sinks[i];
        fds[i] = (struct pollfd){.fd = sink->begin < sink->end ? sink->fd : -1, .events = POLLOUT};
    }
    for (uint32_t i = 0; i < 2 * output->ranks; i++) {
        const struct stream *stream = &output->streams[i];
        fds[2 + i] = (struct pollfd){.fd = may_read(stream) ? stream->fd : -1, .events = POLLIN};
    }
}

static void read_stream(struct kolo__output *output, struct stream *stream)
{
    ssize_t bytes = read(stream->fd, output->buffer, READ_BYTES);
    if (bytes > 0)
        split(output, stream, output->buffer, (size_t)bytes);
    else if (bytes == 0 || output->finishing || (errno != EAGAIN && errno != EINTR))
        end_stream(output, stream);
}

/* Once more, at most what a pipe holds: its writer may have left others who write. */
static void replace(struct kolo__output *output, struct stream *stream, int fd)
{
    for (uint32_t left = PIPE_READS; stream->fd >= 0 && left > 0; left--)
        read_stream(output, stream);
    if (stream->fd >= 0)
        end_stream(output, stream);
    stream->fd = fd;
}

void kolo__output_add(struct kolo__output *output, uint32_t rank, int out_fd, int err_fd)
{
    replace(output, &output->streams[2 * rank], out_fd);
    replace(output, &output->streams[2 * rank + 1], err_fd);
}

void kolo__output_step(struct kolo__output *output, const struct pollfd *fds)
{
    for (uint32_t i = 0; i < 2 * output->ranks; i++) {
        struct stream *stream = &output->streams[i];
        if (may_read(stream) && (fds[2 + i].revents != 0 || output->finishing))
            read_stream(output, stream);
    }
    kolo__sink_flush(&output->sinks[0]);
    kolo__sink_flush(&output->sinks[1]);
    for (uint32_t r = 0; output->copies != NULL && r < output->ranks; r++)
        kolo__sink_flush(&output->copies[r]);
}

bool kolo__output_is_reading(const struct kolo__output *output)
{
    for (uint32_t i = 0; i < 2 * output->ranks; i++)
        if (output->streams[i].fd >= 0 || output->streams[i].fed)
            return true;
    return false;
}

bool kolo__output_is_writing(const struct kolo__output *output)
{
    return output->sinks[0].begin < output->sinks[0].end ||
           output->sinks[1].begin < output->sinks[1].end;
}

void kolo__output_finish(struct kolo__output *output)
{
    output->finishing = true;
}

int kolo__output_failure(const struct kolo__output *output)
{
    return output->sinks[0].failure;
}

int kolo__output_copies_failure(const struct kolo__output *output)
{
    for (uint32_t r = 0; output->copies != NULL && r < output->ranks; r++)
        if (output->copies[r].failure != 0)
            return output->copies[r].failure;
    return 0;
}
