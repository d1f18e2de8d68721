/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stand-in for NCCL, for error paths on machines without a GPU: as much of libnccl.so.2 as the
 * NCCL module asks for. "Device memory" is the host's. It talks to nobody: an allreduce acts as if
 * all ranks had the same data, anything else copies. STANDIN_NCCL, in the environment, says what
 * goes wrong: words with a blank between.
 *
 *     version=N       the library's           id=N            no unique id: error N
 *     init=N          init fails at once      init_later=N    when it is asked for the third time
 *     init_hangs      init is never ready     abort_hangs     ncclCommAbort does not come back
 *     queue=N         collectives fail        queue_slow      they take until the third question
 *     queue_hangs     they are never there    async=N         then the communicator has error N
 *     window=N        registration fails      window_hangs    it is never done
 *     memory=N        no allocation: error N  return_hangs    a window is never given back
 *     split=N         nor any part: error N   shrink=N        the same, by ncclCommShrink
 *
 * What it was asked for last stands in standin_last; standin_count_* count. Compiled with
 * STANDIN_LACKING it has no ncclCommSplit and no ncclMemAlloc; with STANDIN_OLDER none of what came
 * with 2.27.
 */
#pragma GCC diagnostic ignored "-Wstrict-prototypes" /* nccl.h has two functions without */
#include <cuda.h>
#include <nccl.h>

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct ncclComm {
    int rank, size, questions;
    bool ready, queued;
    ncclComm_t *part; /* to be given out when this is asked */
    ncclComm_t made;
    ncclWindow_t *window;
    bool returning; /* a window, at the third question */
};

char standin_last[256];
const void *standin_send;
atomic_int standin_let_go; /* not 0: an abort that hung comes back */
atomic_int standin_count_abort;
atomic_int standin_error; /* not 0: what every communicator says from now on */
static bool holds_memory; /* until the window is given back */
int standin_part_size;    /* of what is split off, which nobody tells NCCL; 0: all */
int standin_count_split, standin_count_destroy, standin_count_group, standin_count_window,
    standin_count_memory;

/* The number behind `word=`, 0 without one, -1 without the word. */
static int scripted(const char *word)
{
    const char *script = getenv("STANDIN_NCCL"), *at = script;
    size_t length = strlen(word);
    while (at != NULL && (at = strstr(at, word)) != NULL) {
        bool whole = (at == script || at[-1] == ' ') &&
                     (at[length] == '\0' || at[length] == ' ' || at[length] == '=');
        if (whole)
            return at[length] == '=' ? atoi(at + length + 1) : 0;
        at += length;
    }
    return -1;
}

ncclResult_t ncclGetVersion(int *version)
{
    *version = scripted("version") > 0 ? scripted("version") : NCCL_VERSION_CODE;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    static char text[32];
    snprintf(text, sizeof text, "standin error %d", (int)result);
    return text;
}

const char *ncclGetLastError(ncclComm_t comm)
{
    (void)comm;
    return "scripted\nin two lines";
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    memset(id, 0x5a, sizeof *id);
    return scripted("id") > 0 ? (ncclResult_t)scripted("id") : ncclSuccess;
}

static ncclComm_t make(int rank, int size)
{
    ncclComm_t comm = calloc(1, sizeof *comm);
    comm->rank = rank;
    comm->size = size;
    return comm;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    if (config->blocking != 0 || id.internal[127] != 0x5a)
        return ncclInvalidArgument;
    if (scripted("init") > 0)
        return (ncclResult_t)scripted("init");
    *comm = make(rank, size);
    return ncclInProgress;
}

static ncclResult_t make_part(ncclComm_t comm, ncclComm_t *part, int rank, int size)
{
    *part = NULL;
    comm->questions = 0;
    comm->ready = false;
    comm->part = part;
    comm->made = make(rank, size);
    comm->made->ready = true;
    return ncclInProgress;
}

/* The memory is then a GPU's to everybody. NULL: no driver is loaded. */
static void *of_driver(const char *name)
{
    void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    return driver != NULL ? dlsym(driver, name) : NULL;
}

#ifndef STANDIN_LACKING
ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t *part,
                           ncclConfig_t *config)
{
    snprintf(standin_last, sizeof standin_last, "Split color=%d key=%d blocking=%d", color, key,
             config->blocking);
    *part = NULL;
    if (scripted("split") > 0)
        return (ncclResult_t)scripted("split");
    standin_count_split++;
    return color == NCCL_SPLIT_NOCOLOR
               ? ncclSuccess
               : make_part(comm, part, key, standin_part_size > 0 ? standin_part_size : comm->size);
}

ncclResult_t ncclMemAlloc(void **memory, size_t bytes)
{
    if (scripted("memory") > 0)
        return (ncclResult_t)scripted("memory");
    CUresult (*allocate)(CUdeviceptr * memory, size_t bytes);
    CUdeviceptr made = 0;
    void *found = of_driver("cuMemAlloc_v2");
    memcpy(&allocate, &found, sizeof allocate);
    if (found != NULL && allocate(&made, bytes) == CUDA_SUCCESS)
        *memory = (void *)(uintptr_t)made;
    else
        *memory = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    standin_count_memory++;
    return ncclSuccess;
}
#endif

ncclResult_t ncclMemFree(void *memory)
{
    if (holds_memory)
        abort(); /* no error that a caller who frees would look at */
    CUresult (*release)(CUdeviceptr memory);
    void *found = of_driver("cuMemFree_v2");
    memcpy(&release, &found, sizeof release);
    if (found == NULL || release((CUdeviceptr)(uintptr_t)memory) != CUDA_SUCCESS)
        free(memory);
    standin_count_memory--;
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *state)
{
    int later = scripted("init_later");
    bool third = ++comm->questions >= 3;
    *state = ncclInProgress;
    if (comm->window != NULL) {
        if (third && scripted("window_hangs") < 0) {
            *comm->window = (ncclWindow_t)comm;
            comm->window = NULL;
            standin_count_window++;
            *state = ncclSuccess;
        }
    } else if (comm->returning) {
        if (third && scripted("return_hangs") < 0) {
            comm->returning = holds_memory = false;
            standin_count_window--;
            *state = ncclSuccess;
        }
    } else if (comm->queued) {
        if (scripted("queue_hangs") < 0 && (third || scripted("queue_slow") < 0)) {
            *state = scripted("async") > 0 ? (ncclResult_t)scripted("async") : ncclSuccess;
            comm->queued = *state != ncclSuccess;
        }
    } else if (comm->ready || (third && scripted("init_hangs") < 0)) {
        *state = !comm->ready && later > 0 ? (ncclResult_t)later : ncclSuccess;
        comm->ready = *state == ncclSuccess;
    }
    if (atomic_load(&standin_error) != 0)
        *state = (ncclResult_t)atomic_load(&standin_error);
    if (*state == ncclSuccess && comm->part != NULL) {
        *comm->part = comm->made;
        comm->part = NULL;
    }
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    comm->questions = 0;
    comm->ready = false;
    return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    standin_count_destroy++;
    free(comm);
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    bool hangs = scripted("abort_hangs") >= 0;
    while (hangs && atomic_load(&standin_let_go) == 0)
        usleep(1000);
    holds_memory = false;
    free(comm);
    atomic_fetch_add(&standin_count_abort, 1);
    return ncclSuccess;
}

static ncclResult_t queue(ncclComm_t comm)
{
    if (scripted("queue") > 0)
        return (ncclResult_t)scripted("queue");
    comm->questions = 0;
    comm->queued = true;
    return ncclInProgress;
}

#define TELL(...) snprintf(standin_last, sizeof standin_last, __VA_ARGS__)

ncclResult_t ncclAllReduce(const void *send, void *recv, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream)
{
    standin_send = send;
    TELL("AllReduce count=%zu type=%d op=%d stream=%p", count, type, op, (void *)stream);
    for (size_t i = 0; i < count && type == ncclFloat32; i++)
        ((float *)recv)[i] = ((const float *)send)[i] * (float)(op == ncclSum ? comm->size : 1);
    return queue(comm);
}

ncclResult_t ncclReduceScatter(const void *send, void *recv, size_t count, ncclDataType_t type,
                               ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream)
{
    TELL("ReduceScatter count=%zu type=%d op=%d stream=%p", count, type, op, (void *)stream);
    for (size_t i = 0; i < count && type == ncclFloat32; i++)
        ((float *)recv)[i] = ((const float *)send)[(size_t)comm->rank * count + i] *
                             (float)(op == ncclSum ? comm->size : 1);
    return queue(comm);
}

ncclResult_t ncclReduce(const void *send, void *recv, size_t count, ncclDataType_t type,
                        ncclRedOp_t op, int root, ncclComm_t comm, cudaStream_t stream)
{
    TELL("Reduce count=%zu type=%d op=%d root=%d stream=%p", count, type, op, root, (void *)stream);
    for (size_t i = 0; i < count && type == ncclFloat32 && comm->rank == root; i++)
        ((float *)recv)[i] = ((const float *)send)[i] * (float)(op == ncclSum ? comm->size : 1);
    return queue(comm);
}

ncclResult_t ncclAllGather(const void *send, void *recv, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream)
{
    TELL("AllGather count=%zu type=%d stream=%p", count, type, (void *)stream);
    for (int r = 0; r < comm->size; r++)
        memmove((char *)recv + (size_t)r * count, send, count);
    return queue(comm);
}

ncclResult_t ncclBroadcast(const void *send, void *recv, size_t count, ncclDataType_t type,
                           int root, ncclComm_t comm, cudaStream_t stream)
{
    TELL("Broadcast count=%zu type=%d root=%d stream=%p", count, type, root, (void *)stream);
    if (send != NULL)
        memmove(recv, send, count);
    return queue(comm);
}

static const void *sent; /* to oneself, which comes before it is received */

ncclResult_t ncclSend(const void *send, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream)
{
    TELL("Send count=%zu type=%d peer=%d first=%d group=%d stream=%p", count, type, peer,
         *(const char *)send, standin_count_group, (void *)stream);
    sent = peer == comm->rank ? send : sent;
    comm->queued = true;
    return ncclSuccess;
}

ncclResult_t ncclRecv(void *recv, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    (void)stream;
    if (peer == comm->rank && type == ncclInt8 && sent != NULL)
        memcpy(recv, sent, count);
    comm->queued = true;
    return ncclSuccess;
}

ncclResult_t ncclGroupStart() /* as nccl.h has it */
{
    standin_count_group++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd()
{
    standin_count_group--;
    return ncclSuccess;
}

#ifndef STANDIN_OLDER
ncclResult_t ncclCommShrink(ncclComm_t comm, int *left, int left_count, ncclComm_t *part,
                            ncclConfig_t *config, int flags)
{
    TELL("Shrink first=%d count=%d blocking=%d flags=%d", left[0], left_count, config->blocking,
         flags);
    if (scripted("shrink") > 0)
        return (ncclResult_t)scripted("shrink");
    comm->queued = false;
    return make_part(comm, part, comm->rank, comm->size - left_count);
}

ncclResult_t ncclCommWindowRegister(ncclComm_t comm, void *memory, size_t bytes,
                                    ncclWindow_t *window, int flags)
{
    (void)memory;
    TELL("WindowRegister bytes=%zu flags=%d", bytes, flags);
    *window = NULL;
    if (scripted("window") > 0)
        return (ncclResult_t)scripted("window");
    comm->questions = 0;
    comm->window = window;
    return ncclInProgress;
}

ncclResult_t ncclCommWindowDeregister(ncclComm_t comm, ncclWindow_t window)
{
    if (window != (ncclWindow_t)comm)
        return ncclInvalidArgument;
    comm->questions = 0;
    comm->returning = holds_memory = true;
    return ncclInProgress;
}
#endif
