/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What libkolo-mpi.so gives to libkolo.so: a table of functions, so that only the module is linked
 * to the host's MPI, and a machine without one loses nothing else. mpi.h is included by
 * mpi_module.c alone.
 *
 * Texts of failures go into why: the module has no part of kolo in it.
 */
#ifndef KOLO_COLLECTIVES_OFFLOAD_MPI_MODULE_H
#define KOLO_COLLECTIVES_OFFLOAD_MPI_MODULE_H

#include <kolo/kolo.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KOLO__MPI_MODULE_VERSION = 3 };

struct kolo__mpi_comm; /* the module's: a communicator of all ranks, and what runs on it */

struct kolo__mpi_module {
    unsigned version;
    /* Begins MPI if the program has not, on this thread. Collective; if it begins MPI, it blocks
     * until all processes of the job are here: MPI gives that no deadline. */
    bool (*open)(int *rank, int *size, char *why, size_t bytes);
    /* Collective: rank 0's data to all. begin, then test until done; once, before all below. */
    void (*broadcast_begin)(void *data, size_t data_bytes);
    bool (*broadcast_test)(bool *done, char *why, size_t bytes);
    /* Ends MPI if open began it. */
    void (*close)(void);

    /* Allreduces, from any thread, one at a time on each communicator. The program lets them: MPI
     * was begun with MPI_THREAD_SERIALIZED at least. */
    bool (*is_for_threads)(void);
    /* Makes one; collective, in the same order on all ranks. Returns after 10 s even if a rank has
     * not come; it is ready when the first allreduce on it is. NULL: why. */
    struct kolo__mpi_comm *(*comm_open)(char *why, size_t bytes);
    void (*comm_close)(struct kolo__mpi_comm *comm);
    /* send == recv: in place. AVERAGE is a sum here. */
    bool (*allreduce_begin)(struct kolo__mpi_comm *comm, const void *send, void *recv, size_t count,
                            kolo_dtype dtype, kolo_op op, uint64_t digest, char *why, size_t bytes);
    /* *alike, once done: all ranks gave the same digest. Otherwise the result is worth nothing. */
    bool (*allreduce_test)(struct kolo__mpi_comm *comm, bool *done, bool *alike, char *why,
                           size_t bytes);
};

/* MPI_Allreduce has no such type or op: 16-bit floats, PREMUL_SUM. */
static inline bool kolo__mpi_has(kolo_dtype dtype, kolo_op op)
{
    return dtype != KOLO_FP16 && dtype != KOLO_BF16 && op != KOLO_PREMUL_SUM;
}

/* The module's one exported name. */
extern const struct kolo__mpi_module kolo__mpi_module;

#endif
