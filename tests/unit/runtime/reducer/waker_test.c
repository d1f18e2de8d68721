/* SPDX-License-Identifier: Apache-2.0 */
/* A wait lasts as long as was said, whatever becomes of the wall clock meanwhile. */
#include "runtime/reducer/reducer.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Taken instead of libc's: the wall clock was an hour ahead, and is put back after this look. */
int clock_gettime(clockid_t clock, struct timespec *now)
{
    long error = syscall(SYS_clock_gettime, clock, now);
    if (clock == CLOCK_REALTIME)
        now->tv_sec += 3600;
    return (int)error;
}

static void test_clock_put_back(void **state)
{
    (void)state;
    struct kolo__waker waker = {.idle = false};
    sem_init(&waker.semaphore, 0, 0);
    alarm(60); /* not an hour */
    uint64_t begin = kolo__now_ns(&kolo__real_clock);
    kolo__waker_sleep(&waker, 20000000);
    assert_true(kolo__now_ns(&kolo__real_clock) - begin >= 20000000);
    sem_destroy(&waker.semaphore);
}

static void test_woken(void **state)
{
    (void)state;
    struct kolo__waker waker = {.idle = false};
    sem_init(&waker.semaphore, 0, 0);
    alarm(60);
    kolo__waker_prepare();
    kolo__waker_idle(&waker);
    kolo__waker_wake(&waker); /* before it sleeps: it does not */
    kolo__waker_sleep(&waker, UINT64_C(3600) * 1000000000);
    assert_false(waker.idle);
    kolo__waker_wake(&waker); /* nobody is idle: the next sleep lasts */
    uint64_t begin = kolo__now_ns(&kolo__real_clock);
    kolo__waker_sleep(&waker, 20000000);
    assert_true(kolo__now_ns(&kolo__real_clock) - begin >= 20000000);
    sem_destroy(&waker.semaphore);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_clock_put_back),
                                       cmocka_unit_test(test_woken)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
