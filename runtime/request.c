/* SPDX-License-Identifier: Apache-2.0 */
/* The queue of a communicator: how operations move, how callers wait, how failures end both. */
#include "runtime/call.h"
#include "runtime/offload.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "runtime/metrics.h"
#include "runtime/timeline.h"

#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const uint64_t MICROSECOND = 1000, MILLISECOND = 1000000, SECOND = 1000000000;

/* A sleeper costs whoever wakes it more than a yield costs anybody. */
static const uint64_t YIELD_NS = 500000;

/* Then naps, in pieces after which the control plane's news is read; then sleep, which the control
 * plane ends as well. */
static const uint64_t NAPS_NS = 200000000, NAP_NS = 5000000;

enum {
    POLL_MS = 1,         /* between looks at what wakes nobody */
    STUCK_AFTER_S = 1,   /* a rank that waits longer tells the rendezvous what it waits in */
    VERDICT_MS = 1000,   /* a broken connection waits this long for the cause from the rendezvous */
    SPINS_PER_LOOK = 64, /* turns of the waiting loop between two looks at the clock */
};

/* ---- failing ------------------------------------------------------------------------------- */

static kolo_status poisoned(const kolo_comm *comm, const char *operation)
{
    return kolo__error(comm->fault.status, "%s on rank %u (host %s): %s", operation, comm->rank,
                       kolo__host_name(), comm->fault.text);
}

static void record_wait(const kolo_request *request, uint64_t begin_ticks, uint64_t end_ticks)
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
        record_wait(request, request->wait_ticks, kolo__trace_now(context->trace));
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

static void finish(kolo_request *request, kolo_status status)
{
    if (status == KOLO_OK && request->began_ns != 0)
        kolo__metrics_count_time(request);
    if (request->plan != NULL) {
        request->plan->users--;
        kolo__counter_add(&request->plan->tally.runs, status == KOLO_OK);
    } else if (status == KOLO_OK && request->comm->sheet != NULL) {
        kolo__metrics_count_message(request);
    }
    request->plan = NULL;
    request->done = true;
    request->status = status;
    if ((request->begin_ticks | request->wait_ticks) != 0)
        record(request);
}

/* The fault that the rendezvous spread for this communicator, if there is one. What another rank
 * says of its own call ("allreduce #7 did not finish") must not read as if it were about this
 * one's. Other texts name the ranks they are about. */
static bool heard(kolo_comm *comm, struct kolo__fault *fault)
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
    while (!heard(comm, fault)) {
        if (kolo__now_ns(&kolo__real_clock) > deadline)
            return false;
        struct pollfd ready = {.fd = kolo__control_fd(control), .events = POLLIN};
        poll(&ready, 1, 10);
        kolo__control_poll(control);
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
    if (comm->sheet != NULL)
        kolo__metrics_failed(comm, comm->fault.status);
    if (comm->transport != NULL)
        comm->transport->ops->fail(comm->transport, &comm->fault);
    for (kolo_request *request = comm->first; request != NULL; request = request->next)
        if (!request->done)
            finish(request, comm->fault.status);
    comm->first = comm->last = NULL;
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
static void take_news(kolo_comm *comm)
{
    struct kolo__fault fault;
    kolo_comm *guardian = comm->guardian != NULL ? comm->guardian : comm;
    if (comm->fault.status != KOLO_OK)
        return;
    if (comm->context->control != NULL && heard(comm, &fault))
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
    take_news(comm);
    return comm->fault.status != KOLO_OK ? poisoned(comm, operation) : KOLO_OK;
}

/* ---- the queue ----------------------------------------------------------------------------- */

kolo_status kolo__request_add(kolo_comm *comm, const char *operation, enum kolo__request_kind kind,
                              kolo_request **result)
{
    take_news(comm);
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
    request->post.data =
        request->kind == KOLO__REQUEST_SEND ? (void *)(uintptr_t)request->input : request->output;
    request->post.bytes = bytes_of(request);
    if (request->kind == KOLO__REQUEST_SEND)
        transport->ops->post_send(transport, request->peer, &request->post);
    else
        transport->ops->post_recv(transport, request->peer, &request->post);
}

static bool progress_message(kolo_request *request)
{
    kolo_comm *comm = request->comm;
    bool moved = !request->begun;
    if (!request->begun)
        begin_message(request);
    if (!request->post.complete)
        return moved;
    if (request->post.status != KOLO_OK)
        fail_locally(comm, &comm->transport->fault);
    else
        finish(request, KOLO_OK);
    return true;
}

static bool progress_collective(kolo_request *request)
{
    kolo_comm *comm = request->comm;
    struct kolo__fault fault = {.peer = -1};
    bool moved = false;
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
        comm->polls = request->plan->program == NULL;
        if (comm->polls)
            begun = kolo__offload_begin(request, &fault);
        else
            kolo__run_begin(request->plan->program, &arguments);
    }
    kolo_status status = begun;
    if (status == KOLO_OK)
        status = comm->polls ? kolo__offload_progress(request, &fault)
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

kolo_status kolo__request_finish(kolo_request *request)
{
    kolo_comm *comm = request->comm;
    kolo_status status = request->status;
    if (status != KOLO_OK)
        poisoned(comm, request->operation);
    request->next = comm->free_requests;
    comm->free_requests = request;
    comm->outstanding--;
    return status;
}

/* ---- waiting ------------------------------------------------------------------------------- */

/* Spinning pays while every local rank has a processor of its own; else it takes the processor from
 * the rank that one waits for. */
static uint64_t spin_ns(const kolo_comm *comm)
{
    return comm->crowded ? 0 : 100 * MICROSECOND;
}

static void sleep_until_something(kolo_comm *comm, int timeout_ms)
{
    struct kolo__transport *transport = comm->transport;
    struct pollfd ready[2];
    nfds_t count = 0;
    if (comm->polls && timeout_ms > POLL_MS)
        timeout_ms = POLL_MS;
    if (transport != NULL) {
        if (transport->ops->wait_fd(transport) < 0 || !transport->ops->arm(transport)) {
            transport->ops->disarm(transport);
            return;
        }
        ready[count++] =
            (struct pollfd){.fd = transport->ops->wait_fd(transport), .events = POLLIN};
    }
    if (comm->context->control != NULL)
        ready[count++] =
            (struct pollfd){.fd = kolo__control_fd(comm->context->control), .events = POLLIN};
    poll(ready, count, timeout_ms);
    if (transport != NULL)
        transport->ops->disarm(transport);
    if (comm->context->control != NULL)
        kolo__control_poll(comm->context->control);
}

/* False: nobody slept. */
static bool nap(kolo_comm *comm, uint64_t most_ns)
{
    if (comm->transport == NULL || comm->polls ||
        !comm->transport->ops->nap(comm->transport, most_ns < NAP_NS ? most_ns : NAP_NS))
        return false;
    if (comm->context->control != NULL)
        kolo__control_poll(comm->context->control);
    return true;
}

static void describe_wait(const kolo_request *request, char *text, size_t bytes)
{
    if (request->kind == KOLO__REQUEST_COLLECTIVE && request->plan->program == NULL)
        snprintf(text, bytes, "MPI");
    else if (request->kind == KOLO__REQUEST_COLLECTIVE && request->begun)
        kolo__run_state(request->plan->program, text, bytes);
    else if (request->kind == KOLO__REQUEST_COLLECTIVE)
        snprintf(text, bytes, "the operations started before it");
    else
        snprintf(text, bytes, "%s rank %u (host %s), %zu of %zu bytes moved",
                 request->kind == KOLO__REQUEST_SEND ? "send to" : "receive from", request->peer,
                 request->comm->hosts[request->peer], request->post.bytes_done,
                 request->post.bytes);
}

static void time_out(kolo_request *request)
{
    kolo_comm *comm = request->comm;
    struct kolo__fault fault = {.status = KOLO_ERR_TIMEOUT, .peer = -1};
    char signature[160], state[200];
    describe_wait(request, state, sizeof state);
    snprintf(fault.text, sizeof fault.text,
             "%s did not finish within %ld s; rank %u (host %s) waits for: %s. KOLO_TIMEOUT sets "
             "the limit",
             kolo__signature_text(&request->signature, signature, sizeof signature),
             comm->context->config.timeout, comm->rank, kolo__host_name(), state);
    kolo__comm_fail(comm, &fault, true);
}

/* One look at what is not checked at every turn: other threads' news, and the clock. */
static uint64_t look_around(kolo_comm *comm)
{
    take_news(comm);
    return kolo__now_ns(&kolo__real_clock);
}

/* For metrics: how long nothing has moved, and what for. */
struct lull {
    uint64_t until_ns; /* the last moment at which that was so */
    int peer;
};

/* Nothing has moved, and the caller has yielded or slept. */
static void lengthen(struct lull *lull, const kolo_comm *comm)
{
    if (comm->sheet == NULL)
        return;
    lull->until_ns = kolo__now_ns(&kolo__real_clock);
    lull->peer = kolo__metrics_peer(comm);
}

static void end_lull(struct lull *lull, kolo_comm *comm, uint64_t busy)
{
    if (comm->sheet != NULL && lull->until_ns > busy)
        kolo__metrics_waited(comm, lull->until_ns - busy, lull->peer, false);
    lull->peer = -1;
}

static kolo_status wait_for(kolo_request *request, int timeout_ms)
{
    kolo_comm *comm = request->comm;
    bool may_stop = timeout_ms >= 0, told = comm->context->control == NULL;
    bool moved = kolo__comm_progress(comm);
    /* Often what is missing are the ranks that wait for this one's processor. */
    for (int i = 0; i < 2 && !request->done && comm->crowded; i++) {
        sched_yield();
        moved = kolo__comm_progress(comm);
    }
    if (request->done)
        return kolo__request_finish(request);

    uint64_t start = kolo__now_ns(&kolo__real_clock), now = start, busy = start;
    struct lull lull = {.until_ns = start, .peer = -1};
    uint64_t deadline = start + (may_stop ? (uint64_t)timeout_ms * MILLISECOND
                                          : (uint64_t)comm->context->config.timeout * SECOND);
    for (unsigned turn = 1; !request->done; turn++, moved = kolo__comm_progress(comm)) {
        if (!moved && turn % SPINS_PER_LOOK != 0 && spin_ns(comm) > 0 && now - busy < spin_ns(comm))
            continue;
        now = look_around(comm);
        if (request->done)
            break;
        if (moved) {
            end_lull(&lull, comm, busy);
            busy = now;
            if (turn % SPINS_PER_LOOK != 0)
                continue;
        } else {
            lull.until_ns = now;
        }
        if (now >= deadline) {
            if (may_stop) {
                end_lull(&lull, comm, busy);
                return KOLO_AGAIN;
            }
            time_out(request);
            break;
        }
        if (now - busy < spin_ns(comm))
            continue;
        if (now - busy < spin_ns(comm) + YIELD_NS) {
            sched_yield();
            lengthen(&lull, comm);
            continue;
        }
        if (now - busy < spin_ns(comm) + YIELD_NS + NAPS_NS && nap(comm, deadline - now)) {
            lengthen(&lull, comm);
            continue;
        }
        if (!told && now - start > STUCK_AFTER_S * SECOND) {
            kolo__comm_stuck(request, !may_stop);
            told = true;
        }
        uint64_t left_ms = (deadline - now + MILLISECOND - 1) / MILLISECOND;
        uint64_t most_ms = told ? 1000 : 200;
        sleep_until_something(comm, (int)(left_ms < most_ms ? left_ms : most_ms));
        lengthen(&lull, comm);
    }
    end_lull(&lull, comm, busy);
    return kolo__request_finish(request);
}

__attribute__((noinline, cold)) static kolo_status wait_traced(kolo_request *request,
                                                               int timeout_ms)
{
    const struct kolo__trace *trace = request->comm->context->trace;
    uint64_t now = kolo__trace_now(trace);
    if (request->done) {
        record_wait(request, now, now);
        return wait_for(request, timeout_ms);
    }
    /* Most begin at once: the clock need not be read again. */
    if (!request->begun && request->comm->first == request)
        request->begin_ticks = now;
    request->wait_ticks = now;
    kolo_status status = wait_for(request, timeout_ms);
    if (status == KOLO_AGAIN) { /* not done, so still the caller's; else it is gone */
        request->wait_ticks = 0;
        record_wait(request, now, kolo__trace_now(trace));
    }
    return status;
}

kolo_status kolo__request_wait(kolo_request *request, int timeout_ms)
{
    return request->comm->context->trace == NULL ? wait_for(request, timeout_ms)
                                                 : wait_traced(request, timeout_ms);
}

static void rest(kolo_comm *comm, uint64_t idle_ns, uint64_t most_ns)
{
    uint64_t spin = spin_ns(comm);
    take_news(comm);
    if (comm->first == NULL)
        return;
    if (idle_ns < spin + YIELD_NS) {
        sched_yield();
        return;
    }
    if (idle_ns >= (uint64_t)comm->context->config.timeout * SECOND) {
        time_out(comm->first);
        return;
    }
    if (idle_ns < spin + YIELD_NS + NAPS_NS && nap(comm, most_ns))
        return;
    if (!comm->first->told && idle_ns > STUCK_AFTER_S * SECOND && comm->context->control != NULL) {
        kolo__comm_stuck(comm->first, false);
        comm->first->told = true;
    }
    sleep_until_something(comm, (int)((most_ns + MILLISECOND - 1) / MILLISECOND));
}

void kolo__comm_rest(kolo_comm *comm, uint64_t idle_ns, uint64_t most_ns)
{
    if (idle_ns < spin_ns(comm))
        return;
    if (comm->sheet == NULL) {
        rest(comm, idle_ns, most_ns);
        return;
    }
    uint64_t began = kolo__now_ns(&kolo__real_clock);
    int peer = kolo__metrics_peer(comm);
    rest(comm, idle_ns, most_ns);
    /* Who rests for longer and longer still waits for the same. */
    kolo__metrics_waited(comm, kolo__now_ns(&kolo__real_clock) - began, peer,
                         idle_ns > comm->rested_ns);
    comm->rested_ns = idle_ns;
}

kolo_status kolo_test(kolo_request **request)
{
    if (request == NULL || *request == NULL)
        return KOLO_OK;
    kolo_comm *comm = (*request)->comm;
    if (!(*request)->done) {
        kolo__comm_progress(comm);
        if (!(*request)->done && comm->context->control != NULL)
            kolo__control_poll(comm->context->control);
        take_news(comm);
    }
    if (!(*request)->done)
        return KOLO_AGAIN;
    kolo_request *done = *request;
    *request = NULL;
    return kolo__request_finish(done);
}

kolo_status kolo_wait(kolo_request **request, int timeout_ms)
{
    if (request == NULL || *request == NULL)
        return KOLO_OK;
    kolo_status status = kolo__request_wait(*request, timeout_ms);
    if (status != KOLO_AGAIN)
        *request = NULL;
    return status;
}
