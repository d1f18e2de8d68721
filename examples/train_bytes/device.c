/* SPDX-License-Identifier: Apache-2.0 */
/* The processor as a device, and how a GPU's module is found: see device.h. */
#include "device.h"

#include "layers.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *no_problem(void)
{
    return NULL;
}

static void *allocate(size_t bytes)
{
    size_t whole = (bytes + 63) / 64 * 64; /* cache lines */
    void *memory = aligned_alloc(64, whole > 0 ? whole : 64);
    if (memory)
        memset(memory, 0, whole);
    return memory;
}

static void zero(void *memory, size_t bytes)
{
    memset(memory, 0, bytes);
}

static void copy(void *to, const void *from, size_t bytes)
{
    memcpy(to, from, bytes);
}

static void nothing(int which)
{
    (void)which;
}

const struct device device_cpu = {
    .name = "cpu",
    .problem = no_problem,
    .allocate = allocate,
    .release = free,
    .zero = zero,
    .copy = copy,
    .put = copy,
    .get = copy,
    .allocate_host = allocate,
    .release_host = free,
    .put_later = copy,
    .get_later = copy,
    .mark = nothing,
    .wait = nothing,
    .embedding_forward = embedding_forward,
    .embedding_backward = embedding_backward,
    .linear_forward = linear_forward,
    .linear_forward_add = linear_forward_add,
    .linear_backward = linear_backward,
    .rms_norm_forward = rms_norm_forward,
    .rms_norm_backward = rms_norm_backward,
    .rotary_turn = rotary_turn,
    .attention_forward = attention_forward,
    .attention_backward = attention_backward,
    .gelu_forward = gelu_forward,
    .gelu_backward = gelu_backward,
    .cross_entropy_forward = cross_entropy_forward,
    .cross_entropy_backward = cross_entropy_backward,
    .add_losses = add_losses,
    .adamw_update = adamw_update,
};

/* Beside the program, where the build puts it, else wherever the dynamic linker looks. */
static void *open_module(const char *file)
{
    char path[4096 + 64];
    ssize_t length = readlink("/proc/self/exe", path, 4096);
    while (length > 0 && path[length - 1] != '/')
        length--;
    snprintf(path + (length > 0 ? length : 0), 64, "%s", file);
    return dlopen(length > 0 && access(path, F_OK) == 0 ? path : file, RTLD_NOW);
}

const struct device *device_open(const char *name, int local_rank, char why[DEVICE_WHY_BYTES])
{
    if (strcmp(name, "cpu") == 0)
        return &device_cpu;
    void *module = open_module("libtrain_bytes_cuda.so");
    device_module_open *open = NULL;
    void *found = module ? dlsym(module, "train_bytes_cuda_open") : NULL;
    memcpy(&open, &found, sizeof(open)); /* ISO C has no cast for it */
    if (open)
        return open(local_rank, why);
    const char *error = dlerror();
    snprintf(why, DEVICE_WHY_BYTES,
             "there is no part for CUDA (%.120s): build where nvcc and cuBLAS are, or take "
             "--device cpu",
             error ? error : "libtrain_bytes_cuda.so is another one");
    return NULL;
}
