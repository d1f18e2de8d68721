/* SPDX-License-Identifier: Apache-2.0 */
/* How tcp connections come to be, and end: strangers, other jobs, peers that never come or leave.
 */
#include "collectives/transport/tcp.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/secure.h"
#include "base/status.h"
#include "collectives/transport/join.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { STRANGERS = 64 };

static const char *const hosts[] = {"alpha", "beta"};
static struct kolo__endpoint endpoints[2];
static int listeners[2];
static struct kolo__transport *ranks[2];
static const struct kolo__signature signature = {.sequence = 1, .collective = KOLO__BARRIER};

static uint64_t in_seconds(unsigned seconds)
{
    return kolo__now_ns(&kolo__real_clock) + seconds * (uint64_t)1000000000;
}

static bool before(uint64_t deadline)
{
    return kolo__now_ns(&kolo__real_clock) < deadline;
}

static struct kolo__tcp_options options_of(uint32_t rank)
{
    return (struct kolo__tcp_options){.rank = rank,
                                      .size = 2,
                                      .epoch = 4,
                                      .comm = 1,
                                      .job = "job",
                                      .token = "secret",
                                      .listen_fd = listeners[rank],
                                      .endpoints = endpoints,
                                      .hosts = hosts,
                                      .connect_timeout_ns = 20 * (uint64_t)1000000000};
}

static int listen_both(void **state)
{
    (void)state;
    kolo__log_configure("error", -1);
    for (int r = 0; r < 2; r++) {
        ranks[r] = NULL;
        if (kolo__listen("127.0.0.1", 0, &listeners[r], &endpoints[r].addresses[0]) != KOLO_OK)
            return -1;
        endpoints[r].count = 1;
    }
    return 0;
}

static void create(struct kolo__tcp_options options)
{
    assert_int_equal(kolo__tcp_create(&options, &ranks[options.rank]), KOLO_OK);
    listeners[options.rank] = -1;
}

static void close_rank(int r)
{
    if (ranks[r] != NULL)
        ranks[r]->ops->close(ranks[r]);
    ranks[r] = NULL;
}

static int close_both(void **state)
{
    (void)state;
    for (int r = 0; r < 2; r++) {
        close_rank(r);
        if (listeners[r] >= 0)
            close(listeners[r]);
    }
    return 0;
}

static struct kolo__post post_of(void *data, size_t bytes)
{
    return (struct kolo__post){.data = data, .bytes = bytes, .signature = &signature};
}

static void send_post(int from, int to, struct kolo__post *post)
{
    ranks[from]->ops->post_send(ranks[from], (uint32_t)to, post);
}

static void receive(int at, int from, struct kolo__post *post)
{
    ranks[at]->ops->post_recv(ranks[at], (uint32_t)from, post);
}

/* Drives whoever is there until the post is complete. */
static void finish(const struct kolo__post *post)
{
    uint64_t deadline = in_seconds(15);
    while (!post->complete && before(deadline))
        for (int r = 0; r < 2; r++)
            if (ranks[r] != NULL)
                ranks[r]->ops->progress(ranks[r]);
    assert_true(post->complete);
}

static void exchange(void)
{
    char out[3] = "ab", in[3] = "";
    struct kolo__post sent = post_of(out, 3), received = post_of(in, 3);
    send_post(0, 1, &sent);
    receive(1, 0, &received);
    finish(&sent);
    finish(&received);
    assert_int_equal(sent.status, KOLO_OK);
    assert_int_equal(received.status, KOLO_OK);
    assert_string_equal(in, "ab");
}

/* ---- strangers ------------------------------------------------------------------------------ */

static int connect_to_rank_0(void)
{
    int fd;
    assert_int_equal(kolo__connect_start(&endpoints[0].addresses[0], NULL, &fd), KOLO_OK);
    struct pollfd ready = {.fd = fd, .events = POLLOUT};
    assert_int_equal(poll(&ready, 1, 10000), 1);
    assert_int_equal(kolo__connect_finish(fd), KOLO_OK);
    return fd;
}

/* Drives rank 0 until `bytes` have come, or the connection ended: how many came. */
static size_t hear(int fd, void *data, size_t bytes)
{
    uint64_t deadline = in_seconds(15);
    size_t there = 0;
    while (there < bytes && before(deadline)) {
        ranks[0]->ops->arm(ranks[0]);
        ranks[0]->ops->disarm(ranks[0]);
        ssize_t received = recv(fd, (char *)data + there, bytes - there, MSG_DONTWAIT);
        if (received > 0)
            there += (size_t)received;
        else if (received == 0 || errno != EAGAIN)
            break;
    }
    assert_true(before(deadline));
    return there;
}

static void expect_closed(int fd)
{
    char byte;
    assert_int_equal(hear(fd, &byte, 1), 0);
    close(fd);
}

static void drive_rank_0(void)
{
    ranks[0]->ops->arm(ranks[0]);
    ranks[0]->ops->disarm(ranks[0]);
}

/* The whole handshake of somebody who knows `token` and says `join`, or more bytes than that; the
 * answer, if there is one. */
static void shake_hands(const char *job, const char *token, const struct kolo__join *join,
                        size_t said, bool *answered, enum kolo__join_verdict *verdict)
{
    struct kolo__credentials *credentials;
    struct kolo__secure *secure;
    struct kolo__join other;
    unsigned char introduction[KOLO__JOIN_BYTES + 1] = {0}, answer[KOLO__JOIN_ANSWER_BYTES];
    uint64_t deadline = in_seconds(15);
    size_t there = 0, moved;
    int fd = connect_to_rank_0();
    assert_int_equal(kolo__credentials_create(KOLO__PURPOSE_DATA, job, token, &credentials),
                     KOLO_OK);
    assert_int_equal(kolo__secure_create(credentials, KOLO__SECURE_INITIATOR, fd, &secure),
                     KOLO_OK);
    kolo_status status = KOLO_AGAIN;
    while (status == KOLO_AGAIN && before(deadline)) {
        status = kolo__secure_handshake(secure);
        drive_rank_0();
    }
    kolo__join_encode(join, introduction);
    if (status == KOLO_OK)
        status = kolo__secure_write(secure, introduction, said, &moved);
    while (status <= KOLO_AGAIN && there < sizeof answer && before(deadline)) {
        drive_rank_0();
        status = kolo__secure_read(secure, answer + there, sizeof answer - there, &moved);
        there += moved;
    }
    assert_true(before(deadline));
    *answered = there == sizeof answer;
    if (*answered)
        assert_int_equal(kolo__join_answer_decode(answer, verdict, &other), KOLO_OK);
    kolo__secure_free(secure);
    kolo__credentials_free(credentials);
    expect_closed(fd);
}

static void strangers_are_refused_while_ranks_work(void **state)
{
    (void)state;
    create(options_of(0));
    create(options_of(1));
    int half_open = connect_to_rank_0();
    exchange();

    int garbage = connect_to_rank_0();
    assert_int_equal(kolo__send_all(garbage, "GET / HTTP/1.1\r\nHost: kolo.example.com\r\n\r\n", 43,
                                    in_seconds(5)),
                     KOLO_OK);
    expect_closed(garbage);
    exchange();

    bool answered;
    enum kolo__join_verdict verdict = KOLO__JOIN_ACCEPTED;
    struct kolo__join join = {
        .epoch = 4, .comm = 1, .rank = 1, .size = 2, .lanes = 1, .job = "job"};
    shake_hands("job", "guess", &join, KOLO__JOIN_BYTES, &answered, &verdict);
    assert_false(answered);
    shake_hands("jobs", "secret", &join, KOLO__JOIN_BYTES, &answered, &verdict);
    assert_false(answered);

    static const struct {
        struct kolo__join join;
        enum kolo__join_verdict verdict;
    } others[] = {
        {{4, 1, 1, 2, 0, 1, "jobs"}, KOLO__JOIN_OTHER_JOB},
        {{3, 1, 1, 2, 0, 1, "job"}, KOLO__JOIN_OTHER_EPOCH},
        {{4, 2, 1, 2, 0, 1, "job"}, KOLO__JOIN_OTHER_COMM},
        {{4, 1, 1, 3, 0, 1, "job"}, KOLO__JOIN_OTHER_SIZE},
        {{4, 1, 2, 2, 0, 1, "job"}, KOLO__JOIN_BAD_RANK},
        {{4, 1, 0, 2, 0, 1, "job"}, KOLO__JOIN_BAD_RANK},
        {{4, 1, 1, 2, 0, 1, "job"}, KOLO__JOIN_BAD_RANK}, /* connected already */
        {{4, 1, 1, 2, 1, 2, "job"}, KOLO__JOIN_OTHER_LANES},
    };
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        shake_hands("job", "secret", &others[i].join, KOLO__JOIN_BYTES, &answered, &verdict);
        assert_true(answered);
        assert_int_equal(verdict, others[i].verdict);
        exchange();
    }
    close(half_open);
    exchange();
    for (int r = 0; r < 2; r++)
        assert_int_equal(ranks[r]->fault.status, KOLO_OK);
}

/* Its place stays free for the rank. */
static void who_says_more_than_a_rank_is_none(void **state)
{
    (void)state;
    struct kolo__join join = {
        .epoch = 4, .comm = 1, .rank = 1, .size = 2, .lanes = 1, .job = "job"};
    bool answered;
    enum kolo__join_verdict verdict;
    create(options_of(0));
    shake_hands("job", "secret", &join, KOLO__JOIN_BYTES + 1, &answered, &verdict);
    create(options_of(1));
    exchange();
}

/* As many silent strangers as are let in: a rank gets its turn when one of them leaves. */
static void silent_strangers_only_delay(void **state)
{
    (void)state;
    int strangers[STRANGERS];
    create(options_of(0));
    create(options_of(1));
    for (int i = 0; i < STRANGERS; i++) {
        strangers[i] = connect_to_rank_0();
        ranks[0]->ops->arm(ranks[0]);
    }
    char out = 'x', in = 0;
    struct kolo__post sent = post_of(&out, 1), received = post_of(&in, 1);
    send_post(1, 0, &sent);
    receive(0, 1, &received);
    for (int i = 0; i < 100; i++)
        for (int r = 0; r < 2; r++)
            ranks[r]->ops->progress(ranks[r]);
    assert_false(sent.complete);
    close(strangers[STRANGERS - 1]);
    finish(&received);
    assert_int_equal(received.status, KOLO_OK);
    for (int i = 0; i < STRANGERS - 1; i++)
        close(strangers[i]);
}

/* ---- ranks that do not fit, or do not come -------------------------------------------------- */

static void a_rank_with_another_token_is_told(void **state)
{
    (void)state;
    struct kolo__tcp_options other = options_of(1);
    other.token = "guess";
    create(options_of(0));
    create(other);
    struct kolo__post sent = post_of(NULL, 0);
    send_post(1, 0, &sent);
    finish(&sent);
    assert_int_equal(sent.status, KOLO_ERR_NETWORK);
    assert_non_null(strstr(ranks[1]->fault.text, "rank 0 (alpha) at 127.0.0.1:"));
    assert_non_null(strstr(ranks[1]->fault.text, "another token"));
    assert_int_equal(ranks[0]->fault.status, KOLO_OK);
}

static void a_rank_of_another_epoch_is_told(void **state)
{
    (void)state;
    struct kolo__tcp_options other = options_of(1);
    other.epoch = 5;
    create(options_of(0));
    create(other);
    struct kolo__post sent = post_of(NULL, 0);
    send_post(1, 0, &sent);
    finish(&sent);
    assert_int_equal(sent.status, KOLO_ERR_WORLD);
    assert_non_null(strstr(ranks[1]->fault.text, "it is of epoch 4, this rank of epoch 5"));
    assert_int_equal(ranks[0]->fault.status, KOLO_OK);
}

/* Nobody listens: tried again until the time is over. Asleep, because the end of the time must
 * wake. */
static void sleep_until_complete(int r, const struct kolo__post *post)
{
    uint64_t deadline = in_seconds(15);
    while (!post->complete && before(deadline)) {
        ranks[r]->ops->progress(ranks[r]);
        if (!post->complete && ranks[r]->ops->arm(ranks[r])) {
            struct pollfd ready = {.fd = ranks[r]->ops->wait_fd(ranks[r]), .events = POLLIN};
            assert_int_equal(poll(&ready, 1, 10000), 1);
        }
        ranks[r]->ops->disarm(ranks[r]);
    }
    assert_true(post->complete);
}

static void a_rank_that_is_not_there_is_named(void **state)
{
    (void)state;
    struct kolo__tcp_options options = options_of(1);
    options.connect_timeout_ns = 100000000;
    close(listeners[0]);
    listeners[0] = -1;
    create(options);
    struct kolo__post sent = post_of(NULL, 0);
    send_post(1, 0, &sent);
    sleep_until_complete(1, &sent);
    assert_int_equal(sent.status, KOLO_ERR_NETWORK);
    assert_int_equal(ranks[1]->fault.peer, 0);
    assert_non_null(
        strstr(ranks[1]->fault.text, "rank 1 (beta) could not reach rank 0 (alpha) at 127.0.0.1:"));
    assert_non_null(strstr(ranks[1]->fault.text, "refused. Hosts of a job"));
}

/* The operation's own deadline, which is not the transport's, bounds how long. */
static void a_rank_that_is_there_but_busy_is_waited_for(void **state)
{
    (void)state;
    struct kolo__tcp_options options[2] = {options_of(0), options_of(1)};
    options[0].connect_timeout_ns = options[1].connect_timeout_ns = 50000000;
    create(options[0]);
    create(options[1]);
    struct kolo__post received = post_of(NULL, 0), sent = post_of(NULL, 0);
    receive(0, 1, &received); /* rank 1 has not called yet */
    for (int i = 0; i < 20; i++) {
        usleep(10000);
        ranks[0]->ops->progress(ranks[0]);
    }
    assert_int_equal(ranks[0]->fault.status, KOLO_OK);
    send_post(1, 0, &sent); /* rank 0's host answers, its process does not */
    for (int i = 0; i < 20; i++) {
        usleep(10000);
        ranks[1]->ops->progress(ranks[1]);
    }
    assert_int_equal(ranks[1]->fault.status, KOLO_OK);
    for (uint64_t deadline = in_seconds(15); !received.complete && before(deadline);) {
        ranks[0]->ops->progress(ranks[0]);
        ranks[1]->ops->progress(ranks[1]);
    }
    assert_int_equal(received.status, KOLO_OK);
    assert_true(received.complete && sent.complete);
}

/* ---- ranks that leave ------------------------------------------------------------------------ */

static void a_rank_that_leaves_is_missed_when_needed(void **state)
{
    (void)state;
    create(options_of(0));
    create(options_of(1));
    exchange();
    char late[5] = "last", in[5] = "";
    struct kolo__post sent = post_of(late, 5), received = post_of(in, 5), more = post_of(in, 5);
    send_post(1, 0, &sent);
    finish(&sent);
    close_rank(1);
    for (int i = 0; i < 200; i++)
        ranks[0]->ops->progress(ranks[0]);
    ranks[0]->ops->arm(ranks[0]);
    ranks[0]->ops->disarm(ranks[0]);
    assert_int_equal(ranks[0]->fault.status, KOLO_OK);
    receive(0, 1, &received);
    sleep_until_complete(0, &received);
    assert_int_equal(received.status, KOLO_OK);
    assert_string_equal(in, "last");
    receive(0, 1, &more);
    sleep_until_complete(0, &more);
    assert_int_equal(more.status, KOLO_ERR_PEER_LOST);
    assert_string_equal(ranks[0]->fault.text, "rank 1 (beta): it closed the connection");
}

static void sending_to_a_rank_that_left_is_noticed(void **state)
{
    (void)state;
    create(options_of(0));
    create(options_of(1));
    exchange();
    close_rank(1);
    ranks[0]->ops->arm(ranks[0]);
    ranks[0]->ops->disarm(ranks[0]);
    struct kolo__post sent = post_of(NULL, 0);
    send_post(0, 1, &sent);
    finish(&sent);
    assert_int_equal(sent.status, KOLO_ERR_PEER_LOST);
}

static void a_long_job_id_is_refused(void **state)
{
    (void)state;
    char job[KOLO__JOIN_JOB_BYTES + 1];
    memset(job, 'j', sizeof job);
    job[KOLO__JOIN_JOB_BYTES] = '\0';
    struct kolo__tcp_options options = options_of(0);
    options.job = job;
    listeners[0] = -1;
    assert_int_equal(kolo__tcp_create(&options, &ranks[0]), KOLO_ERR_INVALID);
    ranks[0] = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(strangers_are_refused_while_ranks_work, listen_both,
                                        close_both),
        cmocka_unit_test_setup_teardown(who_says_more_than_a_rank_is_none, listen_both, close_both),
        cmocka_unit_test_setup_teardown(silent_strangers_only_delay, listen_both, close_both),
        cmocka_unit_test_setup_teardown(a_rank_with_another_token_is_told, listen_both, close_both),
        cmocka_unit_test_setup_teardown(a_rank_of_another_epoch_is_told, listen_both, close_both),
        cmocka_unit_test_setup_teardown(a_rank_that_is_not_there_is_named, listen_both, close_both),
        cmocka_unit_test_setup_teardown(a_rank_that_is_there_but_busy_is_waited_for, listen_both,
                                        close_both),
        cmocka_unit_test_setup_teardown(a_rank_that_leaves_is_missed_when_needed, listen_both,
                                        close_both),
        cmocka_unit_test_setup_teardown(sending_to_a_rank_that_left_is_noticed, listen_both,
                                        close_both),
        cmocka_unit_test_setup_teardown(a_long_job_id_is_refused, listen_both, close_both),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
