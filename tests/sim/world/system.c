/* SPDX-License-Identifier: Apache-2.0 */
/* What else the library asks of its system: clocks, threads, mutexes, who it is. */
#include "world.h"

#include "base/assert.h"
#include "base/log.h"
#include "collectives/transport/heap.h"
#include "collectives/transport/heap_reserve.h"
#include "runtime/flight.h"

#include <errno.h>
#include <hwloc.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __real_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_nanosleep(const struct timespec *pause, struct timespec *left);
int __wrap_sched_yield(void);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *self);
int __wrap_pthread_join(pthread_t thread, void **result);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);
int __real_pthread_mutex_unlock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex);
int __wrap_sem_wait(sem_t *semaphore);
int __wrap_sem_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *until);
int __real_sem_post(sem_t *semaphore);
int __wrap_sem_post(sem_t *semaphore);
int __wrap_pthread_setname_np(pthread_t thread, const char *name);
int __wrap_hwloc_topology_init(hwloc_topology_t *topology);
int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                                  const struct timespec *until);
int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex);
int __wrap_pthread_cond_signal(pthread_cond_t *cond);
int __wrap_pthread_cond_broadcast(pthread_cond_t *cond);
pid_t __wrap_getpid(void);
int __wrap_kolo__usable_cpus(void);
FILE *__real_fopen(const char *path, const char *mode);
FILE *__wrap_fopen(const char *path, const char *mode);
ssize_t __wrap_readlink(const char *path, char *text, size_t bytes);
ssize_t __wrap_getrandom(void *bytes, size_t count, unsigned flags);
kolo_status __wrap_kolo__heap_reserve(const struct kolo__heap_block *block, uint64_t patience_ms);
void __wrap_kolo__log(enum kolo__log_level level, const char *format, ...);
kolo_status __real_kolo__heap_open(const struct kolo__heap_options *options,
                                   struct kolo__heap **heap);
kolo_status __wrap_kolo__heap_open(const struct kolo__heap_options *options,
                                   struct kolo__heap **heap);
void __real_kolo__heap_close(struct kolo__heap *heap);
void __wrap_kolo__heap_close(struct kolo__heap *heap);
kolo_status __real_kolo__flight_open(struct kolo__flight_recorder *recorder, const char *path,
                                     long place, uint32_t rank, uint32_t size, const char *job);
kolo_status __wrap_kolo__flight_open(struct kolo__flight_recorder *recorder, const char *path,
                                     long place, uint32_t rank, uint32_t size, const char *job);

/* ---- time ------------------------------------------------------------------------------------
 */

uint64_t world_process_ns(const struct process *process, uint64_t now_ns)
{
    return now_ns + (process != NULL ? process->monotonic_ns : 0);
}

/* Now and then something else runs meanwhile; and looking takes time. */
static void be_preempted(void)
{
    if (world_chance(2))
        fiber_wait(world->now_ns + world_below(20 * US));
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *now)
{
    if (world == NULL || world->current == NULL)
        return __real_clock_gettime(clock, now);
    be_preempted();
    world->now_ns += 20;
    uint64_t ns = world_process_ns(world->current, world->now_ns);
    if (clock == CLOCK_REALTIME)
        ns = (uint64_t)((int64_t)ns + world->current->wall_ns);
    *now = (struct timespec){.tv_sec = (time_t)(ns / SEC), .tv_nsec = (long)(ns % SEC)};
    return 0;
}

int __wrap_nanosleep(const struct timespec *pause, struct timespec *left)
{
    uint64_t until = world->now_ns + (uint64_t)pause->tv_sec * SEC + (uint64_t)pause->tv_nsec;
    (void)left;
    while (world->now_ns < until)
        fiber_wait(until);
    return 0;
}

/* Others have the processor for some time, or until something comes. */
int __wrap_sched_yield(void)
{
    fiber_wait(world->now_ns + 10 * US + world_below(600 * US));
    return 0;
}

/* ---- threads ---------------------------------------------------------------------------------
 */

struct start {
    void *(*run)(void *);
    void *self;
};

static void run_thread(void *argument)
{
    struct start start = *(struct start *)argument;
    free(argument);
    start.run(start.self);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *self)
{
    (void)attributes;
    struct start *start = malloc(sizeof *start);
    if (start == NULL)
        return EAGAIN;
    *start = (struct start){run, self};
    *thread = (pthread_t)(uintptr_t)fiber_start(world->current, run_thread, start);
    return 0;
}

int __wrap_pthread_join(pthread_t thread, void **result)
{
    struct fiber *fiber = (struct fiber *)(uintptr_t)thread;
    while (!fiber_has_ended(fiber))
        fiber_wait(NEVER);
    fiber_forget(fiber);
    if (result != NULL)
        *result = NULL;
    return 0;
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex)
{
    if (world == NULL || world->current == NULL)
        return __real_pthread_mutex_lock(mutex);
    while (pthread_mutex_trylock(mutex) == EBUSY)
        fiber_wait_for(mutex);
    return 0;
}

/* Where other threads may come between, most mistakes are. */
int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    int error = __real_pthread_mutex_unlock(mutex);
    if (world != NULL && world->current != NULL) {
        fiber_wake_for(mutex);
        be_preempted();
    }
    return error;
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                                  const struct timespec *until)
{
    (void)cond;
    uint64_t until_ns =
        (uint64_t)until->tv_sec * SEC + (uint64_t)until->tv_nsec - world->current->monotonic_ns;
    __real_pthread_mutex_unlock(mutex);
    fiber_wake_for(mutex);
    fiber_wait(until_ns); /* others may run, even if that time is over */
    __wrap_pthread_mutex_lock(mutex);
    return world->now_ns >= until_ns ? ETIMEDOUT : 0;
}

int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
    (void)cond;
    __real_pthread_mutex_unlock(mutex);
    fiber_wake_for(mutex);
    fiber_wait(NEVER);
    return __wrap_pthread_mutex_lock(mutex);
}

int __wrap_pthread_cond_broadcast(pthread_cond_t *cond)
{
    return __wrap_pthread_cond_signal(cond);
}

int __wrap_pthread_cond_signal(pthread_cond_t *cond)
{
    (void)cond;
    fiber_wake_process(world->current); /* the others look, and wait again */
    return 0;
}

/* Of CLOCK_MONOTONIC. */
int __wrap_sem_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *until)
{
    uint64_t until_ns =
        (uint64_t)until->tv_sec * SEC + (uint64_t)until->tv_nsec - world->current->monotonic_ns;
    KOLO__ASSERT(clock == CLOCK_MONOTONIC);
    for (bool over = false; sem_trywait(semaphore) != 0; over = world->now_ns >= until_ns) {
        if (over) {
            errno = ETIMEDOUT;
            return -1;
        }
        fiber_wait(until_ns);
    }
    return 0;
}

int __wrap_sem_wait(sem_t *semaphore)
{
    while (sem_trywait(semaphore) != 0)
        fiber_wait(NEVER);
    return 0;
}

int __wrap_sem_post(sem_t *semaphore)
{
    int error = __real_sem_post(semaphore);
    fiber_wake_process(world->current); /* the others look, and wait again */
    be_preempted();
    return error;
}

int __wrap_pthread_setname_np(pthread_t thread, const char *name)
{
    (void)thread;
    (void)name;
    return 0;
}

/* ---- who and where ---------------------------------------------------------------------------
 */

pid_t __wrap_getpid(void)
{
    return world != NULL && world->current != NULL ? (pid_t)(1000 + world->current->id) : 1;
}

int __wrap_kolo__usable_cpus(void)
{
    return 1; /* who shares a processor yields it */
}

/* A thread has no place of its own. */
int __wrap_hwloc_topology_init(hwloc_topology_t *topology)
{
    (void)topology;
    return -1;
}

/* There is no /proc: who looks finds nothing, and says its host by name. */
FILE *__wrap_fopen(const char *path, const char *mode)
{
    return world == NULL || world->current == NULL ? __real_fopen(path, mode) : NULL;
}

ssize_t __wrap_readlink(const char *path, char *text, size_t bytes)
{
    (void)path;
    (void)text;
    (void)bytes;
    errno = ENOENT;
    return -1;
}

ssize_t __wrap_getrandom(void *bytes, size_t count, unsigned flags)
{
    (void)flags;
    for (size_t i = 0; i < count; i++)
        ((unsigned char *)bytes)[i] = (unsigned char)world_below(256);
    return (ssize_t)count;
}

void __wrap_kolo__log(enum kolo__log_level level, const char *format, ...)
{
    char text[1600];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (strstr(text, "message is broken") != NULL)
        world_broken("somebody said what is none: %s", text);
    world_log("%s%s", level <= KOLO__LOG_WARN ? "" : "  ", text);
}

/* ---- what is mapped --------------------------------------------------------------------------
 */

kolo_status __wrap_kolo__flight_open(struct kolo__flight_recorder *recorder, const char *path,
                                     long place, uint32_t rank, uint32_t size, const char *job)
{
    world->current->recorder = recorder;
    return __real_kolo__flight_open(recorder, path, place, rank, size, job);
}

/* Pages come when they are written, as far as they are: to reserve them took half of a job's time.
 */
kolo_status __wrap_kolo__heap_reserve(const struct kolo__heap_block *block, uint64_t patience_ms)
{
    (void)block;
    (void)patience_ms;
    return KOLO_OK;
}

static struct kolo__heap **find_mapping(struct process *process, const struct kolo__heap *heap)
{
    for (uint32_t i = 0; i < WORLD_MAPPINGS_MAX; i++)
        if (process->mappings[i] == heap)
            return &process->mappings[i];
    return NULL;
}

kolo_status __wrap_kolo__heap_open(const struct kolo__heap_options *options,
                                   struct kolo__heap **heap)
{
    kolo_status status = __real_kolo__heap_open(options, heap);
    struct kolo__heap **place = find_mapping(world->current, NULL);
    KOLO__ASSERT(place != NULL);
    if (status == KOLO_OK)
        *place = *heap;
    return status;
}

void __wrap_kolo__heap_close(struct kolo__heap *heap)
{
    if (heap != NULL)
        *find_mapping(world->current, heap) = NULL;
    __real_kolo__heap_close(heap);
}

size_t system_mapping_count(const struct process *process)
{
    size_t count = 0;
    for (uint32_t i = 0; i < WORLD_MAPPINGS_MAX; i++)
        count += process->mappings[i] != NULL;
    return count;
}

void system_unmap_all(struct process *process)
{
    if (process->recorder != NULL && process->recorder->flight != NULL)
        kolo__flight_close(process->recorder);
    process->recorder = NULL;
    for (uint32_t i = 0; i < WORLD_MAPPINGS_MAX; i++) {
        __real_kolo__heap_close(process->mappings[i]);
        process->mappings[i] = NULL;
    }
}
