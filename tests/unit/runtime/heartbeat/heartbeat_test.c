/* SPDX-License-Identifier: Apache-2.0 */
/* Who says nothing is lost, and how it is named; who may be silent is not. The server's clock is
 * the test's. */
#include "two_ranks.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static struct kolo__flight flight; /* nothing in it */

/* Returns when rank 1 was heard. Rank 0 is heard for ever. */
static uint64_t beat(void)
{
    for (int r = 0; r < RANKS; r++)
        assert_int_not_equal(kolo__heartbeat_once(controls[r], &flight, TIMEOUT, now()),
                             UINT64_MAX);
    serve_until(both_beat);
    server->members[0].signs.heard_ns += 3600 * SECOND;
    return server->members[1].signs.heard_ns;
}

static bool rank_1_is_answered_for(void)
{
    return server->members[1].connection == NULL ||
           !kolo__silence_is_unanswered(server->members[1].connection->fd);
}

/* Looks at each second and half second until then, as a server that always runs; meanwhile rank 1's
 * host, this one, answers for it. */
static void look_until(uint64_t from_ns, uint64_t to_ns)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    for (uint64_t at_ns = from_ns; at_ns <= to_ns; at_ns += SECOND / 2) {
        kolo__world_judge_beats(server, at_ns);
        for (int i = 0; i < 5000 && !rank_1_is_answered_for(); i++)
            nanosleep(&pause, NULL);
    }
}

/* ---- the server ------------------------------------------------------------------------------ */

static void test_silence_is_a_loss(void **state)
{
    (void)state;
    uint64_t heard_ns = beat();
    look_until(heard_ns, heard_ns + TIMEOUT - SECOND / 2);
    assert_sound();
    assert_true(kolo__rendezvous_is_quiet(server, 1));
    assert_false(kolo__rendezvous_is_quiet(server, 0));
    assert_true(kolo__rendezvous_any_is_quiet(server, 2));
    assert_false(kolo__rendezvous_any_is_quiet(server, 1));
    kolo__world_judge_beats(server, heard_ns + TIMEOUT);
    assert_lost("is silent for 5.0 s, though its host answers");
    assert_lost("before, it had called nothing yet");
}

static void test_a_stopped_process_is_named_as_such(void **state)
{
    (void)state;
    uint64_t heard_ns = beat();
    look_until(heard_ns, heard_ns + TIMEOUT - SECOND / 2);
    kolo__rendezvous_note_state(server, 1, 'T');
    kolo__world_judge_beats(server, heard_ns + TIMEOUT);
    assert_lost("is stopped (SIGSTOP), silent for 5.0 s");
}

static void test_a_process_that_runs_has_longer(void **state)
{
    (void)state;
    uint64_t heard_ns = beat();
    kolo__rendezvous_note_state(server, 1, 'R');
    look_until(heard_ns, heard_ns + 2 * TIMEOUT - SECOND / 2);
    assert_sound();
    kolo__world_judge_beats(server, heard_ns + 2 * TIMEOUT);
    assert_lost("does not get to run");
}

static void test_who_is_heard_again_begins_anew(void **state)
{
    (void)state;
    uint64_t heard_ns = beat();
    look_until(heard_ns, heard_ns + TIMEOUT - SECOND / 2);
    kolo__rendezvous_note_state(server, 1, 'T');
    /* It waits to be read when the time is over. */
    server->members[1].signs.heard_ns = heard_ns - TIMEOUT;
    kolo__heartbeat_once(controls[1], &flight, TIMEOUT, now());
    kolo__world_judge_beats(server, heard_ns + TIMEOUT);
    assert_sound();
    assert_int_equal(server->members[1].signs.state, 0);
}

static void test_time_in_which_the_server_did_not_run_does_not_count(void **state)
{
    (void)state;
    uint64_t heard_ns = beat();
    look_until(heard_ns, heard_ns + SECOND);
    kolo__world_judge_beats(server, heard_ns + 3600 * SECOND);
    assert_sound();
    look_until(heard_ns + 3600 * SECOND, heard_ns + 3603 * SECOND);
    assert_sound();
    look_until(heard_ns + 3603 * SECOND, heard_ns + 3605 * SECOND);
    assert_lost("is silent");
}

static bool rank_1_has_left(void)
{
    return server->members[1].left;
}

static void test_who_has_left_is_not_missed(void **state)
{
    (void)state;
    uint64_t heard_ns = beat();
    kolo__control_bye(controls[1]);
    serve_until(rank_1_has_left);
    look_until(heard_ns, heard_ns + 3 * TIMEOUT);
    assert_sound();
}

static void test_a_goodbye_may_wait_to_be_read(void **state)
{
    (void)state;
    uint64_t heard_ns = beat();
    look_until(heard_ns, heard_ns + TIMEOUT - SECOND / 2);
    kolo__control_bye(controls[1]);
    kolo__world_judge_beats(server, heard_ns + TIMEOUT);
    assert_sound();
}

static void test_what_was_read_late_is_of_now(void **state)
{
    (void)state;
    uint64_t heard_ns = beat();
    look_until(heard_ns, heard_ns + SECOND);
    server->members[1].signs.heard_ns = heard_ns + 3600 * SECOND; /* before others are judged */
    kolo__world_judge_beats(server, heard_ns + 3600 * SECOND);
    assert_int_equal(server->members[1].signs.heard_ns, heard_ns + 3600 * SECOND);
}

static void test_who_never_beats_is_not_missed(void **state)
{
    (void)state;
    look_until(now(), now() + 3 * TIMEOUT);
    assert_sound();
    assert_int_equal(server->beats_due_ns, 0);
}

/* Rank 0 says that its connection to rank 1 broke. Whether the network did it, or rank 1 is lost,
 * depends on whether that is heard. */
static void blame_rank_1(const char *how)
{
    struct kolo__fault broken = {.status = KOLO_ERR_PEER_LOST, .peer = 1};
    snprintf(broken.text, sizeof broken.text, "rank 1 (host b): %s", how);
    kolo__control_report(controls[0], 1, &broken);
}

static bool rank_1_is_blamed(void)
{
    return server->members[1].lost_at_ns != 0;
}

static void test_a_broken_link_is_named_by_its_ends(void **state)
{
    (void)state;
    kolo_status status;
    int rank;
    uint64_t heard_ns = beat();
    blame_rank_1("it does not answer");
    serve_until(rank_1_is_blamed);
    server->members[1].lost_at_ns = heard_ns + SECOND / 10;
    kolo__world_judge_losses(server, heard_ns + 4 * SECOND); /* it may be lost: let that be seen */
    assert_sound();
    kolo__world_judge_losses(server, heard_ns + SECOND);
    const char *text = fault(&status, &rank);
    assert_non_null(text);
    assert_int_equal(status, KOLO_ERR_NETWORK);
    assert_true(strncmp(text, "between rank 0 (host ", 21) == 0);
    assert_non_null(strstr(text, " and rank 1 (host "));
    assert_non_null(strstr(text, "): it does not answer"));
}

/* ---- the rank -------------------------------------------------------------------------------- */

static void test_a_server_that_says_nothing_is_lost(void **state)
{
    (void)state;
    const struct timespec pause = {.tv_nsec = 60000000};
    struct kolo__fault known;
    uint64_t limit_ns = SECOND / 20;
    assert_int_not_equal(kolo__heartbeat_once(controls[1], &flight, limit_ns, now()), UINT64_MAX);
    nanosleep(&pause, NULL); /* the server stands still */
    assert_int_not_equal(kolo__heartbeat_once(controls[1], &flight, limit_ns, now()),
                         UINT64_MAX); /* so did we */
    assert_false(kolo__control_fault(controls[1], 1, &known));
    assert_int_equal(kolo__heartbeat_once(controls[1], &flight, limit_ns, now() - SECOND),
                     UINT64_MAX);
    assert_true(kolo__control_fault(controls[1], 1, &known));
    assert_int_equal(known.status, KOLO_ERR_PEER_LOST);
    assert_non_null(strstr(known.text, "has said nothing for"));
}

static void test_answers_that_nobody_reads_do_not_pile_up(void **state)
{
    (void)state;
    for (int i = 0; i < 4000; i++) {
        assert_int_not_equal(kolo__heartbeat_once(controls[1], &flight, TIMEOUT, now()),
                             UINT64_MAX);
        kolo__rendezvous_step(server);
    }
    assert_sound();
}

static void test_a_thread_beats(void **state)
{
    (void)state;
    struct kolo__heartbeat *heartbeats[RANKS];
    for (int r = 0; r < RANKS; r++)
        assert_int_equal(kolo__heartbeat_start(controls[r], &flight, 1, &heartbeats[r]), KOLO_OK);
    serve_until(both_beat);
    for (int r = 0; r < RANKS; r++)
        kolo__heartbeat_end(heartbeats[r]);
    kolo__heartbeat_end(NULL);
}

/* ---- the next epoch ---------------------------------------------------------------------------
 */

static atomic_bool renewed;
static uint64_t next_looks[RANKS];

static void *renew(void *argument)
{
    struct kolo__control **control = argument;
    return kolo__control_renew(*control, 20000, "", 0) == KOLO_OK ? argument : NULL;
}

static bool second_epoch_has_formed(void)
{
    return server->membership.epoch == 1;
}

/* Nothing but locks may order what it reads: so the others' signal is a relaxed one. */
static void *look_at_both(void *nothing)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    while (!atomic_load_explicit(&renewed, memory_order_relaxed))
        nanosleep(&pause, NULL);
    for (int r = 0; r < RANKS; r++)
        next_looks[r] = kolo__heartbeat_once(controls[r], &flight, SECOND / 20, 0);
    return nothing;
}

/* kolo_renew replaces the table of ranks, and may hang up, while the thread of signs of life looks.
 * ThreadSanitizer tells when it does so without the lock. */
static void test_a_look_may_come_after_a_renewal(void **state)
{
    (void)state;
    pthread_t looking, threads[RANKS];
    void *result;
    const struct timespec pause = {.tv_nsec = 60000000};
    atomic_store(&renewed, false);
    assert_int_equal(pthread_create(&looking, NULL, look_at_both, NULL), 0);
    for (int r = 0; r < RANKS; r++)
        assert_int_equal(pthread_create(&threads[r], NULL, renew, &controls[r]), 0);
    serve_until(second_epoch_has_formed);
    for (int r = 0; r < RANKS; r++) {
        assert_int_equal(pthread_join(threads[r], &result), 0);
        assert_non_null(result);
    }
    pthread_mutex_lock(&controls[0]->lock);
    kolo__control_hang_up(controls[0]);
    pthread_mutex_unlock(&controls[0]->lock);
    nanosleep(&pause, NULL); /* the server stands still */
    atomic_store_explicit(&renewed, true, memory_order_relaxed);
    assert_int_equal(pthread_join(looking, NULL), 0);
    assert_int_not_equal(next_looks[0], UINT64_MAX); /* of nobody */
    assert_int_equal(next_looks[1], UINT64_MAX);
}

static struct kolo__control *newcomer;

static void *come(void *argument)
{
    struct kolo__control_options options = {.rendezvous = kolo__rendezvous_address(server),
                                            .job = "job",
                                            .token = "secret",
                                            .rank = RANKS,
                                            .size = KOLO__SIZE_UNKNOWN,
                                            .deadline_ns = now() + 20 * SECOND,
                                            .timeout_s = 20};
    return kolo__control_connect(&options, &newcomer) == KOLO_OK &&
                   kolo__control_join(newcomer, no_words, sizeof no_words) == KOLO_OK
               ? argument
               : NULL;
}

static bool newcomer_waits(void)
{
    return kolo__membership_count(&server->membership, KOLO__MEMBER_WAITING) == 1;
}

/* Stopped while it waited, say: it would hold up the epoch that it comes to. */
static void test_a_newcomer_that_never_beats_is_missed(void **state)
{
    (void)state;
    pthread_t coming, threads[RANKS];
    void *result;
    kolo_status status;
    int rank;
    beat();
    assert_int_equal(pthread_create(&coming, NULL, come, server), 0);
    serve_until(newcomer_waits);
    for (int r = 0; r < RANKS; r++)
        assert_int_equal(pthread_create(&threads[r], NULL, renew, &controls[r]), 0);
    serve_until(second_epoch_has_formed);
    for (int r = 0; r < RANKS; r++)
        assert_int_equal(pthread_join(threads[r], &result), 0);
    assert_int_equal(pthread_join(coming, &result), 0);
    assert_non_null(result);
    uint64_t heard_ns = server->members[RANKS].signs.heard_ns;
    for (int r = 0; r < RANKS; r++)
        server->members[r].signs.heard_ns = heard_ns + 3600 * SECOND;
    look_until(heard_ns, heard_ns + TIMEOUT - SECOND);
    assert_sound();
    look_until(heard_ns + TIMEOUT, heard_ns + TIMEOUT + SECOND);
    assert_non_null(fault(&status, &rank));
    assert_int_equal(status, KOLO_ERR_PEER_LOST);
    assert_int_equal(rank, RANKS);
    kolo__control_close(newcomer);
}

/* Who hears nothing any more gives up the timeout after an answer, and his last beat came up to 5/4
 * of a pause after that one: by then he has to count as cut off, or his end is taken for the cause.
 */
static void test_who_gives_up_is_cut_off_by_then(void **state)
{
    (void)state;
    uint64_t gives_up_ns = TIMEOUT - kolo__heartbeat_pause_ns(TIMEOUT) * 5 / 4;
    assert_true(kolo__heartbeat_cut_off_ns(TIMEOUT) + TIMEOUT / 20 <= gives_up_ns);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start_ranks, end_ranks)
    const struct CMUnitTest tests[] = {
        TEST(test_silence_is_a_loss),
        TEST(test_a_stopped_process_is_named_as_such),
        TEST(test_a_process_that_runs_has_longer),
        TEST(test_who_is_heard_again_begins_anew),
        TEST(test_time_in_which_the_server_did_not_run_does_not_count),
        TEST(test_who_has_left_is_not_missed),
        TEST(test_a_goodbye_may_wait_to_be_read),
        TEST(test_what_was_read_late_is_of_now),
        TEST(test_who_never_beats_is_not_missed),
        TEST(test_a_broken_link_is_named_by_its_ends),
        TEST(test_a_server_that_says_nothing_is_lost),
        TEST(test_answers_that_nobody_reads_do_not_pile_up),
        TEST(test_a_thread_beats),
        TEST(test_a_look_may_come_after_a_renewal),
        TEST(test_a_newcomer_that_never_beats_is_missed),
        TEST(test_who_gives_up_is_cut_off_by_then),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
