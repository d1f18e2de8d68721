/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rendezvous against strangers: port scanners, wrong tokens, wrong jobs, garbage after the
 * proof, half-open connections. Each is refused, and the world forms all the same.
 */
#include "base/clock.h"
#include "base/random.h"
#include "base/secure.h"
#include "base/socket.h"
#include "runtime/control.h"
#include "runtime/frame.h"
#include "runtime/rendezvous.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct kolo__rendezvous *server;
static pthread_t thread;
static atomic_bool stop;

static uint64_t in_seconds(unsigned seconds)
{
    return kolo__now_ns(&kolo__real_clock) + seconds * 1000000000ull;
}

static void *serve(void *unused)
{
    while (!atomic_load(&stop)) {
        struct pollfd ready = {.fd = kolo__rendezvous_fd(server), .events = POLLIN};
        poll(&ready, 1, 10);
        kolo__rendezvous_step(server);
    }
    return unused;
}

static int start(void **state)
{
    (void)state;
    struct kolo__rendezvous_options options = {
        .host = "127.0.0.1", .job = "job", .token = "secret", .world_size = 2};
    atomic_store(&stop, false);
    return kolo__rendezvous_create(&options, &server) != KOLO_OK ||
           pthread_create(&thread, NULL, serve, NULL) != 0;
}

static int end(void **state)
{
    (void)state;
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    kolo__rendezvous_free(server);
    return 0;
}

static struct kolo__control_options options_of(uint32_t rank)
{
    return (struct kolo__control_options){.rendezvous = kolo__rendezvous_address(server),
                                          .job = "job",
                                          .token = "secret",
                                          .rank = rank,
                                          .size = 2,
                                          .deadline_ns = in_seconds(5),
                                          .timeout_s = 5};
}

static void *join_as(void *argument)
{
    struct kolo__control *control;
    struct kolo__control_options options = options_of(*(uint32_t *)argument);
    kolo_status status = kolo__control_connect(&options, &control);
    if (status != KOLO_OK)
        return NULL;
    status = kolo__control_join(control, &options.rank, sizeof options.rank);
    if (status == KOLO_OK) {
        const struct kolo__control_member *other = kolo__control_member(control, 1 - options.rank);
        if (other->blob_bytes != 4 || other->blob[0] != 1 - options.rank)
            status = KOLO_ERR_WORLD;
        kolo__control_bye(control);
    }
    kolo__control_close(control);
    return status == KOLO_OK ? argument : NULL;
}

static void assert_world_forms(void)
{
    static uint32_t ranks[2] = {0, 1};
    pthread_t threads[2];
    void *joined;
    for (int r = 0; r < 2; r++)
        assert_int_equal(pthread_create(&threads[r], NULL, join_as, &ranks[r]), 0);
    for (int r = 0; r < 2; r++) {
        pthread_join(threads[r], &joined);
        assert_non_null(joined);
    }
}

static int connect_raw(void)
{
    int fd;
    assert_int_equal(kolo__connect(kolo__rendezvous_address(server), in_seconds(5), &fd), KOLO_OK);
    return fd;
}

static void assert_closed_soon(int fd)
{
    char byte;
    kolo_status status;
    do /* a refusal may come first */
        status = kolo__recv_all(fd, &byte, 1, in_seconds(5));
    while (status == KOLO_OK);
    assert_int_equal(status, KOLO_ERR_PEER_LOST);
    close(fd);
}

static void test_world_forms(void **state)
{
    (void)state;
    assert_world_forms();
}

static void test_garbage_and_half_open(void **state)
{
    (void)state;
    struct kolo__random random = {.state = 1};
    int half_open[100];
    for (int i = 0; i < 30; i++)
        half_open[i] = connect_raw();
    for (int i = 0; i < 20; i++) {
        unsigned char garbage[200];
        for (size_t k = 0; k < sizeof garbage; k++)
            garbage[k] = (unsigned char)kolo__random_u64(&random);
        int fd = connect_raw();
        kolo__send_all(fd, garbage, sizeof garbage, in_seconds(1));
        assert_closed_soon(fd);
    }
    assert_world_forms();
    for (int i = 0; i < 30; i++)
        close(half_open[i]);
}

/* More strangers than are let in must not keep the launcher's loop awake; who is let in later is.
 */
static void test_too_many_strangers(void **state)
{
    (void)state;
    struct kolo__rendezvous_options options = {
        .host = "127.0.0.1", .job = "job", .token = "secret", .world_size = 2};
    int strangers[100];
    assert_int_equal(kolo__rendezvous_create(&options, &server), KOLO_OK);
    for (int i = 0; i < 100; i++)
        strangers[i] = connect_raw();
    for (int i = 0; i < 10; i++)
        kolo__rendezvous_step(server);
    struct pollfd ready = {.fd = kolo__rendezvous_fd(server), .events = POLLIN};
    int awake = poll(&ready, 1, 0), timeout_ms = kolo__rendezvous_timeout_ms(server);
    for (int i = 0; i < 100; i++)
        close(strangers[i]);
    atomic_store(&stop, false);
    assert_int_equal(pthread_create(&thread, NULL, serve, NULL), 0);
    assert_int_equal(awake, 0);
    assert_in_range(timeout_ms, 1, 1000);
    assert_world_forms();
}

/* The server listens on several addresses, and ranks come by any that works. */
static void test_several_addresses(void **state)
{
    (void)state;
    struct kolo__rendezvous_options options = {
        .host = "127.0.0.1,127.0.0.2,::1", .job = "job", .token = "secret", .world_size = 2};
    char address[200], pieces[200], *rest = pieces, *one[3], reversed[200], host[256], port[3][24];
    assert_int_equal(kolo__rendezvous_create(&options, &server), KOLO_OK);
    snprintf(address, sizeof address, "%s", kolo__rendezvous_address(server));
    memcpy(pieces, address, sizeof pieces);
    for (int i = 0; i < 3; i++) {
        one[i] = strsep(&rest, ",");
        assert_non_null(one[i]);
        assert_int_equal(kolo__split_host_port(one[i], host, sizeof host, port[i], sizeof port[i]),
                         KOLO_OK);
    }
    snprintf(reversed, sizeof reversed, "%.60s,%.60s,%.60s", one[2], one[1], one[0]);
    assert_string_equal(port[0], port[1]);
    atomic_store(&stop, false);
    assert_int_equal(pthread_create(&thread, NULL, serve, NULL), 0);

    struct kolo__control *by_first, *by_last;
    struct kolo__control_options first = options_of(0), last = options_of(1);
    last.rendezvous = reversed;
    assert_int_equal(kolo__control_connect(&first, &by_first), KOLO_OK);
    assert_int_equal(kolo__control_connect(&last, &by_last), KOLO_OK);
    struct sockaddr_storage peer = {0};
    socklen_t bytes = sizeof peer;
    assert_int_equal(getpeername(kolo__control_fd(by_first), (struct sockaddr *)&peer, &bytes), 0);
    assert_int_equal(peer.ss_family, AF_INET);
    bytes = sizeof peer;
    assert_int_equal(getpeername(kolo__control_fd(by_last), (struct sockaddr *)&peer, &bytes), 0);
    assert_int_equal(peer.ss_family, AF_INET6);
    kolo__control_close(by_first);
    kolo__control_close(by_last);
    end(NULL);

    /* Nobody is there any more: the error tells of each address. */
    first.deadline_ns = in_seconds(1);
    first.timeout_s = 1;
    first.rendezvous = address;
    assert_int_equal(kolo__control_connect(&first, &by_first), KOLO_ERR_TIMEOUT);
    static const char *const said[] = {"127.0.0.1:", "127.0.0.2:", "[::1]:", "Connection refused;",
                                       "found no rendezvous within 1 s"};
    for (size_t i = 0; i < sizeof said / sizeof *said; i++)
        if (strstr(kolo_error_text(), said[i]) == NULL)
            fail_msg("'%s' does not say '%s'", kolo_error_text(), said[i]);
}

static void test_wrong_token_and_job(void **state)
{
    (void)state;
    struct kolo__control *control;
    struct kolo__control_options options = options_of(0);
    options.token = "guess";
    assert_int_equal(kolo__control_connect(&options, &control), KOLO_ERR_NETWORK);
    assert_non_null(strstr(kolo_error_text(), "token"));
    options = options_of(0);
    options.job = "another";
    assert_int_equal(kolo__control_connect(&options, &control), KOLO_ERR_WORLD);
    assert_non_null(strstr(kolo_error_text(), "another"));
    options = options_of(5);
    assert_int_equal(kolo__control_connect(&options, &control), KOLO_OK);
    assert_int_equal(kolo__control_join(control, "", 0), KOLO_ERR_WORLD);
    kolo__control_close(control);
    assert_world_forms();
}

/* Somebody who knows the token and then sends nonsense. */
static void test_garbage_after_the_proof(void **state)
{
    (void)state;
    struct kolo__random random = {.state = 2};
    struct kolo__credentials *credentials;
    assert_int_equal(kolo__credentials_create(KOLO__PURPOSE_CONTROL, "job", "secret", &credentials),
                     KOLO_OK);
    for (int i = 0; i < 50; i++) {
        unsigned char frame[64] = {0};
        struct kolo__secure *secure;
        int fd = connect_raw();
        assert_int_equal(kolo__secure_create(credentials, KOLO__SECURE_INITIATOR, fd, &secure),
                         KOLO_OK);
        assert_int_equal(kolo__secure_handshake_by(secure, in_seconds(5)), KOLO_OK);
        for (size_t k = 0; k < sizeof frame; k++)
            frame[k] = (unsigned char)kolo__random_u64(&random);
        if (i % 2 == 0) { /* a frame that looks right, with a payload that is not */
            memset(frame, 0, 8);
            frame[0] = sizeof frame - 8;
            frame[4] = (unsigned char)(1 + i / 2 % 9);
        }
        kolo__secure_send_all(secure, frame, sizeof frame, in_seconds(1));
        assert_closed_soon(fd);
        kolo__secure_free(secure);
    }
    kolo__credentials_free(credentials);
    assert_world_forms();
}

/* ---- worlds of another size ------------------------------------------------------------------ */

/* A host name as long as they get. */
static const char LONG_HOST[] = "a-host-whose-name-is-as-long-as-a-label-may-be-in-the-dns--sixty3";

/* Who knows the token and says this in JOIN. Returns when it is refused. */
static void be_refused(uint32_t size, uint32_t rank)
{
    struct kolo__credentials *credentials;
    struct kolo__secure *secure;
    struct kolo__frame_writer join = {0};
    int fd = connect_raw();
    assert_int_equal(kolo__credentials_create(KOLO__PURPOSE_CONTROL, "job", "secret", &credentials),
                     KOLO_OK);
    assert_int_equal(kolo__secure_create(credentials, KOLO__SECURE_INITIATOR, fd, &secure),
                     KOLO_OK);
    assert_int_equal(kolo__secure_handshake_by(secure, in_seconds(5)), KOLO_OK);
    kolo__frame_begin(&join, KOLO__FRAME_JOIN);
    kolo__put_text(&join, "job");
    kolo__put_u32(&join, size);
    kolo__put_u32(&join, rank);
    kolo__put_u32(&join, 1);
    kolo__put_text(&join, LONG_HOST);
    kolo__put_blob(&join, "", 0);
    kolo__frame_end(&join);
    assert_int_equal(kolo__secure_send_all(secure, join.data, join.bytes, in_seconds(5)), KOLO_OK);
    assert_closed_soon(fd);
    kolo__frame_writer_free(&join);
    kolo__secure_free(secure);
    kolo__credentials_free(credentials);
}

static kolo_status wait_as_rank_0(uint32_t size)
{
    struct kolo__control *control;
    struct kolo__control_options options = options_of(0);
    options.size = size;
    options.deadline_ns = in_seconds(1);
    options.timeout_s = 1;
    assert_int_equal(kolo__control_connect(&options, &control), KOLO_OK);
    kolo_status status = kolo__control_join(control, "", 0);
    kolo__control_close(control);
    return status;
}

static void assert_says(const char *words)
{
    if (strstr(kolo_error_text(), words) == NULL)
        fail_msg("'%s' does not say '%s'", kolo_error_text(), words);
}

/* The wait was in vain for a reason that another try does not mend. */
static void test_misfit_instead_of_a_rank(void **state)
{
    (void)state;
    be_refused(3, 1);
    assert_int_equal(wait_as_rank_0(2), KOLO_ERR_WORLD);
    assert_says("kolo_init: 1 of 2 ranks did not join in time; missing: 1; refused was: rank 1 of "
                "a world of 3 (host a-host-");
    assert_says(" at 127.0.0.1) does not fit the world of 2 ranks");
    assert_says("a KOLO_JOB or port of its own");
}

/* It may be a process that is left of an earlier world: the right one comes. */
static void test_misfit_before_a_rank(void **state)
{
    (void)state;
    be_refused(3, 1);
    assert_world_forms();
}

/* Rank 2 is no rank of this world: that it came does not say why rank 1 did not. */
static void test_misfit_instead_of_nobody(void **state)
{
    (void)state;
    be_refused(3, 2);
    assert_int_equal(wait_as_rank_0(2), KOLO_ERR_TIMEOUT);
    assert_says("missing: 1; refused was: rank 2 of a world of 3");
}

/* Who was told another KOLO_JOB is perhaps who is missing. */
static void test_another_job_instead_of_a_rank(void **state)
{
    (void)state;
    struct kolo__control *control;
    struct kolo__control_options options = options_of(1);
    options.job = "another";
    assert_int_equal(kolo__control_connect(&options, &control), KOLO_ERR_WORLD);
    assert_int_equal(wait_as_rank_0(2), KOLO_ERR_TIMEOUT);
    assert_says("missing: 1; refused was: 127.0.0.1: it is of job 'another', this is job 'job'");
}

/* A process that knows by itself that it takes no part: its words reach those who wait for it, as
 * far as there is room. */
static void test_who_takes_no_part(void **state)
{
    (void)state;
    char why[500];
    struct kolo__control *control;
    struct kolo__control_options options = options_of(1);
    for (size_t i = 0; i < sizeof why; i++)
        why[i] = i < 16 ? "it was told of 5"[i] : 'w';
    options.size = 0;
    assert_int_equal(kolo__control_connect(&options, &control), KOLO_OK);
    assert_int_equal(kolo__control_join(control, why, sizeof why), KOLO_ERR_WORLD);
    kolo__control_close(control);
    assert_int_equal(wait_as_rank_0(2), KOLO_ERR_WORLD);
    assert_says("missing: 1; refused was: rank 1 (host ");
    assert_says(" at 127.0.0.1), which takes no part: it was told of 5www");
}

static void place_of(void *self, uint32_t rank, char *text, size_t bytes)
{
    (void)self;
    snprintf(text, bytes, "pod %s-%u.%s.%s", LONG_HOST, rank, LONG_HOST, LONG_HOST);
}

/* Texts as long as they get, and the remedies at their ends. */
static void test_no_remedy_is_cut(void **state)
{
    (void)state;
    struct kolo__rendezvous_options options = {.host = "127.0.0.1",
                                               .job = "job",
                                               .token = "secret",
                                               .world_size = 1000,
                                               .where = place_of};
    static const uint32_t ranks[] = {4294967294u, 999};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(kolo__rendezvous_create(&options, &server), KOLO_OK);
        atomic_store(&stop, false);
        assert_int_equal(pthread_create(&thread, NULL, serve, NULL), 0);
        be_refused(4294967295u, ranks[i]);
        assert_int_equal(wait_as_rank_0(1000), i == 0 ? KOLO_ERR_TIMEOUT : KOLO_ERR_WORLD);
        assert_says("did not join");
        assert_says("a KOLO_JOB or port of its own");
        assert_says(i == 0 ? "own. See whether these processes started; KOLO_INIT_TIMEOUT sets "
                             "the wait"
                           : "refused was: ");
        end(NULL);
    }
}

static void *join_and_return(void *control)
{
    kolo__control_join(control, "", 0);
    return NULL;
}

/* The embedder may see a process end before it has read the goodbye. */
static void test_goodbye_that_was_not_read_yet(void **state)
{
    (void)state;
    struct kolo__control *controls[2];
    kolo_status status;
    int rank;
    assert_int_equal(start(NULL), 0);
    for (uint32_t r = 0; r < 2; r++) {
        struct kolo__control_options options = options_of(r);
        assert_int_equal(kolo__control_connect(&options, &controls[r]), KOLO_OK);
    }
    pthread_t other;
    assert_int_equal(pthread_create(&other, NULL, join_and_return, controls[1]), 0);
    assert_int_equal(kolo__control_join(controls[0], "", 0), KOLO_OK);
    pthread_join(other, NULL);
    atomic_store(&stop, true);
    pthread_join(thread, NULL); /* nobody reads from here on */
    kolo__control_bye(controls[0]);
    kolo__control_close(controls[0]);
    kolo__rendezvous_rank_ended(server, 0, true, "exited with code 0");
    assert_null(kolo__rendezvous_fault(server, &status, &rank));
    kolo__rendezvous_rank_ended(server, 1, true,
                                "exited with code 0"); /* no goodbye, nobody left */
    assert_null(kolo__rendezvous_fault(server, &status, &rank));
    kolo__control_close(controls[1]);
    kolo__rendezvous_free(server);
}

/* A pod that was lost, and is made anew before its world is gone, is none of two pods with one
 * rank: it waits for the next world. */
static void test_pod_before_its_next_world(void **state)
{
    (void)state;
    struct kolo__rendezvous_options pods = {.host = "127.0.0.1",
                                            .job = "job",
                                            .token = "secret",
                                            .world_size = 2,
                                            .members_restart = true};
    struct kolo__control *controls[2], *again;
    struct kolo__control_options options[2];
    atomic_store(&stop, false);
    assert_int_equal(kolo__rendezvous_create(&pods, &server), KOLO_OK);
    assert_int_equal(pthread_create(&thread, NULL, serve, NULL), 0);
    for (uint32_t r = 0; r < 2; r++) {
        options[r] = options_of(r);
        options[r].in_pods = true;
        assert_int_equal(kolo__control_connect(&options[r], &controls[r]), KOLO_OK);
    }
    pthread_t other;
    assert_int_equal(pthread_create(&other, NULL, join_and_return, controls[1]), 0);
    assert_int_equal(kolo__control_join(controls[0], "", 0), KOLO_OK);
    pthread_join(other, NULL);
    kolo__control_close(controls[1]);
    struct kolo__fault fault;
    while (!kolo__control_fault(controls[0], 1, &fault)) { /* until the server knows */
        struct pollfd ready = {.fd = kolo__control_fd(controls[0]), .events = POLLIN};
        assert_int_equal(poll(&ready, 1, 5000), 1);
        kolo__control_poll(controls[0]);
    }
    options[1].deadline_ns = in_seconds(1);
    options[1].timeout_s = 1;
    assert_int_equal(kolo__control_connect(&options[1], &again), KOLO_OK);
    assert_int_equal(kolo__control_join(again, "", 0), KOLO_ERR_TIMEOUT);
    assert_non_null(strstr(kolo_error_text(), "its world has formed before"));
    assert_non_null(strstr(kolo_error_text(), "within 1 s"));
    kolo__control_poll(again); /* finds no connection */
    assert_true(kolo__control_fault(again, 1, &fault));
    kolo__control_close(again);
    kolo__control_close(controls[0]);
}

static void report(struct kolo__control *control, uint32_t comm, kolo_status status, int peer)
{
    struct kolo__fault fault = {.status = status, .peer = peer};
    snprintf(fault.text, sizeof fault.text, "%s on %u", kolo_status_name(status), comm);
    kolo__control_report(control, comm, &fault);
}

static struct kolo__fault await_fault(struct kolo__control *control, uint32_t comm)
{
    struct kolo__fault fault = {0};
    uint64_t until = in_seconds(5);
    while (!kolo__control_fault(control, comm, &fault) && kolo__now_ns(&kolo__real_clock) < until) {
        struct pollfd ready = {.fd = kolo__control_fd(control), .events = POLLIN};
        poll(&ready, 1, 10);
        kolo__control_poll(control);
    }
    return fault;
}

/* Ranks close a broken communicator's connections; who sees that first blames the other. */
static void test_a_broken_communicator_breaks_no_world(void **state)
{
    struct kolo__control *controls[2];
    kolo_status status;
    int rank;
    (void)state;
    for (uint32_t r = 0; r < 2; r++) {
        struct kolo__control_options options = options_of(r);
        assert_int_equal(kolo__control_connect(&options, &controls[r]), KOLO_OK);
    }
    pthread_t other;
    assert_int_equal(pthread_create(&other, NULL, join_and_return, controls[1]), 0);
    assert_int_equal(kolo__control_join(controls[0], "", 0), KOLO_OK);
    pthread_join(other, NULL);
    report(controls[1], 5, KOLO_ERR_MISMATCH, -1); /* the cause first */
    assert_int_equal(await_fault(controls[0], 5).status, KOLO_ERR_MISMATCH);
    report(controls[0], 5, KOLO_ERR_PEER_LOST, 1);
    report(controls[0], 6, KOLO_ERR_PEER_LOST, 1); /* behind its consequence */
    usleep(50000);
    report(controls[1], 6, KOLO_ERR_MISMATCH, -1);
    assert_int_equal(await_fault(controls[0], 6).status, KOLO_ERR_MISMATCH);
    usleep(500000); /* longer than the rendezvous waits for a cause */
    assert_null(kolo__rendezvous_fault(server, &status, &rank));
    report(controls[0], 7, KOLO_ERR_PEER_LOST, 1); /* nothing explains this one */
    assert_int_equal(await_fault(controls[0], 7).status, KOLO_ERR_NETWORK);
    for (uint32_t r = 0; r < 2; r++)
        kolo__control_close(controls[r]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_world_forms, start, end),
        cmocka_unit_test_setup_teardown(test_garbage_and_half_open, start, end),
        cmocka_unit_test_teardown(test_too_many_strangers, end),
        cmocka_unit_test(test_several_addresses),
        cmocka_unit_test_setup_teardown(test_wrong_token_and_job, start, end),
        cmocka_unit_test_setup_teardown(test_garbage_after_the_proof, start, end),
        cmocka_unit_test_setup_teardown(test_misfit_instead_of_a_rank, start, end),
        cmocka_unit_test_setup_teardown(test_another_job_instead_of_a_rank, start, end),
        cmocka_unit_test_setup_teardown(test_who_takes_no_part, start, end),
        cmocka_unit_test_setup_teardown(test_misfit_before_a_rank, start, end),
        cmocka_unit_test_setup_teardown(test_misfit_instead_of_nobody, start, end),
        cmocka_unit_test_setup_teardown(test_a_broken_communicator_breaks_no_world, start, end),
        cmocka_unit_test(test_no_remedy_is_cut),
        cmocka_unit_test(test_goodbye_that_was_not_read_yet),
        cmocka_unit_test_teardown(test_pod_before_its_next_world, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
