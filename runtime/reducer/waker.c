/* SPDX-License-Identifier: Apache-2.0 */
/* A barrier of which one side costs nothing: see struct kolo__waker. */
#include "runtime/reducer/reducer.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

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
