/* SPDX-License-Identifier: Apache-2.0 */
/* The queue of a communicator: how operations move, and how failures end them. How callers wait is
 * wait.c. */
#include "runtime/bounce.h"
#include "runtime/call.h"
#include "runtime/exchange.h"
#include "runtime/nccl.h"
#include "runtime/offload.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/last_words.h"
#include "base/log.h"
#include "base/status.h"
#include "runtime/metrics.h"
#include "runtime/timeline.h"

#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const uint64_t MILLISECOND = 1000000;

enum {
    VERDICT_MS = 1000
}; /* a broken connection waits this long for the cause from the rendezvous */

/* ---- failing ------------------------------------------------------------------------------- */

static kolo_status poisoned(const kolo_comm *comm, const char *operation)
{
    return kolo__error(comm->fault.status, "%s on rank %u (host %s): %s", operation, comm->rank,
                       kolo__host_name(), comm->fault.text);
}

void kolo__request_record_wait(const kolo_request *request, uint64_t begin_ticks,
                               uint64_t end_ticks)
{
    struct kolo__trace_event event = {
        .kind = KOLO__TRACE_WAIT,
        .id = KOLO__TRACE_NO_ID,
        .comm = request->comm->id,
        .label = request->operation,
        .begin_ticks = begin_ticks,
        .end_ticks = end_ticks,
    };
    kolo__trace_record(request->comm->context->trace, &event);
}

/* With the call that waits for it, which returns now. */
__attribute__((noinline, cold)) static void record(const kolo_request *request)
{
    const kolo_context *context = request->comm->context;
    const struct kolo__signature *signature = &request->signature;
    bool collective = request->kind == KOLO__REQUEST_COLLECTIVE;
    if (!request->begun) {
        kolo__request_record_wait(request, request->wait_ticks, kolo__trace_now(context->trace));
        return;
    }
    struct kolo__trace_event event = {
        .kind = collective ? KOLO__TRACE_COLLECTIVE : KOLO__TRACE_MESSAGE,
        .id = collective ? (uint32_t)signature->sequence : request->peer,
        .comm = request->comm->id,
        .label = collective
                     ? kolo__timeline_label(context, signature->collective, signature->algorithm)
                     : request->operation,
        .bytes = signature->count * kolo_dtype_bytes(signature->dtype),
        .begin_ticks = request->begin_ticks,
        .end_ticks = kolo__trace_now(context->trace),
        .caller = request->wait_ticks != 0 ? request->operation : NULL,
        .caller_begin_ticks = request->wait_ticks,
    };
    kolo__trace_record(context->trace, &event);
}

/* For the flight recorder. */
static void record_end(const kolo_request *request, kolo_status status)
{
    struct kolo__flight_entry *entry = request->flight;
    if (!kolo__flight_is_of(entry, &request->signature))
        return;
    kolo__flight_set_phase(entry, status == KOLO_OK ? KOLO__FLIGHT_DONE : KOLO__FLIGHT_FAILED);
    if (status != KOLO_OK)
        atomic_store(&entry->wait_end_ns, kolo__now_ns(&kolo__real_clock));
}

static void finish(kolo_request *request, kolo_status status)
{
    record_end(request, status);
    if (status == KOLO_OK && request->began_ns != 0)
        kolo__metrics_count_time(request);
    if (request->plan != NULL) {
        request->plan->users--;
        kolo__counter_add(&request->plan->tally.runs, status == KOLO_OK);
    } else if (status == KOLO_OK && request->comm->sheet != NULL) {
        kolo__metrics_count_message(request);
    }
    request->plan = NULL;
    kolo__bounce_give_back(request->bounce);
    request->bounce = NULL;
    request->done = true;
    request->status = status;
    if ((request->begin_ticks | request->wait_ticks) != 0)
        record(request);
}

/* The fault that the rendezvous spread for this communicator, if there is one. What another rank
 * says of its own call ("allreduce #7 did not finish") must not read as if it were about this
 * one's. Other texts name the ranks they are about. */
bool kolo__comm_heard(const kolo_comm *comm, struct kolo__fault *fault)
{
    /* The guardian's first: what befell the world stands there behind what befell it before. */
    bool guardians = comm->guardian != NULL &&
                     kolo__control_fault(comm->context->control, comm->guardian->id, fault);
    if (!guardians && !kolo__control_fault(comm->context->control, comm->id, fault))
        return false;
    bool names_ranks = fault->status == KOLO_ERR_PEER_LOST || fault->status == KOLO_ERR_NETWORK ||
                       fault->status == KOLO_ERR_MISMATCH || fault->status == KOLO_ERR_ABORTED;
    for (uint32_t r = 0; !names_ranks && r < comm->size; r++)
        if (r != comm->rank && fault->peer == (int)comm->world_ranks[r]) {
            char text[sizeof fault->text];
            snprintf(text, sizeof text, "%s", fault->text);
            snprintf(fault->text, sizeof fault->text, "rank %u reported: %.*s", r,
                     (int)sizeof fault->text - 32, text);
        }
    return true;
}

/* A broken connection is a symptom: the rendezvous may know the cause. Waits for it a little. */
static bool hear_verdict(kolo_comm *comm, struct kolo__fault *fault)
{
    struct kolo__control *control = comm->context->control;
    uint64_t deadline = kolo__now_ns(&kolo__real_clock) + VERDICT_MS * MILLISECOND;
    while (!kolo__comm_heard(comm, fault)) {
        if (kolo__now_ns(&kolo__real_clock) > deadline)
            return false;
        struct pollfd ready = {.fd = kolo__control_fd(control), .events = POLLIN};
        poll(&ready, 1, 10);
        kolo__control_poll_woken(control);
    }
    return true;
}

/* The broadcast or reduce under way, if this is a mismatch in one. Who hears in time that a root
 * has joined (kolo_join) refuses it, and goes on to call something else; who had begun it then
 * meets that, while the cause is what it has to know. */
static const kolo_request *find_rooted(const kolo_comm *comm, kolo_status status)
{
    const kolo_request *request = comm->first;
    while (request != NULL && request->kind != KOLO__REQUEST_COLLECTIVE)
        request = request->next;
    bool rooted = request != NULL && kolo__call_has_root(request->signature.collective);
    return rooted && status == KOLO_ERR_MISMATCH ? request : NULL;
}

static atomic_flag noted = ATOMIC_FLAG_INIT;

/* The first is the cause: other communicators break of it. */
static void note_first_fault(const kolo_comm *comm)
{
    const struct kolo__config *config = &comm->context->config;
    if (!atomic_flag_test_and_set(&noted))
        kolo__last_words_write(config->last_words, config->local_rank, comm->fault.text);
}

void kolo__comm_forget_first_fault(const kolo_context *context)
{
    kolo__last_words_write(context->config.last_words, context->config.local_rank, "");
    atomic_flag_clear(&noted);
}

void kolo__comm_end(kolo_comm *comm)
{
    if (comm->transport != NULL)
        comm->transport->ops->fail(comm->transport, &comm->fault);
    kolo__nccl_fail(comm);
    kolo__exchange_fail(comm);
    for (kolo_request *request = comm->first; request != NULL; request = request->next)
        if (!request->done)
            finish(request, comm->fault.status);
    comm->first = comm->last = NULL;
    comm->held = 0;
}

void kolo__comm_fail(kolo_comm *comm, const struct kolo__fault *fault, bool spread)
{
    if (comm->fault.status != KOLO_OK)
        return;
    comm->fault = *fault;
    kolo__clean_text(comm->fault.text); /* as the others will see it */
    const kolo_request *rooted = find_rooted(comm, fault->status);
    if (spread && comm->context->control != NULL) {
        bool symptom = fault->status == KOLO_ERR_PEER_LOST || fault->status == KOLO_ERR_NETWORK;
        struct kolo__fault verdict;
        kolo__control_report(comm->context->control, comm->id, fault);
        /* The rendezvous repeats a mismatch at once, behind what it had to say of who joined. */
        if ((symptom || rooted != NULL) && hear_verdict(comm, &verdict))
            comm->fault = verdict;
    }
    if (rooted != NULL && comm->fault.status == KOLO_ERR_MISMATCH &&
        kolo__call_root_has_joined(comm, &rooted->signature, comm->fault.text,
                                   sizeof comm->fault.text))
        comm->fault.status = KOLO_ERR_INVALID;
    note_first_fault(comm);
    if (comm->sheet != NULL)
        kolo__metrics_failed(comm, comm->fault.status);
    kolo__comm_end(comm);
}

/* A fault as the transport or executor saw it: its peer is a rank of this communicator. */
static void fail_locally(kolo_comm *comm, const struct kolo__fault *seen)
{
    struct kolo__fault fault = *seen;
    if (fault.peer >= 0 && (uint32_t)fault.peer < comm->size)
        fault.peer = (int)comm->world_ranks[fault.peer];
    kolo__comm_fail(comm, &fault, true);
}

/* A fault that others found, or an abort. */
void kolo__comm_take_news(kolo_comm *comm)
{
    struct kolo__fault fault;
    kolo_comm *guardian = comm->guardian != NULL ? comm->guardian : comm;
    if (comm->fault.status != KOLO_OK)
        return;
    if (comm->context->control != NULL && kolo__comm_heard(comm, &fault))
        kolo__comm_fail(comm, &fault, false);
    else if (atomic_load(&guardian->aborted))
        kolo__comm_fail(comm, &guardian->abort_fault, false);
    else if (atomic_load(&comm->aborted))
        kolo__comm_fail(comm, &comm->abort_fault, false);
    else if (comm->context->control != NULL && kolo__control_joins(comm->context->control))
        kolo__comm_announce(comm);
}

kolo_status kolo__comm_check(kolo_comm *comm, const char *operation)
{
    kolo__comm_take_news(comm);
    return comm->fault.status != KOLO_OK ? poisoned(comm, operation) : KOLO_OK;
}

/* ---- the queue ----------------------------------------------------------------------------- */

kolo_status kolo__request_add(kolo_comm *comm, const char *operation, enum kolo__request_kind kind,
                              kolo_request **result)
{
    kolo__comm_take_news(comm);
    if (comm->fault.status != KOLO_OK)
        return poisoned(comm, operation);
    kolo_request *request = comm->free_requests;
    if (request != NULL)
        comm->free_requests = request->next;
    else if ((request = malloc(sizeof *request)) == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "%s: no memory for a request", operation);
    *request = (kolo_request){.comm = comm, .operation = operation, .kind = kind};
    comm->outstanding++;
    if (comm->last != NULL)
        comm->last->next = request;
    else
        comm->first = request;
    comm->last = request;
    *result = request;
    return KOLO_OK;
}

static size_t bytes_of(const kolo_request *request)
{
    return request->signature.count * kolo_dtype_bytes(request->signature.dtype);
}

static void begin_message(kolo_request *request)
{
    struct kolo__transport *transport = request->comm->transport;
    request->begun = true;
    if (request->begin_ticks == 0)
        request->begin_ticks = kolo__trace_now(request->comm->context->trace);
    request->post.signature = &request->signature;
    void *bounce = request->bounce != NULL ? kolo__bounce_memory(request->bounce) : NULL;
    request->post.data = bounce != NULL && !request->straight  ? bounce
                         : request->kind == KOLO__REQUEST_SEND ? (void *)(uintptr_t)request->input
                                                               : request->output;
    request->post.on_gpu = request->straight;
    request->post.bytes = bytes_of(request);
    if (request->kind == KOLO__REQUEST_SEND)
        transport->ops->post_send(transport, request->peer, &request->post);
    else
        transport->ops->post_recv(transport, request->peer, &request->post);
}

/* KOLO_AGAIN: it waits for a GPU (bounce.h), or one before it the same way does. */
static kolo_status may_begin(kolo_request *request, struct kolo__fault *fault)
{
    if (request->comm->held == 0)
        return KOLO_OK;
    for (const kolo_request *before = request->comm->first; before != request;
         before = before->next)
        if (before->kind == request->kind && !before->begun && before->peer == request->peer)
            return KOLO_AGAIN;
    return request->waits_for_gpu ? kolo__bounce_is_ready(request, fault) : KOLO_OK;
}

static bool progress_message(kolo_request *request)
{
    kolo_comm *comm = request->comm;
    struct kolo__fault fault;
    bool moved = !request->begun;
    kolo_status status = KOLO_OK;
    if (!request->begun) {
        status = may_begin(request, &fault);
        if (status == KOLO_AGAIN)
            return false;
        comm->held -= request->waits_for_gpu;
        if (status == KOLO_OK)
            begin_message(request);
    }
    if (status == KOLO_OK && request->post.wants_instead && request->post.instead == NULL) {
        status = kolo__bounce_exchange(request, &fault);
        request->post.instead = status == KOLO_OK ? kolo__bounce_memory(request->bounce) : NULL;
        moved = true;
    }
    if (status == KOLO_OK && !request->post.complete)
        return moved;
    if (status == KOLO_OK && request->post.status != KOLO_OK)
        fault = comm->transport->fault;
    if (status == KOLO_OK)
        status = request->post.status;
    if (status == KOLO_OK && request->bounce != NULL && request->kind == KOLO__REQUEST_RECV)
        status = kolo__bounce_deliver(request, &fault);
    if (status != KOLO_OK)
        fail_locally(comm, &fault);
    else
        finish(request, KOLO_OK);
    return true;
}

static bool progress_collective(kolo_request *request)
{
    kolo_comm *comm = request->comm;
    struct kolo__fault fault = {.peer = -1};
    bool moved = false, offloaded = request->plan->program == NULL;
    kolo_status begun = KOLO_OK;
    if (!request->begun) {
        struct kolo__run_arguments arguments = {
            .input = request->input,
            .output = request->output,
            .pieces = request->pieces,
            .piece_count = request->piece_count,
            .scale = request->scale,
            .signature = request->signature,
            .transport = comm->transport,
            .mapping = comm->host_mapping,
            .trace = comm->context->trace,
        };
        request->begun = true;
        if (request->begin_ticks == 0)
            request->begin_ticks = kolo__trace_now(arguments.trace);
        if (request->plan->tally.is_long)
            request->began_ns = kolo__now_ns(&kolo__real_clock);
        comm->polls = offloaded;
        if (offloaded)
            begun = kolo__offload_begin(request, &fault);
        else
            kolo__run_begin(request->plan->program, &arguments);
    }
    kolo_status status = begun;
    if (status == KOLO_OK)
        status = offloaded ? kolo__offload_progress(request, &moved, &fault)
                           : kolo__run_progress(request->plan->program, &moved, &fault);
    if (status == KOLO_AGAIN) {
        if (comm->sheet != NULL && request->began_ns == 0)
            request->began_ns = kolo__now_ns(&kolo__real_clock);
        return moved;
    }
    comm->polls = false;
    if (status != KOLO_OK)
        fail_locally(comm, &fault);
    else
        finish(request, KOLO_OK);
    return true;
}

bool kolo__comm_progress(kolo_comm *comm)
{
    bool moved = false;
    if (comm->transport != NULL)
        moved = comm->transport->ops->progress(comm->transport);

    kolo_request **link = &comm->first, *before = NULL;
    while (*link != NULL) {
        kolo_request *request = *link;
        bool collective = request->kind == KOLO__REQUEST_COLLECTIVE;
        KOLO__ASSERT(!request->done); /* what is done leaves the queue at once */
        moved |= collective ? progress_collective(request) : progress_message(request);
        if (comm->fault.status != KOLO_OK)
            return true; /* the queue is gone */
        if (!request->done) {
            if (collective)
                break; /* what comes after waits for it */
            before = request;
            link = &request->next;
            continue;
        }
        *link = request->next;
        if (comm->last == request)
            comm->last = before;
    }
    if (comm->transport != NULL && comm->transport->fault.status != KOLO_OK &&
        comm->first != NULL) {
        fail_locally(comm, &comm->transport->fault);
        return true;
    }
    return moved;
}

/* What befell another says nothing of this rank's operation. */
static void interrupted(const kolo_request *request)
{
    const kolo_comm *comm = request->comm;
    const struct kolo__flight_entry *entry = request->flight;
    char signature[160], since[40] = "";
    bool recorded = kolo__flight_is_of(entry, &request->signature);
    uint64_t begin_ns = recorded ? atomic_load(&entry->wait_begin_ns) : 0;
    if (begin_ns != 0)
        snprintf(since, sizeof since, " since %.1f s",
                 (double)(kolo__now_ns(&kolo__real_clock) - begin_ns) / 1e9);
    kolo__error(comm->fault.status, "%s on rank %u (host %s), in %s%s: %s", request->operation,
                comm->rank, kolo__host_name(),
                kolo__signature_text(&request->signature, signature, sizeof signature), since,
                comm->fault.text);
}

kolo_status kolo__request_finish(kolo_request *request)
{
    kolo_comm *comm = request->comm;
    kolo_status status = request->status;
    if (status == KOLO_ERR_PEER_LOST || status == KOLO_ERR_NETWORK)
        interrupted(request);
    else if (status != KOLO_OK)
        poisoned(comm, request->operation);
    request->next = comm->free_requests;
    comm->free_requests = request;
    comm->outstanding--;
    return status;
}
