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
 *     ipc         other processes can map memory, which is a memfd's; without it a handle is an
 * address share=N     no handle: error N          map=N       a handle cannot be opened: error N
 *     bus=N       GPUs are on bus N
 *     dma_buf=N   no dma-buf: error N; 0: GPUs have no such
 *     disorder    what network cards write is seen after a flush only; no_flush: not even then
 *     pool        memory is a pool's
 *
 * With `ipc` a dma-buf is the memory itself, of ranges that begin where their allocation does; else
 * it only is as long. standin_count_flushes counts.
 *
 * standin_count_launches and standin_count_records count. Events are not reached while
 * standin_pending is not 0, but for the first standin_reached ones that were recorded, and tell the
 * error standin_late when that is not 0. While standin_capturing is not 0 all streams are being
 * captured, which questions about events spoil.
 * standin_no_launch is the error of launches, standin_spins the looks after which kernels give up,
 * when they are not 0. While standin_fail_in is not 0 the so-many-th from now of what is asked of a
 * GPU fails with standin_fail_error, and all that follows; of allocations alone, where that is
 * CUDA_ERROR_OUT_OF_MEMORY. standin_live counts what was made and not given back.
 *
 * As on a GPU, what cuMemcpyHtoDAsync copies is not there when it returns, but when an event behind
 * it is found to be reached. standin_count_endless counts what was given back while events were
 * pending, which waits without end there. And whatever belongs to a context wants
 * one to be current.
 *
 * Kernels that wait for those of other ranks run in a thread, one at a time: what follows them on
 * any stream waits, and events behind them are reached when they are done; standin_synchronize
 * waits as well. standin_count_mapped counts what is mapped.
 *
 * standin_trace, emptied by whoever wants it, has what was asked of streams, in order: "Ra1 Wb1
 * Cb Kb", event 1 recorded on stream a, stream b waits for it, then copies, then has a kernel.
 * Names are given as they appear.
 */
#include <cuda.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef STANDIN_running
#include "kernels.h"
#endif

static bool begun;
atomic_int standin_pending, standin_late, standin_capturing, standin_reached, standin_no_launch,
    standin_count_launches, standin_count_records, standin_count_mapped, standin_count_flushes,
    standin_count_endless, standin_spins, standin_fail_in, standin_fail_error, standin_live;
static struct {
    char *begin;
    size_t bytes;
    int fd; /* 0: none */
    unsigned long long number;
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

static bool is_pending(void)
{
    return scripted("pending") >= 0 || standin_pending != 0;
}

static CUresult fault(bool allocates)
{
    if (standin_fail_in == 0 || (standin_fail_error == CUDA_ERROR_OUT_OF_MEMORY && !allocates))
        return CUDA_SUCCESS;
    if (standin_fail_in == 1)
        return (CUresult)standin_fail_error;
    standin_fail_in--;
    return CUDA_SUCCESS;
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
    snprintf(name, (size_t)bytes, "0000:0%d:00.0", scripted("bus") > 0 ? scripted("bus") : device);
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
    *value = attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? 9
             : attribute == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT   ? 132
             : attribute == CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED      ? scripted("dma_buf") != 0
             : attribute == CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING
                 ? (scripted("disorder") < 0 ? CU_GPU_DIRECT_RDMA_WRITES_ORDERING_OWNER : 0)
             : attribute == CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS
                 ? (scripted("no_flush") < 0 ? CU_FLUSH_GPU_DIRECT_RDMA_WRITES_OPTION_HOST : 0)
                 : 0;
    return CUDA_SUCCESS;
}

static _Thread_local CUdevice current = -1, below[8]; /* contexts: current, and those under it */
static _Thread_local unsigned depth;
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
    if (depth == sizeof below / sizeof *below)
        return CUDA_ERROR_INVALID_CONTEXT;
    below[depth++] = current;
    current = (CUdevice)(intptr_t)context - 1;
    return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent(CUcontext *context)
{
    if (depth == 0)
        return CUDA_ERROR_INVALID_CONTEXT;
    *context = (CUcontext)(intptr_t)(current + 1);
    current = below[--depth];
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
    CUresult failed = fault(false);
    if (failed != CUDA_SUCCESS)
        return failed;
    standin_live++;
    (void)flags, (void)priority;
    *stream = malloc(1);
    return CUDA_SUCCESS;
}

CUresult cuStreamDestroy(CUstream stream)
{
    if (current < 0)
        return CUDA_ERROR_INVALID_CONTEXT;
    standin_live--;
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
    CUresult failed = fault(false);
    if (failed != CUDA_SUCCESS)
        return failed;
    (void)flags;
    trace('W', stream, event);
    return CUDA_SUCCESS;
}

CUresult cuEventCreate(CUevent *event, unsigned flags)
{
    CUresult failed = fault(false);
    if (failed != CUDA_SUCCESS)
        return failed;
    standin_live++;
    (void)flags;
    int *record = calloc(1, sizeof *record); /* which record of all it was */
    *event = (CUevent)record;
    return CUDA_SUCCESS;
}

CUresult cuEventDestroy(CUevent event)
{
    if (current < 0)
        return CUDA_ERROR_INVALID_CONTEXT;
    standin_live--;
    free(event);
    return CUDA_SUCCESS;
}

/* ---- a copy that is not there yet -------------------------------------------------------------
 */

static struct {
    CUdeviceptr to;
    void *staged; /* NULL: there is none */
    size_t bytes;
    CUstream stream;
    int record; /* of the first event behind it; 0: none is */
} late;

static void land(void)
{
    if (late.staged == NULL)
        return;
    memcpy((void *)(uintptr_t)late.to, late.staged, late.bytes);
    free(late.staged);
    late.staged = NULL;
}

/* ---- kernels that wait ---------------------------------------------------------------------- */

void standin_synchronize(void);

#ifdef STANDIN_running
static struct {
    pthread_t thread;
    bool begun;
    const void *kernel;
    unsigned blocks, threads;
    char parameter[8192];
} background;
static atomic_int background_running, background_records;

static void *run_background(void *nothing)
{
    void *parameters[] = {background.parameter};
    standin_run(background.kernel, background.blocks, background.threads, parameters);
    atomic_store(&background_running, 0);
    return nothing;
}

void standin_synchronize(void)
{
    if (background.begun)
        pthread_join(background.thread, NULL);
    background.begun = false;
}

static void run_in_background(const void *kernel, unsigned grid, unsigned threads,
                              const void *parameter, size_t bytes)
{
    background.kernel = kernel;
    background.blocks = grid;
    background.threads = threads;
    memcpy(background.parameter, parameter, bytes);
    if (standin_spins != 0)
        standin_limit_spins(background.parameter, (unsigned)standin_spins);
    atomic_store(&background_records, standin_count_records);
    atomic_store(&background_running, 1);
    background.begun = pthread_create(&background.thread, NULL, run_background, NULL) == 0;
}

static bool is_behind_background(int record)
{
    return atomic_load(&background_running) != 0 && record > atomic_load(&background_records);
}
#else
void standin_synchronize(void)
{
}

__attribute__((unused)) static bool is_behind_background(int record)
{
    (void)record;
    return false;
}
#endif

CUresult cuEventRecord(CUevent event, CUstream stream)
{
    CUresult failed = fault(false);
    if (failed != CUDA_SUCCESS)
        return failed;
    trace('R', stream, event);
    *(int *)(void *)event = ++standin_count_records;
    if (stream == late.stream && late.record == 0)
        late.record = standin_count_records;
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
    CUresult failed = fault(false);
    if (failed != CUDA_SUCCESS)
        return failed;
    if (current < 0)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (standin_capturing != 0 && current_mode != CU_STREAM_CAPTURE_MODE_RELAXED)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (standin_late != 0)
        return (CUresult)standin_late;
    if (is_behind_background(*(int *)(void *)event))
        return CUDA_ERROR_NOT_READY;
    bool recorded = *(int *)(void *)event > standin_reached;
    if (recorded && is_pending())
        return CUDA_ERROR_NOT_READY;
    if (recorded && *(int *)(void *)event == late.record)
        land();
    return standin_count_launches > 0 && scripted("launch") > 0 ? (CUresult)scripted("launch")
                                                                : CUDA_SUCCESS;
}
#endif

static void note_release(void)
{
    standin_live--;
    standin_count_endless += standin_count_records > standin_reached && is_pending();
}

static void *allocate(size_t bytes)
{
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        if (blocks[i].begin == NULL) {
            static unsigned long long numbers;
            blocks[i].bytes = bytes;
            blocks[i].number = ++numbers;
            blocks[i].fd = scripted("ipc") >= 0 ? memfd_create("standin", MFD_CLOEXEC) : 0;
            if (blocks[i].fd == 0)
                blocks[i].begin = aligned_alloc(256, (bytes + 255) / 256 * 256);
            else if (ftruncate(blocks[i].fd, (off_t)bytes) == 0)
                blocks[i].begin =
                    mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, blocks[i].fd, 0);
            return blocks[i].begin;
        }
    return NULL;
}

CUresult cuMemAlloc(CUdeviceptr *memory, size_t bytes)
{
    CUresult failed = fault(true);
    if (failed != CUDA_SUCCESS)
        return failed;
    if (scripted("memory") >= 0)
        return CUDA_ERROR_OUT_OF_MEMORY;
    standin_live++;
    *memory = (CUdeviceptr)(uintptr_t)allocate(bytes);
    return CUDA_SUCCESS;
}

CUresult cuMemFree(CUdeviceptr memory)
{
    note_release();
    land();
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        if (blocks[i].begin == (char *)(uintptr_t)memory) {
            standin_synchronize();
            if (blocks[i].fd == 0) {
                free(blocks[i].begin);
            } else {
                munmap(blocks[i].begin, blocks[i].bytes);
                close(blocks[i].fd);
            }
            blocks[i].begin = NULL;
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemHostAlloc(void **memory, size_t bytes, unsigned flags)
{
    CUresult failed = fault(true);
    if (failed != CUDA_SUCCESS)
        return failed;
    (void)flags;
    if (scripted("memory") >= 0)
        return CUDA_ERROR_OUT_OF_MEMORY;
    standin_live++;
    *memory = malloc(bytes);
    return CUDA_SUCCESS;
}

CUresult cuMemFreeHost(void *memory)
{
    note_release();
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
    CUresult failed = fault(false);
    if (failed != CUDA_SUCCESS)
        return failed;
    trace('C', stream, NULL);
    standin_synchronize();
    memcpy((void *)(uintptr_t)to, (void *)(uintptr_t)from, bytes);
    return CUDA_SUCCESS;
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t bytes, CUstream stream)
{
    CUresult failed = fault(false);
    if (failed != CUDA_SUCCESS)
        return failed;
    land();
    late.staged = malloc(bytes);
    if (late.staged == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    late.to = to;
    late.bytes = bytes;
    late.stream = stream;
    late.record = 0;
    memcpy(late.staged, from, bytes);
    memset((void *)(uintptr_t)to, 0, bytes); /* what is read too early is wrong, whatever it was */
    return CUDA_SUCCESS;
}

CUresult cuMemsetD8Async(CUdeviceptr memory, unsigned char value, size_t bytes, CUstream stream)
{
    CUresult failed = fault(false);
    if (failed != CUDA_SUCCESS)
        return failed;
    (void)stream;
    standin_synchronize();
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

static unsigned long long number_of(CUdeviceptr memory)
{
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        CUdeviceptr begin = (CUdeviceptr)(uintptr_t)blocks[i].begin;
        if (begin != 0 && memory >= begin && memory < begin + blocks[i].bytes)
            return blocks[i].number;
    }
    return 0;
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
        else if (attributes[i] == CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE)
            *(unsigned *)data[i] = ours && scripted("pool") < 0;
        else if (attributes[i] == CU_POINTER_ATTRIBUTE_BUFFER_ID)
            *(unsigned long long *)data[i] = ours ? number_of(memory) : 0;
        else if (attributes[i] == CU_POINTER_ATTRIBUTE_RANGE_START_ADDR)
            *(CUdeviceptr *)data[i] = ours ? base : 0;
        else if (attributes[i] == CU_POINTER_ATTRIBUTE_RANGE_SIZE)
            *(size_t *)data[i] = ours ? bytes : 0;
        else
            *(int *)data[i] = ours ? 1 : -2;
    }
    return CUDA_SUCCESS;
}

static struct {
    char *begin;
    size_t bytes;
} mapped[64];

/* Of a memfd: the process and its descriptor, by which Linux opens it anew. */
struct shared {
    CUdeviceptr memory; /* in that process */
    size_t bytes;
    int pid, fd; /* 0: the address is all there is */
};

CUresult cuIpcGetMemHandle(CUipcMemHandle *handle, CUdeviceptr memory)
{
    struct shared shared = {.memory = memory, .pid = getpid()};
    if (scripted("share") > 0)
        return (CUresult)scripted("share");
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        if (blocks[i].begin == (char *)(uintptr_t)memory) {
            shared.fd = blocks[i].fd;
            shared.bytes = blocks[i].bytes;
        }
    memset(handle, 0, sizeof *handle);
    memcpy(handle->reserved, &shared, sizeof shared);
    return CUDA_SUCCESS;
}

CUresult cuIpcOpenMemHandle(CUdeviceptr *memory, CUipcMemHandle handle, unsigned flags)
{
    struct shared shared;
    char path[64];
    (void)flags;
    if (scripted("map") > 0)
        return (CUresult)scripted("map");
    memcpy(&shared, handle.reserved, sizeof shared);
    *memory = shared.memory;
    for (size_t i = 0; i < sizeof mapped / sizeof *mapped && shared.fd != 0; i++) {
        if (mapped[i].begin != NULL)
            continue;
        snprintf(path, sizeof path, "/proc/%d/fd/%d", shared.pid, shared.fd);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        void *at = mmap(NULL, shared.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (fd >= 0)
            close(fd);
        if (at == MAP_FAILED)
            return CUDA_ERROR_MAP_FAILED;
        mapped[i].begin = at;
        mapped[i].bytes = shared.bytes;
        *memory = (CUdeviceptr)(uintptr_t)at;
        break;
    }
    standin_count_mapped++;
    return CUDA_SUCCESS;
}

CUresult cuIpcCloseMemHandle(CUdeviceptr memory)
{
    standin_synchronize();
    for (size_t i = 0; i < sizeof mapped / sizeof *mapped; i++)
        if (mapped[i].begin == (char *)(uintptr_t)memory) {
            munmap(mapped[i].begin, mapped[i].bytes);
            mapped[i].begin = NULL;
        }
    standin_count_mapped--;
    return CUDA_SUCCESS;
}

#ifdef STANDIN_running /* the others are older */
CUresult cuMemGetHandleForAddressRange(void *handle, CUdeviceptr memory, size_t bytes,
                                       CUmemRangeHandleType type, unsigned long long flags)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (type != CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD || flags != 0 || memory % page != 0 ||
        bytes % page != 0 || bytes == 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (scripted("dma_buf") > 0)
        return (CUresult)scripted("dma_buf");
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        if (blocks[i].begin != NULL && blocks[i].begin == (char *)(uintptr_t)memory &&
            blocks[i].fd != 0) {
            *(int *)handle = fcntl(blocks[i].fd, F_DUPFD_CLOEXEC, 0);
            return *(int *)handle >= 0 ? CUDA_SUCCESS : CUDA_ERROR_UNKNOWN;
        }
    *(int *)handle = memfd_create("standin", MFD_CLOEXEC);
    return ftruncate(*(int *)handle, (off_t)bytes) == 0 ? CUDA_SUCCESS : CUDA_ERROR_UNKNOWN;
}

CUresult cuFlushGPUDirectRDMAWrites(CUflushGPUDirectRDMAWritesTarget target,
                                    CUflushGPUDirectRDMAWritesScope scope)
{
    CUresult failed = fault(false);
    if (failed != CUDA_SUCCESS)
        return failed;
    if (current < 0)
        return CUDA_ERROR_INVALID_CONTEXT;
    standin_count_flushes++;
    return target == CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TARGET_CURRENT_CTX &&
                   scope == CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_OWNER
               ? CUDA_SUCCESS
               : CUDA_ERROR_INVALID_VALUE;
}
#endif

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
    CUresult failed = fault(false);
    if (failed != CUDA_SUCCESS)
        return failed;
    (void)f, (void)shared, (void)extra;
    if (x == 0 || a == 0 || a > 1024 || y * z * b * c != 1 || parameters == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (standin_no_launch != 0)
        return (CUresult)standin_no_launch;
    trace('K', stream, NULL);
    standin_count_launches++;
#ifdef STANDIN_running
    standin_synchronize();
    const size_t bytes = standin_waits((const void *)f, parameters[0]);
    if (bytes > 0)
        run_in_background((const void *)f, x, a, parameters[0], bytes);
    else if (!standin_run((const void *)f, x, a, parameters))
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
