/* SPDX-License-Identifier: Apache-2.0 */
/* The any-order mode: begin and end, and submissions. See named.h. */
#include "runtime/reducer/named.h"

#include "base/status.h"
#include "runtime/call.h"
#include "runtime/reducer/tensors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Fits into the second level of most caches. */
static const size_t BUCKET_BYTES = 1 << 20;

/* ---- create and free --------------------------------------------------------------------------
 */

static kolo_status refuse(const char *what)
{
    return kolo__error(KOLO_ERR_INVALID, "kolo_named_create: %s", what);
}

static kolo_status find_gpu(kolo_named *named)
{
    const struct kolo__device_module *gpus;
    kolo_status status = kolo__device_load(&gpus);
    return status == KOLO_OK ? gpus->ordinal_of_stream(named->call.stream, &named->ordinal)
                             : status;
}

static kolo_status take_options(kolo_named *named, const kolo_reducer_options *given, int ranks)
{
    kolo_reducer_options o =
        given != NULL ? *given : (kolo_reducer_options){.size = sizeof(kolo_reducer_options)};
    if (o.size != sizeof o)
        return refuse("set options->size to sizeof(kolo_reducer_options)");
    if (o.first_bucket_bytes != 0 || o.wire != KOLO_WIRE_SAME || o.error_feedback != 0 ||
        o.statistics != 0 || o.clip_norm != 0 || o.allow_unused != 0 || o.sharded != 0 ||
        o.fixed_order != 0 || o.no_overlap != 0)
        return refuse("only sum, scale, bucket_bytes and stream count here: leave the other "
                      "options 0");
    if (!isfinite(o.scale))
        return refuse("options->scale is not finite");
    double scale = o.scale == 0 ? 1 : o.scale;
    named->sums = o.sum != 0;
    named->op = named->sums ? KOLO_SUM : KOLO_AVERAGE;
    if (scale != 1)
        named->op = KOLO_PREMUL_SUM;
    named->call = (kolo_call_options){.size = sizeof named->call,
                                      .scale = named->sums ? scale : scale / ranks,
                                      .stream = o.stream};
    named->bucket_bytes = o.bucket_bytes != 0 ? o.bucket_bytes : BUCKET_BYTES;
    return o.stream != NULL ? find_gpu(named) : KOLO_OK;
}

static kolo_status take_memory(kolo_named *named)
{
    named->sizes = calloc(named->comm->size, sizeof *named->sizes);
    if (named->sizes == NULL || !kolo__named_make_room(named, 0))
        return kolo__error(KOLO_ERR_MEMORY, "kolo_named_create: no memory for %u ranks",
                           named->comm->size);
    return kolo__scratch_make(named->context, named->ordinal, named->bucket_bytes, &named->staging);
}

/* What this rank can do and check by itself. */
static kolo_status begin(kolo_comm *comm, const kolo_reducer_options *options, kolo_named **result)
{
    kolo_named *named = calloc(1, sizeof *named);
    if (named == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "kolo_named_create: no memory");
    *result = named;
    named->context = comm->context;
    named->ordinal = -1;
    return take_options(named, options, kolo_comm_size(comm));
}

static kolo_status compare(const kolo_named *named, kolo_comm *comm)
{
    const struct kolo__setting settings[] = {
        {"sum", named->sums},
        {"bucket_bytes", (double)named->bucket_bytes},
        {"a scale other than 1", named->op == KOLO_PREMUL_SUM},
        {"a stream of a GPU", named->ordinal >= 0},
    };
    return kolo__tensors_compare(comm, "kolo_named_create", NULL, 0, settings,
                                 sizeof settings / sizeof *settings, NULL);
}

/* On a communicator that all ranks have made: what fails now the others must hear of. */
static kolo_status complete(kolo_named *named)
{
    kolo_comm *comm = named->comm;
    /* As for reducers: over shared memory rank order costs nothing, and makes bits independent of
     * what shares a bucket. */
    if (comm->mapping != NULL && comm->guardian->plan_context.preferred[0] == '\0')
        comm->plan_context.deterministic = true;
    comm->owner = named;
    comm->rejoined = kolo__named_rejoined;
    kolo_status status = take_memory(named);
    if (status != KOLO_OK)
        kolo__tensors_give_up(comm, status);
    return status;
}

kolo_status kolo_named_create(kolo_comm *comm, const kolo_reducer_options *options,
                              kolo_named **result)
{
    kolo_named *named = NULL;
    if (comm == NULL)
        return refuse("the communicator is NULL");
    kolo_status status = result != NULL ? begin(comm, options, &named) : refuse("named is NULL");
    if (result != NULL)
        *result = NULL;
    if (status != KOLO_OK) {
        status = kolo__tensors_refuse(comm, "kolo_named_create", status);
        kolo_named_free(named);
        return status;
    }
    status = compare(named, comm);
    if (status == KOLO_OK)
        status = kolo__comm_duplicate(comm, &named->comm);
    if (status == KOLO_OK)
        status = complete(named);
    if (status != KOLO_OK) {
        kolo_named_free(named);
        return status;
    }
    *result = named;
    return KOLO_OK;
}

kolo_status kolo_named_free(kolo_named *named)
{
    if (named == NULL)
        return KOLO_OK;
    if (named->request != NULL && named->comm->fault.status == KOLO_OK)
        return kolo__error(KOLO_ERR_INVALID,
                           "kolo_named_free: %zu tensors are under way: end them "
                           "with kolo_named_wait",
                           named->pending_count);
    if (named->request != NULL)
        kolo__request_finish(named->request);
    kolo__comm_destroy(named->comm);
    kolo__scratch_free(named->context, &named->staging);
    kolo__names_free(&named->known);
    kolo__names_free(&named->fresh);
    kolo__frame_writer_free(&named->announcement);
    free(named->pending);
    free(named->agreed);
    free(named->pieces);
    free(named->lacks);
    free(named->sizes);
    free(named->announcements);
    free(named);
    return KOLO_OK;
}

/* ---- submit -----------------------------------------------------------------------------------
 */

static kolo_status check(const kolo_named *named, const kolo_tensor *tensor)
{
    static const char operation[] = "kolo_named_submit";
    if (named == NULL || tensor == NULL)
        return kolo__error(KOLO_ERR_INVALID, "%s: %s is NULL", operation,
                           named == NULL ? "named" : "tensor");
    if (named->status != KOLO_OK)
        return kolo__error(named->status, "%s", named->error);
    if (tensor->name == NULL || tensor->name[0] == '\0')
        return kolo__error(KOLO_ERR_INVALID,
                           "%s: the tensor has no name, and is found by nothing "
                           "else",
                           operation);
    if (strnlen(tensor->name, KOLO__NAME_BYTES_MAX + 1) > KOLO__NAME_BYTES_MAX)
        return kolo__error(KOLO_ERR_INVALID, "%s: name '%.60s...' has more than %d bytes",
                           operation, tensor->name, KOLO__NAME_BYTES_MAX);
    if (tensor->data == NULL && tensor->count > 0)
        return kolo__error(KOLO_ERR_INVALID, "%s: tensor '%.80s' has no data", operation,
                           tensor->name);
    int ordinal;
    kolo_status status =
        kolo__tensors_check(operation, tensor, 1, named->op == KOLO_PREMUL_SUM, &ordinal);
    if (status != KOLO_OK || tensor->count == 0 || ordinal == named->ordinal)
        return status;
    if (named->ordinal < 0)
        return kolo__error(KOLO_ERR_INVALID,
                           "%s: tensor '%.80s' is in memory of GPU %d: give kolo_named_create a "
                           "stream of that GPU in options->stream",
                           operation, tensor->name, ordinal);
    return kolo__error(KOLO_ERR_INVALID,
                       "%s: tensor '%.80s' is not in memory of GPU %d, whose stream "
                       "kolo_named_create was given: all tensors have to be there",
                       operation, tensor->name, named->ordinal);
}

kolo_status kolo_named_submit(kolo_named *named, const kolo_tensor *tensor)
{
    kolo_status status = check(named, tensor);
    if (status != KOLO_OK)
        return status;
    struct kolo__name *entry = kolo__names_find(&named->known, tensor->name);
    bool known = entry != NULL && kolo__names_agree(&entry->tensor, tensor);
    if ((entry != NULL && entry->pending) || kolo__names_find(&named->fresh, tensor->name) != NULL)
        return kolo__error(KOLO_ERR_INVALID,
                           "kolo_named_submit: tensor '%.80s' is under way already: call "
                           "kolo_named_wait before you submit it again",
                           tensor->name);
    /* One that is known with another shape is announced as well: then all ranks see both. */
    if (!known)
        status = kolo__names_add(&named->fresh, tensor, named->comm->rank, &entry);
    if (status != KOLO_OK)
        return status;
    entry->tensor.data = tensor->data;
    entry->pending = true;
    entry->told = false;
    entry->since_ns = kolo__named_now();
    if (named->pending_count++ == 0)
        named->oldest_ns = entry->since_ns;
    named->news = true;
    if (known) {
        size_t place = (size_t)(entry - named->known.entries);
        named->pending[place / 64] |= UINT64_C(1) << place % 64;
    }
    return KOLO_OK;
}

/* ---- kolo_join --------------------------------------------------------------------------------
 */

static kolo_status broadcast(kolo_named *named, void *data, size_t bytes, uint32_t root)
{
    const struct kolo__call call = kolo__call_broadcast("kolo_join", data, bytes, KOLO_UINT8, root);
    return kolo__call_run(named->comm, &call);
}

/* What this rank submitted before it joined is pending still, and gets the places of the table. */
static kolo_status take_table(kolo_named *named, const unsigned char *data, size_t bytes)
{
    size_t differences = 0;
    char text[KOLO__NAMES_TEXT_BYTES];
    kolo_status status = KOLO_OK;
    for (size_t i = 0; i < named->known.count && status == KOLO_OK; i++) {
        const struct kolo__name *old = &named->known.entries[i];
        struct kolo__name *kept;
        if (!old->pending)
            continue;
        status = kolo__names_add(&named->fresh, &old->tensor, named->comm->rank, &kept);
        if (status != KOLO_OK)
            return status;
        kept->tensor.data = old->tensor.data;
        kept->pending = true;
        kept->since_ns = old->since_ns;
    }
    kolo__names_free(&named->known);
    memset(named->pending, 0, named->capacity * sizeof *named->pending);
    status = kolo__names_merge(&named->known, data, bytes, &differences, text);
    if (status == KOLO_OK && !kolo__named_make_room(named, named->known.count))
        status =
            kolo__error(KOLO_ERR_MEMORY, "kolo_join: no memory for %zu names", named->known.count);
    return status == KOLO_OK ? kolo__named_settle(named) : status;
}

kolo_status kolo__named_rejoined(void *self, uint32_t last)
{
    kolo_named *named = self;
    struct kolo__frame_writer writer = {0};
    bool is_root = named->comm->rank == last;
    if (named->status != KOLO_OK)
        return kolo__error(named->status, "%s", named->error);
    if (is_root)
        kolo__names_write(&named->known, &writer);
    uint64_t bytes = writer.bytes;
    kolo_status status = broadcast(named, &bytes, sizeof bytes, last);
    unsigned char *data = is_root ? writer.data : NULL;
    if (status == KOLO_OK && !is_root && bytes <= UINT32_MAX)
        data = malloc(bytes);
    if (status == KOLO_OK && (data == NULL || writer.failed))
        status = kolo__error(KOLO_ERR_MEMORY, "kolo_join: no memory for %llu bytes of names",
                             (unsigned long long)bytes);
    if (status == KOLO_OK)
        status = broadcast(named, data, bytes, last);
    if (status == KOLO_OK && !is_root)
        status = take_table(named, data, bytes);
    if (!is_root)
        free(data);
    kolo__frame_writer_free(&writer);
    named->news = true;
    return status;
}
