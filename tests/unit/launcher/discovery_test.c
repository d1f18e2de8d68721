/* SPDX-License-Identifier: Apache-2.0 */
/* --discover: real scripts, at a time of our own: what they print, how they fail, and that they
 * end. */
#include "launcher/discovery.h"

#include "base/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static const uint64_t SECOND = 1000000000;

enum { PATIENCE = 3000 }; /* looks of 10 ms, at most */

static const struct kolo__hosts NOBODY;

static struct kolo__discovery *begin(const char *script)
{
    struct kolo__discovery *discovery;
    assert_int_equal(KOLO_OK, kolo__discovery_open(script, 0, &NOBODY, &discovery));
    return discovery;
}

/* Until the run has ended that is under way, or begins now; the clock stands still. */
static enum kolo__discovery_news run(struct kolo__discovery *discovery, uint64_t now_ns,
                                     struct kolo__hosts *hosts)
{
    const struct timespec moment = {.tv_nsec = 10000000};
    enum kolo__discovery_news news = KOLO__DISCOVERY_NOTHING;
    *hosts = (struct kolo__hosts){0};
    for (int i = 0; i < PATIENCE && news == KOLO__DISCOVERY_NOTHING; i++) {
        kolo__discovery_step(discovery, now_ns);
        news = kolo__discovery_take(discovery, hosts);
        if (news == KOLO__DISCOVERY_NOTHING)
            nanosleep(&moment, NULL);
    }
    return news;
}

static void expect_fault(const char *script, kolo_status status, const char *text)
{
    struct kolo__hosts hosts;
    struct kolo__discovery *discovery = begin(script);
    assert_int_equal(KOLO__DISCOVERY_FAULT, run(discovery, SECOND, &hosts));
    assert_int_equal(status, kolo__discovery_fault(discovery));
    if (strstr(kolo_error_text(), text) == NULL)
        fail_msg("'%s' does not contain '%s'", kolo_error_text(), text);
    kolo__discovery_close(discovery);
}

static void test_lists(void **state)
{
    struct kolo__hosts hosts;
    const struct kolo__hosts *named = &(struct kolo__hosts){
        .list = (struct kolo__host[]){{.name = "B.example", .slots = 5}}, .count = 1};
    struct kolo__discovery *discovery;
    (void)state;
    assert_int_equal(KOLO_OK,
                     kolo__discovery_open("printf 'a:2\\nb.example\\nc slots=4 # big\\nd\\n'", 0,
                                          named, &discovery));
    assert_int_equal(KOLO__DISCOVERY_HOSTS, run(discovery, SECOND, &hosts));
    assert_int_equal(4, hosts.count);
    assert_int_equal(2, hosts.list[0].slots);
    assert_int_equal(5, hosts.list[1].slots); /* by the hostfile */
    assert_int_equal(4, hosts.list[2].slots);
    assert_string_equal("d", hosts.list[3].name);
    assert_int_equal(0, hosts.list[3].slots);
    kolo__hosts_free(&hosts);
    assert_int_equal(KOLO__DISCOVERY_NOTHING, kolo__discovery_take(discovery, &hosts)); /* once */
    kolo__discovery_close(discovery);

    assert_int_equal(KOLO_OK, kolo__discovery_open("echo a:2", 3, named, &discovery));
    assert_int_equal(KOLO__DISCOVERY_HOSTS, run(discovery, SECOND, &hosts));
    assert_int_equal(3, hosts.list[0].slots);
    kolo__hosts_free(&hosts);
    kolo__discovery_close(discovery);

    discovery = begin(":"); /* no worker runs yet */
    assert_int_equal(KOLO__DISCOVERY_HOSTS, run(discovery, SECOND, &hosts));
    assert_int_equal(0, hosts.count);
    kolo__discovery_close(discovery);
}

static void test_runs_again_after_a_second(void **state)
{
    struct kolo__hosts hosts;
    struct kolo__discovery *discovery = begin("echo a:1");
    (void)state;
    for (uint64_t now_ns = SECOND; now_ns < 4 * SECOND; now_ns += SECOND) {
        assert_int_equal(KOLO__DISCOVERY_HOSTS, run(discovery, now_ns, &hosts));
        kolo__hosts_free(&hosts);
        kolo__discovery_step(discovery, now_ns + SECOND - 1);
        assert_int_equal(KOLO__DISCOVERY_NOTHING, kolo__discovery_take(discovery, &hosts));
    }
    kolo__discovery_close(discovery);
}

static void test_garbage_names_line_and_remedy(void **state)
{
    (void)state;
    expect_fault("echo a:1; echo; echo 'Error no cloud'", KOLO_ERR_CONFIG,
                 ", line 3: 'no' means nothing here: a line is HOST slots=N, or HOST:N");
    expect_fault("echo a:many", KOLO_ERR_CONFIG, "'many' is no number of slots for a: give a");
    expect_fault("printf 'a\\001b\\n'", KOLO_ERR_CONFIG, "is no name or address of a host");
    expect_fault("printf 'a:1\\n\\000\\n'", KOLO_ERR_CONFIG, "holds zero bytes: a line is HOST");
    expect_fault("yes host1", KOLO_ERR_CONFIG, "yes host1 printed is longer than 1048576 bytes");
}

static void test_failures(void **state)
{
    (void)state;
    expect_fault("echo a:1; echo some; echo 'no cloud' >&2; exit 3", KOLO_ERR_WORLD,
                 "exited with code 3, no cloud: what it said before holds");
    expect_fault("kill -SEGV $$", KOLO_ERR_WORLD, "was killed by signal 11");
    expect_fault("/nonexistent/script", KOLO_ERR_CONFIG, "cannot be executed (sh: 1: /nonexistent");
}

/* Each fault is told when it begins and when it is another, and a good run is always news. */
static void test_faults_are_told_once(void **state)
{
    struct kolo__hosts hosts;
    char path[] = "discovery.XXXXXX", script[100];
    int fd = mkstemp(path);
    (void)state;
    assert_true(fd >= 0);
    snprintf(script, sizeof script, ". ./%s", path);
    struct kolo__discovery *discovery = begin(script);
    uint64_t now_ns = SECOND;
    assert_int_equal(7, write(fd, "exit 3\n", 7));
    assert_int_equal(KOLO__DISCOVERY_FAULT, run(discovery, now_ns, &hosts));
    kolo__discovery_step(discovery, now_ns += 2 * SECOND); /* the same again */
    while (waitid(P_ALL, 0, &(siginfo_t){0}, WEXITED | WNOWAIT) == 0)
        kolo__discovery_step(discovery, now_ns); /* until it has no child */
    assert_int_equal(KOLO__DISCOVERY_NOTHING, kolo__discovery_take(discovery, &hosts));
    assert_int_equal(7, pwrite(fd, "exit 4\n", 7, 0));
    assert_int_equal(KOLO__DISCOVERY_FAULT, run(discovery, now_ns += 2 * SECOND, &hosts));
    assert_int_equal(7, pwrite(fd, "exit 0\n", 7, 0));
    assert_int_equal(KOLO__DISCOVERY_HOSTS, run(discovery, now_ns += 2 * SECOND, &hosts));
    assert_int_equal(7, pwrite(fd, "exit 4\n", 7, 0));
    assert_int_equal(KOLO__DISCOVERY_FAULT, run(discovery, now_ns += 2 * SECOND, &hosts));
    kolo__discovery_close(discovery);
    close(fd);
    unlink(path);
}

static void test_one_that_hangs_is_killed(void **state)
{
    struct kolo__hosts hosts;
    const struct timespec moment = {.tv_nsec = 100000000};
    struct kolo__discovery *discovery = begin("echo a:1; sleep 1000 & sleep 1000");
    (void)state;
    kolo__discovery_step(discovery, SECOND);
    nanosleep(&moment, NULL);
    kolo__discovery_step(discovery, 11 * SECOND - 1);
    assert_int_equal(KOLO__DISCOVERY_NOTHING, kolo__discovery_take(discovery, &hosts));
    assert_int_equal(KOLO__DISCOVERY_FAULT, run(discovery, 11 * SECOND, &hosts));
    assert_int_equal(KOLO_ERR_TIMEOUT, kolo__discovery_fault(discovery));
    assert_non_null(strstr(kolo_error_text(), "did not end within 10 s, and was killed"));
    kolo__discovery_close(discovery);

    discovery = begin("sleep 1000"); /* at the end of the job */
    kolo__discovery_step(discovery, SECOND);
    kolo__discovery_close(discovery);
    assert_int_equal(-1, waitpid(-1, NULL, WNOHANG)); /* nothing is left */
}

/* What it leaves behind would be there a thousand times after a thousand runs, and may hold its
 * output open. */
static void test_what_it_leaves_behind_ends(void **state)
{
    struct kolo__hosts hosts;
    struct kolo__discovery *discovery = begin("echo a:1; sleep 1000 &");
    (void)state;
    assert_int_equal(KOLO__DISCOVERY_HOSTS, run(discovery, SECOND, &hosts));
    assert_int_equal(1, hosts.count);
    kolo__hosts_free(&hosts);
    kolo__discovery_close(discovery);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_runs_again_after_a_second),
        cmocka_unit_test(test_garbage_names_line_and_remedy),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_faults_are_told_once),
        cmocka_unit_test(test_one_that_hangs_is_killed),
        cmocka_unit_test(test_what_it_leaves_behind_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
