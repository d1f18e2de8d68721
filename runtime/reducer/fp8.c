/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Units that travel as 8-bit floats. No collective adds these, so each rank sends every other one
 * its slice, adds up its own in fp32, rounds the average once, and shows it to all:
 *
 *   stage 0   largest absolute value, of all ranks        allreduce of one number
 *   stage 1   packed, scaled by a power of two            alltoall
 *   stage 2   own slice: average of all ranks'            allgather
 *   unpacked, scaled back
 *
 * The average of values below the largest one is below it, too, so one scale serves both ways. A
 * value that is not finite travels unscaled as it is: what it does to the result is not hidden.
 *
 * Staging: | packed by slices of `slice` elements | received, by ranks | amax |
 */
#include "runtime/reducer/reducer.h"

#include "runtime/call.h"

#include <math.h>
#include <string.h>

enum { SCALE_EXPONENT_MOST = 100 };

static size_t slice_of(const kolo_reducer *reducer, size_t count)
{
    return (count + reducer->comm->size - 1) / reducer->comm->size;
}

static size_t packed_bytes(const kolo_reducer *reducer, size_t count)
{
    return slice_of(reducer, count) * reducer->comm->size;
}

size_t kolo__fp8_staging(const kolo_reducer *reducer, size_t count)
{
    return 2 * packed_bytes(reducer, count) + 64;
}

struct amax_walk {
    float amax;
};

static void amax_run(void *self, const struct kolo__run_of_tensor *run)
{
    struct amax_walk *walk = self;
    if (run->tensor == NULL || run->tensor->unused)
        return;
    const float *data = (const float *)(const void *)run->tensor->data + run->first;
    float amax = kolo__absolute_max(data, run->count);
    if (!(amax <= walk->amax)) /* NaN wins */
        walk->amax = amax;
}

kolo_status kolo__fp8_start(kolo_reducer *reducer, struct kolo__unit *unit)
{
    struct amax_walk walk = {.amax = 0};
    kolo__bucket_visit(reducer, unit->bucket, unit->first, unit->count, amax_run, &walk);
    unit->amax = walk.amax * (float)fabs(reducer->options.scale);
    struct kolo__call call = kolo__call_allreduce(unit->name, &unit->amax, 1, KOLO_FP32, KOLO_MAX);
    return kolo__call_start(reducer->comm, &call, &unit->request);
}

double kolo__fp8_largest(const kolo_reducer *reducer)
{
    return reducer->options.wire == KOLO_WIRE_FP8_E4M3 ? 448 : 57344;
}

/* A power of two, so that scaling rounds nothing, with room for what feedback adds. */
static double choose_scale(const kolo_reducer *reducer, float amax)
{
    if (!(amax > 0) || !isfinite(amax))
        return 1;
    int exponent;
    frexp(kolo__fp8_largest(reducer) / (1.125 * (double)amax), &exponent);
    /* Far from the ends of fp32: what is smaller still counts as 0. */
    exponent = exponent > SCALE_EXPONENT_MOST ? SCALE_EXPONENT_MOST : exponent;
    exponent = exponent < -SCALE_EXPONENT_MOST ? -SCALE_EXPONENT_MOST : exponent;
    return ldexp(1, exponent - 1);
}

struct rescale_walk {
    double factor;
};

static void rescale_run(void *self, const struct kolo__run_of_tensor *run)
{
    const struct rescale_walk *walk = self;
    if (run->tensor != NULL && run->tensor->error != NULL)
        kolo__scale(KOLO_FP32, run->tensor->error + run->first, run->count, walk->factor);
}

static kolo_status start_exchange(kolo_reducer *reducer, struct kolo__unit *unit)
{
    double scale = choose_scale(reducer, unit->amax);
    /* What feedback kept is in units of the last scale. */
    struct rescale_walk walk = {.factor = unit->wire_scale > 0 ? scale / unit->wire_scale : 1};
    if (walk.factor != 1)
        kolo__bucket_visit(reducer, unit->bucket, unit->first, unit->count, rescale_run, &walk);
    unit->wire_scale = scale;
    size_t bytes = packed_bytes(reducer, unit->count);
    memset(unit->staging + unit->count, 0, bytes - unit->count);
    kolo__unit_pack(reducer, unit, reducer->options.scale * scale, unit->staging);
    struct kolo__call call = {.name = unit->name,
                              .collective = KOLO__ALLTOALL,
                              .send = unit->staging,
                              .recv = unit->staging + bytes,
                              .count = slice_of(reducer, unit->count),
                              .send_slices = reducer->comm->size,
                              .recv_slices = reducer->comm->size,
                              .dtype = KOLO_UINT8};
    return kolo__call_start(reducer->comm, &call, &unit->request);
}

static kolo_status start_gather(kolo_reducer *reducer, struct kolo__unit *unit)
{
    kolo_comm *comm = reducer->comm;
    size_t slice = slice_of(reducer, unit->count);
    unsigned char *own = unit->staging + comm->rank * slice;
    const unsigned char *received = unit->staging + packed_bytes(reducer, unit->count);
    for (uint32_t rank = 0; rank < comm->size; rank++)
        reducer->sources[rank] = received + rank * slice;
    kolo__sum_narrow(kolo__reducer_narrow(reducer->options.wire), own, reducer->sources, comm->size,
                     comm->size, slice);
    struct kolo__call call =
        kolo__call_allgather(comm, unit->name, own, unit->staging, slice, KOLO_UINT8);
    return kolo__call_start(comm, &call, &unit->request);
}

kolo_status kolo__fp8_next(kolo_reducer *reducer, struct kolo__unit *unit)
{
    kolo_status status;
    unit->stage++;
    if (unit->stage <= 2) {
        status = unit->stage == 1 ? start_exchange(reducer, unit) : start_gather(reducer, unit);
        return status == KOLO_OK ? KOLO_AGAIN : status;
    }
    size_t first = 0, count = unit->count;
    if (reducer->options.sharded) {
        count /= reducer->comm->size;
        first = reducer->comm->rank * count;
    }
    double sum = reducer->options.sum ? reducer->comm->size : 1;
    kolo__unit_unpack(reducer, unit, sum / unit->wire_scale, unit->first + first, count,
                      unit->staging + first);
    return KOLO_OK;
}
