/* SPDX-License-Identifier: Apache-2.0 */
/* The last line of a job: who failed first and why, and the others in consequence. */
#include "launcher/report.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

/* As wait(2) encodes them. */
static struct kolo__ending exited(int code, uint64_t at_ns)
{
    return (struct kolo__ending){.ended = true, .wait_status = code << 8, .at_ns = at_ns};
}

static struct kolo__ending killed(int number, uint64_t at_ns)
{
    return (struct kolo__ending){.ended = true, .wait_status = number, .at_ns = at_ns};
}

static struct kolo__ending told_to_end(int number, uint64_t at_ns)
{
    struct kolo__ending ending = killed(number, at_ns);
    ending.asked = true;
    return ending;
}

static void assert_line(const struct kolo__report_facts *facts, const char *expected)
{
    char text[600];
    assert_string_equal(kolo__report_line(facts, "host a, pid 7", "", "", text, sizeof text),
                        expected);
}

static void a_process_that_died_comes_first(void **state)
{
    (void)state;
    const struct kolo__ending endings[] = {exited(8, 200), exited(8, 210), killed(SIGKILL, 100),
                                           told_to_end(SIGTERM, 300)};
    struct kolo__report_facts facts = {.endings = endings,
                                       .started = 4,
                                       .first_rank = 4,
                                       .first = 2,
                                       .fault = KOLO_ERR_PEER_LOST,
                                       .fault_rank = 2,
                                       .fault_ns = 101,
                                       .fault_text = "rank 2 was killed"};
    assert_false(kolo__report_begins_with_fault(&facts));
    assert_line(&facts, "kolo run: rank 6 (host a, pid 7) was killed by signal 9 (SIGKILL); in "
                        "consequence 2 other ranks failed (exit code 8), 1 was ended");
    facts.fault_ns = 99; /* its connection was seen to break before */
    assert_false(kolo__report_begins_with_fault(&facts));
}

/* What a rank sends still arrives, its end too; what is sent to it does not. */
static void the_end_of_a_rank_that_is_cut_off_is_a_consequence(void **state)
{
    (void)state;
    const struct kolo__ending endings[] = {exited(8, 200), exited(1, 100)};
    struct kolo__report_facts facts = {.endings = endings,
                                       .started = 2,
                                       .first = 1,
                                       .fault = KOLO_ERR_PEER_LOST,
                                       .fault_rank = 1,
                                       .fault_ns = 101,
                                       .fault_text =
                                           "rank 1 was lost with its host, which does not answer "
                                           "any more: it is down, or the network to it is cut"};
    assert_true(kolo__report_begins_with_fault(&facts));
    facts.fault_text = "rank 1 left";
    assert_false(kolo__report_begins_with_fault(&facts));
}

/* Programs that know kolo's codes say whether there was ever a network between them. */
static void ranks_may_say_that_there_was_no_network(void **state)
{
    (void)state;
    const struct kolo__ending none[] = {exited(75, 200), exited(75, 210)},
                              other[] = {exited(75, 200), exited(3, 210)};
    struct kolo__report_facts facts = {.endings = none,
                                       .started = 2,
                                       .fault = KOLO_ERR_NETWORK,
                                       .fault_rank = -1,
                                       .fault_ns = 100,
                                       .fault_text = "rank 0 could not reach rank 1"};
    assert_int_equal(kolo__report_exit_code(&facts), 75);
    facts.endings = other;
    assert_int_equal(kolo__report_exit_code(&facts), 76);
}

static void what_the_rendezvous_found_comes_before_what_followed(void **state)
{
    (void)state;
    const struct kolo__ending endings[] = {exited(8, 200), exited(9, 210),
                                           told_to_end(SIGKILL, 1200)};
    struct kolo__report_facts facts = {.endings = endings,
                                       .started = 3,
                                       .first = 0,
                                       .fault = KOLO_ERR_PEER_LOST,
                                       .fault_rank = 2,
                                       .fault_ns = 150,
                                       .fault_text = "rank 2 (host b) is stopped"};
    assert_true(kolo__report_begins_with_fault(&facts));
    assert_line(&facts,
                "kolo run: rank 2 (host b) is stopped; in consequence 2 other ranks failed");
    facts.fault_ns = 201; /* the first had failed already */
    assert_false(kolo__report_begins_with_fault(&facts));
    facts.fault_ns = 150;
    facts.fault = KOLO_ERR_TIMEOUT;
    assert_false(kolo__report_begins_with_fault(&facts));
}

static void a_link_has_no_culprit(void **state)
{
    (void)state;
    const struct kolo__ending endings[] = {exited(1, 200), exited(1, 210)};
    const struct kolo__report_facts facts = {.endings = endings,
                                             .started = 2,
                                             .first = 1,
                                             .fault = KOLO_ERR_NETWORK,
                                             .fault_rank = 1,
                                             .fault_ns = 150,
                                             .fault_text = "between rank 0 and rank 1"};
    assert_line(&facts, "kolo run: between rank 0 and rank 1; in consequence 2 ranks failed (exit "
                        "code 1)");
}

static void others_in_their_numbers(void **state)
{
    (void)state;
    char text[300];
    const struct kolo__ending endings[] = {exited(3, 1), exited(0, 2), exited(0, 3),
                                           told_to_end(SIGTERM, 4)};
    struct kolo__report_facts facts = {.endings = endings, .started = 1, .fault_rank = -1};
    assert_string_equal(kolo__report_others(&facts, text, sizeof text), "");
    facts.started = 2;
    assert_string_equal(kolo__report_others(&facts, text, sizeof text),
                        "; 1 other rank ended by itself");
    facts.started = 3;
    assert_string_equal(kolo__report_others(&facts, text, sizeof text),
                        "; 2 other ranks ended by themselves");
    facts.started = 4;
    assert_string_equal(kolo__report_others(&facts, text, sizeof text),
                        "; in consequence 1 other rank was ended, 2 ended by themselves");
}

/* Which rank is the first to end of it says nothing. */
static void a_rank_that_says_why_comes_first(void **state)
{
    (void)state;
    const struct kolo__ending endings[] = {exited(8, 200), exited(8, 210), exited(8, 205)};
    struct kolo__report_facts facts = {.endings = endings,
                                       .started = 3,
                                       .first = 0,
                                       .fault_rank = -1,
                                       .word = "rank 2 aborted: the loss is no number",
                                       .word_status = KOLO_ERR_ABORTED,
                                       .word_rank = 2,
                                       .word_ns = 100};
    assert_line(&facts, "kolo run: rank 2 aborted: the loss is no number; in consequence 2 other "
                        "ranks failed (exit code 8)");
    facts.word_status = KOLO_ERR_MISMATCH; /* two say different things: whose fault is it? */
    facts.word = "rank 2 called a, rank 0 called b";
    assert_line(&facts, "kolo run: rank 2 called a, rank 0 called b; in consequence 3 ranks failed "
                        "(exit code 8)");
    /* Its connection was seen to end before its process. */
    facts.fault = KOLO_ERR_PEER_LOST;
    facts.fault_rank = 0;
    facts.fault_ns = 199;
    facts.fault_text = "rank 0 closed its connection";
    assert_false(kolo__report_begins_with_fault(&facts));
    facts.fault_ns = 99; /* so what was said is a consequence */
    assert_true(kolo__report_begins_with_fault(&facts));
    facts.fault = KOLO_OK;
    facts.fault_text = NULL;
    facts.word_ns = 201; /* its own last words, which were read late */
    facts.word_rank = 0;
    facts.word_status = KOLO_ERR_ABORTED;
    assert_line(&facts, "kolo run: rank 2 called a, rank 0 called b; in consequence 2 other ranks "
                        "failed (exit code 8)");
    facts.word_rank = 2; /* said of what had ended before */
    assert_line(&facts, "kolo run: rank 0 (host a, pid 7) exited with code 8; in consequence 2 "
                        "other ranks failed (exit code 8)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_process_that_died_comes_first),
        cmocka_unit_test(the_end_of_a_rank_that_is_cut_off_is_a_consequence),
        cmocka_unit_test(ranks_may_say_that_there_was_no_network),
        cmocka_unit_test(what_the_rendezvous_found_comes_before_what_followed),
        cmocka_unit_test(a_link_has_no_culprit),
        cmocka_unit_test(a_rank_that_says_why_comes_first),
        cmocka_unit_test(others_in_their_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
