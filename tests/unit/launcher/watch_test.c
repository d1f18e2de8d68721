/* SPDX-License-Identifier: Apache-2.0 */
/* When `kolo run` looks again at who is silent. */
#include "launcher/watch.h"
#include "runtime/rendezvous.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const uint64_t MILLISECOND = 1000000, START = 5000000000;

/* That somebody became quiet between the two was seen by nobody before he was lost. */
static void test_who_is_woken_early_looks_again(void **state)
{
    char text[200];
    struct kolo__watch watch = {0};
    struct kolo__supervised job = {.places = 2, .peer_timeout_s = 1};
    struct kolo__rendezvous_options options = {
        .host = "127.0.0.1", .job = "job", .token = "secret", .world_size = 2};
    (void)state;
    assert_int_equal(kolo__rendezvous_create(&options, &job.rendezvous), KOLO_OK);
    kolo__watch_step(&watch, &job, START, text, sizeof text);
    assert_int_equal(kolo__watch_timeout_ms(&watch), -1);
    kolo__watch_step(&watch, &job, START + 50 * MILLISECOND, text, sizeof text);
    assert_in_range(kolo__watch_timeout_ms(&watch), 1, 100);
    kolo__watch_step(&watch, &job, START + 150 * MILLISECOND, text, sizeof text);
    assert_int_equal(kolo__watch_timeout_ms(&watch), -1);
    kolo__rendezvous_free(job.rendezvous);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_who_is_woken_early_looks_again)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
