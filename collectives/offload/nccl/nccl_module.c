/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libkolo-nccl.so: NCCL behind the table of nccl_module.h. Communicators never block: every call
 * may come back with ncclInProgress, and comm_poll asks how it went.
 */
#include "collectives/offload/nccl/library.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct kolo__nccl_window {
    ncclWindow_t window; /* NULL until NCCL has made it */
};

static ncclConfig_t make_config(void)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    return config;
}

/* ---- communicators -------------------------------------------------------------------------- */

static kolo_status unique_id(void *id, char *why)
{
    ncclUniqueId made;
    _Static_assert(sizeof made == KOLO__NCCL_ID_BYTES, "an id of NCCL");
    kolo_status status =
        kolo__nccl_check(kolo__nccl.ncclGetUniqueId(&made), NULL, "ncclGetUniqueId", why);
    if (status == KOLO_OK)
        memcpy(id, &made, sizeof made);
    return status;
}

static kolo_status comm_begin(const void *id, int rank, int size, int ordinal,
                              struct kolo__nccl_comm **result, char *why)
{
    ncclConfig_t config = make_config();
    ncclUniqueId given;
    struct kolo__nccl_comm *comm = calloc(1, sizeof *comm);
    *result = NULL;
    if (comm == NULL)
        return kolo__nccl_no_memory(why);
    memcpy(&given, id, sizeof given);
    comm->size = size;
    comm->ordinal = ordinal;
    void *entered = kolo__nccl_enter(ordinal);
    kolo_status status =
        kolo__nccl_check(kolo__nccl.ncclCommInitRankConfig(&comm->comm, size, given, rank, &config),
                         NULL, "ncclCommInitRankConfig", why);
    kolo__nccl_leave(entered);
    if (status != KOLO_OK) {
        free(comm); /* NCCL leaves nothing of it */
        return status;
    }
    *result = comm;
    return KOLO_OK;
}

/* The part of comm that the call behind it is about to make, or NULL: no memory. */
static struct kolo__nccl_comm *new_part(struct kolo__nccl_comm *comm, int size)
{
    struct kolo__nccl_comm *part = calloc(1, sizeof *part);
    if (part != NULL) {
        part->parent = comm;
        part->size = size;
        part->ordinal = comm->ordinal;
    }
    return part;
}

static kolo_status comm_split(struct kolo__nccl_comm *comm, int color, int rank, int size,
                              struct kolo__nccl_comm **result, char *why)
{
    ncclConfig_t config = make_config();
    struct kolo__nccl_comm *part = new_part(comm, size);
    *result = NULL;
    if (part == NULL)
        return kolo__nccl_no_memory(why);
    void *entered = kolo__nccl_enter(comm->ordinal);
    kolo_status status = kolo__nccl_check(
        kolo__nccl.ncclCommSplit(comm->comm, color < 0 ? NCCL_SPLIT_NOCOLOR : color, rank,
                                 &part->comm, &config),
        comm->comm, "ncclCommSplit", why);
    kolo__nccl_leave(entered);
    if (status == KOLO_OK && color >= 0)
        *result = part;
    else
        free(part); /* without a color NCCL makes none */
    return status;
}

static kolo_status comm_shrink(struct kolo__nccl_comm *comm, const int *left, int left_count,
                               struct kolo__nccl_comm **result, char *why)
{
    ncclConfig_t config = make_config();
    *result = NULL;
    if (kolo__nccl.ncclCommShrink == NULL) {
        snprintf(why, KOLO__NCCL_WHY_BYTES, "this NCCL has no ncclCommShrink: 2.27 has");
        return KOLO_ERR_UNSUPPORTED;
    }
    struct kolo__nccl_comm *part = new_part(comm, comm->size - left_count);
    if (part == NULL)
        return kolo__nccl_no_memory(why);
    void *entered = kolo__nccl_enter(comm->ordinal);
    kolo_status status =
        kolo__nccl_check(kolo__nccl.ncclCommShrink(comm->comm, (int *)(uintptr_t)left, left_count,
                                                   &part->comm, &config, NCCL_SHRINK_DEFAULT),
                         comm->comm, "ncclCommShrink", why);
    kolo__nccl_leave(entered);
    if (status != KOLO_OK) {
        free(part);
        return status;
    }
    *result = part;
    return KOLO_OK;
}

static kolo_status ask(ncclComm_t comm, char *why)
{
    ncclResult_t state = ncclSuccess;
    kolo_status status = kolo__nccl_check(kolo__nccl.ncclCommGetAsyncError(comm, &state), comm,
                                          "ncclCommGetAsyncError", why);
    if (status == KOLO_OK)
        status = kolo__nccl_check(state, comm, "NCCL", why);
    return status == KOLO_OK && state == ncclInProgress ? KOLO_AGAIN : status;
}

static kolo_status comm_poll(struct kolo__nccl_comm *comm, char *why)
{
    if (comm->parent != NULL) {
        kolo_status status = ask(comm->parent->comm, why);
        if (status != KOLO_OK)
            return status;
        comm->parent = NULL;
    }
    if (comm->comm == NULL) {
        snprintf(why, KOLO__NCCL_WHY_BYTES, "NCCL made no communicator, and gave no reason");
        return KOLO_ERR_DEVICE;
    }
    return ask(comm->comm, why);
}

static kolo_status comm_finalize(struct kolo__nccl_comm *comm, char *why)
{
    return kolo__nccl_check(kolo__nccl.ncclCommFinalize(comm->comm), comm->comm, "ncclCommFinalize",
                            why);
}

static void comm_destroy(struct kolo__nccl_comm *comm)
{
    if (comm == NULL)
        return;
    void *entered = kolo__nccl_enter(comm->ordinal);
    kolo__nccl.ncclCommDestroy(comm->comm);
    kolo__nccl_leave(entered);
    free(comm);
}

/* ---- collectives ---------------------------------------------------------------------------- */

static ncclDataType_t type_of(kolo_dtype dtype)
{
    switch (dtype) {
    case KOLO_INT8:
        return ncclInt8;
    case KOLO_INT32:
        return ncclInt32;
    case KOLO_INT64:
        return ncclInt64;
    case KOLO_UINT8:
        return ncclUint8;
    case KOLO_UINT32:
        return ncclUint32;
    case KOLO_UINT64:
        return ncclUint64;
    case KOLO_FP16:
        return ncclFloat16;
    case KOLO_BF16:
        return ncclBfloat16;
    case KOLO_FP32:
        return ncclFloat32;
    case KOLO_FP64:
        return ncclFloat64;
    default:
        return ncclNumTypes;
    }
}

/* Never ncclAvg, nor an operation of ncclRedOpCreatePreMulSum: the symmetric kernels have neither,
 * and what scales before is fused into the packing anyway. */
static ncclRedOp_t op_of(kolo_op op)
{
    switch (op) {
    case KOLO_PRODUCT:
        return ncclProd;
    case KOLO_MIN:
        return ncclMin;
    case KOLO_MAX:
        return ncclMax;
    default:
        return ncclSum;
    }
}

/* As sends and receives in one group, which every version has: rank r's slice to rank r. */
static ncclResult_t queue_alltoall(struct kolo__nccl_comm *comm, const struct kolo__nccl_call *call)
{
    size_t bytes = call->count * kolo_dtype_bytes(call->dtype);
    ncclResult_t result = kolo__nccl.ncclGroupStart();
    if (result != ncclSuccess)
        return result;
    for (int r = 0; r < comm->size && result == ncclSuccess; r++) {
        result = kolo__nccl.ncclSend((const char *)call->send + (size_t)r * bytes, bytes, ncclInt8,
                                     r, comm->comm, call->stream);
        if (result == ncclSuccess)
            result = kolo__nccl.ncclRecv((char *)call->recv + (size_t)r * bytes, bytes, ncclInt8, r,
                                         comm->comm, call->stream);
    }
    ncclResult_t ended = kolo__nccl.ncclGroupEnd();
    return result == ncclSuccess ? ended : result;
}

static kolo_status queue(struct kolo__nccl_comm *comm, const struct kolo__nccl_call *call,
                         char *why)
{
    ncclDataType_t type = type_of(call->dtype);
    ncclRedOp_t op = op_of(call->op);
    size_t bytes = call->count * kolo_dtype_bytes(call->dtype);
    ncclComm_t on = comm->comm;
    const char *lacks =
        kolo__nccl_lacks(call->collective, call->dtype, call->op, call->send == call->recv);
    if (lacks != NULL) {
        snprintf(why, KOLO__NCCL_WHY_BYTES, "NCCL has %s", lacks);
        return KOLO_ERR_UNSUPPORTED;
    }
    void *entered = kolo__nccl_enter(comm->ordinal);
    ncclResult_t result = ncclInvalidUsage;
    const char *doing = "an unknown collective";
    switch (call->collective) {
    case KOLO__ALLREDUCE:
        doing = "ncclAllReduce";
        result = kolo__nccl.ncclAllReduce(call->send, call->recv, call->count, type, op, on,
                                          call->stream);
        break;
    case KOLO__REDUCE_SCATTER:
        doing = "ncclReduceScatter";
        result = kolo__nccl.ncclReduceScatter(call->send, call->recv, call->count, type, op, on,
                                              call->stream);
        break;
    case KOLO__REDUCE_TO_ROOT:
        doing = "ncclReduce";
        result = kolo__nccl.ncclReduce(call->send, call->recv, call->count, type, op, call->root,
                                       on, call->stream);
        break;
    case KOLO__ALLGATHER:
        doing = "ncclAllGather";
        result =
            kolo__nccl.ncclAllGather(call->send, call->recv, bytes, ncclInt8, on, call->stream);
        break;
    case KOLO__BROADCAST:
        doing = "ncclBroadcast";
        result = kolo__nccl.ncclBroadcast(call->send, call->recv, bytes, ncclInt8, call->root, on,
                                          call->stream);
        break;
    case KOLO__ALLTOALL:
        doing = "ncclSend and ncclRecv";
        result = queue_alltoall(comm, call);
        break;
    default:
        break;
    }
    kolo__nccl_leave(entered);
    return kolo__nccl_check(result, on, doing, why);
}

/* ---- memory --------------------------------------------------------------------------------- */

static kolo_status alloc(int ordinal, size_t bytes, void **memory, char *why)
{
    *memory = NULL;
    void *entered = kolo__nccl_enter(ordinal);
    ncclResult_t result = kolo__nccl.ncclMemAlloc(memory, bytes);
    kolo__nccl_leave(entered);
    return kolo__nccl_check(result, NULL, "ncclMemAlloc", why);
}

static void free_memory(int ordinal, void *memory)
{
    if (memory == NULL)
        return;
    void *entered = kolo__nccl_enter(ordinal);
    kolo__nccl.ncclMemFree(memory);
    kolo__nccl_leave(entered);
}

static kolo_status window_begin(struct kolo__nccl_comm *comm, void *memory, size_t bytes,
                                struct kolo__nccl_window **result, char *why)
{
    *result = NULL;
    if (kolo__nccl.ncclCommWindowRegister == NULL) {
        snprintf(why, KOLO__NCCL_WHY_BYTES, "this NCCL has no ncclCommWindowRegister: 2.27 has");
        return KOLO_ERR_UNSUPPORTED;
    }
    struct kolo__nccl_window *window = calloc(1, sizeof *window);
    if (window == NULL)
        return kolo__nccl_no_memory(why);
    void *entered = kolo__nccl_enter(comm->ordinal);
    kolo_status status =
        kolo__nccl_check(kolo__nccl.ncclCommWindowRegister(
                             comm->comm, memory, bytes, &window->window, NCCL_WIN_COLL_SYMMETRIC),
                         comm->comm, "ncclCommWindowRegister", why);
    kolo__nccl_leave(entered);
    if (status != KOLO_OK) {
        free(window);
        return status;
    }
    *result = window;
    return KOLO_OK;
}

static kolo_status window_close(struct kolo__nccl_comm *comm, struct kolo__nccl_window *window,
                                char *why)
{
    ncclResult_t result = ncclSuccess;
    if (window == NULL)
        return KOLO_OK;
    if (comm != NULL && window->window != NULL) {
        void *entered = kolo__nccl_enter(comm->ordinal);
        result = kolo__nccl.ncclCommWindowDeregister(comm->comm, window->window);
        kolo__nccl_leave(entered);
    }
    free(window);
    return kolo__nccl_check(result, comm != NULL ? comm->comm : NULL, "ncclCommWindowDeregister",
                            why);
}

__attribute__((visibility("default"))) const struct kolo__nccl_module kolo__nccl_module = {
    .version = KOLO__NCCL_MODULE_VERSION,
    .open = kolo__nccl_open_library,
    .unique_id = unique_id,
    .comm_begin = comm_begin,
    .comm_split = comm_split,
    .comm_shrink = comm_shrink,
    .comm_poll = comm_poll,
    .comm_finalize = comm_finalize,
    .comm_destroy = comm_destroy,
    .comm_abort = kolo__nccl_abort,
    .queue = queue,
    .alloc = alloc,
    .free = free_memory,
    .window_begin = window_begin,
    .window_close = window_close,
};
