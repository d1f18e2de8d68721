/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A schedule is one rank's part in a collective: a list of steps over abstract buffers. It is made
 * by a pure function of (rank, size, count), checked by verify.h without a network, and run by
 * execute.h over any transport.
 *
 * Meaning. Steps take effect as if they ran in program order, each finishing before the next.
 * The executor may overlap and cut them into segments wherever the ranges they touch allow it
 * (that is where pipelining comes from: an algorithm never mentions segments). Two rules bind it:
 *
 *   - messages between one pair of ranks, in one direction, are matched in program order: the
 *     k-th SEND from a to b meets the k-th RECV or RECV_REDUCE at b from a, with the same count;
 *   - ARRIVE and AWAIT are fences: every earlier COPY and REDUCE is finished before, no later step
 *     begins. Messages that have begun go on across fences: a fence publishes what one of them
 *     received once a COPY or REDUCE before that fence has read it. In a schedule with fences a
 *     message therefore names only INPUT, OUTPUT and SCRATCH.
 *
 * Zero-count steps are real: they send an empty message, which carries the signature. But they
 * touch no range, so nothing orders them among each other but the match of the k-th with the k-th.
 *
 * Buffers are ranges of elements, all of the collective's dtype:
 *
 *   INPUT    the caller's send buffer. No step writes it.
 *   OUTPUT   the caller's recv buffer. In place it shares memory with INPUT: see
 *            kolo__schedule.input_in_output.
 *   SCRATCH  private to the rank, scratch_count elements; zero before the first run.
 *   EXPOSED_IN, EXPOSED_OUT  index space of INPUT and OUTPUT, but readable and writable by every
 *            rank that shares memory with this one: all, or those of its host. They are the
 * caller's buffers where those are mapped, else windows (see below); a COPY from INPUT fills a
 * window, a COPY to OUTPUT empties it, and in the caller's buffer such copies cost nothing. Except
 * that a COPY with PRESCALE into EXPOSED_IN needs a window, as INPUT is not to be changed.
 * EXPOSED_IN and EXPOSED_OUT of one rank may be the same memory, because it works in place or
 * because both are windows, or not: a schedule is right in both cases. SLOT     slot_count
 * elements, mapped, private to this operation: alternating between two areas from one operation to
 * the next, so the last readers need no second fence.
 *
 * Windows. Of each slice of a buffer that is not mapped, two pieces (or window_pieces) exist at a
 * time, each of kolo__window_piece elements, so that one can be filled while peers use the other:
 *
 *     elements of the slice     | piece 0 | piece 1 | piece 2 | piece 3 | ...
 *     are in the window at      |    0    |    1    |    0    |    1    | ...
 *
 * A buffer is one slice, or, where reduce_scatter and alltoall take INPUT, one for each rank. No
 * place crosses the end of a piece or of a slice.
 *
 * Which messages and fences there are depends on nothing that may differ between ranks; in_place
 * may (a rank can pass the same pointer twice where others do not), so it only decides about
 * local copies.
 */
#ifndef KOLO_COLLECTIVES_SCHEDULE_H
#define KOLO_COLLECTIVES_SCHEDULE_H

#include <kolo/kolo.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum kolo__buffer {
    KOLO__INPUT,
    KOLO__OUTPUT,
    KOLO__SCRATCH,
    KOLO__EXPOSED_IN,
    KOLO__EXPOSED_OUT,
    KOLO__SLOT,
    KOLO__BUFFER_COUNT
};

/* A place: element `offset` of a buffer of `rank`. Another rank's place may be named only in mapped
 * buffers (EXPOSED_*, SLOT), only by COPY and REDUCE, and only if the two share memory. */
struct kolo__place {
    uint32_t rank;
    enum kolo__buffer buffer;
    size_t offset;
};

enum kolo__step_kind {
    KOLO__COPY,        /* to = from */
    KOLO__REDUCE,      /* to = sources[0] op sources[1] op ... in this order, one rounding; then
                          all further targets = to */
    KOLO__SEND,        /* from -> peer */
    KOLO__RECV,        /* to = message from peer */
    KOLO__RECV_REDUCE, /* to = from op message, or message op from (incoming_first) */
    KOLO__ARRIVE,      /* tell all ranks that share memory: everything I did so far may be read */
    KOLO__AWAIT,       /* wait until every one of them has arrived as often as I have */
};

enum kolo__step_flag {
    /* The result of this step is final for its range: divide for AVERAGE. Every element of the
     * result passes exactly one FINISH (reductions only). */
    KOLO__FINISH = 1,
    /* RECV_REDUCE: the message is the left operand. Operand order matters for the bits of NaN;
     * all ranks must end with the same bits. */
    KOLO__INCOMING_FIRST = 2,
    /* COPY or REDUCE from INPUT-like places: multiply each contribution by the rank's own
     * PREMUL_SUM factor. (kolo__problem.prescale says when this is wanted.) */
    KOLO__PRESCALE = 4,
    /* ARRIVE and AWAIT: needed only because windows are used again and again. Left out, by all
     * ranks alike, in a run in which everybody's EXPOSED_* are the callers' buffers. Never on the
     * first fence, at which ranks learn that. An EXPOSED_OUT that only MAPPED_ONLY steps name is no
     * window, wherever OUTPUT lies. */
    KOLO__WINDOWS_ONLY = 8,
    /* COPY, after the first fence: left out, by all ranks alike, but in a run that is mapped
     * throughout: nobody uses windows, and everybody's EXPOSED_OUT is the caller's OUTPUT. */
    KOLO__MAPPED_ONLY = 16,
    /* COPY, after the first fence: left out in just these runs. */
    KOLO__UNMAPPED_ONLY = 32,
};

struct kolo__step {
    enum kolo__step_kind kind;
    uint32_t flags;
    uint32_t peer;         /* SEND, RECV, RECV_REDUCE */
    uint32_t first_source; /* REDUCE: index into kolo__schedule.sources */
    uint32_t source_count; /* REDUCE: at least 1 */
    uint32_t target_count; /* REDUCE: places in other ranks' memory that get the result, too; they
                              follow the sources */
    size_t count;          /* elements; 0 is allowed */
    struct kolo__place from;
    struct kolo__place to;
};

static inline bool kolo__step_is_message(const struct kolo__step *step)
{
    return step->kind == KOLO__SEND || step->kind == KOLO__RECV || step->kind == KOLO__RECV_REDUCE;
}

/* Done in some runs and left out in others. */
static inline bool kolo__step_is_conditional(const struct kolo__step *step)
{
    return (step->flags & (KOLO__WINDOWS_ONLY | KOLO__MAPPED_ONLY | KOLO__UNMAPPED_ONLY)) != 0;
}

static inline bool kolo__step_is_fence(const struct kolo__step *step)
{
    return step->kind == KOLO__ARRIVE || step->kind == KOLO__AWAIT;
}

/* How many places the step reads and writes; which they are: kolo__step_read, kolo__step_written.
 */
static inline uint32_t kolo__step_reads(const struct kolo__step *step)
{
    bool from =
        step->kind == KOLO__COPY || step->kind == KOLO__SEND || step->kind == KOLO__RECV_REDUCE;
    return from ? 1 : step->source_count;
}

static inline uint32_t kolo__step_writes(const struct kolo__step *step)
{
    return kolo__step_is_fence(step) || step->kind == KOLO__SEND ? 0 : 1 + step->target_count;
}

/* Which collective, as on the wire and in messages to the user. */
enum kolo__collective {
    KOLO__ALLREDUCE,
    KOLO__REDUCE_SCATTER,
    KOLO__ALLGATHER,
    KOLO__BROADCAST,
    KOLO__REDUCE_TO_ROOT,
    KOLO__ALLTOALL,
    KOLO__BARRIER,
    KOLO__POINT_TO_POINT, /* never scheduled; here because messages name it too */
    KOLO__COLLECTIVE_COUNT
};

/* What an algorithm is asked for. count is the caller's count argument (per rank slice for
 * reduce_scatter, allgather and alltoall; the whole for the others). */
struct kolo__problem {
    enum kolo__collective collective;
    uint32_t rank;
    uint32_t size;
    uint32_t root;
    size_t count;
    bool in_place;
    bool prescale;       /* PREMUL_SUM: contributions are scaled before they are combined */
    size_t window_count; /* mapped algorithms: elements of half the windows, at least 2 * size */
    /* Set by an algorithm in its schedule: into so many pieces both halves are cut; 0: two. */
    uint32_t window_pieces;
    /* halving_doubling: elements that go through its steps close behind each other, about as many
     * as stay in a cache meanwhile; 0: the whole vector does so at once. The same on all ranks. */
    size_t chunk_count;
    /* halving_doubling: elements that travel at the price of one burst (transport/tcp.h); slices
     * that would be a little longer than whole bursts end where those do. 0: nobody knows. The same
     * on all ranks. */
    size_t burst_count;
    const uint32_t
        *host_of; /* size entries: ranks with the same number share a host; NULL: unknown */
};

/* Owned arrays, grown while building; scratch_count and slot_count follow from the steps. */
struct kolo__schedule {
    struct kolo__problem problem; /* host_of is not kept */
    const char *algorithm;        /* static name */
    struct kolo__step *steps;
    uint32_t step_count, step_capacity;
    struct kolo__place *sources; /* and further targets */
    uint32_t source_count, source_capacity;
    size_t input_count, output_count; /* elements of the caller's buffers on this rank */
    /* in place: INPUT element i is OUTPUT element i + input_in_output, modulo 2^64
     * (reduce_scatter's OUTPUT begins in the middle of its INPUT). */
    size_t input_in_output;
    size_t scratch_count;
    size_t slot_count;
    bool mapped;        /* uses EXPOSED_*, SLOT, ARRIVE or AWAIT: needs kolo__mapping */
    bool exposes;       /* names EXPOSED_* */
    bool exposes_out;   /* names EXPOSED_OUT in a step that is not MAPPED_ONLY */
    bool out_of_memory; /* an append failed; checked once at the end */
};

static inline const struct kolo__place *kolo__step_read(const struct kolo__schedule *s,
                                                        const struct kolo__step *step, uint32_t i)
{
    return step->kind == KOLO__REDUCE ? &s->sources[step->first_source + i] : &step->from;
}

static inline const struct kolo__place *
kolo__step_written(const struct kolo__schedule *s, const struct kolo__step *step, uint32_t i)
{
    return i == 0 ? &step->to : &s->sources[step->first_source + step->source_count + i - 1];
}

/* Building. Appends never fail visibly: they set out_of_memory. */
void kolo__schedule_init(struct kolo__schedule *schedule, const struct kolo__problem *problem,
                         const char *algorithm);
void kolo__schedule_free(struct kolo__schedule *schedule);

struct kolo__place kolo__place_of(uint32_t rank, enum kolo__buffer buffer, size_t offset);

void kolo__schedule_copy(struct kolo__schedule *s, struct kolo__place from, struct kolo__place to,
                         size_t count, uint32_t flags);
void kolo__schedule_reduce(struct kolo__schedule *s, const struct kolo__place *sources,
                           uint32_t source_count, struct kolo__place to, size_t count,
                           uint32_t flags);
/* Adds a place of another rank to the REDUCE appended last. */
void kolo__schedule_push(struct kolo__schedule *s, struct kolo__place target);
void kolo__schedule_send(struct kolo__schedule *s, uint32_t peer, struct kolo__place from,
                         size_t count);
void kolo__schedule_recv(struct kolo__schedule *s, uint32_t peer, struct kolo__place to,
                         size_t count);
void kolo__schedule_recv_reduce(struct kolo__schedule *s, uint32_t peer, struct kolo__place from,
                                struct kolo__place to, size_t count, uint32_t flags);
/* flags: 0 or KOLO__WINDOWS_ONLY. */
void kolo__schedule_arrive(struct kolo__schedule *s, uint32_t flags);
void kolo__schedule_await(struct kolo__schedule *s, uint32_t flags);

/* Elements of a piece: see "Windows" above. */
size_t kolo__window_piece(const struct kolo__problem *problem);
/* Where element `offset` of an EXPOSED buffer is in the windows: below 2*window_count. */
size_t kolo__window_offset(const struct kolo__problem *problem, size_t offset);
/* Whether [offset, offset + count), count > 0, lies within one piece. */
bool kolo__window_holds(const struct kolo__problem *problem, size_t offset, size_t count);

/* Splits count elements into parts slices whose sizes differ by at most one, the larger first. */
size_t kolo__slice_offset(size_t count, uint32_t parts, uint32_t index);
size_t kolo__slice_count(size_t count, uint32_t parts, uint32_t index);

const char *kolo__collective_name(enum kolo__collective collective); /* "allreduce", ... */
bool kolo__collective_reduces(enum kolo__collective collective);

/* ---- algorithms (collectives/algorithm/, one file each) ------------------------------------ */

struct kolo__cost_terms;   /* collectives/algorithm/algorithm.h */
struct kolo__flow_problem; /* collectives/flows.h */
struct kolo__flow_sink;

struct kolo__algorithm {
    const char *name;
    bool needs_mapping;      /* only where all ranks of the communicator share one heap */
    bool needs_host_mapping; /* only where the ranks of each host do; sends messages between hosts
                              */
    bool fills_slot;         /* SLOT holds a rank's whole INPUT, which must not be longer */
    /* Combines all contributions to an element in one REDUCE, in the order of ranks: rounds 16-bit
     * sums once, and gives the same bits as all others that say so. */
    bool rounds_once;
    /* True when this algorithm can do this problem (collective, size, hosts). The answer is the
     * same on every rank. */
    bool (*accepts)(const struct kolo__problem *problem);
    /* Emits one rank's steps. KOLO_ERR_MEMORY is the only failure. */
    kolo_status (*build)(const struct kolo__problem *problem, struct kolo__schedule *schedule);
    /* Predicted seconds for a problem that it accepts; select.h compares them. */
    double (*seconds)(const struct kolo__cost_terms *terms);
    /* What one rank sends in an allreduce, for predictions on larger networks; NULL: it does none,
     * or sends nothing. */
    void (*flows)(const struct kolo__flow_problem *problem, struct kolo__flow_sink *sink);
};

/* All algorithms, NULL-terminated, in the order of docs. */
extern const struct kolo__algorithm *const kolo__algorithms[];
/* One of them, or one that is done elsewhere (offload/offload.h), which builds no schedule. */
const struct kolo__algorithm *kolo__algorithm_find(const char *name);

#endif
