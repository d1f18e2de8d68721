/* SPDX-License-Identifier: Apache-2.0 */
/* See nccl_module.h: how the module and the library are found. */
#include "base/module.h"
#include "base/status.h"
#include "collectives/offload/nccl_module.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const struct kolo__nccl_module *loaded;
static struct kolo__nccl_library found;
static bool tried;
static kolo_status failure;
static char failure_text[512];

static void load(const char *path)
{
    static const struct kolo__module description = {
        .name = "NCCL",
        .file = "libkolo-nccl.so.0",
        .symbol = "kolo__nccl_module",
        .version = KOLO__NCCL_MODULE_VERSION,
    };
    char why[KOLO__NCCL_WHY_BYTES] = "";
    const void *table = NULL;
    tried = true;
    failure = kolo__module_load(&description, &table);
    if (failure != KOLO_OK) {
        snprintf(failure_text, sizeof failure_text, "%s", kolo_error_text());
        return;
    }
    const struct kolo__nccl_module *module = table;
    failure = module->open(path, &found, why);
    snprintf(failure_text, sizeof failure_text, "%s", why);
    if (failure == KOLO_OK)
        loaded = module;
}

kolo_status kolo__nccl_load(const char *path, const struct kolo__nccl_module **module,
                            struct kolo__nccl_library *library)
{
    pthread_mutex_lock(&lock);
    if (!tried)
        load(path);
    *module = loaded;
    if (library != NULL)
        *library = found;
    kolo_status status = failure;
    pthread_mutex_unlock(&lock);
    return status == KOLO_OK ? KOLO_OK : kolo__error(status, "%s", failure_text);
}
