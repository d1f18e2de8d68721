/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A communicator: ranks, the transport between them, the operations under way.
 *
 * Requests stand in a queue in the order they were started. Collectives run one at a time;
 * point-to-point messages run beside each other and beside the collective in front of which they
 * were started, never ahead of one: on each pair of ranks messages are matched in the order of the
 * calls.
 */
#ifndef KOLO_RUNTIME_COMM_H
#define KOLO_RUNTIME_COMM_H

#include "collectives/transport/heap.h"
#include "base/socket.h"
#include "runtime/context.h"
#include "runtime/plan.h"
#include "runtime/verdict.h"

#include <stdatomic.h>

enum { KOLO__WORLD_COMM = 1 }; /* id of each epoch's */
/* Of a fault that breaks nothing: all have found it together, and `kolo run` is to say it. */
#define KOLO__NO_COMM UINT32_MAX

enum kolo__request_kind { KOLO__REQUEST_COLLECTIVE, KOLO__REQUEST_SEND, KOLO__REQUEST_RECV };

struct kolo_request {
    kolo_comm *comm;
    struct kolo_request *next; /* in the queue, or in the free list */
    const char *operation;     /* as errors name it: "kolo_allreduce"; not owned, never freed */
    enum kolo__request_kind kind;
    bool begun, done;
    bool told;          /* the rendezvous that it waits, or there is nobody to tell */
    kolo_status status; /* once done */
    /* Where there is a timeline: once begun (see begun); while a call waits for it. Else 0. */
    uint64_t begin_ticks, wait_ticks;
    struct kolo__signature signature;
    struct kolo__flight_entry *flight; /* its own as long as kolo__flight_is_of */
    struct kolo__plan *plan;           /* collectives */
    const void *input;
    void *output;
    const struct kolo__piece *pieces; /* instead of input and output; borrowed */
    uint32_t piece_count;
    double scale;
    void *stream;                /* of a GPU's buffers */
    uint32_t peer;               /* point to point */
    struct kolo__bounce *bounce; /* of a message of a GPU's memory (bounce.h), or NULL */
    bool straight;               /* which network cards reach */
    bool waits_for_gpu;          /* it is counted in held */
    struct kolo__post post;
    uint64_t began_ns;       /* for metrics; 0: not timed */
    uint64_t waits_since_ns; /* the first call that waited for it, which may have had a limit */
};

struct kolo_comm {
    kolo_context *context;
    kolo_comm *next; /* in the context's list */
    uint32_t epoch;  /* that it belongs to */
    bool retired;    /* which is over */
    uint32_t id, rank, size, local_rank, local_size;
    uint32_t *world_ranks; /* by rank */
    uint32_t *host_of;     /* by rank: number of its host among those of this communicator */
    const char **hosts;    /* by rank: name; owned by the control plane */
    struct kolo__transport *transport; /* NULL with one rank */
    struct kolo__mapping *mapping;     /* NULL unless all ranks share a heap */
    struct kolo__mapping
        *host_mapping;               /* with those that do: the same, or those of this host, or NULL
                                      */
    struct kolo__mpi_comm *mpi;      /* NULL: none */
    struct kolo__nccl *nccl;         /* runtime/nccl.h; NULL: nobody has asked for it */
    struct kolo__exchange *exchange; /* runtime/exchange.h; NULL: the same */
    struct kolo__staging *staging;   /* runtime/staging.h; NULL: the same */
    struct kolo__bounce *bounces;    /* runtime/bounce.h; NULL: the same */
    uint32_t held;                   /* messages that wait for a GPU before they begin */
    bool polls;                      /* what is under way wakes nobody */
    bool crowded;                    /* ranks of this host share processors, as far as is known */
    struct kolo__plan_context plan_context;
    struct kolo__plan_cache plans;
    kolo_request *first, *last, *free_requests;
    uint32_t outstanding; /* requests that nobody has finished yet, done or not */
    uint64_t sequence;    /* of the last collective */
    uint64_t *send_sequence, *recv_sequence;             /* by peer */
    struct kolo__signature recent[KOLO__VERDICT_RECENT]; /* a ring of the last collectives */
    uint64_t recent_count;
    struct kolo__flight_pen pen;
    uint32_t splits;
    /* While somebody has joined (kolo_join): the collectives that need not be announced (again)
     * are those from announced_first to announced_last. */
    bool announcing;
    uint64_t announced_first, announced_last;
    struct kolo__fault fault; /* poisoned by; peer is a rank of the world */
    atomic_bool aborted;      /* then abort_fault is set: by any thread, before this flag */
    struct kolo__fault abort_fault;
    /* A communicator made for the sake of another one, as a reducer's is: what breaks the guardian
     * breaks this one, and who joins (kolo_join) on the guardian joins on this one. NULL: none. */
    kolo_comm *guardian;
    const char *cannot_join; /* why kolo_join is refused; NULL: it is not */
    const char *root_joined; /* what to say when a root has joined; NULL: the usual */
    /* Then, or NULL: called on every rank with each such communicator when all ranks have left
     * kolo_join. last: the rank that joined last. Collective on this communicator. */
    kolo_status (*rejoined)(void *owner, uint32_t last);
    void *owner;
    /* Or NULL: called before this communicator dies with its epoch: no other thread uses it from
     * then on. */
    void (*retire)(void *owner);
    /* For metrics. */
    struct kolo__sheet *sheet; /* NULL: nobody counts */
    struct kolo__transport
        *paths[3];      /* what transport goes by: tcp, rdma, shm. NULL: not by that */
    uint64_t rested_ns; /* idle_ns of the last kolo__comm_rest */
};

/* What the ranks of a new communicator know of each other. Arrays are by rank of it, and borrowed.
 */
struct kolo__comm_members {
    uint32_t id, rank, size;
    const uint32_t *world_ranks;
    const struct kolo__endpoint *endpoints; /* NULL unless tcp is used */
    const uint64_t *mailboxes;              /* UINT64_MAX: not in this rank's heap */
    int listen_fd; /* passes to the communicator, also on failure; -1: none */
};

kolo_status kolo__comm_create(kolo_context *context, const struct kolo__comm_members *members,
                              kolo_comm **comm);
/* Local. comm may be NULL. */
void kolo__comm_destroy(kolo_comm *comm);
/* Local: its epoch is over. Ends what is under way, and gives up all that connects it with other
 * ranks; what is left answers every call with its fault, until it is freed. */
void kolo__comm_retire(kolo_comm *comm);

/* Collective. A communicator of the same ranks, whose guardian is comm. */
kolo_status kolo__comm_duplicate(kolo_comm *comm, kolo_comm **result);

/* ---- operations (request.c, wait.c) ------------------------------------------------------ */

/* A blank request at the end of the queue, or the communicator's fault as an error of `operation`.
 */
kolo_status kolo__request_add(kolo_comm *comm, const char *operation, enum kolo__request_kind kind,
                              kolo_request **request);
/* Moves what can be moved. Afterwards done requests carry their status. */
bool kolo__comm_progress(kolo_comm *comm);
/* Waits until the request is done or timeout_ms passes (negative: KOLO_TIMEOUT, which is then a
 * fault). */
kolo_status kolo__request_wait(kolo_request *request, int timeout_ms);
/* One turn of waiting, for whoever drives the queue and saw nothing move for idle_ns: comes back at
 * once at first, then yields, then sleeps for at most most_ns; listens to the control plane; fails
 * the communicator after KOLO_TIMEOUT. Who waits on several gives each its turn. */
void kolo__comm_rest(kolo_comm *comm, uint64_t idle_ns, uint64_t most_ns);
/* The status and text of a done request; gives the request back. */
kolo_status kolo__request_finish(kolo_request *request);
/* A barrier by messages, so that nobody looks into this rank's mailbox afterwards. Collective. */
kolo_status kolo__comm_close_ranks(kolo_comm *comm, const char *operation);
/* Tells the rendezvous that this rank waits for the request (stuck.c). without_limit: it calls
 * nothing else on the communicator before it is done. */
void kolo__comm_stuck(const kolo_request *request, bool without_limit);
/* For texts of timeouts: ". rank 2 (host ...) never entered ...", as the rendezvous has found out
 * lately; or "". */
void kolo__comm_culprit(const kolo_comm *comm, char *text, size_t bytes);
/* How long a GPU may take to end what the communicator has it do, when that is closed:
 * KOLO_TIMEOUT, or 5 s where it is broken, for NCCL's kernels have been told to end then. */
uint64_t kolo__comm_settle_ms(const kolo_comm *comm);
/* Listens to what others say of the communicator: its fault, if there is one, as an error of
 * `operation`. */
kolo_status kolo__comm_check(kolo_comm *comm, const char *operation);
/* The fault that others spread for it, as its ranks are to read it; false: none so far. Any thread.
 */
bool kolo__comm_heard(const kolo_comm *comm, struct kolo__fault *fault);
/* Tells those who have joined (kolo_join) what this rank has begun after them (join.c). */
void kolo__comm_announce(kolo_comm *comm);
/* By any thread: leaves a fault for whoever looks next at the communicator. The first stays. */
void kolo__comm_leave_fault(kolo_comm *comm, const struct kolo__fault *fault);
/* As kolo_comm_abort, by any thread, because of this. */
void kolo__comm_abort(kolo_comm *comm, const struct kolo__fault *fault);
/* It has its fault: what is under way ends with that. */
void kolo__comm_end(kolo_comm *comm);
/* The world has lived through it. */
void kolo__comm_forget_first_fault(const kolo_context *context);
/* Poisons the communicator. spread: tell the others. */
void kolo__comm_fail(kolo_comm *comm, const struct kolo__fault *fault, bool spread);

/* Shared by the two: a fault that others found, or an abort, ends what is under way; a call's wait,
 * for the timeline. */
void kolo__comm_take_news(kolo_comm *comm);
void kolo__request_record_wait(const kolo_request *request, uint64_t begin_ticks,
                               uint64_t end_ticks);

#endif
