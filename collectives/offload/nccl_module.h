/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What libkolo-nccl.so gives to libkolo.so: a table of functions around NVIDIA's NCCL, which the
 * module opens at run time. So libkolo is linked to neither, the module needs libc only, and a
 * program that has NCCL in it already (PyTorch) shares its own with kolo. nccl.h is included by
 * nccl/library.h alone.
 *
 * Rules, for every function of the table:
 *
 * - It returns KOLO_OK, or has written its reason into `why` (KOLO__NCCL_WHY_BYTES): the module has
 *   no part of kolo in it, and such reasons are told to other ranks before they become an error.
 *   KOLO_ERR_UNSUPPORTED: not with this library. KOLO_ERR_NETWORK: NCCL's connections, or another
 *   rank. KOLO_ERR_INVALID: NCCL says that it is used wrongly. KOLO_ERR_DEVICE: CUDA, or NCCL.
 * - Nothing waits, except what says for how long. What takes time is begun, and comm_poll tells
 *   when it is done; until then the communicator takes nothing else. Deadlines are the caller's.
 * - One communicator is used by one thread at a time. The calling thread finds its own current CUDA
 *   context unchanged afterwards.
 */
#ifndef KOLO_COLLECTIVES_OFFLOAD_NCCL_MODULE_H
#define KOLO_COLLECTIVES_OFFLOAD_NCCL_MODULE_H

#include "collectives/schedule.h"

#include <stdbool.h>
#include <stddef.h>

enum {
    KOLO__NCCL_MODULE_VERSION = 3,
    KOLO__NCCL_ID_BYTES = 128,
    KOLO__NCCL_WHY_BYTES = 256,
    /* In NCCL's own form. Before the first ncclMemAlloc is missing; from the second on memory can
     * be registered for the symmetric kernels, and a communicator shrunk. */
    KOLO__NCCL_VERSION_LEAST = 21900,
    KOLO__NCCL_VERSION_WINDOWS = 22700,
};

/* The module's. */
struct kolo__nccl_comm;
struct kolo__nccl_window;

struct kolo__nccl_library {
    int version, header_version; /* 22809: 2.28.9; header: what the module was compiled with */
    char path[256];              /* of the file */
    bool shrinks;                /* comm_shrink is there */
    bool has_windows;            /* window_begin is there */
};

struct kolo__nccl_call {
    enum kolo__collective collective;
    kolo_dtype dtype;
    kolo_op op; /* AVERAGE and PREMUL_SUM are sums here: the caller has scaled what he sends */
    const void *send; /* memory of the GPU */
    void *recv;       /* send == recv: in place, as <kolo/kolo.h> has it for each collective */
    size_t count;     /* as in the public call */
    int root;
    void *stream; /* a cudaStream_t of the communicator's GPU */
};

struct kolo__nccl_module {
    unsigned version;

    /* First of all; later calls give the same. path: of the library; "": libnccl.so.2, wherever the
     * dynamic linker finds it or the program has it already. It stays for the life of the
     * process. */
    kolo_status (*open)(const char *path, struct kolo__nccl_library *library, char *why);
    /* For one rank, which gives it to the others: who and where the new communicator is. Needs no
     * GPU. KOLO__NCCL_ID_BYTES. */
    kolo_status (*unique_id)(void *id, char *why);

    /* Collective: begins a communicator on the GPU `ordinal`. */
    kolo_status (*comm_begin)(const void *id, int rank, int size, int ordinal,
                              struct kolo__nccl_comm **comm, char *why);
    /* Collective on comm: begins one of those ranks that give the same color (negative: no part of
     * any, *part is NULL), of so many, as this rank among them. comm takes nothing before part is
     * ready, or comm itself where there is none. */
    kolo_status (*comm_split)(struct kolo__nccl_comm *comm, int color, int rank, int size,
                              struct kolo__nccl_comm **part, char *why);
    /* Collective on those that stay: begins one without the ranks that left, ascending. */
    kolo_status (*comm_shrink)(struct kolo__nccl_comm *comm, const int *left, int left_count,
                               struct kolo__nccl_comm **part, char *why);
    /* KOLO_OK: what was begun is done, and nothing has failed so far. KOLO_AGAIN: not yet. An error
     * is for good: abort. */
    kolo_status (*comm_poll)(struct kolo__nccl_comm *comm, char *why);
    /* Begins the orderly end: after what is on the streams. Polled, and then destroyed. */
    kolo_status (*comm_finalize)(struct kolo__nccl_comm *comm, char *why);
    /* Only after that. NULL is allowed. */
    void (*comm_destroy)(struct kolo__nccl_comm *comm);
    /* Ends it now, kernels under way included. Waits, for limit_ms at most: KOLO_ERR_TIMEOUT when
     * NCCL has not come back by then; what it holds is then left to the process's end. comm is gone
     * in either case. */
    kolo_status (*comm_abort)(struct kolo__nccl_comm *comm, unsigned limit_ms, char *why);

    /* Queues on the stream, and can be captured into a CUDA graph. Polled: a communicator that does
     * not block may come back before the work is on the stream. */
    kolo_status (*queue)(struct kolo__nccl_comm *comm, const struct kolo__nccl_call *call,
                         char *why);
    /* Memory that NCCL can register, on the GPU `ordinal`. */
    kolo_status (*alloc)(int ordinal, size_t bytes, void **memory, char *why);
    void (*free)(int ordinal, void *memory); /* NULL is allowed */
    /* Collective, with as many bytes on each rank; begins, comm_poll tells. Afterwards calls whose
     * buffers lie in it may take the symmetric kernels. All ranks must have succeeded, or all close
     * theirs again: that is the callers' to agree on. window_close begins as well, and comm_poll
     * tells when the memory may be freed; but window is gone at once. With comm NULL the
     * communicator is gone, and NCCL's window with it. */
    kolo_status (*window_begin)(struct kolo__nccl_comm *comm, void *memory, size_t bytes,
                                struct kolo__nccl_window **window, char *why);
    kolo_status (*window_close)(struct kolo__nccl_comm *comm, struct kolo__nccl_window *window,
                                char *why);
};

/* The module's one exported name. */
extern const struct kolo__nccl_module kolo__nccl_module;

/* Why NCCL has nothing for this; NULL: it has. In a text: "NCCL has %s". A barrier of GPUs would be
 * an order on streams, which kolo_barrier does not promise. */
static inline const char *kolo__nccl_lacks(enum kolo__collective collective, kolo_dtype dtype,
                                           kolo_op op, bool in_place)
{
    switch (collective) {
    case KOLO__ALLGATHER:
    case KOLO__BROADCAST:
        return NULL; /* moved as bytes */
    case KOLO__ALLTOALL:
        return in_place ? "no alltoall in place" : NULL;
    case KOLO__ALLREDUCE:
    case KOLO__REDUCE_SCATTER:
    case KOLO__REDUCE_TO_ROOT:
        break;
    default:
        return "no such collective";
    }
    if (dtype == KOLO_INT16 || dtype == KOLO_UINT16)
        return "no 16-bit integers to compute with";
    if (op == KOLO_AND || op == KOLO_OR || op == KOLO_XOR)
        return "no bitwise operations";
    return NULL;
}

/* ---- on the core's side --------------------------------------------------------------------- */

/* Loads the module and lets it open the library, once: path counts in the first call.
 * KOLO_ERR_UNSUPPORTED with the reason. */
kolo_status kolo__nccl_load(const char *path, const struct kolo__nccl_module **module,
                            struct kolo__nccl_library *library);

#endif
