/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stand-in for libtrain_bytes_cuda.so, beside which a copy of train_bytes is put: the same
 * layers, on the processor (cuda_twin.h), and memory and a stream of the driver's stand-in, so that
 * kolo takes all of it for a GPU's. STANDIN_PROBLEM, in the environment, is the step after which
 * the GPU has failed.
 */
#include "cuda_twin.h"
#include "device.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *driver;
static int waits;

/* CUresult and what else cuda.h has are not needed: 0 is success. */
static int call(const char *name, void *result, size_t bytes)
{
    int (*allocate)(void *, size_t);
    void *found = dlsym(driver, name);
    memcpy(&allocate, &found, sizeof(allocate));
    return found ? allocate(result, bytes) : -1;
}

static const char *problem(void)
{
    const char *after = getenv("STANDIN_PROBLEM");
    return after && waits > atoi(after) ? "the stand-in: its GPU has failed" : NULL;
}

static void *allocate(size_t bytes)
{
    void *memory = NULL;
    if (call("cuMemAlloc_v2", &memory, bytes > 0 ? bytes : 1) != 0)
        return NULL;
    memset(memory, 0, bytes);
    return memory;
}

static void release(void *memory)
{
    int (*give_back)(void *);
    void *found = dlsym(driver, "cuMemFree_v2");
    memcpy(&give_back, &found, sizeof(give_back));
    if (memory)
        give_back(memory);
}

static void zero(void *memory, size_t bytes)
{
    memset(memory, 0, bytes);
}

static void copy(void *to, const void *from, size_t bytes)
{
    memcpy(to, from, bytes);
}

static void *allocate_host(size_t bytes)
{
    return calloc(1, bytes);
}

static void mark(int which)
{
    (void)which;
}

static void wait(int which)
{
    (void)which;
    waits++;
}

__attribute__((visibility("default"))) const struct device *train_bytes_cuda_open(int local_rank,
                                                                                  char *why);
const struct device *train_bytes_cuda_open(int local_rank, char *why)
{
    static char stream;
    static struct device device = {"stand-in",
                                   &stream,
                                   DEVICE_LAG_MOST,
                                   problem,
                                   allocate,
                                   release,
                                   zero,
                                   copy,
                                   copy,
                                   copy,
                                   allocate_host,
                                   free,
                                   copy,
                                   copy,
                                   mark,
                                   wait,
                                   ON_DEVICE_LAYERS};
    (void)local_rank;
    driver = dlopen("libcuda.so.1", RTLD_NOW);
    int (*init)(unsigned) = NULL;
    void *found = driver ? dlsym(driver, "cuInit") : NULL;
    memcpy(&init, &found, sizeof(init));
    if (init && init(0) == 0)
        return &device;
    snprintf(why, DEVICE_WHY_BYTES, "no stand-in of the driver");
    return NULL;
}
