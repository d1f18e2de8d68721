/* SPDX-License-Identifier: Apache-2.0 */
/* A reducer in the next epoch of the world (kolo_renew): a new one, which begins as at first. */
#include "runtime/reducer/reducer.h"

#include "base/status.h"

#include <stdlib.h>
#include <string.h>

void kolo__reducer_retire(void *self)
{
    kolo_reducer *reducer = self;
    /* It may be in the middle of a wait for a rank that is lost, which a fault ends. */
    if (!atomic_load(&reducer->comm->aborted)) {
        reducer->comm->abort_fault = (struct kolo__fault){
            .status = KOLO_ERR_ABORTED, .peer = -1, .text = "the world is being renewed"};
        atomic_store(&reducer->comm->aborted, true);
    }
    kolo__driver_take_back(reducer, UINT64_MAX);
}

static kolo_tensor *list_tensors(const kolo_reducer *reducer)
{
    kolo_tensor *tensors = calloc(reducer->tensor_count, sizeof *tensors);
    for (uint32_t i = 0; i < reducer->tensor_count && tensors != NULL; i++)
        tensors[i] = (kolo_tensor){.data = reducer->views ? NULL : reducer->tensors[i].data,
                                   .count = reducer->tensors[i].count,
                                   .dtype = reducer->tensors[i].dtype,
                                   .name = reducer->tensors[i].label};
    return tensors;
}

static kolo_status keep_parameters(const kolo_reducer *from, kolo_reducer *to)
{
    for (uint32_t i = 0; i < from->tensor_count && from->options.sharded; i++)
        memcpy(kolo_reducer_parameters(to, i), kolo_reducer_parameters(from, i),
               from->tensors[i].count * kolo_dtype_bytes(from->tensors[i].dtype));
    return KOLO_OK;
}
