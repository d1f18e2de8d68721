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
 * first fault at once. kolo_finalize then still releases everything; and where processes are left
 * that can go on, kolo_renew makes a world of them.
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
    KOLO_ERR_DEVICE = 13, /* a GPU or its driver failed; the text has the driver's name of it */
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

/* ---- elastic worlds (docs/ELASTIC.md) ------------------------------------------------------- */

/* A world is the first of a row of EPOCHS. After a fault, or to take newcomers in, its ranks call
 * kolo_renew and go on in the next epoch with whoever is there: survivors in their old order, then
 * newcomers (processes started with KOLO_NEWCOMER=1). Memory of kolo_alloc stays where it is;
 * communicators, requests and reducers of the epoch before are dead: their calls return an error,
 * and they are freed as always (kolo_comm_free, kolo_reducer_free), or renewed
 * (kolo_reducer_renew). kolo_world gives the new world communicator. */

/* Set size to sizeof(kolo_renew_options) and every member not used to 0. */
typedef struct kolo_renew_options {
    size_t size;
    int timeout_ms; /* for all survivors to come; who has not by then is expelled. Counted from the
                       first that comes, whose value counts. 0: KOLO_TIMEOUT */
    int leave;      /* 1: this rank leaves the world in good order, and the others go on without it.
                       Only kolo_finalize may follow */
} kolo_renew_options;

/* Collective over the survivors; blocks until all of them have come, or are lost, or are expelled.
 * No other thread may use anything of the world meanwhile. A rank that is lost before the new epoch
 * is complete makes the next one at once. options may be NULL. After an error the context can only
 * be renewed again, or finalized. KOLO_ERR_WORLD: this rank was expelled, or fewer ranks are left
 * than KOLO_MIN_RANKS; KOLO_ERR_PEER_LOST: the rendezvous is gone (the launcher, or rank 0 where
 * that holds it), and the world with it; KOLO_ERR_UNSUPPORTED: this world has no rendezvous. What
 * fails on one rank only (memory, say) is that error on all. */
KOLO_API kolo_status kolo_renew(kolo_context *context, const kolo_renew_options *options);

/* Collective on the world communicator, for the end of a step: *wanted is 1 on all ranks when
 * newcomers wait, or some rank passed leaving = 1 (it is to end, as after SIGTERM), and all should
 * call kolo_renew now; else 0. One allreduce of 4 bytes. */
KOLO_API kolo_status kolo_renewal_wanted(kolo_context *context, int leaving, int *wanted);

/* How this epoch came about, the same on all ranks. */
typedef struct kolo_epoch_report {
    size_t size;       /* set by the caller: sizeof(kolo_epoch_report) */
    int epoch;         /* 0: the world that the job began with */
    int survivors;     /* ranks [0, survivors) were in the epoch before, the others are newcomers; 0
                          in epoch 0 */
    int previous_size; /* of the epoch before; 0 in epoch 0 */
    const char *gone;  /* who was lost, expelled or left since, for people; "": nobody. Valid until
                          the next kolo_renew */
} kolo_epoch_report;

KOLO_API kolo_status kolo_get_epoch_report(const kolo_context *context, kolo_epoch_report *report);
/* The rank that this rank of the world had in the epoch before; -1: none, it is a newcomer. */
KOLO_API int kolo_previous_rank(const kolo_context *context, int rank);

/* ---- communicators ------------------------------------------------------------------------ */

/* The communicator of all ranks. Owned by the context. */
KOLO_API kolo_comm *kolo_world(kolo_context *context);

/* -1 when comm is NULL, as for the other three. */
KOLO_API int kolo_comm_rank(const kolo_comm *comm);
KOLO_API int kolo_comm_size(const kolo_comm *comm);
/* Rank and number of ranks among those of this communicator that share this machine's memory. */
KOLO_API int kolo_comm_local_rank(const kolo_comm *comm);
KOLO_API int kolo_comm_local_size(const kolo_comm *comm);
/* How the bytes of this rank travel: "shm", "tcp", "rdma", "shm+tcp" or "shm+rdma" (ranks here,
 * ranks elsewhere), or "none" in a communicator of one. NULL when comm is NULL. */
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

/* Where a pointer points. Memory of GPUs is known to the CUDA driver; while a process has not begun
 * to use it, all of its memory is the host's. */
typedef enum kolo_memory_kind {
    KOLO_MEMORY_HOST = 0,    /* what the driver does not know of */
    KOLO_MEMORY_PINNED = 1,  /* the host's, locked for GPUs (cudaMallocHost, cudaHostRegister) */
    KOLO_MEMORY_DEVICE = 2,  /* a GPU's */
    KOLO_MEMORY_MANAGED = 3, /* moves between both (cudaMallocManaged) */
    KOLO_MEMORY_KIND_COUNT = 4
} kolo_memory_kind;

/* "host", "pinned", ...; NULL for a value that is none. */
KOLO_API const char *kolo_memory_kind_name(kolo_memory_kind kind);
/* Never fails and begins no driver. device (may be NULL): the GPU's ordinal in CUDA, for pinned
 * memory that of the context which it was made in; -1: no GPU. */
KOLO_API kolo_memory_kind kolo_memory_find(const void *memory, int *device);

/* ---- collectives -------------------------------------------------------------------------- */

/* What a single call may choose; NULL means all defaults. Set size to
 * sizeof(kolo_call_options) and every member not used to 0 or NULL. */
typedef struct kolo_call_options {
    size_t size;
    double scale;          /* KOLO_PREMUL_SUM: this rank's factor (must be given) */
    const char *algorithm; /* "ring", ...; the same on every rank; NULL: chosen by cost */
    void *stream;          /* with a GPU's buffers: a cudaStream_t of that GPU; see below */
} kolo_call_options;

/* Buffers in a GPU's memory. They are read once everything that the stream (NULL: CUDA's default
 * stream) had at the call is done; and what is put on the stream after kolo_wait, kolo_test or the
 * blocking form returned KOLO_OK sees the results. That may be before the GPU has them: whoever
 * reads them from the host synchronizes with the stream. All buffers of a call are on one GPU, or
 * all on the host; pinned and managed memory counts as the host's, whose calls take no stream.
 * KOLO_ERR_UNSUPPORTED: this version does not do it with a GPU's memory; the text says what does.
 */

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
 * send may return before the receiver has called kolo_recv. Sending to oneself is refused. Of a
 * buffer in a GPU's memory what CUDA's default stream has at the call comes first: a send waits for
 * it, and what is put on that stream after a receive sees what came. It goes through memory of the
 * host of as many bytes, which the communicator keeps; the peer's buffer may be anywhere. */
KOLO_API kolo_status kolo_send(kolo_comm *comm, const void *buffer, size_t count, kolo_dtype dtype,
                               int peer);
KOLO_API kolo_status kolo_send_start(kolo_comm *comm, const void *buffer, size_t count,
                                     kolo_dtype dtype, int peer, kolo_request **request);
KOLO_API kolo_status kolo_recv(kolo_comm *comm, void *buffer, size_t count, kolo_dtype dtype,
                               int peer);
KOLO_API kolo_status kolo_recv_start(kolo_comm *comm, void *buffer, size_t count, kolo_dtype dtype,
                                     int peer, kolo_request **request);

/* ---- tensors ------------------------------------------------------------------------------ */

/* Every list of tensors is compared between the ranks first; a difference is KOLO_ERR_MISMATCH, the
 * same on all ranks, and its text says which tensor differs in what. An argument that is wrong on
 * one rank only is an error on all of them ("rank 1 reported: ..."); kolo_reducer_create and
 * kolo_named_create do the same. */

enum { KOLO_TENSOR_DIMENSIONS_MAX = 8 };

typedef struct kolo_tensor {
    void *data; /* count elements */
    size_t count;
    kolo_dtype dtype;
    const char *name; /* for errors and the timeline; NULL: none. Copied */
    int dimensions;   /* 0: not said; otherwise the product of shape is count */
    size_t shape[KOLO_TENSOR_DIMENSIONS_MAX];
} kolo_tensor;

/* Collective: root's contents of these tensors, of any dtype, reach every rank: how training begins
 * with the same parameters everywhere. Small tensors travel together. All of them are on the host,
 * or on each rank on one GPU: then in the order of CUDA's default stream. */
KOLO_API kolo_status kolo_broadcast_tensors(kolo_comm *comm, const kolo_tensor *tensors,
                                            size_t count, int root);

/* Collective, for uneven inputs: a rank that has run out of data calls it, and takes part in
 * whatever the others still call on this communicator and on the reducers made with it, as if it
 * contributed the neutral element: 0 to SUM and AVERAGE (which still divides by the number of all
 * ranks), 1 to PRODUCT, the largest and the smallest value to MIN and MAX, all bits to AND, 0 to
 * everything else. Returns on every rank once all ranks have called it; *last (may be NULL) is then
 * the rank that did so last, from which the others may want to take the parameters. Costs nothing
 * before the first rank calls it. A collective whose root has joined is KOLO_ERR_INVALID there, and
 * so is the first step of a reducer when rank 0 has (unless options.fixed_order is set);
 * kolo_comm_split, kolo_reducer_create and messages to a joined rank are errors as well.
 * KOLO_ERR_UNSUPPORTED: a reducer made with comm is sharded, or has an 8-bit wire: those need every
 * rank. */
KOLO_API kolo_status kolo_join(kolo_comm *comm, int *last);

/* ---- gradient fusion: the reducer (docs/REDUCER.md) ----------------------------------------- */

/* Averages a fixed list of gradients, step by step. They are fused into buckets; a bucket is under
 * way as soon as its last gradient is ready; nothing is negotiated, and nothing allocated, from the
 * second step on:
 *
 *     kolo_reducer_create(comm, tensors, count, NULL, &reducer);
 *     for each step {
 *         for each gradient i, as backward produces it
 *             kolo_reducer_ready(reducer, i);
 *         kolo_reducer_wait(reducer, -1);
 *     }
 *
 * The first step records the order in which gradients get ready on rank 0. That order, the same on
 * all ranks, makes the buckets from then on.
 *
 * Where gradients live. With data: they stay there, and are packed and unpacked where they have to
 * be. With data NULL, in all tensors: they are views into the buckets, memory of the reducer's that
 * kolo_reducer_view tells, and no byte is copied.
 *
 * Threads: kolo_reducer_ready may be called by any thread, all other functions by one at a time. A
 * reducer has a communicator of its own, so the one that it was made with stays free for use, also
 * while a step is under way. */
typedef struct kolo_reducer kolo_reducer;

/* How gradients travel. Other than KOLO_WIRE_SAME: those of fp32, narrowed; sums are taken in fp32
 * and rounded to the wire type once. The 8-bit ones have one scale for each piece of a bucket,
 * agreed on before it travels (one small allreduce more). */
typedef enum kolo_wire {
    KOLO_WIRE_SAME = 0,
    KOLO_WIRE_BF16 = 1,
    KOLO_WIRE_FP16 = 2,
    KOLO_WIRE_FP8_E4M3 = 3,
    KOLO_WIRE_FP8_E5M2 = 4,
    KOLO_WIRE_COUNT = 5
} kolo_wire;

/* "same", "bf16", ...; NULL for a value that is none. */
KOLO_API const char *kolo_wire_name(kolo_wire wire);

/* The same on every rank, but for scale, no_overlap and stream. Set size to
 * sizeof(kolo_reducer_options) and every member not used to 0; options NULL: all of them. */
typedef struct kolo_reducer_options {
    size_t size;
    size_t bucket_bytes; /* 0: chosen, and tuned in the first 100 steps; from then on it is fixed */
    size_t first_bucket_bytes; /* the bucket that is ready first; 0: chosen */
    int sum;                   /* 1: sums; 0: averages */
    double scale;              /* multiplies this rank's contributions first; 0: 1 */
    kolo_wire wire;
    int error_feedback; /* 1: what rounding to the wire took from a contribution is added to the
                           next one (Seide et al., "1-bit stochastic gradient descent", 2014) */
    int statistics;     /* 1: norm and finite of kolo_reducer_report */
    double clip_norm;   /* > 0: results are scaled down to this global norm; implies statistics */
    int allow_unused;   /* 1: a step may leave tensors out: kolo_reducer_wait takes those that are
                           not ready for unused, at the cost of one bitmap a step */
    int sharded;        /* 1: see kolo_reducer_piece; views only */
    int fixed_order;    /* 1: buckets in the reverse order of tensors; nothing is learned */
    int no_overlap;     /* 1: nothing moves before kolo_reducer_wait */
    void *stream;       /* with tensors in a GPU's memory: see below */
} kolo_reducer_options;

/* Tensors in a GPU's memory (all of them on one GPU, which is this rank's). options->stream is the
 * cudaStream_t that gradients are computed on (NULL: CUDA's default stream). kolo_reducer_ready
 * takes what that stream has by then for the gradient; kolo_reducer_wait returns once the step is
 * queued, and what is put on the stream afterwards sees the results. kolo_reducer_get_report waits
 * for the GPU if there are statistics. Views are in the memory of the stream's GPU if there is one
 * (cudaStreamLegacy or cudaStreamPerThread name the default ones); they keep to the order of
 * fixed_order. kolo_reducer_gather takes what the stream has at the call, and what is put there
 * afterwards sees all parameters. KOLO_ERR_UNSUPPORTED: an 8-bit wire among more than 64 ranks. */

/* Collective. Tensors are floating-point and borrowed until kolo_reducer_free (names are copied).
 * KOLO_ERR_MISMATCH: ranks have different tensors or options. */
KOLO_API kolo_status kolo_reducer_create(kolo_comm *comm, const kolo_tensor *tensors, size_t count,
                                         const kolo_reducer_options *options,
                                         kolo_reducer **reducer);
/* Local, between steps; before the communicator is freed. NULL is allowed. */
KOLO_API kolo_status kolo_reducer_free(kolo_reducer *reducer);

/* After kolo_renew. Collective on comm, a communicator of the new epoch, on which newcomers call
 * kolo_reducer_create with the same tensors and options. *reducer becomes a new one, and the old
 * one is freed: as at first, the next step learns the order. The step that was interrupted is to be
 * repeated from the gradients on. Views move (ask kolo_reducer_view again) and are zero; parameters
 * of a sharded reducer move with their contents, pieces and kolo_reducer_state_count are others. On
 * failure *reducer stays what it was. */
KOLO_API kolo_status kolo_reducer_renew(kolo_reducer **reducer, kolo_comm *comm);

/* Where the gradient of tensor i lives: count elements, aligned to 64 bytes. Without fixed_order it
 * may move once, with its contents, in the first kolo_reducer_wait. NULL: no such
 * tensor. */
KOLO_API void *kolo_reducer_view(const kolo_reducer *reducer, size_t tensor);

/* The gradient of tensor i is there: it is not to be touched until kolo_reducer_wait returns. Never
 * blocks. KOLO_ERR_INVALID: no such tensor, or it was ready in this step before. */
KOLO_API kolo_status kolo_reducer_ready(kolo_reducer *reducer, size_t tensor);

/* Ends the step: waits until all gradients are ready and reduced. timeout_ms as in kolo_wait:
 * negative: KOLO_TIMEOUT, and the error names a gradient that never got ready; otherwise KOLO_AGAIN
 * once it has passed, and nothing is lost. */
KOLO_API kolo_status kolo_reducer_wait(kolo_reducer *reducer, int timeout_ms);

/* Gradient accumulation. While on: kolo_reducer_ready and kolo_reducer_wait do nothing, so that
 * backward adds to gradients that stay as they are. Between steps. */
KOLO_API kolo_status kolo_reducer_accumulate(kolo_reducer *reducer, int on);

/* allow_unused: 1 when some rank used the tensor in the last step; 0: nobody did, and its gradient
 * was left as it was (as zeros, in views). */
KOLO_API int kolo_reducer_used(const kolo_reducer *reducer, size_t tensor);

/* Of the last step, the same on all ranks. */
typedef struct kolo_reducer_report {
    size_t size;             /* set by the caller: sizeof(kolo_reducer_report) */
    uint64_t step;           /* done so far */
    uint64_t buckets;        /* at present */
    size_t bucket_bytes;     /* at present */
    uint64_t collectives;    /* in the last step */
    uint64_t gradient_bytes; /* of all tensors */
    uint64_t wire_bytes;     /* of gradients, as they travelled */
    double norm;             /* statistics: of all gradients together, before clipping */
    double clip_factor;      /* what results were multiplied by; 1: nothing was clipped */
    int finite;              /* statistics: 0 when some gradient is NaN or infinite */
} kolo_reducer_report;

KOLO_API kolo_status kolo_reducer_get_report(const kolo_reducer *reducer,
                                             kolo_reducer_report *report);

/* ---- sharded: each rank has the optimizer state of one element in N (Rajbhandari et al., "ZeRO",
 * 2020). The reducer owns the parameters as well, laid out like the gradients; the order is fixed.
 *
 *     kolo_reducer_wait(reducer, -1);                      gradients of the own pieces are reduced
 *     for (k = 0; kolo_reducer_piece(reducer, k, &piece) == KOLO_OK; k++)
 *         update piece.parameters[0 .. count) with state[piece.state .. piece.state + count)
 *     kolo_reducer_gather(reducer, -1);                    parameters of all pieces, everywhere
 */

typedef struct kolo_reducer_shard {
    size_t tensor;       /* whose elements these are: */
    size_t first, count; /* [first, first + count) */
    kolo_dtype dtype;
    void *gradients;  /* count elements; those of other ranks' pieces are not valid after a wait */
    void *parameters; /* count elements */
    size_t state;     /* the same elements in an array of the rank's optimizer state */
} kolo_reducer_shard;

/* The k-th of this rank's pieces, which never change. KOLO_ERR_INVALID: there are no more. */
KOLO_API kolo_status kolo_reducer_piece(const kolo_reducer *reducer, size_t k,
                                        kolo_reducer_shard *piece);
/* Elements that an array of this rank's optimizer state needs: those of all its pieces, and of
 * holes between them. */
KOLO_API size_t kolo_reducer_state_count(const kolo_reducer *reducer);
/* Where the parameters of tensor i live. NULL: no such tensor, or not sharded. */
KOLO_API void *kolo_reducer_parameters(const kolo_reducer *reducer, size_t tensor);
/* Collective. timeout_ms as in kolo_reducer_wait. */
KOLO_API kolo_status kolo_reducer_gather(kolo_reducer *reducer, int timeout_ms);

/* ---- any order: for graphs that change from step to step. Each rank submits tensors by name, in
 * an order of its own; a tensor is reduced once every rank has submitted it. What each rank has is
 * agreed on in batches: one allreduce of a bit for each name ever seen, and once more, with the
 * names, when there are new ones. */

typedef struct kolo_named kolo_named;

/* Collective. Of the options sum, scale, bucket_bytes and stream count; the others must be 0. With
 * a stream all tensors are in the memory of its GPU (cudaStreamLegacy is CUDA's default stream):
 * what the stream has when kolo_named_wait moves a tensor comes first, and what is put there after
 * it has returned sees the sums. */
KOLO_API kolo_status kolo_named_create(kolo_comm *comm, const kolo_reducer_options *options,
                                       kolo_named **named);
KOLO_API kolo_status kolo_named_free(kolo_named *named);
/* Borrows data until a kolo_named_wait returns KOLO_OK. The name is needed; no two tensors under
 * way may have the same. Nothing moves before kolo_named_wait. */
KOLO_API kolo_status kolo_named_submit(kolo_named *named, const kolo_tensor *tensor);
/* Waits until everything that this rank submitted is reduced, in place. timeout_ms as in kolo_wait.
 * The error of a deadline names tensors and the ranks that lack them. KOLO_ERR_MISMATCH: ranks gave
 * a name different shapes, or all wait for what others have not submitted. */
KOLO_API kolo_status kolo_named_wait(kolo_named *named, int timeout_ms);

/* ---- the loop of elastic training (docs/ELASTIC.md) ----------------------------------------- */

/* Training that goes on when ranks are lost, leave or come (kolo run --min), and from checkpoints:
 *
 *     kolo_elastic_create(context, state, count, &options, &loop);
 *     while (kolo_elastic_begin_step(loop, &step)) {
 *         compute gradients of this step; kolo_reducer_ready ...
 *         status = kolo_reducer_wait(reducer, -1);
 *         if (status == KOLO_OK)
 *             update the state;
 *         kolo_elastic_end_step(loop, status);
 *     }
 *     status = kolo_elastic_result(loop);
 *
 * The STATE is what a step changes: tensors of any dtype, and small numbers (as tensors too), such
 * as a place in the data. A step that has ended with KOLO_OK has changed it, to the same on all
 * ranks; any other leaves it as it was: so it is changed once all collectives of the step are over.
 * When the world breaks, the ranks that are left renew it, those behind by the broken step take the
 * state of those ahead, and kolo_elastic_begin_step gives the step to do, perhaps once more. */
typedef struct kolo_elastic kolo_elastic;

/* Set size to sizeof(kolo_elastic_options) and every member not used to 0 or NULL. */
typedef struct kolo_elastic_options {
    size_t size;
    /* Collective: called by kolo_elastic_begin_step on every rank, before its first step and each
     * time that the world has become another, to make what belongs to a world: reducers
     * (kolo_reducer_create; later kolo_reducer_renew), communicators, shares of the data. The state
     * is made the same on all ranks after it. Its error ends the loop, unless it is one of the
     * world's. NULL: there is nothing to make. */
    kolo_status (*enter)(void *self, kolo_comm *world);
    void *self;           /* enter's first argument */
    int leave_on_sigterm; /* 1: SIGTERM does what kolo_elastic_leave does, until kolo_elastic_free
                           */
    uint64_t steps;       /* the loop is over after so many; 0: kolo_elastic_stop ends it */
    /* Steps after which ranks compare checksums of the state; they do before each checkpoint, too.
     * 0: never. */
    uint64_t compare_every;
    /* Checkpoints: files of the whole state in this folder, which is best one that all hosts see,
     * and must be with sharded tensors, of which each rank writes its part. They are written from a
     * copy, in a thread; at the first step the last good one is taken up, with whatever number of
     * ranks. NULL: none. Copied. */
    const char *checkpoint_folder;
    uint64_t checkpoint_every; /* steps; 0: only when the loop ends */
    int checkpoint_keep;       /* files; 0: 2 */
    uint64_t copy_every;       /* with sharded tensors: steps between copies in memory; 0: 10 */
} kolo_elastic_options;

/* Local. The state is borrowed until kolo_elastic_free; names are copied. What rank 0 has there at
 * the first step is everybody's, unless there is one further on. After kolo_init. KOLO_ERR_INVALID:
 * as for kolo_broadcast_tensors. */
KOLO_API kolo_status kolo_elastic_create(kolo_context *context, const kolo_tensor *state,
                                         size_t count, const kolo_elastic_options *options,
                                         kolo_elastic **loop);
/* Local; before kolo_finalize. Waits for a checkpoint that is being written. NULL is allowed. */
KOLO_API void kolo_elastic_free(kolo_elastic *loop);

/* Sharded state. A tensor whose data is NULL in kolo_elastic_create is SHARDED: each rank has other
 * elements of it, as it has of the optimizer's with a sharded reducer. Every copy_every steps a
 * rank gives the next one a copy of its pieces; when ranks are lost all go back to the last copies,
 * and the step numbers with them. What a rank and the one behind it had is lost when both are at
 * once, but for what is in the last checkpoint. */
typedef struct kolo_elastic_piece {
    size_t tensor;       /* in the list of the state, whose elements these are: */
    size_t first, count; /* [first, first + count) */
    void *data;          /* count elements */
} kolo_elastic_piece;

/* In enter: the pieces that this rank has in this world; those of all ranks are all elements, each
 * once. What they hold comes back after enter, unless the job begins. The data is borrowed until
 * the next enter. KOLO_ERR_INVALID: a piece is not of a sharded tensor. */
KOLO_API kolo_status kolo_elastic_set_pieces(kolo_elastic *loop, const kolo_elastic_piece *pieces,
                                             size_t count);
/* In enter: tensor `tensor` of the state, not a sharded one, is there from now on (such as the
 * parameters of a sharded reducer, which move when it is renewed). */
KOLO_API kolo_status kolo_elastic_set_data(kolo_elastic *loop, size_t tensor, void *data);

/* Collective. 1: do step *step (0 is the first); the state is that after *step steps, on all ranks.
 * 0: the loop is over, kolo_elastic_result says why. One allreduce of some bytes; here newcomers
 * are taken in, ranks leave, and the world is renewed after a fault. */
KOLO_API int kolo_elastic_begin_step(kolo_elastic *loop, uint64_t *step);
/* Local. status: what the step's collectives came to on this rank. Faults of the world
 * (KOLO_ERR_PEER_LOST, _NETWORK, _TIMEOUT, _ABORTED) repeat the step where the world may be
 * renewed; any other error ends the loop. */
KOLO_API void kolo_elastic_end_step(kolo_elastic *loop, kolo_status status);
/* In a step, on all ranks alike: it is the last, whatever options->steps says. */
KOLO_API void kolo_elastic_stop(kolo_elastic *loop);
/* From any thread or signal handler: this rank is to go. It finishes its step; if enough ranks are
 * left (KOLO_MIN_RANKS), it leaves the world and they go on, otherwise all end their loops. */
KOLO_API void kolo_elastic_leave(kolo_elastic *loop);
/* After the loop: 1 when it ended before its last step because ranks were to go. The program should
 * end by exit code 143, as one that SIGTERM has ended. */
KOLO_API int kolo_elastic_left(const kolo_elastic *loop);
/* After the loop: KOLO_OK when it was over or left, and what was to be saved is; otherwise what
 * ended it, with its text. */
KOLO_API kolo_status kolo_elastic_result(const kolo_elastic *loop);

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
