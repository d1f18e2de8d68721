/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/reducer/tensors.h"

#include "base/status.h"
#include "kernels/device.h"
#include "runtime/call.h"
#include "runtime/frame.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *name_of(const kolo_tensor *tensor)
{
    return tensor->name != NULL ? tensor->name : "";
}

/* ---- sensible? --------------------------------------------------------------------------------
 */

static bool is_float(kolo_dtype dtype)
{
    return dtype == KOLO_FP16 || dtype == KOLO_BF16 || dtype == KOLO_FP32 || dtype == KOLO_FP64;
}

static kolo_status check_shape(const char *operation, const kolo_tensor *tensor, size_t index)
{
    if (tensor->dimensions < 0 || tensor->dimensions > KOLO_TENSOR_DIMENSIONS_MAX)
        return kolo__error(
            KOLO_ERR_INVALID, "%s: tensor %zu '%.80s' has %d dimensions: give 0 (not said) to %d",
            operation, index, name_of(tensor), tensor->dimensions, KOLO_TENSOR_DIMENSIONS_MAX);
    size_t product = 1;
    bool overflow = false;
    for (int d = 0; d < tensor->dimensions; d++)
        overflow |= __builtin_mul_overflow(product, tensor->shape[d], &product);
    if (tensor->dimensions > 0 && (overflow || product != tensor->count))
        return kolo__error(KOLO_ERR_INVALID,
                           "%s: tensor %zu '%.80s' has %zu elements, but its shape has %s%zu",
                           operation, index, name_of(tensor), tensor->count,
                           overflow ? "more than " : "", overflow ? SIZE_MAX : product);
    return KOLO_OK;
}

/* All in the host's memory, or all on the GPU of the first. */
static kolo_status check_place(const char *operation, const char *what, const kolo_tensor *tensor,
                               bool is_first, int *ordinal)
{
    struct kolo__memory_place place;
    kolo__memory_find(tensor->data, &place);
    int found = place.kind == KOLO_MEMORY_DEVICE ? place.ordinal : -1;
    if (is_first)
        *ordinal = found;
    if (found == *ordinal)
        return KOLO_OK;
    return kolo__error(
        KOLO_ERR_INVALID,
        "%s: %s is in memory of %s, others are not: all tensors have to be on one GPU, "
        "or on the host",
        operation, what, found >= 0 ? "a GPU" : "the host");
}

kolo_status kolo__tensors_check(const char *operation, const kolo_tensor *tensors, size_t count,
                                bool floats_only, int *ordinal)
{
    size_t total = 0;
    const kolo_tensor *first = NULL; /* with memory */
    if (ordinal != NULL)
        *ordinal = -1;
    if (tensors == NULL && count > 0)
        return kolo__error(KOLO_ERR_INVALID, "%s: tensors is NULL", operation);
    for (size_t i = 0; i < count; i++) {
        const kolo_tensor *tensor = &tensors[i];
        size_t bytes;
        if (kolo_dtype_name(tensor->dtype) == NULL)
            return kolo__error(KOLO_ERR_INVALID, "%s: tensor %zu '%.80s': %d is no dtype",
                               operation, i, name_of(tensor), (int)tensor->dtype);
        if (floats_only && !is_float(tensor->dtype))
            return kolo__error(
                KOLO_ERR_INVALID,
                "%s: tensor %zu '%.80s' is %s: gradients are fp16, bf16, fp32 or fp64", operation,
                i, name_of(tensor), kolo_dtype_name(tensor->dtype));
        if (__builtin_mul_overflow(tensor->count, kolo_dtype_bytes(tensor->dtype), &bytes) ||
            __builtin_add_overflow(total, bytes, &total) || total > SIZE_MAX / 4)
            return kolo__error(KOLO_ERR_INVALID,
                               "%s: tensor %zu '%.80s' with %zu elements: more than memory has",
                               operation, i, name_of(tensor), tensor->count);
        kolo_status status = check_shape(operation, tensor, i);
        char what[120];
        snprintf(what, sizeof what, "tensor %zu '%.80s'", i, name_of(tensor));
        if (status == KOLO_OK && ordinal != NULL && tensor->data != NULL && tensor->count > 0) {
            status = check_place(operation, what, tensor, first == NULL, ordinal);
            first = tensor;
        }
        if (status != KOLO_OK)
            return status;
    }
    return KOLO_OK;
}

/* ---- one number of all ----------------------------------------------------------------------- */

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
    return hash ^ hash >> 29;
}

static uint64_t mix_text(uint64_t hash, const char *text)
{
    size_t length = strlen(text);
    hash = mix(hash, length);
    for (size_t i = 0; i < length; i++)
        hash = mix(hash, (unsigned char)text[i]);
    return hash;
}

uint64_t kolo__tensors_digest(const kolo_tensor *tensors, size_t count,
                              const struct kolo__setting *settings, size_t setting_count)
{
    uint64_t hash = mix(0x6b6f6c6f, count);
    for (size_t i = 0; i < count; i++) {
        hash = mix(hash, tensors[i].count);
        hash = mix(hash, (uint64_t)tensors[i].dtype << 8 | (uint64_t)tensors[i].dimensions);
        for (int d = 0; d < tensors[i].dimensions; d++)
            hash = mix(hash, tensors[i].shape[d]);
        hash = mix_text(hash, name_of(&tensors[i]));
    }
    for (size_t i = 0; i < setting_count; i++) {
        uint64_t bits;
        memcpy(&bits, &settings[i].value, sizeof bits);
        hash = mix(mix_text(hash, settings[i].name), bits);
    }
    return hash;
}

/* ---- differences ------------------------------------------------------------------------------
 */

void kolo__tensor_record(const kolo_tensor *tensor, struct kolo__tensor_record *record)
{
    memset(record, 0, sizeof *record);
    record->count = tensor->count;
    record->dtype = (uint32_t)tensor->dtype;
    record->dimensions = (uint32_t)tensor->dimensions;
    for (int d = 0; d < tensor->dimensions; d++)
        record->shape[d] = tensor->shape[d];
    snprintf(record->name, sizeof record->name, "%s", name_of(tensor));
}

void kolo__tensor_describe(const struct kolo__tensor_record *record, char *text, size_t bytes)
{
    const char *dtype = kolo_dtype_name((kolo_dtype)record->dtype);
    uint32_t dimensions = record->dimensions <= KOLO_TENSOR_DIMENSIONS_MAX ? record->dimensions : 0;
    int length = 0;
    for (uint32_t d = 0; d < dimensions && (size_t)length < bytes; d++)
        length += snprintf(text + length, bytes - (size_t)length, "%s%llu", d > 0 ? "x" : "",
                           (unsigned long long)record->shape[d]);
    if (dimensions == 0)
        length = snprintf(text, bytes, "%llu elements of", (unsigned long long)record->count);
    if ((size_t)length < bytes)
        snprintf(text + length, bytes - (size_t)length, " %s", dtype != NULL ? dtype : "no dtype");
}

bool kolo__tensor_difference(size_t index, const struct kolo__tensor_record *of_rank_0,
                             const struct kolo__tensor_record *mine, uint32_t rank,
                             char text[KOLO__DIFFERENCE_BYTES])
{
    char theirs[80], ours[80], name[KOLO__TENSOR_NAME_BYTES];
    memcpy(name, of_rank_0->name, sizeof name);
    name[sizeof name - 1] = '\0';
    kolo__clean_text(name);
    text[0] = '\0';
    if (strcmp(name, mine->name) != 0) {
        snprintf(text, KOLO__DIFFERENCE_BYTES,
                 "tensor %zu is '%.60s' on rank 0, '%.60s' on rank %u", index, name, mine->name,
                 rank);
        return true;
    }
    if (memcmp(of_rank_0, mine, offsetof(struct kolo__tensor_record, name)) == 0)
        return false;
    kolo__tensor_describe(of_rank_0, theirs, sizeof theirs);
    kolo__tensor_describe(mine, ours, sizeof ours);
    snprintf(text, KOLO__DIFFERENCE_BYTES, "tensor %zu '%.60s': %s on rank 0, %s on rank %u", index,
             name, theirs, ours, rank);
    return true;
}

/* ---- comparing --------------------------------------------------------------------------------
 */

static kolo_status call(kolo_comm *comm, struct kolo__call call)
{
    return kolo__call_run(comm, &call);
}

static kolo_status broadcast(kolo_comm *comm, const char *operation, void *data, size_t bytes)
{
    return call(comm, kolo__call_broadcast(operation, data, bytes, KOLO_UINT8, 0));
}

/* What one rank has to say: its first difference from rank 0, and how many there are; or, first of
 * all, what it has found wrong by itself. */
struct remark {
    uint64_t count, differences;
    uint64_t refused; /* a kolo_status; KOLO_OK: it has found nothing */
    char text[KOLO__DIFFERENCE_BYTES];
};

static void remark_difference(struct remark *remark, const char *text)
{
    if (remark->differences++ == 0)
        snprintf(remark->text, sizeof remark->text, "%s", text);
}

/* What the first rank that refused has found; KOLO_OK: none did. */
static kolo_status find_refusal(const kolo_comm *comm, struct remark *remarks)
{
    for (uint32_t rank = 0; rank < comm->size; rank++) {
        struct remark *remark = &remarks[rank];
        if (remark->refused == KOLO_OK)
            continue;
        bool known = remark->refused > KOLO_AGAIN && remark->refused <= KOLO_ERR_DEVICE;
        remark->text[sizeof remark->text - 1] = '\0';
        kolo__clean_text(remark->text);
        return kolo__error(known ? (kolo_status)remark->refused : KOLO_ERR_NETWORK,
                           "rank %u reported: %s", rank, remark->text);
    }
    return KOLO_OK;
}

static void compare_with_rank_0(const struct kolo__tensor_record *records, size_t record_count,
                                const double *values, const kolo_tensor *tensors, size_t count,
                                const struct kolo__setting *settings, size_t setting_count,
                                uint32_t rank, struct remark *remark)
{
    char text[KOLO__DIFFERENCE_BYTES];
    for (size_t i = 0; i < setting_count; i++)
        if (!(values[i] == settings[i].value)) {
            snprintf(text, sizeof text, "option %s is %g on rank 0, %g on rank %u",
                     settings[i].name, values[i], settings[i].value, rank);
            remark_difference(remark, text);
        }
    if (record_count != count) {
        snprintf(text, sizeof text, "%zu tensors on rank 0, %zu on rank %u", record_count, count,
                 rank);
        remark_difference(remark, text);
    }
    for (size_t i = 0; i < record_count && i < count; i++) {
        struct kolo__tensor_record mine;
        kolo__tensor_record(&tensors[i], &mine);
        if (kolo__tensor_difference(i, &records[i], &mine, rank, text))
            remark_difference(remark, text);
    }
}

/* All ranks have all remarks, so all say the same. */
static kolo_status explain(kolo_comm *comm, const char *operation, struct remark *remarks)
{
    char text[600] = "";
    size_t length = 0;
    uint64_t more = 0;
    for (uint32_t rank = 0; rank < comm->size; rank++) {
        struct remark *remark = &remarks[rank];
        remark->text[sizeof remark->text - 1] = '\0';
        kolo__clean_text(remark->text);
        if (remark->differences == 0)
            continue;
        if (length == 0 || length + strlen(remark->text) + 2 < 320) {
            length += (size_t)snprintf(text + length, sizeof text - length, "%s%s",
                                       length > 0 ? "; " : "", remark->text);
            more += remark->differences - 1;
        } else {
            more += remark->differences;
        }
    }
    if (length == 0)
        snprintf(text, sizeof text, "the tail of some name differs between ranks");
    else if (more > 0)
        snprintf(text + length, sizeof text - length, "; and %llu more differences",
                 (unsigned long long)more);
    return kolo__error(KOLO_ERR_MISMATCH, "%s: ranks do not have the same: %s", operation, text);
}

static kolo_status no_memory(const char *operation)
{
    return kolo__error(KOLO_ERR_MEMORY,
                       "%s: no memory to find out in what the ranks' tensors differ", operation);
}

static kolo_status find_differences(kolo_comm *comm, const char *operation,
                                    const kolo_tensor *tensors, size_t count,
                                    const struct kolo__setting *settings, size_t setting_count)
{
    struct remark *remarks = calloc(comm->size, sizeof *remarks), own = {.count = count};
    struct kolo__tensor_record *records = NULL;
    double *values = calloc(setting_count + 1, sizeof *values);
    kolo_status status = remarks != NULL && values != NULL
                             ? kolo__call_gather(comm, operation, &own, remarks, sizeof own)
                             : no_memory(operation);
    if (status == KOLO_OK)
        status = find_refusal(comm, remarks);
    uint64_t record_count = status == KOLO_OK ? remarks[0].count : 0;
    if (status == KOLO_OK && record_count <= UINT32_MAX)
        records = calloc(record_count + 1, sizeof *records);
    if (status == KOLO_OK && records == NULL)
        status = no_memory(operation);
    if (status == KOLO_OK && comm->rank == 0) {
        for (size_t i = 0; i < count; i++)
            kolo__tensor_record(&tensors[i], &records[i]);
        for (size_t i = 0; i < setting_count; i++)
            values[i] = settings[i].value;
    }
    if (status == KOLO_OK)
        status = broadcast(comm, operation, records, record_count * sizeof *records);
    if (status == KOLO_OK)
        status = broadcast(comm, operation, values, setting_count * sizeof *values);
    if (status == KOLO_OK) {
        compare_with_rank_0(records, record_count, values, tensors, count, settings, setting_count,
                            comm->rank, &own);
        status = kolo__call_gather(comm, operation, &own, remarks, sizeof own);
    }
    if (status == KOLO_OK)
        status = explain(comm, operation, remarks);
    free(remarks);
    free(records);
    free(values);
    return status;
}

kolo_status kolo__tensors_compare(kolo_comm *comm, const char *operation,
                                  const kolo_tensor *tensors, size_t count,
                                  const struct kolo__setting *settings, size_t setting_count,
                                  uint64_t *digest)
{
    uint64_t own = kolo__tensors_digest(tensors, count, settings, setting_count);
    uint64_t least[2] = {own, ~own}; /* the least ~x is the complement of the greatest x */
    if (digest != NULL)
        *digest = own;
    kolo_status status =
        call(comm, kolo__call_allreduce(operation, least, 2, KOLO_UINT64, KOLO_MIN));
    if (status != KOLO_OK || least[0] == ~least[1])
        return status;
    return find_differences(comm, operation, tensors, count, settings, setting_count);
}

kolo_status kolo__tensors_refuse(kolo_comm *comm, const char *operation, kolo_status found)
{
    char text[512];
    snprintf(text, sizeof text, "%s", kolo_error_text());
    struct remark *remarks = calloc(comm->size, sizeof *remarks), own = {.refused = found};
    snprintf(own.text, sizeof own.text, "%.*s", (int)sizeof own.text - 1, text);
    uint64_t least[2] = {0, 0}; /* not a number and its complement, whatever the others have */
    kolo_status status =
        call(comm, kolo__call_allreduce(operation, least, 2, KOLO_UINT64, KOLO_MIN));
    if (status == KOLO_OK && remarks != NULL)
        status = kolo__call_gather(comm, operation, &own, remarks, sizeof own);
    free(remarks);
    bool stands = status == KOLO_OK || found == KOLO_ERR_INVALID; /* in any world */
    return stands ? kolo__error(found, "%s", text) : status;
}

void kolo__tensors_give_up(kolo_comm *comm, kolo_status status)
{
    struct kolo__fault fault = {.status = status, .peer = (int)comm->world_ranks[comm->rank]};
    snprintf(fault.text, sizeof fault.text, "%.*s", (int)sizeof fault.text - 1, kolo_error_text());
    kolo__comm_fail(comm, &fault, true);
}
