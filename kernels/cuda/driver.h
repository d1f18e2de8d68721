/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CUDA driver, opened at run time: libcuda.so.1 belongs to the machine, so the module is linked
 * to nothing of CUDA's, and one without a driver only says so. The one file that includes cuda.h,
 * whose macros also give each function the name that it has in the library.
 */
#ifndef KOLO_KERNELS_CUDA_DRIVER_H
#define KOLO_KERNELS_CUDA_DRIVER_H

#include "kernels/device.h"

#include <cuda.h>

/* X(function): needed. All of them are in drivers of CUDA 11.2 and later. */
#define KOLO__DRIVER_FUNCTIONS(X)                                                                  \
    X(cuInit)                                                                                      \
    X(cuDriverGetVersion)                                                                          \
    X(cuGetErrorName)                                                                              \
    X(cuGetErrorString)                                                                            \
    X(cuDeviceGet)                                                                                 \
    X(cuDeviceGetCount)                                                                            \
    X(cuDeviceGetName)                                                                             \
    X(cuDeviceGetAttribute)                                                                        \
    X(cuDeviceGetPCIBusId)                                                                         \
    X(cuDeviceTotalMem)                                                                            \
    X(cuDevicePrimaryCtxRetain)                                                                    \
    X(cuCtxPushCurrent)                                                                            \
    X(cuCtxPopCurrent)                                                                             \
    X(cuCtxGetDevice)                                                                              \
    X(cuStreamGetCtx)                                                                              \
    X(cuStreamCreateWithPriority)                                                                  \
    X(cuStreamDestroy)                                                                             \
    X(cuStreamIsCapturing)                                                                         \
    X(cuStreamWaitEvent)                                                                           \
    X(cuEventCreate)                                                                               \
    X(cuEventDestroy)                                                                              \
    X(cuEventRecord)                                                                               \
    X(cuEventQuery)                                                                                \
    X(cuThreadExchangeStreamCaptureMode)                                                           \
    X(cuMemAlloc)                                                                                  \
    X(cuMemFree)                                                                                   \
    X(cuMemHostAlloc)                                                                              \
    X(cuMemFreeHost)                                                                               \
    X(cuMemHostRegister)                                                                           \
    X(cuMemHostUnregister)                                                                         \
    X(cuMemcpyAsync)                                                                               \
    X(cuMemcpyHtoDAsync)                                                                           \
    X(cuMemsetD8Async)                                                                             \
    X(cuMemGetAddressRange)                                                                        \
    X(cuPointerGetAttributes)                                                                      \
    X(cuIpcGetMemHandle)                                                                           \
    X(cuIpcOpenMemHandle)                                                                          \
    X(cuIpcCloseMemHandle)                                                                         \
    X(cuModuleLoadData)                                                                            \
    X(cuModuleGetFunction)                                                                         \
    X(cuLaunchKernel)                                                                              \
    X(cuLaunchCooperativeKernel)

struct kolo__driver {
/* NOLINTNEXTLINE(bugprone-macro-parentheses): it declares a member */
#define KOLO__DRIVER_MEMBER(function) __typeof__(&function) function;
    KOLO__DRIVER_FUNCTIONS(KOLO__DRIVER_MEMBER)
#undef KOLO__DRIVER_MEMBER
    __typeof__(&cuMemGetHandleForAddressRange)
        cuMemGetHandleForAddressRange;                                  /* from 11.7; or NULL */
    __typeof__(&cuFlushGPUDirectRDMAWrites) cuFlushGPUDirectRDMAWrites; /* from 11.3; or NULL */
    int version;                                                        /* 13000: CUDA 13.0 */
};

/* What the core handed in. */
extern struct kolo__device_services kolo__services;

/* Loads and begins the driver, once; afterwards the same answer. */
kolo_status kolo__driver_open(const struct kolo__driver **driver);
/* The driver that somebody in this process has loaded; NULL: nobody has. Begins nothing. */
const struct kolo__driver *kolo__driver_if_loaded(void);

/* KOLO_OK for CUDA_SUCCESS, else the error with what was being done: "allocating 8 bytes". */
kolo_status kolo__driver_check(CUresult result, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- one GPU ------------------------------------------------------------------------------- */

enum {
    KOLO__KERNEL_KINDS = 3,
    KOLO__KERNEL_FORMS = 8,
    KOLO__KERNEL_FORMATS = 6,
    KOLO__KERNEL_INTEGERS = 8,
    KOLO__KERNEL_EXCHANGES = 12
};

struct kolo__device {
    const struct kolo__driver *driver;
    CUcontext context;
    CUdevice device;
    CUfunction walks[KOLO__KERNEL_KINDS][KOLO__KERNEL_FORMS]; /* by enum walk_kind, form */
    CUfunction total, scale;
    CUfunction reduce[KOLO__KERNEL_FORMATS];           /* by enum format */
    CUfunction reduce_integers[KOLO__KERNEL_INTEGERS]; /* by kolo_dtype */
    CUfunction exchanges[KOLO__KERNEL_EXCHANGES];      /* by kind, then float dtype */
    int ordinal;
    bool orders_writes, flushes_writes; /* of network cards: by itself; when asked */
};

/* Makes the GPU's context the thread's, and gives back what was. */
kolo_status kolo__device_enter(struct kolo__device *device);
void kolo__device_leave(struct kolo__device *device);

/* Loads the kernels into the context that is current. */
kolo_status kolo__kernels_load(struct kolo__device *device);

#endif
