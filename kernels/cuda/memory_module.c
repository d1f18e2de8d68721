/* SPDX-License-Identifier: Apache-2.0 */
/* See memory_module.h. */
#include "kernels/cuda/memory_module.h"

#include <string.h>
#include <unistd.h>

static CUdeviceptr address_of(const void *memory)
{
    return (CUdeviceptr)(uintptr_t)memory;
}

kolo_status kolo__device_enter(struct kolo__device *device)
{
    return kolo__driver_check(device->driver->cuCtxPushCurrent(device->context),
                              "using GPU %d in this thread", device->ordinal);
}

void kolo__device_leave(struct kolo__device *device)
{
    CUcontext mine;
    device->driver->cuCtxPopCurrent(&mine);
}

/* The driver answers NOT_INITIALIZED where nobody began it, and INVALID_VALUE to what it does not
 * know. */
void kolo__cuda_find(const void *memory, struct kolo__memory_place *place)
{
    const struct kolo__driver *driver = kolo__driver_if_loaded();
    CUmemorytype type = (CUmemorytype)0;
    unsigned managed = 0;
    int ordinal = -1;
    CUpointer_attribute wanted[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                                    CU_POINTER_ATTRIBUTE_IS_MANAGED,
                                    CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL};
    void *found[] = {&type, &managed, &ordinal};
    *place = (struct kolo__memory_place){.kind = KOLO_MEMORY_HOST, .ordinal = -1};
    if (driver == NULL ||
        driver->cuPointerGetAttributes(3, wanted, found, address_of(memory)) != CUDA_SUCCESS)
        return;
    if (managed)
        place->kind = KOLO_MEMORY_MANAGED;
    else if (type == CU_MEMORYTYPE_DEVICE)
        place->kind = KOLO_MEMORY_DEVICE;
    else if (type == CU_MEMORYTYPE_HOST)
        place->kind = KOLO_MEMORY_PINNED;
    if (place->kind != KOLO_MEMORY_HOST)
        place->ordinal = ordinal;
}

bool kolo__cuda_current(char bus_id[KOLO__DEVICE_BUS_ID_BYTES])
{
    const struct kolo__driver *driver = kolo__driver_if_loaded();
    CUdevice device = 0;
    return driver != NULL && driver->cuCtxGetDevice(&device) == CUDA_SUCCESS &&
           driver->cuDeviceGetPCIBusId(bus_id, KOLO__DEVICE_BUS_ID_BYTES, device) == CUDA_SUCCESS;
}

/* ---- streams and events --------------------------------------------------------------------- */

kolo_status kolo__cuda_stream_create(struct kolo__device *device, kolo__device_stream *stream)
{
    CUstream made = NULL;
    kolo_status status = kolo__device_enter(device);
    if (status != KOLO_OK)
        return status;
    status = kolo__driver_check(
        device->driver->cuStreamCreateWithPriority(&made, CU_STREAM_NON_BLOCKING, -1),
        "making a stream on GPU %d", device->ordinal);
    kolo__device_leave(device);
    *stream = made;
    return status;
}

void kolo__cuda_stream_destroy(struct kolo__device *device, kolo__device_stream stream)
{
    if (stream == NULL || kolo__device_enter(device) != KOLO_OK)
        return;
    device->driver->cuStreamDestroy(stream);
    kolo__device_leave(device);
}

kolo_status kolo__cuda_stream_is_capturing(struct kolo__device *device, kolo__device_stream stream,
                                           bool *capturing)
{
    CUstreamCaptureStatus found = CU_STREAM_CAPTURE_STATUS_NONE;
    kolo_status status = kolo__device_enter(device);
    if (status != KOLO_OK)
        return status;
    CUresult result = device->driver->cuStreamIsCapturing(stream, &found);
    kolo__device_leave(device);
    /* Asked of the default stream while another is captured in a mode that forbids it. */
    if (result == CUDA_ERROR_STREAM_CAPTURE_IMPLICIT)
        result = CUDA_SUCCESS;
    *capturing = found != CU_STREAM_CAPTURE_STATUS_NONE;
    return kolo__driver_check(result, "looking at a stream of GPU %d", device->ordinal);
}

kolo_status kolo__cuda_event_create(struct kolo__device *device, kolo__device_event *event)
{
    CUevent made = NULL;
    kolo_status status = kolo__device_enter(device);
    if (status != KOLO_OK)
        return status;
    status = kolo__driver_check(device->driver->cuEventCreate(&made, CU_EVENT_DISABLE_TIMING),
                                "making an event on GPU %d", device->ordinal);
    kolo__device_leave(device);
    *event = (kolo__device_event)made;
    return status;
}

void kolo__cuda_event_destroy(struct kolo__device *device, kolo__device_event event)
{
    if (event == NULL || kolo__device_enter(device) != KOLO_OK)
        return;
    device->driver->cuEventDestroy((CUevent)event);
    kolo__device_leave(device);
}

kolo_status kolo__cuda_event_record(struct kolo__device *device, kolo__device_event event,
                                    kolo__device_stream stream)
{
    kolo_status status = kolo__device_enter(device);
    if (status != KOLO_OK)
        return status;
    status = kolo__driver_check(device->driver->cuEventRecord((CUevent)event, stream),
                                "recording an event on GPU %d", device->ordinal);
    kolo__device_leave(device);
    return status;
}

kolo_status kolo__cuda_stream_wait(struct kolo__device *device, kolo__device_stream stream,
                                   kolo__device_event event)
{
    kolo_status status = kolo__device_enter(device);
    if (status != KOLO_OK)
        return status;
    status = kolo__driver_check(device->driver->cuStreamWaitEvent(stream, (CUevent)event, 0),
                                "letting a stream of GPU %d wait", device->ordinal);
    kolo__device_leave(device);
    return status;
}

kolo_status kolo__cuda_event_query(struct kolo__device *device, kolo__device_event event)
{
    /* Another thread may be capturing a graph in the mode that forbids everybody such questions,
     * and would lose it. The event is none of that graph's. */
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    kolo_status status = kolo__device_enter(device);
    if (status != KOLO_OK)
        return status;
    device->driver->cuThreadExchangeStreamCaptureMode(&mode);
    CUresult result = device->driver->cuEventQuery((CUevent)event);
    device->driver->cuThreadExchangeStreamCaptureMode(&mode);
    kolo__device_leave(device);
    if (result == CUDA_ERROR_NOT_READY)
        return KOLO_AGAIN;
    return kolo__driver_check(result, "asking how far GPU %d is", device->ordinal);
}

/* ---- memory --------------------------------------------------------------------------------- */

kolo_status kolo__cuda_alloc(struct kolo__device *device, size_t bytes, void **memory)
{
    CUdeviceptr made = 0;
    *memory = NULL;
    kolo_status status = kolo__device_enter(device);
    if (status != KOLO_OK)
        return status;
    status = kolo__driver_check(device->driver->cuMemAlloc(&made, bytes > 0 ? bytes : 1),
                                "allocating %zu bytes on GPU %d", bytes, device->ordinal);
    kolo__device_leave(device);
    *memory = (void *)(uintptr_t)made;
    return status;
}

void kolo__cuda_free(struct kolo__device *device, void *memory)
{
    if (memory == NULL || kolo__device_enter(device) != KOLO_OK)
        return;
    device->driver->cuMemFree(address_of(memory));
    kolo__device_leave(device);
}

kolo_status kolo__cuda_host_alloc(struct kolo__device *device, size_t bytes, void **memory)
{
    *memory = NULL;
    kolo_status status = kolo__device_enter(device);
    if (status != KOLO_OK)
        return status;
    status = kolo__driver_check(
        device->driver->cuMemHostAlloc(memory, bytes > 0 ? bytes : 1, CU_MEMHOSTALLOC_PORTABLE),
        "allocating %zu pinned bytes of the host for GPU %d", bytes, device->ordinal);
    kolo__device_leave(device);
    return status;
}

void kolo__cuda_host_free(struct kolo__device *device, void *memory)
{
    if (memory == NULL || kolo__device_enter(device) != KOLO_OK)
        return;
    device->driver->cuMemFreeHost(memory);
    kolo__device_leave(device);
}

kolo_status kolo__cuda_host_register(struct kolo__device *device, void *memory, size_t bytes)
{
    kolo_status status = kolo__device_enter(device);
    if (status != KOLO_OK)
        return status;
    CUresult result = device->driver->cuMemHostRegister(memory, bytes, CU_MEMHOSTREGISTER_PORTABLE);
    kolo__device_leave(device);
    return kolo__driver_check(result, "pinning %zu bytes for GPU %d", bytes, device->ordinal);
}

void kolo__cuda_host_unregister(struct kolo__device *device, void *memory)
{
    if (memory == NULL || kolo__device_enter(device) != KOLO_OK)
        return;
    device->driver->cuMemHostUnregister(memory);
    kolo__device_leave(device);
}

kolo_status kolo__cuda_copy(struct kolo__device *device, void *to, const void *from, size_t bytes,
                            kolo__device_stream stream)
{
    if (bytes == 0)
        return KOLO_OK;
    kolo_status status = kolo__device_enter(device);
    if (status != KOLO_OK)
        return status;
    CUresult result =
        device->driver->cuMemcpyAsync(address_of(to), address_of(from), bytes, stream);
    kolo__device_leave(device);
    return kolo__driver_check(result, "copying %zu bytes by GPU %d", bytes, device->ordinal);
}

kolo_status kolo__cuda_zero(struct kolo__device *device, void *memory, size_t bytes,
                            kolo__device_stream stream)
{
    if (bytes == 0)
        return KOLO_OK;
    kolo_status status = kolo__device_enter(device);
    if (status != KOLO_OK)
        return status;
    CUresult result = device->driver->cuMemsetD8Async(address_of(memory), 0, bytes, stream);
    kolo__device_leave(device);
    return kolo__driver_check(result, "zeroing %zu bytes on GPU %d", bytes, device->ordinal);
}

/* ---- memory that others map ------------------------------------------------------------------ */

_Static_assert(sizeof(CUipcMemHandle) <= sizeof(((struct kolo__device_handle *)0)->opaque),
               "a handle has room");

kolo_status kolo__cuda_share(struct kolo__device *device, const void *memory,
                             struct kolo__device_handle *handle)
{
    CUdeviceptr base = 0;
    CUipcMemHandle opaque;
    size_t bytes = 0;
    kolo_status status = kolo__device_enter(device);
    if (status != KOLO_OK)
        return status;
    CUresult result = device->driver->cuMemGetAddressRange(&base, &bytes, address_of(memory));
    if (result == CUDA_SUCCESS)
        result = device->driver->cuIpcGetMemHandle(&opaque, base);
    kolo__device_leave(device);
    if (result == CUDA_ERROR_INVALID_VALUE) /* of a pool, managed, or mapped itself */
        result = CUDA_ERROR_NOT_SUPPORTED;
    if (result == CUDA_SUCCESS) {
        memset(handle, 0, sizeof *handle);
        memcpy(handle->opaque, &opaque, sizeof opaque);
        handle->offset = address_of(memory) - base;
        handle->bytes = bytes - handle->offset;
    }
    return kolo__driver_check(result, "sharing memory of GPU %d with other processes",
                              device->ordinal);
}

kolo_status kolo__cuda_map(struct kolo__device *device, const struct kolo__device_handle *handle,
                           void **memory)
{
    CUdeviceptr base = 0;
    CUipcMemHandle opaque;
    *memory = NULL;
    memcpy(&opaque, handle->opaque, sizeof opaque);
    kolo_status status = kolo__device_enter(device);
    if (status != KOLO_OK)
        return status;
    CUresult result =
        device->driver->cuIpcOpenMemHandle(&base, opaque, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
    kolo__device_leave(device);
    if (result == CUDA_SUCCESS)
        *memory = (void *)(uintptr_t)(base + handle->offset);
    return kolo__driver_check(result, "mapping another process's memory on GPU %d",
                              device->ordinal);
}

void kolo__cuda_unmap(struct kolo__device *device, void *memory,
                      const struct kolo__device_handle *handle)
{
    if (memory == NULL || kolo__device_enter(device) != KOLO_OK)
        return;
    device->driver->cuIpcCloseMemHandle(address_of(memory) - handle->offset);
    kolo__device_leave(device);
}

kolo_status kolo__cuda_dma_buf(struct kolo__device *device, const void *memory, size_t bytes,
                               int *fd, uint64_t *offset)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t begin = address_of(memory) & ~(page - 1);
    uint64_t end = (address_of(memory) + bytes + page - 1) & ~(page - 1);
    *fd = -1;
    if (device->driver->cuMemGetHandleForAddressRange == NULL)
        return kolo__services.error(KOLO_ERR_UNSUPPORTED,
                                    "the NVIDIA driver is too old to give memory of GPU %d to "
                                    "network cards (dma-buf: CUDA 11.7 or later)",
                                    device->ordinal);
    kolo_status status = kolo__device_enter(device);
    if (status != KOLO_OK)
        return status;
    CUresult result = device->driver->cuMemGetHandleForAddressRange(
        fd, begin, end - begin, CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD, 0);
    kolo__device_leave(device);
    *offset = address_of(memory) - begin;
    return kolo__driver_check(result, "giving memory of GPU %d to network cards (dma-buf)",
                              device->ordinal);
}

/* What such a handle of the older kind can be had of is one allocation that nobody maps anew, which
 * is what a registration wants as well. Its number is not used again for a later one. */
bool kolo__cuda_extent(const void *memory, struct kolo__device_extent *extent)
{
    const struct kolo__driver *driver = kolo__driver_if_loaded();
    CUmemorytype type = (CUmemorytype)0;
    unsigned managed = 0, shareable = 0;
    unsigned long long number = 0;
    CUdeviceptr begin = 0;
    size_t bytes = 0;
    CUpointer_attribute wanted[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                                    CU_POINTER_ATTRIBUTE_IS_MANAGED,
                                    CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE,
                                    CU_POINTER_ATTRIBUTE_BUFFER_ID,
                                    CU_POINTER_ATTRIBUTE_RANGE_START_ADDR,
                                    CU_POINTER_ATTRIBUTE_RANGE_SIZE};
    void *found[] = {&type, &managed, &shareable, &number, &begin, &bytes};
    if (driver == NULL ||
        driver->cuPointerGetAttributes(6, wanted, found, address_of(memory)) != CUDA_SUCCESS ||
        type != CU_MEMORYTYPE_DEVICE || managed != 0 || shareable == 0 || number == 0 ||
        begin == 0 || bytes == 0)
        return false;
    *extent = (struct kolo__device_extent){
        .memory = (void *)(uintptr_t)begin, .bytes = bytes, .number = number};
    return true;
}

kolo_status kolo__cuda_flush_writes(struct kolo__device *device)
{
    if (device->orders_writes)
        return KOLO_OK;
    if (!device->flushes_writes)
        return kolo__services.error(KOLO_ERR_UNSUPPORTED,
                                    "GPU %d cannot tell when it sees what network cards have "
                                    "written",
                                    device->ordinal);
    kolo_status status = kolo__device_enter(device);
    if (status != KOLO_OK)
        return status;
    CUresult result = device->driver->cuFlushGPUDirectRDMAWrites(
        CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TARGET_CURRENT_CTX,
        CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_OWNER);
    kolo__device_leave(device);
    return kolo__driver_check(result, "waiting for what network cards write to GPU %d",
                              device->ordinal);
}
