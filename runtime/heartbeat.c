/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/heartbeat.h"

#include "base/clock.h"
#include "base/status.h"
#include "base/thread.h"
#include "runtime/control_frames.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

static const uint64_t MILLISECOND = 1000000, SECOND = 1000000000;

/* Answers that wait to be read until the rank comes back from computing. It reads them itself when
 * it waits, so that what else comes wakes it; but they must not fill the socket. */
enum { UNREAD_BYTES = 1024 };
/* So many of a server that says nothing more, at most: records, of which one is read at a time. */
enum { LAST_WORDS = UNREAD_BYTES / 16 };
/* A sign of life may take so long to go out. */
enum { SEND_S = 10 };

struct kolo__heartbeat {
    struct kolo__control *control;
    const struct kolo__flight *flight;
    uint64_t timeout_ns;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool end;
};

/* ---- what it says ---------------------------------------------------------------------------- */

/* Where nothing goes out any more it waits until the server's silence is to be judged, no longer:
 * with the lock, so that nobody else hears of it either. */
static void say(struct kolo__control *control, uint32_t timeout_ms,
                const struct kolo__flight_state *state, uint64_t now_ns, uint64_t by_ns)
{
    struct kolo__frame_writer frame = {0};
    kolo__frame_begin(&frame, KOLO__FRAME_BEAT);
    kolo__put_beat(&frame, timeout_ms, state, now_ns);
    pthread_mutex_lock(&control->lock);
    if (control->closed)
        kolo__frame_writer_free(&frame);
    else
        kolo__control_send_frame_by(control, &frame, by_ns);
    pthread_mutex_unlock(&control->lock);
}

/* ---- what it hears --------------------------------------------------------------------------- */

/* The kernel knows when something came last, whoever reads it. With the lock: kolo_renew may hang
 * up, and the descriptor be another's. */
static uint64_t heard_ns_ago(struct kolo__control *control, bool *unread)
{
    struct tcp_info info = {0};
    socklen_t bytes = sizeof info;
    int waiting = 0;
    pthread_mutex_lock(&control->lock);
    *unread = ioctl(control->fd, FIONREAD, &waiting) == 0 && waiting > UNREAD_BYTES;
    bool known = getsockopt(control->fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) == 0;
    pthread_mutex_unlock(&control->lock);
    return known ? info.tcpi_last_data_recv * MILLISECOND : 0;
}

/* A rank that waits says so once more when that has become long, for the server to find out who
 * holds it up. Returns when; UINT64_MAX: it does not wait, or has said so. */
static uint64_t long_wait_ns(const struct kolo__flight_state *state, uint64_t timeout_ns,
                             uint64_t now_ns)
{
    uint64_t long_ns = state->waits.wait_begin_ns + kolo__heartbeat_long_ns(timeout_ns);
    return state->waits.phase == KOLO__FLIGHT_CALLED && long_ns > now_ns ? long_ns : UINT64_MAX;
}

uint64_t kolo__heartbeat_once(struct kolo__control *control, const struct kolo__flight *flight,
                              uint64_t timeout_ns, uint64_t since_ns)
{
    bool unread;
    struct kolo__flight_state state = {.process = 'R'};
    uint64_t silent_ns = heard_ns_ago(control, &unread);
    uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
    if (unread)
        kolo__control_poll(control);
    if (silent_ns > now_ns - since_ns)
        silent_ns = now_ns - since_ns;
    if (silent_ns >= timeout_ns) {
        for (int i = 0; i < LAST_WORDS; i++)
            kolo__control_poll(control); /* perhaps that this rank is in no world any more */
        kolo__control_lose_server(control, silent_ns);
        return UINT64_MAX;
    }
    kolo__flight_take_state(flight, &state);
    uint64_t limit_ns = now_ns + timeout_ns - silent_ns, most_ns = now_ns + SEND_S * SECOND;
    say(control, (uint32_t)(timeout_ns / MILLISECOND), &state, now_ns,
        limit_ns < most_ns ? limit_ns : most_ns);
    uint64_t long_ns = long_wait_ns(&state, timeout_ns, now_ns);
    return long_ns < limit_ns ? long_ns : limit_ns;
}

/* ---- the thread ------------------------------------------------------------------------------ */

/* All ranks beat at the same moments, as far as their clocks agree: then the server wakes once for
 * many of them, and ranks of one step are held up together instead of one after the other. */
static uint64_t next_beat_ns(uint64_t now_ns, uint64_t pause_ns)
{
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    uint64_t wall_ns = (uint64_t)wall.tv_sec * SECOND + (uint64_t)wall.tv_nsec;
    uint64_t left_ns = pause_ns - wall_ns % pause_ns;
    return now_ns + left_ns + (left_ns < pause_ns / 4 ? pause_ns : 0);
}

/* False: it is to end. */
static bool rest(struct kolo__heartbeat *heartbeat, uint64_t until_ns)
{
    struct timespec until = {.tv_sec = (time_t)(until_ns / SECOND),
                             .tv_nsec = (long)(until_ns % SECOND)};
    pthread_mutex_lock(&heartbeat->lock);
    while (!heartbeat->end &&
           pthread_cond_timedwait(&heartbeat->wake, &heartbeat->lock, &until) != ETIMEDOUT)
        ;
    bool end = heartbeat->end;
    pthread_mutex_unlock(&heartbeat->lock);
    return !end;
}

static void *beat_on(void *self)
{
    struct kolo__heartbeat *heartbeat = self;
    uint64_t pause_ns = kolo__heartbeat_pause_ns(heartbeat->timeout_ns);
    uint64_t since_ns = kolo__now_ns(&kolo__real_clock), beat_ns = since_ns, next_ns = since_ns;
    while (next_ns != UINT64_MAX && rest(heartbeat, next_ns)) {
        uint64_t now_ns = kolo__now_ns(&kolo__real_clock);
        /* Nobody here was there to hear. Looks are up to 5/4 of a pause apart, which is 3/4 of the
         * timeout: of a stop as long as that this much is left to see. */
        if (now_ns > next_ns + pause_ns / 4)
            since_ns = now_ns;
        next_ns = kolo__heartbeat_once(heartbeat->control, heartbeat->flight, heartbeat->timeout_ns,
                                       since_ns);
        if (now_ns >= beat_ns)
            beat_ns = next_beat_ns(now_ns, pause_ns);
        if (beat_ns < next_ns && next_ns != UINT64_MAX)
            next_ns = beat_ns;
        now_ns = kolo__now_ns(&kolo__real_clock);
        if (next_ns < now_ns)
            next_ns = now_ns; /* to speak has taken long, which is no sleep */
    }
    return NULL;
}

kolo_status kolo__heartbeat_start(struct kolo__control *control, const struct kolo__flight *flight,
                                  long timeout_s, struct kolo__heartbeat **result)
{
    pthread_condattr_t monotonic;
    struct kolo__heartbeat *heartbeat = calloc(1, sizeof *heartbeat);
    if (heartbeat == NULL)
        return kolo__error(KOLO_ERR_MEMORY, "no memory for the thread of signs of life");
    heartbeat->control = control;
    heartbeat->flight = flight;
    heartbeat->timeout_ns = (uint64_t)timeout_s * SECOND;
    pthread_mutex_init(&heartbeat->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&heartbeat->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int failure = kolo__thread_start(&heartbeat->thread, NULL, beat_on, heartbeat);
    if (failure != 0) {
        pthread_cond_destroy(&heartbeat->wake);
        pthread_mutex_destroy(&heartbeat->lock);
        free(heartbeat);
        return kolo__error_errno(failure, "cannot start the thread of signs of life");
    }
    *result = heartbeat;
    return KOLO_OK;
}

void kolo__heartbeat_end(struct kolo__heartbeat *heartbeat)
{
    if (heartbeat == NULL)
        return;
    pthread_mutex_lock(&heartbeat->lock);
    heartbeat->end = true;
    pthread_cond_signal(&heartbeat->wake);
    pthread_mutex_unlock(&heartbeat->lock);
    pthread_join(heartbeat->thread, NULL);
    pthread_cond_destroy(&heartbeat->wake);
    pthread_mutex_destroy(&heartbeat->lock);
    free(heartbeat);
}
