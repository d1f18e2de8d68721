/* SPDX-License-Identifier: Apache-2.0 */
/* What is said of strangers: once of each host and kind, whatever they say. */
#include "base/refusals.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct kolo__refusals refusals;
static int kept_stderr;
static FILE *said;

static int listen_in(void **state)
{
    (void)state;
    memset(&refusals, 0, sizeof refusals);
    said = tmpfile();
    kept_stderr = dup(STDERR_FILENO);
    return said == NULL || dup2(fileno(said), STDERR_FILENO) < 0;
}

static int listen_no_more(void **state)
{
    (void)state;
    dup2(kept_stderr, STDERR_FILENO);
    close(kept_stderr);
    return fclose(said);
}

static void refuse(const char *from, const char *reason)
{
    struct kolo__address address;
    assert_int_equal(kolo__address_parse(from, &address), KOLO_OK);
    kolo__refusals_log(&refusals, "here", &address, reason);
}

static int lines(void)
{
    int count = 0, c;
    rewind(said);
    while ((c = getc(said)) != EOF)
        count += c == '\n';
    return count;
}

static void test_one_stranger_says_many_things(void **state)
{
    (void)state;
    char reason[80];
    for (int i = 0; i < 100; i++) {
        snprintf(reason, sizeof reason, "it is no kolo: what it says begins with '%d'", i);
        refuse(i % 2 == 0 ? "10.0.0.1:1000" : "10.0.0.1:2000", reason);
    }
    assert_int_equal(lines(), 1);
}

static void test_hosts_and_kinds(void **state)
{
    (void)state;
    refuse("10.0.0.1:1000", "it is late");
    refuse("10.0.0.1:1000", "it is late");
    refuse("10.0.0.1:1000", "it has another token");
    refuse("10.0.0.2:1000", "it is late");
    refuse("[fd00::1]:1000", "it is late");
    refuse("[fd00::2]:1000", "it is late");
    assert_int_equal(lines(), 5);
}

static void test_no_more_than_some(void **state)
{
    (void)state;
    char from[40];
    for (int i = 0; i < 200; i++) {
        snprintf(from, sizeof from, "10.0.0.%d:1000", i);
        refuse(from, "it is late");
    }
    assert_int_equal(lines(), KOLO__REFUSALS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_stranger_says_many_things, listen_in,
                                        listen_no_more),
        cmocka_unit_test_setup_teardown(test_hosts_and_kinds, listen_in, listen_no_more),
        cmocka_unit_test_setup_teardown(test_no_more_than_some, listen_in, listen_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
