/* SPDX-License-Identifier: Apache-2.0 */
/* A reducer in the next epoch of the world (kolo_renew): a new one, which begins as at first. */
#include "runtime/reducer/reducer.h"

#include "base/status.h"

#include <string.h>

void kolo__reducer_retire(void *reducer)
{
    kolo__driver_take_back(reducer, UINT64_MAX);
}

/* What is not of the step: parameters, and what rounding has held back. */
static void inherit(kolo_reducer *from, kolo_reducer *to)
{
    to->accumulates = from->accumulates;
    for (uint32_t i = 0; i < from->tensor_count; i++) {
        struct kolo__reducer_tensor *old = &from->tensors[i], *new = &to->tensors[i];
        float *error = new->error;
        if (from->options.sharded)
            memcpy(kolo_reducer_parameters(to, i), kolo_reducer_parameters(from, i),
                   old->count * kolo_dtype_bytes(old->dtype));
        new->error = old->error;
        old->error = error;
    }
}

kolo_status kolo_reducer_renew(kolo_reducer **reducer, kolo_comm *comm)
{
    kolo_reducer *renewed, *old = reducer != NULL ? *reducer : NULL;
    if (old == NULL)
        return kolo__error(KOLO_ERR_INVALID, "kolo_reducer_renew: the reducer is NULL");
    if (!old->comm->retired)
        return kolo__error(KOLO_ERR_INVALID,
                           "kolo_reducer_renew: this reducer is of the present epoch of the world: "
                           "kolo_renew comes first");
    kolo_status status =
        kolo_reducer_create(comm, old->given, old->tensor_count, &old->options, &renewed);
    if (status != KOLO_OK)
        return status;
    inherit(old, renewed);
    kolo_reducer_free(old);
    *reducer = renewed;
    return KOLO_OK;
}
