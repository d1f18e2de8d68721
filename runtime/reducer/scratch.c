/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/reducer/scratch.h"

#include <string.h>

kolo_status kolo__scratch_make(kolo_context *context, int ordinal, size_t bytes,
                               struct kolo__scratch *scratch)
{
    void *memory = NULL;
    *scratch = (struct kolo__scratch){0};
    kolo_status status =
        ordinal < 0 ? kolo_alloc(context, bytes, &memory) : kolo__device_load(&scratch->gpus);
    if (status == KOLO_OK && ordinal >= 0)
        status = scratch->gpus->open(ordinal, &scratch->device);
    if (status == KOLO_OK && ordinal >= 0)
        status = scratch->gpus->alloc(scratch->device, bytes, &memory);
    scratch->memory = memory;
    return status;
}

void kolo__scratch_free(kolo_context *context, struct kolo__scratch *scratch)
{
    if (scratch->device != NULL)
        scratch->gpus->free(scratch->device, scratch->memory);
    else
        kolo_free(context, scratch->memory);
    *scratch = (struct kolo__scratch){0};
}

kolo_status kolo__scratch_copy(const struct kolo__scratch *scratch, void *to, const void *from,
                               size_t bytes, void *stream)
{
    if (scratch->device != NULL)
        return scratch->gpus->copy(scratch->device, to, from, bytes, stream);
    memcpy(to, from, bytes);
    return KOLO_OK;
}
