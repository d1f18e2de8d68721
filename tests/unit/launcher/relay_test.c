/* SPDX-License-Identifier: Apache-2.0 */
/* Between an agent's part and a `kolo run` on a host that does not answer any more, or only does
 * not read. */
#include "launcher/relay.h"

#include "base/clock.h"
#include "base/socket.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SILENCE_S = 1, BYTES = 8 << 20, NEAR = 0, FAR = 1 };

static struct fixture {
    struct kolo__credentials *credentials;
    struct kolo__secure *secure[2];
    int fds[2];   /* of a TCP connection: the relay's, and the other host's */
    int local[2]; /* what the relay reads and writes, and the part's end */
    pthread_t relay;
} f;

static uint64_t in_seconds(uint64_t seconds)
{
    return kolo__now_ns(&kolo__real_clock) + seconds * 1000000000;
}

static void connect_both(void)
{
    struct kolo__address bound;
    int listening;
    assert_int_equal(kolo__listen("127.0.0.1", 0, &listening, &bound), KOLO_OK);
    f.fds[NEAR] = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(f.fds[NEAR], (struct sockaddr *)&bound.storage, bound.length), 0);
    assert_int_equal(poll(&(struct pollfd){.fd = listening, .events = POLLIN}, 1, 10000), 1);
    f.fds[FAR] = accept(listening, NULL, NULL);
    assert_true(f.fds[FAR] >= 0);
    close(listening);
}

static int set_up(void **state)
{
    (void)state;
    kolo_status states[2] = {KOLO_AGAIN, KOLO_AGAIN};
    f = (struct fixture){0};
    connect_both();
    assert_int_equal(kolo__credentials_create(KOLO__PURPOSE_AGENT, "", "a token", &f.credentials),
                     KOLO_OK);
    for (int i = 0; i < 2; i++) {
        fcntl(f.fds[i], F_SETFL, O_NONBLOCK);
        assert_int_equal(
            kolo__secure_create(f.credentials,
                                i == NEAR ? KOLO__SECURE_ACCEPTOR : KOLO__SECURE_INITIATOR,
                                f.fds[i], &f.secure[i]),
            KOLO_OK);
    }
    for (int i = FAR; states[NEAR] != KOLO_OK || states[FAR] != KOLO_OK; i = !i) {
        states[i] = kolo__secure_handshake(f.secure[i]);
        assert_true(states[i] <= KOLO_AGAIN);
    }
    return socketpair(AF_UNIX, SOCK_STREAM, 0, f.local);
}

static int tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        kolo__secure_free(f.secure[i]);
        close(f.fds[i]);
        close(f.local[i]);
    }
    kolo__credentials_free(f.credentials);
    return 0;
}

static void *relay(void *unused)
{
    kolo__relay(f.secure[NEAR], f.local[NEAR], f.local[NEAR], SILENCE_S);
    close(f.local[NEAR]); /* ends the part as well */
    return unused;
}

/* As a part whose ranks have written much: all that goes, for so long. Returns how much. */
static size_t write_for(uint64_t seconds)
{
    static const char zeros[64 << 10];
    size_t written = 0;
    uint64_t until_ns = in_seconds(seconds);
    while (written < BYTES && kolo__now_ns(&kolo__real_clock) < until_ns) {
        ssize_t sent = send(f.local[FAR], zeros, sizeof zeros, MSG_DONTWAIT | MSG_NOSIGNAL);
        written += sent > 0 ? (size_t)sent : 0;
        if (sent < 0)
            poll(&(struct pollfd){.fd = f.local[FAR], .events = POLLOUT}, 1, 10);
    }
    return written;
}

/* So many, within 30 s. */
static void read_all(size_t bytes)
{
    char data[4096];
    size_t got = 0, moved;
    for (uint64_t by_ns = in_seconds(30); got < bytes; got += moved) {
        kolo_status status = kolo__secure_read(f.secure[FAR], data, sizeof data, &moved);
        assert_true(status <= KOLO_AGAIN);
        assert_true(kolo__now_ns(&kolo__real_clock) < by_ns);
        if (status == KOLO_AGAIN)
            poll(&(struct pollfd){.fd = f.fds[FAR], .events = POLLIN}, 1, 100);
    }
}

/* The part has gone: nobody reads here, and nobody is told. */
static void test_host_that_does_not_answer(void **state)
{
    (void)state;
    struct sock_filter nothing = {.code = BPF_RET | BPF_K, .k = 0};
    const struct sock_fprog drop = {.len = 1, .filter = &nothing};
    assert_int_equal(pthread_create(&f.relay, NULL, relay, NULL), 0);
    assert_int_equal(setsockopt(f.fds[FAR], SOL_SOCKET, SO_ATTACH_FILTER, &drop, sizeof drop), 0);
    assert_true(write_for(1) < BYTES);
    shutdown(f.local[FAR], SHUT_WR);
    struct timespec by;
    clock_gettime(CLOCK_REALTIME, &by);
    by.tv_sec += 30;
    assert_int_equal(pthread_timedjoin_np(f.relay, NULL, &by), 0);
}

/* As of a `kolo run` that is stopped for longer than that: what the part said last arrives. */
static void test_host_that_answers(void **state)
{
    (void)state;
    assert_int_equal(pthread_create(&f.relay, NULL, relay, NULL), 0);
    size_t written = write_for(3 * SILENCE_S);
    shutdown(f.local[FAR], SHUT_WR);
    assert_true(written < BYTES);
    read_all(written);
    pthread_join(f.relay, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_host_that_does_not_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_host_that_answers, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("relay", tests, NULL, NULL);
}
