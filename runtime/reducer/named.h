/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The any-order mode (kolo_named_*): tensors have names, and what all ranks have submitted is
 * agreed on in BATCHES.
 *
 *   named.c          create, free, submit
 *   named_wait.c     wait: runs batches, keeps to deadlines, says what is waited for in vain
 *   named_batch.c    one batch: who has what, new names
 *   named_reduce.c   its end: what all have is reduced
 *   names.h          the table of names, the same on all ranks
 *
 * A batch is a sequence of collectives on a communicator of its own:
 *
 *   agree     allreduce(AND) of words   [flags | a bit for each name known: "here it is pending"]
 *   lacks     only by a flag: allgather of those bits, for a text that says who lacks what
 *   names     only by a flag: allgathers of the size and the text of names that nobody knew yet;
 *             all ranks merge them in the order of ranks, so they get the same places everywhere
 *   reduce    what all had: large tensors where they are, the rest packed into buckets of one
 * dtype, in the order of places
 *
 * Flags are complements ("nobody has new names"), so that AND is an OR of what they deny, and that
 * a rank which has joined (kolo_join) and contributes ones has submitted everything and wants
 * nothing.
 *
 * Why ranks stay in step whatever they submit, and whenever: which collectives a batch has, and of
 * which size, follows from the table at its beginning and from what `agree`, `lacks` and `names`
 * gave, and those are the same on all ranks. So ranks that were alike before a batch are alike
 * after it, and are in the k-th batch together or not at all: nobody leaves `agree` before all have
 * entered it. How many batches a kolo_named_wait takes is each rank's own affair. One that needs no
 * more does not begin the next, and those which do wait there, as in any collective, until it comes
 * back with something else to submit. What meets in which batch therefore depends on what the ranks
 * do, not on how fast they do it, and neither do bits (but for waits with a limit of time).
 *
 * Where all ranks are in waits without a limit and have nothing in common, and nobody has new
 * names, nothing will ever come: that is KOLO_ERR_MISMATCH at once, on all ranks alike.
 *
 * Cost: the small allreduce of `agree` each batch, one more batch and two allgathers when there are
 * names never seen before; between ranks that do not share memory, and in buckets under 64 KiB, two
 * copies of tensors that are no large ones. Nothing is allocated while names,
 * and what meets in a batch, have been there before.
 */
#ifndef KOLO_RUNTIME_REDUCER_NAMED_H
#define KOLO_RUNTIME_REDUCER_NAMED_H

#include "runtime/comm.h"
#include "runtime/reducer/names.h"
#include "runtime/reducer/scratch.h"

enum kolo__named_stage {
    KOLO__NAMED_BETWEEN, /* no batch is under way */
    KOLO__NAMED_AGREE,
    KOLO__NAMED_LACKS,
    KOLO__NAMED_SIZES,
    KOLO__NAMED_NAMES,
    KOLO__NAMED_REDUCE,
};

/* What reduce does next: at place `index`, of large tensors (phase 0), then of small ones of dtype
 * phase - 1. */
struct kolo__named_cursor {
    unsigned phase;
    size_t index;
};

struct kolo_named {
    kolo_context *context;
    kolo_comm *comm; /* owned */
    size_t bucket_bytes;
    int ordinal;                  /* of the GPU that all tensors are on; -1: the host */
    struct kolo__scratch staging; /* bucket_bytes */
    kolo_call_options call;       /* of reductions: scale, stream */
    kolo_op op;
    bool sums;

    /* The batch under way. */
    bool wants_lacks;     /* this rank; expired: because its deadline has passed */
    bool expired, warned; /* warned: that not all ranks came to it */
    enum kolo__named_stage stage;
    kolo_request *request; /* NULL: none */
    uint64_t *agreed;      /* flags, then bits; both have room for every name */
    size_t words, names;   /* of agreed; and names in it */
    size_t capacity;       /* words of agreed and pending */
    uint64_t began_ns;
    uint64_t *lacks; /* of each rank */
    uint64_t *sizes; /* of announcements, by rank */
    size_t largest;  /* of them */
    struct kolo__frame_writer announcement;
    unsigned char *announcements;
    struct kolo__named_cursor cursor, bucket; /* bucket: where the one under way began */
    struct kolo__piece *pieces, whole;        /* of the bucket; room for every name */
    size_t staged_bytes;                      /* of the bucket, if it is in staging */
    uint32_t piece_count;
    unsigned phases; /* a bit for each that has something */

    struct kolo__names known; /* the same on all ranks, but for what is pending */
    struct kolo__names fresh; /* submitted here, and not known (with this shape) */
    size_t pending_count;     /* in both */
    uint64_t *pending;        /* bits of known */
    uint64_t oldest_ns;       /* nothing pending that nobody was told of is older */
    uint64_t moved_ns;        /* when something was last reduced */
    uint64_t batches;         /* so far */
    unsigned in_vain;         /* batches in a row that got nothing done */
    bool news;                /* submitted since the last batch began */

    char error[480];    /* the text of status */
    kolo_status status; /* the fault of this object */
};

/* ---- named_batch.c ----------------------------------------------------------------------------
 */

/* unlimited: the wait has no limit of time. wants_lacks: kolo__named_tell is to be called in this
 * batch. */
kolo_status kolo__named_begin(struct kolo_named *named, bool unlimited, bool wants_lacks);
/* The request of the stage is done (or there is none): the next one, or the end of the batch. */
kolo_status kolo__named_advance(struct kolo_named *named);
/* Room for `count` names in the bits. */
bool kolo__named_make_room(struct kolo_named *named, size_t count);
/* Fresh submissions of names that are known by now become pending bits. */
kolo_status kolo__named_settle(struct kolo_named *named);

/* Any bit of a name is in `agreed`. */
bool kolo__named_agreed(const struct kolo_named *named);

/* ---- named_reduce.c ---------------------------------------------------------------------------
 */

/* Begins the request of the stage. */
kolo_status kolo__named_allreduce(struct kolo_named *named, void *data, size_t count,
                                  kolo_dtype dtype, kolo_op op, const kolo_call_options *options);
void kolo__named_begin_reduce(struct kolo_named *named);
/* The next bucket, or the end of the batch. */
kolo_status kolo__named_reduce(struct kolo_named *named);

/* ---- named_wait.c -----------------------------------------------------------------------------
 */

uint64_t kolo__named_now(void);
/* `lacks` is there: warns, or past the deadline is KOLO_ERR_TIMEOUT. */
kolo_status kolo__named_tell(struct kolo_named *named);

/* ---- named.c ----------------------------------------------------------------------------------
 */

/* Collective, after kolo_join: the table of rank `last`, which missed no batch, is everybody's. */
kolo_status kolo__named_rejoined(void *named, uint32_t last);

#endif
