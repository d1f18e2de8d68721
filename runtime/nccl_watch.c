/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who watches what NCCL has on a stream: a program may wait for it in cudaStreamSynchronize, call
 * nothing of kolo's, and wait for ever, because a kernel of NCCL's waits for a rank that is gone.
 *
 *     caller's stream    ...| NCCL's kernel | E1 |...| NCCL's kernel | E2 |      events, in a ring
 *     the watch          has E1 been reached? has NCCL an error? is there a fault, an abort?
 *
 * A thread for each communicator asks, and never waits for the GPU: so nobody who calls does. What
 * it finds it tells the others, leaves for the caller as kolo_comm_abort does, and then ends NCCL's
 * communicator, whose kernels return: the caller's wait is over, and his next call has the error.
 * Where nothing is wrong but an event has not been reached for long, it says what was called, by
 * which the rendezvous finds ranks that differ (verdict.h); after KOLO_TIMEOUT it gives up.
 *
 * In a CUDA graph nothing is recorded, for the event would be the graph's; the rest holds for its
 * replays too.
 */
#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "runtime/nccl_state.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

static const uint64_t MILLISECOND_NS = 1000000, SECOND_NS = 1000000000;

enum {
    EVENTS = 32,
    LOOK_MS = 100,       /* between two looks, unless the control plane has news */
    PAUSE_MS = 5,        /* at least: news may be another thread's to read */
    VERDICT_MS = 1000,   /* a symptom waits this long for the cause from the rendezvous */
    LOCK_MS = 1000,      /* after which the lock's holder is taken to hang in NCCL */
    PATIENCE_S_MOST = 64 /* before a stream that is behind is worth a message */
};

struct kolo__nccl_watch {
    kolo_comm *comm;
    pthread_t thread;
    int end_fd;
    bool has_events;
    /* The rest under the lock of struct kolo__nccl. */
    kolo__device_event events[EVENTS];
    struct kolo__signature signatures[EVENTS]; /* of what lies before each */
    unsigned first, count;
    uint64_t since_ns; /* when the first became the first */
    uint64_t patience_ns;
    bool told; /* of the first */
    struct kolo__signature recent[KOLO__VERDICT_RECENT];
    uint64_t recent_count;
};

static void pause_ms(unsigned milliseconds)
{
    const struct timespec time = {.tv_nsec = (long)milliseconds * 1000000};
    nanosleep(&time, NULL);
}

/* ---- what is queued ------------------------------------------------------------------------- */

void kolo__nccl_watch_note(const kolo_request *request)
{
    struct kolo__nccl *nccl = request->comm->nccl;
    struct kolo__nccl_watch *watch = nccl->watch;
    bool capturing = false;
    watch->recent[watch->recent_count++ % KOLO__VERDICT_RECENT] = request->signature;
    if (!watch->has_events ||
        nccl->gpus->stream_is_capturing(nccl->device, request->stream, &capturing) != KOLO_OK ||
        capturing)
        return;
    /* In a full ring the last event moves on: it is then reached later. */
    bool full = watch->count == EVENTS;
    unsigned slot = (watch->first + watch->count - full) % EVENTS;
    if (nccl->gpus->event_record(nccl->device, watch->events[slot], request->stream) != KOLO_OK)
        return;
    watch->signatures[slot] = request->signature;
    if (watch->count == 0) {
        watch->since_ns = kolo__now_ns(&kolo__real_clock);
        watch->told = false;
    }
    watch->count += !full;
}

void kolo__nccl_watch_forget(struct kolo__nccl *nccl)
{
    if (nccl->watch != NULL)
        nccl->watch->count = 0;
}

/* ---- looking -------------------------------------------------------------------------------- */

/* A fault that others found, or an abort by another thread. */
static bool hears(kolo_comm *comm, struct kolo__fault *fault)
{
    const kolo_comm *guardian = comm->guardian != NULL ? comm->guardian : comm;
    if (comm->context->control != NULL) {
        kolo__control_poll(comm->context->control);
        if (kolo__comm_heard(comm, fault))
            return true;
    }
    const kolo_comm *aborted = atomic_load(&guardian->aborted) ? guardian
                               : atomic_load(&comm->aborted)   ? comm
                                                               : NULL;
    if (aborted != NULL)
        *fault = aborted->abort_fault;
    return aborted != NULL;
}

static kolo_status fail(const struct kolo__nccl_watch *watch, kolo_status status, const char *what,
                        const char *why, struct kolo__fault *fault)
{
    *fault = (struct kolo__fault){.status = status, .peer = -1};
    snprintf(fault->text, sizeof fault->text, "%s on rank %u (host %s): %s", what,
             watch->comm->rank, kolo__host_name(), why);
    return status;
}

static kolo_status look_at_events(struct kolo__nccl_watch *watch, uint64_t now_ns,
                                  struct kolo__fault *fault)
{
    struct kolo__nccl *nccl = watch->comm->nccl;
    kolo_status status = KOLO_OK;
    while (watch->count > 0) {
        status = nccl->gpus->event_query(nccl->device, watch->events[watch->first]);
        if (status != KOLO_OK)
            break;
        watch->first = (watch->first + 1) % EVENTS;
        watch->count--;
        watch->since_ns = now_ns;
        watch->told = false;
    }
    if (status != KOLO_OK && status != KOLO_AGAIN)
        return fail(watch, status, "the GPU failed", kolo_error_text(), fault);
    return KOLO_OK;
}

static kolo_status look_at_time(const struct kolo__nccl_watch *watch, uint64_t now_ns,
                                struct kolo__fault *fault)
{
    const kolo_comm *comm = watch->comm;
    char signature[160];
    if (watch->count == 0 ||
        now_ns - watch->since_ns < (uint64_t)comm->context->config.timeout * SECOND_NS)
        return KOLO_OK;
    *fault = (struct kolo__fault){.status = KOLO_ERR_TIMEOUT, .peer = -1};
    snprintf(
        fault->text, sizeof fault->text,
        "%s did not finish within %ld s on GPU %d of rank %u (host %s): NCCL waits for another "
        "rank, or the stream for what was queued before. KOLO_TIMEOUT sets the limit",
        kolo__signature_text(&watch->signatures[watch->first], signature, sizeof signature),
        comm->context->config.timeout, comm->nccl->ordinal, comm->rank, kolo__host_name());
    return fault->status;
}

/* What the rendezvous is to compare; false: nothing new. */
static bool wants_to_tell(struct kolo__nccl_watch *watch, uint64_t now_ns,
                          struct kolo__verdict_report *report)
{
    if (watch->count == 0 || watch->told || now_ns - watch->since_ns < watch->patience_ns)
        return false;
    watch->told = true;
    if (watch->patience_ns < PATIENCE_S_MOST * SECOND_NS)
        watch->patience_ns *= 2;
    *report = (struct kolo__verdict_report){.comm = watch->comm->id, .needs = KOLO__NEEDS_NOBODY};
    uint64_t end = watch->recent_count;
    uint64_t begin = end > KOLO__VERDICT_RECENT ? end - KOLO__VERDICT_RECENT : 0;
    for (uint64_t i = begin; i < end; i++)
        report->recent[report->count++] = watch->recent[i % KOLO__VERDICT_RECENT];
    return true;
}

/* KOLO_AGAIN: somebody else has the lock. */
static kolo_status look(struct kolo__nccl_watch *watch, struct kolo__fault *fault)
{
    const kolo_comm *comm = watch->comm;
    struct kolo__nccl *nccl = comm->nccl;
    struct kolo__verdict_report report;
    char why[KOLO__NCCL_WHY_BYTES] = "";
    if (pthread_mutex_trylock(&nccl->lock) != 0)
        return KOLO_AGAIN;
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    bool tells = false;
    kolo_status status = KOLO_OK;
    if (nccl->watched) {
        status = nccl->module->comm_poll(nccl->comm, why);
        if (status == KOLO_OK || status == KOLO_AGAIN)
            status = look_at_events(watch, now_ns, fault);
        else
            fail(watch, status == KOLO_ERR_INVALID ? KOLO_ERR_DEVICE : status, "NCCL failed", why,
                 fault);
        if (status == KOLO_OK)
            status = look_at_time(watch, now_ns, fault);
        tells = status == KOLO_OK && wants_to_tell(watch, now_ns, &report);
    }
    pthread_mutex_unlock(&nccl->lock);
    if (tells && comm->context->control != NULL)
        kolo__control_stuck(comm->context->control, &report);
    return status;
}

/* ---- ending --------------------------------------------------------------------------------- */

/* For the caller's next look, unless the control plane has it for him. */
static void leave(kolo_comm *comm, const struct kolo__fault *fault)
{
    pthread_mutex_lock(&comm->context->lock);
    if (!atomic_load(&comm->aborted)) {
        comm->abort_fault = *fault;
        atomic_store(&comm->aborted, true);
    }
    pthread_mutex_unlock(&comm->context->lock);
}

static void spread(kolo_comm *comm, struct kolo__fault *fault)
{
    struct kolo__control *control = comm->context->control;
    uint64_t deadline_ns = kolo__now_ns(&kolo__real_clock);
    if (fault->status == KOLO_ERR_NETWORK)
        deadline_ns += VERDICT_MS * MILLISECOND_NS;
    if (control != NULL)
        kolo__control_report(control, comm->id, fault);
    while (!hears(comm, fault)) {
        if (control == NULL || kolo__now_ns(&kolo__real_clock) >= deadline_ns) {
            leave(comm, fault);
            return;
        }
        pause_ms(PAUSE_MS);
    }
}

/* Who holds the lock for so long hangs in NCCL, or in a launch behind kernels that wait for another
 * rank: what ends that is the abort. */
static void end_nccl(kolo_comm *comm, const struct kolo__fault *fault)
{
    struct kolo__nccl *nccl = comm->nccl;
    bool locked = false;
    for (int waited = 0; !locked && waited < LOCK_MS; waited += PAUSE_MS) {
        locked = pthread_mutex_trylock(&nccl->lock) == 0;
        if (!locked)
            pause_ms(PAUSE_MS);
    }
    kolo__nccl_end(comm, fault);
    if (locked)
        pthread_mutex_unlock(&nccl->lock);
}

static bool is_watched(struct kolo__nccl *nccl)
{
    if (pthread_mutex_trylock(&nccl->lock) != 0)
        return true; /* who calls NCCL has one */
    bool watched = nccl->watched;
    pthread_mutex_unlock(&nccl->lock);
    return watched;
}

static void *run(void *argument)
{
    struct kolo__nccl_watch *watch = argument;
    kolo_comm *comm = watch->comm;
    struct pollfd ready[] = {
        {.fd = watch->end_fd, .events = POLLIN},
        {.fd = comm->context->control != NULL ? kolo__control_fd(comm->context->control) : -1,
         .events = POLLIN}};
    struct kolo__fault fault;
    while (poll(ready, 2, LOOK_MS) >= 0 || errno == EINTR) {
        if (ready[0].revents != 0)
            return NULL;
        if (is_watched(comm->nccl)) {
            bool heard = hears(comm, &fault);
            kolo_status status = heard ? fault.status : look(watch, &fault);
            if (status != KOLO_OK && status != KOLO_AGAIN) {
                if (!heard)
                    spread(comm, &fault);
                end_nccl(comm, &fault);
                return NULL;
            }
        }
        if (ready[1].revents != 0)
            pause_ms(PAUSE_MS);
    }
    return NULL;
}

/* ---- beginning and end ---------------------------------------------------------------------- */

static bool make_events(const struct kolo__nccl *nccl, struct kolo__nccl_watch *watch)
{
    for (int i = 0; i < EVENTS; i++)
        if (nccl->gpus->event_create(nccl->device, &watch->events[i]) != KOLO_OK)
            return false;
    return true;
}

static void free_watch(const struct kolo__nccl *nccl, struct kolo__nccl_watch *watch)
{
    for (int i = 0; i < EVENTS && nccl->gpus != NULL; i++)
        nccl->gpus->event_destroy(nccl->device, watch->events[i]);
    if (watch->end_fd >= 0)
        close(watch->end_fd);
    free(watch);
}

kolo_status kolo__nccl_watch_start(kolo_comm *comm, const char *operation)
{
    struct kolo__nccl *nccl = comm->nccl;
    sigset_t all, before;
    struct kolo__nccl_watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "%s: no memory to watch NCCL", operation);
    watch->comm = comm;
    watch->patience_ns = SECOND_NS;
    watch->end_fd = eventfd(0, EFD_CLOEXEC);
    /* Without events NCCL's own errors and the other ranks' are seen all the same. */
    watch->has_events = nccl->device != NULL && make_events(nccl, watch);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = watch->end_fd < 0 ? errno : pthread_create(&watch->thread, NULL, run, watch);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        free_watch(nccl, watch);
        return kolo__error(KOLO_ERR_SYSTEM, "%s: no thread to watch NCCL: %s", operation,
                           strerror(error));
    }
    pthread_setname_np(watch->thread, "kolo-nccl");
    nccl->watch = watch;
    return KOLO_OK;
}

void kolo__nccl_watch_stop(struct kolo__nccl *nccl)
{
    const uint64_t one = 1;
    struct kolo__nccl_watch *watch = nccl->watch;
    if (watch == NULL)
        return;
    if (write(watch->end_fd, &one, sizeof one) == sizeof one)
        pthread_join(watch->thread, NULL);
    nccl->watch = NULL;
    free_watch(nccl, watch);
}
