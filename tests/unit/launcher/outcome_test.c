/* SPDX-License-Identifier: Apache-2.0 */
/* Who failed first, though the launcher may see the dead in another order. */
#include "launcher/outcome.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const uint64_t MILLISECOND = 1000000;

/* As wait(2) encodes them. */
static struct kolo__ending exited(int code, uint64_t at_ms)
{
    return (struct kolo__ending){
        .ended = true, .wait_status = code << 8, .at_ns = at_ms * MILLISECOND};
}

static struct kolo__ending killed(int number, uint64_t at_ms)
{
    return (struct kolo__ending){
        .ended = true, .wait_status = number, .at_ns = at_ms * MILLISECOND};
}

static void nobody_failed(void **state)
{
    (void)state;
    const struct kolo__ending endings[] = {exited(0, 1), exited(0, 2), {0}};
    assert_int_equal(kolo__first_failure(endings, 3, -1), -1);
    /* The rendezvous may call a rank lost that left early, with code 0. */
    assert_int_equal(kolo__first_failure(endings, 3, 1), -1);
}

static void the_earliest_is_first(void **state)
{
    (void)state;
    const struct kolo__ending endings[] = {exited(0, 1), exited(3, 900), exited(4, 500)};
    assert_int_equal(kolo__first_failure(endings, 3, -1), 2);
}

static void one_killed_comes_before_those_it_took_along(void **state)
{
    (void)state;
    struct kolo__ending endings[] = {exited(1, 1000), killed(SIGKILL, 1100), exited(1, 1050)};
    assert_int_equal(kolo__first_failure(endings, 3, -1), 1);
    endings[1].at_ns += 500 * MILLISECOND; /* too late to be the cause */
    assert_int_equal(kolo__first_failure(endings, 3, -1), 0);
}

static void the_rendezvous_knows_better(void **state)
{
    (void)state;
    const struct kolo__ending endings[] = {exited(1, 1000), exited(3, 1001), {0}};
    assert_int_equal(kolo__first_failure(endings, 3, 1), 1);
    assert_int_equal(kolo__first_failure(endings, 3, 2), 0);
    assert_int_equal(kolo__first_failure(endings, 3, 7), 0);
}

static void one_that_left_with_code_0_failed_those_that_needed_it(void **state)
{
    (void)state;
    struct kolo__ending endings[] = {exited(1, 1000), exited(0, 900), exited(1, 1001)};
    assert_int_equal(kolo__first_failure(endings, 3, 1), 1);
    assert_int_equal(kolo__first_failure(endings, 3, -1), 0);
    assert_int_equal(kolo__ending_exit_code(&endings[1], true), 76);
    assert_int_equal(kolo__ending_exit_code(&endings[1], false), 75);
    endings[1].asked = true; /* it did as it was told */
    assert_int_equal(kolo__first_failure(endings, 3, 1), 0);
}

static void what_kept_the_world_from_forming_tells_the_code(void **state)
{
    (void)state;
    assert_int_equal(kolo__obstacle_exit_code(KOLO_OK), 0);
    assert_int_equal(kolo__obstacle_exit_code(KOLO_ERR_CONFIG), 64);
    assert_int_equal(kolo__obstacle_exit_code(KOLO_ERR_WORLD), 65);
    assert_int_equal(kolo__obstacle_exit_code(KOLO_ERR_TIMEOUT), 75);
    assert_int_equal(kolo__obstacle_exit_code(KOLO_ERR_PEER_LOST), 0); /* that rank's own */
}

static void those_we_ended_did_not_fail(void **state)
{
    (void)state;
    struct kolo__ending endings[] = {killed(SIGTERM, 1), exited(5, 9000)};
    endings[0].asked = true;
    assert_int_equal(kolo__first_failure(endings, 2, 0), 1);
    endings[1].asked = true;
    assert_int_equal(kolo__first_failure(endings, 2, -1), -1);
}

static void nobody_is_left_of_those_that_went_on(void **state)
{
    (void)state;
    struct kolo__ending endings[] = {exited(4, 1000), exited(5, 2000), killed(SIGTERM, 3000)};
    endings[0].survived = endings[1].survived = endings[2].asked = true;
    assert_int_equal(kolo__first_failure(endings, 3, -1), -1);
    assert_int_equal(kolo__last_failure(endings, 3), 1);
    endings[0] = exited(0, 1000);
    assert_int_equal(kolo__last_failure(endings, 3), -1);
    endings[0] = endings[1] = endings[2];
    assert_int_equal(kolo__last_failure(endings, 3), -1);
}

static void says_how_it_ended(void **state)
{
    (void)state;
    char text[96];
    struct kolo__ending ending = killed(SIGKILL, 0);
    assert_string_equal(kolo__ending_text(&ending, text, sizeof text),
                        "was killed by signal 9 (SIGKILL)");
    assert_int_equal(kolo__ending_exit_code(&ending, true), 76);
    assert_int_equal(kolo__ending_exit_code(&ending, false), 76);
    ending = exited(3, 0);
    assert_string_equal(kolo__ending_text(&ending, text, sizeof text), "exited with code 3");
    assert_int_equal(kolo__ending_exit_code(&ending, true), 3);
    assert_int_equal(kolo__ending_exit_code(&ending, false), 3);
    ending = killed(SIGRTMIN + 3, 0);
    assert_non_null(kolo__ending_text(&ending, text, sizeof text));
    ending = killed(SIGSEGV | 0x80, 0); /* with a core dump */
    assert_string_equal(kolo__ending_text(&ending, text, sizeof text),
                        "was killed by signal 11 (SIGSEGV, core dumped)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_failed),
        cmocka_unit_test(the_earliest_is_first),
        cmocka_unit_test(one_killed_comes_before_those_it_took_along),
        cmocka_unit_test(the_rendezvous_knows_better),
        cmocka_unit_test(one_that_left_with_code_0_failed_those_that_needed_it),
        cmocka_unit_test(what_kept_the_world_from_forming_tells_the_code),
        cmocka_unit_test(those_we_ended_did_not_fail),
        cmocka_unit_test(nobody_is_left_of_those_that_went_on),
        cmocka_unit_test(says_how_it_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
