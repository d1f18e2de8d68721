/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of the verifier, shared by its files and by nobody else:
 *
 *   verify.c         entry, cost, which memories are one
 *   verify_shape.c   each step alone: bounds, flags, who may name whose memory
 *   verify_run.c     all ranks together, in the most restrictive order
 *   verify_data.c    what every element holds, and what OUTPUT has to hold
 *   verify_order.c   accesses to mapped memory are ordered by fences
 *
 * All memory of all ranks is one array of cells, a cell an element:
 *
 *   | rank 0: caller's buffers | SCRATCH | windows | SLOT 0 | SLOT 1 | rank 1: ...
 *
 * and a buffer is a base in it, so buffers that share memory share cells. That is 40 bytes an
 * element (60 for mapped schedules): prove with small counts.
 */
#ifndef KOLO_COLLECTIVES_VERIFY_STATE_H
#define KOLO_COLLECTIVES_VERIFY_STATE_H

#include "collectives/verify.h"

enum { KOLO__VERIFY_WINDOW_MAX = 64 };

#define KOLO__VERIFY_AFLOAT UINT32_MAX

struct kolo__cell {
    uint64_t sum;        /* of the weights of the contributions in it */
    uint64_t scaled_sum; /* of the weights of the contributions that passed PRESCALE */
    uint64_t expression; /* hash of the operands and their order: equal means the same bits */
    uint32_t element;    /* INPUT element they come from, different in each repetition */
    uint16_t number;     /* of contributions; 0: nothing was ever written here */
    uint16_t scaled;     /* how many of those PRESCALEs went into it */
    uint16_t depth;      /* longest chain of messages that led here */
    bool finished;
};

/* Who touched a cell, at which time. Times are 1 + the number of the rank's earlier ARRIVEs; or
 * KOLO__VERIFY_AFLOAT, after all of them, for what a message touched: no fence waits for it. */
struct kolo__cell_access {
    uint32_t writer, write_time;
    uint32_t reader, read_time; /* the latest read */
    uint32_t other_read_time;   /* the latest one by any rank but `reader` */
};

/* When a rank touches memory: which arrivals of the others come before, and how it is noted. */
struct kolo__verify_time {
    uint32_t seen, now;
};

/* A step in a rank's window. */
struct kolo__verify_slot {
    uint64_t waits;              /* bit i: for the step in slot i */
    struct kolo__verify_time at; /* messages: as early, and as late, as it can be */
};

/* Ranks that share memory. Its schedules have the same fences. */
struct kolo__verify_group {
    uint32_t members;
    uint32_t arrivals, window_arrivals; /* ARRIVEs per operation; those that only windows need */
    bool no_windows;                    /* these are left out */
    bool mapped_throughout;             /* which conditional copies are left out */
    uint32_t *arrived_at;               /* members that have arrived so often */
    uint32_t level;                     /* all members have arrived this often */
};

struct kolo__verify_rank {
    const struct kolo__schedule *schedule;
    size_t base[KOLO__BUFFER_COUNT]; /* SLOT: of even operations */
    bool staged_in, staged_out;      /* EXPOSED_*: windows that repeat, not the caller's buffer */
    size_t first_cell, caller_cells; /* the caller's buffers come first */
    struct kolo__verify_slot slots[KOLO__VERIFY_WINDOW_MAX];
    uint64_t unfinished; /* slots in the window */
    uint64_t offered;    /* slots with messages that wait for their peer only */
    uint32_t oldest, opened;
    uint32_t operation;
    struct kolo__verify_group *group;
    uint32_t arrived, awaited; /* ARRIVEs so far; arrivals of all that the last AWAIT saw */
    uint32_t opened_arrived, opened_awaited; /* the same, of the steps opened */
    bool queued;
};

struct kolo__verification {
    const struct kolo__schedule *schedules;
    uint32_t size, window, repeat;
    struct kolo__verify_rank *ranks;
    struct kolo__cell *cells;
    struct kolo__cell_access *accesses; /* NULL: nothing is mapped */
    size_t cell_count;
    uint64_t *weights;
    uint64_t all_weights;
    uint64_t *expressions; /* of OUTPUT of an allreduce, once some rank has finished; 0: none yet */
    size_t stride;         /* between the INPUT element numbers of two repetitions */
    uint32_t *group_of;    /* by rank */
    struct kolo__verify_group *groups; /* `size` entries, of which group_count are used */
    uint32_t group_count;
    bool mapped;             /* some schedule is */
    bool conditional_copies; /* some COPY is MAPPED_ONLY or UNMAPPED_ONLY */
    uint32_t *queue;         /* of ranks to look at, a ring of `size` */
    uint32_t queue_head, queue_length;
    uint32_t *arrived_at; /* of all groups */
    uint32_t depth;       /* longest chain of messages */
    char *text;
    size_t text_bytes;
};

/* ARRIVEs per operation in this layout. */
static inline uint32_t kolo__verify_arrivals(const struct kolo__verify_group *group)
{
    return group->arrivals - (group->no_windows ? group->window_arrivals : 0);
}

/* Of a rank's COPY or REDUCE, and all else that happens between two fences. */
static inline struct kolo__verify_time kolo__verify_now(const struct kolo__verify_rank *r)
{
    return (struct kolo__verify_time){r->awaited, r->arrived + 1};
}

/* Writes the sentence; always KOLO_ERR_INVALID. */
kolo_status kolo__verify_refuse(struct kolo__verification *v, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

kolo_status kolo__verify_shape(struct kolo__verification *v);

kolo_status kolo__verify_run(struct kolo__verification *v);

/* The cell of a place in the given operation. */
size_t kolo__verify_cell(const struct kolo__verification *v, const struct kolo__place *place,
                         uint32_t operation);
kolo_status kolo__verify_begin(struct kolo__verification *v, uint32_t rank);
kolo_status kolo__verify_local(struct kolo__verification *v, uint32_t rank, uint32_t index);
kolo_status kolo__verify_message(struct kolo__verification *v, uint32_t from, uint32_t send_index,
                                 uint32_t to, uint32_t recv_index);
kolo_status kolo__verify_end(struct kolo__verification *v, uint32_t rank);

kolo_status kolo__verify_read(struct kolo__verification *v, uint32_t rank, size_t cell,
                              struct kolo__verify_time at);
kolo_status kolo__verify_write(struct kolo__verification *v, uint32_t rank, size_t cell,
                               struct kolo__verify_time at);

#endif
