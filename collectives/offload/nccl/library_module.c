/* SPDX-License-Identifier: Apache-2.0 */
/* See library.h. */
#include "collectives/offload/nccl/library.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

struct kolo__nccl_functions kolo__nccl;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct kolo__nccl_library opened; /* version 0: not yet */

static void name_version(int version, char *text, size_t bytes)
{
    if (version < 10000) /* before 2.9 */
        snprintf(text, bytes, "%d.%d.%d", version / 1000, version % 1000 / 100, version % 100);
    else
        snprintf(text, bytes, "%d.%d.%d", version / 10000, version % 10000 / 100, version % 100);
}

/* ---- opening -------------------------------------------------------------------------------- */

static void *find(void *handle, const char *name, char *missing, size_t bytes)
{
    void *found = dlsym(handle, name);
    if (found == NULL && missing != NULL)
        snprintf(missing + strlen(missing), bytes - strlen(missing), "%s%s",
                 missing[0] != '\0' ? ", " : "", name);
    return found;
}

/* The version first: it says why functions are missing. */
static kolo_status check_version(void *handle, const char *path, int *version, char *why)
{
    char text[32] = "", least[32];
    __typeof__(&ncclGetVersion) get_version;
    void *found = dlsym(handle, "ncclGetVersion");
    memcpy(&get_version, &found, sizeof get_version);
    if (found == NULL || get_version(version) != ncclSuccess) {
        snprintf(why, KOLO__NCCL_WHY_BYTES, "%.150s is no NCCL: it has no ncclGetVersion%s", path,
                 found != NULL ? " that works" : "");
        return KOLO_ERR_UNSUPPORTED;
    }
    name_version(*version, text, sizeof text);
    name_version(KOLO__NCCL_VERSION_LEAST, least, sizeof least);
    if (*version < KOLO__NCCL_VERSION_LEAST) {
        snprintf(why, KOLO__NCCL_WHY_BYTES, "NCCL %s is too old: install %s or later (%.120s)",
                 text, least, path);
        return KOLO_ERR_UNSUPPORTED;
    }
    /* Types may differ then. */
    if (*version / 10000 != NCCL_MAJOR) {
        snprintf(why, KOLO__NCCL_WHY_BYTES,
                 "NCCL %s is another one than kolo was built with, %d: install NCCL %d (%.100s)",
                 text, NCCL_MAJOR, NCCL_MAJOR, path);
        return KOLO_ERR_UNSUPPORTED;
    }
    return KOLO_OK;
}

static kolo_status resolve(void *handle, const char *path, char *why)
{
    char missing[160] = "";
#define NAME_OF(function) #function
#define REQUIRE(function)                                                                          \
    {                                                                                              \
        void *found = find(handle, NAME_OF(function), missing, sizeof missing);                    \
        memcpy(&kolo__nccl.function, &found, sizeof found);                                        \
    }
#define TAKE(function)                                                                             \
    {                                                                                              \
        void *found = find(handle, NAME_OF(function), NULL, 0);                                    \
        memcpy(&kolo__nccl.function, &found, sizeof found);                                        \
    }
    KOLO__NCCL_FUNCTIONS(REQUIRE)
    KOLO__NCCL_OPTIONAL_FUNCTIONS(TAKE)
    if (missing[0] == '\0')
        return KOLO_OK;
    snprintf(why, KOLO__NCCL_WHY_BYTES, "%.80s lacks %.150s", path, missing);
    return KOLO_ERR_UNSUPPORTED;
}

static kolo_status open_first(const char *path, char *why)
{
    const char *file = path[0] != '\0' ? path : "libnccl.so.2";
    int version = 0;
    Dl_info info;
    void *handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        snprintf(why, KOLO__NCCL_WHY_BYTES, "no NCCL (%.230s)", dlerror());
        return KOLO_ERR_UNSUPPORTED;
    }
    void *anchor = dlsym(handle, "ncclGetVersion");
    if (anchor != NULL && dladdr(anchor, &info) != 0 && info.dli_fname != NULL)
        file = info.dli_fname;
    kolo_status status = check_version(handle, file, &version, why);
    if (status == KOLO_OK)
        status = resolve(handle, file, why);
    if (status != KOLO_OK) {
        dlclose(handle);
        return status;
    }
    opened = (struct kolo__nccl_library){
        .version = version,
        .header_version = NCCL_VERSION_CODE,
        .shrinks = kolo__nccl.ncclCommShrink != NULL,
        .has_windows = version >= KOLO__NCCL_VERSION_WINDOWS &&
                       kolo__nccl.ncclCommWindowRegister != NULL &&
                       kolo__nccl.ncclCommWindowDeregister != NULL,
    };
    snprintf(opened.path, sizeof opened.path, "%s", file);
    return KOLO_OK;
}

kolo_status kolo__nccl_open_library(const char *path, struct kolo__nccl_library *library, char *why)
{
    kolo_status status = KOLO_OK;
    pthread_mutex_lock(&lock);
    if (opened.version == 0)
        status = open_first(path, why);
    *library = opened;
    pthread_mutex_unlock(&lock);
    return status;
}

/* ---- errors --------------------------------------------------------------------------------- */

static kolo_status meaning_of(ncclResult_t result)
{
    switch (result) {
    case ncclSuccess:
    case ncclInProgress:
        return KOLO_OK;
    case ncclInvalidArgument:
    case ncclInvalidUsage:
        return KOLO_ERR_INVALID;
    case ncclSystemError:
    case ncclRemoteError:
        return KOLO_ERR_NETWORK;
    default:
        return KOLO_ERR_DEVICE;
    }
}

kolo_status kolo__nccl_check(ncclResult_t result, ncclComm_t comm, const char *doing, char *why)
{
    kolo_status status = meaning_of(result);
    if (status == KOLO_OK)
        return KOLO_OK;
    const char *name = kolo__nccl.ncclGetErrorString(result);
    const char *last = kolo__nccl.ncclGetLastError(comm);
    snprintf(why, KOLO__NCCL_WHY_BYTES, "%s: %s%s%.140s", doing, name,
             last != NULL && last[0] != '\0' ? ": " : "", last != NULL ? last : "");
    for (char *at = why; *at != '\0'; at++)
        if (*at == '\n')
            *at = ' '; /* NCCL's texts have several lines */
    return status;
}

kolo_status kolo__nccl_no_memory(char *why)
{
    snprintf(why, KOLO__NCCL_WHY_BYTES, "no memory");
    return KOLO_ERR_MEMORY;
}

/* ---- the current GPU ------------------------------------------------------------------------ */

/* Of the driver, whose header belongs to the CUDA module; results are 0 for success. */
static struct {
    int (*device_get)(int *device, int ordinal);
    int (*primary_retain)(void **context, int device);
    int (*push)(void *context);
    int (*pop)(void **context);
} driver;

/* Primary contexts, by ordinal. Never given back: communicators' kernels are in them. */
enum { DEVICES_MAX = 64 };
static void *contexts[DEVICES_MAX];

/* Under the lock. */
static bool find_driver(void)
{
    static const char *const NAMES[] = {"cuDeviceGet", "cuDevicePrimaryCtxRetain",
                                        "cuCtxPushCurrent_v2", "cuCtxPopCurrent_v2"};
    void *functions[sizeof NAMES / sizeof *NAMES];
    if (driver.pop != NULL)
        return true;
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return false;
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        functions[i] = dlsym(library, NAMES[i]);
        if (functions[i] == NULL)
            return false;
    }
    _Static_assert(sizeof driver == sizeof functions, "one member for each name");
    memcpy(&driver, functions, sizeof driver);
    return true;
}

void *kolo__nccl_enter(int ordinal)
{
    int device;
    if (ordinal < 0 || ordinal >= DEVICES_MAX)
        return NULL;
    pthread_mutex_lock(&lock);
    if (contexts[ordinal] == NULL && find_driver() && driver.device_get(&device, ordinal) == 0 &&
        driver.primary_retain(&contexts[ordinal], device) != 0)
        contexts[ordinal] = NULL;
    void *context = contexts[ordinal];
    pthread_mutex_unlock(&lock);
    return context != NULL && driver.push(context) == 0 ? context : NULL;
}

void kolo__nccl_leave(void *entered)
{
    void *popped;
    if (entered != NULL)
        driver.pop(&popped);
}
