/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of a reducer, shared by the files of this folder:
 *
 *   reducer.c   create, free, what users ask
 *   renew.c     in the next epoch of the world
 *   freeze.c    the first step's order becomes the plan: buckets, units, memory
 *   ready.c     a gradient gets ready
 *   step.c      units move, the caller waits, the next step begins
 *   step_end.c  unused gradients, norm, clipping
 *   unit.c      one collective of a step: packed, started, unpacked
 *   fp8.c       the same for 8-bit floats, which no collective can add
 *   gpu.h       the same for gradients in a GPU's memory, where all is queued
 *   tuning.c    the search for the best sizes
 *   shard.c     pieces, gathering of parameters
 *   driver.c    who drives a step              thread.c     the progress thread of a context
 *   fusion.h    which tensors share a bucket          tune.h     of which size
 *   tensors.h   the same tensors on all ranks?        named.c    any order
 *
 * A step is a list of units, each one collective (8-bit ones: three), begun by all ranks in the
 * order of this list, which is that in which gradients got ready on rank 0. A unit may begin when
 * its bucket is complete, and is finished in the order of the list as well. Who begins and finishes
 * them is the DRIVER of the step: the progress thread, or the caller of kolo_reducer_wait.
 *
 *   any thread    tensor ready -> its bucket's `missing` -> 0            (atomics, nothing else)
 *   driver        units [0, finished) [finished, started) [started, count)
 *                          done          under way          wait for their buckets
 *
 * `driver` says whose the step is: all other members belong to whoever has it.
 */
#ifndef KOLO_RUNTIME_REDUCER_REDUCER_H
#define KOLO_RUNTIME_REDUCER_REDUCER_H

#include "kernels/pack.h"
#include "runtime/comm.h"
#include "runtime/reducer/fusion.h"
#include "runtime/reducer/tune.h"

#include <semaphore.h>

/* How the bytes of a bucket come into the collective. */
enum kolo__fusing {
    KOLO__FUSING_DIRECT,    /* views: the bucket itself is reduced */
    KOLO__FUSING_SCATTERED, /* tensors where they are; the windows of shared memory pack them */
    KOLO__FUSING_STAGED,    /* packed into staging, narrowed or not, and unpacked */
};

enum kolo__unit_kind {
    KOLO__UNIT_GRADIENTS,
    KOLO__UNIT_USED, /* allow_unused: the bitmap of used tensors */
    KOLO__UNIT_NORM, /* sharded: sum of squares and verdict */
};

/* Nanoseconds of kolo__real_clock. */
#define KOLO__NO_DEADLINE UINT64_MAX

enum { KOLO__STAGES_MAX = 2, KOLO__UNIT_NAME_BYTES = 48 };

struct kolo__unit {
    enum kolo__unit_kind kind;
    uint32_t bucket;
    enum kolo__fusing fusing;
    size_t first, count; /* elements of the bucket */
    /* SCATTERED: its part of the reducer's pieces. */
    uint32_t first_piece, piece_count;
    char name[KOLO__UNIT_NAME_BYTES]; /* for errors */
    /* While it is under way. */
    kolo_request *request;
    unsigned char *staging;
    unsigned stage;    /* 8-bit: how far */
    float amax;        /* 8-bit: of all ranks */
    double wire_scale; /* 8-bit: of the last step; 0: none */
    uint64_t began;    /* ns, for the timeline; 0 without */
};

struct kolo__reducer_tensor {
    unsigned char *data; /* packed: the user's; views: in the arena */
    size_t count;
    kolo_dtype dtype;
    size_t position;         /* of element 0 in the bucket, in elements */
    float *error;            /* error feedback, or NULL */
    unsigned char *shadow;   /* of a step that did not use it: gpu_unused.c, step_end.c; kept */
    bool unused;             /* in this step, on this rank */
    char *label;             /* owned; NULL: no name */
    const char *trace_label; /* the trace's */
};

struct kolo__reducer_bucket {
    size_t elements;              /* packed: without holes */
    uint32_t known;               /* its first tensors that the driver has seen ready */
    atomic_ullong complete_ticks; /* for the timeline: its last gradient was ready */
};

/* Wakes whoever drives. kolo_reducer_ready is called for every gradient, a driver sleeps seldom, so
 * the driver pays for the barrier that both sides need (membarrier(2)):
 *
 *     ready   flag = true; (compiler barrier)       idle?  then, if the bucket is complete, wake
 *     driver  idle = true; barrier on all threads   bucket not complete?  then sleep
 *
 * Whichever comes second sees what the other did. Elsewhere both use seq_cst. */
struct kolo__waker {
    atomic_bool idle;
    sem_t semaphore;
};

/* RETURNED: kolo_reducer_ready will not look at the reducer any more. A step does not end before,
 * nor is the plan changed or freed. */
enum kolo__readiness { KOLO__NOT_READY, KOLO__READY, KOLO__RETURNED };

struct kolo__reducer_thread;
struct kolo__reducer_gpu;
struct kolo__call;

/* OFFERED: nobody drives, and the thread may take the step, as the caller may. */
enum kolo__driver { KOLO__DRIVER_CALLER, KOLO__DRIVER_OFFERED, KOLO__DRIVER_TAKEN };

struct kolo_reducer {
    kolo_context *context;
    kolo_comm *comm; /* owned; guardian: the one it was made with */
    kolo_reducer_options options;
    uint64_t digest; /* of tensors and options */
    bool views, frozen, accumulates, tunes;
    uint32_t tensor_count;
    struct kolo__reducer_tensor *tensors;
    kolo_tensor *given;            /* as they were described; names are the tensors' labels */
    struct kolo__reducer_gpu *gpu; /* gpu.h; NULL: they are in the host's memory */

    /* The plan. */
    struct kolo__fusion fusion;
    uint32_t *order;                   /* of readiness: own in the first step, then rank 0's */
    atomic_uint ordered, recorded;     /* places taken in it, and filled */
    uint32_t *slots;                   /* by tensor: its place in members, and so in `ready` */
    atomic_uchar *ready;               /* by place: enum kolo__readiness */
    unsigned char *arena, *parameters; /* heap, or gpu's; views, sharded */
    kolo_reducer_shard *shards;        /* sharded: this rank's pieces, by tensor */
    size_t shard_count;
    struct kolo__reducer_bucket *buckets;
    struct kolo__unit *units;
    uint32_t unit_count, unit_capacity;
    struct kolo__piece *pieces;  /* SCATTERED */
    uint32_t piece_count, depth; /* depth: units under way at a time */
    unsigned char *staging;      /* heap; KOLO__STAGES_MAX times staging_bytes */
    size_t staging_bytes;
    uint64_t *used; /* bitmap of this step: own, then everybody's */
    size_t used_words;

    /* The step. */
    atomic_int driver;       /* enum kolo__driver */
    atomic_bool entered;     /* kolo_reducer_wait has begun to end this step */
    atomic_bool wanted_back; /* the thread gives it back at once, whatever is under way */
    bool threaded, was_long; /* this step is offered to the thread; the one before was long */
    _Atomic(struct kolo__waker *) waker;  /* the driver's */
    struct kolo__waker own_waker;         /* the caller's, when it drives */
    struct kolo__waker done;              /* the caller's, when it waits for the thread to give */
    atomic_ullong first_ready_ns;         /* in this step; 0: none yet */
    atomic_uint awaited;                  /* the unit that the idle driver waits for */
    uint64_t entered_ns;                  /* the first kolo_reducer_wait of it began; 0: not yet */
    uint32_t started, finished, gathered; /* units; buckets of parameters */
    kolo_status status;                   /* the fault of this reducer, with its text */
    char error[512];
    struct kolo__norm norm;
    double squares[2];    /* KOLO__UNIT_NORM */
    const void **sources; /* 8-bit: one a rank */

    /* What ranks agree on beside gradients, while it is under way: in the first step the order,
     * then sizes; at the end of some steps the scores of sizes. */
    kolo_request *agreement;
    bool order_agreed;  /* the first of these is over */
    bool ended;         /* all of the step is, but an agreement */
    atomic_bool closed; /* allow_unused: the first step takes no more gradients */
    uint64_t sizes[3];
    double scores[KOLO__TUNE_CHOICES_MAX];
    kolo_request *gather; /* of parameters: what is under way */

    /* Over steps. */
    struct kolo__tuning tuning; /* at present */
    struct kolo__tuner tuner;
    size_t standard_segment_bytes;            /* of the communicator */
    uint64_t step_began_ns, step_began_ticks; /* ticks: for the timeline */
    uint64_t sequence_before;
    uint32_t step; /* from 1, once its first unit was started: for the flight recorder */
    kolo_reducer_report report;
    struct kolo__reducer_thread *thread; /* the context's, once it is needed */
    struct kolo_reducer *next;           /* in its list */
};

static inline const char *kolo__reducer_label(const kolo_reducer *r, size_t tensor)
{
    return r->tensors[tensor].label != NULL ? r->tensors[tensor].label : "(no name)";
}

static inline bool kolo__reducer_narrows(const struct kolo_reducer *r, kolo_dtype dtype)
{
    return r->options.wire != KOLO_WIRE_SAME && dtype == KOLO_FP32;
}

static inline bool kolo__reducer_is_fp8(const struct kolo_reducer *r)
{
    return r->options.wire == KOLO_WIRE_FP8_E4M3 || r->options.wire == KOLO_WIRE_FP8_E5M2;
}

enum kolo__narrow_float kolo__reducer_narrow(kolo_wire wire);

/* What a bucket travels as, but for 8-bit floats. */
static inline kolo_dtype kolo__reducer_wire_dtype(const struct kolo_reducer *r, uint32_t bucket)
{
    kolo_dtype dtype = r->fusion.buckets[bucket].dtype;
    if (!kolo__reducer_narrows(r, dtype))
        return dtype;
    return r->options.wire == KOLO_WIRE_BF16 ? KOLO_BF16 : KOLO_FP16;
}

/* ---- renew.c -------------------------------------------------------------------------------- */

/* Its communicator dies: the progress thread lets go of the step. */
void kolo__reducer_retire(void *reducer);

/* ---- freeze.c ------------------------------------------------------------------------------- */

/* Provisional places of views before the first step. */
kolo_status kolo__reducer_lay_out(kolo_reducer *reducer);
/* Collective: rank 0's order becomes the plan of all. deadline_ns: KOLO_AGAIN then, and nothing is
 * lost; KOLO__NO_DEADLINE: KOLO_TIMEOUT is a fault. */
kolo_status kolo__reducer_freeze(kolo_reducer *reducer, uint64_t deadline_ns);
/* Collective: the plan of root for those who have none yet. */
kolo_status kolo__reducer_freeze_as(kolo_reducer *reducer, uint32_t root,
                                    const struct kolo__tuning *tuning);
/* Starts reducer->agreement unless it is under way, and waits for it. The call's buffer stays valid
 * until the end. */
kolo_status kolo__reducer_agree(kolo_reducer *reducer, const struct kolo__call *call,
                                uint64_t deadline_ns);
/* Cuts buckets and units anew, between steps. */
kolo_status kolo__reducer_cut(kolo_reducer *reducer, const struct kolo__tuning *tuning);
/* ---- tuning.c ------------------------------------------------------------------------------- */

/* Collective: what an earlier run found, or the beginning of a search. */
kolo_status kolo__reducer_begin_tuning(kolo_reducer *reducer, uint64_t deadline_ns,
                                       struct kolo__tuning *tuning);
/* After kolo__tuner_record: perhaps another cut for the next step. May be collective. */
kolo_status kolo__reducer_tune(kolo_reducer *reducer, uint64_t deadline_ns);
/* Collective, after kolo_join. */
kolo_status kolo__reducer_rejoined(void *reducer, uint32_t last);

/* Smaller ones would be more than a communicator keeps plans for. */
size_t kolo__reducer_least_bucket(const kolo_reducer *reducer);

/* ---- ready.c -------------------------------------------------------------------------------- */

/* All that is left of kolo_reducer_ready in other threads, which may have been put to sleep there.
 */
void kolo__reducer_await_returns(kolo_reducer *reducer);
/* The first tensor that is not ready, and how many there are. */
uint32_t kolo__reducer_first_missing(const kolo_reducer *reducer, uint32_t *count);

/* ---- step_end.c ----------------------------------------------------------------------------- */

/* allow_unused: what is not ready now contributes nothing. */
kolo_status kolo__reducer_take_for_unused(kolo_reducer *reducer);
/* Once all units are finished: results, norm and clipping. */
void kolo__reducer_draw(kolo_reducer *reducer);

/* ---- step.c --------------------------------------------------------------------------------- */

/* Moves what can be moved; the driver's. False: nothing is under way, and the next unit's bucket is
 * not complete. A fault is kept in the reducer. */
bool kolo__reducer_drive(kolo_reducer *reducer, bool *moved);
static inline bool kolo__reducer_step_done(const kolo_reducer *r)
{
    return r->status != KOLO_OK || r->finished == r->unit_count;
}
/* Forgets who was ready. */
void kolo__reducer_rewind(kolo_reducer *reducer);

/* ---- unit.c --------------------------------------------------------------------------------- */

bool kolo__unit_may_start(kolo_reducer *reducer, const struct kolo__unit *unit);
kolo_status kolo__unit_start(kolo_reducer *reducer, struct kolo__unit *unit);
/* KOLO_AGAIN: not finished. */
kolo_status kolo__unit_advance(kolo_reducer *reducer, struct kolo__unit *unit);

/* Calls visit for each run of one tensor's elements in [first, first + count) of the bucket, in
 * order; `at` is the element of the bucket where it begins. Without a tensor: padding. */
struct kolo__run_of_tensor {
    struct kolo__reducer_tensor *tensor; /* NULL: padding */
    size_t first, count;                 /* of the tensor */
    size_t at;                           /* in the bucket */
};
void kolo__bucket_visit(kolo_reducer *reducer, uint32_t bucket, size_t first, size_t count,
                        void (*visit)(void *self, const struct kolo__run_of_tensor *run),
                        void *self);

/* What the whole of a unit is packed as, and unpacked: but for wire_scale. */
void kolo__unit_pack(kolo_reducer *reducer, const struct kolo__unit *unit, double scale,
                     unsigned char *to);
void kolo__unit_unpack(kolo_reducer *reducer, const struct kolo__unit *unit, double scale,
                       size_t first, size_t count, const unsigned char *from);

/* ---- shard.c -------------------------------------------------------------------------------- */

/* Once the order is frozen. */
kolo_status kolo__shard_list(kolo_reducer *reducer);

/* ---- fp8.c ---------------------------------------------------------------------------------- */

kolo_status kolo__fp8_start(kolo_reducer *reducer, struct kolo__unit *unit);
/* The request of a stage is done: the next one. KOLO_AGAIN, or KOLO_OK after the last. */
kolo_status kolo__fp8_next(kolo_reducer *reducer, struct kolo__unit *unit);
/* The largest number that the wire holds. */
double kolo__fp8_largest(const kolo_reducer *reducer);
/* Bytes of staging that a unit of so many elements takes. */
size_t kolo__fp8_staging(const kolo_reducer *reducer, size_t count);

/* ---- thread.c ------------------------------------------------------------------------------- */

/* The thread serves this reducer from now on; made if there is none. Failure: it is driven by its
 * caller, as before. */
void kolo__thread_adopt(kolo_reducer *reducer);
/* Afterwards the thread does not touch the reducer; the last one ends the thread. */
void kolo__thread_release(kolo_reducer *reducer);
struct kolo__waker *kolo__thread_waker(const kolo_reducer *reducer);

/* ---- driver.c ------------------------------------------------------------------------------- */

/* Does the thread take part in the next step? was_long: of the step before, then of this one. */
bool kolo__driver_pays(bool *was_long, uint64_t first_ready_ns, uint64_t entered_ns);
/* At the end of a step: whom gradients of the next one wake. It is the caller's until offered. */
void kolo__driver_choose(kolo_reducer *reducer);
void kolo__driver_offer(kolo_reducer *reducer);
/* The thread's: takes what is offered; gives what it has taken. */
bool kolo__driver_take(kolo_reducer *reducer);
void kolo__driver_give(kolo_reducer *reducer, enum kolo__driver to);
/* Afterwards the step is the caller's, in whatever state. False: not within that time. */
bool kolo__driver_take_back(kolo_reducer *reducer, uint64_t most_ns);

/* ---- waker.c -------------------------------------------------------------------------------- */

/* Once, before the first reducer is used. */
void kolo__waker_prepare(void);
/* After what an idle driver is to see. */
extern bool kolo__waker_asymmetric; /* membarrier(2) works here */
extern atomic_uint kolo__waker_fence;
static inline void kolo__waker_light_barrier(void)
{
    if (kolo__waker_asymmetric)
        atomic_signal_fence(memory_order_seq_cst);
    else
        atomic_fetch_add(&kolo__waker_fence, 1); /* seq_cst */
}

/* Says that the driver is idle. Afterwards it looks once more before it sleeps. */
void kolo__waker_idle(struct kolo__waker *waker);

/* Until woken, at most so long. */
void kolo__waker_sleep(struct kolo__waker *waker, uint64_t most_ns);

static inline void kolo__waker_wake(struct kolo__waker *waker)
{
    if (atomic_exchange(&waker->idle, false))
        sem_post(&waker->semaphore);
}

#endif
