/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels, as nvcc made them for all GPUs that it knows, and how they are found in there. */
#include "kernels/cuda/driver.h"
#include "kernels/cuda/forms.h"

#include <stdio.h>

/* KOLO_FATBINS: the folder of them, from the build. */
#define EMBED(name)                                                                                \
    __asm__(".pushsection .rodata\n"                                                               \
            ".balign 64\n"                                                                         \
            "kolo_fatbin_" #name ":\n"                                                             \
            ".incbin \"" KOLO_FATBINS "/" #name ".fatbin\"\n"                                      \
            ".byte 0\n"                                                                            \
            ".popsection\n");                                                                      \
    extern const unsigned char kolo_fatbin_##name[] __attribute__((visibility("hidden")))
EMBED(pack);
EMBED(exchange);

kolo_status kolo__kernels_load(struct kolo__device *device)
{
    static const char *const kinds[KOLO__KERNEL_KINDS] = {"pack", "unpack", "measure"};
#define NAME_OF_FORM(name, tensor, wire) #name,
    static const char *const forms[] = {KOLO__FORMS(NAME_OF_FORM)};
#define NAME_OF_REDUCTION(name, format) "kolo_reduce_" #name,
    static const char *const reductions[] = {KOLO__FORMATS(NAME_OF_REDUCTION)};
#define NAME_OF_INTEGERS(name, bytes, is_signed) "kolo_reduce_" #name,
    static const char *const integers[] = {KOLO__INTEGERS(NAME_OF_INTEGERS)};
    const struct kolo__driver *driver = device->driver;
#define NAME_OF_EXCHANGE(word, kind, name, format) "kolo_" #word "_" #name,
    static const char *const exchanges[] = {KOLO__EXCHANGES(NAME_OF_EXCHANGE)};
    CUmodule module, exchange = NULL;
    CUresult result = driver->cuModuleLoadData(&module, kolo_fatbin_pack);
    if (result == CUDA_SUCCESS)
        result = driver->cuModuleLoadData(&exchange, kolo_fatbin_exchange);
    if (result == CUDA_ERROR_NO_BINARY_FOR_GPU || result == CUDA_ERROR_UNSUPPORTED_PTX_VERSION ||
        result == CUDA_ERROR_INVALID_IMAGE)
        return kolo__services.error(
            KOLO_ERR_UNSUPPORTED,
            "kolo's kernels, made with CUDA %d.%d, do not run on GPU %d with this driver, which is "
            "for CUDA %d.%d: install a newer driver, or build kolo with an older toolkit",
            CUDA_VERSION / 1000, CUDA_VERSION % 1000 / 10, device->ordinal, driver->version / 1000,
            driver->version % 1000 / 10);
    if (result == CUDA_SUCCESS)
        result = driver->cuModuleGetFunction(&device->total, module, "kolo_total");
    if (result == CUDA_SUCCESS)
        result = driver->cuModuleGetFunction(&device->scale, module, "kolo_scale");
    for (int kind = 0; kind < KOLO__KERNEL_KINDS; kind++)
        for (int form = 0; form < KOLO__KERNEL_FORMS && result == CUDA_SUCCESS; form++) {
            char name[64];
            snprintf(name, sizeof name, "kolo_%s_%s", kinds[kind], forms[form]);
            result = driver->cuModuleGetFunction(&device->walks[kind][form], module, name);
        }
    for (int format = 0; format < KOLO__KERNEL_FORMATS && result == CUDA_SUCCESS; format++)
        result = driver->cuModuleGetFunction(&device->reduce[format], module, reductions[format]);
    for (int dtype = 0; dtype < KOLO__KERNEL_INTEGERS && result == CUDA_SUCCESS; dtype++)
        result =
            driver->cuModuleGetFunction(&device->reduce_integers[dtype], module, integers[dtype]);
    for (int i = 0; i < KOLO__KERNEL_EXCHANGES && result == CUDA_SUCCESS; i++)
        result = driver->cuModuleGetFunction(&device->exchanges[i], exchange, exchanges[i]);
    return kolo__driver_check(result, "loading kernels onto GPU %d", device->ordinal);
}
