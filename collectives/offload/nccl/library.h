/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NCCL as the module sees it: functions found at run time, the GPU that a thread is on, and what
 * errors mean. The only file that includes nccl.h.
 */
#ifndef KOLO_COLLECTIVES_OFFLOAD_NCCL_LIBRARY_H
#define KOLO_COLLECTIVES_OFFLOAD_NCCL_LIBRARY_H

#include "collectives/offload/nccl_module.h"

#include <nccl.h>

/* Every NCCL that the module takes (KOLO__NCCL_VERSION_LEAST) has these. */
#define KOLO__NCCL_FUNCTIONS(X)                                                                    \
    X(ncclGetVersion)                                                                              \
    X(ncclGetUniqueId)                                                                             \
    X(ncclGetErrorString)                                                                          \
    X(ncclGetLastError)                                                                            \
    X(ncclCommInitRankConfig)                                                                      \
    X(ncclCommSplit)                                                                               \
    X(ncclCommGetAsyncError)                                                                       \
    X(ncclCommFinalize)                                                                            \
    X(ncclCommDestroy)                                                                             \
    X(ncclCommAbort)                                                                               \
    X(ncclMemAlloc)                                                                                \
    X(ncclMemFree)                                                                                 \
    X(ncclAllReduce)                                                                               \
    X(ncclReduceScatter)                                                                           \
    X(ncclAllGather)                                                                               \
    X(ncclBroadcast)                                                                               \
    X(ncclReduce)                                                                                  \
    X(ncclSend)                                                                                    \
    X(ncclRecv)                                                                                    \
    X(ncclGroupStart)                                                                              \
    X(ncclGroupEnd)

/* Newer ones: NULL where they are missing. */
#define KOLO__NCCL_OPTIONAL_FUNCTIONS(X)                                                           \
    X(ncclCommShrink)                                                                              \
    X(ncclCommWindowRegister)                                                                      \
    X(ncclCommWindowDeregister)

/* NOLINTNEXTLINE(bugprone-macro-parentheses): it declares a member */
#define KOLO__NCCL_MEMBER(function) __typeof__(&(function)) function;
struct kolo__nccl_functions {
    KOLO__NCCL_FUNCTIONS(KOLO__NCCL_MEMBER)
    KOLO__NCCL_OPTIONAL_FUNCTIONS(KOLO__NCCL_MEMBER)
};
#undef KOLO__NCCL_MEMBER

/* Filled by kolo__nccl_open_library, before anything else of the module is called. */
extern struct kolo__nccl_functions kolo__nccl;

kolo_status kolo__nccl_open_library(const char *path, struct kolo__nccl_library *library,
                                    char *why);
/* ncclInProgress is none. doing: "ncclAllReduce". */
kolo_status kolo__nccl_check(ncclResult_t result, ncclComm_t comm, const char *doing, char *why);

struct kolo__nccl_comm {
    ncclComm_t comm; /* of a part: NULL until NCCL has made it */
    /* Of a part that is being made: NCCL's state of that stands with the parent. Then NULL. */
    struct kolo__nccl_comm *parent;
    int size, ordinal;
};

kolo_status kolo__nccl_abort(struct kolo__nccl_comm *comm, unsigned limit_ms, char *why);
kolo_status kolo__nccl_no_memory(char *why);

/* NCCL takes the GPU that is current. enter makes `ordinal` so, in its primary context, and leave
 * brings back what was. Where there is no driver they do nothing, and NCCL says so itself. */
void *kolo__nccl_enter(int ordinal);
void kolo__nccl_leave(void *entered);

#endif
