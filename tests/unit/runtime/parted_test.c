/* SPDX-License-Identifier: Apache-2.0 */
/* Of two hosts between which nothing passes one goes, with all of its ranks at once. */
#include "runtime/rendezvous_world.h"

#include "base/clock.h"
#include "base/silence.h"
#include "runtime/control.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <linux/filter.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { RANKS = 5 };

static const char *const hosts[RANKS] = {"a", "a", "b", "c", "b"};
static struct kolo__rendezvous *server;
static struct kolo__control *controls[RANKS];

static void *join(void *argument)
{
    uint32_t rank = (uint32_t)((struct kolo__control **)argument - controls);
    struct kolo__control_options options = {.rendezvous = kolo__rendezvous_address(server),
                                            .job = "job",
                                            .token = "secret",
                                            .rank = rank,
                                            .size = RANKS,
                                            .deadline_ns =
                                                kolo__now_ns(&kolo__real_clock) + 20000000000u,
                                            .timeout_s = 20};
    return kolo__control_connect(&options, &controls[rank]) == KOLO_OK &&
                   kolo__control_join(controls[rank], "", 0) == KOLO_OK
               ? argument
               : NULL;
}

static bool has_formed(void)
{
    return server->formed;
}

static bool has_fault(void)
{
    return server->fault.set;
}

static void serve_until(bool (*done)(void))
{
    const struct timespec pause = {.tv_nsec = 1000000};
    for (int i = 0; i < 20000 && !done(); i++) {
        kolo__rendezvous_step(server);
        nanosleep(&pause, NULL);
    }
    assert_true(done());
}

static int start(void **state)
{
    (void)state;
    pthread_t threads[RANKS];
    void *joined;
    int bad = 0;
    struct kolo__rendezvous_options options = {
        .host = "127.0.0.1", .job = "job", .token = "secret", .world_size = RANKS, .min_ranks = 1};
    if (kolo__rendezvous_create(&options, &server) != KOLO_OK)
        return 1;
    for (int r = 0; r < RANKS; r++)
        bad |= pthread_create(&threads[r], NULL, join, &controls[r]);
    serve_until(has_formed);
    for (int r = 0; r < RANKS; r++) {
        pthread_join(threads[r], &joined);
        bad |= joined == NULL;
        snprintf(server->members[r].host, sizeof server->members[r].host, "%s", hosts[r]);
    }
    return bad;
}

static int end(void **state)
{
    (void)state;
    for (int r = 0; r < RANKS; r++)
        kolo__control_close(controls[r]);
    kolo__rendezvous_free(server);
    return 0;
}

static void blame(int teller, int peer, const char *how)
{
    struct kolo__fault broken = {.status = KOLO_ERR_PEER_LOST, .peer = peer};
    snprintf(broken.text, sizeof broken.text, "rank %d (host x): its host %s", peer, how);
    kolo__control_report(controls[teller], 1, &broken);
    serve_until(has_fault);
}

/* who: of each rank, whether it is in the next epoch. */
static void assert_left(const char who[RANKS + 1])
{
    char left[RANKS + 1] = "";
    for (uint32_t r = 0; r < RANKS; r++)
        left[r] =
            kolo__membership_has(&server->membership, server->members[r].id, KOLO__MEMBER_ACTIVE)
                ? '1'
                : '0';
    assert_string_equal(left, who);
}

static void test_all_of_a_host_go(void **state)
{
    (void)state;
    blame(2, 1, KOLO__SILENCE_TEXT);
    assert_left("11010");
    assert_non_null(strstr(server->members[4].gone_why, "is cut off from rank 1 (host a)"));
}

static void test_one_of_the_same_host_goes(void **state)
{
    (void)state;
    blame(4, 2, KOLO__SILENCE_TEXT);
    assert_left("11110");
}

/* Whoever the newer one is. */
static void test_nobody_goes_for_a_connection_that_broke(void **state)
{
    (void)state;
    blame(2, 1, "reset the connection");
    assert_left("11111");
}

/* It acknowledges nothing any more; the server has sent it something. */
static void cut_off(uint32_t rank)
{
    struct sock_filter nothing = {.code = BPF_RET | BPF_K, .k = 0};
    const struct sock_fprog drop = {.len = 1, .filter = &nothing};
    struct kolo__member *member = &server->members[rank];
    assert_int_equal(setsockopt(kolo__control_fd(controls[rank]), SOL_SOCKET, SO_ATTACH_FILTER,
                                &drop, sizeof drop),
                     0);
    member->signs.timeout_ns = 5000000000u;
    member->signs.heard_ns = kolo__now_ns(&kolo__real_clock) - 3000000000u;
    kolo__world_tell_to_renew(member->connection, 0);
}

static bool rank_4_is_cut_off(void)
{
    return kolo__world_is_cut_off(&server->members[4], kolo__now_ns(&kolo__real_clock));
}

/* Rank 4 does not answer either; rank 3, on another host, is found by itself. */
static void test_who_is_lost_with_the_host_goes_too(void **state)
{
    (void)state;
    cut_off(3);
    cut_off(4);
    serve_until(rank_4_is_cut_off);
    kolo__world_declare_lost(server, 2, "was lost with its host, which " KOLO__SILENCE_TEXT);
    assert_left("11010");
}

static void test_who_answers_stays(void **state)
{
    (void)state;
    kolo__world_declare_lost(server, 2, "was lost with its host, which " KOLO__SILENCE_TEXT);
    assert_left("11011");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_all_of_a_host_go, start, end),
        cmocka_unit_test_setup_teardown(test_one_of_the_same_host_goes, start, end),
        cmocka_unit_test_setup_teardown(test_nobody_goes_for_a_connection_that_broke, start, end),
        cmocka_unit_test_setup_teardown(test_who_is_lost_with_the_host_goes_too, start, end),
        cmocka_unit_test_setup_teardown(test_who_answers_stays, start, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
