/* SPDX-License-Identifier: Apache-2.0 */
/* See watch.h. */
#include "runtime/watch.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"
#include "base/thread.h"

#include <errno.h>
#include <poll.h>
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
    RECORD_MS = 500,     /* a stream that is behind for longer is a wait for the flight recorder */
    LOCK_MS = 1000,      /* after which the lock's holder is taken to hang */
    PATIENCE_S_MOST = 64 /* before a stream that is behind is worth a message */
};

struct kolo__watch_thread {
    pthread_t thread;
    int end_fd;
    const struct kolo__device_module *gpus; /* NULL: it cannot be asked */
    struct kolo__device *device;
    int ordinal;
    bool has_events;
    /* The rest under the lock of struct kolo__watch. */
    kolo__device_event events[EVENTS];
    struct kolo__signature signatures[EVENTS]; /* of what lies before each */
    struct kolo__flight_entry *flights[EVENTS];
    unsigned first, count;
    uint64_t since_ns; /* when the first became the first */
    uint64_t patience_ns;
    bool told, recorded; /* of the first */
    struct kolo__signature recent[KOLO__VERDICT_RECENT];
    uint64_t recent_count;
};

static void pause_ms(unsigned milliseconds)
{
    const struct timespec time = {.tv_nsec = (long)milliseconds * 1000000};
    nanosleep(&time, NULL);
}

/* ---- for the flight recorder ----------------------------------------------------------------- */

/* Nobody of kolo's waits, for the program waits for its stream: but others are to see for what. */
static void record_wait(struct kolo__watch_thread *thread, uint64_t now_ns)
{
    unsigned first = thread->first;
    if (thread->count == 0 || thread->recorded ||
        now_ns - thread->since_ns < RECORD_MS * MILLISECOND_NS)
        return;
    thread->recorded = true;
    kolo__flight_waits(thread->flights[first], &thread->signatures[first], thread->since_ns);
    if (kolo__flight_is_of(thread->flights[first], &thread->signatures[first]))
        kolo__flight_set_phase(thread->flights[first], KOLO__FLIGHT_CALLED);
}

static void record_end(struct kolo__watch_thread *thread)
{
    unsigned first = thread->first;
    if (thread->recorded && kolo__flight_is_of(thread->flights[first], &thread->signatures[first]))
        kolo__flight_set_phase(thread->flights[first], KOLO__FLIGHT_DONE);
    thread->recorded = false;
}

/* ---- what is queued ------------------------------------------------------------------------- */

static bool is_recordable(const struct kolo__watch_thread *thread, void *stream)
{
    bool capturing = false;
    return thread->has_events &&
           thread->gpus->stream_is_capturing(thread->device, stream, &capturing) == KOLO_OK &&
           !capturing;
}

void kolo__watch_note(struct kolo__watch *watch, const kolo_request *request)
{
    struct kolo__watch_thread *thread = watch->thread;
    thread->recent[thread->recent_count++ % KOLO__VERDICT_RECENT] = request->signature;
    if (!is_recordable(thread, request->stream))
        return;
    /* In a full ring the last event moves on: it is then reached later. */
    bool full = thread->count == EVENTS;
    unsigned slot = (thread->first + thread->count - full) % EVENTS;
    if (thread->gpus->event_record(thread->device, thread->events[slot], request->stream) !=
        KOLO_OK)
        return;
    thread->signatures[slot] = request->signature;
    thread->flights[slot] = request->flight;
    if (thread->count == 0) {
        thread->since_ns = kolo__now_ns(&kolo__real_clock);
        thread->told = false;
    }
    thread->count += !full;
}

/* The last one is behind all before it, for they followed each other. */
kolo_status kolo__watch_follow(const struct kolo__watch *watch, void *stream)
{
    const struct kolo__watch_thread *thread = watch->thread;
    if (thread->count == 0 || !is_recordable(thread, stream))
        return KOLO_OK;
    unsigned last = (thread->first + thread->count - 1) % EVENTS;
    return thread->gpus->stream_wait(thread->device, stream, thread->events[last]);
}

void kolo__watch_forget(struct kolo__watch *watch)
{
    if (watch->thread == NULL)
        return;
    record_end(watch->thread);
    watch->thread->count = 0;
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

static kolo_status fail(const struct kolo__watch *watch, kolo_status status, const char *what,
                        const char *why, struct kolo__fault *fault)
{
    *fault = (struct kolo__fault){.status = status, .peer = -1};
    snprintf(fault->text, sizeof fault->text, "%s on rank %u (host %s): %s", what,
             watch->comm->rank, kolo__host_name(), why);
    return status;
}

/* The status is the GPU's. */
static kolo_status take_reached(struct kolo__watch_thread *thread, uint64_t now_ns)
{
    kolo_status status = KOLO_OK;
    while (thread->count > 0) {
        status = thread->gpus->event_query(thread->device, thread->events[thread->first]);
        if (status != KOLO_OK)
            break;
        record_end(thread);
        thread->first = (thread->first + 1) % EVENTS;
        thread->count--;
        thread->since_ns = now_ns;
        thread->told = false;
    }
    return status;
}

static kolo_status look_at_events(struct kolo__watch *watch, uint64_t now_ns,
                                  struct kolo__fault *fault)
{
    kolo_status status = take_reached(watch->thread, now_ns);
    if (status != KOLO_OK && status != KOLO_AGAIN)
        return fail(watch, status, "the GPU failed", kolo_error_text(), fault);
    return KOLO_OK;
}

kolo_status kolo__watch_reached(struct kolo__watch *watch)
{
    return watch->thread == NULL ? KOLO_OK
                                 : take_reached(watch->thread, kolo__now_ns(&kolo__real_clock));
}

static kolo_status look_at_time(const struct kolo__watch *watch, uint64_t now_ns,
                                struct kolo__fault *fault)
{
    const struct kolo__watch_thread *thread = watch->thread;
    const kolo_comm *comm = watch->comm;
    char signature[160], culprit[KOLO__NOTE_TEXT_BYTES + 2];
    if (thread->count == 0 ||
        now_ns - thread->since_ns < (uint64_t)comm->context->config.timeout * SECOND_NS)
        return KOLO_OK;
    *fault = (struct kolo__fault){.status = KOLO_ERR_TIMEOUT, .peer = -1};
    kolo__comm_culprit(comm, culprit, sizeof culprit);
    snprintf(fault->text, sizeof fault->text,
             "%s did not finish within %ld s on GPU %d of rank %u (host %s): %s waits for another "
             "rank, or the stream for what was queued before%s. KOLO_TIMEOUT sets the limit",
             kolo__signature_text(&thread->signatures[thread->first], signature, sizeof signature),
             comm->context->config.timeout, thread->ordinal, comm->rank, kolo__host_name(),
             watch->what->name, culprit);
    return fault->status;
}

/* What the rendezvous is to compare; false: nothing new. */
static bool wants_to_tell(const struct kolo__watch *watch, uint64_t now_ns,
                          struct kolo__verdict_report *report)
{
    struct kolo__watch_thread *thread = watch->thread;
    if (thread->count == 0 || thread->told || now_ns - thread->since_ns < thread->patience_ns)
        return false;
    thread->told = true;
    if (thread->patience_ns < PATIENCE_S_MOST * SECOND_NS)
        thread->patience_ns *= 2;
    *report = (struct kolo__verdict_report){.comm = watch->comm->id, .needs = KOLO__NEEDS_NOBODY};
    uint64_t end = thread->recent_count;
    uint64_t begin = end > KOLO__VERDICT_RECENT ? end - KOLO__VERDICT_RECENT : 0;
    for (uint64_t i = begin; i < end; i++)
        report->recent[report->count++] = thread->recent[i % KOLO__VERDICT_RECENT];
    return true;
}

/* KOLO_AGAIN: somebody else has the lock. */
static kolo_status look(struct kolo__watch *watch, struct kolo__fault *fault)
{
    const kolo_comm *comm = watch->comm;
    struct kolo__verdict_report report;
    char why[KOLO__WATCH_WHY_BYTES] = "", failed[64];
    if (pthread_mutex_trylock(&watch->lock) != 0)
        return KOLO_AGAIN;
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    bool tells = false;
    kolo_status status = KOLO_OK;
    if (watch->on) {
        status = watch->what->ask(watch->comm, why);
        snprintf(failed, sizeof failed, "%s failed", watch->what->name);
        if (status == KOLO_OK || status == KOLO_AGAIN)
            status = look_at_events(watch, now_ns, fault);
        else
            fail(watch, status == KOLO_ERR_INVALID ? KOLO_ERR_DEVICE : status, failed, why, fault);
        if (status == KOLO_OK)
            status = look_at_time(watch, now_ns, fault);
        if (status == KOLO_OK)
            record_wait(watch->thread, now_ns);
        tells = status == KOLO_OK && wants_to_tell(watch, now_ns, &report);
    }
    pthread_mutex_unlock(&watch->lock);
    if (tells && comm->context->control != NULL)
        kolo__control_stuck(comm->context->control, &report);
    return status;
}

/* ---- ending --------------------------------------------------------------------------------- */

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
            kolo__comm_leave_fault(comm, fault); /* for the caller's next look */
            return;
        }
        pause_ms(PAUSE_MS);
    }
}

/* Who holds the lock for so long hangs in NCCL, or in a launch behind kernels that wait for another
 * rank: what ends that is the end of those. */
static void end_watched(struct kolo__watch *watch, const struct kolo__fault *fault)
{
    bool locked = false;
    for (int waited = 0; !locked && waited < LOCK_MS; waited += PAUSE_MS) {
        locked = pthread_mutex_trylock(&watch->lock) == 0;
        if (!locked)
            pause_ms(PAUSE_MS);
    }
    watch->what->end(watch->comm, fault);
    if (locked)
        pthread_mutex_unlock(&watch->lock);
}

static bool is_on(struct kolo__watch *watch)
{
    if (pthread_mutex_trylock(&watch->lock) != 0)
        return true; /* who has it uses what is watched */
    bool on = watch->on;
    pthread_mutex_unlock(&watch->lock);
    return on;
}

static void *run(void *argument)
{
    struct kolo__watch *watch = argument;
    kolo_comm *comm = watch->comm;
    struct pollfd ready[] = {
        {.fd = watch->thread->end_fd, .events = POLLIN},
        {.fd = comm->context->control != NULL ? kolo__control_fd(comm->context->control) : -1,
         .events = POLLIN}};
    struct kolo__fault fault;
    while (poll(ready, 2, LOOK_MS) >= 0 || errno == EINTR) {
        if (ready[0].revents != 0)
            return NULL;
        if (is_on(watch)) {
            bool heard = hears(comm, &fault);
            kolo_status status = heard ? fault.status : look(watch, &fault);
            if (status != KOLO_OK && status != KOLO_AGAIN) {
                if (!heard)
                    spread(comm, &fault);
                end_watched(watch, &fault);
                return NULL;
            }
        }
        if (ready[1].revents != 0)
            pause_ms(PAUSE_MS);
    }
    return NULL;
}

/* ---- beginning and end ---------------------------------------------------------------------- */

void kolo__watch_init(struct kolo__watch *watch, kolo_comm *comm, const struct kolo__watched *what)
{
    *watch = (struct kolo__watch){.comm = comm, .what = what};
    pthread_mutex_init(&watch->lock, NULL);
}

static bool make_events(struct kolo__watch_thread *thread)
{
    for (int i = 0; i < EVENTS; i++)
        if (thread->gpus->event_create(thread->device, &thread->events[i]) != KOLO_OK)
            return false;
    return true;
}

static void free_thread(struct kolo__watch_thread *thread)
{
    for (int i = 0; i < EVENTS && thread->gpus != NULL; i++)
        thread->gpus->event_destroy(thread->device, thread->events[i]);
    if (thread->end_fd >= 0)
        close(thread->end_fd);
    free(thread);
}

kolo_status kolo__watch_start(struct kolo__watch *watch, const char *operation,
                              const struct kolo__device_module *gpus, struct kolo__device *device,
                              int ordinal)
{
    struct kolo__watch_thread *thread = calloc(1, sizeof *thread);
    if (thread == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "%s: no memory to watch %s", operation,
                           watch->what->name);
    thread->ordinal = ordinal;
    thread->patience_ns = SECOND_NS;
    thread->end_fd = eventfd(0, EFD_CLOEXEC);
    thread->gpus = device != NULL ? gpus : NULL;
    thread->device = device;
    thread->has_events = device != NULL && make_events(thread);
    watch->thread = thread;
    int error = thread->end_fd < 0 ? errno : kolo__thread_start(&thread->thread, NULL, run, watch);
    if (error != 0) {
        watch->thread = NULL;
        free_thread(thread);
        return kolo__error(KOLO_ERR_SYSTEM, "%s: no thread to watch %s: %s", operation,
                           watch->what->name, strerror(error));
    }
    pthread_setname_np(thread->thread, "kolo-watch");
    return KOLO_OK;
}

bool kolo__watch_has_events(const struct kolo__watch *watch)
{
    return watch->thread->has_events;
}

void kolo__watch_stop(struct kolo__watch *watch)
{
    const uint64_t one = 1;
    struct kolo__watch_thread *thread = watch->thread;
    if (thread == NULL)
        return;
    if (write(thread->end_fd, &one, sizeof one) == sizeof one)
        pthread_join(thread->thread, NULL);
    watch->thread = NULL;
    free_thread(thread);
}

void kolo__watch_free(struct kolo__watch *watch)
{
    pthread_mutex_destroy(&watch->lock);
}
