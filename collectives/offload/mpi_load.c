/* SPDX-License-Identifier: Apache-2.0 */
#include "collectives/offload/mpi_load.h"

#include "base/status.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char module_name[] = "libkolo-mpi.so.0";

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

/* Its symbols are for all: Open MPI's own plugins look for them there. */
static void *open_module(void)
{
    char folder[PATH_MAX], path[PATH_MAX + 32];
    find_folder(folder, sizeof folder);
    for (size_t i = 0; i < 2 && folder[0] != '\0'; i++) {
        snprintf(path, sizeof path, i == 0 ? "%s/%s" : "%s/../lib/%s", folder, module_name);
        if (access(path, R_OK) == 0)
            return dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    }
    return dlopen(module_name, RTLD_NOW | RTLD_GLOBAL);
}

kolo_status kolo__mpi_load(const struct kolo__mpi_module **module)
{
    void *handle = open_module();
    const char *why = handle == NULL ? dlerror() : NULL;
    const struct kolo__mpi_module *found =
        handle != NULL ? dlsym(handle, "kolo__mpi_module") : NULL;
    if (found == NULL)
        return kolo__error(KOLO_ERR_UNSUPPORTED, "kolo's MPI module cannot be loaded (%s)",
                           why != NULL ? why : "it has no table of functions");
    if (found->version != KOLO__MPI_MODULE_VERSION)
        return kolo__error(KOLO_ERR_UNSUPPORTED,
                           "kolo's MPI module has version %u, this library needs %d: install both "
                           "from one build",
                           found->version, KOLO__MPI_MODULE_VERSION);
    *module = found;
    return KOLO_OK;
}
