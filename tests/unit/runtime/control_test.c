/* SPDX-License-Identifier: Apache-2.0 */
/* What a rank makes of messages from its rendezvous that are late, unexpected or wrong. */
#include "base/clock.h"
#include "base/secure.h"
#include "base/socket.h"
#include "runtime/control.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A rendezvous of one connection: does the proof, says what is in `words`, and stays. If there are
 * `first_words`, they are for an earlier connection, which it closes then. */
static struct kolo__frame_writer words, first_words;
static bool closes; /* it does not stay */
static int listen_fd;
static pthread_t thread;
static struct kolo__control *control;

static uint64_t soon(void)
{
    return kolo__now_ns(&kolo__real_clock) + 5000000000u;
}

static bool say(const struct kolo__frame_writer *said, bool stays)
{
    struct kolo__credentials *credentials = NULL;
    struct kolo__secure *secure = NULL;
    unsigned char ignored;
    struct pollfd ready = {.fd = listen_fd, .events = POLLIN};
    poll(&ready, 1, 5000);
    int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return false;
    bool done = kolo__credentials_create(KOLO__PURPOSE_CONTROL, "job", "the secret of this test",
                                         &credentials) == KOLO_OK &&
                kolo__secure_create(credentials, KOLO__SECURE_ACCEPTOR, fd, &secure) == KOLO_OK &&
                kolo__secure_handshake_by(secure, soon()) == KOLO_OK &&
                kolo__secure_send_all(secure, said->data, said->bytes, soon()) == KOLO_OK;
    while (stays && kolo__recv_all(fd, &ignored, 1, soon()) == KOLO_OK)
        ;
    kolo__secure_free(secure);
    kolo__credentials_free(credentials);
    close(fd);
    return done;
}

static void *serve(void *failed)
{
    bool done = first_words.bytes == 0 || say(&first_words, false);
    if (first_words.bytes > 0)
        say(&words, true); /* in the first round whoever refused is passed by, for another's sake */
    return done && say(&words, !closes) ? NULL : failed;
}

static int end(void **state)
{
    void *failed;
    (void)state;
    kolo__control_close(control);
    control = NULL;
    pthread_join(thread, &failed);
    close(listen_fd);
    kolo__frame_writer_free(&words);
    kolo__frame_writer_free(&first_words);
    return failed != NULL;
}

static void start(char *address, size_t bytes)
{
    struct kolo__address bound;
    assert_int_equal(kolo__listen("127.0.0.1", 0, &listen_fd, &bound), KOLO_OK);
    kolo__address_text(&bound, address, bytes);
    assert_int_equal(pthread_create(&thread, NULL, serve, &words), 0);
}

/* Connects rank 0 of 3 and waits for the first fault. */
static struct kolo__fault first_fault(void)
{
    char address[80];
    struct kolo__fault fault = {0};
    start(address, sizeof address);
    struct kolo__control_options options = {
        .rendezvous = address,
        .job = "job",
        .token = "the secret of this test",
        .size = 3,
        .deadline_ns = soon(),
        .timeout_s = 5,
    };
    assert_int_equal(kolo__control_connect(&options, &control), KOLO_OK);
    uint64_t deadline_ns = soon();
    while (!kolo__control_fault(control, 1, &fault) &&
           kolo__now_ns(&kolo__real_clock) < deadline_ns) {
        struct pollfd ready = {.fd = kolo__control_fd(control), .events = POLLIN};
        poll(&ready, 1, 100);
        kolo__control_poll(control);
    }
    return fault;
}

static void put_fault(uint32_t comm, uint32_t rank, const char *text)
{
    kolo__frame_begin(&words, KOLO__FRAME_FAULT);
    kolo__put_u32(&words, comm);
    kolo__put_u8(&words, KOLO_ERR_PEER_LOST);
    kolo__put_u32(&words, rank);
    kolo__put_text(&words, text);
    kolo__frame_end(&words);
}

static void test_fault_behind_a_late_answer(void **state)
{
    (void)state;
    kolo__frame_begin(&words, KOLO__FRAME_ABSENT);
    kolo__put_u32(&words, 1);
    kolo__put_text(&words, "2");
    kolo__frame_end(&words);
    put_fault(7, 1, "of another communicator");
    put_fault(0, 2, "rank 2 was killed");
    struct kolo__fault fault = first_fault();
    assert_int_equal(fault.status, KOLO_ERR_PEER_LOST);
    assert_int_equal(fault.peer, 2);
    assert_string_equal(fault.text, "rank 2 was killed");
}

static void test_refusal_after_joining(void **state)
{
    (void)state;
    kolo__frame_begin(&words, KOLO__FRAME_REFUSED);
    kolo__put_u8(&words, KOLO_ERR_NETWORK);
    kolo__put_text(&words, "a STUCK message is broken");
    kolo__frame_end(&words);
    struct kolo__fault fault = first_fault();
    assert_int_equal(fault.status, KOLO_ERR_NETWORK);
    assert_non_null(strstr(fault.text, "a STUCK message is broken"));
}

/* Whose status is that of a wait for others, of whom nobody is missing. */
static void test_refusal_of_who_came_late(void **state)
{
    (void)state;
    char address[80];
    kolo__frame_begin(&words, KOLO__FRAME_REFUSED);
    kolo__put_u8(&words, KOLO_ERR_TIMEOUT);
    kolo__put_text(&words, "it did not introduce itself in time");
    kolo__frame_end(&words);
    start(address, sizeof address);
    struct kolo__control_options options = {.rendezvous = address,
                                            .job = "job",
                                            .token = "the secret of this test",
                                            .size = 3,
                                            .deadline_ns = soon(),
                                            .timeout_s = 5};
    assert_int_equal(kolo__control_connect(&options, &control), KOLO_OK);
    assert_int_equal(kolo__control_join(control, "", 0), KOLO_ERR_TIMEOUT);
    assert_non_null(
        strstr(kolo_error_text(), "refused rank 0: it did not introduce itself in time"));
}

/* Stopped in set-up, it goes on when the others have expelled it, and finds the connection reset.
 */
static void test_a_step_after_a_refusal(void **state)
{
    (void)state;
    char address[80];
    const struct timespec pause = {.tv_nsec = 100000000};
    const struct kolo__fault fault = {.status = KOLO_ERR_NETWORK, .peer = 1, .text = "late"};
    kolo__frame_begin(&words, KOLO__FRAME_REFUSED);
    kolo__put_u8(&words, KOLO_ERR_WORLD);
    kolo__put_text(&words, "the others go on without it");
    kolo__frame_end(&words);
    closes = true;
    start(address, sizeof address);
    struct kolo__control_options options = {.rendezvous = address,
                                            .job = "job",
                                            .token = "the secret of this test",
                                            .size = 3,
                                            .deadline_ns = soon(),
                                            .timeout_s = 5};
    assert_int_equal(kolo__control_connect(&options, &control), KOLO_OK);
    nanosleep(&pause, NULL); /* it says its words, and closes; what comes now, is reset */
    kolo__control_report(control, 0, &fault);
    nanosleep(&pause, NULL);
    kolo_status status = kolo__control_exchange(control, 1, "", 0, soon(), NULL, NULL);
    closes = false;
    assert_int_equal(status, KOLO_ERR_WORLD);
    assert_non_null(strstr(kolo_error_text(), "the others go on without it"));
}

static void test_fault_of_a_rank_that_is_none(void **state)
{
    (void)state;
    put_fault(1, 3, "rank 3 of 3");
    struct kolo__fault fault = first_fault();
    assert_int_equal(fault.status, KOLO_ERR_PEER_LOST);
    assert_int_equal(fault.peer, -1);
}

/* What ranks tell each other when they join: machine, endpoint, transport, deterministic, timeline,
 * encrypt, checksum, streams, algorithm, segment bytes. */
static const char introduction[] = "machine\0"
                                   "127.0.0.1:9\0"
                                   "tcp\0"
                                   "0\0"
                                   "empty\0"
                                   "0\0"
                                   "0\0"
                                   "0\0"
                                   "empty\0"
                                   "0";

/* As a pod that is made anew while the world that has lost it is still there. */
static void test_world_that_follows(void **state)
{
    (void)state;
    char address[80];
    kolo__frame_begin(&first_words, KOLO__FRAME_REFUSED);
    kolo__put_u8(&first_words, KOLO_ERR_PEER_LOST);
    kolo__put_text(&first_words, "this pod waits for the next one");
    kolo__frame_end(&first_words);
    kolo__frame_begin(&words, KOLO__FRAME_WORLD);
    kolo__put_u32(&words, 1);
    kolo__put_text(&words, "host");
    kolo__put_u32(&words, 1);
    kolo__put_blob(&words, "blob", 4);
    kolo__frame_end(&words);
    start(address, sizeof address);
    struct kolo__control_options options = {.rendezvous = address,
                                            .job = "job",
                                            .token = "the secret of this test",
                                            .size = 1,
                                            .deadline_ns = soon(),
                                            .timeout_s = 5,
                                            .in_pods = true};
    struct kolo__fault fault;
    assert_int_equal(kolo__control_connect(&options, &control), KOLO_OK);
    assert_int_equal(kolo__control_join(control, "blob", 4), KOLO_OK);
    assert_string_equal(kolo__control_member(control, 0)->host, "host");
    assert_false(kolo__control_fault(control, 1, &fault));
}

static void put_member(size_t introduction_bytes)
{
    kolo__put_text(&words, "host");
    kolo__put_u32(&words, 1);
    kolo__put_blob(&words, introduction, introduction_bytes);
}

/* Even this rank's own introduction comes back from outside. */
static void test_own_introduction_cut_short(void **state)
{
    (void)state;
    char address[80];
    kolo_context *context;
    kolo__frame_begin(&words, KOLO__FRAME_WORLD);
    kolo__put_u32(&words, 3);
    put_member(sizeof introduction);
    put_member(0);
    put_member(sizeof introduction);
    kolo__frame_end(&words);
    start(address, sizeof address);
    const kolo_init_options options = {.size = sizeof options,
                                       .rank = 1,
                                       .world_size = 3,
                                       .rendezvous = address,
                                       .transport = "tcp"};
    setenv("KOLO_TOKEN", "the secret of this test", 1);
    setenv("KOLO_JOB", "job", 1);
    assert_int_equal(kolo_init(&options, &context), KOLO_ERR_WORLD);
    assert_non_null(strstr(kolo_error_text(), "another version"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_fault_behind_a_late_answer, end),
        cmocka_unit_test_teardown(test_refusal_after_joining, end),
        cmocka_unit_test_teardown(test_refusal_of_who_came_late, end),
        cmocka_unit_test_teardown(test_a_step_after_a_refusal, end),
        cmocka_unit_test_teardown(test_fault_of_a_rank_that_is_none, end),
        cmocka_unit_test_teardown(test_world_that_follows, end),
        cmocka_unit_test_teardown(test_own_introduction_cut_short, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
