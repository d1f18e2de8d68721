/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libkolo-mpi.so: the host's MPI, behind the table of mpi_module.h. The only file that includes
 * mpi.h.
 *
 * MPI, and not PMIx, brings the ranks together under mpirun: PMIx would be lighter, but many Open
 * MPIs have theirs inside, without headers; MPI_Ibcast is there in every one.
 */
#include "collectives/offload/mpi_module.h"

#include <mpi.h>
#include <stdio.h>

static MPI_Comm world = MPI_COMM_NULL; /* a copy: its messages meet no others */
static MPI_Request broadcast = MPI_REQUEST_NULL;
static bool began_mpi;

static bool succeeded(int code, const char *what, char *why, size_t bytes)
{
    char text[MPI_MAX_ERROR_STRING] = "?";
    int length;
    if (code == MPI_SUCCESS)
        return true;
    MPI_Error_string(code, text, &length);
    snprintf(why, bytes, "%s: %s", what, text);
    return false;
}

static bool open_mpi(int *rank, int *size, char *why, size_t bytes)
{
    int begun, ended, threads;
    MPI_Finalized(&ended);
    if (ended) {
        snprintf(why, bytes, "the program called MPI_Finalize before kolo_init");
        return false;
    }
    MPI_Initialized(&begun);
    if (!begun && !succeeded(MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &threads),
                             "MPI_Init", why, bytes))
        return false;
    began_mpi = !begun;
    if (!succeeded(MPI_Comm_dup(MPI_COMM_WORLD, &world), "MPI_Comm_dup", why, bytes))
        return false;
    MPI_Comm_set_errhandler(world, MPI_ERRORS_RETURN);
    MPI_Comm_rank(world, rank);
    MPI_Comm_size(world, size);
    return true;
}

static bool broadcast_begin(void *data, size_t data_bytes, char *why, size_t bytes)
{
    return succeeded(MPI_Ibcast(data, (int)data_bytes, MPI_BYTE, 0, world, &broadcast),
                     "MPI_Ibcast", why, bytes);
}

static bool broadcast_test(bool *done, char *why, size_t bytes)
{
    int flag = 0;
    bool good = succeeded(MPI_Test(&broadcast, &flag, MPI_STATUS_IGNORE), "MPI_Test", why, bytes);
    *done = flag != 0;
    return good;
}

static void close_mpi(void)
{
    if (world != MPI_COMM_NULL)
        MPI_Comm_free(&world);
    if (began_mpi)
        MPI_Finalize();
    began_mpi = false;
}

__attribute__((visibility("default"))) const struct kolo__mpi_module kolo__mpi_module = {
    .version = KOLO__MPI_MODULE_VERSION,
    .open = open_mpi,
    .broadcast_begin = broadcast_begin,
    .broadcast_test = broadcast_test,
    .close = close_mpi,
};
