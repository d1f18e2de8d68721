/* SPDX-License-Identifier: Apache-2.0 */
/* When more ranks are started in places where none is (--max): at once, but not while those that
 * are left may be about to end as well. The world is a real one, of one rank; what starts ranks is
 * not. */
#include "base/clock.h"
#include "launcher/supervision.h"
#include "runtime/control.h"
#include "runtime/introduction.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

enum { PLACES = 3 };

static const uint64_t SECOND = 1000000000, START = 5000000000;
static const char no_words[KOLO__INTRODUCTION_TEXTS];

static struct kolo__rendezvous *server;
static struct kolo__control *control;
static struct kolo__supervised job;
static struct kolo__supervision supervision;
static uint32_t places[PLACES], more;

static kolo_status start_more(void *ranks, uint32_t rank, struct kolo__output *output)
{
    (void)ranks;
    (void)output;
    places[more++] = rank;
    return KOLO_OK;
}

static const struct kolo__ranks_ops ops = {.start_more = start_more};

static void *join(void *argument)
{
    const struct kolo__control_options options = {.rendezvous = kolo__rendezvous_address(server),
                                                  .job = "job",
                                                  .token = "secret",
                                                  .size = 1,
                                                  .deadline_ns =
                                                      kolo__now_ns(&kolo__real_clock) + 20 * SECOND,
                                                  .timeout_s = 20};
    bool joined = kolo__control_connect(&options, &control) == KOLO_OK &&
                  kolo__control_join(control, no_words, sizeof no_words) == KOLO_OK;
    return joined ? argument : NULL;
}

/* One rank runs, at place 0, and one has run, at place 1. */
static int begin(void **state)
{
    const struct kolo__rendezvous_options options = {
        .host = "127.0.0.1", .job = "job", .token = "secret", .world_size = 1, .min_ranks = 1};
    const struct timespec pause = {.tv_nsec = 1000000};
    pthread_t thread;
    void *joined;
    (void)state;
    if (kolo__rendezvous_create(&options, &server) != KOLO_OK ||
        pthread_create(&thread, NULL, join, &control) != 0)
        return 1;
    for (int i = 0; i < 20000 && !kolo__rendezvous_has_formed(server); i++) {
        kolo__rendezvous_step(server);
        nanosleep(&pause, NULL);
    }
    pthread_join(thread, &joined);
    job = (struct kolo__supervised){.ranks = 2,
                                    .started = 2,
                                    .places = PLACES,
                                    .grows = true,
                                    .ops = &ops,
                                    .min_ranks = 1,
                                    .rendezvous = server};
    supervision = (struct kolo__supervision){.job = &job, .started = 2, .running = 1};
    supervision.endings = calloc(PLACES, sizeof *supervision.endings);
    more = 0;
    return joined == NULL || supervision.endings == NULL ||
           !kolo__restarts_open(&supervision.restarts, PLACES, 0);
}

static int end(void **state)
{
    (void)state;
    kolo__restarts_close(&supervision.restarts);
    free(supervision.endings);
    kolo__control_close(control);
    kolo__rendezvous_free(server);
    return 0;
}

static void assert_filled(void)
{
    assert_int_equal(more, 2);
    assert_int_equal(places[0], 2);
    assert_int_equal(places[1], 1);
    assert_int_equal(supervision.running, PLACES);
    assert_true(supervision.more_at_ns == 0);
}

static void test_who_has_ended_well_is_not_replaced_at_once(void **state)
{
    (void)state;
    supervision.endings[1] = (struct kolo__ending){.ended = true, .at_ns = START};
    kolo__supervision_resize(&supervision, START);
    kolo__supervision_resize(&supervision, START + 5 * SECOND - 1);
    assert_int_equal(more, 0);
    assert_true(supervision.more_at_ns == START + 5 * SECOND); /* or nobody would look again */
    kolo__supervision_resize(&supervision, START + 5 * SECOND);
    assert_filled();
}

static void test_who_failed_is(void **state)
{
    (void)state;
    supervision.endings[1] = (struct kolo__ending){
        .ended = true, .survived = true, .at_ns = START, .wait_status = 1 << 8};
    kolo__supervision_resize(&supervision, START);
    assert_filled();
}

/* Its place has gone, and another may have come. */
static void test_who_was_told_to_go_is(void **state)
{
    (void)state;
    supervision.endings[1] = (struct kolo__ending){.ended = true, .asked = true, .at_ns = START};
    kolo__supervision_resize(&supervision, START);
    assert_filled();
}

static void test_nobody_comes_to_no_world(void **state)
{
    (void)state;
    supervision.term_at_ns = START;
    kolo__supervision_resize(&supervision, START);
    supervision.term_at_ns = 0;
    job.grows = false;
    kolo__supervision_resize(&supervision, START);
    assert_int_equal(more, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_who_has_ended_well_is_not_replaced_at_once, begin,
                                        end),
        cmocka_unit_test_setup_teardown(test_who_failed_is, begin, end),
        cmocka_unit_test_setup_teardown(test_who_was_told_to_go_is, begin, end),
        cmocka_unit_test_setup_teardown(test_nobody_comes_to_no_world, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
