/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stand-in for NVIDIA's driver, for error paths on machines without one: as much of libcuda.so.1
 * as the CUDA module asks for. "Device memory" is the host's, and streams do nothing. Kernels are
 * run when they are launched, if this is compiled with STANDIN_running, else not. STANDIN_CUDA, in
 * the environment, says what goes wrong: words with a blank between.
 *
 *     init=N      cuInit gives error N        version=N   the driver is for CUDA N
 *     memory      no allocation succeeds      image=N     the kernels cannot be loaded: error N
 *     launch=N    launches succeed, and the next event tells error N
 *     pending     events are never reached
 *
 * standin_count_launches and standin_count_records count. Events are not reached while
 * standin_pending is not 0, but for the first standin_reached ones that were recorded, and tell the
 * error standin_late when that is not 0. While standin_capturing is not 0 all streams are being
 * captured, which questions about events spoil.
 * standin_no_launch is the error of launches, when that is not 0.
 *
 * standin_trace, emptied by whoever wants it, has what was asked of streams, in order: "Ra1 Wb1
 * Cb Kb", event 1 recorded on stream a, stream b waits for it, then copies, then has a kernel.
 * Names are given as they appear.
 */
#include <cuda.h>

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef STANDIN_running
#include "kernels.h"
#endif

static bool begun;
atomic_int standin_pending, standin_late, standin_capturing, standin_reached, standin_no_launch,
    standin_count_launches, standin_count_records;
static struct {
    char *begin;
    size_t bytes;
} blocks[4096];

/* The number behind `word=`, 0 without one, -1 without the word. */
static int scripted(const char *word)
{
    const char *script = getenv("STANDIN_CUDA"), *at = script != NULL ? strstr(script, word) : NULL;
    if (at == NULL)
        return -1;
    at += strlen(word);
    return *at == '=' ? atoi(at + 1) : 0;
}

CUresult cuInit(unsigned flags)
{
    (void)flags;
    begun = scripted("init") <= 0;
    return begun ? CUDA_SUCCESS : (CUresult)scripted("init");
}

CUresult cuDriverGetVersion(int *version)
{
    *version = scripted("version") > 0 ? scripted("version") : CUDA_VERSION;
    return CUDA_SUCCESS;
}

CUresult cuGetErrorName(CUresult error, const char **name)
{
    static char text[32];
    snprintf(text, sizeof text, "STANDIN_ERROR_%d", (int)error);
    *name = text;
    return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult error, const char **text)
{
    (void)error;
    *text = "scripted";
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count)
{
    *count = 2;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    *device = ordinal;
    return ordinal < 2 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceGetName(char *name, int bytes, CUdevice device)
{
    snprintf(name, (size_t)bytes, "Stand-in %d", device);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetPCIBusId(char *name, int bytes, CUdevice device)
{
    snprintf(name, (size_t)bytes, "0000:0%d:00.0", device);
    return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem(size_t *bytes, CUdevice device)
{
    (void)device;
    *bytes = (size_t)1 << 30;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device)
{
    (void)device;
    *value = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? 9 : 0;
    return CUDA_SUCCESS;
}

static _Thread_local CUdevice current = -1;
static _Thread_local CUstreamCaptureMode current_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

char standin_trace[512] = "off";
static const void *names[16];

/* Where that thing stands, or is put: there are at most 8 of a kind, and NULL is none. */
static int name_of(const void *thing, int kind)
{
    int at = kind * 8;
    while (at < kind * 8 + 7 && names[at] != NULL && names[at] != thing)
        at++;
    names[at] = thing;
    return at - kind * 8;
}

static void trace(char what, const void *stream, const void *event)
{
    size_t length = strlen(standin_trace);
    if (strcmp(standin_trace, "off") == 0)
        return;
    if (length == 0)
        memset(names, 0, sizeof names);
    snprintf(standin_trace + length, sizeof standin_trace - length, "%s%c%c", length > 0 ? " " : "",
             what, 'a' + name_of(stream, 0));
    length = strlen(standin_trace);
    if (event != NULL)
        snprintf(standin_trace + length, sizeof standin_trace - length, "%d",
                 1 + name_of(event, 1));
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    *context = (CUcontext)(intptr_t)(device + 1);
    return CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent(CUcontext context)
{
    current = (CUdevice)(intptr_t)context - 1;
    return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent(CUcontext *context)
{
    *context = (CUcontext)(intptr_t)(current + 1);
    current = -1;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice *device)
{
    *device = current;
    return current < 0 ? CUDA_ERROR_INVALID_CONTEXT : CUDA_SUCCESS;
}

CUresult cuStreamGetCtx(CUstream stream, CUcontext *context)
{
    (void)stream;
    *context = (CUcontext)(intptr_t)2; /* GPU 1's, as all memory is */
    return CUDA_SUCCESS;
}

CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int priority)
{
    (void)flags, (void)priority;
    *stream = malloc(1);
    return CUDA_SUCCESS;
}

CUresult cuStreamDestroy(CUstream stream)
{
    free(stream);
    return CUDA_SUCCESS;
}

CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status)
{
    (void)stream;
    *status =
        standin_capturing != 0 ? CU_STREAM_CAPTURE_STATUS_ACTIVE : CU_STREAM_CAPTURE_STATUS_NONE;
    return CUDA_SUCCESS;
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags)
{
    (void)flags;
    trace('W', stream, event);
    return CUDA_SUCCESS;
}

CUresult cuEventCreate(CUevent *event, unsigned flags)
{
    (void)flags;
    int *record = calloc(1, sizeof *record); /* which record of all it was */
    *event = (CUevent)record;
    return CUDA_SUCCESS;
}

CUresult cuEventDestroy(CUevent event)
{
    free(event);
    return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent event, CUstream stream)
{
    trace('R', stream, event);
    *(int *)(void *)event = ++standin_count_records;
    return CUDA_SUCCESS;
}

CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode)
{
    CUstreamCaptureMode before = current_mode;
    current_mode = *mode;
    *mode = before;
    return CUDA_SUCCESS;
}

#if !defined(STANDIN_lacking)
CUresult cuEventQuery(CUevent event)
{
    if (standin_capturing != 0 && current_mode != CU_STREAM_CAPTURE_MODE_RELAXED)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (standin_late != 0)
        return (CUresult)standin_late;
    bool recorded = *(int *)(void *)event > standin_reached;
    if (recorded && (scripted("pending") >= 0 || standin_pending != 0))
        return CUDA_ERROR_NOT_READY;
    return standin_count_launches > 0 && scripted("launch") > 0 ? (CUresult)scripted("launch")
                                                                : CUDA_SUCCESS;
}
#endif

static void *allocate(size_t bytes)
{
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        if (blocks[i].begin == NULL) {
            blocks[i].begin = aligned_alloc(256, (bytes + 255) / 256 * 256);
            blocks[i].bytes = bytes;
            return blocks[i].begin;
        }
    return NULL;
}

CUresult cuMemAlloc(CUdeviceptr *memory, size_t bytes)
{
    if (scripted("memory") >= 0)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *memory = (CUdeviceptr)(uintptr_t)allocate(bytes);
    return CUDA_SUCCESS;
}

CUresult cuMemFree(CUdeviceptr memory)
{
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        if (blocks[i].begin == (char *)(uintptr_t)memory) {
            free(blocks[i].begin);
            blocks[i].begin = NULL;
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemHostAlloc(void **memory, size_t bytes, unsigned flags)
{
    (void)flags;
    if (scripted("memory") >= 0)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *memory = malloc(bytes);
    return CUDA_SUCCESS;
}

CUresult cuMemFreeHost(void *memory)
{
    free(memory);
    return CUDA_SUCCESS;
}

CUresult cuMemHostRegister(void *memory, size_t bytes, unsigned flags)
{
    (void)memory, (void)bytes, (void)flags;
    return CUDA_SUCCESS;
}

CUresult cuMemHostUnregister(void *memory)
{
    (void)memory;
    return CUDA_SUCCESS;
}

CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    trace('C', stream, NULL);
    memcpy((void *)(uintptr_t)to, (void *)(uintptr_t)from, bytes);
    return CUDA_SUCCESS;
}

CUresult cuMemcpyHtoD(CUdeviceptr to, const void *from, size_t bytes)
{
    memcpy((void *)(uintptr_t)to, from, bytes);
    return CUDA_SUCCESS;
}

CUresult cuMemsetD8Async(CUdeviceptr memory, unsigned char value, size_t bytes, CUstream stream)
{
    (void)stream;
    memset((void *)(uintptr_t)memory, value, bytes);
    return CUDA_SUCCESS;
}

CUresult cuMemGetAddressRange(CUdeviceptr *base, size_t *bytes, CUdeviceptr memory)
{
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        CUdeviceptr begin = (CUdeviceptr)(uintptr_t)blocks[i].begin;
        if (begin != 0 && memory >= begin && memory < begin + blocks[i].bytes) {
            *base = begin;
            *bytes = blocks[i].bytes;
            return CUDA_SUCCESS;
        }
    }
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuPointerGetAttributes(unsigned count, CUpointer_attribute *attributes, void **data,
                                CUdeviceptr memory)
{
    CUdeviceptr base;
    size_t bytes;
    if (!begun)
        return CUDA_ERROR_NOT_INITIALIZED;
    bool ours = cuMemGetAddressRange(&base, &bytes, memory) == CUDA_SUCCESS;
    for (unsigned i = 0; i < count; i++) {
        if (attributes[i] == CU_POINTER_ATTRIBUTE_MEMORY_TYPE)
            *(CUmemorytype *)data[i] = ours ? CU_MEMORYTYPE_DEVICE : (CUmemorytype)0;
        else if (attributes[i] == CU_POINTER_ATTRIBUTE_IS_MANAGED)
            *(unsigned *)data[i] = 0;
        else
            *(int *)data[i] = ours ? 1 : -2;
    }
    return CUDA_SUCCESS;
}

CUresult cuIpcGetMemHandle(CUipcMemHandle *handle, CUdeviceptr memory)
{
    memset(handle, 0, sizeof *handle);
    memcpy(handle->reserved, &memory, sizeof memory);
    return CUDA_SUCCESS;
}

CUresult cuIpcOpenMemHandle(CUdeviceptr *memory, CUipcMemHandle handle, unsigned flags)
{
    (void)flags;
    memcpy(memory, handle.reserved, sizeof *memory);
    return CUDA_SUCCESS;
}

CUresult cuIpcCloseMemHandle(CUdeviceptr memory)
{
    (void)memory;
    return CUDA_SUCCESS;
}

CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    unsigned magic;
    memcpy(&magic, image, sizeof magic);
    *module = (CUmodule)(intptr_t)1;
    if (magic != 0xba55ed50u) /* a fatbin begins so */
        return CUDA_ERROR_INVALID_IMAGE;
    return scripted("image") > 0 ? (CUresult)scripted("image") : CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    (void)module;
#ifdef STANDIN_running
    *function = (CUfunction)(uintptr_t)standin_kernel(name);
    return *function != NULL ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
#endif
    *function = (CUfunction)(intptr_t)2;
    return strncmp(name, "kolo_", 5) == 0 ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

CUresult cuLaunchKernel(CUfunction f, unsigned x, unsigned y, unsigned z, unsigned a, unsigned b,
                        unsigned c, unsigned shared, CUstream stream, void **parameters,
                        void **extra)
{
    (void)f, (void)shared, (void)extra;
    if (x == 0 || a == 0 || a > 1024 || y * z * b * c != 1 || parameters == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (standin_no_launch != 0)
        return (CUresult)standin_no_launch;
    trace('K', stream, NULL);
    standin_count_launches++;
#ifdef STANDIN_running
    if (!standin_run((const void *)f, x, a, parameters))
        return CUDA_ERROR_INVALID_VALUE;
#endif
    return CUDA_SUCCESS;
}

CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned x, unsigned y, unsigned z, unsigned a,
                                   unsigned b, unsigned c, unsigned shared, CUstream stream,
                                   void **parameters)
{
    return cuLaunchKernel(f, x, y, z, a, b, c, shared, stream, parameters, NULL);
}
