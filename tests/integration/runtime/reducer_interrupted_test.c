/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kolo_reducer_ready may be put to sleep anywhere, while another thread is in kolo_reducer_wait. In
 * the first step that thread then lays everything out anew, and no gradient may get lost over it.
 * Here the processor's trap flag stops kolo_reducer_ready after each of its instructions in turn.
 */
#include "reducer_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#include <ucontext.h>

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

enum { TRAP_FLAG = 0x100, SLEEP_NS = 3000000 };

static volatile long instructions, sleep_after; /* of the thread that steps */
static atomic_bool paused;                      /* or past its end */
static kolo_reducer *stepped;
static kolo_status stepped_status;

static void after_instruction(int signal, siginfo_t *info, void *context_of_signal)
{
    ucontext_t *at = context_of_signal;
    (void)signal;
    (void)info;
    if (++instructions < sleep_after)
        return;
    at->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)TRAP_FLAG;
    atomic_store(&paused, true);
    const struct timespec some_time = {.tv_nsec = SLEEP_NS};
    nanosleep(&some_time, NULL);
}

static void *ready_with_a_pause(void *argument)
{
    (void)argument;
    __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "memory", "cc");
    stepped_status = kolo_reducer_ready(stepped, 0);
    __asm__ volatile("pushfq; andq $~0x100, (%%rsp); popfq" ::: "memory", "cc");
    atomic_store(&paused, true);
    return NULL;
}

static int first_step_with_a_pause(long after)
{
    pthread_t thread;
    CHECK(kolo_reducer_create(comm, tensors, 3, NULL, &stepped) == KOLO_OK);
    CHECK(kolo_reducer_ready(stepped, 2) == KOLO_OK);
    CHECK(kolo_reducer_ready(stepped, 1) == KOLO_OK);
    instructions = 0;
    atomic_store(&paused, false);
    sleep_after = after;
    CHECK(pthread_create(&thread, NULL, ready_with_a_pause, NULL) == 0);
    while (!atomic_load(&paused))
        sched_yield();
    CHECK(kolo_reducer_wait(stepped, -1) == KOLO_OK);
    CHECK(pthread_join(thread, NULL) == 0 && stepped_status == KOLO_OK);
    for (size_t i = 0; i < 3; i++)
        CHECK(kolo_reducer_ready(stepped, i) == KOLO_OK);
    CHECK(kolo_reducer_wait(stepped, -1) == KOLO_OK);
    CHECK(kolo_reducer_free(stepped) == KOLO_OK);
    return 0;
}

static int interrupted(void)
{
    struct sigaction action = {.sa_sigaction = after_instruction, .sa_flags = SA_SIGINFO};
    CHECK(begin() == 0);
    CHECK(sigaction(SIGTRAP, &action, NULL) == 0);
    long after = 1;
    do
        CHECK(first_step_with_a_pause(after) == 0);
    while (instructions >= after++);
    CHECK(after > 20); /* it has instructions */
    CHECK(kolo_finalize(context) == KOLO_OK);
    return 0;
}

static void test_interrupted(void **state)
{
    (void)state;
    const char *environment[] = {"KOLO_TIMEOUT=2", NULL};
    struct world_result result = world_run(1, environment, interrupted);
    world_assert_all_passed(&result, 1);
}

#else

/* No trap flag; sanitizers want signals for themselves. */
static void test_interrupted(void **state)
{
    (void)state;
    skip();
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_interrupted)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
