/* SPDX-License-Identifier: Apache-2.0 */
/* See driver.h. */
#include "kernels/cuda/driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

struct kolo__device_services kolo__services;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct kolo__driver driver;
static _Atomic bool resolved; /* driver's functions are there */
static bool begun;

enum { VERSION_LEAST = 11020 };

/* Under the lock. why: of what is missing. */
static bool resolve(int flags, char *why, size_t bytes)
{
    if (atomic_load(&resolved))
        return true;
    void *library = dlopen("libcuda.so.1", RTLD_NOW | flags);
    if (library == NULL) {
        snprintf(why, bytes, "no NVIDIA driver (%s)",
                 (flags & RTLD_NOLOAD) == 0 ? dlerror() : "not loaded");
        return false;
    }
#define NAME_OF(function) #function
#define RESOLVE(function)                                                                          \
    {                                                                                              \
        void *found = dlsym(library, NAME_OF(function));                                           \
        if (found == NULL) {                                                                       \
            snprintf(why, bytes,                                                                   \
                     "the NVIDIA driver is too old: libcuda.so.1 has no %s; install one for CUDA " \
                     "%d.%d or later",                                                             \
                     NAME_OF(function), VERSION_LEAST / 1000, VERSION_LEAST % 1000 / 10);          \
            return false;                                                                          \
        }                                                                                          \
        memcpy(&driver.function, &found, sizeof found);                                            \
    }
    KOLO__DRIVER_FUNCTIONS(RESOLVE)
    void *optional = dlsym(library, "cuMemGetHandleForAddressRange");
    memcpy(&driver.cuMemGetHandleForAddressRange, &optional, sizeof optional);
    optional = dlsym(library, "cuFlushGPUDirectRDMAWrites");
    memcpy(&driver.cuFlushGPUDirectRDMAWrites, &optional, sizeof optional);
    atomic_store(&resolved, true);
    return true;
}

const struct kolo__driver *kolo__driver_if_loaded(void)
{
    char why[256];
    if (!atomic_load(&resolved)) {
        pthread_mutex_lock(&lock);
        bool found = resolve(RTLD_NOLOAD, why, sizeof why);
        pthread_mutex_unlock(&lock);
        if (!found)
            return NULL;
    }
    return &driver;
}

static kolo_status begin(void)
{
    char why[400];
    if (!resolve(0, why, sizeof why))
        return kolo__services.error(KOLO_ERR_UNSUPPORTED, "%s", why);
    CUresult result = driver.cuDriverGetVersion(&driver.version);
    if (result == CUDA_SUCCESS && driver.version < VERSION_LEAST)
        return kolo__services.error(KOLO_ERR_UNSUPPORTED,
                                    "the NVIDIA driver is too old: it is for CUDA %d.%d; install "
                                    "one for CUDA %d.%d or later",
                                    driver.version / 1000, driver.version % 1000 / 10,
                                    VERSION_LEAST / 1000, VERSION_LEAST % 1000 / 10);
    if (result == CUDA_SUCCESS)
        result = driver.cuInit(0);
    if (result == CUDA_ERROR_NO_DEVICE)
        return kolo__services.error(KOLO_ERR_UNSUPPORTED,
                                    "the NVIDIA driver sees no GPU (in a container: start it with "
                                    "GPUs; CUDA_VISIBLE_DEVICES may hide them)");
    return kolo__driver_check(result, "beginning the NVIDIA driver");
}

kolo_status kolo__driver_open(const struct kolo__driver **result)
{
    kolo_status status = KOLO_OK;
    pthread_mutex_lock(&lock);
    if (!begun) {
        status = begin();
        begun = status == KOLO_OK;
    }
    pthread_mutex_unlock(&lock);
    *result = &driver;
    return status;
}

/* These are told by whatever asks next; nothing of the context works afterwards. */
static bool is_of_an_earlier_operation(CUresult result)
{
    switch (result) {
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_LAUNCH_FAILED:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
    case CUDA_ERROR_MISALIGNED_ADDRESS:
    case CUDA_ERROR_INVALID_ADDRESS_SPACE:
    case CUDA_ERROR_INVALID_PC:
    case CUDA_ERROR_HARDWARE_STACK_ERROR:
    case CUDA_ERROR_ASSERT:
    case CUDA_ERROR_ECC_UNCORRECTABLE:
        return true;
    default:
        return false;
    }
}

/* What to do about it; "": the text says enough. */
static const char *remedy(CUresult result)
{
    if (is_of_an_earlier_operation(result))
        return "; this process can use the GPU no more: start it again, under compute-sanitizer if "
               "that comes back; dmesg has what the driver says (Xid)";
    switch (result) {
    case CUDA_ERROR_OUT_OF_MEMORY:
        return "; nvidia-smi shows who has the GPU's memory";
    case CUDA_ERROR_DEINITIALIZED:
    case CUDA_ERROR_DEVICE_UNAVAILABLE:
    case CUDA_ERROR_CONTEXT_IS_DESTROYED:
    case CUDA_ERROR_UNKNOWN:
        return "; this process has lost the GPU or its driver: look at nvidia-smi and dmesg (Xid), "
               "and start it again";
    default:
        return "";
    }
}

kolo_status kolo__driver_check(CUresult result, const char *format, ...)
{
    char doing[200];
    const char *name = NULL, *meaning = NULL;
    va_list arguments;
    if (result == CUDA_SUCCESS)
        return KOLO_OK;
    va_start(arguments, format);
    vsnprintf(doing, sizeof doing, format, arguments);
    va_end(arguments);
    driver.cuGetErrorName(result, &name);
    driver.cuGetErrorString(result, &meaning);
    kolo_status status = result == CUDA_ERROR_OUT_OF_MEMORY   ? KOLO_ERR_MEMORY
                         : result == CUDA_ERROR_NOT_SUPPORTED ? KOLO_ERR_UNSUPPORTED
                                                              : KOLO_ERR_DEVICE;
    return kolo__services.error(status, "%s%s: %s (%s)%s",
                                is_of_an_earlier_operation(result)
                                    ? "an earlier operation on the GPU failed, seen when "
                                    : "",
                                doing, name != NULL ? name : "an unknown error",
                                meaning != NULL ? meaning : "no text", remedy(result));
}
