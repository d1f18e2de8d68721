/* SPDX-License-Identifier: Apache-2.0 */
/* See device.h: how the module is found, and which memory is a GPU's. */
#include "kernels/device.h"

#include "base/clock.h"
#include "base/module.h"
#include "base/status.h"

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* Written under the lock; the module is read without it, and set once. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic(const struct kolo__device_module *) loaded;
static bool tried;
static kolo_status failure;
static char failure_text[512];

static const struct kolo__device_services services = {.error = kolo__error};

kolo_status kolo__device_load(const struct kolo__device_module **module)
{
    static const struct kolo__module description = {
        .name = "CUDA",
        .file = "libkolo-cuda.so.0",
        .symbol = "kolo__cuda_module",
        .version = KOLO__DEVICE_MODULE_VERSION,
    };
    *module = atomic_load_explicit(&loaded, memory_order_acquire);
    if (*module != NULL)
        return KOLO_OK;
    pthread_mutex_lock(&lock);
    const void *table = NULL;
    if (!tried) {
        tried = true;
        failure = kolo__module_load(&description, &table);
        if (failure == KOLO_OK) {
            const struct kolo__device_module *found = table;
            found->attach(&services);
            atomic_store_explicit(&loaded, found, memory_order_release);
        } else {
            snprintf(failure_text, sizeof failure_text, "%s", kolo_error_text());
        }
    }
    *module = atomic_load_explicit(&loaded, memory_order_acquire);
    kolo_status status = failure;
    pthread_mutex_unlock(&lock);
    return status == KOLO_OK ? KOLO_OK : kolo__error(status, "%s", failure_text);
}

kolo_status kolo__device_await(const struct kolo__device_module *module,
                               struct kolo__device *device, kolo__device_event event,
                               uint64_t limit_ms)
{
    const struct timespec pause = {.tv_nsec = 50000};
    uint64_t deadline_ns = kolo__now_ns(&kolo__real_clock) + limit_ms * 1000000;
    kolo_status status = module->event_query(device, event);
    while (status == KOLO_AGAIN && kolo__now_ns(&kolo__real_clock) < deadline_ns) {
        nanosleep(&pause, NULL);
        status = module->event_query(device, event);
    }
    return status;
}

static int take_loads(struct dl_phdr_info *info, size_t bytes, void *loads)
{
    (void)bytes;
    *(unsigned long long *)loads = info->dlpi_adds;
    return 1; /* the same in all of them */
}

/* A GPU's memory is that of somebody who has loaded its driver. Looked for again only when the
 * process has loaded something since; otherwise that takes some 10 ns, and no memory. */
static bool process_has_driver(void)
{
    static _Atomic unsigned long long loads_seen;
    unsigned long long loads = 0;
    dl_iterate_phdr(take_loads, &loads);
    if (loads == atomic_load_explicit(&loads_seen, memory_order_relaxed))
        return false;
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    if (driver == NULL) {
        atomic_store_explicit(&loads_seen, loads, memory_order_relaxed);
        return false;
    }
    dlclose(driver); /* only counts */
    return true;
}

bool kolo__device_is_loaded(void)
{
    return atomic_load_explicit(&loaded, memory_order_acquire) != NULL;
}

void kolo__memory_find(const void *memory, struct kolo__memory_place *place)
{
    const struct kolo__device_module *module = atomic_load_explicit(&loaded, memory_order_acquire);
    *place = (struct kolo__memory_place){.kind = KOLO_MEMORY_HOST, .ordinal = -1};
    if (module == NULL && (!process_has_driver() || kolo__device_load(&module) != KOLO_OK))
        return;
    module->find(memory, place);
}

const char *kolo_memory_kind_name(kolo_memory_kind kind)
{
    static const char *const names[KOLO_MEMORY_KIND_COUNT] = {
        [KOLO_MEMORY_HOST] = "host",
        [KOLO_MEMORY_PINNED] = "pinned",
        [KOLO_MEMORY_DEVICE] = "device",
        [KOLO_MEMORY_MANAGED] = "managed",
    };
    return (unsigned)kind < KOLO_MEMORY_KIND_COUNT ? names[kind] : NULL;
}

kolo_memory_kind kolo_memory_find(const void *memory, int *device)
{
    struct kolo__memory_place place;
    kolo__memory_find(memory, &place);
    if (device != NULL)
        *device = place.ordinal;
    return place.kind;
}
