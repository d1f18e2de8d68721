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

#include <stdbool.h>
#include <stddef.h>

enum { KOLO__MPI_MODULE_VERSION = 1 };

struct kolo__mpi_module {
    unsigned version;
    /* Begins MPI if the program has not, on this thread. Collective, and blocks until all processes
     * of the job are here: MPI gives it no deadline. */
    bool (*open)(int *rank, int *size, char *why, size_t bytes);
    /* Collective: rank 0's data to all. begin, then test until done. */
    bool (*broadcast_begin)(void *data, size_t data_bytes, char *why, size_t bytes);
    bool (*broadcast_test)(bool *done, char *why, size_t bytes);
    /* Ends MPI if open began it. */
    void (*close)(void);
};

/* The module's one exported name. */
extern const struct kolo__mpi_module kolo__mpi_module;

#endif
