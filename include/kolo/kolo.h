/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kolo: a distributed training runtime with allreduce.
 *
 * N processes ("ranks") form a world, and average their gradients:
 *
 *     kolo_context *context;
 *     kolo_init(NULL, &context);
 *     kolo_comm *world = kolo_world(context);
 *     kolo_allreduce(world, gradient, gradient, count, KOLO_FP32, KOLO_AVERAGE, NULL);
 *     kolo_finalize(context);
 *
 * Every call that can fail returns a kolo_status; kolo_error_text() then tells the calling
 * thread what went wrong (operation, rank, host, remedy). Counts are elements, never bytes.
 *
 * Threads: a communicator is used by one thread at a time; different communicators are
 * independent. Collectives must be called in the same order on every rank of a communicator.
 *
 * After KOLO_ERR_PEER_LOST, KOLO_ERR_MISMATCH, KOLO_ERR_NETWORK, KOLO_ERR_TIMEOUT or
 * KOLO_ERR_ABORTED the communicator is poisoned: every later operation on it returns the same
 * first fault at once. kolo_finalize then still releases everything.
 */
#ifndef KOLO_H
#define KOLO_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KOLO_VERSION_MAJOR 0
#define KOLO_VERSION_MINOR 1
#define KOLO_VERSION_PATCH 0

#if defined(__GNUC__)
#define KOLO_API __attribute__((visibility("default")))
#else
#define KOLO_API
#endif

typedef enum kolo_status {
    KOLO_OK = 0,
    KOLO_AGAIN = 1,            /* not finished yet; not an error */
    KOLO_ERR_INVALID = 2,      /* an argument is wrong; nothing was started */
    KOLO_ERR_CONFIG = 3,       /* an option or environment variable is wrong */
    KOLO_ERR_MEMORY = 4,       /* not enough memory; the text says how much was wanted */
    KOLO_ERR_SYSTEM = 5,       /* a system call failed; the text has errno */
    KOLO_ERR_NETWORK = 6,      /* a connection failed or carried garbage */
    KOLO_ERR_TIMEOUT = 7,      /* a deadline passed; the text says who was missing */
    KOLO_ERR_PEER_LOST = 8,    /* a process of the world died or left; the text says which */
    KOLO_ERR_MISMATCH = 9,     /* ranks called different operations; the text shows both sides */
    KOLO_ERR_WORLD = 10,       /* rank, size or job id do not fit together */
    KOLO_ERR_UNSUPPORTED = 11, /* this build or machine cannot do it */
    KOLO_ERR_ABORTED = 12,     /* somebody called kolo_comm_abort */
} kolo_status;

/* A short constant name such as "KOLO_ERR_PEER_LOST". */
KOLO_API const char *kolo_status_name(kolo_status status);

/* The text of the last error that a kolo call returned on this thread; "" before the first.
 * Valid until the next kolo call on this thread. */
KOLO_API const char *kolo_error_text(void);

/* "0.1.0". */
KOLO_API const char *kolo_version(void);

typedef enum kolo_dtype {
    KOLO_INT8 = 0,
    KOLO_INT16 = 1,
    KOLO_INT32 = 2,
    KOLO_INT64 = 3,
    KOLO_UINT8 = 4,
    KOLO_UINT16 = 5,
    KOLO_UINT32 = 6,
    KOLO_UINT64 = 7,
    KOLO_FP16 = 8, /* IEEE binary16 */
    KOLO_BF16 = 9, /* upper half of an IEEE binary32 */
    KOLO_FP32 = 10,
    KOLO_FP64 = 11,
    KOLO_DTYPE_COUNT = 12
} kolo_dtype;

/* Reductions. fp16 and bf16 accumulate in fp32 and round once, to nearest even, at the end.
 * Integer sums wrap; an integer average truncates toward zero (of the wrapped sum). MIN and
 * MAX return NaN if any contribution is NaN. AND, OR, XOR are bitwise and take integers only.
 * PREMUL_SUM takes floating-point types only: each rank's contribution is multiplied by its
 * options->scale. */
typedef enum kolo_op {
    KOLO_SUM = 0,
    KOLO_AVERAGE = 1,
    KOLO_PRODUCT = 2,
    KOLO_MIN = 3,
    KOLO_MAX = 4,
    KOLO_PREMUL_SUM = 5,
    KOLO_AND = 6,
    KOLO_OR = 7,
    KOLO_XOR = 8,
    KOLO_OP_COUNT = 9
} kolo_op;

/* Bytes of one element; 0 for a value that is no dtype. */
KOLO_API size_t kolo_dtype_bytes(kolo_dtype dtype);
/* "fp32", "sum", ...; NULL for a value that is none. The same words are read by the tools. */
KOLO_API const char *kolo_dtype_name(kolo_dtype dtype);
KOLO_API const char *kolo_op_name(kolo_op op);

typedef struct kolo_context kolo_context;
typedef struct kolo_comm kolo_comm;
typedef struct kolo_request kolo_request;

/* ---- start and end ------------------------------------------------------------------------ */

/* Options override the environment (docs/CONFIG.md). Set size to sizeof(kolo_init_options) and
 * every member not used to 0 or NULL. */
typedef struct kolo_init_options {
    size_t size;
    int rank;               /* with world_size > 0: this process's rank */
    int world_size;         /* 0: take rank and size from the environment */
    const char *rendezvous; /* "host:port" of the rendezvous; NULL: from the environment */
    const char *transport;  /* "auto", "shm" or "tcp"; NULL: from the environment */
} kolo_init_options;

/* Joins the world. Blocks until all ranks are there or KOLO_INIT_TIMEOUT passes
 * (KOLO_ERR_TIMEOUT then names the missing ranks). Without any launcher in the environment the
 * world is this one process. options may be NULL. One context per process, and a world of several
 * processes is joined once: whoever has left it gets KOLO_ERR_WORLD from another kolo_init. */
KOLO_API kolo_status kolo_init(const kolo_init_options *options, kolo_context **context);

/* Leaves the world in good order: waits until every rank has come here (at most the operation
 * timeout), then releases everything, the world communicator included. After a failure it
 * releases everything and returns that failure at once. context may be NULL. */
KOLO_API kolo_status kolo_finalize(kolo_context *context);

/* ---- communicators ------------------------------------------------------------------------ */

/* The communicator of all ranks. Owned by the context. */
KOLO_API kolo_comm *kolo_world(kolo_context *context);

/* -1 when comm is NULL, as for the other three. */
KOLO_API int kolo_comm_rank(const kolo_comm *comm);
KOLO_API int kolo_comm_size(const kolo_comm *comm);
/* Rank and number of ranks among those of this communicator that share this machine's memory. */
KOLO_API int kolo_comm_local_rank(const kolo_comm *comm);
KOLO_API int kolo_comm_local_size(const kolo_comm *comm);
/* How the bytes of this rank travel: "shm", "tcp", "shm+tcp" (ranks here, ranks elsewhere), or
 * "none" in a communicator of one. NULL when comm is NULL. */
KOLO_API const char *kolo_comm_transport(const kolo_comm *comm);

/* Has every later collective of this communicator use the algorithm ("ring", ...) wherever it can;
 * NULL or "": as KOLO_ALGORITHM says, or the cheapest. A call's options come first. Local, but to
 * be called alike on every rank: a difference is KOLO_ERR_MISMATCH in the next collective.
 * KOLO_ERR_INVALID: there is no such algorithm, or a request was not waited for yet. */
KOLO_API kolo_status kolo_comm_set_algorithm(kolo_comm *comm, const char *algorithm);

/* Collective. Ranks with the same color form a new communicator, ordered by (key, old rank).
 * A rank with color KOLO_NO_COLOR gets *result = NULL and KOLO_OK. */
#define KOLO_NO_COLOR (-1)
KOLO_API kolo_status kolo_comm_split(kolo_comm *comm, int color, int key, kolo_comm **result);

/* Releases a communicator made by kolo_comm_split. Local: each rank may call it at any time once
 * its own requests are finished, in any order among communicators. NULL is allowed; the world
 * communicator is refused. */
KOLO_API kolo_status kolo_comm_free(kolo_comm *comm);

/* Poisons the communicator on every rank: pending and later operations return KOLO_ERR_ABORTED
 * with this reason. May be called from any thread. */
KOLO_API kolo_status kolo_comm_abort(kolo_comm *comm, const char *reason);

/* ---- memory ------------------------------------------------------------------------------- */

/* Memory that local ranks and network cards reach directly, aligned to 4096 bytes. Any other
 * pointer works in every call too, at the cost of a copy. Release before kolo_finalize. */
KOLO_API kolo_status kolo_alloc(kolo_context *context, size_t bytes, void **memory);
KOLO_API void kolo_free(kolo_context *context, void *memory);

/* ---- collectives -------------------------------------------------------------------------- */

/* What a single call may choose; NULL means all defaults. Set size to
 * sizeof(kolo_call_options) and every member not used to 0 or NULL. */
typedef struct kolo_call_options {
    size_t size;
    double scale;          /* KOLO_PREMUL_SUM: this rank's factor (must be given) */
    const char *algorithm; /* "ring", ...; the same on every rank; NULL: chosen by cost */
} kolo_call_options;

/* For all collectives: the blocking form waits at most KOLO_TIMEOUT seconds. The _start form
 * returns at once with a request and borrows the buffers until the request completes; it is
 * finished by kolo_wait or kolo_test. Requests of one communicator run in the order they were
 * started. recv == send (same pointer) means in place where stated; buffers that overlap in any
 * other way are refused. count 0 is allowed: nothing moves, but a rank that passes another
 * count is noticed as for any count. A repeated call with the same arguments allocates nothing.
 *
 * Errors: KOLO_ERR_INVALID (arguments; nothing was sent), KOLO_ERR_MISMATCH, KOLO_ERR_TIMEOUT,
 * KOLO_ERR_PEER_LOST, KOLO_ERR_NETWORK, KOLO_ERR_MEMORY, KOLO_ERR_ABORTED.
 *
 * A mismatch ends the operation on every rank. Only where a rank needs nothing from the others, it
 * may have returned before they noticed, and gets the error from its next call on the communicator:
 * the root of a broadcast and the other ranks of a reduce, by messages; all, where count is 0. */

/* send: count elements; recv: count elements, the reduction over all ranks, the same bits on
 * every rank. In place: recv == send. */
KOLO_API kolo_status kolo_allreduce(kolo_comm *comm, const void *send, void *recv, size_t count,
                                    kolo_dtype dtype, kolo_op op, const kolo_call_options *options);
KOLO_API kolo_status kolo_allreduce_start(kolo_comm *comm, const void *send, void *recv,
                                          size_t count, kolo_dtype dtype, kolo_op op,
                                          const kolo_call_options *options, kolo_request **request);

/* send: size*recv_count elements; recv: recv_count elements, the reduction of slice `rank`.
 * In place: recv == send + rank*recv_count elements. */
KOLO_API kolo_status kolo_reduce_scatter(kolo_comm *comm, const void *send, void *recv,
                                         size_t recv_count, kolo_dtype dtype, kolo_op op,
                                         const kolo_call_options *options);
KOLO_API kolo_status kolo_reduce_scatter_start(kolo_comm *comm, const void *send, void *recv,
                                               size_t recv_count, kolo_dtype dtype, kolo_op op,
                                               const kolo_call_options *options,
                                               kolo_request **request);

/* send: send_count elements; recv: size*send_count elements, rank i's at i*send_count.
 * In place: send == recv + rank*send_count elements. */
KOLO_API kolo_status kolo_allgather(kolo_comm *comm, const void *send, void *recv,
                                    size_t send_count, kolo_dtype dtype,
                                    const kolo_call_options *options);
KOLO_API kolo_status kolo_allgather_start(kolo_comm *comm, const void *send, void *recv,
                                          size_t send_count, kolo_dtype dtype,
                                          const kolo_call_options *options, kolo_request **request);

/* buffer: count elements; root's contents reach every rank. */
KOLO_API kolo_status kolo_broadcast(kolo_comm *comm, void *buffer, size_t count, kolo_dtype dtype,
                                    int root, const kolo_call_options *options);
KOLO_API kolo_status kolo_broadcast_start(kolo_comm *comm, void *buffer, size_t count,
                                          kolo_dtype dtype, int root,
                                          const kolo_call_options *options, kolo_request **request);

/* send: count elements; recv: count elements on root (ignored, may be NULL, elsewhere).
 * In place on root: recv == send. */
KOLO_API kolo_status kolo_reduce(kolo_comm *comm, const void *send, void *recv, size_t count,
                                 kolo_dtype dtype, kolo_op op, int root,
                                 const kolo_call_options *options);
KOLO_API kolo_status kolo_reduce_start(kolo_comm *comm, const void *send, void *recv, size_t count,
                                       kolo_dtype dtype, kolo_op op, int root,
                                       const kolo_call_options *options, kolo_request **request);

/* send, recv: size*count elements; the slice at i*count goes to rank i and comes from rank i.
 * Not in place. */
KOLO_API kolo_status kolo_alltoall(kolo_comm *comm, const void *send, void *recv, size_t count,
                                   kolo_dtype dtype, const kolo_call_options *options);
KOLO_API kolo_status kolo_alltoall_start(kolo_comm *comm, const void *send, void *recv,
                                         size_t count, kolo_dtype dtype,
                                         const kolo_call_options *options, kolo_request **request);

/* Returns when every rank has entered. */
KOLO_API kolo_status kolo_barrier(kolo_comm *comm);
KOLO_API kolo_status kolo_barrier_start(kolo_comm *comm, kolo_request **request);

/* Point to point, matched in order per pair of ranks; count and dtype must agree. A blocking
 * send may return before the receiver has called kolo_recv. Sending to oneself is refused. */
KOLO_API kolo_status kolo_send(kolo_comm *comm, const void *buffer, size_t count, kolo_dtype dtype,
                               int peer);
KOLO_API kolo_status kolo_send_start(kolo_comm *comm, const void *buffer, size_t count,
                                     kolo_dtype dtype, int peer, kolo_request **request);
KOLO_API kolo_status kolo_recv(kolo_comm *comm, void *buffer, size_t count, kolo_dtype dtype,
                               int peer);
KOLO_API kolo_status kolo_recv_start(kolo_comm *comm, void *buffer, size_t count, kolo_dtype dtype,
                                     int peer, kolo_request **request);

/* ---- requests ----------------------------------------------------------------------------- */

/* Makes progress without blocking. KOLO_AGAIN: not finished, the request stays valid. Any other
 * status is the operation's result, and *request is released and set to NULL. A NULL *request
 * gives KOLO_OK. */
KOLO_API kolo_status kolo_test(kolo_request **request);

/* Waits up to timeout_ms (negative: KOLO_TIMEOUT). When timeout_ms >= 0 passes: KOLO_AGAIN, the
 * request stays valid and nothing is lost. Otherwise as kolo_test. */
KOLO_API kolo_status kolo_wait(kolo_request **request, int timeout_ms);

#ifdef __cplusplus
}
#endif

#endif
