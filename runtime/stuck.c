/* SPDX-License-Identifier: Apache-2.0 */
/* What a rank that waits too long tells the rendezvous (verdict.h). */
#include "runtime/comm.h"

#include <stdlib.h>

/* What must be done before the request can be: the first collective up to it holds up the rest. */
static const kolo_request *holding_up(const kolo_request *request)
{
    for (const kolo_request *r = request->comm->first; r != NULL && r != request; r = r->next)
        if (r->kind == KOLO__REQUEST_COLLECTIVE)
            return r;
    return request;
}

/* Whose call this rank's part of a collective needs, by what the collective means: how messages
 * happen to run does not count, but with mapped memory all ranks wait for all. */
static enum kolo__verdict_needs needs_of_collective(const kolo_request *request)
{
    bool at_root = request->signature.root == request->comm->rank;
    if (request->plan->algorithm->needs_mapping)
        return KOLO__NEEDS_ALL;
    switch ((enum kolo__collective)request->signature.collective) {
    case KOLO__BARRIER:
        return KOLO__NEEDS_ALL;
    case KOLO__BROADCAST:
        return at_root ? KOLO__NEEDS_NOBODY : KOLO__NEEDS_ONE;
    case KOLO__REDUCE_TO_ROOT:
        return at_root && request->signature.count > 0 ? KOLO__NEEDS_ALL : KOLO__NEEDS_NOBODY;
    default:
        return request->signature.count > 0 ? KOLO__NEEDS_ALL : KOLO__NEEDS_NOBODY;
    }
}

static void say_what_is_needed(const kolo_request *request, struct kolo__verdict_report *report)
{
    const kolo_comm *comm = request->comm;
    report->waited_in = request->signature;
    switch (request->kind) {
    case KOLO__REQUEST_RECV:
        report->needs = KOLO__NEEDS_ONE;
        report->from = comm->world_ranks[request->peer];
        break;
    case KOLO__REQUEST_COLLECTIVE:
        report->needs = needs_of_collective(request);
        report->from = comm->world_ranks[request->signature.root];
        break;
    default: /* a send may end without its receiver: the network holds some bytes */
        report->needs = KOLO__NEEDS_NOBODY;
        break;
    }
}

/* False: too many peers, or no memory. */
static bool say_what_was_sent(const kolo_comm *comm, struct kolo__verdict_report *report)
{
    report->sent = calloc(comm->size, sizeof *report->sent);
    for (uint32_t r = 0; report->sent != NULL && r < comm->size; r++)
        if (comm->send_sequence[r] > 0)
            report->sent[report->sent_count++] =
                (struct kolo__verdict_sent){comm->world_ranks[r], comm->send_sequence[r]};
    return report->sent != NULL && report->sent_count <= KOLO__VERDICT_SENT_MAX;
}

/* Oldest first. */
static void say_what_was_called(const kolo_comm *comm, struct kolo__verdict_report *report)
{
    uint64_t end = comm->recent_count;
    uint64_t begin = end > KOLO__VERDICT_RECENT ? end - KOLO__VERDICT_RECENT : 0;
    for (uint64_t i = begin; i < end; i++)
        report->recent[report->count++] = comm->recent[i % KOLO__VERDICT_RECENT];
}

void kolo__comm_stuck(const kolo_request *request, bool without_limit)
{
    const kolo_comm *comm = request->comm;
    struct kolo__verdict_report report = {.comm = comm->id, .needs = KOLO__NEEDS_NOBODY};
    say_what_was_called(comm, &report);
    if (without_limit)
        say_what_is_needed(holding_up(request), &report);
    /* Without the whole of it nothing can be concluded from this rank's wait. */
    if (report.needs != KOLO__NEEDS_NOBODY && !say_what_was_sent(comm, &report)) {
        report.needs = KOLO__NEEDS_NOBODY;
        report.sent_count = 0;
    }
    kolo__control_stuck(comm->context->control, &report);
    free(report.sent);
}
