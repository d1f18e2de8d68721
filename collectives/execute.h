/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a schedule over a transport, in pipelined segments.
 *
 * A program is a schedule made ready: dependencies between steps found once, staging and posts
 * allocated. A run is one execution of it. kolo__run_progress is a resumable state machine: it
 * never blocks, owns no thread, reads no clock (but for a timeline) and allocates nothing, so that
 * a waiting caller, a progress thread and the simulator drive the same code.
 *
 * How it overlaps. Every step has a watermark: elements [0, done) are finished. At most
 * KOLO__EXECUTE_WINDOW steps, from the oldest unfinished one on, are in flight. A segment [a, b) of
 * a step may begin when every earlier step in the window that touches the same memory (and one of
 * the two writes) has passed it:
 *
 *     done(earlier) >= min(count(earlier), b + shift)
 *
 * with shift the distance between the two ranges. The ring's "send what arrived in the last step"
 * thus streams segment by segment through all ranks, and so does a tree.
 */
#ifndef KOLO_COLLECTIVES_EXECUTE_H
#define KOLO_COLLECTIVES_EXECUTE_H

#include "base/trace.h"
#include "collectives/transport/heap.h"
#include "collectives/transport/transport.h"

enum { KOLO__EXECUTE_WINDOW = 64 };

struct kolo__program; /* immutable shape plus preallocated state of one run at a time */

struct kolo__program_options {
    kolo_dtype dtype;
    kolo_op op;           /* ignored by collectives that do not reduce */
    size_t segment_bytes; /* the same on every rank; messages of a step are at most this long;
                             rounded down to whole elements, at least one */
    uint32_t depth;       /* segments in flight per step, at least 1 */
    /* What this rank may touch and keep in the outermost cache: copies to OUTPUT are written past
     * the caches where its buffers are larger. 0: never. */
    size_t cache_bytes;
    /* Network cards reach its memory: large scratch and staging are taken from it. NULL: they reach
     * none. Borrowed until free. */
    struct kolo__heap *heap;
};

/* Takes over the schedule (moved: *schedule is emptied, also on failure). */
kolo_status kolo__program_create(struct kolo__schedule *schedule,
                                 const struct kolo__program_options *options,
                                 struct kolo__program **program);
void kolo__program_free(struct kolo__program *program);
/* Private memory the program holds (scratch, staging), for reports. */
size_t kolo__program_bytes(const struct kolo__program *program);

/* A caller's buffer in pieces: elements [pieces[k].first, pieces[k + 1].first) lie at
 * pieces[k].data, aligned to their dtype; the last piece ends with the buffer, pieces[0].first is
 * 0, no piece is empty. */
struct kolo__piece {
    size_t first;
    unsigned char *data;
};

/* What changes from run to run. Pointers are borrowed until the run has ended. */
struct kolo__run_arguments {
    const void *input;
    void *output;
    /* Allreduces of mapped memory, in place: INPUT and OUTPUT lie in these pieces, and go through
     * windows wherever the pieces are. What other ranks do about theirs does not matter.
     * piece_count 0: INPUT and OUTPUT are contiguous. */
    const struct kolo__piece *pieces;
    uint32_t piece_count;
    double scale;                     /* PREMUL_SUM */
    struct kolo__signature signature; /* copied */
    struct kolo__transport *transport;
    /* NULL when the communicator has none. A mapped schedule needs it; the others use it only to
     * notice a peer that runs a mapped schedule at the same time, which else nobody would. */
    struct kolo__mapping *mapping;
    struct kolo__trace *trace; /* NULL: steps are not recorded, and no clock is read */
};

/* Starts a run; nothing is sent before the first progress. At most one run of a program at a time
 * (asserted). */
void kolo__run_begin(struct kolo__program *program, const struct kolo__run_arguments *arguments);

/* The caller drives the transport: this looks at posts and makes new ones, but never calls the
 * transport's progress.
 * KOLO_OK: finished, every post has completed. KOLO_AGAIN: call again after something moved.
 * Otherwise the fault, given in program order by whoever detected it (text in *fault). After an
 * error, posts may still be owned by the transport: close it before kolo__program_free. *moved (may
 * be NULL) is set true when a step advanced. */
kolo_status kolo__run_progress(struct kolo__program *program, bool *moved,
                               struct kolo__fault *fault);

/* What the run waits for, in words: "receive from rank 3 (step 12 of 14, 65536 of 131072
 * elements)". */
const char *kolo__run_state(const struct kolo__program *program, char *text, size_t bytes);
/* The communicator rank the oldest unfinished step waits for, -1 when none. */
int kolo__run_waiting_for(const struct kolo__program *program);

#endif
