/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Do all ranks hold the same state? Memory and processors err now and then, and one wrong bit in
 * one rank's parameters spoils all gradients from then on without a trace. A checksum of each
 * tensor is compared: two small allreduces, unless something differs.
 */
#include "runtime/elastic/elastic.h"

#include "base/status.h"
#include "kernels/crc32c.h"
#include "runtime/comm.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static uint32_t sum_of(const kolo_tensor *tensor)
{
    if (tensor->data == NULL) /* nobody else has what this rank has of it */
        return 0;
    return kolo__crc32c(0, tensor->data, tensor->count * kolo_dtype_bytes(tensor->dtype));
}

/* How many ranks have the checksum of rank r. */
static uint32_t companions(const uint32_t *sums, uint32_t size, uint32_t r)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < size; i++)
        count += sums[i] == sums[r];
    return count;
}

/* The ranks with a checksum that fewest have; where two are as frequent, not that of rank 0. */
static kolo_status name_odd_ones(const kolo_elastic *loop, size_t tensor, size_t others,
                                 const uint32_t *sums)
{
    const kolo_comm *world = loop->context->world;
    uint32_t odd = 0, fewest = world->size, of_odd = 0;
    for (uint32_t r = world->size; r-- > 0;) {
        uint32_t with = companions(sums, world->size, r);
        if (with < fewest) {
            fewest = with;
            odd = r;
        }
    }
    of_odd = companions(sums, world->size, odd);
    char more[64] = "", tensors[64] = "";
    if (of_odd > 1)
        snprintf(more, sizeof more, ", and %" PRIu32 " more", of_odd - 1);
    if (others > 0)
        snprintf(tensors, sizeof tensors, "; %zu more tensors differ", others);
    return kolo__error(
        KOLO_ERR_MISMATCH,
        "after step %" PRIu64 " ranks do not hold the same state: rank %" PRIu32 " (host %s)%s has "
        "other contents of tensor %zu '%s' than %" PRIu32 " others%s%s. Either the program updates "
        "it from something that differs between ranks, or memory failed there: go on from a "
        "checkpoint, without that host",
        loop->step, odd, world->hosts != NULL ? world->hosts[odd] : "", more, tensor,
        loop->state[tensor].name != NULL ? loop->state[tensor].name : "", world->size - of_odd,
        2 * of_odd == world->size ? " (which of them is wrong cannot be told)" : "", tensors);
}

/* The job's last line. */
static void tell(const kolo_elastic *loop, kolo_status status)
{
    const kolo_context *context = loop->context;
    struct kolo__fault fault = {.status = status, .peer = (int)context->rank};
    snprintf(fault.text, sizeof fault.text, "%s", kolo_error_text());
    if (status == KOLO_ERR_MISMATCH && context->rank == 0 && context->control != NULL)
        kolo__control_report(context->control, KOLO__NO_COMM, &fault);
}

static kolo_status explain(const kolo_elastic *loop, const uint32_t *sums, const uint32_t *least)
{
    kolo_comm *world = loop->context->world;
    size_t first = loop->count, others = 0;
    for (size_t i = 0; i < loop->count; i++) {
        if (least[i] == ~least[loop->count + i])
            continue;
        others += first < loop->count;
        first = first < loop->count ? first : i;
    }
    if (first == loop->count)
        return KOLO_OK;
    uint32_t *all = calloc(world->size, sizeof *all);
    if (all == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "kolo_elastic_begin_step: no memory");
    kolo_status status = kolo_allgather(world, &sums[first], all, 1, KOLO_UINT32, NULL);
    if (status == KOLO_OK)
        status = name_odd_ones(loop, first, others, all);
    free(all);
    tell(loop, status);
    return status;
}

kolo_status kolo__elastic_compare(kolo_elastic *loop)
{
    size_t count = loop->count;
    uint32_t *sums = calloc(3 * count + 1, sizeof *sums), *least = sums + count;
    if (sums == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "kolo_elastic_begin_step: no memory for %zu checksums",
                           3 * count);
    for (size_t i = 0; i < count; i++) {
        sums[i] = sum_of(&loop->state[i]);
        least[i] = sums[i];
        least[count + i] = ~sums[i]; /* its least is the complement of the greatest */
    }
    kolo_status status =
        kolo_allreduce(loop->context->world, least, least, 2 * count, KOLO_UINT32, KOLO_MIN, NULL);
    if (status == KOLO_OK)
        status = explain(loop, sums, least);
    if (status == KOLO_OK)
        loop->compared = loop->step;
    free(sums);
    return status;
}
