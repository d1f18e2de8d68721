/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strangers at both ports of a running job, the rendezvous and a rank's data port: each is refused,
 * said once with address and reason however often it comes, and the job goes on. Those that wait
 * for the end of their time make this slow.
 */
#include "job.h"

#include "base/clock.h"
#include "base/secure.h"
#include "base/socket.h"
#include "collectives/transport/join.h"
#include "runtime/frame.h"

#include <errno.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { VISITS = 3, CROWD = 200, CROWD_MAX = 64 };

static uint64_t in_seconds(unsigned seconds)
{
    return kolo__now_ns(&kolo__real_clock) + seconds * (uint64_t)1000000000;
}

static int connect_to(enum port port)
{
    int fd;
    assert_int_equal(kolo__connect(job_address(port), in_seconds(20), &fd), KOLO_OK);
    return fd;
}

/* Waits for the end of the connection, whatever is said before; closes. */
static void expect_end(int fd)
{
    char ignored[512];
    ssize_t got = 1;
    while (got > 0) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        assert_int_equal(poll(&ready, 1, 30000), 1);
        got = recv(fd, ignored, sizeof ignored, 0);
    }
    assert_true(got == 0 || errno == ECONNRESET);
    close(fd);
}

/* ---- who knows nothing ----------------------------------------------------------------------- */

static void send_and_end(enum port port, const void *data, size_t bytes)
{
    int fd = connect_to(port);
    kolo__send_all(fd, data, bytes, in_seconds(20));
    expect_end(fd);
}

static void scan(enum port port)
{
    close(connect_to(port));
}

static void speak_http(enum port port)
{
    send_and_end(port, "GET /metrics HTTP/1.1\r\nHost: kolo.example.com\r\n\r\n", 49);
}

static void speak_the_old_protocol(enum port port)
{
    static const unsigned char hello[40] = {'k', 'o', 'l', 'o', 1, 2};
    send_and_end(port, hello, sizeof hello);
}

static void send_garbage(enum port port)
{
    unsigned char garbage[3000];
    for (size_t i = 0; i < sizeof garbage; i++)
        garbage[i] = (unsigned char)(0x5a + i * 167);
    send_and_end(port, garbage, sizeof garbage);
}

static void send_a_million_zeros(enum port port)
{
    static const unsigned char zeros[1000000];
    send_and_end(port, zeros, sizeof zeros);
}

/* As curl https:// or a service mesh would. */
static void speak_tls(enum port port)
{
    int fd = connect_to(port);
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL *ssl = SSL_new(context);
    SSL_set_fd(ssl, fd);
    SSL_set_connect_state(ssl);
    for (int i = 0; i < 100 && SSL_do_handshake(ssl) <= 0; i++) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        if (SSL_get_error(ssl, -1) != SSL_ERROR_WANT_READ)
            break;
        poll(&ready, 1, 20000);
    }
    assert_false(SSL_is_init_finished(ssl));
    SSL_free(ssl);
    SSL_CTX_free(context);
    expect_end(fd);
}

/* ---- who knows something --------------------------------------------------------------------- */

static struct kolo__secure *begin(enum port port, enum kolo__purpose purpose, const char *job,
                                  const char *token, struct kolo__credentials **credentials)
{
    struct kolo__secure *secure;
    assert_int_equal(kolo__credentials_create(purpose, job, token, credentials), KOLO_OK);
    assert_int_equal(
        kolo__secure_create(*credentials, KOLO__SECURE_INITIATOR, connect_to(port), &secure),
        KOLO_OK);
    return secure;
}

static void end(struct kolo__secure *secure, struct kolo__credentials *credentials)
{
    int fd = kolo__secure_fd(secure);
    kolo__secure_free(secure);
    kolo__credentials_free(credentials);
    expect_end(fd);
}

static void expect_refusal(enum port port, enum kolo__purpose purpose, const char *job,
                           const char *token, kolo_status status)
{
    struct kolo__credentials *credentials;
    struct kolo__secure *secure = begin(port, purpose, job, token, &credentials);
    assert_int_equal(kolo__secure_handshake_by(secure, in_seconds(20)), status);
    end(secure, credentials);
}

static enum kolo__purpose purpose_of(enum port port)
{
    return port == DATA ? KOLO__PURPOSE_DATA : KOLO__PURPOSE_CONTROL;
}

static void have_another_token(enum port port)
{
    expect_refusal(port, purpose_of(port), "job", "guess", KOLO_ERR_NETWORK);
}

static void be_of_another_job(enum port port)
{
    expect_refusal(port, purpose_of(port), "an older run", "the secret of this test",
                   KOLO_ERR_WORLD);
}

static void want_another_purpose(enum port port)
{
    expect_refusal(port, KOLO__PURPOSE_AGENT, "job", "the secret of this test", KOLO_ERR_WORLD);
}

/* Data connections: past the handshake, with a join that does not fit. */
static void join_as(const struct kolo__join *join, enum kolo__join_verdict expected)
{
    struct kolo__credentials *credentials;
    struct kolo__join other;
    enum kolo__join_verdict verdict;
    unsigned char message[KOLO__JOIN_BYTES], answer[KOLO__JOIN_ANSWER_BYTES];
    struct kolo__secure *secure =
        begin(DATA, KOLO__PURPOSE_DATA, "job", "the secret of this test", &credentials);
    uint64_t deadline_ns = in_seconds(20);
    kolo__join_encode(join, message);
    assert_int_equal(kolo__secure_handshake_by(secure, deadline_ns), KOLO_OK);
    assert_int_equal(kolo__secure_send_all(secure, message, sizeof message, deadline_ns), KOLO_OK);
    assert_int_equal(kolo__secure_recv_all(secure, answer, sizeof answer, deadline_ns), KOLO_OK);
    assert_int_equal(kolo__join_answer_decode(answer, &verdict, &other), KOLO_OK);
    assert_int_equal(verdict, expected);
    end(secure, credentials);
}

static void be_of_another_epoch(enum port port)
{
    (void)port;
    join_as(
        &(struct kolo__join){.epoch = 7, .comm = 1, .rank = 1, .size = 2, .lanes = 1, .job = "job"},
        KOLO__JOIN_OTHER_EPOCH);
}

static void be_of_another_size(enum port port)
{
    (void)port;
    join_as(&(struct kolo__join){.comm = 1, .rank = 1, .size = 3, .lanes = 1, .job = "job"},
            KOLO__JOIN_OTHER_SIZE);
}

static void be_a_rank_that_is_there(enum port port)
{
    (void)port;
    join_as(&(struct kolo__join){.comm = 1, .rank = 1, .size = 2, .lanes = 1, .job = "job"},
            KOLO__JOIN_BAD_RANK);
}

/* The rendezvous: whole rank processes that are not of this world. */
static void start_a_rank(const char *variable, const char *reason)
{
    const char *environment[] = {variable, NULL};
    char text[512];
    assert_int_equal(job_try_to_join(environment, text, sizeof text), KOLO_ERR_WORLD);
    if (strstr(text, reason) == NULL)
        fail_msg("%s", text);
}

static void be_of_a_larger_world(enum port port)
{
    (void)port;
    start_a_rank("KOLO_WORLD_SIZE=3", "does not fit the world of 2 ranks");
}

static void be_a_rank_again(enum port port)
{
    (void)port;
    start_a_rank("KOLO_WORLD_SIZE=2", "rank 0 joined already");
}

/* ---- tests ----------------------------------------------------------------------------------- */

static const struct stranger {
    const char *name;
    void (*visit)(enum port port);
    const char *reason[PORTS]; /* in the log; NULL: does not come here */
} strangers[] = {
    {"port scanner", scan, {"the other side closed", "the other side closed"}},
    {"http", speak_http, {"begins with 'GET./'", "begins with 'GET./'"}},
    {"old protocol", speak_the_old_protocol, {"an older kolo", "an older kolo"}},
    /* Said already: these are of one kind, whatever their first bytes. */
    {"garbage", send_garbage, {"what it says begins", "what it says begins"}},
    {"nothing", send_a_million_zeros, {"what it says begins", "what it says begins"}},
    {"tls", speak_tls, {"no kolo of this job", "no kolo of this job"}},
    {"wrong token", have_another_token, {"another token", "another token"}},
    {"wrong job", be_of_another_job, {"of job 'an older run'", "of job 'an older run'"}},
    {"wrong purpose", want_another_purpose, {"for 'agent'", "for 'agent'"}},
    {"wrong epoch", be_of_another_epoch, {NULL, "of epoch 7"}},
    {"wrong size", be_of_another_size, {NULL, "has 3 ranks"}},
    {"taken rank", be_a_rank_that_is_there, {NULL, "does not expect a connection"}},
    {"wrong world size", be_of_a_larger_world, {"does not fit the world of 2 ranks", NULL}},
    {"taken rank", be_a_rank_again, {"rank 0 joined already", NULL}},
};

static void visit(const struct stranger *stranger, enum port port)
{
    for (int i = 0; i < VISITS; i++) {
        stranger->visit(port);
        job_assert_goes_on();
    }
    int lines = job_refusals(port, stranger->reason[port]);
    for (uint64_t until = in_seconds(10); lines == 0 && kolo__now_ns(&kolo__real_clock) < until;
         usleep(1000))
        lines = job_refusals(port, stranger->reason[port]);
    if (lines != 1)
        fail_msg("%s at port %d: '%s' is in the log %d times", stranger->name, port,
                 stranger->reason[port], lines);
}

static void everybody_visits(bool encrypt)
{
    job_start(encrypt);
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++)
        for (enum port port = 0; port < PORTS; port++)
            if (strangers[i].reason[port] != NULL)
                visit(&strangers[i], port);
    job_end();
}

static void test_strangers(void **state)
{
    (void)state;
    everybody_visits(false);
}

static void test_strangers_while_data_is_encrypted(void **state)
{
    (void)state;
    everybody_visits(true);
}

/* Silent, half a hello, a byte a second: all at once, because each takes ten seconds. A rank that
 * has proved the token and looks for its network cards that long is none of them. */
static void test_those_who_take_their_time(void **state)
{
    (void)state;
    static const unsigned char hello[] = {0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3, 7, 7, 7, 7, 7};
    int silent[PORTS], half[PORTS], slow[PORTS];
    bool open[PORTS] = {true, true};
    struct kolo__credentials *credentials;
    job_start(false);
    struct kolo__secure *rank =
        begin(RENDEZVOUS, KOLO__PURPOSE_CONTROL, "job", "the secret of this test", &credentials);
    assert_int_equal(kolo__secure_handshake_by(rank, in_seconds(20)), KOLO_OK);
    for (enum port port = 0; port < PORTS; port++) {
        silent[port] = connect_to(port);
        half[port] = connect_to(port);
        slow[port] = connect_to(port);
        assert_int_equal(kolo__send_all(half[port], hello, 9, in_seconds(5)), KOLO_OK);
    }
    for (size_t i = 0; i < 30 && (open[0] || open[1]); i++) {
        char ignored;
        for (enum port port = 0; port < PORTS; port++) {
            send(slow[port], &hello[i % sizeof hello], 1, MSG_NOSIGNAL);
            ssize_t got = recv(slow[port], &ignored, 1, MSG_DONTWAIT);
            open[port] = open[port] && got < 0 && errno == EAGAIN;
        }
        job_assert_goes_on();
        usleep(1000000);
    }
    for (enum port port = 0; port < PORTS; port++) {
        assert_false(open[port]);
        close(slow[port]);
        expect_end(silent[port]);
        expect_end(half[port]);
    }
    assert_int_equal(job_refusals(RENDEZVOUS, "did not introduce itself in time"), 1);
    assert_int_equal(job_refusals(DATA, "did not say who it is"), 1);
    char ignored;
    assert_int_equal(recv(kolo__secure_fd(rank), &ignored, 1, MSG_DONTWAIT), -1);
    close(kolo__secure_fd(rank));
    kolo__secure_free(rank);
    kolo__credentials_free(credentials);
    job_end();
}

/* Of the crowd, how many the rank has closed. */
static int count_closed(const int crowd[CROWD])
{
    int closed = 0;
    for (int i = 0; i < CROWD; i++) {
        char ignored;
        ssize_t got = recv(crowd[i], &ignored, 1, MSG_DONTWAIT);
        closed += got == 0 || (got < 0 && errno == ECONNRESET);
    }
    return closed;
}

/* As many as there may be wait inside, the others outside; the job has what it needs. Each stays
 * for a second only: who knows the token and comes last is heard within 20 s, and would not be if
 * each of those before it might stay for ten. */
static void test_a_crowd(void **state)
{
    (void)state;
    int crowd[CROWD];
    job_start(false);
    int before = job_descriptors();
    for (int i = 0; i < CROWD; i++)
        crowd[i] = connect_to(DATA);
    job_assert_goes_on();
    assert_in_range(job_descriptors(), before, before + CROWD_MAX);
    be_a_rank_that_is_there(DATA);
    assert_in_range(count_closed(crowd), CROWD + 1 - CROWD_MAX, CROWD);
    for (int i = 0; i < CROWD; i++)
        close(crowd[i]);
    for (uint64_t until = in_seconds(20);
         job_descriptors() > before && kolo__now_ns(&kolo__real_clock) < until;)
        job_assert_goes_on();
    assert_int_equal(job_descriptors(), before);
    job_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_strangers_while_data_is_encrypted),
        cmocka_unit_test(test_those_who_take_their_time),
        cmocka_unit_test(test_a_crowd),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    /* What failed stands in there too. */
    if (failed != 0)
        execlp("sh", "sh", "-c", "tail -n 40 *.log; exit 1", NULL);
    return failed;
}
