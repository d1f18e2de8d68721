/* SPDX-License-Identifier: Apache-2.0 */
/* The rendezvous on a thread of rank 0: how long it stays. */
#include "base/clock.h"
#include "runtime/control.h"
#include "runtime/launch/server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

static atomic_bool left;

static uint64_t in_seconds(unsigned seconds)
{
    return kolo__now_ns(&kolo__real_clock) + seconds * 1000000000u;
}

static struct kolo__server *start(struct kolo__control **control)
{
    const struct kolo__rendezvous_options options = {
        .host = "127.0.0.1", .job = "job", .token = "secret", .world_size = 1};
    struct kolo__rendezvous *rendezvous;
    struct kolo__server *server;
    assert_int_equal(kolo__rendezvous_create(&options, &rendezvous), KOLO_OK);
    assert_int_equal(kolo__server_start(rendezvous, &server), KOLO_OK);
    const struct kolo__control_options joining = {.rendezvous = kolo__server_address(server),
                                                  .job = "job",
                                                  .token = "secret",
                                                  .size = 1,
                                                  .deadline_ns = in_seconds(20),
                                                  .timeout_s = 20};
    assert_int_equal(kolo__control_connect(&joining, control), KOLO_OK);
    assert_int_equal(kolo__control_join(*control, "", 0), KOLO_OK);
    return server;
}

static void *leave_later(void *control)
{
    const struct timespec pause = {.tv_nsec = 200000000};
    nanosleep(&pause, NULL);
    atomic_store(&left, true);
    kolo__control_bye(control);
    return NULL;
}

static void test_stays_until_all_left(void **state)
{
    (void)state;
    struct kolo__control *control;
    struct kolo__server *server = start(&control);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, leave_later, control), 0);
    kolo__server_end(server, in_seconds(60));
    assert_true(atomic_load(&left));
    pthread_join(thread, NULL);
    kolo__control_close(control);
}

/* Who stays does not keep it for ever: this ends. */
static void test_ends_at_its_deadline(void **state)
{
    (void)state;
    struct kolo__control *control;
    struct kolo__fault fault;
    struct kolo__server *server = start(&control);
    kolo__server_end(server, in_seconds(0));
    uint64_t give_up_ns = in_seconds(20);
    while (!kolo__control_fault(control, 0, &fault) && kolo__now_ns(&kolo__real_clock) < give_up_ns)
        kolo__control_poll(control);
    assert_true(kolo__control_fault(control, 0, &fault));
    kolo__control_close(control);
}

static void test_nobody_was_there(void **state)
{
    (void)state;
    const struct kolo__rendezvous_options options = {
        .host = "127.0.0.1", .job = "job", .token = "secret", .world_size = 2};
    struct kolo__rendezvous *rendezvous;
    struct kolo__server *server;
    assert_int_equal(kolo__rendezvous_create(&options, &rendezvous), KOLO_OK);
    assert_int_equal(kolo__server_start(rendezvous, &server), KOLO_OK);
    kolo__server_end(server, UINT64_MAX);
    kolo__server_end(NULL, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stays_until_all_left),
        cmocka_unit_test(test_ends_at_its_deadline),
        cmocka_unit_test(test_nobody_was_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
