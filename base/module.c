/* SPDX-License-Identifier: Apache-2.0 */
/* See module.h. */
#include "base/module.h"

#include "base/status.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The folder of the object that this code is in: libkolo.so, or a program that has all of it. */
static void find_folder(char *folder, size_t bytes)
{
    static const char anchor;
    Dl_info info;
    folder[0] = '\0';
    if (dladdr(&anchor, &info) == 0 || info.dli_fname == NULL)
        return;
    const char *slash = strrchr(info.dli_fname, '/');
    if (slash != NULL)
        snprintf(folder, bytes, "%.*s", (int)(slash - info.dli_fname), info.dli_fname);
}

static void *open_file(const struct kolo__module *module)
{
    char folder[PATH_MAX], path[PATH_MAX + 64];
    int flags = RTLD_NOW | (module->global ? RTLD_GLOBAL : RTLD_LOCAL);
    find_folder(folder, sizeof folder);
    for (size_t i = 0; i < 2 && folder[0] != '\0'; i++) {
        snprintf(path, sizeof path, i == 0 ? "%s/%s" : "%s/../lib/%s", folder, module->file);
        if (access(path, R_OK) == 0)
            return dlopen(path, flags);
    }
    return dlopen(module->file, flags);
}

kolo_status kolo__module_load(const struct kolo__module *module, const void **table)
{
    void *handle = open_file(module);
    const char *why = handle == NULL ? dlerror() : NULL;
    const void *found = handle != NULL ? dlsym(handle, module->symbol) : NULL;
    if (found == NULL)
        return kolo__error(KOLO_ERR_UNSUPPORTED, "kolo's %s module cannot be loaded (%s)",
                           module->name, why != NULL ? why : "it has no table of functions");
    unsigned version;
    memcpy(&version, found, sizeof version);
    if (version != module->version)
        return kolo__error(KOLO_ERR_UNSUPPORTED,
                           "kolo's %s module has version %u, this library needs %u: install both "
                           "from one build",
                           module->name, version, module->version);
    *table = found;
    return KOLO_OK;
}
