/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libkolo-mpi.so: the host's MPI, behind the table of mpi_module.h. The only file that includes
 * mpi.h.
 *
 * MPI, and not PMIx, brings the ranks together under mpirun: PMIx would be lighter, but many Open
 * MPIs have theirs inside, without headers; MPI_Ibcast is there in every one.
 */
#include "collectives/offload/mpi_module.h"

#include <limits.h>
#include <mpi.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAKE_S = 10 };

static MPI_Comm world = MPI_COMM_NULL; /* a copy: its messages meet no others */
/* The copy is made on the way of the first broadcast: MPI_Comm_dup would wait for ever where a
 * firewall stands between ranks, which MPI_Init does not find out. */
static MPI_Request copy = MPI_REQUEST_NULL, broadcast = MPI_REQUEST_NULL;
static void *told;
static size_t told_bytes;
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
    /* Reducers call from a thread of their own, but one at a time: lock. */
    if (!begun && !succeeded(MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &threads),
                             "MPI_Init", why, bytes))
        return false;
    began_mpi = !begun;
    MPI_Comm_rank(MPI_COMM_WORLD, rank);
    MPI_Comm_size(MPI_COMM_WORLD, size);
    return succeeded(MPI_Comm_idup(MPI_COMM_WORLD, &world, &copy), "MPI_Comm_idup", why, bytes);
}

static void broadcast_begin(void *data, size_t data_bytes)
{
    told = data;
    told_bytes = data_bytes;
}

static bool broadcast_test(bool *done, char *why, size_t bytes)
{
    int copied = 0, flag = 0;
    bool good = succeeded(MPI_Test(&copy, &copied, MPI_STATUS_IGNORE), "MPI_Comm_idup", why, bytes);
    if (good && copied && told != NULL) {
        MPI_Comm_set_errhandler(world, MPI_ERRORS_RETURN);
        good = succeeded(MPI_Ibcast(told, (int)told_bytes, MPI_BYTE, 0, world, &broadcast),
                         "MPI_Ibcast", why, bytes);
        told = NULL;
    }
    if (good && copied)
        good = succeeded(MPI_Test(&broadcast, &flag, MPI_STATUS_IGNORE), "MPI_Test", why, bytes);
    *done = flag != 0;
    return good;
}

/* ---- allreduces ------------------------------------------------------------------------------ */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* around all that threads may call */

struct kolo__mpi_comm {
    MPI_Comm comm;
    MPI_Request made, data, digests;
    uint64_t mine[2],
        least[2]; /* a digest and its complement: the least of all are these if all are */
    /* What begins when the communicator is made. */
    const void *send;
    void *recv;
    int count;
    MPI_Datatype type;
    MPI_Op op;
    bool waiting;
};

static MPI_Datatype type_of(kolo_dtype dtype)
{
    switch (dtype) {
    case KOLO_INT8:
        return MPI_INT8_T;
    case KOLO_INT16:
        return MPI_INT16_T;
    case KOLO_INT32:
        return MPI_INT32_T;
    case KOLO_INT64:
        return MPI_INT64_T;
    case KOLO_UINT8:
        return MPI_UINT8_T;
    case KOLO_UINT16:
        return MPI_UINT16_T;
    case KOLO_UINT32:
        return MPI_UINT32_T;
    case KOLO_UINT64:
        return MPI_UINT64_T;
    case KOLO_FP32:
        return MPI_FLOAT;
    case KOLO_FP64:
        return MPI_DOUBLE;
    default:
        return MPI_DATATYPE_NULL;
    }
}

static MPI_Op op_of(kolo_op op)
{
    switch (op) {
    case KOLO_SUM:
    case KOLO_AVERAGE:
        return MPI_SUM;
    case KOLO_PRODUCT:
        return MPI_PROD;
    case KOLO_MIN:
        return MPI_MIN;
    case KOLO_MAX:
        return MPI_MAX;
    case KOLO_AND:
        return MPI_BAND;
    case KOLO_OR:
        return MPI_BOR;
    case KOLO_XOR:
        return MPI_BXOR;
    default:
        return MPI_OP_NULL;
    }
}

static bool is_for_threads(void)
{
    int level;
    return MPI_Query_thread(&level) == MPI_SUCCESS && level >= MPI_THREAD_SERIALIZED;
}

/* All ranks make it now, so it takes no time; but one may die on the way, and then it is left as it
 * is. Two that are under way at once Open MPI 4.1 mixes up, and one that is when MPI_Finalize is
 * called crashes it. */
static bool wait_until_made(struct kolo__mpi_comm *comm, char *why, size_t bytes)
{
    double end = MPI_Wtime() + MAKE_S;
    int made = 0;
    bool good = true;
    while (good && !made && MPI_Wtime() < end) {
        pthread_mutex_lock(&lock); /* each time anew: reducers' threads go on */
        good =
            succeeded(MPI_Test(&comm->made, &made, MPI_STATUS_IGNORE), "MPI_Comm_idup", why, bytes);
        pthread_mutex_unlock(&lock);
        if (!made)
            sched_yield();
    }
    return good;
}

static struct kolo__mpi_comm *comm_open(char *why, size_t bytes)
{
    struct kolo__mpi_comm *comm = calloc(1, sizeof *comm);
    if (comm == NULL) {
        snprintf(why, bytes, "no memory");
        return NULL;
    }
    comm->comm = MPI_COMM_NULL;
    comm->data = comm->digests = MPI_REQUEST_NULL;
    pthread_mutex_lock(&lock);
    bool good =
        succeeded(MPI_Comm_idup(world, &comm->comm, &comm->made), "MPI_Comm_idup", why, bytes);
    pthread_mutex_unlock(&lock);
    if (good && wait_until_made(comm, why, bytes))
        return comm;
    free(comm);
    return NULL;
}

/* What is under way cannot be taken back: MPI then keeps what is its. */
static void comm_close(struct kolo__mpi_comm *comm)
{
    int idle = 1;
    if (comm == NULL)
        return;
    pthread_mutex_lock(&lock);
    if (comm->made != MPI_REQUEST_NULL)
        MPI_Test(&comm->made, &idle, MPI_STATUS_IGNORE);
    if (idle && comm->data == MPI_REQUEST_NULL && comm->digests == MPI_REQUEST_NULL) {
        MPI_Comm_free(&comm->comm);
        free(comm);
    }
    pthread_mutex_unlock(&lock);
}

static bool begin(struct kolo__mpi_comm *comm, char *why, size_t bytes)
{
    comm->waiting = false;
    MPI_Comm_set_errhandler(comm->comm, MPI_ERRORS_RETURN);
    return succeeded(MPI_Iallreduce(comm->mine, comm->least, 2, MPI_UINT64_T, MPI_MIN, comm->comm,
                                    &comm->digests),
                     "MPI_Iallreduce", why, bytes) &&
           succeeded(MPI_Iallreduce(comm->send == comm->recv ? MPI_IN_PLACE : comm->send,
                                    comm->recv, comm->count, comm->type, comm->op, comm->comm,
                                    &comm->data),
                     "MPI_Iallreduce", why, bytes);
}

static bool allreduce_begin(struct kolo__mpi_comm *comm, const void *send, void *recv, size_t count,
                            kolo_dtype dtype, kolo_op op, uint64_t digest, char *why, size_t bytes)
{
    comm->send = send;
    comm->recv = recv;
    comm->count = (int)count;
    comm->type = type_of(dtype);
    comm->op = op_of(op);
    comm->mine[0] = digest;
    comm->mine[1] = ~digest;
    comm->waiting = true;
    if (count <= INT_MAX && comm->type != MPI_DATATYPE_NULL && comm->op != MPI_OP_NULL)
        return true;
    snprintf(why, bytes, "MPI_Allreduce cannot do this");
    return false;
}

static bool allreduce_test(struct kolo__mpi_comm *comm, bool *done, bool *alike, char *why,
                           size_t bytes)
{
    int made = 1, digests = 0, data = 0;
    pthread_mutex_lock(&lock);
    bool good =
        comm->made == MPI_REQUEST_NULL ||
        succeeded(MPI_Test(&comm->made, &made, MPI_STATUS_IGNORE), "MPI_Comm_idup", why, bytes);
    if (good && made && comm->waiting)
        good = begin(comm, why, bytes);
    if (good && made)
        good = succeeded(MPI_Test(&comm->digests, &digests, MPI_STATUS_IGNORE), "MPI_Test", why,
                         bytes);
    *alike = !digests || (comm->least[0] == comm->mine[0] && comm->least[1] == comm->mine[1]);
    /* Where ranks differ the data may never come. */
    if (good && digests && *alike)
        good = succeeded(MPI_Test(&comm->data, &data, MPI_STATUS_IGNORE), "MPI_Test", why, bytes);
    pthread_mutex_unlock(&lock);
    *done = digests && data;
    return good;
}

/* ---- the end --------------------------------------------------------------------------------- */

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
    .is_for_threads = is_for_threads,
    .comm_open = comm_open,
    .comm_close = comm_close,
    .allreduce_begin = allreduce_begin,
    .allreduce_test = allreduce_test,
};
