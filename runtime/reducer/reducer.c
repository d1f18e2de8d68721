/* SPDX-License-Identifier: Apache-2.0 */
/* A reducer's beginning and end, and what its users may ask. */
#include "runtime/reducer/gpu.h"

#include "base/status.h"
#include "runtime/reducer/tensors.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- options ----------------------------------------------------------------------------------
 */

static const char *const wire_names[KOLO_WIRE_COUNT] = {"same", "bf16", "fp16", "fp8_e4m3",
                                                        "fp8_e5m2"};

const char *kolo_wire_name(kolo_wire wire)
{
    return (unsigned)wire < KOLO_WIRE_COUNT ? wire_names[wire] : NULL;
}

enum kolo__narrow_float kolo__reducer_narrow(kolo_wire wire)
{
    switch (wire) {
    case KOLO_WIRE_BF16:
        return KOLO__NARROW_BF16;
    case KOLO_WIRE_FP8_E4M3:
        return KOLO__NARROW_E4M3;
    case KOLO_WIRE_FP8_E5M2:
        return KOLO__NARROW_E5M2;
    default:
        return KOLO__NARROW_FP16;
    }
}

static kolo_status wrong_option(const char *what)
{
    return kolo__error(KOLO_ERR_INVALID, "kolo_reducer_create: %s", what);
}

static kolo_status take_options(kolo_reducer *reducer, const kolo_reducer_options *given)
{
    kolo_reducer_options *options = &reducer->options;
    *options = given != NULL ? *given : (kolo_reducer_options){.size = sizeof *options};
    if (options->size != sizeof *options)
        return wrong_option("set options->size to sizeof(kolo_reducer_options)");
    if ((unsigned)options->wire >= KOLO_WIRE_COUNT)
        return wrong_option("options->wire is no kolo_wire");
    if (!(fabs(options->scale) <= FLT_MAX))
        return wrong_option("options->scale is not a finite number that fp32 can hold");
    if (!isfinite(options->clip_norm) || options->clip_norm < 0)
        return wrong_option("options->clip_norm has to be 0 or a positive number");
    if (options->sharded && !reducer->views)
        return wrong_option("a sharded reducer has views: leave the tensors' data NULL");
    if (options->error_feedback && options->wire == KOLO_WIRE_SAME)
        return wrong_option("error feedback needs a wire type that loses something");
    if (options->scale == 0)
        options->scale = 1;
    if (options->clip_norm > 0)
        options->statistics = 1;
    if (options->sharded)
        options->fixed_order = 1;
    return KOLO_OK;
}

/* Some have memory, others none: nobody means that. */
static kolo_status find_views(kolo_reducer *reducer, const kolo_tensor *tensors, size_t count)
{
    size_t with_data = 0, empty = 0;
    for (size_t i = 0; i < count; i++) {
        with_data += tensors[i].data != NULL;
        empty += tensors[i].data == NULL && tensors[i].count == 0;
    }
    reducer->views = with_data == 0 && empty < count;
    if (with_data == 0 || with_data + empty == count)
        return KOLO_OK;
    return kolo__error(KOLO_ERR_INVALID,
                       "kolo_reducer_create: %zu of %zu tensors have data: give it for all "
                       "(packed), or for none (views: kolo_reducer_view)",
                       with_data, count);
}

/* ---- create -----------------------------------------------------------------------------------
 */

static kolo_status no_memory(size_t count)
{
    return kolo__error(KOLO_ERR_MEMORY, "kolo_reducer_create: no memory for %zu tensors", count);
}

/* ordinal: of the GPU, which keeps errors itself; -1: the host's memory. */
static kolo_status take_tensors(kolo_reducer *reducer, const kolo_tensor *tensors, size_t count,
                                int ordinal)
{
    reducer->tensors = calloc(count, sizeof *reducer->tensors);
    reducer->given = calloc(count, sizeof *reducer->given);
    reducer->order = calloc(count, sizeof *reducer->order);
    reducer->slots = calloc(count, sizeof *reducer->slots);
    reducer->ready = calloc(count, sizeof *reducer->ready);
    reducer->used_words = (count + 63) / 64;
    reducer->used = calloc(reducer->used_words, sizeof *reducer->used);
    reducer->sources = calloc(reducer->comm->size, sizeof *reducer->sources);
    if (reducer->tensors == NULL || reducer->given == NULL || reducer->order == NULL ||
        reducer->used == NULL || reducer->sources == NULL || reducer->slots == NULL ||
        reducer->ready == NULL)
        return no_memory(count);
    reducer->tensor_count = (uint32_t)count;
    for (size_t i = 0; i < count; i++) {
        struct kolo__reducer_tensor *tensor = &reducer->tensors[i];
        tensor->data = tensors[i].data;
        tensor->count = tensors[i].count;
        tensor->dtype = tensors[i].dtype;
        reducer->slots[i] = (uint32_t)i;
        if (tensors[i].name != NULL && (tensor->label = strdup(tensors[i].name)) == NULL)
            return no_memory(count);
        reducer->given[i] = tensors[i];
        reducer->given[i].name = tensor->label;
        tensor->trace_label = kolo__trace_label(reducer->context->trace, tensor->label);
        if (ordinal < 0 && reducer->options.error_feedback &&
            kolo__reducer_narrows(reducer, tensor->dtype) &&
            (tensor->error = calloc(tensor->count > 0 ? tensor->count : 1, sizeof(float))) == NULL)
            return no_memory(count);
    }
    return KOLO_OK;
}

/* Whatever all ranks have to agree on, but for the tensors. */
static kolo_status compare(kolo_reducer *reducer, kolo_comm *comm, const kolo_tensor *tensors,
                           size_t count, int ordinal)
{
    const kolo_reducer_options *o = &reducer->options;
    const struct kolo__setting settings[] = {
        {"bucket_bytes", (double)o->bucket_bytes},
        {"first_bucket_bytes", (double)o->first_bucket_bytes},
        {"sum", o->sum != 0},
        {"a scale other than 1", o->scale != 1},
        {"wire", o->wire},
        {"error_feedback", o->error_feedback != 0},
        {"statistics", o->statistics != 0 && o->clip_norm == 0}, /* which implies it */
        {"clip_norm", o->clip_norm},
        {"allow_unused", o->allow_unused != 0},
        {"sharded", o->sharded != 0},
        {"fixed_order", o->fixed_order != 0},
        {"views (data NULL)", reducer->views},
        {"tensors in a GPU's memory", ordinal >= 0},
    };
    return kolo__tensors_compare(comm, "kolo_reducer_create", tensors, count, settings,
                                 sizeof settings / sizeof *settings, &reducer->digest);
}

/* What this rank can do and check by itself. */
static kolo_status begin(kolo_comm *comm, const kolo_tensor *tensors, size_t count,
                         const kolo_reducer_options *options, kolo_reducer **result, int *ordinal)
{
    if (count == 0 || count > UINT32_MAX / 2)
        return wrong_option(count == 0 ? "there are no tensors" : "there are too many tensors");
    kolo_reducer *reducer = calloc(1, sizeof *reducer);
    if (reducer == NULL)
        return no_memory(count);
    *result = reducer;
    reducer->context = comm->context;
    reducer->waker = &reducer->own_waker;
    kolo__waker_prepare();
    sem_init(&reducer->own_waker.semaphore, 0, 0);
    sem_init(&reducer->done.semaphore, 0, 0);
    kolo_status status = kolo__tensors_check("kolo_reducer_create", tensors, count, true, ordinal);
    if (status == KOLO_OK)
        status = find_views(reducer, tensors, count);
    if (status == KOLO_OK)
        status = take_options(reducer, options);
    if (status == KOLO_OK)
        status = kolo__gpu_check(reducer, (uint32_t)kolo_comm_size(comm), ordinal);
    return status;
}

/* On a communicator that all ranks have made: what fails now the others must hear of. */
static kolo_status complete(kolo_reducer *reducer, const kolo_tensor *tensors, size_t count,
                            int ordinal)
{
    kolo_comm *comm = reducer->comm;
    /* Over shared memory rank order costs nothing, and makes bits independent of bucket sizes. */
    if (comm->mapping != NULL && comm->guardian->plan_context.preferred[0] == '\0')
        comm->plan_context.deterministic = true;
    comm->owner = reducer;
    comm->rejoined = kolo__reducer_rejoined;
    comm->retire = kolo__reducer_retire;
    if (reducer->options.sharded)
        comm->cannot_join = "a sharded reducer needs the parameters of every rank";
    else if (kolo__reducer_is_fp8(reducer))
        comm->cannot_join = "a reducer with an 8-bit wire needs every rank to add its slice";
    comm->root_joined =
        "rank 0 has joined (kolo_join) before the first step of a reducer, which gives "
        "all ranks rank 0's order of gradients: rank 0 has to do this step before it "
        "joins, unless options.fixed_order is set";
    kolo_status status = take_tensors(reducer, tensors, count, ordinal);
    if (status == KOLO_OK && ordinal >= 0)
        status = kolo__gpu_open(reducer, ordinal);
    if (status == KOLO_OK)
        status = kolo__reducer_lay_out(reducer);
    kolo__gpu_begin_step(reducer);
    if (status != KOLO_OK)
        kolo__tensors_give_up(comm, status);
    return status;
}

kolo_status kolo_reducer_create(kolo_comm *comm, const kolo_tensor *tensors, size_t count,
                                const kolo_reducer_options *options, kolo_reducer **result)
{
    kolo_reducer *reducer = NULL;
    int ordinal = -1;
    if (comm == NULL)
        return wrong_option("the communicator is NULL");
    kolo_status status = result != NULL ? begin(comm, tensors, count, options, &reducer, &ordinal)
                                        : wrong_option("reducer is NULL");
    if (result != NULL)
        *result = NULL;
    if (status != KOLO_OK) {
        status = kolo__tensors_refuse(comm, "kolo_reducer_create", status);
        kolo_reducer_free(reducer);
        return status;
    }
    status = compare(reducer, comm, tensors, count, ordinal);
    if (status == KOLO_OK)
        status = kolo__comm_duplicate(comm, &reducer->comm);
    if (status == KOLO_OK)
        status = complete(reducer, tensors, count, ordinal);
    if (status != KOLO_OK) {
        kolo_reducer_free(reducer);
        return status;
    }
    *result = reducer;
    return KOLO_OK;
}

/* Of a step that failed: what is done is in no queue any more, of which the communicator would free
 * it. */
static void finish_requests(kolo_reducer *reducer)
{
    for (uint32_t u = 0; reducer->units != NULL && u < reducer->unit_count; u++) {
        kolo_request *request = reducer->units[u].request;
        if (request != NULL && request->done)
            kolo__request_finish(request);
    }
}

kolo_status kolo_reducer_free(kolo_reducer *reducer)
{
    if (reducer == NULL)
        return KOLO_OK;
    kolo__driver_take_back(reducer, UINT64_MAX);
    /* A step that nobody can end is no reason to keep anything. */
    kolo_comm *comm = reducer->comm;
    bool healthy = reducer->status == KOLO_OK && comm != NULL && !comm->retired &&
                   comm->fault.status == KOLO_OK && comm->guardian->fault.status == KOLO_OK &&
                   !atomic_load(&comm->guardian->aborted) && !atomic_load(&comm->aborted);
    if (healthy && reducer->comm->outstanding > 0)
        return kolo__error(KOLO_ERR_INVALID, "kolo_reducer_free: a step is under way: end it with "
                                             "kolo_reducer_wait");
    kolo__thread_release(reducer);
    kolo__gpu_close(reducer);
    finish_requests(reducer);
    kolo__comm_destroy(reducer->comm);
    for (uint32_t i = 0; i < reducer->tensor_count; i++) {
        free(reducer->tensors[i].error);
        free(reducer->tensors[i].shadow);
        free(reducer->tensors[i].label);
    }
    kolo_free(reducer->context, reducer->arena);
    kolo_free(reducer->context, reducer->parameters);
    free(reducer->shards);
    kolo_free(reducer->context, reducer->staging);
    kolo__fusion_free(&reducer->fusion);
    sem_destroy(&reducer->own_waker.semaphore);
    sem_destroy(&reducer->done.semaphore);
    free(reducer->tensors);
    free(reducer->given);
    free(reducer->order);
    free(reducer->slots);
    free((void *)reducer->ready);
    free(reducer->used);
    free(reducer->sources);
    free(reducer->buckets);
    free(reducer->units);
    free(reducer->pieces);
    free(reducer);
    return KOLO_OK;
}

/* ---- what users ask ---------------------------------------------------------------------------
 */

void *kolo_reducer_view(const kolo_reducer *reducer, size_t tensor)
{
    if (reducer == NULL || tensor >= reducer->tensor_count)
        return NULL;
    return reducer->tensors[tensor].data;
}

kolo_status kolo_reducer_get_report(const kolo_reducer *reducer, kolo_reducer_report *report)
{
    if (reducer == NULL || report == NULL || report->size != sizeof *report)
        return kolo__error(KOLO_ERR_INVALID, "kolo_reducer_get_report: %s",
                           reducer == NULL  ? "the reducer is NULL"
                           : report == NULL ? "report is NULL"
                                            : "set report->size to sizeof(kolo_reducer_report)");
    *report = reducer->report;
    report->size = sizeof *report;
    return reducer->gpu != NULL ? kolo__gpu_report(reducer, report) : KOLO_OK;
}
