/* SPDX-License-Identifier: Apache-2.0 */
/* What the end of a step makes of its sums: zeros for gradients that this rank did not use, results
 * for those that others did, the norm of all, and clipping. */
#include "runtime/reducer/gpu.h"

#include "base/status.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Memory that stands in for a gradient which this rank did not compute; kept for the next time. */
static kolo_status make_shadow(kolo_reducer *reducer, struct kolo__reducer_tensor *tensor)
{
    size_t bytes = tensor->count * kolo_dtype_bytes(tensor->dtype);
    if (reducer->views) {
        memset(tensor->data, 0, bytes);
        return KOLO_OK;
    }
    if (tensor->shadow == NULL)
        tensor->shadow = malloc(bytes > 0 ? bytes : 1);
    if (tensor->shadow == NULL)
        return kolo__error(KOLO_ERR_MEMORY,
                           "kolo_reducer_wait: no %zu bytes for tensor '%s', "
                           "which this rank did not use",
                           bytes, tensor->label != NULL ? tensor->label : "(no name)");
    memset(tensor->shadow, 0, bytes);
    return KOLO_OK;
}

kolo_status kolo__reducer_take_for_unused(kolo_reducer *reducer)
{
    for (uint32_t i = 0; i < reducer->tensor_count; i++) {
        struct kolo__reducer_tensor *tensor = &reducer->tensors[i];
        atomic_uchar *ready = &reducer->ready[reducer->slots[i]];
        if (atomic_load_explicit(ready, memory_order_relaxed))
            continue;
        tensor->unused = true;
        kolo_status status = reducer->gpu != NULL ? kolo__gpu_take_for_unused(reducer, i)
                                                  : make_shadow(reducer, tensor);
        if (status != KOLO_OK)
            return status;
        atomic_store_explicit(ready, KOLO__RETURNED, memory_order_release);
    }
    return KOLO_OK;
}

int kolo_reducer_used(const kolo_reducer *reducer, size_t tensor)
{
    if (reducer == NULL || tensor >= reducer->tensor_count)
        return 0;
    return !reducer->options.allow_unused || (reducer->used[tensor / 64] >> tensor % 64 & 1) != 0;
}

/* What others used this rank has a result for as well. */
static void keep_used(kolo_reducer *reducer)
{
    for (uint32_t i = 0; i < reducer->tensor_count; i++) {
        struct kolo__reducer_tensor *tensor = &reducer->tensors[i];
        if (tensor->unused && !reducer->views && kolo_reducer_used(reducer, i))
            memcpy(tensor->data, tensor->shadow, tensor->count * kolo_dtype_bytes(tensor->dtype));
    }
}

static void clip(kolo_reducer *reducer, double factor)
{
    for (size_t k = 0; reducer->options.sharded; k++) {
        kolo_reducer_shard piece;
        if (kolo_reducer_piece(reducer, k, &piece) != KOLO_OK)
            return;
        kolo__scale(piece.dtype, piece.gradients, piece.count, factor);
    }
    for (uint32_t i = 0; i < reducer->tensor_count; i++) {
        struct kolo__reducer_tensor *tensor = &reducer->tensors[i];
        if (kolo_reducer_used(reducer, i))
            kolo__scale(tensor->dtype, tensor->data, tensor->count, factor);
    }
}

static void draw_statistics(kolo_reducer *reducer)
{
    kolo_reducer_report *report = &reducer->report;
    double squares = kolo__norm_total(&reducer->norm);
    bool finite = !reducer->norm.not_finite;
    if (reducer->options.sharded) {
        squares = reducer->squares[0];
        finite = reducer->squares[1] == 0;
    }
    report->norm = sqrt(squares);
    report->finite = finite;
    report->clip_factor = 1;
    double limit = reducer->options.clip_norm;
    if (limit > 0 && finite && isfinite(report->norm) && report->norm > limit) {
        report->clip_factor = limit / report->norm;
        clip(reducer, report->clip_factor);
    }
}

void kolo__reducer_draw(kolo_reducer *reducer)
{
    if (reducer->gpu != NULL) /* it has queued all of that */
        return;
    if (reducer->options.allow_unused)
        keep_used(reducer);
    if (reducer->options.statistics)
        draw_statistics(reducer);
}
