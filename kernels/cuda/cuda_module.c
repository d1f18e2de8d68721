/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libkolo-cuda.so: what kernels/device.h asks for, by the CUDA driver. This file: GPUs, plans and
 * the launches of packing kernels; reduce_module.c: those of reductions; memory_module.c: streams,
 * events and memory; driver_module.c: the driver.
 */
#include "kernels/cuda/forms.h"
#include "kernels/cuda/memory_module.h"
#include "kernels/cuda/reduce_module.h"
#include "kernels/cuda/tables.h"
#include "kernels/cuda/total.h"
#include "kernels/cuda/walk.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

_Static_assert(sizeof(struct walk_segment) == sizeof(struct kolo__segment), "one table");
_Static_assert(sizeof(struct walk_partial) == sizeof(struct kolo__device_partial), "one partial");
_Static_assert(sizeof(struct totals) == sizeof(struct kolo__device_total), "one total");
_Static_assert(sizeof(struct scales) == sizeof(struct kolo__device_scale), "one scale");
_Static_assert(WALK_THREADS *WALK_TURNS == KOLO__DEVICE_TILE_VECTORS, "one tile");
_Static_assert((int)FORMAT_E5M2 == (int)KOLO__NARROW_E5M2 && (int)FORMAT_FP16 == 0,
               "wires are formats");

struct kolo__device_plan {
    struct kolo__device *device;
    struct kolo__packing packing;
    struct walk rows[2]; /* WALK_PACK, WALK_UNPACK: what does not change from run to run */
    void *tables;
};

static void attach(const struct kolo__device_services *services)
{
    kolo__services = *services;
}

/* ---- GPUs ----------------------------------------------------------------------------------- */

static pthread_mutex_t devices_lock = PTHREAD_MUTEX_INITIALIZER;
static struct kolo__device *devices[KOLO__DEVICES_MAX];

static int attribute_of(const struct kolo__driver *driver, CUdevice device,
                        CUdevice_attribute which)
{
    int value = 0;
    return driver->cuDeviceGetAttribute(&value, which, device) == CUDA_SUCCESS ? value : 0;
}

static void describe(const struct kolo__driver *driver, int ordinal,
                     struct kolo__device_description *description)
{
    CUdevice device;
    if (driver->cuDeviceGet(&device, ordinal) != CUDA_SUCCESS)
        return;
    driver->cuDeviceGetName(description->name, sizeof description->name, device);
    driver->cuDeviceGetPCIBusId(description->bus_id, sizeof description->bus_id, device);
    driver->cuDeviceTotalMem(&description->bytes, device);
    description->major = attribute_of(driver, device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
    description->minor = attribute_of(driver, device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
    description->processors =
        attribute_of(driver, device, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    description->integrated = attribute_of(driver, device, CU_DEVICE_ATTRIBUTE_INTEGRATED) != 0;
    description->dma_buf = driver->cuMemGetHandleForAddressRange != NULL &&
                           attribute_of(driver, device, CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED) != 0;
}

static kolo_status survey(struct kolo__device_survey *survey)
{
    const struct kolo__driver *driver;
    memset(survey, 0, sizeof *survey);
    survey->toolkit_version = CUDA_VERSION;
    snprintf(survey->architectures, sizeof survey->architectures, "%s", KOLO_CUDA_ARCHITECTURES);
    kolo_status status = kolo__driver_open(&driver);
    survey->driver_version = driver->version;
    if (status == KOLO_OK)
        status = kolo__driver_check(driver->cuDeviceGetCount(&survey->count), "counting the GPUs");
    for (int i = 0; status == KOLO_OK && i < survey->count && i < KOLO__DEVICES_MAX; i++)
        describe(driver, i, &survey->devices[i]);
    return status;
}

static kolo_status make_device(const struct kolo__driver *driver, int ordinal,
                               struct kolo__device **result)
{
    struct kolo__device *device = calloc(1, sizeof *device);
    if (device == NULL)
        return kolo__services.error(KOLO_ERR_MEMORY, "no memory for what is known of GPU %d",
                                    ordinal);
    device->driver = driver;
    device->ordinal = ordinal;
    kolo_status status = kolo__driver_check(driver->cuDeviceGet(&device->device, ordinal),
                                            "finding GPU %d", ordinal);
    if (status == KOLO_OK)
        status =
            kolo__driver_check(driver->cuDevicePrimaryCtxRetain(&device->context, device->device),
                               "taking the primary context of GPU %d", ordinal);
    device->orders_writes =
        attribute_of(driver, device->device, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING) >=
        CU_GPU_DIRECT_RDMA_WRITES_ORDERING_OWNER;
    device->flushes_writes =
        driver->cuFlushGPUDirectRDMAWrites != NULL &&
        (attribute_of(driver, device->device,
                      CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS) &
         CU_FLUSH_GPU_DIRECT_RDMA_WRITES_OPTION_HOST) != 0;
    if (status == KOLO_OK)
        status = kolo__device_enter(device);
    if (status == KOLO_OK) {
        status = kolo__kernels_load(device);
        kolo__device_leave(device);
    }
    if (status != KOLO_OK) {
        free(device); /* the context stays retained: it may be somebody's who goes on */
        return status;
    }
    *result = device;
    return KOLO_OK;
}

static kolo_status open_device(int ordinal, struct kolo__device **device)
{
    const struct kolo__driver *driver;
    *device = NULL;
    if (ordinal < 0 || ordinal >= KOLO__DEVICES_MAX)
        return kolo__services.error(KOLO_ERR_INVALID, "there is no GPU %d: give 0 to %d", ordinal,
                                    KOLO__DEVICES_MAX - 1);
    kolo_status status = kolo__driver_open(&driver);
    if (status != KOLO_OK)
        return status;
    pthread_mutex_lock(&devices_lock);
    if (devices[ordinal] == NULL)
        status = make_device(driver, ordinal, &devices[ordinal]);
    *device = devices[ordinal];
    pthread_mutex_unlock(&devices_lock);
    return status;
}

static kolo_status ordinal_of_stream(kolo__device_stream stream, int *ordinal)
{
    const struct kolo__driver *driver;
    CUcontext context = NULL, before;
    CUdevice device = 0;
    *ordinal = -1;
    kolo_status status = kolo__driver_open(&driver);
    if (status != KOLO_OK)
        return status;
    CUresult result = CUDA_SUCCESS;
    if (stream == NULL) {
        result = driver->cuCtxGetDevice(&device);
    } else {
        result = driver->cuStreamGetCtx(stream, &context);
        if (result == CUDA_SUCCESS)
            result = driver->cuCtxPushCurrent(context);
        if (result == CUDA_SUCCESS) {
            result = driver->cuCtxGetDevice(&device);
            driver->cuCtxPopCurrent(&before);
        }
    }
    if (result == CUDA_SUCCESS)
        *ordinal = device;
    return kolo__driver_check(result, "finding the GPU of a stream");
}

/* ---- plans ---------------------------------------------------------------------------------- */

enum { UPLOAD_MS = 5000 };

/* Both rows in one allocation: segments, tiles, segments, tiles, each aligned to 256 bytes. */
static size_t aligned(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

static CUresult copy_rows(struct kolo__device_plan *plan, const struct kolo__row rows[2],
                          const size_t segment_bytes[2], const size_t tile_bytes[2],
                          kolo__device_stream stream)
{
    const struct kolo__driver *driver = plan->device->driver;
    CUdeviceptr at = (CUdeviceptr)(uintptr_t)plan->tables;
    CUresult result = CUDA_SUCCESS;
    for (int r = 0; r < 2; r++) {
        plan->rows[r] = (struct walk){.segments = at,
                                      .tiles = at + aligned(segment_bytes[r]),
                                      .vector_count = rows[r].vector_count,
                                      .segment_count = rows[r].segment_count,
                                      .scale = 1};
        if (segment_bytes[r] > 0 && result == CUDA_SUCCESS)
            result = driver->cuMemcpyHtoDAsync(at, rows[r].segments, segment_bytes[r], stream);
        if (tile_bytes[r] > 0 && result == CUDA_SUCCESS)
            result = driver->cuMemcpyHtoDAsync(plan->rows[r].tiles, rows[r].tiles, tile_bytes[r],
                                               stream);
        at += aligned(segment_bytes[r]) + aligned(tile_bytes[r]);
    }
    return result;
}

/* KOLO_AGAIN: not within the limit. */
static kolo_status await(struct kolo__device *device, kolo__device_event event, int limit_ms)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    kolo_status status = kolo__cuda_event_query(device, event);
    for (int ms = 0; status == KOLO_AGAIN && ms < limit_ms; ms++) {
        nanosleep(&pause, NULL);
        status = kolo__cuda_event_query(device, event);
    }
    return status;
}

/* On a stream of its own: the default one may stand behind work that never ends. */
static kolo_status copy_tables(struct kolo__device_plan *plan, const struct kolo__row rows[2],
                               const size_t segment_bytes[2], const size_t tile_bytes[2])
{
    struct kolo__device *device = plan->device;
    kolo__device_stream stream = NULL;
    kolo__device_event copied = NULL;
    kolo_status status = kolo__cuda_stream_create(device, &stream);
    if (status == KOLO_OK)
        status = kolo__cuda_event_create(device, &copied);
    if (status == KOLO_OK)
        status = kolo__device_enter(device);
    if (status == KOLO_OK) {
        CUresult result = copy_rows(plan, rows, segment_bytes, tile_bytes, stream);
        kolo__device_leave(device);
        status = kolo__driver_check(result, "copying a plan's tables to GPU %d", device->ordinal);
    }
    if (status == KOLO_OK)
        status = kolo__cuda_event_record(device, copied, stream);
    if (status == KOLO_OK)
        status = await(device, copied, UPLOAD_MS);
    if (status == KOLO_AGAIN) {
        plan->tables = NULL; /* left: giving it back would wait as well */
        status = kolo__services.error(KOLO_ERR_TIMEOUT,
                                      "copying a plan's tables to GPU %d was not done within %d "
                                      "ms: is it stuck?",
                                      device->ordinal, UPLOAD_MS);
    }
    kolo__cuda_event_destroy(device, copied);
    kolo__cuda_stream_destroy(device, stream);
    return status;
}

static kolo_status upload(struct kolo__device_plan *plan, const struct kolo__row rows[2])
{
    size_t segment_bytes[2], tile_bytes[2], total = 0;
    for (int r = 0; r < 2; r++) {
        segment_bytes[r] = rows[r].segment_count * sizeof *rows[r].segments;
        tile_bytes[r] = rows[r].tile_count * sizeof *rows[r].tiles;
        total += aligned(segment_bytes[r]) + aligned(tile_bytes[r]);
    }
    kolo_status status = kolo__cuda_alloc(plan->device, total, &plan->tables);
    return status == KOLO_OK ? copy_tables(plan, rows, segment_bytes, tile_bytes) : status;
}

static void plan_destroy(struct kolo__device_plan *plan)
{
    if (plan == NULL)
        return;
    kolo__cuda_free(plan->device, plan->tables);
    free(plan);
}

static kolo_status plan_create(struct kolo__device *device,
                               const struct kolo__device_layout *layout,
                               struct kolo__device_plan **result)
{
    struct kolo__row rows[2] = {{0}};
    size_t tensor;
    const char *problem = kolo__layout_problem(layout, &tensor);
    *result = NULL;
    if (problem != NULL)
        return kolo__services.error(
            KOLO_ERR_INVALID, "a plan to pack cannot be made: tensor %zu: %s", tensor, problem);
    struct kolo__device_plan *plan = calloc(1, sizeof *plan);
    kolo_status status = KOLO_OK;
    if (plan == NULL || !kolo__row_create(layout, false, &rows[0]) ||
        !kolo__row_create(layout, true, &rows[1])) {
        status = KOLO_ERR_MEMORY;
        kolo__services.error(status, "no memory for a plan to pack %zu tensors",
                             layout->tensor_count);
    } else {
        plan->device = device;
        plan->packing = layout->packing;
        status = upload(plan, rows);
    }
    kolo__row_free(&rows[0]);
    kolo__row_free(&rows[1]);
    if (status == KOLO_OK)
        *result = plan;
    else if (plan != NULL && plan->device != NULL)
        plan_destroy(plan);
    else
        free(plan);
    return status;
}

/* ---- launches ------------------------------------------------------------------------------- */

static kolo_status launch_walk(struct kolo__device *device, const struct kolo__packing *packing,
                               enum walk_kind kind, struct walk *walk, kolo__device_stream stream)
{
    int form = kolo__form_index((int)packing->dtype, packing->narrows, (int)packing->wire);
    uint64_t blocks =
        (walk->vector_count + KOLO__DEVICE_TILE_VECTORS - 1) / KOLO__DEVICE_TILE_VECTORS;
    void *parameters[] = {walk};
    if (blocks == 0)
        return KOLO_OK;
    if (blocks > INT_MAX)
        return kolo__services.error(KOLO_ERR_INVALID, "more than a GPU can pack at once");
    kolo_status status = kolo__device_enter(device);
    if (status != KOLO_OK)
        return status;
    CUresult result =
        device->driver->cuLaunchKernel(device->walks[kind][form], (unsigned)blocks, 1, 1,
                                       WALK_THREADS, 1, 1, 0, stream, parameters, NULL);
    kolo__device_leave(device);
    return kolo__driver_check(result, "starting a kernel on GPU %d", device->ordinal);
}

static kolo_status launch_plan(struct kolo__device_plan *plan, enum walk_kind kind,
                               const struct kolo__device_run *run, kolo__device_stream stream)
{
    struct walk walk = plan->rows[kind];
    if ((uintptr_t)run->fused % KOLO__DEVICE_ALIGNMENT != 0 ||
        (uintptr_t)run->error % KOLO__DEVICE_ALIGNMENT != 0)
        return kolo__services.error(KOLO_ERR_INVALID,
                                    "a fused buffer on a GPU has to be aligned to %d bytes",
                                    KOLO__DEVICE_ALIGNMENT);
    walk.fused = (uintptr_t)run->fused;
    walk.factor = (uintptr_t)run->factor;
    walk.scale = run->scale;
    if (kind == WALK_PACK) {
        walk.error = (uintptr_t)run->error;
        walk.partials = (uintptr_t)run->partials;
    }
    return launch_walk(plan->device, &plan->packing, kind, &walk, stream);
}

static kolo_status pack(struct kolo__device_plan *plan, const struct kolo__device_run *run,
                        kolo__device_stream stream)
{
    return launch_plan(plan, WALK_PACK, run, stream);
}

static kolo_status unpack(struct kolo__device_plan *plan, const struct kolo__device_run *run,
                          kolo__device_stream stream)
{
    return launch_plan(plan, WALK_UNPACK, run, stream);
}

static kolo_status measure(struct kolo__device *device, const struct kolo__packing *packing,
                           const void *fused, size_t count, const double *factor,
                           struct kolo__device_partial *partials, kolo__device_stream stream)
{
    size_t vector = kolo__device_vector(packing);
    struct walk walk = {.vector_count = (count + vector - 1) / vector,
                        .fused = (uintptr_t)fused,
                        .partials = (uintptr_t)partials,
                        .factor = (uintptr_t)factor,
                        .count = count,
                        .scale = packing->scale};
    return launch_walk(device, packing, WALK_MEASURE, &walk, stream);
}

/* A kernel of one block. */
static kolo_status launch_block(struct kolo__device *device, CUfunction kernel, unsigned threads,
                                void **parameters, kolo__device_stream stream)
{
    kolo_status status = kolo__device_enter(device);
    if (status != KOLO_OK)
        return status;
    CUresult result =
        device->driver->cuLaunchKernel(kernel, 1, 1, 1, threads, 1, 1, 0, stream, parameters, NULL);
    kolo__device_leave(device);
    return kolo__driver_check(result, "starting a kernel on GPU %d", device->ordinal);
}

static kolo_status total(struct kolo__device *device, const struct kolo__device_partial *partials,
                         size_t partial_count, double clip_norm, struct kolo__device_total *total,
                         kolo__device_stream stream)
{
    uint64_t count = partial_count;
    void *parameters[] = {&partials, &count, &clip_norm, &total};
    return launch_block(device, device->total, TOTAL_THREADS, parameters, stream);
}

static kolo_status scale_unit(struct kolo__device *device, const struct kolo__device_scaling *given,
                              kolo__device_stream stream)
{
    struct scaling scaling = {.absolute_max = (uintptr_t)given->absolute_max,
                              .clip = (uintptr_t)given->clip,
                              .result = (uintptr_t)given->result,
                              .largest = given->largest,
                              .scale = given->scale,
                              .sum = given->sum};
    void *parameters[] = {&scaling};
    return launch_block(device, device->scale, 1, parameters, stream);
}

const struct kolo__device_module kolo__cuda_module = {
    .version = KOLO__DEVICE_MODULE_VERSION,
    .attach = attach,
    .find = kolo__cuda_find,
    .current = kolo__cuda_current,
    .survey = survey,
    .open = open_device,
    .ordinal_of_stream = ordinal_of_stream,
    .stream_create = kolo__cuda_stream_create,
    .stream_destroy = kolo__cuda_stream_destroy,
    .stream_is_capturing = kolo__cuda_stream_is_capturing,
    .event_create = kolo__cuda_event_create,
    .event_destroy = kolo__cuda_event_destroy,
    .event_record = kolo__cuda_event_record,
    .stream_wait = kolo__cuda_stream_wait,
    .event_query = kolo__cuda_event_query,
    .alloc = kolo__cuda_alloc,
    .free = kolo__cuda_free,
    .host_alloc = kolo__cuda_host_alloc,
    .host_free = kolo__cuda_host_free,
    .host_register = kolo__cuda_host_register,
    .host_unregister = kolo__cuda_host_unregister,
    .copy = kolo__cuda_copy,
    .zero = kolo__cuda_zero,
    .plan_create = plan_create,
    .plan_destroy = plan_destroy,
    .pack = pack,
    .unpack = unpack,
    .measure = measure,
    .total = total,
    .choose_scale = scale_unit,
    .reduce = kolo__cuda_reduce,
    .sum_narrow = kolo__cuda_sum_narrow,
    .exchange = kolo__cuda_exchange,
    .share = kolo__cuda_share,
    .map = kolo__cuda_map,
    .unmap = kolo__cuda_unmap,
    .dma_buf = kolo__cuda_dma_buf,
    .extent = kolo__cuda_extent,
    .flush_writes = kolo__cuda_flush_writes,
};
