/* SPDX-License-Identifier: Apache-2.0 */
/* A rank that lives and does not come is named to those that wait for it, as soon as it would have
 * been lost in silence; and only then. */
#include "two_ranks.h"

#include <string.h>

static struct kolo__flight flights[RANKS];

static struct kolo__signature allreduce(uint64_t sequence)
{
    return (struct kolo__signature){.comm = 1,
                                    .sequence = sequence,
                                    .collective = KOLO__ALLREDUCE,
                                    .dtype = KOLO_FP32,
                                    .algorithm = 0xff,
                                    .count = 5};
}

/* Rank 0 waits in an allreduce for so long, which rank 1 has not entered, or has. Both say so. */
static void wait_and_beat(uint64_t waited_ns, bool rank_1_comes)
{
    for (uint32_t r = 0; r < RANKS; r++) {
        struct kolo__flight_pen pen;
        memset(&flights[r], 0, sizeof flights[r]);
        kolo__flight_take_line(&flights[r], &pen, 1, RANKS);
        atomic_store(&flights[r].version, KOLO__FLIGHT_VERSION);
        for (uint64_t sequence = 1; sequence <= (r == 0 || rank_1_comes ? 2 : 1); sequence++) {
            struct kolo__signature signature = allreduce(sequence);
            struct kolo__flight_entry *entry =
                kolo__flight_add(&pen, &signature, KOLO__FLIGHT_COLLECTIVE, 0);
            if (sequence == 1)
                kolo__flight_set_phase(entry, KOLO__FLIGHT_DONE);
            else
                kolo__flight_waits(entry, &signature, now() - waited_ns);
        }
    }
    for (int r = 0; r < RANKS; r++) {
        server->members[r].signs.timeout_ns = 0;
        kolo__heartbeat_once(controls[r], &flights[r], TIMEOUT, now());
    }
    serve_until(both_beat);
}

static bool has_note(int rank, char text[KOLO__NOTE_TEXT_BYTES])
{
    kolo__control_poll(controls[rank]);
    return kolo__control_note(controls[rank], 1, text);
}

static bool rank_0_has_a_note(void)
{
    char text[KOLO__NOTE_TEXT_BYTES];
    return has_note(0, text);
}

static void assert_says(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("'%s' does not contain '%s'", text, part);
}

static void test_who_waits_is_told_for_whom(void **state)
{
    (void)state;
    char text[KOLO__NOTE_TEXT_BYTES], unused[KOLO__NOTE_TEXT_BYTES];
    uint64_t longest_ns = 0;
    wait_and_beat(TIMEOUT * 9 / 10, false);
    assert_int_not_equal(server->waits_due_ns, 0);
    assert_null(kolo__rendezvous_held_up(server, now(), &longest_ns));
    serve_until(rank_0_has_a_note);
    assert_true(has_note(0, text));
    assert_true(strncmp(text, "rank 1 (host ", 13) == 0);
    assert_says(text, ") never entered allreduce #2 (5 x fp32, sum); it is outside of kolo, after "
                      "allreduce #1 (5 x fp32, sum); 1 rank waits since ");
    assert_false(has_note(1, unused));
    assert_sound();
    assert_string_equal(kolo__rendezvous_held_up(server, now(), &longest_ns), text);
    assert_true(longest_ns >= TIMEOUT * 9 / 10);
    assert_null(kolo__rendezvous_held_up(server, now() + TIMEOUT, &longest_ns)); /* no news */
    kolo__rendezvous_rank_ended(server, 1, false, "was killed by signal 9 (SIGKILL)");
    assert_lost("before, it had done allreduce #1 (5 x fp32, sum)");
    assert_null(kolo__rendezvous_held_up(server, now(), &longest_ns));
}

static void test_a_short_wait_is_nobodys_concern(void **state)
{
    (void)state;
    wait_and_beat(TIMEOUT / 2, false);
    assert_int_equal(server->waits_due_ns, 0);
}

static void test_those_that_have_all_come_are_at_work(void **state)
{
    (void)state;
    char text[KOLO__NOTE_TEXT_BYTES];
    uint64_t longest_ns;
    wait_and_beat(TIMEOUT, true);
    kolo__world_judge_waits(server, server->waits_due_ns);
    assert_false(has_note(0, text));
    assert_says(kolo__rendezvous_held_up(server, now(), &longest_ns), "all 2 ranks have entered");
}

static void test_who_may_be_lost_is_not_named_before_that_is_known(void **state)
{
    (void)state;
    char text[KOLO__NOTE_TEXT_BYTES];
    wait_and_beat(TIMEOUT, false);
    server->members[1].signs.heard_ns -= TIMEOUT * 3 / 5;
    kolo__world_judge_waits(server, server->waits_due_ns);
    assert_false(has_note(0, text));
    assert_int_equal(server->waits_due_ns, 0); /* the next beat asks again */
}

static void test_a_wait_that_has_become_long_is_said_at_once(void **state)
{
    (void)state;
    uint64_t before_ns = now();
    wait_and_beat(SECOND, false);
    uint64_t next_ns = kolo__heartbeat_once(controls[0], &flights[0], TIMEOUT, now());
    assert_in_range(next_ns, before_ns + TIMEOUT * 9 / 10 - SECOND,
                    now() + TIMEOUT * 9 / 10 - SECOND);
    next_ns = kolo__heartbeat_once(controls[1], &flights[1], TIMEOUT, now());
    assert_true(next_ns > now() + TIMEOUT - SECOND);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start_ranks, end_ranks)
    const struct CMUnitTest tests[] = {
        TEST(test_who_waits_is_told_for_whom),
        TEST(test_a_short_wait_is_nobodys_concern),
        TEST(test_those_that_have_all_come_are_at_work),
        TEST(test_who_may_be_lost_is_not_named_before_that_is_known),
        TEST(test_a_wait_that_has_become_long_is_said_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
