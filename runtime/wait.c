/* SPDX-License-Identifier: Apache-2.0 */
/* How callers wait for operations: they drive everything meanwhile, and spin, yield, nap, sleep. */
#include "runtime/call.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "runtime/metrics.h"
#include "runtime/offload.h"
#include "runtime/timeline.h"

#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <time.h>

static const uint64_t MICROSECOND = 1000, MILLISECOND = 1000000, SECOND = 1000000000;

/* A sleeper costs whoever wakes it more than a yield costs anybody. */
static const uint64_t YIELD_NS = 500000;

/* Then naps, in pieces after which the control plane's news is read; then sleep, which the control
 * plane ends as well. */
static const uint64_t NAPS_NS = 200000000, NAP_NS = 5000000;

enum {
    POLL_MS = 1,         /* between looks at what wakes nobody */
    MOST_MS = 200,       /* between looks at whether hosts answer, and at what threads have heard */
    STUCK_AFTER_S = 1,   /* a rank that waits longer tells the rendezvous what it waits in */
    SPINS_PER_LOOK = 64, /* turns of the waiting loop between two looks at the clock */
};

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
    if ((comm->polls || comm->held > 0) && timeout_ms > POLL_MS)
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
    if (comm->context->control != NULL && ready[count - 1].revents != 0)
        kolo__control_poll_woken(comm->context->control);
    else if (comm->context->control != NULL)
        kolo__control_poll(comm->context->control);
}

/* False: nobody slept. */
static bool nap(kolo_comm *comm, uint64_t most_ns)
{
    if (comm->transport == NULL || comm->polls || comm->held > 0 ||
        !comm->transport->ops->nap(comm->transport, most_ns < NAP_NS ? most_ns : NAP_NS))
        return false;
    if (comm->context->control != NULL)
        kolo__control_poll(comm->context->control);
    return true;
}

static void describe_wait(const kolo_request *request, char *text, size_t bytes)
{
    if (request->kind == KOLO__REQUEST_COLLECTIVE && request->begun &&
        request->plan->program == NULL)
        kolo__offload_state(request, text, bytes);
    else if (request->kind == KOLO__REQUEST_COLLECTIVE && request->begun)
        kolo__run_state(request->plan->program, text, bytes);
    else if (request->kind == KOLO__REQUEST_COLLECTIVE)
        snprintf(text, bytes, "the operations started before it");
    else if (!request->begun)
        snprintf(text, bytes, "the GPU, or what its default stream had before the message");
    else
        snprintf(text, bytes, "%s rank %u (host %s), %zu of %zu bytes moved",
                 request->kind == KOLO__REQUEST_SEND ? "send to" : "receive from", request->peer,
                 request->comm->hosts[request->peer], request->post.bytes_done,
                 request->post.bytes);
}

void kolo__comm_culprit(const kolo_comm *comm, char *text, size_t bytes)
{
    const struct kolo__config *config = &comm->context->config;
    struct kolo__control *control = comm->context->control;
    char note[KOLO__NOTE_TEXT_BYTES];
    uint64_t lately_ns = kolo__now_ns(&kolo__real_clock) - (uint64_t)config->peer_timeout * SECOND;
    text[0] = '\0';
    if (control != NULL && kolo__control_note(control, lately_ns, note))
        snprintf(text, bytes, ". %s", note);
}

static void time_out(kolo_request *request)
{
    kolo_comm *comm = request->comm;
    struct kolo__fault fault = {.status = KOLO_ERR_TIMEOUT, .peer = -1};
    char signature[160], state[200], culprit[KOLO__NOTE_TEXT_BYTES + 2];
    describe_wait(request, state, sizeof state);
    kolo__comm_culprit(comm, culprit, sizeof culprit);
    snprintf(fault.text, sizeof fault.text,
             "%s did not finish within %ld s; rank %u (host %s) waits for: %s%s. KOLO_TIMEOUT sets "
             "the limit",
             kolo__signature_text(&request->signature, signature, sizeof signature),
             comm->context->config.timeout, comm->rank, kolo__host_name(), state, culprit);
    kolo__comm_fail(comm, &fault, true);
}

/* One look at what is not checked at every turn: other threads' news, and the clock. */
static uint64_t look_around(kolo_comm *comm)
{
    kolo__comm_take_news(comm);
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

/* Before the caller computes. Who ended by sending has a peer that wants nothing but the processor
 * to receive it, and is the last to end; who ended by receiving keeps nobody, and would only let
 * others compute first. */
static void let_receive(const kolo_comm *comm)
{
    if (comm->crowded && comm->transport != NULL && comm->transport->sent_last)
        sched_yield();
}

/* Whoever waits with a limit may do so again and again: what counts is since when. */
static void tell_if_stuck(kolo_request *request, uint64_t now, bool may_stop)
{
    if (request->told || now - request->waits_since_ns <= STUCK_AFTER_S * SECOND)
        return;
    kolo__comm_stuck(request, !may_stop);
    request->told = true;
}

static kolo_status wait_for(kolo_request *request, int timeout_ms)
{
    kolo_comm *comm = request->comm;
    bool may_stop = timeout_ms >= 0, moved = kolo__comm_progress(comm);
    /* Often what is missing are the ranks that wait for this one's processor. */
    for (int i = 0; i < 2 && !request->done && comm->crowded; i++) {
        sched_yield();
        moved = kolo__comm_progress(comm);
    }
    if (request->done) {
        let_receive(comm);
        return kolo__request_finish(request);
    }

    uint64_t start = kolo__now_ns(&kolo__real_clock), now = start, busy = start;
    if (request->waits_since_ns == 0)
        request->waits_since_ns = start;
    /* What a wait with a limit told does not say whom this rank needs. */
    request->told = comm->context->control == NULL || (may_stop && request->told);
    kolo__flight_waits(request->flight, &request->signature, request->waits_since_ns);
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
                tell_if_stuck(request, now, may_stop);
                kolo__flight_waits(request->flight, &request->signature, 0);
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
        tell_if_stuck(request, now, may_stop);
        uint64_t left_ms = (deadline - now + MILLISECOND - 1) / MILLISECOND;
        sleep_until_something(comm, (int)(left_ms < MOST_MS ? left_ms : MOST_MS));
        lengthen(&lull, comm);
    }
    end_lull(&lull, comm, busy);
    if (now != start)
        kolo__flight_waited(request->flight, &request->signature, now);
    let_receive(comm);
    return kolo__request_finish(request);
}

__attribute__((noinline, cold)) static kolo_status wait_traced(kolo_request *request,
                                                               int timeout_ms)
{
    const struct kolo__trace *trace = request->comm->context->trace;
    uint64_t now = kolo__trace_now(trace);
    if (request->done) {
        kolo__request_record_wait(request, now, now);
        return wait_for(request, timeout_ms);
    }
    /* Most begin at once: the clock need not be read again. */
    if (!request->begun && request->comm->first == request)
        request->begin_ticks = now;
    request->wait_ticks = now;
    kolo_status status = wait_for(request, timeout_ms);
    if (status == KOLO_AGAIN) { /* not done, so still the caller's; else it is gone */
        request->wait_ticks = 0;
        kolo__request_record_wait(request, now, kolo__trace_now(trace));
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
    kolo__comm_take_news(comm);
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
    kolo__flight_waits(comm->first->flight, &comm->first->signature,
                       kolo__now_ns(&kolo__real_clock) - idle_ns);
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
        kolo__comm_take_news(comm);
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
