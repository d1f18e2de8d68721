/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who watches what a communicator has on a GPU's streams: a program may wait for it in
 * cudaStreamSynchronize, call nothing of kolo's, and wait for ever, because a kernel waits for a
 * rank that is gone.
 *
 *     caller's stream    ...| kernel | E1 |...| kernel | E2 |      events, in a ring
 *     the watch          has E1 been reached? is there an error? a fault, an abort?
 *
 * A thread for each, which never waits for the GPU: so nobody who calls does. What it finds it
 * tells the others, leaves for the caller as kolo_comm_abort does, and then ends what is watched,
 * whose kernels return: the caller's wait is over, and his next call has the error. Where nothing
 * is wrong but an event has not been reached for long, it says what was called, by which the
 * rendezvous finds ranks that differ (verdict.h); after KOLO_TIMEOUT it gives up.
 *
 * In a CUDA graph nothing is recorded, for the event would be the graph's; the rest holds for its
 * replays too.
 */
#ifndef KOLO_RUNTIME_WATCH_H
#define KOLO_RUNTIME_WATCH_H

#include "kernels/device.h"
#include "runtime/comm.h"

#include <pthread.h>

enum { KOLO__WATCH_WHY_BYTES = 256 };

/* What is watched: NCCL (nccl.h), kolo's own kernels (exchange.h). Both functions are called with
 * the lock, or where its holder hangs. */
struct kolo__watched {
    const char *name; /* "NCCL": what waits for other ranks */
    /* KOLO_OK, KOLO_AGAIN: all is well so far. Else an error, for good, with its reason. */
    kolo_status (*ask)(kolo_comm *comm, char *why);
    /* Its kernels return, now or soon. */
    void (*end)(kolo_comm *comm, const struct kolo__fault *fault);
};

struct kolo__watch_thread;

struct kolo__watch {
    kolo_comm *comm;
    const struct kolo__watched *what;
    struct kolo__watch_thread *thread; /* NULL: none */
    /* The watch may end what it watches whenever somebody else has not taken this and `on` is set.
     * So callers hold it while they use that, or take `on` away for so long. */
    pthread_mutex_t lock;
    bool on;
};

void kolo__watch_init(struct kolo__watch *watch, kolo_comm *comm, const struct kolo__watched *what);
/* Before the first call; nothing is looked at before `on` is set. device NULL: without events;
 * errors and the other ranks' words are seen all the same. */
kolo_status kolo__watch_start(struct kolo__watch *watch, const char *operation,
                              const struct kolo__device_module *gpus, struct kolo__device *device,
                              int ordinal);
bool kolo__watch_has_events(const struct kolo__watch *watch);
/* Waits for it, at most as long as ending what it watches takes. */
void kolo__watch_stop(struct kolo__watch *watch);
/* Stopped. */
void kolo__watch_free(struct kolo__watch *watch);
/* The request's work is on its stream. With the lock. */
void kolo__watch_note(struct kolo__watch *watch, const kolo_request *request);
/* What comes on the stream is behind all that was noted, on whatever streams; but for one that is
 * being captured. With the lock. */
kolo_status kolo__watch_follow(const struct kolo__watch *watch, void *stream);
/* Nothing that was noted is worth waiting for. With the lock. */
void kolo__watch_forget(struct kolo__watch *watch);
/* KOLO_OK: the GPU is past all that was noted; KOLO_AGAIN: not yet. With the lock. */
kolo_status kolo__watch_reached(struct kolo__watch *watch);

#endif
