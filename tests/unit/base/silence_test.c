/* SPDX-License-Identifier: Apache-2.0 */
/* When a host counts as vanished: by a clock of its own, and of real connections. */
#include "base/silence.h"

#include "base/clock.h"
#include "base/socket.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <linux/filter.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

static const uint64_t S = 1000000000;
enum { LIMIT_S = 8 };

/* At this second; the last answer came so many seconds before. */
static bool look(struct kolo__silence *silence, uint64_t at_s, bool unanswered, uint64_t ago_s)
{
    return kolo__silence_judge(silence, unanswered, ago_s * S, LIMIT_S, at_s * S);
}

static void test_silence_is_found_in_time(void **state)
{
    (void)state;
    struct kolo__silence silence = {0};
    assert_false(look(&silence, 100, true, 0));
    for (uint64_t s = 1; s < LIMIT_S; s++)
        assert_false(look(&silence, 100 + s, true, s));
    assert_true(look(&silence, 100 + LIMIT_S, true, LIMIT_S));
}

static void test_an_answer_begins_anew(void **state)
{
    (void)state;
    struct kolo__silence silence = {0};
    for (uint64_t s = 0; s < 100; s++)
        assert_false(look(&silence, 100 + s, s % 7 != 6, 1));
    /* Unanswered in every look, but by something sent after an answer between two of them. */
    for (uint64_t s = 100; s < 200; s++)
        assert_false(look(&silence, 100 + s, true, 1));
}

static void test_idle_for_long_is_not_silent(void **state)
{
    (void)state;
    struct kolo__silence silence = {0};
    for (uint64_t s = 0; s < 100; s++)
        assert_false(look(&silence, 100 + s, false, s));
    assert_false(look(&silence, 200, true, 100));
    assert_false(look(&silence, 201, false, 0));
}

static void test_who_computed_begins_anew(void **state)
{
    (void)state;
    struct kolo__silence silence = {0};
    assert_false(look(&silence, 100, true, 0));
    assert_false(look(&silence, 1000, true, 899));
    assert_false(look(&silence, 1001, true, 900));
    for (uint64_t s = 2; s < LIMIT_S; s++)
        assert_false(look(&silence, 1000 + s, true, 899 + s));
    assert_true(look(&silence, 1000 + LIMIT_S, true, 899 + LIMIT_S));
}

static void test_seconds(void **state)
{
    (void)state;
    assert_int_equal(kolo__silence_seconds(0, 1), 5);
    assert_int_equal(kolo__silence_seconds(0, 300), 30);
    assert_int_equal(kolo__silence_seconds(0, 1000000), 3600);
    assert_int_equal(kolo__silence_seconds(7, 300), 7);
    assert_true(kolo__silence_is_errno(ETIMEDOUT));
    assert_false(kolo__silence_is_errno(ECONNRESET));
}

/* ---- of a real connection ------------------------------------------------------------------- */

enum { NEAR, FAR, SILENCE_S = 1 };

static void connect_both(int fds[2])
{
    struct kolo__address bound;
    int listening;
    assert_int_equal(kolo__listen("127.0.0.1", 0, &listening, &bound), KOLO_OK);
    fds[NEAR] = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fds[NEAR], (struct sockaddr *)&bound.storage, bound.length), 0);
    assert_int_equal(poll(&(struct pollfd){.fd = listening, .events = POLLIN}, 1, 10000), 1);
    fds[FAR] = accept(listening, NULL, NULL);
    assert_true(fds[FAR] >= 0);
    close(listening);
}

/* Does it count as silent within so long? */
static bool is_found(int fd, uint64_t seconds)
{
    struct kolo__silence silence = {0};
    uint64_t by_ns = kolo__now_ns(&kolo__real_clock) + seconds * S;
    for (uint64_t now_ns = 0; now_ns < by_ns; usleep(20000)) {
        now_ns = kolo__now_ns(&kolo__real_clock);
        if (kolo__silence_check(&silence, fd, SILENCE_S, now_ns))
            return true;
    }
    return false;
}

/* What it sends arrives, again and again. */
static void test_deaf_host_is_silent(void **state)
{
    (void)state;
    struct sock_filter nothing = {.code = BPF_RET | BPF_K, .k = 0};
    const struct sock_fprog drop = {.len = 1, .filter = &nothing};
    int fds[2];
    connect_both(fds);
    assert_int_equal(setsockopt(fds[FAR], SOL_SOCKET, SO_ATTACH_FILTER, &drop, sizeof drop), 0);
    assert_int_equal(write(fds[NEAR], "1", 1), 1);
    usleep(50000); /* so that it repeats just after what it did not hear was repeated */
    assert_int_equal(write(fds[FAR], "1", 1), 1);
    assert_true(is_found(fds[NEAR], 3));
    close(fds[NEAR]);
    close(fds[FAR]);
}

/* Its window is closed, and what it says besides is heard. */
static void test_host_that_does_not_read_is_not_silent(void **state)
{
    (void)state;
    static const char much[64 << 10];
    int fds[2];
    connect_both(fds);
    do
        while (send(fds[NEAR], much, sizeof much, MSG_DONTWAIT) > 0)
            continue;
    while (poll(&(struct pollfd){.fd = fds[NEAR], .events = POLLOUT}, 1, 300) > 0);
    assert_int_equal(write(fds[FAR], "1", 1), 1);
    assert_false(is_found(fds[NEAR], 4 * SILENCE_S));
    close(fds[NEAR]);
    close(fds[FAR]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_silence_is_found_in_time),
        cmocka_unit_test(test_an_answer_begins_anew),
        cmocka_unit_test(test_idle_for_long_is_not_silent),
        cmocka_unit_test(test_who_computed_begins_anew),
        cmocka_unit_test(test_seconds),
        cmocka_unit_test(test_deaf_host_is_silent),
        cmocka_unit_test(test_host_that_does_not_read_is_not_silent),
    };
    return cmocka_run_group_tests_name("silence", tests, NULL, NULL);
}
