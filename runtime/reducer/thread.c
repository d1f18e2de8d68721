/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The progress thread: drives steps of reducers while their callers compute. A context has one,
 * from the first step that gains by it until the last reducer is freed. It sleeps unless a bucket
 * is complete, or under way; who makes a bucket complete only wakes it, and never waits.
 *
 * It takes steps that are offered (driver.c) while it moves them, and gives them back when nothing
 * is under way.
 */
#include "runtime/reducer/reducer.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "base/status.h"

#include <errno.h>
#include <hwloc.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

struct kolo__reducer_thread {
    pthread_t thread;
    struct kolo__waker waker;
    atomic_bool stop;
    pthread_mutex_t lock; /* of the list; the thread holds it while it looks at reducers */
    kolo_reducer *first;
    const kolo_comm *rested; /* on this one the last time */
    hwloc_bitmap_t place;    /* NULL: wherever the caller runs */
};

static const uint64_t REST_NS = 1000000; /* at most, so that another reducer is not forgotten */
static const uint64_t SHARED_REST_NS = 50000;

/* ---- the loop -----------------------------------------------------------------------------------
 */

struct look {
    bool moved;      /* some unit */
    unsigned busy;   /* reducers that have a unit under way */
    kolo_comm *comm; /* of one of them, in turns: it is the one whose news is heard */
};

static bool has_work(kolo_reducer *reducer)
{
    return reducer->started > reducer->finished ||
           (reducer->started < reducer->unit_count &&
            kolo__unit_may_start(reducer, &reducer->units[reducer->started]));
}

static struct look look_at_all(struct kolo__reducer_thread *self)
{
    struct look look = {false, 0, NULL};
    bool passed = false;
    pthread_mutex_lock(&self->lock);
    for (kolo_reducer *reducer = self->first; reducer != NULL; reducer = reducer->next) {
        /* TAKEN: by this thread, before it rested. */
        if (atomic_load(&reducer->driver) != KOLO__DRIVER_TAKEN && !kolo__driver_take(reducer))
            continue;
        bool busy = kolo__reducer_drive(reducer, &look.moved);
        if (kolo__reducer_step_done(reducer) || atomic_exchange(&reducer->wanted_back, false)) {
            kolo__driver_give(reducer, KOLO__DRIVER_CALLER);
            continue;
        }
        if (!busy) {
            kolo__driver_give(reducer, KOLO__DRIVER_OFFERED);
            continue;
        }
        if (look.busy++ == 0 || passed)
            look.comm = reducer->comm;
        passed = reducer->comm == self->rested;
    }
    self->rested = look.comm;
    pthread_mutex_unlock(&self->lock);
    return look;
}

/* True when some reducer has something to do, seen after `idle` was set. */
static bool anything_to_do(struct kolo__reducer_thread *self)
{
    bool found = atomic_load(&self->stop);
    pthread_mutex_lock(&self->lock);
    for (kolo_reducer *reducer = self->first; reducer != NULL && !found; reducer = reducer->next)
        if (kolo__driver_take(reducer)) { /* what is taken is looked at */
            found = has_work(reducer);
            kolo__driver_give(reducer, KOLO__DRIVER_OFFERED);
        }
    pthread_mutex_unlock(&self->lock);
    return found;
}

static void sleep_until_woken(struct kolo__reducer_thread *self)
{
    kolo__waker_idle(&self->waker);
    if (!anything_to_do(self))
        while (sem_wait(&self->waker.semaphore) != 0 && errno == EINTR) {
        }
    atomic_store(&self->waker.idle, false);
}

static void *loop(void *argument)
{
    struct kolo__reducer_thread *self = argument;
    uint64_t moved_at = 0;
    while (!atomic_load(&self->stop)) {
        struct look look = look_at_all(self);
        if (look.busy == 0 && !look.moved)
            sleep_until_woken(self);
        uint64_t now = kolo__now_ns(&kolo__real_clock);
        if (look.moved || look.busy == 0 || moved_at == 0)
            moved_at = now;
        else
            kolo__comm_rest(look.comm, now - moved_at, look.busy == 1 ? REST_NS : SHARED_REST_NS);
    }
    return NULL;
}

/* ---- where it runs ------------------------------------------------------------------------------
 */

/* A processor of its own, near the caller's: of those that this process may use, one that shares
 * the caller's last-level cache but not its core. NULL: there is none, and the thread runs wherever
 * the caller may. */
static hwloc_bitmap_t find_place(void)
{
    hwloc_topology_t topology;
    hwloc_bitmap_t place = hwloc_bitmap_alloc(), here = hwloc_bitmap_alloc();
    bool found = false;
    if (place == NULL || here == NULL || hwloc_topology_init(&topology) != 0)
        goto free_bitmaps;
    if (hwloc_topology_load(topology) == 0 &&
        hwloc_get_cpubind(topology, place, HWLOC_CPUBIND_PROCESS) == 0 &&
        hwloc_get_last_cpu_location(topology, here, HWLOC_CPUBIND_THREAD) == 0) {
        hwloc_obj_t core = NULL, cache = NULL;
        for (hwloc_obj_t o =
                 hwloc_get_next_obj_covering_cpuset_by_type(topology, here, HWLOC_OBJ_PU, NULL);
             o != NULL; o = o->parent) {
            core = o->type == HWLOC_OBJ_CORE ? o : core;
            cache = hwloc_obj_type_is_dcache(o->type) || o->type == HWLOC_OBJ_L3CACHE ? o : cache;
        }
        if (core != NULL)
            hwloc_bitmap_andnot(place, place, core->cpuset);
        found = !hwloc_bitmap_iszero(place);
        if (found && cache != NULL && hwloc_bitmap_intersects(place, cache->cpuset))
            hwloc_bitmap_and(place, place, cache->cpuset);
    }
    hwloc_topology_destroy(topology);
free_bitmaps:
    hwloc_bitmap_free(here);
    if (found)
        return place;
    hwloc_bitmap_free(place);
    return NULL;
}

static void settle(struct kolo__reducer_thread *self)
{
    cpu_set_t set;
    hwloc_bitmap_t place = find_place();
    if (place == NULL)
        return;
    CPU_ZERO(&set);
    for (int cpu = hwloc_bitmap_first(place); cpu >= 0 && cpu < CPU_SETSIZE;
         cpu = hwloc_bitmap_next(place, cpu))
        CPU_SET(cpu, &set);
    pthread_setaffinity_np(self->thread, sizeof set, &set); /* a wish */
    hwloc_bitmap_free(place);
}

/* ---- begin and end ------------------------------------------------------------------------------
 */

static struct kolo__reducer_thread *create(void)
{
    struct kolo__reducer_thread *self = calloc(1, sizeof *self);
    if (self == NULL)
        return NULL;
    sem_init(&self->waker.semaphore, 0, 0);
    pthread_mutex_init(&self->lock, NULL);
    int error = kolo__thread_start(&self->thread, NULL, loop, self);
    if (error != 0) {
        kolo__log(KOLO__LOG_WARN,
                  "no progress thread (%s): gradients move while "
                  "kolo_reducer_wait waits",
                  strerror(error));
        sem_destroy(&self->waker.semaphore);
        pthread_mutex_destroy(&self->lock);
        free(self);
        return NULL;
    }
    pthread_setname_np(self->thread, "kolo-reducer");
    settle(self);
    return self;
}

static void destroy(struct kolo__reducer_thread *self)
{
    atomic_store(&self->stop, true);
    kolo__waker_wake(&self->waker);
    pthread_join(self->thread, NULL);
    sem_destroy(&self->waker.semaphore);
    pthread_mutex_destroy(&self->lock);
    free(self);
}

void kolo__thread_adopt(kolo_reducer *reducer)
{
    kolo_context *context = reducer->context;
    pthread_mutex_lock(&context->lock);
    if (context->reducer_thread == NULL)
        context->reducer_thread = create();
    reducer->thread = context->reducer_thread;
    pthread_mutex_unlock(&context->lock);
    if (reducer->thread == NULL) {
        reducer->options.no_overlap = 1; /* not tried at every step */
        return;
    }
    pthread_mutex_lock(&reducer->thread->lock);
    reducer->next = reducer->thread->first;
    reducer->thread->first = reducer;
    pthread_mutex_unlock(&reducer->thread->lock);
}

void kolo__thread_release(kolo_reducer *reducer)
{
    struct kolo__reducer_thread *self = reducer->thread;
    if (self == NULL)
        return;
    pthread_mutex_lock(&self->lock);
    kolo_reducer **link = &self->first;
    while (*link != reducer)
        link = &(*link)->next;
    *link = reducer->next;
    bool last = self->first == NULL;
    pthread_mutex_unlock(&self->lock);
    reducer->thread = NULL;
    if (!last)
        return;
    pthread_mutex_lock(&reducer->context->lock);
    reducer->context->reducer_thread = NULL;
    pthread_mutex_unlock(&reducer->context->lock);
    destroy(self);
}

struct kolo__waker *kolo__thread_waker(const kolo_reducer *reducer)
{
    return &reducer->thread->waker;
}
