/* SPDX-License-Identifier: Apache-2.0 */
/* A descriptor that takes whole lines of many sources, and takes them when it can. */
#ifndef KOLO_LAUNCHER_SINK_H
#define KOLO_LAUNCHER_SINK_H

#include <stdbool.h>
#include <stddef.h>

enum {
    KOLO__SINK_FULL = 256 << 10, /* with so many bytes waiting, sources should wait */
    KOLO__NO_SOURCE = -1,
};

struct kolo__sink {
    int fd;
    bool plain_file; /* never blocks for long, and is always ready */
    int failure;     /* errno; everything is dropped from then on */
    char *data;      /* owned; bytes from begin to end wait to be written */
    size_t begin, end, capacity;
    int unfinished;    /* the source whose last piece had no newline */
    bool overwritable; /* that piece ended with \r */
};

void kolo__sink_init(struct kolo__sink *sink, int fd);
void kolo__sink_close(struct kolo__sink *sink);

/* A piece of a line in two parts, either of which may be empty; a whole line when it ends with a
 * newline. prefix ("" : none) is put where a line begins. Borrows nothing. */
void kolo__sink_put(struct kolo__sink *sink, int source, const char *prefix, const char *head,
                    size_t head_bytes, const char *tail, size_t tail_bytes);
/* Ends the source's unfinished line, if there is one. */
void kolo__sink_end_line(struct kolo__sink *sink, int source);
/* Writes what can be written without blocking. */
void kolo__sink_flush(struct kolo__sink *sink);

#endif
