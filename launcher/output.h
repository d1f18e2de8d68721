/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ranks' output on its way to the user: many pipes in, two descriptors out.
 *
 *   rank 0 stdout --+                        +-- sink: stdout
 *   rank 0 stderr --|-- lines, "[rank] " --> |
 *   rank 1 stdout --+   one at a time        +-- sink: stderr (the same sink when both are one
 * file)
 *
 * Nothing is lost and nothing is invented: when a sink is slow, pipes are not read, and the ranks
 * wait. No call blocks, except in writes to a plain file.
 *
 * A line ends with \n, or with \r: a progress line that its rank will write over. A line is written
 * when it is whole. Only one of 64 KiB or more goes out in pieces; should another rank speak
 * between two of them, a newline comes first, so that no line ever holds the words of two.
 */
#ifndef KOLO_LAUNCHER_OUTPUT_H
#define KOLO_LAUNCHER_OUTPUT_H

#include <kolo/kolo.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct kolo__output;

/* What comes before each line, and where else it goes. */
struct kolo__output_style {
    bool prefix;         /* "[rank] " */
    bool tag;            /* "[rank]<stdout>: " instead */
    uint32_t first_rank; /* of those that are here: what index 0 is shown as */
    bool timestamp;      /* "2026-11-25T15:13:53.123Z " first of all */
    const char *folder;  /* FOLDER/rank.N gets all lines of rank N, of both streams; NULL: none */
};

/* Writes to out_fd and err_fd, which it borrows. Makes the folder. */
kolo_status kolo__output_create(uint32_t ranks, const struct kolo__output_style *style, int out_fd,
                                int err_fd, struct kolo__output **output);
/* output may be NULL. */
void kolo__output_free(struct kolo__output *output);

/* Takes the reading ends of a rank's pipes, which must be non-blocking. Those of an earlier process
 * are read as far as they are filled, and closed. */
void kolo__output_add(struct kolo__output *output, uint32_t rank, int out_fd, int err_fd);
/* A rank whose bytes come otherwise (from its host's agent): both its streams are open until
 * kolo__output_end. stream: 0 stdout, 1 stderr. */
void kolo__output_expect(struct kolo__output *output, uint32_t rank);
void kolo__output_feed(struct kolo__output *output, uint32_t rank, int stream, const char *data,
                       size_t bytes);
void kolo__output_end(struct kolo__output *output, uint32_t rank);
/* True while a sink has so much to write that sources should wait. */
bool kolo__output_is_full(const struct kolo__output *output);
/* A line of the launcher's own, to stderr. */
void kolo__output_say(struct kolo__output *output, const char *line);

/* The loop's part: how many entries; what to poll for; what to do then. */
uint32_t kolo__output_poll_count(const struct kolo__output *output);
void kolo__output_poll_fill(const struct kolo__output *output, struct pollfd *fds);
void kolo__output_step(struct kolo__output *output, const struct pollfd *fds);

/* True while a pipe is open whose writers may still write. */
bool kolo__output_is_reading(const struct kolo__output *output);
/* True while something waits for its sink. */
bool kolo__output_is_writing(const struct kolo__output *output);
/* Tells that no writer of ours lives any more: what is in the pipes now is all there will be. */
void kolo__output_finish(struct kolo__output *output);
/* errno of the first failure to write stdout (EPIPE: the reader has gone); 0: none. What would go
 * there is dropped from then on. A stderr that cannot be written is no reason to stop. */
int kolo__output_failure(const struct kolo__output *output);
/* The same of the files of each rank (--output-filename): the job goes on. */
int kolo__output_copies_failure(const struct kolo__output *output);

#endif
