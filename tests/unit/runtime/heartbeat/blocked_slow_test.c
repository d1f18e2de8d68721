/* SPDX-License-Identifier: Apache-2.0 */
/* A sign of life that cannot be sent, because nobody reads: meanwhile the server's silence counts.
 */
#include "two_ranks.h"

#include <sys/socket.h>
#include <time.h>

enum { SILENT_S = 4, SENDS_S = 10 /* what control.c waits for room */, SLACK_S = 9 };

/* The server, which stands still, never looks at what it says. */
static void fill(int fd)
{
    static const char nothing[4096];
    const struct timespec pause = {.tv_nsec = 10000000}; /* for what is sent to have gone */
    for (int full = 0; full < 20; full++) {
        for (size_t bytes = sizeof nothing; bytes > 0; bytes /= 2)
            while (send(fd, nothing, bytes, MSG_DONTWAIT) > 0)
                full = 0;
        nanosleep(&pause, NULL);
    }
}

static void test_a_blocked_beat_is_no_sleep(void **state)
{
    (void)state;
    static struct kolo__flight flight;
    const struct timespec pause = {.tv_nsec = 20000000};
    struct kolo__heartbeat *heartbeat;
    struct kolo__fault known;
    fill(kolo__secure_fd(controls[1]->secure));
    uint64_t began_ns = now();
    assert_int_equal(kolo__heartbeat_start(controls[1], &flight, SILENT_S, &heartbeat), KOLO_OK);
    while (!kolo__control_fault(controls[1], 1, &known) && now() < began_ns + 30 * SECOND)
        nanosleep(&pause, NULL);
    uint64_t took_ns = now() - began_ns;
    kolo__heartbeat_end(heartbeat);
    assert_int_equal(known.status, KOLO_ERR_PEER_LOST);
    assert_true(took_ns < (SENDS_S + SLACK_S) * SECOND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_blocked_beat_is_no_sleep, start_ranks, end_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
