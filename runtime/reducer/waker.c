/* SPDX-License-Identifier: Apache-2.0 */
/* A barrier of which one side costs nothing: see struct kolo__waker. */
#include "runtime/reducer/reducer.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const uint64_t SECOND = 1000000000;

bool kolo__waker_asymmetric = false;
atomic_uint kolo__waker_fence;

static void prepare(void)
{
    kolo__waker_asymmetric =
        syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
}

void kolo__waker_prepare(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, prepare);
}

void kolo__waker_idle(struct kolo__waker *waker)
{
    atomic_store(&waker->idle, true);
    if (kolo__waker_asymmetric)
        syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
    else
        atomic_fetch_add(&kolo__waker_fence, 1);
}

/* By a clock that nobody sets: the wall clock may be put back for an hour. */
void kolo__waker_sleep(struct kolo__waker *waker, uint64_t most_ns)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t at = (uint64_t)until.tv_nsec + most_ns;
    until.tv_sec += (time_t)(at / SECOND);
    until.tv_nsec = (long)(at % SECOND);
    while (sem_clockwait(&waker->semaphore, CLOCK_MONOTONIC, &until) != 0 && errno == EINTR) {
    }
}
