/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kolo_renew: from one epoch of the world into the next.
 *
 *     retire   communicators end, their connections close; memory of users leaves the shared heap,
 *              so that nobody who was left behind can write into it
 *     come     tell the rendezvous, which answers once the next epoch has formed
 *     set up   as kolo_init does: introductions, heap, transports, world communicator
 *
 * A rank that is lost during the last is lost to an epoch that has formed: all others meet its
 * fault, and come for the next one.
 */
#include "runtime/context.h"

#include "base/log.h"
#include "base/status.h"
#include "runtime/call.h"
#include "runtime/comm.h"
#include "runtime/offload.h"
#include "runtime/rdma.h"
#include "runtime/timeline.h"

#include <stdlib.h>
#include <string.h>

/* ---- leaving an epoch ------------------------------------------------------------------------ */

static kolo_status detach_heap(kolo_context *context)
{
    struct kolo__heap *heap = context->heap;
    if (heap == NULL)
        return KOLO_OK;
    if (kolo__heap_is_empty(heap)) {
        kolo__heap_close(heap);
        context->heap = NULL;
        return KOLO_OK;
    }
    struct kolo__heap **heaps =
        realloc(context->old_heaps, (context->old_heap_count + 1) * sizeof(struct kolo__heap *));
    if (heaps == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "kolo_renew: no memory to keep that of kolo_alloc");
    context->old_heaps = heaps;
    kolo_status status = kolo__heap_detach(heap);
    if (status != KOLO_OK)
        return status;
    heaps[context->old_heap_count++] = heap;
    context->heap = NULL;
    return KOLO_OK;
}

/* Heaps of which nothing is left. */
static void close_empty_heaps(kolo_context *context)
{
    size_t kept = 0;
    for (size_t i = 0; i < context->old_heap_count; i++) {
        if (kolo__heap_is_empty(context->old_heaps[i]))
            kolo__heap_close(context->old_heaps[i]);
        else
            context->old_heaps[kept++] = context->old_heaps[i];
    }
    context->old_heap_count = kept;
}

/* Also what a set-up that failed has left. */
static kolo_status retire(kolo_context *context)
{
    for (kolo_comm *comm = context->comms; comm != NULL; comm = comm->next)
        kolo__comm_retire(comm);
    kolo__timeline_close(context);
    kolo__offload_close(context, false);
    kolo__context_close_rdma(context);
    close_empty_heaps(context);
    return detach_heap(context);
}

/* ---- the next epoch -------------------------------------------------------------------------- */

static uint32_t patience_ms(const kolo_context *context, const kolo_renew_options *options)
{
    bool given = options != NULL && options->timeout_ms > 0;
    uint64_t ms = given ? (uint64_t)options->timeout_ms : (uint64_t)context->config.timeout * 1000;
    return ms < INT32_MAX ? (uint32_t)ms : INT32_MAX;
}

/* Another rank was lost, or could not be reached, after the epoch had formed: the next one is
 * without it. */
static bool is_of_others(kolo_status status)
{
    return status == KOLO_ERR_PEER_LOST || status == KOLO_ERR_NETWORK || status == KOLO_ERR_TIMEOUT;
}

static kolo_status enter_next(kolo_context *context, const kolo_renew_options *options,
                              bool *formed)
{
    uint32_t epoch = context->epoch;
    kolo_status status = kolo__world_rejoin(context, patience_ms(context, options));
    *formed = context->epoch != epoch;
    if (status == KOLO_OK)
        status = kolo__context_equip(context);
    if (*formed && status != KOLO_OK && !is_of_others(status))
        kolo__context_report(context, status); /* to those who went on with this rank */
    return status;
}

kolo_status kolo__context_go_on(kolo_context *context, const kolo_renew_options *options,
                                kolo_status status)
{
    uint32_t tries = context->size + 3; /* each takes a rank with it, or so does the network */
    bool formed = true;
    while (formed && is_of_others(status) && --tries > 0) {
        kolo__log(KOLO__LOG_WARN, "epoch %u of the world broke before it was complete: %s",
                  context->epoch, kolo_error_text());
        status = retire(context);
        if (status == KOLO_OK)
            status = enter_next(context, options, &formed);
    }
    if (status == KOLO_OK)
        kolo__comm_forget_first_fault(context);
    return status;
}

static kolo_status check(const kolo_context *context, const kolo_renew_options *options)
{
    if (context == NULL)
        return kolo__error(KOLO_ERR_INVALID, "kolo_renew: the context is NULL");
    if (options != NULL && options->size != sizeof *options)
        return kolo__error(KOLO_ERR_INVALID,
                           "kolo_renew: set options->size to sizeof(kolo_renew_options)");
    if (options != NULL && options->timeout_ms < 0)
        return kolo__error(KOLO_ERR_INVALID, "kolo_renew: options->timeout_ms is negative");
    if (context->left)
        return kolo__error(KOLO_ERR_WORLD, "kolo_renew: this rank has left the world");
    if (context->control == NULL)
        return kolo__error(KOLO_ERR_UNSUPPORTED,
                           "kolo_renew: this world of one has no rendezvous, by which others could "
                           "come: start it with kolo run");
    if (options != NULL && options->leave != 0 && context->place.server != NULL)
        return kolo__error(KOLO_ERR_UNSUPPORTED,
                           "kolo_renew: this rank's process holds the rendezvous, and cannot leave "
                           "before the others: with kolo run the launcher holds it");
    return KOLO_OK;
}

kolo_status kolo_renew(kolo_context *context, const kolo_renew_options *options)
{
    kolo_status status = check(context, options);
    if (status == KOLO_OK)
        status = retire(context);
    if (status != KOLO_OK)
        return status;
    if (options != NULL && options->leave != 0) {
        context->left = true;
        kolo__control_bye(context->control);
        return KOLO_OK;
    }
    bool formed;
    status = enter_next(context, options, &formed);
    return formed ? kolo__context_go_on(context, options, status) : status;
}

/* ---- when, and what came of it --------------------------------------------------------------- */

kolo_status kolo_renewal_wanted(kolo_context *context, int leaving, int *wanted)
{
    if (context == NULL || wanted == NULL)
        return kolo__error(KOLO_ERR_INVALID, "kolo_renewal_wanted: %s is NULL",
                           context == NULL ? "the context" : "wanted");
    int32_t any = leaving != 0;
    if (context->control != NULL) {
        kolo__control_poll(context->control);
        any |= kolo__control_newcomers(context->control) > 0;
    }
    struct kolo__call call =
        kolo__call_allreduce("kolo_renewal_wanted", &any, 1, KOLO_INT32, KOLO_MAX);
    kolo_status status = kolo__call_run(context->world, &call);
    *wanted = status == KOLO_OK && any != 0;
    return status;
}

kolo_status kolo_get_epoch_report(const kolo_context *context, kolo_epoch_report *report)
{
    if (context == NULL || report == NULL || report->size != sizeof *report)
        return kolo__error(KOLO_ERR_INVALID, "kolo_get_epoch_report: %s",
                           context == NULL  ? "the context is NULL"
                           : report == NULL ? "report is NULL"
                                            : "set report->size to sizeof(kolo_epoch_report)");
    *report = (kolo_epoch_report){.size = sizeof *report, .gone = ""};
    if (context->control == NULL)
        return KOLO_OK;
    const struct kolo__epoch *epoch = kolo__control_epoch(context->control);
    report->epoch = (int)epoch->number;
    report->survivors = (int)epoch->survivors;
    report->previous_size = (int)epoch->previous_size;
    report->gone = epoch->gone;
    return KOLO_OK;
}

int kolo_previous_rank(const kolo_context *context, int rank)
{
    if (context == NULL || context->control == NULL || rank < 0)
        return -1;
    const struct kolo__epoch *epoch = kolo__control_epoch(context->control);
    return (uint32_t)rank < epoch->survivors ? (int)epoch->previous[rank] : -1;
}
