/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of a program, shared by the files that make up the executor and by nobody else:
 *
 *   execute.c               create, begin, progress: the walk over the window
 *   execute_dependencies.c  which steps touch the same memory
 *   execute_message.c       send, receive, receive-and-reduce
 *   execute_local.c         copy and reduce
 *   execute_trace.c         steps as events of a timeline
 *   execute_pieces.c        the same where the caller's buffer lies in pieces
 *   execute_mapped.c        exposures, signatures of all ranks, addresses of remote places, fences
 */
#ifndef KOLO_COLLECTIVES_EXECUTE_PROGRAM_H
#define KOLO_COLLECTIVES_EXECUTE_PROGRAM_H

#include "collectives/execute.h"
#include "kernels/kernels.h"

/* Copies and reductions stop after this many bytes of the destination, so that messages keep
 * flowing and what one step wrote is still in cache when the next reads it. */
enum { KOLO__PIECE_BYTES = 128 * 1024 };

/* Steps may share staging; fewer slots than this are never the reason to wait. */
enum { KOLO__STAGING_SLOTS = 16 };

#define KOLO__NO_STEP UINT32_MAX

/* Elements [0, end) of a step may begin when `step` is finished or has passed end + shift. */
struct kolo__dependency {
    uint32_t step;
    ptrdiff_t shift;
};

/* What is known of a step for all runs. */
struct kolo__plan_step {
    uint32_t first_dependency, dependency_count;
    uint32_t previous; /* message steps: the one before in the same channel, or KOLO__NO_STEP */
    bool remote;       /* names another rank's memory */
    size_t segments;   /* message steps: messages, at least 1 */
};

/* A step in the window. */
struct kolo__step_run {
    size_t done;                    /* watermark: elements [0, done) are finished */
    size_t posted;                  /* segments */
    size_t completed;               /* segments, of which `done` follows */
    uint32_t first_open_dependency; /* those before it are finished for good */
    uint32_t slots;                 /* staging slots held */
    bool in_turn;                   /* every earlier message of the channel has been posted */
    bool finished;
    unsigned char *from, *to;
    uint64_t begin_ticks; /* traced: once something of it has moved */
    /* The caller's buffer lies in pieces, and the step names it: element 0 of the step is this one
     * there, and element `done` lies in this piece. Else NULL. */
    size_t first;
    const struct kolo__piece *piece;
};

/* Where a rank's mapped buffers are in this process. */
struct kolo__mapped_peer {
    unsigned char *in, *out;
    bool in_windows, out_windows; /* not the caller's buffers */
    bool in_private;              /* another process's memory, at in_address there; in is NULL */
    uint64_t in_address;
};

/* For a timeline, in shared memory: steps of which kind the rank is at; begin_ticks 0: at none. */
struct kolo__doing {
    enum kolo__step_kind kind;
    uint64_t begin_ticks;
    uint64_t bytes;
};

struct kolo__program {
    struct kolo__schedule schedule;
    struct kolo__program_options options;
    size_t element_bytes;
    size_t segment_count;         /* elements a message */
    struct kolo__plan_step *plan; /* one a step */
    struct kolo__dependency *dependencies;
    uint32_t dependency_count, dependency_capacity;

    /* State of the one run. Step i lives at i % window. */
    struct kolo__step_run *steps; /* window */
    struct kolo__post
        *posts; /* window * depth: segment k of step i at (i % window) * depth + k % depth */
    uint32_t *post_slots; /* the staging slot of a RECV_REDUCE's post */
    uint32_t window;
    uint32_t oldest; /* steps before it are finished */
    uint32_t opened; /* steps before it have entered the window */
    bool running;
    bool streams;         /* copies to OUTPUT go past the caches */
    bool traced;          /* steps of this run are recorded */
    uint64_t trace_ticks; /* traced: the time, 0 when nobody has read it since something moved */
    struct kolo__doing doing;
    struct kolo__run_arguments arguments;
    unsigned char *bases[KOLO__BUFFER_COUNT]; /* of this rank's private buffers */
    unsigned char *scratch;

    /* Segment-sized slots that RECV_REDUCE receives into, last freed first used: it is the one
     * still in cache. A step may always have one (slot_count covers a whole window), more while any
     * of the spare ones is free: so the pool never is what a run waits for. */
    unsigned char *staging;
    size_t slot_bytes;
    uint32_t slot_count, spare_slots, spare_used;
    uint32_t *free_slots;
    uint32_t free_slot_count;

    /* REDUCE: one entry a source, one a target. */
    const void **operands;
    double *scales;
    void **targets;

    /* Mapped schedules: one entry a rank. */
    struct kolo__mapped_peer *peers;
    unsigned char **slots;   /* of all ranks: [parity * size + rank]; found at the first run */
    uint32_t gathered;       /* ranks before it have been compared with this one */
    uint32_t arrived;        /* ranks before it have arrived at the fence that this one is at */
    bool exposed, announced; /* by this rank's last ARRIVE */
    bool windows;  /* of those gathered, or this one, some use windows, not the caller's buffers */
    bool unmapped; /* of them, some have OUTPUT outside the heap */
    bool all_want_cross_reads; /* of those gathered, and this one */
    unsigned parity;           /* of mapped runs */
    uint64_t digest;           /* of this run's signature */
    struct kolo__exposure exposure;

    size_t bytes; /* scratch and staging */
};

static inline struct kolo__step_run *kolo__step_run(struct kolo__program *program, uint32_t index)
{
    return &program->steps[index % program->window];
}

static inline bool kolo__step_finished(const struct kolo__program *program, uint32_t index)
{
    return index < program->oldest || program->steps[index % program->window].finished;
}

/* ---- execute_dependencies.c ---- */

/* Fills plan[].first_dependency, dependency_count, previous and remote. */
kolo_status kolo__program_find_dependencies(struct kolo__program *program);
/* The elements that the step may process now: [0, limit). */
size_t kolo__step_limit(struct kolo__program *program, uint32_t index);

/* ---- execute_message.c, execute_local.c: each returns KOLO_OK, or the status of a failed post
 * ---- */

kolo_status kolo__step_advance_message(struct kolo__program *program, uint32_t index, bool *moved);
kolo_status kolo__step_advance_local(struct kolo__program *program, uint32_t index, bool *moved,
                                     struct kolo__fault *fault);
/* PREMUL_SUM: whether this rank's contribution enters here, multiplied by the rank's factor. */
bool kolo__step_prescales(const struct kolo__program *program, const struct kolo__step *step);
/* Elements [begin, end) of a copy or reduction. callers: where they are in a caller's buffer that
 * lies in pieces; NULL where it does not, or the step names none of it. */
kolo_status kolo__step_process(struct kolo__program *program, uint32_t index, size_t begin,
                               size_t end, unsigned char *callers, struct kolo__fault *fault);
/* How the step combines, but for scales. */
struct kolo__reduction kolo__step_reduction(const struct kolo__program *program,
                                            const struct kolo__step *step);

/* ---- execute_trace.c: only where there is a timeline ---- */

bool kolo__program_is_worth_tracing(const struct kolo__program *program);
/* Mapped schedules: before a look at the step, and after the run. */
void kolo__step_trace_mapped(struct kolo__program *program, uint32_t index);
void kolo__run_trace_end(struct kolo__program *program);
/* Others: around a look at the step; advanced: something of it has moved. */
void kolo__step_trace_before(struct kolo__program *program, uint32_t index);
void kolo__step_trace_after(struct kolo__program *program, uint32_t index, bool advanced);
/* ---- execute_pieces.c: only where arguments.piece_count > 0 ---- */

/* Asserts that this run can be done in pieces. */
void kolo__pieces_check(const struct kolo__program *program);
/* Finds the piece that the step begins with, if it names the caller's buffer. */
void kolo__pieces_open_step(struct kolo__program *program, uint32_t index);
/* kolo__step_process for a step that does, from element `done` on. */
kolo_status kolo__pieces_process(struct kolo__program *program, uint32_t index, size_t end,
                                 struct kolo__fault *fault);

/* ---- execute_mapped.c ---- */

/* Begins a mapped run: finds where this rank's own mapped buffers are. */
void kolo__program_map(struct kolo__program *program);
/* For a run without mapped steps: notices peers that run one with mapped steps. */
kolo_status kolo__program_check_peers(struct kolo__program *program, struct kolo__fault *fault);
bool kolo__program_gathered(const struct kolo__program *program);
/* A fence or a copy that nobody wants in this run; the same on all ranks. */
bool kolo__program_leaves_out(const struct kolo__program *program, const struct kolo__step *step);
kolo_status kolo__step_advance_fence(struct kolo__program *program, uint32_t index, bool *moved,
                                     struct kolo__fault *fault);
/* The address of a place of any rank; NULL when it is private to another process, or lies in
 * pieces. */
unsigned char *kolo__program_address(const struct kolo__program *program,
                                     const struct kolo__place *place);
/* Whether the place is private to another process. */
bool kolo__place_is_private(const struct kolo__program *program, const struct kolo__place *place);
/* Reads it from there, from byte `skip` of the place on. */
kolo_status kolo__program_cross_read(struct kolo__program *program, const struct kolo__place *place,
                                     size_t skip, void *to, size_t bytes,
                                     struct kolo__fault *fault);

/* execute_memory.c: scratch and staging, aligned to cache lines. take: NULL without memory. */
unsigned char *kolo__program_take_memory(const struct kolo__program *program, size_t bytes);
void kolo__program_give_memory(const struct kolo__program *program, unsigned char *memory);

#endif
