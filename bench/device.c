/* SPDX-License-Identifier: Apache-2.0 */
/* See device.h. Names and numbers are those of the driver's interface (CUDA 11.2 and later), whose
 * header need not be there. */
#include "bench/device.h"

#include <dlfcn.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NOT_READY = 600, DISABLE_TIMING = 2 };

struct bench_device {
    int (*error_name)(int error, const char **name);
    int (*copy)(uintptr_t to, uintptr_t from, size_t bytes, void *stream);
    int (*allocate)(uintptr_t *memory, size_t bytes);
    int (*give_back)(uintptr_t memory);
    int (*record)(void *event, void *stream);
    int (*query)(void *event);
    void *stream, *event;
};

static kolo_status failed(const struct bench_device *device, int error, const char *doing)
{
    const char *name = "";
    if (device->error_name != NULL)
        device->error_name(error, &name);
    fprintf(stderr, "kolo bench: --alloc cuda: %s: %s (%d)\n", doing, name, error);
    return error == 2 ? KOLO_ERR_MEMORY : KOLO_ERR_DEVICE;
}

/* ISO C has no cast from what dlsym gives. */
static void find(void *driver, const char *name, void *function)
{
    void *found = dlsym(driver, name);
    memcpy(function, &found, sizeof found);
}

/* Makes the GPU's primary context, which kolo uses as well, this thread's. */
static kolo_status begin(struct bench_device *device, void *driver, int local_rank)
{
    int (*init)(unsigned), (*count_of)(int *), (*get)(int *, int), (*retain)(void **, int);
    int (*push)(void *), (*make_stream)(void **, unsigned, int), (*make_event)(void **, unsigned);
    int count = 0, gpu = 0;
    void *context = NULL;
    find(driver, "cuInit", &init);
    find(driver, "cuDeviceGetCount", &count_of);
    find(driver, "cuDeviceGet", &get);
    find(driver, "cuDevicePrimaryCtxRetain", &retain);
    find(driver, "cuCtxPushCurrent_v2", &push);
    find(driver, "cuStreamCreateWithPriority", &make_stream);
    find(driver, "cuEventCreate", &make_event);
    find(driver, "cuGetErrorName", &device->error_name);
    find(driver, "cuMemcpyAsync", &device->copy);
    find(driver, "cuMemAlloc_v2", &device->allocate);
    find(driver, "cuMemFree_v2", &device->give_back);
    find(driver, "cuEventRecord", &device->record);
    find(driver, "cuEventQuery", &device->query);
    if (init == NULL || count_of == NULL || get == NULL || retain == NULL || push == NULL ||
        make_stream == NULL || make_event == NULL || device->error_name == NULL ||
        device->copy == NULL || device->allocate == NULL || device->give_back == NULL ||
        device->record == NULL || device->query == NULL) {
        fprintf(stderr, "kolo bench: --alloc cuda: libcuda.so.1 lacks a function: install a "
                        "driver for CUDA 11.2 or later\n");
        return KOLO_ERR_UNSUPPORTED;
    }
    int error = init(0);
    if (error == 0)
        error = count_of(&count);
    if (error == 0)
        error = get(&gpu, count > 0 ? local_rank % count : 0);
    if (error == 0)
        error = retain(&context, gpu);
    if (error == 0)
        error = push(context);
    if (error == 0)
        error = make_stream(&device->stream, 0, 0);
    if (error == 0)
        error = make_event(&device->event, DISABLE_TIMING);
    return error == 0 ? KOLO_OK : failed(device, error, "taking a GPU");
}

kolo_status bench_device_open(int local_rank, struct bench_device **result)
{
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    *result = NULL;
    if (driver == NULL) {
        fprintf(stderr, "kolo bench: --alloc cuda: there is no NVIDIA driver here (%s)\n",
                dlerror());
        return KOLO_ERR_UNSUPPORTED;
    }
    struct bench_device *device = calloc(1, sizeof *device);
    if (device == NULL)
        return KOLO_ERR_MEMORY;
    kolo_status status = begin(device, driver, local_rank);
    if (status == KOLO_OK)
        *result = device;
    else
        free(device);
    return status;
}

void bench_device_close(struct bench_device *device)
{
    free(device);
}

void *bench_device_stream(const struct bench_device *device)
{
    return device->stream;
}

kolo_status bench_device_allocate(const struct bench_device *device, size_t bytes, void **memory)
{
    uintptr_t address = 0;
    int error = device->allocate(&address, bytes);
    memcpy(memory, &address, sizeof address);
    return error == 0 ? KOLO_OK : failed(device, error, "taking memory: choose a smaller --max");
}

void bench_device_free(const struct bench_device *device, void *memory)
{
    if (memory != NULL)
        device->give_back((uintptr_t)memory);
}

kolo_status bench_device_copy(const struct bench_device *device, void *to, const void *from,
                              size_t bytes)
{
    if (bytes == 0)
        return KOLO_OK;
    int error = device->copy((uintptr_t)to, (uintptr_t)from, bytes, device->stream);
    return error == 0 ? bench_device_wait(device) : failed(device, error, "copying");
}

kolo_status bench_device_wait(const struct bench_device *device)
{
    int error = device->record(device->event, device->stream);
    if (error == 0)
        error = device->query(device->event);
    for (; error == NOT_READY; error = device->query(device->event))
        sched_yield();
    return error == 0 ? KOLO_OK : failed(device, error, "waiting for the GPU");
}
