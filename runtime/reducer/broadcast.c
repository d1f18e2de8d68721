/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kolo_broadcast_tensors: large tensors travel from where they are, small ones together, through
 * one staging buffer that is filled and sent as often as it takes. Tensors of a GPU go through one
 * on the GPU, in the order of CUDA's default stream.
 */
#include "runtime/reducer/tensors.h"

#include "base/status.h"
#include "runtime/call.h"
#include "runtime/reducer/scratch.h"

static const char operation[] = "kolo_broadcast_tensors";

enum { STAGING_BYTES = 1 << 20, LARGE_BYTES = 256 << 10 };

static kolo_status send_all(kolo_comm *comm, void *data, size_t bytes, int root)
{
    struct kolo__call call = kolo__call_broadcast(operation, data, bytes, KOLO_UINT8, root);
    return kolo__call_run(comm, &call);
}

static size_t bytes_of(const kolo_tensor *tensor)
{
    return tensor->count * kolo_dtype_bytes(tensor->dtype);
}

/* Small tensors from `first` on, as many as fit: sent together. Returns the first that did not. */
static size_t send_small(kolo_comm *comm, const kolo_tensor *tensors, size_t count, size_t first,
                         int root, const struct kolo__scratch *staging, kolo_status *status)
{
    size_t end = first, bytes = 0;
    bool is_root = comm->rank == (uint32_t)root;
    for (; end < count && *status == KOLO_OK; end++) {
        size_t more = bytes_of(&tensors[end]);
        if (more >= LARGE_BYTES)
            continue;
        if (bytes + more > STAGING_BYTES)
            break;
        if (is_root && more > 0)
            *status =
                kolo__scratch_copy(staging, staging->memory + bytes, tensors[end].data, more, NULL);
        bytes += more;
    }
    if (*status == KOLO_OK && bytes > 0)
        *status = send_all(comm, staging->memory, bytes, root);
    size_t at = 0;
    for (size_t i = first; i < end && !is_root && *status == KOLO_OK; i++) {
        size_t more = bytes_of(&tensors[i]);
        if (more >= LARGE_BYTES || more == 0)
            continue;
        *status = kolo__scratch_copy(staging, tensors[i].data, staging->memory + at, more, NULL);
        at += more;
    }
    return end;
}

static kolo_status check(const kolo_comm *comm, const kolo_tensor *tensors, size_t count, int root,
                         int *ordinal)
{
    if (root < 0 || (uint32_t)root >= comm->size)
        return kolo__error(KOLO_ERR_INVALID, "%s: root %d is not a rank of %u", operation, root,
                           comm->size);
    kolo_status status = kolo__tensors_check(operation, tensors, count, false, ordinal);
    for (size_t i = 0; status == KOLO_OK && i < count; i++)
        if (tensors[i].data == NULL && tensors[i].count > 0)
            status = kolo__error(KOLO_ERR_INVALID, "%s: tensor %zu '%s' has no data", operation, i,
                                 tensors[i].name != NULL ? tensors[i].name : "");
    return status;
}

kolo_status kolo_broadcast_tensors(kolo_comm *comm, const kolo_tensor *tensors, size_t count,
                                   int root)
{
    kolo_status status = kolo__call_check_comm(comm, operation);
    if (status != KOLO_OK)
        return status;
    int ordinal = -1;
    status = check(comm, tensors, count, root, &ordinal);
    if (status != KOLO_OK)
        return kolo__tensors_refuse(comm, operation, status);
    const struct kolo__setting settings[] = {{"root", root},
                                             {"tensors in a GPU's memory", ordinal >= 0}};
    status = kolo__tensors_compare(comm, operation, tensors, count, settings,
                                   sizeof settings / sizeof *settings, NULL);
    struct kolo__scratch staging = {0};
    if (status == KOLO_OK)
        status = kolo__scratch_make(comm->context, ordinal, STAGING_BYTES, &staging);
    for (size_t i = 0; status == KOLO_OK && i < count; i++)
        if (bytes_of(&tensors[i]) >= LARGE_BYTES)
            status = send_all(comm, tensors[i].data, bytes_of(&tensors[i]), root);
    for (size_t i = 0; status == KOLO_OK && i < count;)
        i = send_small(comm, tensors, count, i, root, &staging, &status);
    kolo__scratch_free(comm->context, &staging);
    return status;
}
