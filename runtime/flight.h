/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The flight recorder: what a rank did last, in memory that outlives it and that others can read
 * while it hangs. Always on, so an operation that ends at once costs some stores and no clock.
 *
 * A host's launcher makes the memory, with a place for each of its ranks; a rank that finds none
 * makes its own. Both are memfds named kolo-flight, by which `kolo inspect` finds them in /proc. A
 * rank has a line for each communicator, how far it is, which is what a verdict needs; and the last
 * 1,024 operations, in pages that communicators take in turn: each writes on a page of its own, so
 * that threads need no lock.
 *
 * Readers are other processes, and the writer does not wait for them: fields are atomic one by one,
 * and a line may be half of one operation and half of the next. flight_read.c and flight_judge.c
 * make sense of it.
 */
#ifndef KOLO_RUNTIME_FLIGHT_H
#define KOLO_RUNTIME_FLIGHT_H

#include "collectives/transport/transport.h"

#include <stdatomic.h>
#include <sys/types.h>

enum {
    KOLO__FLIGHT_VERSION = 1,
    KOLO__FLIGHT_PAGES = 32,
    KOLO__FLIGHT_PAGE_ENTRIES = 32,
    KOLO__FLIGHT_ENTRIES = KOLO__FLIGHT_PAGES * KOLO__FLIGHT_PAGE_ENTRIES,
    KOLO__FLIGHT_COMMS = 62, /* more have no line; their operations are recorded all the same */
};

enum kolo__flight_kind { KOLO__FLIGHT_COLLECTIVE, KOLO__FLIGHT_SEND, KOLO__FLIGHT_RECV };

enum kolo__flight_phase {
    KOLO__FLIGHT_NONE, /* nothing was written here yet */
    KOLO__FLIGHT_CALLED,
    KOLO__FLIGHT_DONE,
    KOLO__FLIGHT_FAILED,
};

/* A cache line, of one operation: few stores, as it is written in every one. Times are those of
 * kolo__real_clock. */
struct kolo__flight_entry {
    _Alignas(64) _Atomic uint64_t sequence; /* as in signatures */
    _Atomic uint64_t count;
    _Atomic uint64_t place; /* communicator << 32 | a message's peer, of the world, or the root */
    _Atomic uint64_t what;  /* dtype << 24 | op << 16 | algorithm << 8 | collective; kind << 32 */
    _Atomic uint64_t part;  /* of a reducer: step << 32 | bucket, from 1; 0: none */
    _Atomic uint64_t wait_begin_ns; /* of the caller, if it has to; else 0 */
    _Atomic uint64_t wait_end_ns;   /* only then; 0: it waits, or nobody looked */
    _Atomic uint64_t phase;
};

/* Half a cache line, of one communicator. */
struct kolo__flight_comm {
    _Alignas(32) _Atomic uint32_t id_plus_1; /* 0: nobody's */
    _Atomic uint32_t size;
    _Atomic uint32_t joined;  /* 1: this rank is in kolo_join, and holds nobody up */
    _Atomic uint64_t entered; /* collectives called */
};

struct kolo__flight {
    _Atomic uint32_t version;          /* 0: nobody has come yet. Written last */
    _Atomic uint32_t rank, world_size; /* kolo_renew changes them */
    uint32_t pid;
    uint64_t pid_space; /* in which pid is one: inode of its namespace */
    uint64_t began_ns;
    char host[64], job[64];
    _Atomic uint64_t left_ns;     /* kolo_finalize or a failed kolo_init; 0: it has not left */
    _Atomic uint32_t in_reducers; /* threads in kolo_reducer_wait */
    _Alignas(64) _Atomic uint64_t pages_taken;
    _Alignas(64) _Atomic uint64_t page_number[KOLO__FLIGHT_PAGES]; /* from 1, in order of taking */
    struct kolo__flight_comm comms[KOLO__FLIGHT_COMMS];
    struct kolo__flight_entry pages[KOLO__FLIGHT_PAGES][KOLO__FLIGHT_PAGE_ENTRIES];
};

/* ---- the memory ------------------------------------------------------------------------------ */

struct kolo__flight_memory {
    int fd; /* -1: there is none */
    char path[48];
};

/* For so many ranks, or none of it: a recorder is not worth a job. */
void kolo__flight_memory_open(uint32_t ranks, struct kolo__flight_memory *memory);
void kolo__flight_memory_close(struct kolo__flight_memory *memory);
/* Maps the places of the descriptor's ranks to be read: NULL when it is no such memory. */
const struct kolo__flight *kolo__flight_map(int fd, uint32_t *places);
void kolo__flight_unmap(const struct kolo__flight *flights, uint32_t places);

/* Of the caller: which namespace its process ids are of. */
uint64_t kolo__flight_pid_space(void);

/* ---- a rank's side --------------------------------------------------------------------------- */

struct kolo__flight_recorder {
    struct kolo__flight *flight; /* NULL: not open */
    void *mapped;
    size_t mapped_bytes;
    struct kolo__flight_memory own;
};

/* Place `place` of the memory at path ("": none); or memory of its own. KOLO_ERR_MEMORY. */
kolo_status kolo__flight_open(struct kolo__flight_recorder *recorder, const char *path, long place,
                              uint32_t rank, uint32_t world_size, const char *job);
/* Its rank and the size of its world are others from now on. */
void kolo__flight_move(struct kolo__flight_recorder *recorder, uint32_t rank, uint32_t world_size);
void kolo__flight_close(struct kolo__flight_recorder *recorder);

/* Where a communicator writes. One thread at a time. */
struct kolo__flight_pen {
    struct kolo__flight *flight;
    struct kolo__flight_comm *line;
    struct kolo__flight_comm spare; /* for line, where all of them are taken */
    struct kolo__flight_entry *next, *end;
    const _Atomic uint64_t *page_number;
    uint64_t number; /* as long as *page_number is this, the page is ours */
};

void kolo__flight_take_line(struct kolo__flight *flight, struct kolo__flight_pen *pen, uint32_t id,
                            uint32_t size);
void kolo__flight_give_line_back(struct kolo__flight_pen *pen);
void kolo__flight_turn_page(struct kolo__flight_pen *pen);

static inline void kolo__flight_set_phase(struct kolo__flight_entry *entry,
                                          enum kolo__flight_phase phase)
{
    atomic_store_explicit(&entry->phase, phase, memory_order_relaxed);
}

/* A new operation. Returns its entry, which is another operation's 1,024 later: see
 * kolo__flight_is_of. */
static inline struct kolo__flight_entry *kolo__flight_add(struct kolo__flight_pen *pen,
                                                          const struct kolo__signature *signature,
                                                          enum kolo__flight_kind kind,
                                                          uint32_t other)
{
    if (pen->next == pen->end ||
        atomic_load_explicit(pen->page_number, memory_order_relaxed) != pen->number)
        kolo__flight_turn_page(pen);
    struct kolo__flight_entry *entry = pen->next++;
    __builtin_prefetch(pen->next,
                       1); /* the 64 KiB of all pages do not stay in a first-level cache */
    const memory_order relaxed = memory_order_relaxed;
    atomic_store_explicit(&entry->sequence, signature->sequence, relaxed);
    atomic_store_explicit(&entry->count, signature->count, relaxed);
    atomic_store_explicit(&entry->place, (uint64_t)signature->comm << 32 | other, relaxed);
    atomic_store_explicit(&entry->what,
                          (uint64_t)kind << 32 | (uint64_t)signature->dtype << 24 |
                              (uint64_t)signature->op << 16 | (uint64_t)signature->algorithm << 8 |
                              signature->collective,
                          relaxed);
    atomic_store_explicit(&entry->part, 0, relaxed);
    atomic_store_explicit(&entry->wait_begin_ns, 0, relaxed);
    kolo__flight_set_phase(entry, KOLO__FLIGHT_CALLED);
    if (kind == KOLO__FLIGHT_COLLECTIVE)
        atomic_store_explicit(&pen->line->entered, signature->sequence, relaxed);
    return entry;
}

static inline bool kolo__flight_is_of(const struct kolo__flight_entry *entry,
                                      const struct kolo__signature *signature)
{
    return atomic_load_explicit(&entry->sequence, memory_order_relaxed) == signature->sequence &&
           atomic_load_explicit(&entry->place, memory_order_relaxed) >> 32 == signature->comm;
}

/* The caller waits since then; 0: it has stopped waiting, and does something else. */
static inline void kolo__flight_waits(struct kolo__flight_entry *entry,
                                      const struct kolo__signature *signature, uint64_t begin_ns)
{
    if (!kolo__flight_is_of(entry, signature))
        return;
    atomic_store_explicit(&entry->wait_end_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&entry->wait_begin_ns, begin_ns, memory_order_relaxed);
}

static inline void kolo__flight_waited(struct kolo__flight_entry *entry,
                                       const struct kolo__signature *signature, uint64_t end_ns)
{
    if (kolo__flight_is_of(entry, signature))
        atomic_store_explicit(&entry->wait_end_ns, end_ns, memory_order_relaxed);
}

/* The part of a reducer's step that it is. */
static inline void kolo__flight_name(struct kolo__flight_entry *entry,
                                     const struct kolo__signature *signature, uint32_t step,
                                     uint32_t bucket)
{
    if (kolo__flight_is_of(entry, signature))
        atomic_store_explicit(&entry->part, (uint64_t)step << 32 | bucket, memory_order_relaxed);
}

/* ---- a reader's side (flight_read.c, flight_judge.c) --------------------------------------- */

/* An entry as it was at some moment. */
struct kolo__flight_operation {
    struct kolo__signature signature;
    enum kolo__flight_kind kind;
    enum kolo__flight_phase phase;
    uint32_t other, step, bucket;
    uint64_t wait_begin_ns, wait_end_ns;
};

/* The last `count` operations that the rank called, oldest first; returns how many there are. Those
 * of different communicators are in order by pages of 32. */
uint32_t kolo__flight_operations(const struct kolo__flight *flight,
                                 struct kolo__flight_operation *operations, uint32_t count);
/* The last collective with this number, if it is still there. */
bool kolo__flight_find(const struct kolo__flight *flight, uint32_t comm, uint64_t sequence,
                       struct kolo__flight_operation *operation);
/* "allreduce #812 (1048576 x fp32, sum, ring), bucket 4 of step 811" */
const char *kolo__flight_operation_text(const struct kolo__flight_operation *operation, char *text,
                                        size_t bytes);

/* How far a rank is on one communicator. */
struct kolo__flight_place {
    uint32_t comm, size;
    bool joined;
    uint64_t entered;
    struct kolo__flight_operation last; /* the collective `entered`; phase NONE: not known */
};

/* What a rank does at some moment: all that a verdict needs, taken out of its recorder here or told
 * by it (frame.h). */
struct kolo__flight_state {
    uint32_t rank, world_size;
    char host[64];
    char process;    /* its state, as in /proc: R, S, T, ...; ?: unknown; 0: it has ended */
    bool open;       /* false: all of the rest is not known */
    bool left;       /* kolo_finalize, or a failed kolo_init */
    bool in_reducer; /* kolo_reducer_wait */
    bool has_called; /* false: it is in kolo_init still */
    struct kolo__flight_operation waits; /* the newest that it waits for; phase NONE: none */
    struct kolo__flight_operation last;  /* that it called; phase NONE: none */
    uint32_t count;
    struct kolo__flight_place places[KOLO__FLIGHT_COMMS];
    const struct kolo__flight *flight; /* where more is known of it; NULL: nowhere */
};

/* process is the caller's. */
void kolo__flight_take_state(const struct kolo__flight *flight, struct kolo__flight_state *state);
/* A rank's recorder as the reader knows it. */
struct kolo__flight_rank {
    const struct kolo__flight *flight;
    uint32_t place; /* where it was started, which it keeps when its rank becomes another */
    uint32_t owner; /* user to whom its memory belongs, where that matters */
    char state;     /* process in kolo__flight_state */
};

/* What is wrong, from the vaguest to the plainest. */
enum kolo__flight_finding {
    KOLO__FLIGHT_NOBODY_WAITS,
    KOLO__FLIGHT_ELSEWHERE, /* ranks wait, for some that are not known here */
    KOLO__FLIGHT_ALL_ENTERED,
    KOLO__FLIGHT_BEHIND_IN_TURN, /* a rank has not entered, because it waits for something else */
    KOLO__FLIGHT_BEHIND,         /* a rank has not entered, and waits for nobody */
    KOLO__FLIGHT_DIFFERS,        /* ranks called different things */
};

struct kolo__flight_verdict {
    enum kolo__flight_finding finding;
    uint64_t longest_ns; /* of those that wait */
    char text[1024];     /* one line; "": nobody waits */
};

/* Who holds up whom. The ranks are those of one world, in any order, and not necessarily all of
 * them. */
void kolo__flight_judge_states(const struct kolo__flight_state *ranks, uint32_t count,
                               uint64_t now_ns, struct kolo__flight_verdict *verdict);
/* The same, out of their recorders. */
void kolo__flight_judge(const struct kolo__flight_rank *ranks, uint32_t count, uint64_t now_ns,
                        struct kolo__flight_verdict *verdict);

/* Takes over what another host's rank has recorded: `bytes` as they lay in its memory at their_ns
 * of its clock, which is our_ns of this one. False: they are something else. */
bool kolo__flight_import(struct kolo__flight *flight, const void *bytes, size_t count,
                         uint64_t their_ns, uint64_t our_ns);

#endif
