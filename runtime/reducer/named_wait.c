/* SPDX-License-Identifier: Apache-2.0 */
/* kolo_named_wait: runs batches, keeps to deadlines, and says what is waited for in vain. */
#include "runtime/reducer/named.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const uint64_t MILLISECOND = 1000000, SECOND = 1000000000;

/* Somebody is told after so long, or after half of KOLO_TIMEOUT. */
static const uint64_t TELL_AFTER_S = 5;

/* A wait goes on past its deadline for so long, to ask the others what they lack. */
static const uint64_t GRACE_NS = 1000000000;

/* Between batches that get nothing done, which are those of ranks that look in from time to time:
 * doubling. */
static const uint64_t PAUSE_NS = 50000;
enum { PAUSE_DOUBLINGS_MAX = 7 };

uint64_t kolo__named_now(void)
{
    return kolo__now_ns(&kolo__real_clock);
}

/* What a wait has to keep in mind. */
struct wait {
    bool unlimited;
    bool tried; /* a batch has begun */
    uint64_t begin_ns, most_ns;
};

/* Without a limit what counts is that something moves. */
static uint64_t deadline_of(const kolo_named *named, const struct wait *wait)
{
    bool moved = wait->unlimited && named->moved_ns > wait->begin_ns;
    return (moved ? named->moved_ns : wait->begin_ns) + wait->most_ns;
}

static uint64_t tell_after_ns(const kolo_named *named)
{
    uint64_t half = (uint64_t)named->context->config.timeout * SECOND / 2;
    return half < TELL_AFTER_S * SECOND ? half : TELL_AFTER_S * SECOND;
}

/* ---- giving up --------------------------------------------------------------------------------
 */

/* The last error is this object's from now on. The others learn of it, unless they know already. */
static kolo_status give_up(kolo_named *named, kolo_status status)
{
    bool all_know = status == KOLO_ERR_MISMATCH || status == KOLO_ERR_INVALID;
    named->status = status;
    snprintf(named->error, sizeof named->error, "%s", kolo_error_text());
    if (!all_know && named->comm->fault.status == KOLO_OK) {
        struct kolo__fault fault = {.status = status, .peer = -1};
        snprintf(fault.text, sizeof fault.text, "%s", named->error);
        kolo__comm_fail(named->comm, &fault, true);
    }
    if (named->request != NULL)
        kolo__request_finish(named->request);
    named->request = NULL;
    return kolo__error(status, "%s", named->error);
}

/* What the request under way waits for. */
static const char *state_of(const kolo_named *named, char *text, size_t bytes)
{
    const kolo_request *request = named->request;
    if (request->begun && request->plan != NULL && request->plan->program == NULL)
        return "MPI";
    if (request->begun && request->plan != NULL)
        return kolo__run_state(request->plan->program, text, bytes);
    return "it has not begun";
}

/* Not all ranks came to this batch, or one of them got stuck in it. */
static kolo_status time_out(const kolo_named *named)
{
    char names[200], state[200];
    kolo__names_pending(&named->known, &named->fresh, names, sizeof names);
    return kolo__error(KOLO_ERR_TIMEOUT,
                       "kolo_named_wait on rank %u (host %s): %s not reduced within %ld s: %s (%s)",
                       named->comm->rank, kolo__host_name(), names, named->context->config.timeout,
                       named->stage == KOLO__NAMED_AGREE
                           ? "some rank did not come to kolo_named_wait"
                           : "a batch did not end",
                       state_of(named, state, sizeof state));
}

static void warn_of_absence(kolo_named *named)
{
    char names[200], state[200];
    kolo__names_pending(&named->known, &named->fresh, names, sizeof names);
    kolo__log(KOLO__LOG_WARN,
              "kolo_named_wait: %s: for %.1f s some rank has not come to kolo_named_wait (%s)",
              names, (double)(kolo__named_now() - named->began_ns) * 1e-9,
              state_of(named, state, sizeof state));
    named->warned = true;
}

/* ---- who lacks what ---------------------------------------------------------------------------
 */

kolo_status kolo__named_tell(kolo_named *named)
{
    char text[KOLO__NAMES_TEXT_BYTES];
    uint64_t now = kolo__named_now(), before = now - (named->expired ? 0 : tell_after_ns(named));
    size_t count = kolo__names_missing(&named->known, named->names, named->lacks, named->words - 1,
                                       named->comm->size, true, before, text, sizeof text);
    if (count > 0 && named->expired)
        return kolo__error(
            KOLO_ERR_TIMEOUT, "kolo_named_wait on rank %u (host %s): not reduced within %ld s: %s",
            named->comm->rank, kolo__host_name(), named->context->config.timeout, text);
    if (count > 0)
        kolo__log(KOLO__LOG_WARN, "kolo_named_wait: for more than %.1f s: %s",
                  (double)tell_after_ns(named) * 1e-9, text);
    for (size_t i = 0; i < named->names; i++)
        named->known.entries[i].told |=
            named->known.entries[i].pending && named->known.entries[i].since_ns <= before;
    return KOLO_OK;
}

/* True: something has waited for long, and nobody was told. */
static bool has_waited_for_long(kolo_named *named, uint64_t now)
{
    uint64_t limit = tell_after_ns(named);
    if (now - named->oldest_ns < limit)
        return false;
    named->oldest_ns = now;
    for (size_t i = 0; i < named->known.count; i++) {
        const struct kolo__name *entry = &named->known.entries[i];
        if (entry->pending && !entry->told && entry->since_ns < named->oldest_ns)
            named->oldest_ns = entry->since_ns;
    }
    return now - named->oldest_ns >= limit;
}

/* ---- waiting ----------------------------------------------------------------------------------
 */

static void pause_for(uint64_t ns)
{
    struct timespec pause = {.tv_nsec = (long)ns};
    nanosleep(&pause, NULL);
}

/* KOLO_AGAIN: there is no time for another batch. */
static kolo_status begin_batch(kolo_named *named, struct wait *wait)
{
    uint64_t now = kolo__named_now(), deadline = deadline_of(named, wait);
    if (named->in_vain > 0 && !named->news && now < deadline) {
        unsigned doublings =
            named->in_vain < PAUSE_DOUBLINGS_MAX ? named->in_vain : PAUSE_DOUBLINGS_MAX;
        uint64_t pause = PAUSE_NS << doublings;
        pause_for(pause < deadline - now ? pause : deadline - now);
        now = kolo__named_now();
    }
    if (!wait->unlimited && wait->tried && now >= deadline)
        return KOLO_AGAIN;
    wait->tried = true;
    named->expired = wait->unlimited && now >= deadline;
    named->warned = false;
    return kolo__named_begin(named, wait->unlimited,
                             named->expired || has_waited_for_long(named, now));
}

static int milliseconds_until(uint64_t when)
{
    uint64_t now = kolo__named_now();
    uint64_t ms = when > now ? (when - now + MILLISECOND - 1) / MILLISECOND : 0;
    return ms < INT_MAX ? (int)ms : INT_MAX;
}

static kolo_status wait_for_request(kolo_named *named, const struct wait *wait)
{
    uint64_t end = deadline_of(named, wait) + (wait->unlimited ? GRACE_NS : 0);
    uint64_t warn = named->began_ns + tell_after_ns(named);
    for (;;) {
        bool may_warn = named->stage == KOLO__NAMED_AGREE && !named->warned && warn < end;
        kolo_status status =
            kolo__request_wait(named->request, milliseconds_until(may_warn ? warn : end));
        if (status != KOLO_AGAIN) {
            named->request = NULL;
            return status;
        }
        if (may_warn)
            warn_of_absence(named);
        else
            return wait->unlimited ? time_out(named) : KOLO_AGAIN;
    }
}

static kolo_status run_batches(kolo_named *named, struct wait *wait)
{
    kolo_status status = KOLO_OK;
    while (status == KOLO_OK && (named->pending_count > 0 || named->stage != KOLO__NAMED_BETWEEN)) {
        if (named->stage == KOLO__NAMED_BETWEEN)
            status = begin_batch(named, wait);
        if (status == KOLO_OK && named->request != NULL)
            status = wait_for_request(named, wait);
        if (status == KOLO_OK)
            status = kolo__named_advance(named);
    }
    return status;
}

kolo_status kolo_named_wait(kolo_named *named, int timeout_ms)
{
    if (named == NULL)
        return kolo__error(KOLO_ERR_INVALID, "kolo_named_wait: named is NULL");
    if (named->status != KOLO_OK)
        return kolo__error(named->status, "%s", named->error);
    if (named->pending_count == 0 && named->stage == KOLO__NAMED_BETWEEN)
        return KOLO_OK;
    uint64_t began_ticks = kolo__trace_now(named->context->trace);
    struct wait wait = {.unlimited = timeout_ms < 0, .begin_ns = kolo__named_now()};
    wait.most_ns = wait.unlimited ? (uint64_t)named->context->config.timeout * SECOND
                                  : (uint64_t)timeout_ms * MILLISECOND;
    kolo_status status = run_batches(named, &wait);
    kolo__trace_add(named->context->trace, KOLO__TRACE_WAIT, "kolo_named_wait", KOLO__TRACE_NO_ID,
                    0, began_ticks, kolo__trace_now(named->context->trace));
    return status == KOLO_OK || status == KOLO_AGAIN ? status : give_up(named, status);
}
